"""Gripper openings brought to 0 .. 1, what lies beside the scale cut off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fwdata.api import BadEpisode

BESIDE = -0.05, 1.1
"""Openings of 0 .. 1 between which a gripper that overshoots stays."""

CUT = 0.02
"""Share of the rows that may lie beside, as single wrong readings do; above, the scale is another one."""


def to_unit[T: np.floating](values: NDArray[T], top: float) -> NDArray[T]:
    """Openings on the scale 0 .. `top` as 0 .. 1, [T, n]. BadEpisode where that would cut off what a gripper does."""
    opened = values / top
    beside = (opened < BESIDE[0]) | (opened > BESIDE[1])
    if opened.size and beside.mean(axis=0).max() > CUT:
        raise BadEpisode(
            f"gripper values reach {values.min():.4g} .. {values.max():.4g}; option gripper_unit takes them for "
            f"0 .. {top:g} and would cut off those of {beside.any(axis=1).mean():.0%} of the rows: bring them to that "
            "scale, or convert the recording without the option, to a store of its own"
        )
    return np.clip(opened, 0.0, 1.0)
