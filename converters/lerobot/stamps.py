"""Times that were recorded with the rows: which frames of a video they show where rows were cut out of an episode.

LeRobot's own timestamps are k / fps and prove nothing. Where rows at the start or on the way were removed and the video
was left as it is, the column still has the times of the rows that are left, by which lerobot itself finds their frames.
"""

from __future__ import annotations

import numpy as np

from converters.lerobot.values import Floats
from converters.lerobot.video import Assignment, Timeline

_UNITS = (1.0, 1e-3, 1e-6, 1e-9)
"""Timestamps are seconds; some sets write ms, us or ns."""

_NEAR = 0.1
"""How far the median step may be from that of the rate, as a share of it."""


def telling_times(times: Floats, fps: float) -> Floats | None:
    """Seconds of the rows, float64 [T], where they are other than k / fps by half a row; None where they tell nothing.

    times: column timestamp, [T].
    """
    if len(times) < 2 or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        return None
    step = float(np.median(np.diff(times)))
    unit = next((unit for unit in _UNITS if abs(step * unit * fps - 1) < _NEAR), None)
    if unit is None:
        return None
    seconds = times * unit
    told = np.abs(seconds - np.arange(len(seconds)) / fps) >= 0.5 / fps
    return seconds if told.any() else None


def at_times(found: Timeline, start_s: float, seconds: Floats) -> Assignment | None:
    """The frame at start_s + seconds, counted from the file's first one, of every row; None where one has none."""
    times = found.times - found.times[0]
    if len(times) < 2:
        return None
    wanted = start_s + seconds
    after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    ranks = np.where(wanted - times[after - 1] <= times[after] - wanted, after - 1, after).astype(np.int64)
    offset = np.abs(times[ranks] - wanted)
    if (offset >= np.median(np.diff(times)) / 2).any() or (np.diff(ranks) <= 0).any():
        return None
    return Assignment(ranks, "the frame at each row's timestamp", float(offset.max()))
