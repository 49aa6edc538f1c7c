"""Time stamps that third parties write into RoboTwin files, which the layout has not: what they say about the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.shared.hdf5 import dataset, group_keys
from fwdata.errors import BadEpisode

if TYPE_CHECKING:
    import h5py

PLACES = ("", "observation", "additional_info")
NAMES = ("timestamp", "timestamps", "time", "times")
UNITS = (1.0, 1e-3, 1e-6, 1e-9)
"""Seconds, milliseconds, .. nanoseconds: the first in which a row takes between a millisecond and a second counts."""
SHORTEST, LONGEST = 1e-3, 1.0
SAME, HOLE = 0.02, 3.0
"""Share by which two rates are the same, and times the usual step from which rows are missing."""
FEWEST = 8


def remarks(file: h5py.File, rows: int, known: tuple[float | None, ...]) -> list[str]:
    """A warning where a file's stamps show another rate than those that are known (Hz, the first is stored), run
    backwards, or leave rows out; they are not stored. Row numbers are no stamps."""
    found = next((each for place in PLACES for each in _stamps(file, place, rows)), None)
    if found is None:
        return []
    key, values = found
    steps = np.diff(values)
    if (steps == 1).all():
        return []
    usual = float(np.median(steps))
    scale = next((unit for unit in UNITS if SHORTEST <= usual * unit <= LONGEST), None)
    if scale is None:
        return [f"{key} is not used: its steps of {usual:.4g} are no times of rows in any unit"]
    rate, told = 1 / (usual * scale), []
    if (steps <= 0).any():
        told.append(f"do not grow at row {int(np.flatnonzero(steps <= 0)[0]) + 1}")
    if (steps > HOLE * usual).any():
        row = int(np.argmax(steps)) + 1
        told.append(f"jump by {float(steps[row - 1]) * scale:.2f} s to row {row}, where rows are missing")
    if not any(abs(rate - hz) <= SAME * max(rate, hz) for hz in known if hz):
        told.append(
            f"show {rate:.4g} Hz, where {known[0]:.5g} Hz is stored; `fps.hz` of a manifest (--manifest) sets it"
        )
    return [f"{key} is not used: its times {', and '.join(told)}"] if told else []


def _stamps(file: h5py.File, place: str, rows: int) -> list[tuple[str, NDArray[np.float64]]]:
    """(key, float64 [rows]) of the stamps of a group; those that cannot be read tell nothing."""
    try:
        names = [name for name in NAMES if name in group_keys(file, place)]
        nodes = [(f"{place}/{name}".lstrip("/"), dataset(file, f"{place}/{name}".lstrip("/"))) for name in names]
        told = [
            (key, np.asarray(node[()]).reshape(-1)) for key, node in nodes if _fits(node, rows) and node is not None
        ]
    except (BadEpisode, OSError, RuntimeError, ValueError):
        return []
    return [(key, values.astype(np.float64)) for key, values in told if np.isfinite(values.astype(np.float64)).all()]


def _fits(node: h5py.Dataset | None, rows: int) -> bool:
    return node is not None and node.size == rows >= FEWEST and node.dtype.kind in "iuf"
