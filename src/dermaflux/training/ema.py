"""Exponential moving average of trained weights. Reads and writes nothing.

The update is torch's own. diffusers' EMAModel is not used: its first update has decay 0 where the
schedule below has 0.1, its averages have no names, a swap copies all weights to the CPU where this
one copies a single tensor, and for 101 million weights on one core an update takes 93 ms (492 ms
without `foreach`) where torch's takes 43 ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def decay_at(update: int, decay: float) -> float:
    """min(decay, (1 + n) / (10 + n)) at update n, counted from 0.

    Without it the untrained weights would dominate the average for the first 1 / (1 - decay) steps.
    TensorFlow's ExponentialMovingAverage with `num_updates`.
    """
    return min(decay, (1 + update) / (10 + update))


class MovingAverage:
    """The averaged copy of `weights`, on their device in their precision."""

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        self._weights, self._decay = weights, decay
        self.values = {name: weight.detach().clone() for name, weight in weights.items()}

    def update(self, number: int) -> None:
        """Include the weights after optimiser step `number`, counted from 0."""
        average = get_ema_multi_avg_fn(decay_at(number, self._decay))  # type: ignore[no-untyped-call]
        weights = [weight.detach() for weight in self._weights.values()]
        average(list(self.values.values()), weights, number)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Continue from saved averages."""
        for name, value in self.values.items():
            value.copy_(values[name])

    def leave_in_model(self) -> None:
        """Put the averages into the model for good; training is over."""
        self._swap()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model has the averaged weights, after it the trained ones again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, weight in self._weights.items():
            trained = weight.data.clone()
            weight.data.copy_(self.values[name])
            self.values[name].copy_(trained)
