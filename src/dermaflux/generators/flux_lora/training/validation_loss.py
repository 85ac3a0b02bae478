"""Held-out loss that can be compared from step to step and from run to run.

Every image keeps its own latent and noise, and is measured at the same eight times: MLPerf's rule
for FLUX (mlcommons/training, text_to_image), which takes the variance of noise and timesteps out of
the figure. The times are not shifted, so images of all sizes are measured alike. Reads and writes
nothing but the caches its sources stand for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from dermaflux.core.hashing import rank
from dermaflux.core.seeds import generator
from dermaflux.generators.flux_lora.model.loss import velocity_errors
from dermaflux.generators.flux_lora.training.buckets import Bucket, MicroBatch, Order
from dermaflux.training.distributed import Processes
from dermaflux.training.prefetch import moved

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

    from dermaflux.generators.data.images import Sample
    from dermaflux.generators.flux_lora.model.prompt_padding import TextSource
    from dermaflux.generators.flux_lora.training.objective import LatentSource

SIGMAS = tuple((place + 0.5) / 8 for place in range(8))
"""The times of every image: the middles of eight equal parts of (0, 1)."""


def choose(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` images, half of each class, by hash: the same whatever else the split holds.

    A class with fewer gives all it has. Sorted by image_id.
    """
    chosen: list[Sample] = []
    for label in sorted({one.label for one in samples}):
        part = [one for one in samples if one.label == label]
        part.sort(key=lambda one: rank("validation", one.image_id))
        chosen += part[: count // 2]
    return sorted(chosen, key=lambda one: one.image_id)


class Validation:
    """The held-out loss of a model on a fixed set of images."""

    def __init__(
        self,
        model: FluxTransformer2DModel,
        samples: Sequence[Sample],
        buckets: Sequence[Bucket],
        batch_tokens: int,
        latents: LatentSource,
        text: TextSource,
        guidance: float,
        processes: Processes,
    ) -> None:
        self._model, self._samples = model, samples
        self._latents, self._text, self._guidance = latents, text, guidance
        self._processes = processes
        order = Order(buckets, batch_tokens, 1, 0)
        self._batches = [order.at(step)[0] for step in range(order.steps(1))]

    def loss(self) -> dict[str, float]:
        """`validation_loss`, and the same per scale as `validation_loss_128` and so on.

        The mean over images and times. Processes share the images and all return the same numbers.
        """
        processes = self._processes
        errors: dict[int, float] = {}
        rounds = -(-len(self._batches) // processes.world)
        with torch.no_grad():
            for turn in range(rounds):
                # A sharded base needs every process in every forward pass: the last turn repeats.
                place = min(turn * processes.world + processes.rank, len(self._batches) - 1)
                errors.update(self._batch(self._batches[place]))
        found = {key: error for part in processes.gather(errors) for key, error in part.items()}
        return _means([one.scale for one in self._samples], found)

    def _batch(self, micro: MicroBatch) -> dict[int, float]:
        """Sum of the image's errors over the times, by its place among the samples."""
        members = [self._samples[place] for place in micro.members]
        draws = [generator("validation", one.image_id) for one in members]
        latents = self._latents.draw(members, draws)
        noise = torch.stack([torch.randn(latents.shape[1:], generator=draw) for draw in draws])
        device = self._processes.device
        latents, noise = moved(latents, device), moved(noise, device)
        text = self._text([one.caption for one in members], micro.bucket.text_tokens)
        total = torch.zeros(len(members), dtype=torch.float64)
        for sigma in SIGMAS:
            times = torch.full((len(members),), sigma)
            total += velocity_errors(self._model, latents, noise, times, text, self._guidance).cpu()
        return dict(zip(micro.members[: micro.real], total.tolist(), strict=False))


def _means(scales: Sequence[int], errors: dict[int, float]) -> dict[str, float]:
    groups = {"validation_loss": range(len(scales))} | {
        f"validation_loss_{scale}": [place for place, one in enumerate(scales) if one == scale]
        for scale in sorted(set(scales))
    }
    return {
        name: math.fsum(errors[place] for place in places) / (len(places) * len(SIGMAS))
        for name, places in groups.items()
    }
