"""What moves in an image sequence: how much changes between frames, and where to it is shifted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.signals import Floats

NOISE_LEVELS = 2
"""Grey levels of change that count as noise."""

COMPARED = 9
"""Frames that brightness and content are measured on."""

MOVING_PIXEL = 4.0
RIDGE = 1.0


class ImageMotion:
    """What detectors need of one camera's thumbnails uint8 [T, h, w], each part computed when asked for."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images

    @cached_property
    def spread(self) -> NDArray[np.uint8]:
        """uint8 [n, h, w], at most nine frames, evenly spread."""
        return self.images[np.unique(np.linspace(0, len(self.images) - 1, COMPARED).round().astype(np.int64))]

    @cached_property
    def brightness(self) -> tuple[float, float]:
        """Mean of those frames, and the largest standard deviation within one of them, in grey levels."""
        return float(self.spread.mean()), float(self.spread.std(axis=(1, 2)).max())

    @cached_property
    def energy(self) -> NDArray[np.float64]:
        """float64 [T]: mean over pixels of max(0, |I[t] - I[t - 1]| - 2); row 0 repeats row 1."""
        return self.energy_over(1)

    def energy_over(self, step: int) -> NDArray[np.float64]:
        """float64 [T]: the same over `step` rows, centred; borders repeat the nearest row."""
        images = self.images
        if len(images) <= step:
            return np.zeros(len(images))
        found = np.empty(len(images) - step)
        for low, high in _blocks(len(found)):
            change = np.abs(images[low + step : high + step].astype(np.int16) - images[low:high])
            found[low:high] = np.maximum(change - NOISE_LEVELS, 0).mean(axis=(1, 2))
        before = (step + 1) // 2
        return np.pad(found, (before, step - before), mode="edge")

    @cached_property
    def translation(self) -> Floats:
        """float64 [T, 2], `apparent_motion` of the images."""
        return apparent_motion(self.images)


def apparent_motion(images: NDArray[np.uint8]) -> Floats:
    """float64 [T, 2], mean motion (x, y) in pixels of what changes between frames; row 0 repeats row 1.

    One translation per pair of frames, by least squares over the pixels that change (gradients against difference).
    Cost: 0.1 ms per frame of 64x64.
    """
    found = np.zeros((len(images), 2))
    for row in range(1, len(images)):
        before, after = images[row - 1].astype(np.float64), images[row].astype(np.float64)
        change, middle = after - before, (before + after) / 2
        down, across = np.gradient(middle)
        moving = np.abs(change) > MOVING_PIXEL
        if moving.sum() < 4:
            continue
        x, y, t = across[moving], down[moving], change[moving]
        gram = np.array([[x @ x + RIDGE, x @ y], [x @ y, y @ y + RIDGE]])
        found[row] = np.linalg.solve(gram, -np.array([x @ t, y @ t]))
    if len(found) > 1:
        found[0] = found[1]
    return found


def _blocks(rows: int, size: int = 256) -> Iterator[tuple[int, int]]:
    return ((low, min(low + size, rows)) for low in range(0, rows, size))
