"""The tiny backbone that comes with the repository: 70 minutes of one core, kept in bf16.

Trains as `backbone.repository: tiny` does, only longer, and writes a diffusers folder with its
model card. Command: ``dermaflux backbone --release backbones/tiny-flux``.
"""

from __future__ import annotations

from pathlib import Path

import torch

from dermaflux.core.files import atomic_folder
from dermaflux.core.hashing import sha256
from dermaflux.errors import InputError, quoted
from dermaflux.generators.flux_lora.model.pipeline import PARTS, load
from dermaflux.generators.tiny_flux import pipeline, training
from dermaflux.params import RELEASED_BACKBONE, Tiny
from dermaflux.tracking.runs import Log

RECIPE = Tiny(
    images=8000,
    autoencoder_steps=1200,
    autoencoder_batch=8,
    autoencoder_learning_rate=0.0015,
    autoencoder_crop=64,
    flow_steps=12_000,
    flow_batch=16,
    flow_learning_rate=0.002,
)
SEED = 0


def release(folder: Path, work: Path, log: Log, recipe: Tiny = RECIPE) -> None:
    """Train by the recipe in `work`, from the checkpoint where there is one, and write `folder`.

    Raises `InputError` where `folder` holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{quoted(str(folder))} is there already; name a new folder, or move it")
    training.train(recipe, SEED, work, log)
    save_bf16(work, folder, recipe)


def save_bf16(trained: Path, folder: Path, recipe: Tiny) -> None:
    """Write a trained pipeline in bf16, with a model card: recipe, licence, hashes of its files.

    Weights are rounded to the nearest bf16; whoever opens them in fp32 gets those values.
    """
    pipe = load(trained, "fp32", torch.device("cpu"))
    for part in PARTS:
        getattr(pipe, part).to(torch.bfloat16)
    with atomic_folder(folder) as partial:
        pipeline.save(pipe, partial)
        (partial / pipeline.CARD).write_text(_card(partial, recipe), encoding="utf-8")


def _card(folder: Path, recipe: Tiny) -> str:
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
from random weights on {recipe.images:,} lesions at {training.SIDE} pixels that `dermaflux.phantom`
renders, captioned with their true asymmetry, border and colours. It has seen no photograph and no
image of the demo's corpus, and it does not know which lesion is malignant: `finetune` teaches that.
The text encoders are random and frozen. Weights are bf16.

- **Recipe:** decoder {recipe.autoencoder_steps:,} steps of {recipe.autoencoder_batch} crops of
  {recipe.autoencoder_crop} pixels at a learning rate of {recipe.autoencoder_learning_rate:g}; flow
  {recipe.flow_steps:,} steps of {recipe.flow_batch} images at {recipe.flow_learning_rate:g};
  seed {SEED}.
- **Made by:** `dermaflux backbone --release {RELEASED_BACKBONE}`
- **Licence:** CC0 1.0.

SHA-256 of the weights:

{hashes}
"""
