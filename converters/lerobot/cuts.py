"""Where a shared video goes from one episode to the next, seen in its images: the robot jumps and the scene changes.

Only looked at where a video has more or fewer frames than its episodes have rows, so that counting tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.lerobot import video
from converters.lerobot.timelines import timeline
from fwdata.errors import BadEpisode

REACH = 32
"""Most frames from where the metadata put an end of an episode to where it is looked for."""

CLOSE = 2
"""Frames from there to where it is looked for first."""

AROUND = 8
"""Frames on both sides that a cut is compared with."""

CLEAR = 3.0
"""A cut stands out this many times as much as any other step around it."""

LEAST = 0.3
"""Grey levels, mean over the image, that a cut changes at least."""

FEWEST = 8
"""Frames that are needed to tell a cut from other steps."""

WIDTH = 64


def find_cuts(path: Path, name: str, wanted: Sequence[tuple[int, int, int]]) -> list[int | None]:
    """First frame behind the cut near each of these, None where no single step stands out.

    wanted: (frame, how far from it the cut may be, how far the next cut is at least). Cost: decodes about
    2 reach + 2 AROUND frames for each, from the keyframe before; kept until the file changes.
    """
    status = path.stat()
    found = []
    for at, reach, room in wanted:
        reaches = dict.fromkeys(
            [min(CLOSE, reach), reach]
        )  # few other frames can hide a cut that is where it should be
        tries = (_find_cut(path, name, at, r, min(AROUND, room), status.st_mtime_ns, status.st_size) for r in reaches)
        found.append(next((cut for cut in tries if cut is not None), None))
    return found


@lru_cache(maxsize=4096)
def _find_cut(path: Path, name: str, at: int, reach: int, around: int, mtime_ns: int, size: int) -> int | None:
    frames = len(timeline(path, name, torn=True).times)
    first, last = max(0, at - reach - around), min(frames, at + reach + around)
    if last - first < FEWEST:
        return None
    try:
        changes = _changes(video.VideoPixels(path, name, np.arange(first, last)))
    except BadEpisode:
        return None  # said where the episode's frames are read
    low, high = max(1, at - reach - first), min(len(changes), at + reach - first + 1)
    if low >= high:
        return None
    here = low + int(changes[low:high].argmax())
    rest = np.delete(changes[1:], here - 1)
    clear = changes[here] >= max(LEAST, CLEAR * float(rest.max(initial=0.0)))
    return first + here if clear else None


def _changes(pixels: video.VideoPixels) -> NDArray[np.float64]:
    """float64 [n], how much more a frame's pixels change from the frame before than ever else; 0 for the first.

    So what flickers, a clock or a lamp, and what passes by do not count: a cut is where much changes for once.
    """
    small = np.stack(list(_small(pixels)))
    steps = np.abs(np.diff(small, axis=0)).reshape(len(small) - 1, -1)
    order = np.sort(steps, axis=0)
    more = (order[-1] - order[-2]).astype(np.float64)
    found: NDArray[np.float64] = np.bincount(steps.argmax(axis=0) + 1, more, len(small)) / steps.shape[1]
    return found


def _small(pixels: video.VideoPixels) -> Iterable[NDArray[np.int16]]:
    """Grey thumbnails, int16 [h, w]."""
    for frame in video.decode(pixels):
        side = max(1, frame.width // WIDTH)
        shape = frame.height // side, frame.width // side
        grey = frame.reformat(shape[1], shape[0], "gray", interpolation="AREA").planes[0]
        lines = np.frombuffer(grey, np.uint8).reshape(-1, grey.line_size)
        yield lines[: shape[0], : shape[1]].astype(np.int16)
