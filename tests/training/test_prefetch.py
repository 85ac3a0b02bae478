from __future__ import annotations

import threading
import time

import pytest
import torch

from dermaflux.core.seeds import generator
from dermaflux.training.prefetch import Prefetched, moved


def noise(step: int) -> torch.Tensor:
    return torch.randn(3, generator=generator("prefetch", step))


def test_order_and_draws_are_those_of_a_plain_loop() -> None:
    for depth in (1, 3, 50):
        made = list(Prefetched(noise, range(20), depth))
        assert len(made) == 20
        assert all(torch.equal(one, noise(step)) for step, one in enumerate(made))
    assert list(Prefetched(noise, [])) == []
    assert torch.equal(moved(noise(0), torch.device("cpu")), noise(0))


def test_preparing_overlaps_with_computing_and_waiting_is_measured() -> None:
    def slow(step: int) -> int:
        time.sleep(0.05)
        return step

    made, waits = Prefetched(slow, range(6)), []
    started = time.perf_counter()
    for _ in made:
        waits.append(made.waited)
        time.sleep(0.08)
    assert time.perf_counter() - started < 6 * 0.13 - 0.1
    assert waits[0] > 0.04
    assert max(waits[1:]) < 0.04
    starved = Prefetched(slow, range(4))
    assert sum(starved.waited for _ in starved) > 0.15


def test_at_most_depth_results_are_made_ahead_and_leaving_early_ends_the_thread() -> None:
    begun: list[int] = []
    made = Prefetched(begun.append, range(100), depth=2)
    next(made)
    next(made)
    time.sleep(0.05)
    assert begun == [0, 1, 2, 3]
    made.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("prefetch")]
    assert len(begun) == 4


def test_an_error_is_raised_where_its_result_would_have_come() -> None:
    def failing(step: int) -> int:
        if step == 2:
            raise ValueError("the third")
        return step

    made = Prefetched(failing, range(9), depth=4)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(made)
