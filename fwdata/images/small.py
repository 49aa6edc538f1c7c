"""Small grey images of JPEG buffers, for detectors and for converters that decode every buffer anyway to check it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDTH = 64
"""Pixels; images are averaged over whole blocks of pixels down to at least this width."""

MIN_HEIGHT = 24
"""Pixels of height that averaging leaves at least."""


def block_size(height: int, width: int, least: int = WIDTH) -> int:
    """Side of the blocks of pixels that are averaged. least: width that is left."""
    return max(1, min(width // least, height // MIN_HEIGHT))


def small_grey(data: bytes, least: int = WIDTH) -> NDArray[np.uint8]:
    """One JPEG buffer -> uint8 [h, w], grey, decoded at an eighth of its size at least. ValueError when damaged.

    least: width that is left. Cost: reading the coded bits, and 20 us for 320x240 (none with LIGHT_WIDTH).
    """
    import simplejpeg

    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    factor = next(f for f in (8, 4, 2, 1) if f == 1 or block_size(height, width, least) >= f)
    small = simplejpeg.decode_jpeg(
        data, colorspace="GRAY", min_height=-(-height // factor), min_width=-(-width // factor), min_factor=1
    )
    found: NDArray[np.uint8] = small[..., 0]
    side = block_size(found.shape[0], found.shape[1], least)
    if side == 1:
        return found
    h, w = found.shape[0] // side, found.shape[1] // side
    total = np.zeros((h, w), np.uint32)
    for row in range(side):
        for column in range(side):
            total += found[row : h * side : side, column : w * side : side]
    return (total // side**2).astype(np.uint8)
