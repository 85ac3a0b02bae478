"""Reading ahead in threads: order, bounds and ends, arranged with events rather than time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dermaflux.core import decode_ahead as module
from dermaflux.core.decode_ahead import decode_ahead

PATIENCE = 60.0  # seconds until a test that would hang fails instead


def test_results_come_in_order_when_later_work_ends_first() -> None:
    last_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert last_done.wait(PATIENCE)  # for another thread
        if item == 3:
            last_done.set()
        return 10 * item

    assert list(decode_ahead(work, range(4), ahead=3, threads=2)) == [0, 10, 20, 30]
    assert list(decode_ahead(work, [])) == []


def test_items_are_read_at_most_ahead_of_the_results_taken() -> None:
    items: list[int] = []

    def stream() -> Iterator[int]:
        for item in range(100):
            items.append(item)
            yield item

    results = decode_ahead(str, stream(), ahead=3, threads=2)
    assert items == []  # nothing happens before the first result is asked for
    for taken in range(5):
        assert next(results) == str(taken)
        assert items == list(range(taken + 4))
    results.close()


def test_closing_drops_what_has_not_begun_and_ends_the_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[int] = []
    second, closing = threading.Event(), threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            closing.set()
            super().shutdown(wait=wait)

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            second.set()
            assert closing.wait(PATIENCE)
        return item

    monkeypatch.setattr(module, "ThreadPoolExecutor", Pool)
    threads = threading.active_count()
    results = decode_ahead(work, range(50), ahead=20, threads=1)
    assert next(results) == 0
    assert second.wait(PATIENCE)
    results.close()
    assert begun == [0, 1]
    assert threading.active_count() == threads


def test_an_exception_comes_in_the_place_of_its_result() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("the third")
        return item

    results = decode_ahead(work, range(9), ahead=5, threads=3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(results)
    assert list(results) == []
