"""Prepares the next micro-batch while the device computes the present one.

What is prepared must be a function of its number alone, as everything drawn by
`dermaflux.core.seeds` is: then a thread changes when it happens and nothing else. Reads and writes
nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Made = TypeVar("Made")


class Prefetched(Generic[Made]):
    """Iterates over `prepare(item)` in the order of the items, made `depth` ahead by one thread.

    What `prepare` raises is raised where its result would have come. Memory holds `depth` results
    beside the one in use.
    """

    def __init__(
        self, prepare: Callable[[Item], Made], items: Iterable[Item], depth: int = 1
    ) -> None:
        self.waited = 0.0
        """Seconds the loop waited for its last result; the share a faster disk could save."""
        self._made = self._ahead(prepare, items, depth)

    def __iter__(self) -> Iterator[Made]:
        return self._made

    def __next__(self) -> Made:
        return next(self._made)

    def close(self) -> None:
        """Stop early: results not taken are dropped."""
        self._made.close()

    def _ahead(
        self, prepare: Callable[[Item], Made], items: Iterable[Item], depth: int
    ) -> Generator[Made, None, None]:
        pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        try:
            waiting: deque[Future[Made]] = deque()
            for item in items:
                waiting.append(pool.submit(prepare, item))
                if len(waiting) > depth:
                    yield self._taken(waiting.popleft())
            while waiting:
                yield self._taken(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _taken(self, future: Future[Made]) -> Made:
        started = time.perf_counter()
        made = future.result()
        self.waited = time.perf_counter() - started
        return made


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; from CPU to GPU through pinned memory, so that nothing waits."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
