"""What the processes of one conversion measured, killed ones included, handed to the one that ends it.

A part keeps values and contradictions of its episodes alone. The words and traces that the verdicts of the data set are
made from lie in the job's folder until its last part is pooled, so that they are those of one process.

    .jobs/convert/p00003.evidence.npz    "ids" and "episodes": JSON; "numbers": float32, "prints": uint32 and "tiles":
                                         uint8, those of all traces one after the other
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic_core import to_json

from fwdata.evidence.records import EpisodeMeasurement, LookTrace, MotionTrace, Trace, Verdict
from fwdata.io import write_atomic
from fwdata.store.leases import JOBS

JOB = "convert"
"""Name of a conversion's job."""

SUFFIX = ".evidence.npz"


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
    numbers, prints, tiles = (
        _Joined(np.float32),
        _Joined(np.uint32),
        _Joined(np.uint8),
    )  # one array is far faster than many
    episodes = [
        {
            "id": m.episode,
            "group": m.group,
            "verdicts": [vars(verdict) for verdict in m.verdicts],
            "traces": [
                [
                    t.camera,
                    t.hz,
                    t.simulated,
                    t.state_lag,
                    *map(numbers.put, (t.energy, t.speeds, t.commands)),
                    t.mounted,
                ]
                for t in m.traces
                if isinstance(t, MotionTrace)
            ],
            "looks": [
                [t.camera, tiles.put(t.tiles), prints.put(t.prints), prints.put(t.rows)]
                for t in m.traces
                if isinstance(t, LookTrace)
            ],
            "options": dict(m.options),
        }
        for m in measured
    ]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        ids=_json([m.episode for m in measured]),
        episodes=_json(episodes),
        numbers=numbers.whole(),
        prints=prints.whole(),
        tiles=tiles.whole(),
    )
    write_atomic(folder / f"{part}{SUFFIX}", buffer.getvalue())


def handed_over(store: Path, without: Collection[str]) -> dict[str, EpisodeMeasurement]:
    """By episode, what other processes measured; the episodes of `without` are this process's own."""
    found: dict[str, EpisodeMeasurement] = {}
    for path in sorted((store / JOBS / JOB).glob(f"*{SUFFIX}")):
        with np.load(path, allow_pickle=False) as file:
            if not set(json.loads(file["ids"].tobytes())) <= set(without):
                measured = _measured(file)
                found |= {m.episode: m for m in measured if m.episode not in without}
    return found


class _Joined:
    """Arrays of one type, one after the other."""

    def __init__(self, dtype: DTypeLike, whole: NDArray[Any] | None = None) -> None:
        self._dtype, self._put = dtype, list[NDArray[Any]]()
        self._whole, self._place = whole, 0

    def put(self, values: NDArray[Any] | None) -> list[int] | None:
        """Add one; its shape, None for none."""
        if values is None:
            return None
        self._put.append(values.reshape(-1))
        return list(values.shape)

    def whole(self) -> NDArray[Any]:
        """All of them."""
        return np.concatenate([np.empty(0, self._dtype), *self._put], dtype=self._dtype)

    def take(self, shape: Sequence[int] | None) -> Any:
        """The next one, by its shape; None for none."""
        if shape is None:
            return None
        assert self._whole is not None
        first, self._place = self._place, self._place + math.prod(shape)
        return self._whole[first : self._place].reshape(shape)


def _measured(file: Any) -> list[EpisodeMeasurement]:
    """The episodes of one file, in order, as their arrays are."""
    numbers, prints, tiles = (_Joined(file[name].dtype, file[name]) for name in ("numbers", "prints", "tiles"))
    found = []
    for entry in json.loads(file["episodes"].tobytes()):
        traces: list[Trace] = [
            MotionTrace(
                camera,
                hz,
                numbers.take(energy),
                numbers.take(speeds),
                simulated,
                numbers.take(commands),
                lag,
                any(mounted),
            )
            for camera, hz, simulated, lag, energy, speeds, commands, *mounted in entry["traces"]
        ]
        traces += [
            LookTrace(camera, tiles.take(shown), prints.take(images), prints.take(rows))
            for camera, shown, images, rows in entry["looks"]
        ]
        verdicts = tuple(Verdict.from_json(verdict) for verdict in entry["verdicts"])
        found.append(EpisodeMeasurement(entry["id"], entry["group"], verdicts, tuple(traces), entry["options"]))
    return found


def _json(value: object) -> NDArray[np.uint8]:
    return np.frombuffer(to_json(value, inf_nan_mode="constants"), np.uint8)  # a fifth of json's time
