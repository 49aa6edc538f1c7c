"""Times that were recorded with the rows: which frames of a video they show where rows were cut out of an episode.

LeRobot's own timestamps are k / fps and prove nothing. Where rows at the start or on the way were removed and the video
was left as it is, the column still has the times of the rows that are left, by which lerobot itself finds their frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converters.lerobot.timelines import Timeline
from converters.lerobot.values import Floats
from converters.lerobot.video import Assignment
from fwdata.errors import BadEpisode

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


def at_rate(
    found: Timeline, name: str, rows: int, fps: float, start_s: float = 0.0, *, from_end: bool = False
) -> Assignment:
    """The frame closest to start_s + k / fps, counted from the file's first one, of every row.

    from_end: the last row has the last frame. BadEpisode where one is too far.
    """
    times = found.times - found.times[0]
    wanted = start_s + np.arange(rows) / fps
    if from_end:
        wanted += times[-1] - wanted[-1]
    after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    ranks = np.where(wanted - times[after - 1] <= times[after] - wanted, after - 1, after).astype(np.int64)
    offset = np.abs(times[ranks] - wanted)
    if (offset >= 0.5 / fps).any():
        row = int((offset >= 0.5 / fps).argmax())
        raise BadEpisode(f"{name}: row {row} is at {wanted[row]:.3f} s, no frame is closer than {offset[row]:.3f} s")
    return Assignment(ranks, "frame nearest to k / fps", float(offset.max()))


def two_rates(what: str, rate: float, fps: float) -> str:
    """The warning for a video of more frames a second than rows. what: how many there are of both."""
    return f"{what}: {rate:.4g} frames and {fps:g} rows a second; the frame at each row's time is taken"


_SMOOTHER = 1.25
"""How many times as long the way of the state must be in the other order before one of them is right."""

_RESTS = 0.01
"""Share of its range by which a column may differ in both orders where it rests."""


@dataclass(frozen=True)
class RowOrder:
    """Which of two orders of an episode's rows its motion shows to be right."""

    by_index: bool
    """Whether that of frame_index is right, or both are the same to the state; else the other one, or nothing tells."""
    why: str
    """What was measured."""


def order_by_motion(times: Floats, state: Floats) -> RowOrder:
    """Rows in the order of frame_index against that of their times, where these go back: a robot moves without jumps.

    times [T]; state [T, Ds]. Rows with the same place in both orders are not compared.
    """
    order = np.argsort(times, kind="stable")
    apart = order != np.arange(len(times))
    steps = apart[1:] | apart[:-1]
    span = np.ptp(state, axis=0)
    rows = state[:, span > 0] / span[span > 0]
    here, sorted_ = (float(np.abs(np.diff(each, axis=0))[steps].sum()) for each in (rows, rows[order]))
    if np.abs(rows[order] - rows).max(initial=0.0) <= _RESTS:
        return RowOrder(True, "the state is the same in the order of the times")
    ratio = sorted_ / max(here, 1e-12)
    if ratio >= _SMOOTHER:
        return RowOrder(True, f"the state jumps {ratio:.2g} times as far in the order of the times")
    if ratio <= 1 / _SMOOTHER:
        return RowOrder(False, f"the state jumps {1 / ratio:.2g} times as far as in the order of the times")
    return RowOrder(False, "the state moves as smoothly in the order of the times")
