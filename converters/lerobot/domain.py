"""What a layout promises about its numbers, checked on rows of a dataset before the layout may be chosen for it.

A robot of one's own is published with the features, sizes, rate and robot name of LIBERO or RoboTwin. Names that a
mapping gives to columns are promises: fingers stay within a hand, an axis-angle is not a quaternion, a step is not a
position. In 20 episodes of LIBERO, fingers are at 0 .. 0.041 m with opposite signs (their sum below 0.023), and steps
within -1 .. 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.lerobot.values import Floats

FINGER_M = 0.045
FINGER_SUM_M = 0.03
REACH_M = 3.0
TURN = 2 * np.pi + 0.1
STEP = 1.05
PER_STEP_M = 0.2
"""Metres that the arm moves for a step of 1: at most 0.05 by LIBERO's controller; 1 where steps are metres."""

LEVELS = 0.02
"""How far a command of two levels may be from them."""

FEW_ROWS = 8
"""Below this, motion says nothing."""


def breach(state: Floats, action: Floats, names: tuple[Sequence[str], Sequence[str]]) -> str | None:
    """Why rows break what the column names of a mapping promise, as a sentence; None where they do not.

    state [T, Ds], action [T, Da], as recorded; names: of the columns of both.
    """
    columns = {name: state[:, i] for i, name in enumerate(names[0])}
    commands = {name: action[:, i] for i, name in enumerate(names[1])}
    return _fingers(columns) or _place(columns) or _rotation(columns, state, names[0]) or _steps(columns, commands)


def _fingers(columns: dict[str, Floats]) -> str | None:
    found = [columns[name] for name in ("finger_1", "finger_2") if name in columns]
    if len(found) < 2:
        return None
    reach, apart = float(np.abs(found).max()), float(np.abs(found[0] + found[1]).max())
    if reach > FINGER_M or apart > FINGER_SUM_M:
        return (
            f"the columns for the fingers reach {reach:.3g}, their sum {apart:.3g}; fingers of LIBERO stay within "
            f"{FINGER_M} m and move in opposite directions"
        )
    return None


def _place(columns: dict[str, Floats]) -> str | None:
    found = [columns[name] for axis in "xyz" if (name := f"eef_position_{axis}") in columns]
    reach = max((float(np.abs(values).max()) for values in found), default=0.0)
    if reach > REACH_M:
        return f"the columns for the position reach {reach:.3g}; LIBERO's arm stays within {REACH_M:g} m"
    return None


def _rotation(columns: dict[str, Floats], state: Floats, names: Sequence[str]) -> str | None:
    first = next((i for i, name in enumerate(names) if name == "eef_axis_angle_x"), None)
    if first is None:
        return None
    vector = state[:, first : first + 3]
    angle = float(np.linalg.norm(vector, axis=1).max())
    if angle > TURN:
        return f"the axis-angle has a length of {angle:.3g} rad, a rotation has at most {2 * np.pi:.3g}"
    four = state[:, first : first + 4]
    if four.shape[1] == 4 and (np.abs(np.linalg.norm(four, axis=1) - 1) < 1e-3).all():
        return "the columns for the axis-angle and the one behind it are a quaternion: their length is 1 in every row"
    return None


def _steps(columns: dict[str, Floats], commands: dict[str, Floats]) -> str | None:
    axes = [axis for axis in "xyz" if f"delta_position_{axis}" in commands]
    if not axes:
        return None
    reach = max(float(np.abs(values).max()) for name, values in commands.items() if name.startswith("delta_"))
    if reach > STEP:
        return f"the columns for steps reach {reach:.3g}, controller steps stay within -1 .. 1"
    gripper = commands.get("gripper")
    if gripper is not None and not _two_levels(gripper):
        return (
            f"the gripper command takes values between its ends ({gripper.min():.3g} .. {gripper.max():.3g}); LIBERO's "
            "is open or closed"
        )
    places = {axis: columns[f"eef_position_{axis}"] for axis in axes if f"eef_position_{axis}" in columns}
    pairs = [(commands[f"delta_position_{axis}"], place) for axis, place in places.items()]
    return _absolute(pairs) or _too_far(pairs)


def _two_levels(values: Floats) -> bool:
    """Whether nearly all values are -1, 0 or 1."""
    return bool((np.abs(values - np.rint(values)) <= LEVELS).mean() > 0.9 and np.abs(values).max() < 1 + LEVELS)


def _absolute(pairs: Sequence[tuple[Floats, Floats]]) -> str | None:
    """Steps that follow the position itself, and not its change."""
    as_position, as_change = [], []
    for step, position in pairs:
        if len(step) < FEW_ROWS or np.ptp(step) == 0 or np.ptp(position[1:]) == 0 or np.ptp(np.diff(position)) == 0:
            continue
        as_position.append(np.corrcoef(step[:-1], position[1:])[0, 1])
        as_change.append(np.corrcoef(step[:-1], np.diff(position))[0, 1])
    if not as_position:
        return None
    here, change = float(np.mean(as_position)), float(np.mean(as_change))
    if here > 0.9 and here > change + 0.1:
        return (
            f"the columns for steps follow the position itself (correlation {here:.2f}, with its change {change:.2f})"
        )
    return None


def _too_far(pairs: Sequence[tuple[Floats, Floats]]) -> str | None:
    """Steps that move the arm further than LIBERO's controller does for a step of that size: they are metres."""
    ratios = [np.diff(place).std() / step.std() for step, place in pairs if len(step) >= FEW_ROWS and step.std() > 0]
    per_unit = float(np.median(ratios)) if ratios else 0.0
    if per_unit > PER_STEP_M:
        return (
            f"the position changes by {per_unit:.2g} per unit of a step; LIBERO's controller moves at most 0.05 m for "
            "one, so steps are in other units, as of m"
        )
    return None
