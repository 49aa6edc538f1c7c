"""Doing the units of a job: which ones here, each in an attempt of its own, what failed, and whether all are done.

A unit may be done twice, by a scheduler that thinks it lost or by a second terminal: the first to end wins and the
second finds that it made the same bytes. So shards, Ray and Slurm need nothing of each other but the store.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypedDict

from fwdata.errors import FwdataError, StoreDamaged, UsageError, one_line, quoted
from fwdata.io import among_writers, write_atomic
from fwdata.pipeline.jobs import FailureRecord, Job, UnitRecord
from fwdata.pipeline.workers import Link, Retry, Task, WorkerPool
from fwdata.store.attempts import find_attempts
from fwdata.store.files import canonical_json
from fwdata.store.leases import JOBS, hold_lease
from fwdata.store.locations import StoreUrl
from fwdata.store.mirror import mirror_state
from fwdata.wording import counted, verb

ENGINES = ("local", "ray")
"""Names of the engines."""


@dataclass(frozen=True)
class Shard:
    """Every `count`-th unit of a job, from number `index` on."""

    index: int = 0
    """From 0."""
    count: int = 1
    """Shards in all."""

    def mine(self, units: Sequence[UnitRecord]) -> list[UnitRecord]:
        """The units of this shard."""
        return list(units[self.index :: self.count])


def parse_shard(text: str) -> Shard:
    """A shard from `i/n`, or from the environment: "slurm" (array task) or "torchrun" (rank). UsageError otherwise."""
    given = text
    if text == "slurm":
        first = int(_variable("SLURM_ARRAY_TASK_MIN", text, "0"))
        given = f"{int(_variable('SLURM_ARRAY_TASK_ID', text)) - first}/{_variable('SLURM_ARRAY_TASK_COUNT', text)}"
    elif text == "torchrun":
        given = f"{_variable('RANK', text)}/{_variable('WORLD_SIZE', text)}"
    found = re.fullmatch(r"(\d+)/(\d+)", given)
    if found is None or int(found[1]) >= int(found[2]):
        raise UsageError(f"--shard {given}: expected i/n with i from 0 to n-1, such as 0/4, or slurm, or torchrun")
    return Shard(int(found[1]), int(found[2]))


def _variable(name: str, text: str, default: str | None = None) -> str:
    value = os.environ.get(name, default)
    if value is None or not value.isdigit():
        raise UsageError(f"--shard {text}: the environment has no {name}; give i/n instead")
    return value


@dataclass(frozen=True)
class Spread:
    """How a command's units are spread over processes and machines."""

    shard: Shard | None = None
    """The units to do here; None: all of them."""
    engine: str = "local"
    """One of `ENGINES`."""
    address: str | None = None
    """Of the Ray cluster; None: the one of this machine, else a new one."""
    gpus: float | None = None
    """GPUs of one worker of a Ray cluster; None: 1 where the command uses them and the cluster has some."""

    @property
    def shared(self) -> bool:
        """Whether other processes may work on the same job."""
        return self.shard is not None or self.engine != "local"

    def check(self) -> None:
        """UsageError for settings that do not go together."""
        if self.engine not in ENGINES:
            raise UsageError(f"--engine must be {' or '.join(ENGINES)}, found {self.engine!r}")
        if self.engine == "local" and (self.address is not None or self.gpus is not None):
            raise UsageError("--address and --gpus-per-worker are of --engine ray")

    def refuse(self, option: str, given: bool) -> None:
        """UsageError for an option that removes what other processes may be using."""
        if given and self.shared:
            raise UsageError(f"{option} needs the store for itself: run it without --shard and --engine")


ALONE = Spread()
"""One process, which has the store for itself."""


class UnitPool(Protocol):
    """What runs tasks: `fwdata.pipeline.workers.WorkerPool`, or an engine."""

    def run(
        self,
        function: Callable[..., Any],
        tasks: Sequence[Task],
        on_report: Callable[..., None],
        retry: Retry | None = None,
    ) -> Iterator[Any]: ...


@dataclass(frozen=True)
class UnitOutcome:
    """What became of a unit."""

    unit: str
    """Its name."""
    result: Any = None
    """What the function made of it."""
    reason: str = ""
    """Why it failed; empty when it did not."""


class FailedUnitJson(TypedDict):
    """A unit that failed."""

    unit: str
    """Its name."""
    reason: str
    """Why, one sentence."""


class ShardJson(TypedDict):
    """What one process did of a job that others work on too."""

    units: int
    """Units of the job."""
    mine: int
    """Of them, those of this process."""
    done: int
    """Units that it did in this run."""
    left: int
    """Units that are still to do, by whomever."""
    failed: list[FailedUnitJson]
    """Units that failed here and are still to do."""


