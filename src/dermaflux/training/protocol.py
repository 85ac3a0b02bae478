"""What the training loop asks of what it trains. Reads and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from dermaflux.training.step_log import Work


@dataclass(frozen=True)
class Step:
    """One micro-batch of a step, whose gradient `fit` adds to the step's."""

    loss: Tensor
    """Scalar with gradient; over all micro-batches and processes these sum to the step's loss."""
    image_ids: Sequence[str]
    """Images of the micro-batch, for messages."""
    waited: float = 0.0
    """Seconds the device stood still for the data."""
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    """Named parts of the loss, such as `diffusion_loss`, without gradient; they sum as it does."""


class Objective(Protocol):
    """What is trained, and the loss it is trained for."""

    def weights(self) -> Mapping[str, nn.Parameter]:
        """The trained weights by name; `fit` changes them in place."""
        ...

    def parts(self, step: int) -> Iterable[Step]:
        """This process's micro-batches of an optimiser step, counted from 0; at least one.

        A function of the step alone: a resumed run asks for any step first.
        """
        ...

    def work(self, step: int) -> Work | None:
        """What the step costs over all processes; None when that is not counted."""
        ...


class FunctionObjective:
    """An `Objective` from a function of the step; its work is not counted."""

    def __init__(
        self, weights: Mapping[str, nn.Parameter], parts: Callable[[int], Iterable[Step]]
    ) -> None:
        self._weights, self._parts = weights, parts

    def weights(self) -> Mapping[str, nn.Parameter]:
        """The trained weights by name."""
        return self._weights

    def parts(self, step: int) -> Iterable[Step]:
        """The function's micro-batches."""
        return self._parts(step)

    def work(self, step: int) -> None:
        """Not counted."""
