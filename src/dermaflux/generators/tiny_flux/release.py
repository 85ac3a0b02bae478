"""The tiny backbone that comes with the repository: 2.5 hours of one core, kept in bf16.

Trains as `backbone.repository: tiny` does, only longer, then a second round (`guided`) on more
lesions, and writes a diffusers folder with its model card.
Command: ``dermaflux backbone --release backbones/tiny-flux``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel

from dermaflux.core.checkpoints import fingerprint
from dermaflux.core.code_digest import stage_digest
from dermaflux.core.files import atomic_folder
from dermaflux.core.hashing import sha256
from dermaflux.generators.flux_lora.model.pipeline import PARTS, load
from dermaflux.generators.tiny_flux import guided, pipeline, training
from dermaflux.params import RELEASED_BACKBONE, Tiny
from dermaflux.tracking.runs import Log

SEED = 0


class Recipe(BaseModel):
    """Both rounds of a released backbone."""

    first: Tiny
    second: guided.Guided


RECIPE = Recipe(
    first=Tiny(
        images=8000,
        autoencoder_steps=1200,
        autoencoder_batch=8,
        autoencoder_learning_rate=0.0015,
        autoencoder_crop=64,
        flow_steps=12_000,
        flow_batch=16,
        flow_learning_rate=0.002,
    ),
    second=guided.Guided(
        images=24_000, steps=9500, batch=16, learning_rate=0.0015, guided=4, highest=4.0
    ),
)


def release(folder: Path, work: Path, log: Log, recipe: Recipe = RECIPE) -> None:
    """Train by the recipe in `work`, from the checkpoints where there are some; write `folder`.

    The second round starts from the first's weights in bf16. Finished rounds of this recipe are
    taken from `work`.
    """
    key = fingerprint(code=stage_digest("backbone"), recipe=recipe.model_dump(), seed=SEED)
    first, rounded, second = (work / key / name for name in ("first", "rounded", "second"))
    if not rounded.exists():
        training.train(recipe.first, SEED, first, log)
        save_bf16(first, rounded)
    guided.train(recipe.second, SEED, rounded, second, log)
    save_bf16(second, folder, recipe)


def save_bf16(trained: Path, folder: Path, recipe: Recipe | None = None) -> None:
    """Write a trained pipeline in bf16; with a recipe, also a model card with licence and hashes.

    Weights are rounded to the nearest bf16; whoever opens them in fp32 gets those values.
    """
    pipe = load(trained, "fp32", torch.device("cpu"))
    for part in PARTS:
        getattr(pipe, part).to(torch.bfloat16)
    with atomic_folder(folder) as partial:
        pipeline.save(pipe, partial)
        if recipe:
            (partial / pipeline.CARD).write_text(_card(partial, recipe), encoding="utf-8")


def _card(folder: Path, recipe: Recipe) -> str:
    first, second = recipe.first, recipe.second
    files = sorted(folder.rglob("*.safetensors"))
    hashes = "\n".join(
        f"- `{file.relative_to(folder).as_posix()}`, {file.stat().st_size / 1e6:.2f} MB: "
        f"`{sha256(file.read_bytes())}`"
        for file in files
    )
    return f"""---
license: cc0-1.0
library_name: diffusers
pipeline_tag: text-to-image
---
# Tiny FLUX of rendered lesions

A `FluxPipeline` with the parts of FLUX.1-dev and a transformer of 2.4 million parameters, trained
from random weights on {second.images:,} lesions at {training.SIDE} pixels that `dermaflux.phantom`
renders, captioned with their true asymmetry, border and colours. It has seen no photograph and no
image of the demo's corpus, and it does not know which lesion is malignant: `finetune` teaches that.
The text encoders are random and frozen. Weights are bf16. Guidance is distilled: `guidance_scale`
from 1 to {second.highest:g} strengthens the prompt at the cost of a single pass.

- **Recipe:** decoder {first.autoencoder_steps:,} steps of {first.autoencoder_batch} crops of
  {first.autoencoder_crop} pixels at a learning rate of {first.autoencoder_learning_rate:g}; flow
  {first.flow_steps:,} steps of {first.flow_batch} images at {first.flow_learning_rate:g} on the
  first {first.images:,} lesions; then {second.steps:,} steps of {second.batch} images at
  {second.learning_rate:g} on all of them, {second.guided} of each batch with a guidance up to
  {second.highest:g}; seed {SEED}.
- **Made by:** `dermaflux backbone --release {RELEASED_BACKBONE}`
- **Licence:** CC0 1.0.

SHA-256 of the weights:

{hashes}
"""
