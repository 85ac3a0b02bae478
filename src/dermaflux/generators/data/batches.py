"""What a micro-batch puts into a model: latents, noise, classes and times. Pure but for the cache.

Every draw belongs to an image's position in the run, so that none depends on how a batch is cut or
on the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dermaflux.core.seeds import generator
from dermaflux.generators.data.arrangement import MicroBatch, TrainingData
from dermaflux.generators.data.diffusion import DiffusionPath
from dermaflux.generators.data.images import Sample
from dermaflux.generators.data.latents import LatentSource
from dermaflux.training.prefetch import moved


@dataclass(frozen=True)
class Batch:
    """What a micro-batch puts into the model; all but the first two on its device."""

    image_ids: Sequence[str]
    dropped: Sequence[bool]
    """Whether each image is shown without its conditions, for guidance."""
    latents: Tensor
    """Standardised, (B, C, h, w)."""
    noise: Tensor
    classes: Tensor
    """Embeddings, (B,) int64."""
    times: Tensor
    """Of `DiffusionPath`, (B,); NaN where each call brings its own."""


@dataclass(frozen=True)
class BatchSource:
    """Makes batches of a run's images."""

    data: TrainingData
    latents: LatentSource
    standardise: Callable[[Tensor], Tensor]
    path: DiffusionPath
    device: torch.device

    def training(self, micro: MicroBatch, seed: int, label_drop: float) -> Batch:
        """A micro-batch with times; a part `label_drop` of it on average without conditions."""
        samples = [self.data.samples[index] for index in micro.members]
        draws = [generator(seed, "finetune", position) for position in micro.positions]
        latents, noise, known = self._drawn(samples, draws)
        fractions = torch.cat([torch.rand(1, generator=draw) for draw in draws])
        dropped = torch.cat([torch.rand(1, generator=draw) for draw in draws]) < label_drop
        classes = torch.where(dropped, len(self.data.classes), known)
        return self._batch(samples, dropped, latents, noise, classes, self.path.times(fractions))

    def held_out(self, batch: MicroBatch) -> Batch:
        """A batch of held-out images, with conditions and without times."""
        samples = [self.data.held_out[index] for index in batch.members]
        draws = [generator("validation", sample.image_id) for sample in samples]
        latents, noise, classes = self._drawn(samples, draws)
        count = len(samples)
        times, dropped = torch.full((count,), torch.nan), torch.zeros(count, dtype=torch.bool)
        return self._batch(samples, dropped, latents, noise, classes, times)

    def held_out_batches(self, size: int) -> list[MicroBatch]:
        """All held-out images in batches of `size`."""
        indices = range(len(self.data.held_out))
        return [MicroBatch(tuple(indices[i : i + size])) for i in indices[::size]]

    def _drawn(
        self, samples: Sequence[Sample], draws: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latents and noise of images, each drawn from its own generator, and their classes."""
        clean = self.latents.draw(samples, draws)
        noise = torch.stack([torch.randn(clean.shape[1:], generator=draw) for draw in draws])
        return clean, noise, torch.tensor([self.data.embedding(sample) for sample in samples])

    def _batch(
        self, samples: Sequence[Sample], dropped: Tensor, latents: Tensor, *rest: Tensor
    ) -> Batch:
        # On the CPU: what is moved ahead of its step must be ready there.
        parts = (self.standardise(latents), *rest)
        moved_parts = [moved(part, self.device) for part in parts]
        return Batch([s.image_id for s in samples], dropped.tolist(), *moved_parts)


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each image, (B,), of (B, C, h, w)."""
    return (output - target).square().mean((1, 2, 3))
