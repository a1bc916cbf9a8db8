"""Work that is done before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")

DEPTH = 2


def ahead(make: Callable[[A], T], of: Iterable[A]) -> Iterator[T]:
    """`make(item)` for each item in order, :data:`DEPTH` of them prepared in threads while the caller works on one.

    An error is raised in its turn. What was begun when the caller stops is finished and thrown away.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(DEPTH, thread_name_prefix="ahead")
    try:
        for item in of:
            waiting.append(pool.submit(make, item))
            if len(waiting) > DEPTH:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
