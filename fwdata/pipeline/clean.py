"""Removing what killed processes left of jobs: attempts, leases, plans and temporary files, never what is in use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fwdata.errors import StoreDamaged, StoreError
from fwdata.pipeline.jobs import read_jobs
from fwdata.store.attempts import find_attempts, remove_folder
from fwdata.store.files import LocalFiles, shared_write
from fwdata.store.leases import JOBS, seen_leases
from fwdata.store.metadata import read_root

DAY = 86400.0
"""Seconds; what is younger is left alone by default."""


@dataclass(frozen=True)
class Leftover:
    """Something that a process left which is gone."""

    path: Path
    """File or folder."""
    age: float
    """Seconds since anything in it changed, by this machine's clock."""
    bytes: int
    """Size of what lies in it."""


def clean(store: Path, older_than: float = DAY, dry_run: bool = False) -> list[Leftover]:
    """Remove leftovers of a local store that nobody has written to for `older_than` seconds; what was removed.

    Attempts with a live lease are in use whatever their age, and a job is as long as one of its leases is live. Safe
    beside running shards. StoreBusy while a command holds the store for itself on this machine; NewerStore where its
    layout is not known, as what is left in it may be otherwise too.
    """
    if not store.is_dir():
        raise StoreError(f"there is no store at {store}")
    with contextlib.suppress(StoreDamaged):  # what is left of jobs says nothing about the store
        read_root(LocalFiles(store))
    with shared_write(store):
        found = [left for left in map(_look, _candidates(store)) if left.age >= older_than]
        if not dry_run:
            for left in found:
                if left.path.is_dir():
                    remove_folder(store, left.path)
                else:
                    left.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                (store / JOBS).rmdir()
    return found


def _candidates(store: Path) -> Iterator[Path]:
    leases = seen_leases(store)
    live = [seen.lease for seen in leases if seen.alive]
    tokens, busy = {lease.token for lease in live}, {lease.job for lease in live}
    yield from (attempt.folder for attempt in find_attempts(store) if attempt.token not in tokens)
    yield from (job.folder for job in read_jobs(store) if job.name not in busy)
    yield from (seen.lease.path(store) for seen in leases if not seen.alive and seen.lease.job in busy)
    yield from (store / JOBS).glob(".new-*")
    for pattern in (".*.tmp", "*/.*.tmp", "*/*/.*.tmp"):
        yield from (path for path in store.glob(pattern) if path.is_file())


def _look(path: Path) -> Leftover:
    files = [path, *path.rglob("*")]
    stats = [p.stat() for p in files if p.exists()]
    newest = max((s.st_mtime for s in stats), default=0.0)
    size = sum(p.stat().st_size for p in files if p.is_file())
    return Leftover(path, max(time.time() - newest, 0.0), size)
