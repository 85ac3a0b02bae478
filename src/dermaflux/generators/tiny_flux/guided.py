"""The released backbone's second round: more lesions, and guidance that its embedding answers to.

Classifier-free guidance (arXiv 2207.12598) is distilled while training goes on, as in model
guidance (arXiv 2502.12154): the target of an image at guidance g > 1 is its own velocity plus
(g - 1) times the model's difference between the image's caption and another image's, which stands
for no caption: the backbone has never seen an empty one. At g = 1, which `finetune` uses, the model
stays a plain rectified flow. So the released backbone has, like FLUX.1-dev, a guidance scale that
costs no second pass.

Reads a pipeline's folder and renders lesions, those of the first round and more; `train` writes
the pipeline to another folder, and resumes from its checkpoint.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel
from torch import Tensor

from dermaflux.core.checkpoints import checkpoint, fingerprint
from dermaflux.core.code_digest import stage_digest
from dermaflux.core.files import atomic_folder
from dermaflux.core.seeds import generator
from dermaflux.generators.flux_lora.model import rectified_flow
from dermaflux.generators.flux_lora.model.loss import pack, velocity
from dermaflux.generators.flux_lora.model.pipeline import folder_hash, load
from dermaflux.generators.flux_lora.model.prompt_padding import Text
from dermaflux.generators.tiny_flux import autoencoder, pipeline
from dermaflux.generators.tiny_flux.training import (
    STREAM,
    Prefixed,
    Texts,
    caption,
    rendered,
    settings_of,
)
from dermaflux.tracking.runs import Log
from dermaflux.training.fit import fit
from dermaflux.training.protocol import FunctionObjective, Step

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel


class Guided(BaseModel):
    """How the second round trains."""

    images: int
    """Rendered lesions, those of the first round included."""
    steps: int
    batch: int
    learning_rate: float
    guided: int
    """Images of a batch that have a guidance above 1: fewer than `batch`."""
    highest: float
    """Guidance is drawn evenly from 1 to this."""


def train(recipe: Guided, seed: int, start: Path, folder: Path, log: Log) -> None:
    """Train the transformer of `start` on and write the pipeline to `folder`, in fp32."""
    from dermaflux.phantom import draw

    key = fingerprint(
        code=stage_digest("backbone"),
        recipe=recipe.model_dump(),
        seed=seed,
        start=folder_hash(start),
    )
    pipe: Any = load(start, "fp32", torch.device("cpu"))
    pipe.transformer.requires_grad_(True)
    lesions = [draw(index, STREAM) for index in range(recipe.images)]
    mean, std = autoencoder.moments(pipe.vae, rendered(lesions))
    texts = Texts(pipe, [caption(lesion) for lesion in lesions])
    shift, scale = pipe.vae.config.shift_factor, pipe.vae.config.scaling_factor

    def step_of(step: int) -> list[Step]:
        draws = generator(seed, "guided", step)
        chosen, text = texts.draw(recipe.batch, draws)
        latents = mean[chosen] + std[chosen] * torch.randn(mean[chosen].shape, generator=draws)
        guidance = 1 + (recipe.highest - 1) * torch.rand(recipe.batch, generator=draws)
        guidance[recipe.guided :] = 1.0
        loss = guided_loss(
            pipe.transformer, (latents - shift) * scale, text, guidance, recipe.guided, draws
        )
        return [Step(loss, [f"{STREAM}/{int(index)}" for index in chosen])]

    with checkpoint("guided", key, output=folder) as saved:
        objective = FunctionObjective(dict(pipe.transformer.named_parameters()), step_of)
        settings = replace(
            settings_of(recipe.steps, recipe.learning_rate),
            warmup_steps=min(500, recipe.steps // 10),
        )
        fit("backbone.guided", objective, settings, saved.part("flow"), Prefixed(log, "guided"))
        with atomic_folder(folder) as partial:
            pipeline.save(pipe, partial)
        saved.discard()


def guided_loss(
    model: FluxTransformer2DModel,
    latents: Tensor,
    text: Text,
    guidance: Tensor,
    guided: int,
    draws: torch.Generator,
) -> Tensor:
    """Mean squared error of the velocity, a scalar; the target of the first `guided` is guided.

    latents: (B, 16, h, w) shifted and scaled; guidance: (B,), at least 1. Each of the guided
    is held against the caption after its own. Sigmas are logit-normal with FLUX's largest shift:
    the shape of a lesion is settled at high noise.
    """
    noise = torch.randn(latents.shape, generator=draws)
    sigma = rectified_flow.logit_normal(len(latents), draws)
    sigma = rectified_flow.shifted(sigma, rectified_flow.MAXIMUM_SHIFT)
    point = rectified_flow.interpolate(latents, noise, sigma)
    target = pack(rectified_flow.target(latents, noise))
    if guided:
        with torch.no_grad():
            some = (model, point[:guided], sigma[:guided])
            own = torch.arange(guided)
            asked, other = (velocity(*some, _chosen(text, own + k), 1.0) for k in (0, 1))
        target[:guided] += (guidance[:guided] - 1)[:, None, None] * (asked - other)
    return (velocity(model, point, sigma, text, guidance) - target).square().mean()


def _chosen(text: Text, places: Tensor) -> Text:
    return Text(text.tokens[places], text.pooled[places], text.ids)
