"""Images of the trained U-ViT, each from its own seed. Reads and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dermaflux.core.arrays import Pixels
from dermaflux.generators.data import autoencoder
from dermaflux.generators.data.options import SamplerName
from dermaflux.generators.data.samplers import sample
from dermaflux.generators.vap.model.weights import LatentModel

TextSource = Callable[[Sequence[str]], Tensor]
"""B descriptions -> states of their tokens (B, T, D)."""


@dataclass(frozen=True)
class SamplingSettings:
    """How images are sampled; with weights, class, description and seed they decide the pixels."""

    sampler: SamplerName
    steps: int
    guidance: float
    solver_order: int = 2
    """Of `dpm_solver`."""
    clip_sample_range: float | None = None
    """In standard deviations of the training latents; None: no limit."""


@dataclass(frozen=True)
class Wanted:
    """What one image shall show."""

    embedding: int
    """Index of the class; that of no class comes last."""
    prompt: str
    """Empty: no description."""
    seed: int

    def unconditional(self, classes: int) -> bool:
        """Whether there is nothing to be guided to."""
        return self.embedding == classes and not self.prompt


@torch.inference_mode()
def images(
    model: LatentModel,
    vae: Any,
    text: TextSource | None,
    settings: SamplingSettings,
    wanted: Sequence[Wanted],
) -> Pixels:
    """uint8 (B, scale, scale, 3), one for each that is wanted; `text` is None without a tower.

    The noise of an image comes from a CPU generator with its seed, so an image does not depend on
    its neighbours in the batch, up to the rounding of batched kernels.
    """
    shape, device = model.description.shape, model.mean.device
    denoise = _Denoiser(model, settings, text, wanted)
    latents = sample(
        denoise,
        model.description.path,
        settings.sampler,
        settings.steps,
        (shape.channels, shape.side, shape.side),
        [torch.Generator().manual_seed(each.seed) for each in wanted],
        device,
        settings.solver_order,
    )
    return autoencoder.pixels(vae, model.restore(latents))


class _Denoiser:
    """The clean latents that the guided output implies (Ho and Salimans 2022, equation 6).

    What it leads away from is no class and the empty description, which training shows together.
    """

    def __init__(
        self,
        model: LatentModel,
        settings: SamplingSettings,
        text: TextSource | None,
        wanted: Sequence[Wanted],
    ) -> None:
        self._model, self._settings = model, settings
        device, null = model.mean.device, model.description.shape.classes
        classes = [each.embedding for each in wanted]
        prompts = [each.prompt for each in wanted]
        plain = all(each.unconditional(null) for each in wanted)
        self._guided = settings.guidance != 1 and not plain
        if self._guided:
            classes += [null] * len(wanted)
            prompts += [""] * len(wanted)
        self._classes = torch.tensor(classes, device=device)
        self._text = None if text is None else text(prompts).to(device).float()

    def __call__(self, latents: Tensor, time: float) -> Tensor:
        """(B, C, h, w) of points at a time."""
        settings, path = self._settings, self._model.description.path
        copies = 2 if self._guided else 1
        times = torch.full((copies * len(latents),), time, device=latents.device)
        points = latents.repeat(copies, 1, 1, 1)
        output, _ = self._model.uvit(points, times, self._classes, self._text)
        if self._guided:
            conditional, unconditional = output.chunk(2)
            output = unconditional + settings.guidance * (conditional - unconditional)
        clean = path.clean(latents, output, times[: len(latents)])
        limit = settings.clip_sample_range
        return clean if limit is None else clean.clamp(-limit, limit)
