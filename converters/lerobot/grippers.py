"""Gripper columns: their scale, and which way a LIBERO gripper action is counted; both decided per dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.mapping import Columns, Fit
from converters.lerobot.meta import Dataset, load_dataset
from converters.lerobot.parquet import read_span
from converters.lerobot.values import Floats, numbers
from converters.shared.conventions import is_gripper
from converters.shared.gripper_unit import to_unit
from fwdata.api import Json
from fwdata.errors import BadEpisode, UsageError
from fwdata.wording import counted

type Scale = Literal["recorded", "auto", "0-100", "0-1"]
type Action = Literal["recorded", "auto", "signed", "unit", "reversed"]

UNIT_SCALE_MAX = 1.5
"""Gripper targets that never exceed this are on the scale 0 .. 1."""

LIMITS = (-5.0, 110.0)
TURN = 3.5
"""Largest angle of a gripper's joint in rad; on the scale 0 .. 100 one that is used opens further."""

FEW_ROWS = 10
SCANNED_EPISODES = 50


SIGNS: dict[str, str] = {"signed": "-1 open, +1 closed", "unit": "1 open, 0 closed", "reversed": "+1 open, -1 closed"}
"""What each rule says of the recorded commands."""


@dataclass(frozen=True)
class GripperRules:
    """How the grippers of a dataset are recorded, and what is stored."""

    top: int | None
    """What a fully open gripper reads, 1 or 100; None: not looked at."""
    unit: bool
    """Whether they are stored as 0 .. 1."""
    sign: Action | None
    """Sign rule of the action's last column, "signed" (-1 open, +1 closed), "unit" or "reversed"; None: left as
    recorded."""

    def to_json(self) -> dict[str, Json]:
        """For the metadata."""
        stated: dict[str, Json] = {}
        if self.top is not None:
            stated |= {"gripper_range": [0, 1 if self.unit else self.top], "gripper_recorded_range": [0, self.top]}
        if self.sign is not None:
            stated |= {"gripper_action_recorded": SIGNS.get(self.sign, "1 open, 0 closed")}
        return stated


def decide(dataset: Dataset, mapping: Fit, scale: Scale, unit: bool, action: Action) -> GripperRules:
    """The rules of a dataset, from its first episodes where the options say "auto".

    UsageError when nothing tells. Cost: once per process and dataset, usually a few rows of its first episode.
    """
    top = {"0-1": 1, "0-100": 100}.get(scale)
    if scale == "auto":
        top = _recorded_top(dataset.folder, dataset.stamp, _grippers(mapping.action, mapping.action_names))
    if unit and top is None:
        raise UsageError("option gripper_unit needs option gripper_scale: auto, 0-1 or 0-100")
    if action == "recorded":
        return GripperRules(top, unit, None)
    if not is_gripper(mapping.action_names[-1]):
        raise UsageError(
            "option gripper_action needs a name such as 'gripper' or 'gripper.pos' for the action's last column, found "
            f"{mapping.action_names[-1]!r}; option action_names names the columns"
        )
    last = mapping.action[-1]
    place = Columns(last.key, last.indices[-1:])
    return GripperRules(top, unit, _recorded_sign(dataset.folder, dataset.stamp, place) if action == "auto" else action)


def _grippers(parts: Sequence[Columns], names: Sequence[str]) -> tuple[Columns, ...]:
    """Where the columns that are called grippers come from."""
    flat = [(part.key, index) for part in parts for index in part.indices]
    return tuple(Columns(k, (i,)) for (k, i), name in zip(flat, names, strict=True) if is_gripper(name))


