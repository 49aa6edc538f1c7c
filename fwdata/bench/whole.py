"""Whole conversions in processes of their own: seconds on the clock, CPU and memory of all their processes; start-up.

`python -m fwdata.bench.whole` reads an `_Order` from stdin, converts, and prints an `_Answer`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

from fwdata.bench.floor import ready
from fwdata.bench.timing import cpu_seconds
from fwdata.errors import EXIT_QUARANTINED, FwdataError, UsageError, one_line
from fwdata.evidence.registry import all_detectors
from fwdata.manifest import Manifest
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.run import convert
from fwdata.pipeline.workers import WorkerPool
from fwdata.report.inspect_store import folder_bytes

START_REPEATS = 3
"""Starts that are timed; the fastest counts."""


@dataclass(frozen=True)
class Whole:
    """One conversion from start to end."""

    workers: int
    """Worker processes; 0: none."""
    frames: int
    """Rows of the store."""
    wall: float
    """Seconds from start to end, without importing: as in the command, what forks readers has done that."""
    cpu: float
    """CPU seconds of all its processes, those of workers with their start."""
    peak_memory: int
    """Bytes that the largest of its processes held."""
    store_bytes: int
    """Bytes of the store."""


class _Order(TypedDict):
    source: str
    raw: str
    manifest: str
    workers: int
    part_episodes: int | None
    evidence: bool


class _Answer(TypedDict):
    frames: int
    wall: float
    cpu: float
    peak_memory: int
    store_bytes: int


class Once(NamedTuple):
    """One conversion in this process. What removes the store afterwards is not counted."""

    rows: int
    """Rows of the store."""
    store_bytes: int
    """Bytes of the store."""
    wall: float
    """Seconds on the clock."""
    cpu: float
    """CPU seconds of this process and of the workers that ended."""


def convert_once(
    source: str, raw: Path, manifest: Manifest, workers: int, evidence: bool, part_episodes: int | None = None
) -> Once:
    """Make a store and remove it, in this process with 0 workers. FwdataError when a recording could not be read."""
    with tempfile.TemporaryDirectory(prefix="fwdata-bench-") as folder:
        request = ConvertRequest(
            *(source, (raw,), Path(folder) / "store.zarr", manifest, workers),
            part_episodes=part_episodes,
            evidence=evidence,
            accept={detector.name: "nothing is kept" for detector in all_detectors()},  # made images contradict some
        )
        began = cpu_seconds()
        with WorkerPool(workers, request.memory) as pool:
            list(pool.run(ready, [()], lambda: None))
            clock = time.monotonic()
            report = convert(request, lambda plan: None, lambda episodes, frames: None, pool)
            seconds = time.monotonic() - clock
        cpu = cpu_seconds() - began
        size = folder_bytes(request.out)
    if report.quarantined:
        where, reason = report.quarantined[0]
        raise FwdataError(f"cannot measure with recordings that are left out: {where}: {reason}")
    return Once(report.frames, size, seconds, cpu)


def measure_whole(
    source: str, raw: Path, manifest: Manifest, workers: int, evidence: bool, part_episodes: int
) -> Whole:
    """One conversion in a fresh process. FwdataError where it fails."""
    order = _Order(
        source=source,
        raw=str(raw.resolve()),
        manifest=manifest.model_dump_json(),
        workers=workers,
        part_episodes=part_episodes,
        evidence=evidence,
    )
    command = [sys.executable, "-m", "fwdata.bench.whole"]
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, check=False)
    if done.returncode:
        raise FwdataError(f"the conversion with {workers} workers failed: {one_line(done.stderr[-500:])}")
    answer: _Answer = json.loads(done.stdout)
    return Whole(workers, **answer)


def measure_start(source: str, raw: Path) -> tuple[float, float]:
    """Seconds on the clock, and CPU seconds of all its processes, of the whole command on a few short recordings, start
    to end, one worker: of some runs the best of each.

    FwdataError where it fails.
    """
    runs = [command_seconds([source, str(raw), "--workers", "1", *nothing_stops()]) for _ in range(START_REPEATS)]
    return min(wall for wall, _ in runs), min(cpu for _, cpu in runs)


def nothing_stops() -> list[str]:
    """Options of `fwdata convert` with which no contradiction ends it, as made images contradict some."""
    return [f"--accept={detector.name}=nothing is kept" for detector in all_detectors()]


def command_seconds(arguments: Sequence[str], some_left_out: bool = False) -> tuple[float, float]:
    """Seconds on the clock and CPU seconds of all processes of `fwdata convert` with these arguments, start to end.

    The store is removed. FwdataError where it fails, or leaves a recording out, unless `some_left_out`.
    """
    with tempfile.TemporaryDirectory(prefix="fwdata-bench-") as folder:
        command = [sys.executable, "-m", "fwdata", "convert", *arguments, "--out", f"{folder}/store.zarr"]
        began, clock = cpu_seconds(), time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds, cpu = time.monotonic() - clock, cpu_seconds() - began
    if done.returncode and not (some_left_out and done.returncode == EXIT_QUARANTINED):
        said = one_line(done.stderr[-500:] or done.stdout[-500:])
        raise FwdataError(f"`fwdata convert {' '.join(arguments[:2])}` failed while it was timed: {said}")
    return seconds, cpu


def _main() -> None:
    order: _Order = json.load(sys.stdin)
    manifest = Manifest.model_validate_json(order["manifest"])
    rest = order["workers"], order["evidence"], order["part_episodes"]
    once = convert_once(order["source"], Path(order["raw"]), manifest, *rest)
    answer = _Answer(
        frames=once.rows,
        wall=once.wall,
        cpu=once.cpu,
        peak_memory=max(_own_peak(), 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss),
        store_bytes=once.store_bytes,
    )
    sys.stdout.write(json.dumps(answer))


def _own_peak() -> int:
    """Bytes; not of getrusage, which goes on counting from the process that started this one."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise UsageError("peak memory is measured on Linux only; leave it out with --no-workers")


if __name__ == "__main__":
    _main()
