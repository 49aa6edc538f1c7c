"""Tasks in supervised worker processes: one that crashes, hangs or outgrows its memory costs one attempt of a task.

    with WorkerPool(2, memory=4 << 30) as pool:
        for result in pool.run(function, tasks, on_report, retry): ...

`function(*task, link=link)` is a module-level function. Through `link` it sends progress, and announces what it is
about to read and for how long at most; so the parent knows what a worker was at when it ended. Workers are Python
processes in which nothing of the caller's script runs, forked from a clean one that has imported what they need (see
`fwdata.pipeline.worker_process`). They start when there is a task for them, and end with their parent: by Linux's
PR_SET_PDEATHSIG, elsewhere at their next message.
"""

from __future__ import annotations

import itertools
import signal
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Protocol, Self

from fwdata.errors import FwdataError
from fwdata.pipeline.worker_process import Forker, WorkerProcess, fork_server, start_worker

EXIT_MEMORY = 77
"""Exit status of a worker that was refused memory."""

ATTEMPTS = 2
"""Workers that one task, or one thing it announced, may cost."""

type LeftOut = Mapping[str, str]
"""What cost ATTEMPTS workers, as it was announced -> reason."""

type Task = tuple[Any, ...]


class Link(Protocol):
    """What a task can tell whoever runs it."""

    def report(self, *values: Any) -> None:
        """Progress, passed to `on_report`."""

    def announce(self, key: str | None, seconds: float | None = None) -> None:
        """What comes next, and how long it may take; None: nothing in particular, for as long as it needs."""


@dataclass(frozen=True)
class Lost:
    """A worker that ended inside a task."""

    at: str | None
    """What it had announced."""
    why: str
    """Continues `the worker ..`."""


type Retry = Callable[[Task, Lost], Task]
"""Called with a task whose worker ended: the task to do instead, or an error."""


@dataclass(frozen=True)
class LocalLink:
    """The link of a task that runs in this process: announcements have no use here."""

    on_report: Callable[..., None]
    """Called with what the task reports."""

    def report(self, *values: Any) -> None:
        """See Link."""
        self.on_report(*values)

    def announce(self, key: str | None, seconds: float | None = None) -> None:
        """See Link."""


type Near = Callable[[Task], object]
"""Which file a task reads: a worker goes on with its own, and begins one that no other is at while there is any."""


type Named = Callable[[Task], Iterable[str]]
"""Names of what a task reads, of which its worker keeps some for the tasks that read it again."""

type Held = Mapping[int, Collection[str]]
"""By `id` of a task: what it reads of what workers keep."""


class RetryOnce:
    """The default of `WorkerPool.run`: every task is done again once; FwdataError when its worker ends again."""

    def __init__(self) -> None:
        self.lost: set[int] = set()

    def __call__(self, task: Task, lost: Lost) -> Task:
        if id(task) in self.lost:
            raise FwdataError(
                f"a worker process {lost.why} twice in the same part; what is written is safe, run the same command "
                "again to continue, with fewer --workers if memory was short"
            )
        self.lost.add(id(task))
        return task


class RetryThenLeaveOut:
    """What to do about workers that ended: their task once more; what costs ATTEMPTS of them is left out.

    So the result depends on what is read, not on which worker ended: one that was killed from outside changes nothing.
    Tasks end with a LeftOut, of which they get a newer one. name: continues `twice while ..` for a task that ended
    where it had announced nothing, an error with this advice; at: for what is left out. reasons: by announced key.
    """

    def __init__(self, name: Callable[[Task], str], advice: str, at: str) -> None:
        self.reasons: dict[str, str] = {}
        self._name, self._advice, self._at = name, advice, at
        self._ended: Counter[str] = Counter()

    def __call__(self, task: Task, lost: Lost) -> Task:
        where = lost.at or self._name(task)
        self._ended[where] += 1
        if self._ended[where] >= ATTEMPTS:
            if lost.at is None:
                raise FwdataError(f"a worker process {lost.why} twice while {where}; {self._advice}")
            self.reasons[where] = f"the reader {lost.why} twice while {self._at}"
        return (*task[:-1], dict(self.reasons))


