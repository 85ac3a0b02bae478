"""Stage `synthesize`: the pool of synthetic images, with provenance for every one.

Reads models/generator/, models/backbone/, captions of training images; writes synthetic/ shards of
the one table. Run with `dermaflux synthesize`; `dermaflux reproduce IMAGE_ID` makes one again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaflux import paths, table, tracking
from dermaflux.captions import prompt_bank
from dermaflux.captions.prompt_bank import PromptBank
from dermaflux.checkpoints import Checkpoint, checkpoint, fingerprint
from dermaflux.errors import InputError
from dermaflux.generators import lora, pipeline
from dermaflux.generators.finetune import SETTINGS
from dermaflux.generators.sampling import Pictures, Sampler, sample
from dermaflux.generators.training_images import CLASSES, captioned
from dermaflux.params import Params, Synthesize
from dermaflux.progress import progress
from dermaflux.seeds import derived_seed
from dermaflux.tracking import Log

if TYPE_CHECKING:
    from diffusers import FluxPipeline

_INPUTS = (paths.CORPUS, paths.CAPTIONS, paths.BACKBONE, paths.GENERATOR)


@dataclass(frozen=True)
class Plan:
    """One image to make."""

    index: int
    label: str
    prompt: str
    seed: int

    @property
    def image_id(self) -> str:
        """Name of its row; sorts as its index does."""
        return f"synthetic/{self.index:06d}"


@dataclass(frozen=True)
class Weights:
    """The fine-tuned generator's files."""

    sha256: str
    """Of the LoRA file; manifests name it."""
    text_tokens: int
    precision: str


def run(params: Params) -> None:
    """Write synthetic/ and log images a second as an MLflow run."""
    section = params.synthesize
    parameters = {"seed": params.seed, **section.model_dump()}
    with tracking.start("generator", "synthesize", parameters, inputs=_INPUTS) as log:
        synthesize(section, params.seed, *_INPUTS, paths.SYNTHETIC, log)
        log.outputs(paths.SYNTHETIC)


def synthesize(
    section: Synthesize,
    seed: int,
    corpus: Path,
    captions: Path,
    backbone: Path,
    folder: Path,
    output: Path,
    log: Log,
) -> None:
    """Sample the pool batch by batch; a killed call continues after its last finished batch."""
    weights = read_weights(folder, backbone)
    bank = bank_of(section, corpus, captions)
    plans = plan(section.images, bank, seed)
    sampler = Sampler(section.steps, section.guidance, section.scale, weights.text_tokens)
    origin = pipeline.reference(backbone)
    key = fingerprint(
        section=section.model_dump(), seed=seed, weights=weights.sha256, backbone=origin.identity,
        prompts=[one.prompt for one in plans],
    )  # fmt: skip
    pipe = open_generator(folder, backbone, weights.precision)
    constants = {
        "source": "synthetic", "split": "train", "modality": "synthetic",
        "licence": origin.licence, "generator": f"{origin.name}+lora", "weights": weights.sha256,
        "width": section.scale, "height": section.scale, "scale": section.scale,
        "steps": section.steps, "guidance": section.guidance,
    }  # fmt: skip
    with checkpoint("synthesize", key) as saved:
        rows = _rows(pipe, sampler, plans, section.batch, constants, saved, log)
        table.write(rows, output, section.shard_megabytes)
        _cross_border(section, output)
        saved.discard()


def _cross_border(section: Synthesize, folder: Path) -> None:
    """Hold the written shards to the promises of the suite `synthetic`."""
    from dermaflux.corpus import training_expectations, validate

    frame = training_expectations.with_derived_synthetic(table.metadata(folder))
    validate.check("synthetic", frame, training_expectations.synthetic_promises(section))


def read_weights(folder: Path, backbone: Path) -> Weights:
    """The generator's files, checked; `InputError` when absent or made for another backbone."""
    file, settings = folder / lora.WEIGHTS, folder / SETTINGS
    if not (file.exists() and settings.exists()):
        raise InputError(f"{folder} holds no {lora.WEIGHTS}; run the stage `finetune`")
    facts = json.loads(settings.read_text(encoding="utf-8"))
    if facts["backbone"] != pipeline.reference(backbone).identity:
        raise InputError(
            f"{folder} was fine-tuned on another backbone than {backbone} holds; run the stage "
            "`finetune` again"
        )
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Weights(digest, facts["text_tokens"], facts["precision"])


def bank_of(section: Synthesize, corpus: Path, captions: Path) -> PromptBank:
    """The prompts that the parameter `bank` asks for."""
    if section.bank == "label":
        return prompt_bank.label_only()
    return prompt_bank.from_captions(captioned(corpus, captions), section.bank)


