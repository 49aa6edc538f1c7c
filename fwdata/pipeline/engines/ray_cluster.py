"""Units on a Ray cluster: one actor per worker, which keeps its model or its supervised reader between units.

Ray is trusted with nothing but running: a unit whose node is lost goes back to the end of the queue and is done by
another actor, and the store shows what is done. Arrays never travel, only paths and names; every node has the same
fwdata installed.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from fwdata.errors import FwdataError, UsageError, needed_for
from fwdata.pipeline.workers import LocalLink, Retry, Task, WorkerPool

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Under `uv run`, Ray would upload the working folder, start each worker by `uv run`, and refuse where a
    # pyproject.toml lies above the folder; workers use what is installed on their node.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
"""Environment of Ray, where the user has not set it."""

LOSSES = 3
"""Nodes or actors that one unit may cost."""

REACH_SECONDS = 10.0
"""How long the head of a cluster may take to accept a connection."""

WAIT = 2.0
"""Seconds between two looks at a cluster that says nothing."""


class UnitActor:
    """A worker of the cluster, in a process of its own."""

    def __init__(self, supervised: Callable[[], WorkerPool] | None) -> None:
        self._pool = None if supervised is None else supervised()

    def version(self) -> str:
        """fwdata's version on its node."""
        from fwdata import __version__

        return __version__

    def run(self, function: Callable[..., Any], task: Task, retry: Callable[[], Retry] | None) -> tuple[Any, list[Any]]:
        """(result, reports) of one task."""
        reports: list[Any] = []

        def keep(*values: Any) -> None:
            reports.append(values)

        if self._pool is None:
            return function(*task, link=LocalLink(keep)), reports
        (result,) = self._pool.run(function, [task], keep, None if retry is None else retry())
        return result, reports


