"""Which way LIBERO's gripper command counts, decided by what the fingers did after it was given.

Published files hold -1 open / +1 close. Others were recorded or rewritten as +1 open, or as 0 and 1 in either sense.
Nothing but the fingers tells: after a switch of the command the measured opening moves within 0.75 s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from converters.libero.neighbours import kept_of_file
from converters.shared.hdf5 import check_written, dataset
from fwdata.errors import BadEpisode
from fwdata.wording import counted

if TYPE_CHECKING:
    import h5py

type GripperRule = Literal["auto", "plus_closes", "plus_opens"]

RESPONSE_ROWS = 15
"""Rows (0.75 s at 20 Hz) within which the fingers answer."""
RESPONSE_SHARE = 0.15
"""Share of the opening's range that counts as an answer."""
AGREEMENT = 0.9
"""Share of the answered switches that must point the same way."""
CORRELATION, LAGS = 0.3, range(11)
HYSTERESIS = 0.1
OTHER_DEMOS = 5
LARGEST, OUTLIERS = 1.5, 0.2
"""Size that no command has, and the share of rows beyond it that is not an accident."""
SMALLEST = 0.5
"""Size that the largest command of a demonstration has at least, where they differ."""
WIDTH = 0.12
"""Largest opening in m of a gripper's fingers: commands that never exceed it are widths."""


@dataclass(frozen=True)
class GripperDecision:
    """How the command of one demonstration becomes 1 open / 0 closed."""

    plus_opens: bool
    """Whether a larger command opens; LIBERO's own closes."""
    decided_by: str
    """What decided it."""
    warning: str | None = None
    """A sentence for the user where it is not LIBERO's own, or not certain."""

    @property
    def rule(self) -> str:
        """The mapping in words, for the metadata."""
        return "1 open, 0 closed: clip(g, 0, 1)" if self.plus_opens else OWN_RULE

    def apply(self, commands: NDArray[np.float64]) -> NDArray[np.float64]:
        """Recorded commands [T] as 1 open / 0 closed.

        1 - clip(g, 0, 1) of LIBERO's own: openvla prismatic/vla/datasets/rlds/oxe/transforms.py, any4lerobot
        libero2lerobot/libero_h5.py.
        """
        clipped: NDArray[np.float64] = np.clip(commands, 0.0, 1.0)
        return clipped if self.plus_opens else 1.0 - clipped


OWN_RULE = "1 open, 0 closed: 1 - clip(g, 0, 1) of the recorded -1 open / +1 close"
OWN = GripperDecision(False, "default: -1 open, +1 close")


@dataclass(frozen=True)
class _Measured:
    """sign: +1 a larger command opens, -1 it closes, 0 nothing tells; detail: the numbers; low: the lowest command."""

    sign: int
    detail: str
    low: float = 0.0


def decide(
    file: h5py.File,
    demo: str,
    demos: Sequence[str],
    commands: NDArray[np.float64],
    fingers: NDArray[np.float64],
    rule: GripperRule,
) -> GripperDecision:
    """How a demonstration's commands float64 [T] count; fingers: float64 [T, 2], joint positions in m.

    The option decides; with "auto" this demonstration's own switches, else those of others of the file, else LIBERO's
    own meaning, with a warning where the commands are not -1 and 1. BadEpisode for commands on another scale.
    """
    _check_scale(commands)
    if rule != "auto":
        return GripperDecision(rule == "plus_opens", f"option gripper = {rule}")
    found, where = _measure(commands, fingers[:, 0] - fingers[:, 1]), "this demonstration"
    for other in [name for name in demos if name != demo][:OTHER_DEMOS]:
        if found.sign:
            break
        found, where = kept_of_file(file, _measure_other, other), other
    if found.sign > 0:
        return GripperDecision(
            True,
            f"measured in {where}: {found.detail}",
            "a larger gripper command opens the fingers, the reverse of LIBERO's -1 open / +1 close "
            f"({where}: {found.detail}); stored as 1 open; option gripper sets it",
        )
    if found.sign < 0:
        unset = found.low < 0 and commands.size and not commands.any()
        zero = f"the gripper command is 0 in every row, where {where} has -1 and 1: it may never have been recorded; "
        told = f"{zero}stored as open; --exclude leaves it out" if unset else None
        return GripperDecision(False, f"measured in {where}: {found.detail}", told)
    if commands.size and commands.min() >= 0:
        return GripperDecision(
            False,
            OWN.decided_by,
            f"gripper commands are {commands.min() + 0.0:.4g} .. {commands.max() + 0.0:.4g} instead of -1 and 1, and "
            "no switch moves the fingers: taken as larger closes; option gripper sets it",
        )
    return OWN


