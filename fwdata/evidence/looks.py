"""What an episode's images are known again by: the colours of the first one, and prints of all of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fwdata.images.small import block_size

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

TILES = 8
"""The first image is averaged over 8x8 tiles."""

PRINTS = 32
"""Prints of an episode that are kept: the smallest, so that two episodes of the same images keep the same ones."""

SAMPLES = 32
"""Rows and columns of a video frame, at least, whose brightness makes a print (6 us); as many pixels of a raw one,
evenly spread, do so by their green (3 us)."""

PRINTED = 1024
"""Bytes of a JPEG buffer, evenly spread, that make its print (2 us): a change moves all coded bits behind it."""

SMALLEST = 3 * TILES
"""Pixels of height and width, at least, that a JPEG buffer is decoded at for its tiles."""


@dataclass(frozen=True, eq=False)
class CameraLook:
    """What one camera's images of one episode are known again by."""

    tiles: NDArray[np.uint8]
    """uint8 [8, 8, 3], RGB, the first image averaged over tiles."""
    prints: NDArray[np.uint32]
    """uint32 [n], in order: the 32 smallest checksums of its distinct images, of JPEG buffers or of some pixels."""


class LookTaker:
    """Takes the look of one camera as its frames pass by."""

    def __init__(self) -> None:
        self._tiles: NDArray[np.uint8] | None = None
        self._seen = set[int]()

    def add_rgb(self, frames: NDArray[np.uint8]) -> None:
        """Take uint8 [n, H, W, 3]."""
        if not len(frames):
            return
        if self._tiles is None:
            self._tiles = tiles_of(frames[0])
        apart = 3 * (frames[0].size // 3 // SAMPLES**2 | 1)  # odd, so that neither few columns nor few rows are met
        green = frames.reshape(len(frames), -1)[:, 1::apart]
        self._seen.update(map(zlib.crc32, np.ascontiguousarray(green)))

    def add_jpeg(self, data: bytes, swapped: bool = False) -> None:
        """Take one JPEG buffer that can be decoded. swapped: a decoder shows red and blue exchanged."""
        if self._tiles is None:
            import simplejpeg

            small = simplejpeg.decode_jpeg(data, min_height=SMALLEST, min_width=SMALLEST, min_factor=1)
            self._tiles = tiles_of(small[..., ::-1] if swapped else small)
        self._seen.add(zlib.crc32(bytes(data[:: len(data) // PRINTED or 1]), len(data)))

    def add_video(self, frame: VideoFrame) -> None:
        """Take one decoded video frame."""
        if self._tiles is None:
            side = block_size(frame.height, frame.width)
            small = frame.reformat(frame.width // side, frame.height // side, "rgb24", interpolation="AREA")
            self._tiles = tiles_of(small.to_ndarray().astype(np.uint8, copy=False))
        plane = frame.planes[0]
        grid, step = _grid(frame.height, frame.width)
        some: NDArray[np.uint32] = np.ndarray(grid, np.uint32, plane, 0, (plane.line_size * step, 4 * step))
        self._seen.add(zlib.crc32(some.copy()))  # which is far faster than its bytes

    def take(self, swapped: bool = False) -> CameraLook | None:
        """The look; None where no frame passed by. swapped: red and blue were exchanged before it was encoded."""
        if self._tiles is None:
            return None
        return CameraLook(self._tiles[..., ::-1] if swapped else self._tiles, smallest(self._seen))


@cache
def _grid(height: int, width: int) -> tuple[tuple[int, int], int]:
    """(rows and columns that make a print, four pixels at a time, and pixels from one to the next)."""
    step = max(1, min(height, width) // SAMPLES)
    return (-(-height // step), max(1, width // 4 // step)), step


def smallest(prints: Iterable[int]) -> NDArray[np.uint32]:
    """uint32 [n], the smallest distinct prints of those given, in order."""
    return np.array(sorted(set(prints))[:PRINTS], np.uint32)


def tiles_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] -> uint8 [8, 8, 3], averages; a smaller image is sampled."""
    height, width = image.shape[:2]
    step = max(1, min(height, width) // (8 * TILES))
    thin = image[::step, ::step].astype(np.float32)
    rows, columns = (np.linspace(0, n, TILES + 1).round().astype(np.int64)[:-1] for n in thin.shape[:2])
    if min(thin.shape[:2]) < TILES:
        down, across = (np.linspace(0, n - 1, TILES).astype(np.int64) for n in (height, width))
        sampled: NDArray[np.uint8] = image[down][:, across]
        return sampled
    sums = np.add.reduceat(np.add.reduceat(thin, rows, axis=0), columns, axis=1)
    counts = np.diff([*rows, thin.shape[0]])[:, None] * np.diff([*columns, thin.shape[1]])[None]
    found: NDArray[np.uint8] = (sums / counts[..., None]).astype(np.uint8)
    return found