@lru_cache(maxsize=256)
def _recorded_top(folder: Path, stamp: int, places: tuple[Columns, ...]) -> int:
    if not places:
        raise UsageError(
            "option gripper_scale needs action columns called 'gripper', 'left_gripper', 'gripper.pos' or the like"
        )
    radians = 0.0
    for _, values in _scan(folder, places):
        largest = float(values.max())
        if largest > TURN or (largest > UNIT_SCALE_MAX and not _switches(values)):
            return 100
        radians = max(radians, largest if largest > UNIT_SCALE_MAX else 0.0)
    if radians:
        raise UsageError(
            f"grippers go from end to end and reach {radians:.3g}, which is neither the scale 0 .. 1 nor 0 .. 100, but "
            "rather an angle in rad; leave option gripper_scale at recorded, or bring them to one of both scales"
        )
    return 1


@lru_cache(maxsize=256)
def _recorded_sign(folder: Path, stamp: int, place: Columns) -> Action:
    for _, values in _scan(folder, (place,)):
        if (values < -0.5).any():
            return "signed"
        if (np.abs(values) < 0.25).any():
            return "unit"
    raise UsageError(
        "the action's gripper values do not tell whether they are -1 open / +1 closed or 1 open / 0 closed; set option "
        "gripper_action to signed or unit"
    )


