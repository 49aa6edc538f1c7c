"""A job of a store: one command's sealed plan, which every process and machine that works on it follows.

    .jobs/encode-latents-default/job.json       settings and units, written once, by whoever is first
    .jobs/encode-latents-default/<unit>.*.lease   who works on a unit now; see `fwdata.store.leases`
    .jobs/encode-latents-default/<unit>.failed    why a unit failed

The folder is there while the job runs and is removed with its last unit: a finished store has the bytes that one
process makes. The units themselves show what is done: they appear whole (`fwdata.store.attempts`).
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fwdata.errors import StaleCache, quoted
from fwdata.io import among_writers, write_atomic
from fwdata.store.attempts import find_attempts
from fwdata.store.caches.identity import differences, listed
from fwdata.store.files import canonical_json
from fwdata.store.layout import LAYOUT_VERSION
from fwdata.store.leases import JOBS, PLAN, STALE, seen_leases
from fwdata.store.metadata import read_document
from fwdata.store.records import Count, JsonObject, Record


class UnitRecord(Record):
    """One unit of a job."""

    name: str
    """Name of the part that it writes."""
    weight: Count
    """Frames, bytes or prompts: how its work compares with that of the others."""
    prompts: tuple[str, ...] = ()
    """Of a unit of a text cache: what it encodes."""


class JobRecord(Record):
    """The sealed plan of a job."""

    command: str
    """The command that works on it, such as "encode-latents"."""
    folder: str
    """Where a unit lies below the store; `{unit}` stands for its name."""
    identity: JsonObject
    """Settings that can change a bit of what is made; all who take part have the same."""
    units: tuple[UnitRecord, ...]
    """In order; shard i of n takes every n-th from the i-th on."""
    since: float
    """When it was sealed, seconds since 1970."""


class FailureRecord(Record):
    """Why a unit failed the last time it was tried."""

    unit: str
    """Its name."""
    reason: str
    """One sentence."""
    host: str
    """Machine it was tried on."""
    at: float
    """When it failed, seconds since 1970."""


@dataclass(frozen=True)
class Job:
    """A job of a store."""

    store: Path
    """The store."""
    name: str
    """Unique in the store: the command, and the name of the cache where it makes one."""
    record: JobRecord
    """Its sealed plan."""

    @property
    def folder(self) -> Path:
        """Where it is kept while it runs."""
        return self.store / JOBS / self.name

    @classmethod
    def join(
        cls, store: Path, name: str, command: str, folder: str, identity: JsonObject, units: Sequence[UnitRecord]
    ) -> Job:
        """Seal a job's plan, or take part in one that is sealed already. Nothing else is written.

        StaleCache with the differences named when that one has other settings or units. Units with prompts are cut by
        whoever seals the plan; others follow it.
        """
        from fwdata import __version__

        whole = {"fwdata": __version__, "layout": LAYOUT_VERSION, **identity}
        ours = JobRecord(command=command, folder=folder, identity=whole, units=tuple(units), since=time.time())
        job = cls(store, name, ours)
        found = job._seal()
        differ = differences(found.identity, whole)
        if not differ and not any(unit.prompts for unit in (*found.units, *units)):
            have, want = {unit.name: unit.weight for unit in found.units}, {unit.name: unit.weight for unit in units}
            differ = differences({"units": have}, {"units": want})
        if differ:
            raise StaleCache(
                f"{store}: others work on {name} with another plan: {listed(differ)}; wait for them "
                f"(`fwdata status {quoted(store)}`), or give it up with `fwdata clean {quoted(store)} --older-than 0`"
            )
        return cls(store, name, found)

    def _seal(self) -> JobRecord:
        """Put the plan in its place by one rename; the one that is there afterwards, this or an earlier one."""
        data = canonical_json(self.record.to_json())
        if not (self.folder / PLAN).exists():
            with among_writers() as token:
                new = self.folder.parent / f".new-{token}"
                write_atomic(new / PLAN, data)
                try:
                    new.rename(self.folder)
                except OSError:
                    shutil.rmtree(new, ignore_errors=True)
        found = read_job(self.store, self.name)
        if found is None:  # a folder without a plan, which an attempt left that outlived its job
            write_atomic(self.folder / PLAN, data)
            return self.record
        return found.record

    def failure(self, unit: str) -> Path:
        """Where the reason is kept why a unit failed."""
        return self.folder / f"{unit}.failed"

    def failures(self) -> list[FailureRecord]:
        """Units that failed and were not tried again since."""
        found = []
        for path in sorted(self.folder.glob("*.failed")):
            with contextlib.suppress(FileNotFoundError):  # tried again meanwhile
                found.append(read_document(FailureRecord, path.read_bytes(), str(path)))
        return found

    def end(self) -> None:
        """Remove what is left of a job whose units are all done: its folder, and the attempts of its dead processes."""
        dead = {seen.lease.token for seen in seen_leases(self.store) if seen.lease.job == self.name and not seen.alive}
        for attempt in find_attempts(self.store):
            if attempt.token in dead:
                shutil.rmtree(attempt.folder, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        for left in self.store.glob(f"{JOBS}/.new-*"):  # of processes killed while they sealed a plan
            shutil.rmtree(left, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()
        _sweep_temporary(self.store, dead)


def _sweep_temporary(store: Path, dead: set[str]) -> None:
    """Remove temporary files of killed processes beside what a job writes: by their tokens, or by their age."""
    for pattern in (".*.tmp", "*/.*.tmp", "*/*/.*.tmp"):
        for path in store.glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                if path.name.split(".")[-2] in dead or time.time() - path.stat().st_mtime > STALE:
                    path.unlink()


def end_job(store: Path, name: str) -> None:
    """Remove what is left of a job whose units are all done, if there is one."""
    if (job := read_job(store, name)) is not None:
        job.end()


def read_job(store: Path, name: str) -> Job | None:
    """A job that runs or was left; None when there is none. StoreDamaged for a plan that is not one."""
    path = store / JOBS / name / PLAN
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Job(store, name, read_document(JobRecord, data, str(path)))


def read_jobs(store: Path) -> list[Job]:
    """Every job that runs or was left, by name."""
    names = sorted(path.parent.name for path in (store / JOBS).glob(f"*/{PLAN}"))
    return [job for name in names if not name.startswith(".") and (job := read_job(store, name))]