def _check_scale(commands: NDArray[np.float64]) -> None:
    """BadEpisode for commands that are neither -1 .. 1 nor 0 .. 1; single outliers are left to the warnings."""
    if not commands.size:
        return
    low, high = float(commands.min()), float(commands.max())
    reach = max(-low, high)
    if reach > LARGEST and np.mean(np.abs(commands) > LARGEST) > OUTLIERS:
        raise BadEpisode(
            f"gripper commands (actions column 6) are {low:.4g} .. {high:.4g}; expected -1 open and +1 close, or 0 and "
            "1: rescale them"
        )
    if 0 < reach < SMALLEST and np.unique(commands).size > 1:
        what = "probably widths in m" if reach <= WIDTH else "on another scale"
        raise BadEpisode(
            f"gripper commands (actions column 6) are {low:.4g} .. {high:.4g}, {what}; expected -1 open and +1 close, "
            "or 0 and 1: rescale them"
        )


def _measure(commands: NDArray[np.float64], opening: NDArray[np.float64]) -> _Measured:
    """Switches of the command against the answers of the opening, both [T]."""
    span = float(np.ptp(opening)) if opening.size else 0.0
    follow = oppose = 0
    for row, direction in _switches(commands):
        change = opening[row : row + RESPONSE_ROWS + 1] - opening[max(0, row - 1)]
        largest = float(change[np.abs(change).argmax()])
        if span > 0 and abs(largest) > RESPONSE_SHARE * span:
            follow += np.sign(largest) == direction
            oppose += np.sign(largest) != direction
    most, answered = max(follow, oppose), follow + oppose
    if not answered or most < AGREEMENT * answered:
        return _Measured(0, f"{counted(follow, 'switch')} for, {oppose} against")
    sign = 1 if follow > oppose else -1
    second = _correlation(commands, opening)
    if sign * second < CORRELATION:
        return _Measured(0, f"{most} of {counted(answered, 'switch')}, but correlation {second:+.2f}")
    return _Measured(sign, f"{most} of {counted(answered, 'switch')}, correlation {second:+.2f}", float(commands.min()))


def _switches(commands: NDArray[np.float64]) -> list[tuple[int, int]]:
    """(row, +1 up or -1 down) of every crossing of the middle of the command's range."""
    low, high = float(commands.min(initial=0)), float(commands.max(initial=0))
    if high - low <= 1e-6:
        return []
    middle, margin = (low + high) / 2, HYSTERESIS * (high - low)
    side = np.where(commands > middle + margin, 1, np.where(commands < middle - margin, -1, 0))
    rows = np.flatnonzero(side)
    turns = np.flatnonzero(np.diff(side[rows]))
    return [(int(rows[turn + 1]), int(side[rows[turn + 1]])) for turn in turns]


def _correlation(commands: NDArray[np.float64], opening: NDArray[np.float64]) -> float:
    """Of command[t] with opening[t + lag], at the lag where it is largest in size."""
    best = 0.0
    for lag in LAGS[: max(0, len(commands) - 2)]:
        found = correlation(commands[: len(commands) - lag], opening[lag:])
        best = found if abs(found) > abs(best) else best
    return best


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """np.corrcoef of two series [T], step by step the same at a third of its cost; 0 where one of them is constant."""
    both = np.array((one, other))
    both -= both.mean(axis=1)[:, None]
    (first, shared), (_, second) = (np.dot(both, both.T) * (1 / (len(one) - 1))).tolist()
    found: float = shared / math.sqrt(first) / math.sqrt(second) if first > 0 and second > 0 else 0.0
    return min(1.0, max(-1.0, found))


def _measure_other(file: h5py.File, demo: str) -> _Measured:
    """The same of another demonstration; one that cannot be read tells nothing."""
    try:
        actions, fingers = (dataset(file, f"data/{demo}/{key}") for key in ("actions", "obs/gripper_states"))
        if actions is None or fingers is None or actions.shape[1:] != (7,) or fingers.shape != (len(actions), 2):
            return _Measured(0, "")
        for key, node in (("actions", actions), ("obs/gripper_states", fingers)):
            check_written(node, f"data/{demo}/{key}")
        opening = np.asarray(fingers[()], np.float64) @ np.array([1.0, -1.0])
        commands = np.asarray(actions[:, 6], np.float64)
    except (BadEpisode, OSError, RuntimeError, KeyError, ValueError):
        return _Measured(0, "")
    if not (np.isfinite(commands).all() and np.isfinite(opening).all()):
        return _Measured(0, "")
    return _measure(commands, opening)
