"""What is done, under way, failed and left of a store, read from the store alone."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from fwdata.pipeline.jobs import Job, UnitRecord, read_jobs
from fwdata.store.caches.identity import find_caches
from fwdata.store.caches.refinement import unfinished_of
from fwdata.store.caches.stitched import pending_stitches
from fwdata.store.files import LocalFiles
from fwdata.store.leases import SeenLease, seen_leases
from fwdata.store.metadata import read_complete
from fwdata.store.reader import Store, open_store
from fwdata.store.records import CacheRecord, LatentCacheRecord, SealedRecord


class AttemptJson(TypedDict):
    """A process that works, or worked, on a unit."""

    unit: str
    """Name of the unit."""
    host: str
    """Its machine."""
    pid: int
    """Its process id there."""
    since: float
    """When it began, seconds since 1970."""
    heartbeat_age_s: float
    """Seconds since it was last seen."""


class UnitFailureJson(TypedDict):
    """A unit whose last attempt failed."""

    unit: str
    """Name of the unit."""
    host: str
    """Where it was tried."""
    reason: str
    """Why it failed, one sentence."""


class WorkJson(TypedDict):
    """One kind of work on a store."""

    name: str
    """convert, stitch, encode-latents-NAME or encode-text-NAME; encode-latents-NAME-stride-N: an unfinished
    refinement."""
    units: int
    """Units in all."""
    done: int
    """Units that are whole."""
    left: int
    """Units that are not."""
    running: list[AttemptJson]
    """Who works on it now."""
    lost: list[AttemptJson]
    """Processes that ended without a word."""
    failed: list[UnitFailureJson]
    """Units that failed."""
    hours_left: float | None
    """At the pace so far; null: not known."""


@dataclass(frozen=True)
class WorkStatus:
    """One kind of work on a store."""

    name: str
    """"convert", "stitch", "encode-latents-NAME" or "encode-text-NAME"; "encode-latents-NAME-stride-N" of a refinement
    that was begun and not completed."""
    total: int
    """Units in all."""
    done: int
    """Units that are whole."""
    running: tuple[SeenLease, ...] = ()
    """Attempts under way."""
    lost: tuple[SeenLease, ...] = ()
    """Attempts whose process is gone, at units that are not whole."""
    failed: tuple[tuple[str, str, str], ...] = ()
    """(unit, host, reason) of units that failed the last time they were tried."""
    hours_left: float | None = None
    """At the pace since the job began; None before its first unit is done, and where no job runs."""

    @property
    def left(self) -> int:
        """Units that are not whole."""
        return self.total - self.done

    def to_json(self) -> WorkJson:
        """For `--json`."""
        return {
            "name": self.name,
            "units": self.total,
            "done": self.done,
            "left": self.left,
            "running": [_attempt_json(seen) for seen in self.running],
            "lost": [_attempt_json(seen) for seen in self.lost],
            "failed": [{"unit": unit, "host": host, "reason": reason} for unit, host, reason in self.failed],
            "hours_left": None if self.hours_left is None else round(self.hours_left, 3),
        }


def _attempt_json(seen: SeenLease) -> AttemptJson:
    lease = seen.lease
    return {
        "unit": lease.unit,
        "host": lease.host,
        "pid": lease.pid,
        "since": round(lease.since, 1),
        "heartbeat_age_s": round(seen.age, 1),
    }


def store_status(path: Path) -> list[WorkStatus]:
    """The jobs of a local store, then what no job works on: parts, stitched frames, caches. Only reads.

    StoreError when it does not open.
    """
    jobs = read_jobs(path)
    found = [_job_status(job) for job in jobs]
    if any(job.name == "convert" for job in jobs) and not (path / "zarr.json").is_file():
        return found  # its plan is sealed, its metadata are not written yet
    names = {status.name for status in found}
    busy = {job.record.folder for job in jobs}
    return [*found, *(status for status in _quiet(open_store(path), busy) if status.name not in names)]


def _whole(store: Path, folder: str) -> float | None:
    """When a unit was completed, seconds since 1970; None when it is not whole."""
    if read_complete(LocalFiles(store), folder, SealedRecord) is None:
        return None
    return (store / folder / "zarr.json").stat().st_mtime


def _job_status(job: Job) -> WorkStatus:
    ended = {unit.name: _whole(job.store, job.record.folder.format(unit=unit.name)) for unit in job.record.units}
    leases = [seen for seen in seen_leases(job.store) if seen.lease.job == job.name]
    return WorkStatus(
        job.name,
        len(ended),
        sum(at is not None for at in ended.values()),
        tuple(seen for seen in leases if seen.alive),
        tuple(seen for seen in leases if not seen.alive and ended.get(seen.lease.unit) is None),
        tuple((f.unit, f.host, f.reason) for f in job.failures() if ended.get(f.unit) is None),
        _hours_left(job.record.units, ended, job.record.since),
    )


def _hours_left(units: Sequence[UnitRecord], ended: dict[str, float | None], since: float) -> float | None:
    made = sum(unit.weight for unit in units if (ended[unit.name] or 0.0) >= since)
    left = sum(unit.weight for unit in units if ended[unit.name] is None)
    if not left:
        return 0.0
    return left * max(time.time() - since, 0.0) / made / 3600 if made else None


def _quiet(store: Store, busy: Collection[str]) -> list[WorkStatus]:
    """What is there without a job. busy: folders of the units that a job works on."""
    assert isinstance(store.files, LocalFiles)
    planned, whole = len(store.plan.parts), len(store.parts)
    found = [WorkStatus("convert", planned, whole)]
    parts = [part for part in store.parts if part.record.episodes]
    stitched = len(parts) - len(pending_stitches(store))
    if stitched:
        found.append(WorkStatus("stitch", len(parts), stitched))
    for name, record in find_caches(store.files, "latents", LatentCacheRecord).items():
        folders = (f"latents/{record.key()}/{part.name}" for part in parts)
        done = sum(read_complete(store.files, folder, SealedRecord) is not None for folder in folders)
        found.append(WorkStatus(f"encode-latents-{name}", len(parts), done))
        for begun in unfinished_of(store.files, record):
            if f"latents/{begun.record.key()}/{{unit}}" not in busy:
                stride = begun.record.stride
                found.append(WorkStatus(f"encode-latents-{name}-stride-{stride}", len(parts), begun.parts))
    for name, texts in find_caches(store.files, "text", CacheRecord).items():
        count = len([n for n in store.files.names(f"text/{texts.key()}") if n.startswith("p")])
        found.append(WorkStatus(f"encode-text-{name}", count, count))
    return found
