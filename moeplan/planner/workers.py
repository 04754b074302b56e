"""Looks at deployments one by one, in processes of their own once that pays."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Generic, TypeVar

R = TypeVar("R")
T = TypeVar("T")

LAG = 4
"""How many items run before the result of the first is looked at. The same whatever the machine, so
that what is skipped does not depend on it; also the most processes."""
PATIENCE_S = 0.1
"""Work that takes less in all is done before processes have started."""

_subject: Any = None
"""What a forked process knows its items by."""


class Workers(Generic[T]):
    """Calls methods of `subject` on numbers of items; a context manager that ends its processes.

    Processes are forked, so that they share the items that `subject` knows by number: all of them
    must be there from the start. In a process with threads that is not safe, and on one core it
    does not pay: then all runs here.
    """

    def __init__(self, subject: T):
        self._subject = subject
        self._spent_s = 0.0
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers[T]:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run(
        self, work: Callable[[T, int], R], items: Iterable[int], wanted: Callable[[int], bool]
    ) -> Iterator[tuple[int, R | None]]:
        """Each item with what `work` makes of it, or None if it was not wanted; in their order.

        `wanted` is asked when all but the `LAG` items before have been yielded.
        """
        waiting: deque[tuple[int, Future[R] | None]] = deque()
        for item in items:
            while len(waiting) >= LAG:
                yield self._result(*waiting.popleft())
            waiting.append((item, self._start(work, item) if wanted(item) else None))
        while waiting:
            yield self._result(*waiting.popleft())

    def _result(self, item: int, future: Future[R] | None) -> tuple[int, R | None]:
        return item, None if future is None else future.result()

    def _start(self, work: Callable[[T, int], R], item: int) -> Future[R]:
        if self._pool is None and self._spent_s > PATIENCE_S and _processes() > 1:
            self._pool = self._fork()
        if self._pool is not None:
            return self._pool.submit(_call, work, item)
        done: Future[R] = Future()
        start = time.perf_counter()
        done.set_result(work(self._subject, item))
        self._spent_s += time.perf_counter() - start
        return done

    def _fork(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            _processes(),
            mp_context=multiprocessing.get_context("fork"),
            initializer=_adopt,
            initargs=(self._subject,),
        )


def _processes() -> int:
    """Processes worth starting: cores that this one may use."""
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return 1
    return min(len(os.sched_getaffinity(0)), LAG)


def _adopt(subject: Any) -> None:
    global _subject
    _subject = subject
    gc.freeze()  # what was there before the fork is not garbage: never look through it again


def _call(work: Callable[[Any, int], R], item: int) -> R:
    return work(_subject, item)
