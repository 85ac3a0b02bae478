"""The images and captions a generator is fine-tuned on, and their latents.

Reads corpus/ (split `train` only) and captions/. Latents are keyed by the image's sha256, never by
position: caches that lose step with captions are a known way to destroy the class signal
(huggingface/diffusers issue 14430).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dermaflux import table
from dermaflux.captions.measured import label_sentence
from dermaflux.captions.quality import UNUSABLE
from dermaflux.errors import InputError
from dermaflux.progress import progress
from dermaflux.seeds import generator

if TYPE_CHECKING:
    import pandas as pd
    from diffusers import FluxPipeline

CLASSES = ("benign", "malignant")
_ENCODED_TOGETHER = 16


@dataclass(frozen=True)
class Sample:
    """One training image with its caption."""

    image_id: str
    sha256: str
    label: str
    scale: int
    caption: str


def captioned(corpus: Path, captions: Path, split: str = "train") -> pd.DataFrame:
    """Benign and malignant rows of a split with captions, sorted by image_id.

    Columns image_id, sha256, label, scale, split, source, caption, flags, held_out. Raises
    `InputError` when an image has no caption.
    """
    wanted = ["image_id", "sha256", "label", "scale", "split", "source"]
    rows = table.metadata(corpus, wanted)
    rows = rows[(rows["split"] == split) & rows["label"].isin(CLASSES)]
    texts = table.metadata(captions, ["image_id", "caption", "flags", "held_out"])
    joined = rows.merge(texts, on="image_id", how="left", validate="one_to_one")
    missing = joined["caption"].isna()
    if missing.any():
        raise InputError(
            f"{int(missing.sum())} training images such as {joined['image_id'][missing].iloc[0]} "
            f"have no caption in {captions}; run the stage `caption`"
        )
    joined["held_out"] = joined["held_out"].fillna(False).astype(bool)
    return joined.sort_values("image_id", ignore_index=True)


def trainable(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows to train with: held-out captions left out, those that say nothing replaced.

    A refusal or a text of the other class would teach its words; the sentence of the label alone
    keeps the image.
    """
    kept = rows[~rows["held_out"]].copy()
    pattern = "|".join(UNUSABLE)
    bad = kept["flags"].astype("str").str.contains(pattern, na=False)
    kept.loc[bad, "caption"] = kept.loc[bad, "label"].map(label_sentence)
    return kept.reset_index(drop=True)


def select(rows: pd.DataFrame, scales: Sequence[int], maximum: int, seed: int) -> list[Sample]:
    """Samples of the given scales, sorted by image_id; `maximum` > 0 takes half of it per class.

    The choice depends on (seed, image_id) alone: other images in the corpus do not change the order
    in which a class is drawn. Raises `InputError` for an empty class.
    """
    rows = rows[rows["scale"].isin(scales)]
    chosen = []
    for label in CLASSES:
        part = [
            Sample(row.image_id, row.sha256, row.label, int(row.scale), row.caption)
            for row in rows[rows["label"] == label].itertuples()
        ]
        if not part:
            raise InputError(
                f"finetune.scales {list(scales)} leave no {label} training image; add a "
                "scale or data"
            )
        part.sort(key=lambda one: hashlib.sha256(f"{seed}/{one.image_id}".encode()).digest())
        chosen += part[: maximum // 2] if maximum else part
    return sorted(chosen, key=lambda one: one.image_id)


def epoch_batches(samples: list[Sample], batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices into `samples`, every image once, in shuffled batches of one scale each."""
    draw = generator(seed, "order", epoch)
    batches = []
    for scale in sorted({one.scale for one in samples}):
        members = [index for index, one in enumerate(samples) if one.scale == scale]
        order = torch.randperm(len(members), generator=draw).tolist()
        shuffled = [members[place] for place in order]
        batches += [shuffled[i : i + batch] for i in range(0, len(shuffled), batch)]
    return [batches[place] for place in torch.randperm(len(batches), generator=draw).tolist()]


class Latents:
    """Posterior mean and deviation per image, encoded once, in memory.

    32 kB an image of 128 pixels, 512 kB of 512 in fp32; half of that in bf16.
    """

    def __init__(self, pipe: FluxPipeline, corpus: Path, samples: list[Sample]) -> None:
        self._pipe = pipe
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self._encode(corpus, samples)

    def _encode(self, corpus: Path, samples: list[Sample]) -> None:
        by_id = {one.image_id: one for one in samples}
        waiting: dict[int, list[tuple[str, Tensor]]] = {}
        stream = table.images(corpus, by_id)
        with progress("finetune.latents", len(samples)) as advance:
            for image_id, encoded in stream:
                one = by_id[image_id]
                group = waiting.setdefault(one.scale, [])
                group.append((one.sha256, _unit_image(encoded, one.scale)))
                if len(group) == _ENCODED_TOGETHER:
                    self._encode_group(waiting.pop(one.scale))
                advance(1)
        for scale in sorted(waiting):
            self._encode_group(waiting[scale])

    def _encode_group(self, group: list[tuple[str, Tensor]]) -> None:
        vae = self._pipe.vae
        images = torch.stack([image for _, image in group]).to(vae.device, vae.dtype)
        with torch.no_grad():
            posterior = vae.encode(images).latent_dist
        for (key, _), mean, std in zip(group, posterior.mean, posterior.std, strict=True):
            self._moments[key] = (mean.cpu(), std.cpu())

    def draw(self, batch: Sequence[Sample], draws: Sequence[torch.Generator]) -> Tensor:
        """A fresh posterior sample per image, shifted and scaled, (B, 16, h, w) on the device."""
        mean, std = (
            torch.stack([self._moments[one.sha256][part] for one in batch]).float()
            for part in (0, 1)
        )
        config = self._pipe.vae.config
        noise = torch.stack([torch.randn(mean.shape[1:], generator=draw) for draw in draws])
        latents = mean + std * noise
        scaled = (latents - config.shift_factor) * config.scaling_factor
        return scaled.to(self._pipe.vae.device)


def _unit_image(encoded: bytes, scale: int) -> Tensor:
    """(3, scale, scale) in [-1, 1]; the centre of images that are not square."""
    import numpy as np
    from PIL import Image, ImageOps

    picture = table.decode(encoded)
    if picture.size != (scale, scale):
        picture = ImageOps.fit(picture, (scale, scale), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return pixels.float() / 127.5 - 1
