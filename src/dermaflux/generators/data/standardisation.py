"""Mean and deviation of each channel of the training latents, with which models work on mean 0.

Reads the cache of latents; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from dermaflux.core.hashing import rank
from dermaflux.core.seeds import generator
from dermaflux.errors import InputError
from dermaflux.generators.data.images import Sample
from dermaflux.generators.data.latents import LatentSource

_COUNTED = 4096  # images for the statistics of latents
_TOGETHER = 64


class Standardised:
    """A model that works on standardised latents."""

    mean: Tensor
    """Of each channel of the training latents, (C, 1, 1)."""
    deviation: Tensor

    def standardise(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) to mean 0 and deviation 1 per channel over the training images."""
        return (latents - self.mean.to(latents)) / self.deviation.to(latents)

    def restore(self, latents: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return latents * self.deviation.to(latents) + self.mean.to(latents)


def channel_statistics(draws: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C, 1, 1) of latents, each (B, C, h, w).

    Raises `ValueError` for a channel that never changes.
    """
    count, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for latents in draws:
        values = latents.double()
        count += values.shape[0] * values.shape[2] * values.shape[3]
        total = total + values.sum((0, 2, 3))
        squares = squares + values.square().sum((0, 2, 3))
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    if not bool((deviation > 1e-6).all()):
        raise ValueError("a channel of the latents has the same value everywhere")
    return mean.float().view(-1, 1, 1), deviation.float().view(-1, 1, 1)


def measured(
    latents: LatentSource, samples: Sequence[Sample], autoencoder: str
) -> tuple[Tensor, Tensor]:
    """`channel_statistics` of up to 4,096 training images, chosen by hash.

    Raises `InputError`, with the autoencoder's name, for a channel that never changes.
    """
    counted = sorted(samples, key=lambda sample: rank("latents", sample.image_id))[:_COUNTED]

    def draws() -> Iterator[Tensor]:
        for first in range(0, len(counted), _TOGETHER):
            part = counted[first : first + _TOGETHER]
            yield latents.draw(part, [generator("statistics", s.image_id) for s in part])

    try:
        return channel_statistics(draws())
    except ValueError as error:
        raise InputError(
            f"{error} in {len(counted):,} training images; check the autoencoder {autoencoder}"
        ) from None
