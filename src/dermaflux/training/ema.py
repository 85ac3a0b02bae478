"""Exponential moving average of the adapter's weights. Reads and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def decay_at(update: int, decay: float) -> float:
    """min(decay, (1 + n) / (10 + n)) at update n, counted from 0.

    The start of training would weigh too long otherwise. TensorFlow's ExponentialMovingAverage with
    `num_updates`; diffusers' EMAModel does the same.
    """
    return min(decay, (1 + update) / (10 + update))


class MovingAverage:
    """The averaged copy of `weights`, on their device in their precision."""

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        self._weights, self._decay = weights, decay
        self.values = {name: weight.detach().clone() for name, weight in weights.items()}

    def update(self, number: int) -> None:
        """Take in the weights after optimiser step `number`, counted from 0."""
        torch._foreach_lerp_(
            list(self.values.values()),
            [weight.detach() for weight in self._weights.values()],
            1 - decay_at(number, self._decay),
        )

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Continue from saved averages."""
        for name, value in self.values.items():
            value.copy_(values[name])

    def keep(self) -> None:
        """Leave the averages in the model; training is over."""
        self._swap()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model runs with the averages inside, and with its own weights again after."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, weight in self._weights.items():
            held = weight.data.clone()
            weight.data.copy_(self.values[name])
            self.values[name].copy_(held)