@dataclass
class UnitsReport:
    """What a process did for a job."""

    units: int = 0
    """Units of the job."""
    mine: int = 0
    """Of them, those of this shard."""
    done: int = 0
    """Units that were done in this run."""
    failed: list[UnitOutcome] = field(default_factory=list)
    """Units that failed in this run and are still to do."""
    left: int = 0
    """Units of the job that are still to do, by whomever."""

    def to_json(self) -> ShardJson:
        """For `--json`."""
        failed = [FailedUnitJson(unit=item.unit, reason=item.reason) for item in self.failed]
        return {"units": self.units, "mine": self.mine, "done": self.done, "left": self.left, "failed": failed}

    def sentence(self) -> str:
        """For people."""
        rest = (
            f"{self.left} of {self.units} units {verb(self.left, 'is', 'are')} left to other shards"
            if self.left
            else "every unit is done"
        )
        return f"shard: {self.done} of its {counted(self.mine, 'unit')} done in this run; {rest}"

    def raise_failed(self, store: Path | StoreUrl) -> None:
        """FwdataError when units failed."""
        if self.failed:
            first, more = self.failed[0], len(self.failed) - 1
            raise FwdataError(
                f"{len(self.failed)} of {self.mine} units failed: {first.unit}: {first.reason}"
                f"{f' (and {more} more, see `fwdata status {quoted(store)}`)' if more else ''}; the others are done, "
                "run the same command again to continue"
            )


def do_unit(store: Path, job: str, unit: str, function: Callable[..., Any], *task: Any, link: Link) -> UnitOutcome:
    """One unit in an attempt of its own, with a lease while it runs. Runs in the process that does the work.

    An error of the unit's is kept in the job and reported in the outcome; the other units go on.
    """
    failed = store / JOBS / job / f"{unit}.failed"
    with among_writers() as token, hold_lease(store, job, unit, token):
        failed.unlink(missing_ok=True)
        try:
            return UnitOutcome(unit, function(*task, link=link))
        except (FwdataError, OSError) as error:
            reason = one_line(str(error))
            if (copy := mirror_state(store)) is not None:
                reason = reason.replace(str(store), str(copy.url))
            record = FailureRecord(unit=unit, reason=reason, host=socket.gethostname(), at=time.time())
            write_atomic(failed, canonical_json(record.to_json()))
            if not isinstance(error, StoreDamaged):  # whose bytes are kept, to be compared
                _drop_attempts(store, token)
            return UnitOutcome(unit, reason=reason)
        except BaseException:  # interrupted, or a fault of ours
            _drop_attempts(store, token)
            raise


def _drop_attempts(store: Path, token: str) -> None:
    for attempt in find_attempts(store):
        if attempt.token == token:
            shutil.rmtree(attempt.folder, ignore_errors=True)


@dataclass(frozen=True)
class Units:
    """The units of a job as a command does them."""

    job: Job
    """The job."""
    function: Callable[..., Any]
    """Called in a worker with a unit's task and a link."""
    task_of: Callable[[str], Task]
    """The task of a unit, by name."""
    pending: Callable[[], Collection[str]]
    """Names of the units that are still to do, asked of the store."""

    def run(
        self, spread: Spread, pool: UnitPool, on_report: Callable[..., None], retry: Retry | None = None
    ) -> tuple[list[Any], UnitsReport]:
        """Do the pending units of a shard; the results, and a report."""
        units = self.job.record.units
        mine = (spread.shard or Shard()).mine(units)
        before = set(self.pending())
        tasks = [
            (self.job.store, self.job.name, unit.name, self.function, *self.task_of(unit.name))
            for unit in mine
            if unit.name in before
        ]
        outcomes: list[UnitOutcome] = list(pool.run(do_unit, tasks, on_report, retry))
        after = set(self.pending())
        report = UnitsReport(len(units), len(mine))
        report.left = sum(unit.name in after for unit in units)
        report.failed = sorted((o for o in outcomes if o.reason and o.unit in after), key=lambda o: o.unit)
        good = [outcome for outcome in outcomes if not outcome.reason]
        report.done = len(good)
        return [outcome.result for outcome in sorted(good, key=lambda o: o.unit)], report


@contextmanager
def unit_pool(
    spread: Spread,
    local: WorkerPool,
    *,
    gpus: bool = False,
    workers: int | None = None,
    supervised: Callable[[], WorkerPool] | None = None,
    retry: Callable[[], Retry] | None = None,
) -> Iterator[UnitPool]:
    """The pool that an engine offers. local: of engine "local". gpus: whether a unit uses one where there are some.

    workers: at most so many actors of a Ray cluster, None for as many as it has room for. supervised: makes the pool of
    an actor and retry: what it does about lost processes, partials of module-level functions; None does units in the
    actor itself.
    """
    if spread.engine == "local":
        with local:
            yield local
        return
    from fwdata.pipeline.engines.ray_cluster import RayPool

    with RayPool(spread.address, spread.gpus, gpus, workers, supervised, retry) as pool:
        yield pool
