"""Stitching a share of a store's frames beside other processes and machines, one part per unit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fwdata.images.stitch import stitch_identity
from fwdata.io import among_writers
from fwdata.pipeline.jobs import Job, UnitRecord, end_job
from fwdata.pipeline.units import Spread, Units, UnitsReport, unit_pool
from fwdata.pipeline.workers import Link, Task, WorkerPool
from fwdata.store.caches.stitched import materialise, pending_stitches, stitch_part
from fwdata.store.files import shared_write
from fwdata.store.reader import Store, open_store

JOB = "stitch"
"""Name of the job."""


def _stitch_unit(store: Store, part: str, *, link: Link) -> int:
    """One part; returns its frames."""
    found = next(p for p in store.parts if p.name == part)
    return stitch_part(Path(store.location), store, found, link.report)


def stitch(
    path: Path,
    spread: Spread,
    on_plan: Callable[[int], None] = lambda _: None,
    on_frames: Callable[[int], None] = lambda _: None,
) -> tuple[int, UnitsReport | None]:
    """Write the stitched frames that a store lacks, or a share of them; (frames written, what was done and is left).

    See `fwdata.store.caches.stitched.materialise`.
    """
    spread.check()
    if not spread.shared:
        written = materialise(path, on_plan, on_frames)
        end_job(path, JOB)
        return written, None
    store = open_store(path)
    with shared_write(path), among_writers():
        parts = [part for part in store.parts if part.record.episodes]
        identity = {"stitch": stitch_identity(store.manifest.stitch)}
        units = [UnitRecord(name=part.name, weight=part.record.frames) for part in parts]
        job = Job.join(path, JOB, "stitch", "parts/{unit}/frames", identity, units)

        def task(name: str) -> Task:
            return store, name

        def pending() -> list[str]:
            return [part.name for part in pending_stitches(open_store(path))]

        with unit_pool(spread, WorkerPool(0)) as pool:
            frames, report = Units(job, _stitch_unit, task, pending).run(spread, pool, on_frames)
        if not report.left:
            job.end()
    return sum(frames), report