@dataclass
class _Worker:
    """One worker process, as its parent sees it. place: its number among those that run; near: of its last task; kept:
    what it keeps of what it has read; at, deadline: of the last announcement."""

    process: WorkerProcess
    connection: Connection
    memory: int | None
    place: int = 0
    near: object = None
    kept: set[str] = field(default_factory=set)
    at: str | None = None
    limit: float | None = None
    deadline: float | None = None
    overran: bool = False

    @classmethod
    def start(cls, memory: int | None, place: int = 0, environment: Mapping[str, str] | None = None) -> _Worker:
        """A new process. Ctrl-C in a terminal reaches its parent only."""
        here, there = Pipe()
        with there:
            return cls(start_worker(there, memory, environment or {}), here, memory, place)

    def give(self, function: Callable[..., Any], task: Task) -> None:
        """Send a task; a worker that is gone is noticed when its answer is read."""
        self.at = self.limit = self.deadline = None
        try:
            self.connection.send((function, task))
        except OSError:
            return

    def receive(self) -> tuple[str, Any]:
        """The next message: ("report", values), ("done", result), ("error", exception) or ("lost", Lost)."""
        if self.overran:
            self.kill()
            return "lost", Lost(self.at, f"took longer than {self.limit:,.0f} s")
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            return "lost", Lost(self.at, self._ending())
        if kind == "announce":
            self.at, self.limit = value
            self.deadline = None if self.limit is None else time.monotonic() + self.limit
        return kind, value

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def _ending(self) -> str:
        self.connection.close()
        try:
            code = self.process.wait(timeout=10)  # it closed its end of the connection: it is on its way out
        except subprocess.TimeoutExpired:
            self.kill()
            code = -signal.SIGKILL
        if code == EXIT_MEMORY:
            return f"needed more than {(self.memory or 0) >> 20} MiB of memory"
        if code == -signal.SIGKILL:
            return "was killed (SIGKILL, as by a system short of memory)"
        return f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with status {code}"


