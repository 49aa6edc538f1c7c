"""Recorded commands of LIBERO: what is trained, what is a no-op, and what does not look like delta commands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.libero.gripper import OWN, GripperDecision
from converters.libero.hdf5 import Demo

ABSOLUTE_ROWS, ABSOLUTE_LAGS = 8, 6
"""Fewest rows that tell, and lags that are tried, which are fewer."""
ABSOLUTE_TRAVEL = 0.02
"""Range (m or rad) that a column must have to tell anything."""
ABSOLUTE_CORRELATION = 0.9
ABSOLUTE_NEAR = 0.15
"""Median distance from where the arm is, as a share of its range, below which actions are targets."""


def policy_actions(actions: NDArray[np.float64], gripper: GripperDecision = OWN) -> NDArray[np.float32]:
    """Actions as Fast-WAM trains them: the gripper as 1 open / 0 closed, the rest unchanged.

    float64 [T, 7] to float32 [T, 7].
    """
    mapped = actions.copy()
    mapped[:, 6] = gripper.apply(actions[:, 6])
    return mapped.astype(np.float32)


def absolute_targets(demo: Demo) -> str | None:
    """What shows that columns 0 to 2 of the actions are positions to go to, or joint angles; None for delta commands.

    Delta commands (1 = 0.05 m of one step) are never within centimetres of where the arm is, in every row.
    """
    if len(demo.actions) < ABSOLUTE_ROWS:
        return None
    followed = {"the end effector's position in m": demo.state[:, :3]}
    if demo.joints is not None:
        followed["the joint angles in rad"] = demo.joints[:, :3]
    for what, values in followed.items():
        travel = np.ptp(values, axis=0)
        moving, span = travel > ABSOLUTE_TRAVEL, float(travel.max())
        if not moving.any():
            continue
        for lag in _near(demo.actions[:, :3], values, ABSOLUTE_NEAR * span):
            apart = np.abs(demo.actions[: len(values) - lag, :3] - values[lag:])
            typical = float(np.median(apart, axis=0).max())
            if typical < ABSOLUTE_NEAR * span and _follows(demo.actions, values, lag, moving):
                return f"columns 0 to 2 are {what} of {lag} rows later within {typical:.2g}"
    return None


def _near(actions: NDArray[np.float64], values: NDArray[np.float64], near: float) -> list[int]:
    """Lags at which at least half the rows of every column are nearer than that: a median below it needs as many.

    actions, values: float64 [T, 3], at least ABSOLUTE_ROWS of them.
    """
    rows = len(values)
    apart = np.full((ABSOLUTE_LAGS, 3, rows), np.inf)
    for lag in range(ABSOLUTE_LAGS):
        np.subtract(actions.T[:, : rows - lag], values.T[:, lag:], out=apart[lag, :, : rows - lag])
    counts = np.count_nonzero(np.abs(apart, out=apart) < near, axis=2).min(axis=1)
    return [lag for lag, count in enumerate(counts.tolist()) if 2 * count >= rows - lag]


def _follows(actions: NDArray[np.float64], values: NDArray[np.float64], lag: int, columns: NDArray[np.bool_]) -> bool:
    """Whether every moving column of the actions is correlated with the values `lag` rows later."""
    pairs = [(actions[: len(values) - lag, i], values[lag:, i]) for i in np.flatnonzero(columns)]
    if any(one.std() == 0 or other.std() == 0 for one, other in pairs):
        return False
    return all(float(np.corrcoef(one, other)[0, 1]) > ABSOLUTE_CORRELATION for one, other in pairs)


def kept_actions(actions: NDArray[np.float64]) -> NDArray[np.bool_]:
    """False for every no-op of recorded actions float64 [T, 7].

    A no-op has norm(action[:6]) < 1e-4 and the gripper command of the last action that was kept (not of the previous
    one); before any action is kept the norm alone counts (openvla regenerate_libero_dataset.py).
    """
    kept: NDArray[np.bool_] = np.linalg.norm(actions[:, :6], axis=1) >= 1e-4
    if kept.any():  # before, commands do not count; after a row is kept the last kept command is that of the row before
        first = int(kept.argmax())
        kept[first + 1 :] |= actions[first + 1 :, 6] != actions[first:-1, 6]
    return kept


def action_warnings(actions: NDArray[np.float64], absolute: bool = False) -> list[str]:
    """Values that no published file holds: suspicious, but kept. absolute: columns 0 to 5 are positions and angles."""
    warnings = []
    low, high = float(actions.min()), float(actions.max())
    if not absolute and (low < -1 or high > 1):
        warnings.append(f"actions reach {low:.4g} .. {high:.4g}, expected -1 .. 1")
    commands = actions[:, 6]
    other = commands[(commands != 0) & (np.abs(commands) != 1)]
    if len(other):
        warnings.append(f"gripper commands other than -1 and 1, the first is {other.min():.4g}; clipped to 0 .. 1")
    return warnings
