"""Gripper columns: their scale, and which way a LIBERO gripper action is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converters._lerobot_mapping import Columns
from converters._lerobot_meta import Dataset
from converters._lerobot_parquet import Floats, find_rows, numbers, read_span
from fwdata.api import Json
from fwdata.errors import BadEpisode, UsageError

type Scale = Literal["recorded", "auto", "0-100", "0-1"]
type Action = Literal["recorded", "auto", "signed", "unit"]

UNIT_SCALE_MAX = 1.5
"""Grippers that never exceed this are on the scale 0 .. 1 (closed ones of 0 .. 100 read 1.5 to 2.2)."""

LIMITS = (-5.0, 110.0)
SCANNED_EPISODES = 50


@dataclass(frozen=True)
class Grippers:
    """state, action: float64 rows as they are stored."""

    state: Floats
    action: Floats
    metadata: dict[str, Json]
    warnings: tuple[str, ...]


def scale(
    state: Floats, action: Floats, names: tuple[Sequence[str], Sequence[str]], wanted: Scale, unit: bool
) -> Grippers:
    """Decide the scale of an episode's gripper columns, and bring them to 0 .. 1 with `unit`.

    names: of the state's and the action's columns; those that end in `gripper` count.
    """
    columns = [[i for i, name in enumerate(part) if name.endswith("gripper")] for part in names]
    if wanted == "recorded" or not all(columns):
        return Grippers(state, action, {}, ())
    values = [rows[:, places] for rows, places in zip((state, action), columns, strict=True)]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    top = 1 if wanted == "0-1" or (wanted == "auto" and high <= UNIT_SCALE_MAX) else 100
    warnings = []
    if top == 100 and not (LIMITS[0] <= low and high <= LIMITS[1]):
        warnings.append(f"gripper values reach {low:.4g} .. {high:.4g}, expected 0 .. 100")
    if unit:
        state, action = (_unit(rows, places, top) for rows, places in zip((state, action), columns, strict=True))
    metadata: dict[str, Json] = {"gripper_range": [0, 1 if unit else top], "gripper_recorded_range": [0, top]}
    return Grippers(state, action, metadata, tuple(warnings))


def _unit(rows: Floats, places: list[int], top: int) -> Floats:
    rows = rows.copy()
    rows[:, places] = np.clip(rows[:, places] / top, 0.0, 1.0)
    return rows


def to_unit(action: Floats, sign: Action) -> Floats:
    """The action with its last column as 1 open / 0 close; BadEpisode when it contradicts `sign`."""
    last = action[:, -1]
    low, high = (-1.0, 1.0) if sign == "signed" else (0.0, 1.0)
    if last.min() < low - 0.25 or last.max() > high + 0.25:
        raise BadEpisode(
            f"the gripper action reaches {last.min():.4g} .. {last.max():.4g}, the dataset's others "
            f"{low:g} .. {high:g}; set option gripper_action"
        )
    if sign == "unit":
        return action
    return np.concatenate([action[:, :-1], 1.0 - np.clip(last, 0.0, 1.0)[:, None]], axis=1)


_signs: dict[tuple[Path, str, int], Action] = {}


def recorded_sign(dataset: Dataset, column: Columns) -> Action:
    """How a dataset counts its gripper action, from its first episodes: "signed" as soon as one is below -0.5.

    "unit" as soon as a value is near 0. UsageError when no episode tells.
    """
    key = (dataset.folder, column.key, (dataset.folder / "meta/info.json").stat().st_mtime_ns)
    if key not in _signs:
        _signs[key] = _scan(dataset, column)
    return _signs[key]


def _scan(dataset: Dataset, column: Columns) -> Action:
    size = dataset.info.features[column.key].size
    for entry in list(dataset.episodes.values())[:SCANNED_EPISODES]:
        try:
            path = dataset.folder / entry.data_file
            span = find_rows(path, entry.data_file, entry.index, entry.length, dataset.info.shared_files)
            rows = numbers(read_span(span, [column.key]), span.name, column.key, size)
        except BadEpisode:
            continue
        found = _sign_of(rows[:, column.indices[-1]])
        if found is not None:
            return found
    raise UsageError(
        "the action's gripper values do not tell whether it is -1 open / +1 close or 1 open / 0 close; set option "
        "gripper_action to signed or unit"
    )


def _sign_of(values: NDArray[np.float64]) -> Action | None:
    if (values < -0.5).any():
        return "signed"
    return "unit" if (np.abs(values) < 0.25).any() else None