@dataclass
class WorkerPool:
    """At most `workers` processes, kept between runs; 0 runs every task in this process, unsupervised."""

    workers: int
    """Processes at most; 0: tasks run in this process."""
    memory: int | None = None
    """Bytes that a worker may allocate (Linux only), None for no bound; files it maps do not count. Use it as a context
    manager: leaving it ends all processes."""
    places: Sequence[Mapping[str, str]] = ()
    """Environment variables of each worker, such as the GPU it has; one that ended is replaced in its place."""
    soon: Forker | None = None
    """Where workers are sure to be needed: how the process that forks them is made, at once (`fork_command`)."""
    _server: ExitStack = field(default_factory=ExitStack, init=False)
    _idle: list[_Worker] = field(default_factory=list, init=False)
    _busy: dict[int, tuple[_Worker, Task]] = field(default_factory=dict, init=False)

    def __enter__(self) -> Self:
        if self.workers:
            self._server.enter_context(fork_server(self.soon, now=self.soon is not None))
        return self

    def __exit__(self, *exception: object) -> None:
        with self._server:
            self._end(worker for worker, _ in self._busy.values())
            self._end(self._idle)
            self._busy, self._idle = {}, []

    @staticmethod
    def _end(workers: Any) -> None:
        for worker in workers:
            worker.kill()

    def run(
        self,
        function: Callable[..., Any],
        tasks: Sequence[Task],
        on_report: Callable[..., None],
        retry: Retry | None = None,
        near: Near | None = None,
        most: int | None = None,
        keeps: Named | None = None,
        takes: Named | None = None,
    ) -> Iterator[Any]:
        """Call `function(*task, link=..)` for every task; yields the results as they come.

        on_report: called here with what tasks pass to `link.report`. retry: says what to do when a worker ended inside
        a task; default: do it again once. near: None takes the tasks in order. most: processes that share them where
        there is little to do, as each imports what it needs. keeps, takes: what of its reading a task leaves in its
        worker, and what of such a task does not read again in the same worker. The first error of a task ends the
        others and is raised. Cost: starting a worker 10 ms after the first one, a message 20 us.
        """
        if not self.workers:
            for task in tasks:
                yield function(*task, link=LocalLink(on_report))
            return
        retry = retry or RetryOnce()
        waiting = deque(tasks)
        held = {} if takes is None else self._held(tasks, takes)
        try:
            while waiting or self._busy:
                while waiting and len(self._busy) < min(self.workers, max(1, most or self.workers)):
                    worker, task = self._chosen(waiting, near, held)
                    if keeps is not None:
                        worker.kept.update(keeps(task))
                    worker.give(function, task)
                for worker, task in self._ready():
                    kind, value = worker.receive()
                    if kind == "report":
                        on_report(*value)
                    elif kind == "lost":
                        waiting.appendleft(self._again(retry, task, value, worker))
                    elif kind in {"done", "error"}:
                        del self._busy[id(worker)]
                        self._idle.append(worker)
                        if kind == "error":
                            raise value
                        yield value
        finally:
            self._end(worker for worker, _ in self._busy.values())
            self._busy = {}

    def _held(self, tasks: Sequence[Task], takes: Named) -> Held:
        known: set[str] = set().union(*(worker.kept for worker in self._idle))
        return {id(task): names for task in tasks if (names := known.intersection(takes(task)))} if known else {}

    def _chosen(self, waiting: deque[Task], near: Near | None, held: Held) -> tuple[_Worker, Task]:
        """The next task and who does it: of tasks as near as another, one that reads what its worker keeps."""
        wanted: set[str] = set().union(*(held[id(task)] for task in waiting if id(task) in held)) if held else set()
        keeper = next((worker for worker in self._idle if not wanted.isdisjoint(worker.kept)), None)
        if keeper is not None:
            self._idle.remove(keeper)
        worker = keeper or (self._idle.pop() if self._idle else self._start())
        place = 0
        if near is not None or held:
            others = {other.near for other, _ in self._busy.values()}
            files = map(near, waiting) if near is not None else [None] * len(waiting)
            place = _nearest(files, worker.near, others, [_of_whom(held.get(id(task)), worker) for task in waiting])
        task = waiting[place]
        del waiting[place]
        worker.near = None if near is None else near(task)
        self._busy[id(worker)] = worker, task
        return worker, task

    def _start(self) -> _Worker:
        taken = {worker.place for worker, _ in self._busy.values()}
        place = next(number for number in itertools.count() if number not in taken)
        return _Worker.start(self.memory, place, self.places[place] if self.places else None)

    def _again(self, retry: Retry, task: Task, lost: Lost, worker: _Worker) -> Task:
        del self._busy[id(worker)]
        return retry(task, lost)

    def _ready(self) -> list[tuple[_Worker, Task]]:
        """Workers that have something to say or take longer than they announced."""
        deadlines = [w.deadline for w, _ in self._busy.values() if w.deadline is not None]
        timeout = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        spoke = set(wait([worker.connection for worker, _ in self._busy.values()], timeout))
        now = time.monotonic()
        for worker, _ in self._busy.values():
            late = worker.deadline is not None and now > worker.deadline
            worker.overran = late and worker.connection not in spoke
        return [(w, task) for w, task in self._busy.values() if w.connection in spoke or w.overran]


def _of_whom(names: Collection[str] | None, worker: _Worker) -> int:
    """0 for what the worker keeps, 1 for what nobody does, 2 for what another one does."""
    return 1 if not names else 2 if worker.kept.isdisjoint(names) else 0


def _nearest(
    files: Iterable[object], own: object, others: Collection[object], kept: Iterable[int] = itertools.repeat(1)
) -> int:
    """Which of the waiting tasks a worker takes, by the file of each: its own, else one of nobody, else any; of those
    the first of the lowest `kept`, see `_of_whom`."""
    ranks = (
        (0 if file == own else 1 if file not in others else 2, whose) for file, whose in zip(files, kept, strict=False)
    )
    return min(enumerate(ranks), key=lambda item: item[1])[0]
