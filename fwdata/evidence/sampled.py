"""Small grey images of video frames for light detectors: of some pixels of a frame, taken as it is decoded."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.looks import averaged
from fwdata.images.small import block_size

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

LIGHT_WIDTH = 32
"""Pixels of width that are left of an image that only light detectors look at, at least."""

LINES, COLUMNS = 4, 5
"""Pixels of a block that are averaged, at most: those where so many of its lines and columns cross. With fewer, what
coding an image again changes is taken for motion: of 12 recordings (Unitree G1) that freeze on the way and are coded
as MPEG-4, 4 pixels of one line find none, these all, as the average of all pixels does."""

BATCH = 8
"""Frames whose pixels are averaged at once."""

BRIGHT_FIRST = frozenset(
    {"gray", "nv12", "yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuvj422p", "yuvj444p"},
)
"""Pixel formats whose first plane is the brightness, a byte for a pixel; others are averaged by libswscale."""

FULL = 2
"""`color_range` of a frame whose brightness goes from 0 to 255, not from 16 to 235."""


class Sampler:
    """Takes a small grey image of every video frame that it is given, of which it keeps no more than some lines.

    A frame is not held: while some are, a decoder writes to memory that is in no cache, and decoding the others takes
    longer than looking at one. Cost: 10 us per frame of 320x240.
    """

    def __init__(self) -> None:
        self._lines: NDArray[np.uint8] | None = None
        self._count = 0
        self._kind: tuple[int, int, bool] | None = None

    def add(self, frame: VideoFrame) -> list[NDArray[np.uint8]]:
        """Take one frame; the images uint8 [n, h, w] that are done before it can be taken, if any."""
        form = frame.format.name
        height, width = frame.height, frame.width
        side = block_size(height, width, LIGHT_WIDTH)
        if form not in BRIGHT_FIRST:
            plane = averaged(frame, width // side, height // side, "gray").planes[0]
            lines: NDArray[np.uint8]
            lines = np.ndarray((height // side, width // side), np.uint8, plane, 0, (plane.line_size, 1))
            return [*self.take(), lines.copy()[None]]
        kind = (height, width, form == "gray" or form.startswith("yuvj") or frame.color_range == FULL)
        done = self.take() if kind != self._kind or self._count == BATCH else []
        first, step, count = _spread(side, LINES)
        if self._lines is None or kind != self._kind:
            self._lines = np.empty((BATCH, height // side, count, width // side * side), np.uint8)
            self._kind = kind
        plane = frame.planes[0]
        line = plane.line_size
        strides = side * line, step * line, 1
        self._lines[self._count] = np.ndarray(self._lines.shape[1:], np.uint8, plane, first * line, strides)
        self._count += 1
        return done

    def take(self) -> list[NDArray[np.uint8]]:
        """The images uint8 [n, h, w] of the frames since they were last taken, none or one array."""
        if self._lines is None or self._kind is None or not self._count:
            return []
        side = block_size(*self._kind[:2], LIGHT_WIDTH)
        first, step, count = _spread(side, COLUMNS)
        lines, self._count = self._lines[: self._count], 0
        sums = lines[:, :, 0].astype(np.uint16)
        for line in range(1, lines.shape[2]):
            sums += lines[:, :, line]
        blocks = sums.reshape(-1, side)
        total = blocks[:, first].copy()
        for column in range(1, count):
            total += blocks[:, first + column * step]
        levels = _levels(lines.shape[2] * count, self._kind[2])
        return [levels.take(total).reshape(*sums.shape[:2], -1)]


@cache
def _spread(side: int, most: int) -> tuple[int, int, int]:
    """First, step and count of at most so many of the lines of a block, evenly spread."""
    count = min(most, side)
    step = side // count
    return (side - 1 - (count - 1) * step) // 2, step, count


@lru_cache(maxsize=16)
def _levels(count: int, full: bool) -> NDArray[np.uint8]:
    """uint8 [255 * count + 1], grey level of a sum of so many pixels."""
    mean = np.arange(255 * count + 1) / count
    level = mean if full else (mean - 16) * (255 / 219)
    found: NDArray[np.uint8] = np.clip(np.rint(level), 0, 255).astype(np.uint8)
    return found
