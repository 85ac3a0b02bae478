"""The images and captions a generator is fine-tuned on.

Reads the metadata of corpus/ and captions/, never pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dermaflux.captions.text.label import label_sentence
from dermaflux.captions.text.quality import UNUSABLE
from dermaflux.core import table
from dermaflux.core.hashing import rank
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


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
            f"{int(missing.sum())} {split} images such as {joined['image_id'][missing].iloc[0]} "
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
        part.sort(key=lambda one: rank(seed, one.image_id))
        chosen += part[: maximum // 2] if maximum else part
    return sorted(chosen, key=lambda one: one.image_id)
