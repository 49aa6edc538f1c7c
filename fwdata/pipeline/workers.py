"""Tasks in spawned worker processes, with their progress sent back as it happens."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from fwdata.errors import FwdataError

_queue: Any = None


def _init_worker(queue: Any) -> None:
    global _queue
    _queue = queue


def _run(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments, report=lambda *values: _queue.put(values))


def _listen(queue: Any, on_report: Callable[..., None]) -> None:
    while (item := queue.get()) is not None:
        on_report(*item)


def run_tasks(
    function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], workers: int, on_report: Callable[..., None]
) -> Iterator[Any]:
    """Call `function(*task, report=..)` for every task in worker processes; yields the results as they come.

    function: a module-level function; whatever it passes to `report` reaches `on_report` here, in a thread. Workers run
    one BLAS thread each. The first error stops the others and is raised; FwdataError when a worker died.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    listener = threading.Thread(target=_listen, args=(queue, on_report), daemon=True)
    listener.start()
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=context, initializer=_init_worker, initargs=(queue,)
    )
    pending: set[Future[Any]] = set()
    try:
        pending = {pool.submit(_run, function, task) for task in tasks}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise FwdataError(
            "a worker process died (out of memory, or a decoder crashed); what is written is safe, run the same "
            "command again to continue, with fewer --workers if memory was short"
        ) from None
    finally:
        if pending:
            for process in list((pool._processes or {}).values()):
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        queue.cancel_join_thread()  # a worker that was ended inside a put may hold the queue's lock for ever
        queue.put(None)
        listener.join(timeout=5)
