"""Prefetching against a plain loop; who waits for whom is arranged with events, not with time."""

from __future__ import annotations

import threading

import pytest
import torch

from dermaflux.core.seeds import generator
from dermaflux.training import prefetch
from dermaflux.training.prefetch import Prefetched, StepsAhead, moved

PATIENCE = 60.0  # seconds until a test that would hang fails instead


def noise(step: int) -> torch.Tensor:
    return torch.randn(3, generator=generator("prefetch", step))


def test_order_and_draws_are_those_of_a_plain_loop() -> None:
    for depth in (1, 3, 50):
        threads: list[int] = []

        def prepare(step: int, threads: list[int] = threads) -> torch.Tensor:
            threads.append(threading.get_ident())
            return noise(step)

        results = list(Prefetched(prepare, range(20), depth))
        assert len(results) == 20
        assert len(set(threads)) == 1
        assert threading.get_ident() not in threads
        assert all(torch.equal(result, noise(step)) for step, result in enumerate(results))
    assert list(Prefetched(noise, [])) == []
    assert torch.equal(moved(noise(0), torch.device("cpu")), noise(0))


def test_the_next_result_is_prepared_while_the_loop_computes() -> None:
    prepared = [threading.Event() for _ in range(6)]

    def prepare(step: int) -> int:
        prepared[step].set()
        return step

    for step in Prefetched(prepare, range(6)):
        # The loop has not asked for step + 1 yet: without a thread this would wait for ever.
        assert step == 5 or prepared[step + 1].wait(PATIENCE)


def test_steps_are_prepared_over_their_ends_and_anew_out_of_turn() -> None:
    begun = threading.Event()

    def prepare(item: tuple[int, int]) -> tuple[int, int]:
        if item[0] == 1:
            begun.set()
        return item

    ahead = StepsAhead(prepare, lambda step: [(step, 0), (step, 1)], steps=4)
    for step in (0, 1, 3, 1):  # 3 and the last 1 are out of turn
        results = ahead.at(step)
        assert [next(results), next(results)] == [(step, 0), (step, 1)]
        assert begun.wait(PATIENCE), "the first item of step 1 while step 0 is in use"
    ahead.close()
    assert list(ahead.at(2)) == [(2, 0), (2, 1), (3, 0), (3, 1)]


def test_waiting_is_the_time_between_asking_and_getting(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that moves only while something is prepared or computed."""
    seconds = 0.0
    turn = threading.Semaphore(0)

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return seconds

    def prepare(step: int) -> int:
        nonlocal seconds
        if step == 1:
            assert turn.acquire(timeout=PATIENCE)
        seconds += 5
        return step

    monkeypatch.setattr(prefetch, "time", Clock)
    results = Prefetched(prepare, range(2))
    first = iter(results)
    assert next(first) == 0
    assert results.waited == 5  # the loop asked before anything was prepared
    turn.release()
    while seconds < 10:  # the second is prepared while the loop computes
        threading.Event().wait(0.001)
    assert next(first) == 1
    assert results.waited == 0


def test_at_most_depth_results_are_prepared_ahead_and_leaving_early_ends_the_thread() -> None:
    begun: list[int] = []
    fourth = threading.Event()

    def prepare(step: int) -> None:
        begun.append(step)
        if step == 3:
            fourth.set()

    results = Prefetched(prepare, range(100), depth=2)
    threads = threading.active_count()
    next(results)
    next(results)
    assert fourth.wait(PATIENCE)
    results.close()  # waits for what has begun
    assert begun == [0, 1, 2, 3]
    assert threading.active_count() == threads


def test_an_error_is_raised_where_its_result_would_have_come() -> None:
    def failing(step: int) -> int:
        if step == 2:
            raise ValueError("the third")
        return step

    results = Prefetched(failing, range(9), depth=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(results)
