"""Shared videos (v3.0) of which a part is lost: the episodes whose frames are all there.

Where a file is cut, or a part of it cannot be read, its frames cannot be counted against the rows any more. The frames
that are left come at an even rate, and their times tell which number each has in the file. Two things have to be known
besides: that none, or how many, are lost in front of the first one, and that the file as it was had as many frames as
its episodes have rows, as far as anything tells it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.timelines import ADVICE, Timeline
from converters.lerobot.video import Assignment
from fwdata.errors import BadEpisode
from fwdata.images.tears import begins_whole
from fwdata.wording import counted


@dataclass(frozen=True)
class Wanted:
    """What the metadata say of an episode of a shared video."""

    begin: int
    """Number of its first frame in the file."""
    rows: int
    """Its rows, and so its frames."""
    total: int
    """Frames of the file by the rows of all its episodes."""
    unlisted: float
    """How many frames more than `total` are taken for episodes that are not listed, rather than for a fault."""
    counted: bool
    """Whether `begin` is counted by rows; else it is a time, which is right at the dataset's rate alone."""


def assign_torn(found: Timeline, path: Path, name: str, wanted: Wanted, fps: float) -> Assignment | None:
    """The frames of an episode; None where no part of the file is known to be lost, or nothing tells frames' numbers.

    BadEpisode where one of its frames is lost, or nothing tells which they are.
    """
    tear = found.tears[0] if found.tears else None
    if tear is None and not found.damage:
        return None
    said = f"{name} {tear.words if tear else found.damage}"
    told = _numbers(found.times)
    if told is None:
        return None
    numbers, step = told
    front = _lost_in_front(found, path, wanted.total - int(numbers[-1]) - 1, step)
    if front is None:
        raise BadEpisode(f"{said}, and nothing tells how many frames are lost at its start; {ADVICE}")
    numbers = numbers + front
    if not wanted.counted and abs(step * fps - 1) * wanted.total >= 0.5:
        raise BadEpisode(f"{said}; it runs at {1 / step:.4g} frames/s, meta/info.json says {fps:g}; {ADVICE}")
    whole = int(numbers[-1]) + 1 if found.listed is None else found.listed
    surplus = whole - wanted.total
    if (surplus > 0 and surplus < wanted.unlisted) or (surplus < 0 and found.listed is not None):
        raise BadEpisode(
            f"{said}, and it had {counted(whole, 'frame')}, its episodes have {counted(wanted.total, 'row')}, "
            "so nothing tells which are "
            f"whose; {ADVICE}"
        )
    need = np.arange(wanted.begin, wanted.begin + wanted.rows)
    there = np.isin(need, numbers)
    if not there.all():
        raise BadEpisode(f"{said}; {_lost(there)}; {ADVICE}")
    ranks = np.flatnonzero(np.isin(numbers, need)).astype(np.int64)
    offset = np.abs(found.times[ranks] - found.times[0] + front * step - need / fps)
    unknown = "" if surplus >= 0 else ", though how many it had is not known"
    warning = f"{said}; episodes whose frames are all there are read, by the times of the frames that are left{unknown}"
    return Assignment(ranks, "counted by the times of the frames that are left", float(offset.max()), warning)


def _lost(there: NDArray[np.bool_]) -> str:
    """Which frames of an episode are lost."""
    rows = np.flatnonzero(~there)
    if len(rows) == len(there):
        return f"all {len(there)} frames of the episode are lost"
    if len(rows) == 1:
        return f"frame {rows[0]} of the episode is lost"
    return f"{len(rows)} of {len(there)} frames of the episode are lost, the first of them {rows[0]}"


def _numbers(times: NDArray[np.float64]) -> tuple[NDArray[np.int64], float] | None:
    """(number of every frame counted from the first that is left, seconds from one to the next); None where they are
    not at an even rate."""
    if len(times) < 3:
        return None
    steps = np.diff(times)
    step = float(steps[steps < 1.5 * np.median(steps)].mean())
    numbers = np.concatenate([[0], np.cumsum(np.rint(steps / step))]).astype(np.int64)
    slope, start = np.polyfit(numbers, times, 1)
    off = np.abs(times - start - slope * numbers)
    return (numbers, float(slope)) if off.max() < slope / 4 and np.diff(numbers).min() > 0 else None


def _lost_in_front(found: Timeline, path: Path, missing: int, step: float) -> int | None:
    """How many frames are lost before the first that is left; None where nothing tells. missing: in front and behind.

    Times of files that were cut out of a longer one, and of transport streams, begin anywhere.
    """
    if found.listed is not None or found.times[0] < 0.5 * step:
        return 0
    begins = found.keys[:1].tolist() == [0] and 0 not in found.spoilt
    if begins and begins_whole(path, found.place, found.tears):
        return 0
    if any(tear.cut for tear in found.tears):
        return None
    in_front = len(found.tears) > 0 and all(tear.stop <= found.place for tear in found.tears)
    return missing if missing == 0 or in_front or missing == round(float(found.times[0]) / step) else None
