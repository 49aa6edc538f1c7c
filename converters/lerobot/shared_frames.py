"""Frames that the videos of neighbouring episodes share, and what they tell about frames that no row has.

Where episodes were cut out of a longer video, one neighbour's last frames are the other's first: frames of the earlier
episode before the first row of the later one, or of the later one behind the last row of the earlier. Two videos alone
do not tell these apart, so the neighbours of neighbours are asked until one answer is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.timelines import timeline
from fwdata.errors import BadEpisode


@dataclass(frozen=True, eq=False)
class Cut:
    """The video of one episode."""

    rows: int
    """Rows of the episode."""
    digests: NDArray[np.int64]
    """int64 [N], a checksum of each frame's packet; N is at least `rows`."""
    begins: bool
    """Whether the first frame is a keyframe, as where a longer video was cut."""

    @property
    def surplus(self) -> int:
        """Frames that no row has."""
        return len(self.digests) - self.rows


type Beside = Callable[[int], Cut | None]
"""The video of the episode so many places later (or earlier, below 0); None where it cannot be read."""


def frames_before_rows(beside: Beside) -> int | None:
    """How many frames of the video at place 0 are before its first row; None where the neighbours do not tell.

    Every neighbour must have the frames that are said to be its own.
    """
    here = beside(0)
    if here is None:
        return None
    low, high = 0, here.surplus
    for least, most in _asked(beside, here):
        low, high = max(low, least), min(high, most)
        if low >= high:
            break
    if low != high:
        return None
    lacks_before = low > 0 and beside(-1) is None
    lacks_after = low < here.surplus and beside(1) is None
    return None if lacks_before or lacks_after else low


type _Bounds = tuple[int, int]
"""Between how many and how many frames before the first row at place 0 a neighbour allows."""


def _asked(beside: Beside, here: Cut) -> Iterator[_Bounds]:
    """What the neighbours say: both nearest ones at once, then those before them, then those behind."""
    before, after = _earlier(beside, here), _later(beside, here)
    nearest = [found for found in (next(before, None), next(after, None)) if found is not None]
    if nearest:
        yield max(least for least, _ in nearest), min(most for _, most in nearest)
    yield from before
    yield from after


def _earlier(beside: Beside, here: Cut) -> Iterator[_Bounds]:
    """The first `both` frames of a video are its own but for those before its first row: so many has the one before
    behind its last row, none to all of what it has over."""
    place, more = 0, 0  # before the first row at `place` are `more` frames than at place 0
    while (found := beside(place - 1)) is not None:
        both = common(found, here)
        yield both - more - found.surplus, both - more
        if not both or not found.surplus:
            return
        place, here, more = place - 1, found, more + found.surplus - both


def _later(beside: Beside, here: Cut) -> Iterator[_Bounds]:
    place, more = 0, 0
    while (found := beside(place + 1)) is not None:
        both = common(here, found)
        more += both - here.surplus
        yield -more, found.surplus - more
        if not both or not found.surplus:
            return
        place, here = place + 1, found


def common(earlier: Cut, later: Cut) -> int:
    """The largest number of frames at the end of one video that begin the next, packet by packet."""
    most = min(earlier.surplus + later.surplus, len(earlier.digests), len(later.digests)) if later.begins else 0
    for count in range(most, 0, -1):
        if np.array_equal(earlier.digests[-count:], later.digests[:count]):
            return count
    return 0


def repeated_start(earlier: Cut, later: Cut) -> int:
    """Frames of a video that begin the next one, where both have a frame for every row, no more; 0: none, or one.

    Frames that are all alike, of a camera that shows nothing, are not counted.
    """
    if earlier.surplus or later.surplus or not later.begins:
        return 0
    for start in np.flatnonzero(earlier.digests == later.digests[0]):
        shared = earlier.digests[start:]
        count = len(shared)
        if 1 < count < len(later.digests) and np.array_equal(shared, later.digests[:count]):
            return count if len(np.unique(shared)) == count else 0
    return 0


def cut_of(path: Path, name: str, rows: int) -> Cut | None:
    """The video of an episode, kept until the file changes; None where it cannot be read or has fewer frames."""
    try:
        status = path.stat()
    except OSError:
        return None
    return _cut_of(path, name, rows, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)  # all neighbours of a long run, so that each is read once
def _cut_of(path: Path, name: str, rows: int, mtime_ns: int, size: int) -> Cut | None:
    try:
        found = timeline(path, name)
    except BadEpisode:
        return None
    return Cut(rows, found.digests, found.keys[:1].tolist() == [0]) if len(found.times) >= rows else None
