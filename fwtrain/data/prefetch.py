"""Batches fetched ahead by threads, in order, with the time the training thread had to wait for them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Prefetcher[P, R]:
    """Iterates `fetch(plan)` for every plan, in the plans' order whatever the number of threads.

    workers threads keep up to `2 * workers` results ready; 0 fetches in the calling thread. An exception of `fetch` is
    raised where its result would have come. `waited` is the time in seconds the consumer spent inside `next`.
    Use as a context manager: leaving it stops the threads after their current fetch. `begin` starts them before.
    """

    def __init__(self, fetch: Callable[[P], R], plans: Iterable[P], workers: int = 1) -> None:
        self._fetch = fetch
        self._plans = iter(plans)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="fetch") if workers else None
        self._pending: deque[Future[R]] = deque()
        self._depth = 2 * workers
        self.waited = 0.0

    def begin(self) -> None:
        """Start to fetch what the first calls of `next` give."""
        if self._pool is not None:
            self._fill(self._pool)

    def __enter__(self) -> Prefetcher[P, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        began = time.perf_counter()
        try:
            if self._pool is None:
                return self._fetch(next(self._plans))
            self._fill(self._pool)
            if not self._pending:
                raise StopIteration
            result = self._pending.popleft().result()
            self._fill(self._pool)
            return result
        finally:
            self.waited += time.perf_counter() - began

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        while len(self._pending) < self._depth:
            try:
                plan = next(self._plans)
            except StopIteration:
                return
            self._pending.append(pool.submit(self._fetch, plan))
