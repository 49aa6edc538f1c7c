"""What the processes of one conversion measured, killed ones included, handed to the one that ends it.

A part keeps values and contradictions of its episodes alone. The words and traces that the verdicts of the data set are
made from lie in the job's folder until its last part is pooled, so that they are those of one process.

    .jobs/convert/p00003.measured.npz    "episodes": JSON; "<episode>_<trace>_energy", "_speeds", "_commands": float64
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.records import EpisodeMeasurement, LookTrace, MotionTrace, Verdict
from fwdata.io import write_atomic
from fwdata.store.leases import JOBS
from fwdata.store.records import JsonObject

JOB = "convert"
"""Name of a conversion's job."""

SUFFIX = ".measured.npz"
ARRAYS = ("energy", "speeds", "commands")


def begin_handing_over(store: Path) -> None:
    """Make the folder that `hand_over` needs, for a conversion that shares nothing."""
    (store / JOBS / JOB).mkdir(parents=True, exist_ok=True)


def end_handing_over(store: Path) -> None:
    """Remove what was handed over, of a conversion that shares nothing."""
    shutil.rmtree(store / JOBS / JOB, ignore_errors=True)
    with contextlib.suppress(OSError):
        (store / JOBS).rmdir()


def hand_over(store: Path, part: str, measured: Sequence[EpisodeMeasurement]) -> None:
    """Keep what was measured in a part below the job's folder, atomically; nothing where the job has ended."""
    folder = store / JOBS / JOB
    if not folder.is_dir():
        return
    arrays: dict[str, NDArray[np.float64]] = {}
    episodes = []
    for number, measurement in enumerate(measured):
        traces = list[list[object]]()
        for trace in (t for t in measurement.traces if isinstance(t, MotionTrace)):
            for name in ARRAYS:
                if (values := getattr(trace, name)) is not None:
                    arrays[f"{number}_{len(traces)}_{name}"] = values
            traces.append([trace.camera, trace.hz, trace.simulated, trace.state_lag])
        episodes.append(
            {
                "id": measurement.episode,
                "group": measurement.group,
                "verdicts": [asdict(verdict) for verdict in measurement.verdicts],
                "traces": traces,
                "looks": [_plain(trace) for trace in measurement.traces if isinstance(trace, LookTrace)],
                "options": dict(measurement.options),
            }
        )
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, episodes=np.array(json.dumps(episodes)), **arrays)
    write_atomic(folder / f"{part}{SUFFIX}", buffer.getvalue())


def handed_over(store: Path, without: Collection[str]) -> dict[str, EpisodeMeasurement]:
    """By episode, what other processes measured; parts that hold an episode of `without` are this process's own."""
    found: dict[str, EpisodeMeasurement] = {}
    for path in sorted((store / JOBS / JOB).glob(f"*{SUFFIX}")):
        with np.load(path, allow_pickle=False) as file:
            for number, entry in enumerate(json.loads(str(file["episodes"]))):
                if entry["id"] not in without:
                    found[entry["id"]] = _measurement(file, number, entry)
    return found


def _measurement(file: Any, number: int, entry: JsonObject) -> EpisodeMeasurement:
    traces = []
    for place, (camera, hz, simulated, lag) in enumerate(entry["traces"]):
        energy, speeds, commands = (_array(file, f"{number}_{place}_{name}") for name in ARRAYS)
        traces.append(MotionTrace(camera, hz, energy, speeds, simulated, commands, lag))
    verdicts = tuple(Verdict.from_json(verdict) for verdict in entry["verdicts"])
    looks = [_look(*values) for values in entry["looks"]]
    return EpisodeMeasurement(entry["id"], entry["group"], verdicts, (*traces, *looks), entry["options"])


def _plain(look: LookTrace) -> list[object]:
    return [look.camera, look.tiles.tolist(), look.prints.tolist(), look.rows.tolist()]


def _look(camera: str, tiles: list[object], prints: list[int], rows: list[int]) -> LookTrace:
    return LookTrace(camera, np.asarray(tiles, np.uint8), np.array(prints, np.uint32), np.array(rows, np.uint32))


def _array(file: Any, name: str) -> Any:
    return file.get(name)
