"""Small grey images of JPEG buffers, for detectors and for converters that decode every buffer anyway to check it."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

WIDTH = 64
"""Pixels; images are averaged over whole blocks of pixels down to at least this width."""

MIN_HEIGHT = 24
"""Pixels of height that averaging leaves at least."""

COARSE = 40
"""The same of rendered JPEG images. One of 320x240 is then decoded at an eighth of its size, at which only the mean of
each block is read: a third less. Of 102 planted faults (turns, delays, exchanges, frozen images) of RoboTwin recordings
of 320x240, 2 true ones and 14 of the sample world, the same detectors report 95 by 40x30 as by 80x60 pixels; 5 others
are reported by both, and 2 early images of a wrist camera were so as mirrored in one episode. Not of real robots: where
little moves, it is averaged below what counts as noise, as in 3 of 10 episodes of the two-arm panel set."""


def block_size(height: int, width: int, least: int = WIDTH) -> int:
    """Side of the blocks of pixels that are averaged. least: width that is left."""
    return max(1, min(width // least, height // MIN_HEIGHT))


@cache
def _scaled(height: int, width: int, least: int) -> tuple[int, int, int]:
    """Height and width that a JPEG is decoded at, and the side of the blocks of these pixels that are averaged."""
    factor = next(f for f in (8, 4, 2, 1) if f == 1 or block_size(height, width, least) >= f)
    high, wide = -(-height // factor), -(-width // factor)
    return high, wide, block_size(high, wide, least)


def small_grey(data: bytes, least: int = WIDTH, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """One JPEG buffer -> uint8 [h, w], grey, decoded at an eighth of its size at least. ValueError when damaged.

    least: width that is left. size: its height and width, where they are known. Cost: reading the coded bits, and 20 us
    for 320x240 (none with LIGHT_WIDTH or COARSE).
    """
    import simplejpeg

    height, width = size or simplejpeg.decode_jpeg_header(data)[:2]
    high, wide, side = _scaled(height, width, least)
    found: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "GRAY", min_height=high, min_width=wide)[..., 0]
    if side == 1:
        return found
    h, w = found.shape[0] // side, found.shape[1] // side
    total = np.zeros((h, w), np.uint32)
    for row in range(side):
        for column in range(side):
            total += found[row : h * side : side, column : w * side : side]
    return (total // side**2).astype(np.uint8)
