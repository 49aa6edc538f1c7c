"""What an episode's images are known again by: the colours of the first one, and prints of all of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.shared_values import odd_factors
from fwdata.images.small import block_size

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

TILES = 8
"""The first image is averaged over 8x8 tiles."""

PRINTS = 32
"""Prints of an episode that are kept: the smallest, so that two episodes of the same images keep the same ones."""

LINES = 8
"""Lines of an image, at least, all of whose pixels make its print (2 us of 128x128): each single pixel apart would be
waited for as long as a line is."""

TELLING = 128
"""Bytes of a video packet, at least, that make a print."""

MOST_HELD = 1 << 20
"""Bytes of lines of raw frames that are held before their prints are made at once."""

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
        self._printed: list[NDArray[np.uint32]] = []
        self._lines: list[NDArray[np.uint64]] = []
        self._held = 0

    def add_rgb(self, frames: NDArray[np.uint8]) -> None:
        """Take uint8 [n, H, W, 3]."""
        if not len(frames):
            return
        if self._tiles is None:
            self._tiles = tiles_of(frames[0])
        lines = frames[:, :: max(1, frames.shape[1] // LINES)].copy().reshape(len(frames), -1)
        missing = -lines.shape[1] % 8
        whole = np.pad(lines, ((0, 0), (0, missing))) if missing else lines
        self._lines.append(whole.view(np.uint64))
        self._held += whole.nbytes
        if self._held >= MOST_HELD:
            self._print()

    def _print(self) -> None:
        """Make the prints of the raw frames whose lines are held."""
        if self._lines:
            self._printed.append(_digests(self._lines[0] if len(self._lines) == 1 else np.concatenate(self._lines)))
            self._lines, self._held = [], 0

    def add_jpeg(self, data: bytes, swapped: bool = False) -> None:
        """Take one JPEG buffer that can be decoded. swapped: a decoder shows red and blue exchanged."""
        if self._tiles is None:
            import simplejpeg

            small = simplejpeg.decode_jpeg(data, min_height=SMALLEST, min_width=SMALLEST, min_factor=1)
            self._tiles = tiles_of(small[..., ::-1] if swapped else small)
        self._seen.add(zlib.crc32(bytes(data[:: len(data) // PRINTED or 1]), len(data)))

    def add_video(self, frame: VideoFrame) -> None:
        """Take the colours of a decoded video frame, the first that is given."""
        if self._tiles is None:
            height, width = frame.height, frame.width
            side = block_size(height, width)
            small = averaged(frame, width // side, height // side, "rgb24")
            self._tiles = tiles_of(small.to_ndarray().astype(np.uint8, copy=False))

    def add_prints(self, prints: Iterable[int]) -> None:
        """Take the prints of video packets, see `packet_print`; 0 is none."""
        self._seen.update(prints)
        self._seen.discard(0)

    def take(self, swapped: bool = False) -> CameraLook | None:
        """The look; None where no frame passed by. swapped: red and blue were exchanged before it was encoded."""
        if self._tiles is None:
            return None
        self._print()
        prints = smallest(self._seen)
        if self._printed:
            prints = distinct(np.concatenate([prints, *self._printed]))[:PRINTS]
        return CameraLook(self._tiles[..., ::-1] if swapped else self._tiles, prints)


def packet_print(data: bytes) -> int:
    """The print of a coded frame, by its bytes: frames that were copied coded are what episodes share. 0 for one that
    only says that little changed, which those of other images are equal to."""
    return zlib.crc32(data) if len(data) >= TELLING else 0


def _digests(words: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """uint32 [n] of uint64 [n, k]: the upper half of the sum of its words times random odd ones."""
    sums: NDArray[np.uint64] = np.einsum("nk,k->n", words, odd_factors(words.shape[1]))  # twice as fast as @
    found: NDArray[np.uint32] = (sums >> np.uint64(32)).astype(np.uint32)
    return found


def averaged(frame: VideoFrame, width: int, height: int, form: str) -> VideoFrame:
    """A video frame at a smaller size, averaged by libswscale, in a pixel format ("gray", "rgb24")."""
    scaler, area = _scaler(frame.width, frame.height, frame.format.name, form, get_ident())
    return scaler.reformat(frame, width, height, form, interpolation=area)


@lru_cache(maxsize=16)
def _scaler(width: int, height: int, source: str, form: str, thread: int) -> tuple[VideoReformatter, int]:
    """What keeps libswscale's tables between frames of one size, as making them takes longer than an image; one for
    each thread, and each pixel format (`source`), as it keeps the range of levels of its first. And the number of its
    way to average: found by its name, it takes long, too."""
    from av.video.reformatter import Interpolation, VideoReformatter

    return VideoReformatter(), int(Interpolation.AREA.value)


def distinct(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """uint32 [n], the different ones of at least one value, in order: `np.unique` in a third of its time."""
    ordered = np.sort(values)
    found: NDArray[np.uint32] = ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]
    return found


def smallest(prints: Iterable[int]) -> NDArray[np.uint32]:
    """uint32 [n], the smallest distinct prints of those given, in order."""
    return np.array(sorted(set(prints))[:PRINTS], np.uint32)


def tiles_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] -> uint8 [8, 8, 3], averages; a smaller image is sampled. Cost: 12 us for 128x128."""
    height, width = image.shape[:2]
    step = max(1, min(height, width) // (8 * TILES))
    high, wide = -(-height // step), -(-width // step)
    if min(high, wide) < TILES:
        down, across = (np.linspace(0, n - 1, TILES).astype(np.int64) for n in (height, width))
        sampled: NDArray[np.uint8] = image[down][:, across]
        return sampled
    rows, columns = _tiling(high), _tiling(wide)
    thin = image[::step] if step < 3 else image[::step, ::step]  # skipping single pixels takes longer than adding them
    lines = (rows @ thin.astype(np.float32).reshape(high, -1)).reshape(TILES, -1, 3)
    sums = columns @ (lines[:, ::step] if step < 3 else lines)  # whole numbers, in any order the same
    counts = rows.sum(axis=1)[:, None] * columns.sum(axis=1)[None]
    found: NDArray[np.uint8] = (sums / counts[..., None]).astype(np.uint8)
    return found


@lru_cache(maxsize=32)
def _tiling(count: int) -> NDArray[np.float32]:
    """float32 [8, n], 1 where one of so many lines lies in a tile."""
    edges = np.linspace(0, count, TILES + 1).round().astype(np.int64)
    lines = np.arange(count)
    found: NDArray[np.float32] = ((lines >= edges[:-1, None]) & (lines < edges[1:, None])).astype(np.float32)
    return found