def _reach(address: str) -> None:
    """UsageError for an address where nothing answers: Ray itself would try it for minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d{1,5})", address)
    if found is None:
        return
    reason = ""
    hosts = [found[1], *([socket.gethostname()] if found[1] in ("localhost", "127.0.0.1") else [])]
    for host in hosts:  # a head of this machine may listen at its outer address alone
        try:
            socket.create_connection((host, int(found[2])), timeout=REACH_SECONDS).close()
        except (OSError, OverflowError) as error:
            reason = str(error)
        else:
            return
    raise UsageError(
        f"--engine ray: there is no Ray cluster at {address}: {reason}; start one with `ray start --head` and give its "
        "--address"
    )


class RayPool:
    """A pool with the interface of `WorkerPool` on the machines of a Ray cluster. Use it as a context manager.

    While it is open, what Ray prints on stdout goes to stderr.
    """

    def __init__(
        self,
        address: str | None,
        gpus: float | None,
        uses_gpus: bool,
        workers: int | None,
        supervised: Callable[[], WorkerPool] | None,
        retry: Callable[[], Retry] | None = None,
    ) -> None:
        self._address, self._gpus, self._uses_gpus = address, gpus, uses_gpus
        self._workers, self._supervised, self.retry = workers, supervised, retry
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Task]] = {}
        self._starting: dict[Any, Any] = {}

    def __enter__(self) -> Self:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        _reach(self._address or os.environ.get("RAY_ADDRESS", ""))
        with needed_for("--engine ray"):
            import ray
        self._ray: Any = ray
        sys.stdout.flush()
        self._stdout = os.dup(1)
        os.dup2(2, 1)
        try:
            ray.init(
                address=self._address, log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=False
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            self._restore()
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            where = self._address or os.environ.get("RAY_ADDRESS", "")
            if not where:
                raise UsageError(f"--engine ray: Ray does not start on this machine: {reason}") from None
            raise UsageError(
                f"--engine ray: there is no Ray cluster at {where}: {reason}; start one with "
                "`ray start --head` and give its --address"
            ) from None
        return self

    def __exit__(self, *exception: object) -> None:
        self._ray.shutdown()
        self._restore()

    def _restore(self) -> None:
        sys.stdout.flush()
        os.dup2(self._stdout, 1)
        os.close(self._stdout)

    def run(
        self,
        function: Callable[..., Any],
        tasks: Sequence[Task],
        on_report: Callable[..., None],
        retry: Retry | None = None,
    ) -> Iterator[Any]:
        """See `WorkerPool.run`; reports come with the result of their task. Each actor makes its own `retry`.

        FwdataError when a task costs `LOSSES` actors, or no node is left.
        """
        waiting, lost = deque(enumerate(tasks)), Counter[int]()
        if not waiting:
            return
        self._room()  # refuses what the cluster never has room for
        while waiting or self._busy:
            self._start(len(waiting))
            while waiting and self._idle:
                number, task = waiting.popleft()
                actor = self._idle.pop()
                self._busy[actor.run.remote(function, task, self.retry)] = actor, (number, task)
            for reference in self._ready():
                actor, (number, task) = self._busy.pop(reference)
                found = self._result(reference)
                if found is None:
                    lost[number] += 1
                    if lost[number] >= LOSSES:
                        raise FwdataError(
                            f"{LOSSES} Ray workers ended in the same unit ({task[2]}); what is written is safe, look "
                            "at the memory of the nodes and run the same command again"
                        )
                    waiting.append((number, task))
                    continue
                self._idle.append(actor)
                result, reports = found
                for values in reports:
                    on_report(*values)
                yield result

    def _result(self, reference: Any) -> tuple[Any, list[Any]] | None:
        """What a task returned; None when its actor is gone. Raises the task's own error."""
        errors = self._ray.exceptions
        try:
            found: tuple[Any, list[Any]] = self._ray.get(reference)
        except (errors.RayActorError, errors.NodeDiedError, errors.ObjectLostError):
            return None
        except errors.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        return found

    def _ready(self) -> list[Any]:
        """Tasks that have ended; actors that came up are idle from here on."""
        watched = [*self._busy, *self._starting]
        if not watched:
            time.sleep(WAIT)
            return []
        ready, _ = self._ray.wait(watched, num_returns=1, timeout=WAIT)
        for reference in [r for r in ready if r in self._starting]:
            actor = self._starting.pop(reference)
            version = self._version(reference)
            if version is not None:
                self._idle.append(actor)
        return [reference for reference in ready if reference in self._busy]

    def _version(self, reference: Any) -> str | None:
        """fwdata's version of an actor that came up, None when it ended. FwdataError when it is another than here."""
        from fwdata import __version__

        try:
            version = str(self._ray.get(reference))
        except self._ray.exceptions.RayActorError:
            return None
        if version != __version__:
            raise FwdataError(
                f"a node of the Ray cluster has fwdata {version}, this machine has {__version__}; install the same "
                "version on every node"
            )
        return version

    def _start(self, waiting: int) -> None:
        """Start actors while tasks wait and the cluster has room for more."""
        running = len(self._busy) + len(self._idle) + len(self._starting)
        wanted = min(self._room(), len(self._busy) + waiting, self._workers or sys.maxsize)
        for _ in range(wanted - running):
            options = {"num_cpus": 1, "num_gpus": self._needed_gpus, "max_restarts": 0, "max_task_retries": 0}
            actor = self._ray.remote(UnitActor).options(**options).remote(self._supervised)
            self._starting[actor.version.remote()] = actor

    def _room(self) -> int:
        """Actors that the cluster has room for in all. UsageError when that is none."""
        have = self._ray.cluster_resources()
        gpus, cpus = have.get("GPU", 0.0), have.get("CPU", 0.0)
        needed = self._gpus if self._gpus is not None else float(self._uses_gpus and gpus > 0)
        self._needed_gpus = needed
        room = int(min(cpus, gpus / needed if needed else cpus))
        if room < 1:
            raise UsageError(
                f"--engine ray: a worker needs 1 CPU and {needed:g} GPUs, the cluster has {cpus:g} and {gpus:g}; add "
                "nodes, or give --gpus-per-worker"
            )
        return room