def plan(images: int, bank: PromptBank, seed: int) -> list[Plan]:
    """Classes alternate; seed and prompt of image i depend on (run seed, i) and the bank alone."""
    plans = []
    for index in range(images):
        label = CLASSES[index % len(CLASSES)]
        prompt = bank.draw(label, seed, index)
        plans.append(Plan(index, label, prompt, derived_seed(seed, index)))
    return plans


def open_generator(folder: Path, backbone: Path, precision: str) -> FluxPipeline:
    """The backbone with the adapter merged into its weights, which spares two products a layer."""
    import torch

    pipe = pipeline.load(backbone, precision)
    pipe.load_lora_weights(folder, weight_name=lora.WEIGHTS)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    if pipe.vae.device.type == "cpu":
        pipe.vae.decoder.to(memory_format=torch.channels_last)
    return pipe


def _rows(
    pipe: FluxPipeline,
    sampler: Sampler,
    plans: Sequence[Plan],
    batch: int,
    constants: dict[str, Any],
    saved: Checkpoint,
    log: Log,
) -> Iterator[dict[str, Any]]:
    """Manifest rows with PNG pictures, batch after batch."""
    import time

    import torch

    with progress("synthesize", len(plans)) as advance:
        for number, start in enumerate(range(0, len(plans), batch)):
            members = plans[start : start + batch]
            part = saved.part(f"{number:06d}")
            state = part.load()
            if state is None:
                began = time.perf_counter()
                pictures = sample(
                    pipe, sampler, [one.prompt for one in members], [one.seed for one in members]
                )
                speed = len(members) / (time.perf_counter() - began)
                log.metrics({"images_per_second": speed}, number)
                part.save({"pictures": torch.from_numpy(pictures)})
            else:
                pictures = state["pictures"].numpy()
            for one, picture in zip(members, pictures, strict=True):
                yield _row(one, picture, constants | {"batch": number})
            advance(len(members))


def _row(one: Plan, picture: Pictures, constants: dict[str, Any]) -> dict[str, Any]:
    encoded = png(picture)
    return constants | {
        "image": {"bytes": encoded, "path": f"{one.image_id}.png"},
        "image_id": one.image_id,
        "label": one.label,
        "prompt": one.prompt,
        "seed": one.seed,
        "sha256": table.sha256(encoded),
    }


def png(picture: Pictures) -> bytes:
    """Lossless, so that a picture made again can be compared bit for bit."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def reproduce(params: Params, image_id: str, output: Path, alone: bool = False) -> None:
    """Make one synthetic image again from its manifest row, write a PNG, say how equal it is."""
    made, kept = remake(image_id, paths.SYNTHETIC, paths.BACKBONE, paths.GENERATOR, alone)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(png(made))
    apart = int(np.abs(made.astype(int) - kept.astype(int)).max())
    how = "alone" if alone else "in its batch"
    verdict = "bit-identical to" if apart == 0 else f"at most {apart} of 255 grey levels from"
    print(f"{image_id} sampled {how} is {verdict} the one in {paths.SYNTHETIC}: {output}")


def remake(
    image_id: str, synthetic: Path, backbone: Path, folder: Path, alone: bool = False
) -> tuple[Pictures, Pictures]:
    """(picture sampled again, picture in the shard), each uint8 (H, W, 3).

    Raises `InputError` for an unknown image or when the generator's weights are not the row's.
    """
    rows = table.metadata(synthetic)
    found = rows[rows["image_id"] == image_id]
    if found.empty:
        raise InputError(
            f"{image_id} is not in {synthetic}; its images are {rows['image_id'].iloc[0]} to "
            f"{rows['image_id'].iloc[-1]}"
        )
    row = found.iloc[0]
    weights = read_weights(folder, backbone)
    if weights.sha256 != row["weights"]:
        raise InputError(
            f"{image_id} was made with weights {row['weights'][:12]} but {folder} holds "
            f"{weights.sha256[:12]}; check out the revision that made it (`dvc checkout`)"
        )
    members = found if alone else rows[rows["batch"] == row["batch"]].sort_values("image_id")
    sampler = Sampler(
        int(row["steps"]), float(row["guidance"]), int(row["scale"]), weights.text_tokens
    )
    pipe = open_generator(folder, backbone, weights.precision)
    pictures = sample(pipe, sampler, members["prompt"].tolist(), [int(s) for s in members["seed"]])
    place = members["image_id"].tolist().index(image_id)
    kept = np.asarray(table.decode(dict(table.images(synthetic, [image_id]))[image_id]))
    return pictures[place], kept