def _scan(
    folder: Path, places: Sequence[Columns], chosen: Sequence[int] | None = None
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Index and these columns [T, n] of the first episodes, or those chosen, that can be read; UsageError when none."""
    dataset = load_dataset(folder)
    keys = list(dict.fromkeys(place.key for place in places))
    reasons, read = list[str](), 0
    numbers_of = list(dataset.episodes if chosen is None else chosen)[:SCANNED_EPISODES]
    for entry in (dataset.episodes[number] for number in numbers_of):
        try:
            span = dataset.span(entry)
            table = read_span(span, keys)
            rows = {key: numbers(table, span.name, key, dataset.info.features[key].size) for key in keys}
        except BadEpisode as error:
            reasons.append(str(error))
            continue
        read += 1
        yield entry.index, np.stack([rows[place.key][:, place.indices[0]] for place in places], axis=1)
    if not read:
        raise UsageError(reasons[0] if reasons else "the metadata list no episode")


def recorded_scale(dataset: Dataset, mapping: Fit, wanted: Iterable[int] | None = None) -> str | None:
    """On which scale a dataset's gripper commands are, by their largest value; None where none is named or moves.

    wanted: the episodes that are looked at; None: all. UsageError where they are on two scales: some open fully at 1,
    others at 100.
    """
    places = _grippers(mapping.action, mapping.action_names)
    chosen = list(dataset.episodes if wanted is None else wanted)[:SCANNED_EPISODES]
    return _recorded_scale(dataset.folder, dataset.stamp, places, tuple(chosen)) if places else None


@lru_cache(maxsize=256)
def _recorded_scale(folder: Path, stamp: int, places: tuple[Columns, ...], chosen: tuple[int, ...]) -> str | None:
    try:
        episodes = dict(_scan(folder, places, chosen))
    except UsageError:
        return None  # the reading of each episode says why
    tops = {index: float(np.abs(values).max()) for index, values in episodes.items()}
    largest = max(tops.values())
    scale = _scale_of(largest)
    if scale is None or not any(np.ptp(values, axis=0).max() > 0.2 * largest for values in episodes.values()):
        return None
    switching = {index: _scale_of(tops[index]) for index, values in episodes.items() if _switches(values)}
    other = min((text for text in switching.values() if text is not None and text != scale), default=None)
    if other is not None:
        odd = [index for index, text in switching.items() if text == other]
        named = ", ".join(map(str, odd[:5])) + ", .." * (len(odd) > 5)
        raise UsageError(
            f"grippers of {len(odd)} of the first {counted(len(episodes), 'episode')} (index {named}) are on the scale "
            f"{other}, of the others on {scale}; convert them apart (--exclude, --only), or bring them to one scale"
        )
    return scale


def _scale_of(largest: float) -> str | None:
    return next((text for limit, text in _SCALES if 0 < largest <= limit), None)


_SCALES = (
    (0.12, "0 .. 0.1 m"),
    (UNIT_SCALE_MAX, "0 .. 1"),
    (TURN, "an angle in rad"),
    (LIMITS[1], "0 .. 100"),
    (260.0, "0 .. 255"),
)


def _switches(values: NDArray[np.float64]) -> bool:
    """Whether a gripper goes from one end to the other, and is mostly at its ends; noise is not."""
    if len(values) < FEW_ROWS:
        return False
    low, high = values.min(axis=0), values.max(axis=0)
    reach = high - low
    column = int(reach.argmax())
    if reach[column] < 0.8 * max(abs(high[column]), abs(low[column])) or reach[column] == 0:
        return False
    at_ends = np.minimum(values[:, column] - low[column], high[column] - values[:, column]) < 0.05 * reach[column]
    return bool(at_ends.mean() > 0.5)


def check_one_scale(scales: Mapping[str, str], unit: bool) -> None:
    """UsageError where datasets of one store have grippers of different scales. scales: by dataset."""
    if unit or len(set(scales.values())) < 2:
        return
    by_scale = {scale: [name for name in scales if scales[name] == scale] for scale in dict.fromkeys(scales.values())}
    listed = ", ".join(f"{scale} ({names[0]}, {counted(len(names), 'dataset')})" for scale, names in by_scale.items())
    both = {"0 .. 1", "0 .. 100"} >= set(by_scale)
    cure = "store both as 0 .. 1 with --gripper-unit --gripper-scale auto, or " if both else ""
    raise UsageError(f"grippers are on different scales, {listed}; {cure}convert each scale to a store of its own")


def apply(
    state: Floats, action: Floats, names: tuple[Sequence[str], Sequence[str]], rules: GripperRules
) -> tuple[Floats, Floats, list[str]]:
    """(state, action, warnings) of an episode as they are stored, float64. names: of the columns of both.

    BadEpisode when the values contradict what was decided for the dataset.
    """
    warnings: list[str] = []
    if rules.sign is not None:
        action = _open_is_one(action, rules.sign)
    if rules.top is not None:
        both = [_scaled(*part, rules, warnings) for part in zip((state, action), names, strict=True)]
        state, action = both
    return state, action, warnings


def _scaled(rows: Floats, names: Sequence[str], rules: GripperRules, warnings: list[str]) -> Floats:
    columns = [i for i, name in enumerate(names) if is_gripper(name)]
    values = rows[:, columns]
    if not columns or rules.top is None:
        return rows
    if rules.top == 1 and values.max() > UNIT_SCALE_MAX:
        raise BadEpisode(
            f"a gripper reaches {values.max():.4g}, expected 0 .. 1 as by --gripper-scale or the dataset's other "
            "episodes; where all are 0 .. 100, give --gripper-scale 0-100, else leave this one out"
        )
    if rules.top == 100 and not (LIMITS[0] <= values.min() and values.max() <= LIMITS[1]):
        warnings.append(f"gripper values reach {values.min():.4g} .. {values.max():.4g}, expected 0 .. 100")
    if not rules.unit:
        return rows
    rows = rows.copy()
    rows[:, columns] = to_unit(values, rules.top)
    return rows


def _open_is_one(action: Floats, sign: Action) -> Floats:
    """The action with its last column as 1 open / 0 closed."""
    last = action[:, -1]
    low = 0.0 if sign == "unit" else -1.0
    if last.min() < low - 0.25 or last.max() > 1.25:
        raise BadEpisode(
            f"the gripper action reaches {last.min():.4g} .. {last.max():.4g}, expected {low:g} .. 1 as by "
            "--gripper-action or the dataset's other episodes; give the one that fits all, else leave this one out"
        )
    if sign == "unit":
        return action
    opened = np.clip(last, 0.0, 1.0)
    return np.concatenate([action[:, :-1], (opened if sign == "reversed" else 1.0 - opened)[:, None]], axis=1)
