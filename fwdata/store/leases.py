"""Who is writing which unit of a store, where several processes and machines do: one file per unit and attempt.

    .jobs/<job>/<unit>.<token>.lease      host, process and start of the attempt, touched every 30 s while it runs

A lease protects nothing: that units may be written twice at once is settled by `fwdata.store.attempts`. It shows who
works (`fwdata status`), keeps commands that need a store for themselves out, and tells attempts in use from those that
a kill left.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fwdata.io import write_atomic

JOBS = ".jobs"
"""Folder of a store that holds its jobs while they run."""

PLAN = "job.json"
"""File of a job's folder that holds its plan."""

HEARTBEAT = 30.0
"""Seconds between two touches of a lease."""

STALE = 600.0
"""Seconds without a touch after which the holder of a lease on another machine counts as dead."""


@dataclass(frozen=True)
class Lease:
    """One attempt at a unit."""

    job: str
    """Name of the job."""
    unit: str
    """Name of the unit."""
    token: str
    """Token of the attempt, 8 hex digits, as in the names of what it writes."""
    host: str
    """Machine that works on it."""
    pid: int
    """Its process there."""
    since: float
    """When it began, seconds since 1970 by that machine's clock."""

    def path(self, store: Path) -> Path:
        """Its file."""
        return store / JOBS / self.job / f"{self.unit}.{self.token}.lease"


@dataclass(frozen=True)
class SeenLease:
    """A lease that was found in a store."""

    lease: Lease
    """What its holder wrote."""
    age: float
    """Seconds since its last touch, by the clock of the file system where both were asked of it."""

    @property
    def alive(self) -> bool:
        """Whether its holder may still be at work; on this machine a process that is gone is noticed at once."""
        if self.lease.host == socket.gethostname() and not _runs(self.lease.pid):
            return False
        return self.age < STALE


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # of another user
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked how: in a container whose first process does not, for ever."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (OSError, IndexError):
        return False  # gone meanwhile, or a system without /proc


@contextlib.contextmanager
def hold_lease(store: Path, job: str, unit: str, token: str) -> Iterator[Lease]:
    """Hold a lease for the block; a thread touches it. It is gone afterwards, unless this process is killed."""
    lease = Lease(job, unit, token, socket.gethostname(), os.getpid(), time.time())
    path = lease.path(store)
    write_atomic(path, json.dumps(asdict(lease)).encode())
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(HEARTBEAT):
            with contextlib.suppress(OSError):  # the job has ended without this attempt
                os.utime(path)

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        stopped.set()
        thread.join()
        path.unlink(missing_ok=True)


def seen_leases(store: Path, now: float | None = None) -> list[SeenLease]:
    """Every lease of a store, sorted by job and unit. now: seconds since 1970; None: by this machine's clock."""
    found = []
    for path in sorted((store / JOBS).glob("*/*.lease")):
        try:
            lease, touched = Lease(**json.loads(path.read_bytes())), path.stat().st_mtime
        except (OSError, ValueError, TypeError):
            continue  # it ended meanwhile
        found.append(SeenLease(lease, max(0.0, (time.time() if now is None else now) - touched)))
    return found


def live_leases(store: Path) -> list[Lease]:
    """Leases whose holders may still be at work."""
    return [seen.lease for seen in seen_leases(store) if seen.alive]
