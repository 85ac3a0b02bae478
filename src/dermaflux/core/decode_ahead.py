"""Process a stream in several threads, with results in the order of the stream."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def decode_ahead(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    ahead: int = 256,
    threads: int | None = None,
) -> Generator[Result, None, None]:
    """Yield `work(item)` in the order of the items, at most `ahead` of them computed in advance.

    `threads` is the number of cores when None. Useful where `work` releases the interpreter's lock,
    as Pillow's decoders do. What `work` raises is raised where its result would have come; closing
    the generator drops the results that were not taken.
    """
    pool = ThreadPoolExecutor(threads or os.cpu_count(), thread_name_prefix="decode-ahead")
    try:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
