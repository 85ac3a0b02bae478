"""Images of the trained U-Net, each from its own seed. Reads and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dermaflux.core.arrays import Pixels
from dermaflux.generators.data import autoencoder
from dermaflux.generators.data.options import SamplerName
from dermaflux.generators.data.samplers import sample
from dermaflux.generators.latent_ddpm.model.weights import LatentModel


@dataclass(frozen=True)
class SamplingSettings:
    """How images are sampled; with weights, class and seed they decide the pixels."""

    sampler: SamplerName
    steps: int
    guidance: float
    clip_sample_range: float | None = None
    """In standard deviations of the training latents; None: no limit."""


@torch.inference_mode()
def images(
    model: LatentModel,
    vae: Any,
    settings: SamplingSettings,
    classes: Sequence[int],
    seeds: Sequence[int],
) -> Pixels:
    """uint8 (B, scale, scale, 3), one per class embedding and seed.

    The noise of image i comes from a CPU generator with seed i, so an image does not depend on its
    neighbours in the batch, up to the rounding of batched kernels.
    """
    shape, device = model.description.shape, model.mean.device
    labels = torch.tensor(classes, device=device)

    def denoise(latents: Tensor, time: float) -> Tensor:
        return _clean(model, settings, labels, latents, time)

    latents = sample(
        denoise,
        model.description.path,
        settings.sampler,
        settings.steps,
        (shape.channels, shape.side, shape.side),
        [torch.Generator().manual_seed(seed) for seed in seeds],
        device,
    )
    return autoencoder.pixels(vae, model.restore(latents))


def _clean(
    model: LatentModel, settings: SamplingSettings, labels: Tensor, latents: Tensor, time: float
) -> Tensor:
    """The clean latents that the guided output implies (Ho and Salimans 2022, equation 6)."""
    null = model.description.shape.classes
    times = torch.full((len(labels),), time, device=latents.device)
    if settings.guidance == 1 or bool((labels == null).all()):
        output = model.unet(latents, times, class_labels=labels).sample
    else:
        both = torch.cat([labels, torch.full_like(labels, null)])
        twice = model.unet(latents.repeat(2, 1, 1, 1), times.repeat(2), class_labels=both).sample
        conditional, unconditional = twice.chunk(2)
        output = unconditional + settings.guidance * (conditional - unconditional)
    clean = model.description.path.clean(latents, output, times)
    limit = settings.clip_sample_range
    return clean if limit is None else clean.clamp(-limit, limit)
