"""Prepares the next micro-batch while the device computes the present one.

What is prepared must be a function of its number alone, as everything seeded by
`dermaflux.core.seeds` is: then a thread changes when it happens and nothing else. Reads and writes
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor

from dermaflux.core.decode_ahead import decode_ahead

Item = TypeVar("Item")
Result = TypeVar("Result")


class Prefetched(Generic[Result]):
    """Iterates over `prepare(item)` in the order of the items; one thread works `depth` ahead.

    What `prepare` raises is raised where its result would have come. Memory holds `depth` results
    besides the one in use.
    """

    def __init__(
        self, prepare: Callable[[Item], Result], items: Iterable[Item], depth: int = 1
    ) -> None:
        self.waited = 0.0
        """Seconds the loop waited for its last result, which faster preparation would save."""
        self._results = decode_ahead(prepare, items, depth, threads=1)

    def __iter__(self) -> Iterator[Result]:
        return self

    def __next__(self) -> Result:
        started = time.perf_counter()
        result = next(self._results)
        self.waited = time.perf_counter() - started
        return result

    def close(self) -> None:
        """Stop early: results not taken are dropped."""
        self._results.close()


class StepsAhead(Generic[Item, Result]):
    """Prepares the items of optimiser steps in their order, `depth` ahead and over their ends.

    `items` gives those of one step, counted from 0; there are `steps` of them.
    """

    def __init__(
        self,
        prepare: Callable[[Item], Result],
        items: Callable[[int], Iterable[Item]],
        steps: int,
        depth: int = 1,
    ) -> None:
        self._prepare, self._items, self._steps, self._depth = prepare, items, steps, depth
        self._ahead: Prefetched[Result] | None = None
        self._next = 0

    def at(self, step: int) -> Prefetched[Result]:
        """Where the results of this step come next; a step out of turn begins anew."""
        if self._ahead is None or step != self._next:
            self.close()
            steps = range(step, self._steps)
            items = (item for number in steps for item in self._items(number))
            self._ahead = Prefetched(self._prepare, items, self._depth)
        self._next = step + 1
        return self._ahead

    def close(self) -> None:
        """Drop what was prepared for later steps."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; from CPU to GPU through pinned memory, so that nothing waits."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
