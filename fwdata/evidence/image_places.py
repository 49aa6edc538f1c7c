"""Where in an image things change, compared with where they are expected: shows how an image is turned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.signals import Floats, percentile

NOISE_LEVELS, LEAST_CHANGE = 12, 0.05
"""Grey levels of a pixel's change that are noise or shading, and the share of the largest change (95th percentile) that
counts."""

FEWEST = 10
"""Changes whose place is expected that tell something."""

BETTER, NEAR = 0.6, 0.5
"""How much nearer than another one a way to turn the image must bring the changes to their places, and how near in
half sizes of the image."""

AS_IT_IS = "an upright image"

TURNS = {
    "mirrored": ((-1, 0), (0, 1)),
    "upside down": ((1, 0), (0, -1)),
    "turned by 180 degrees": ((-1, 0), (0, -1)),
    "turned by 90 degrees clockwise": ((0, 1), (-1, 0)),
    "turned by 90 degrees counterclockwise": ((0, -1), (1, 0)),
}
"""Fault -> the matrix that undoes it, of (right, down) places about the middle."""

_WAYS = np.array([((1, 0), (0, 1)), *TURNS.values()], np.float64).transpose(0, 2, 1)
"""float64 [6, 2, 2], what places [n, 2] are multiplied by to undo nothing and each of them."""


def changed_places(images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """(float64 [n - 1, 2] centre of what changes from an image uint8 [n, h, w] to the next, -1 left or top, 1 right or
    bottom; float64 [n - 1] how much). Cost: 5 us per image of 64x48."""
    height, width = images.shape[1:]
    later, earlier = images[1:], images[:-1]
    change = np.maximum(later, earlier) - np.minimum(later, earlier)
    least = np.full_like(change, NOISE_LEVELS)  # an array: a number takes ten times as long
    change = (np.maximum(change, least) - least).astype(np.float32)  # sums of lines are whole numbers, and exact
    across, down = np.ones(height, np.float32) @ change, change @ np.ones(width, np.float32)
    sizes: Floats = across.sum(axis=1, dtype=np.float64)
    some = np.maximum(sizes, 1.0)
    middle = ((np.arange(n) * 2 + 1) / n - 1 for n in (width, height))
    centres = [values @ places / some for values, places in zip((across, down), middle, strict=True)]
    return np.stack(centres, axis=1), sizes


def distances(images: NDArray[np.uint8], every: int, expected: NDArray[np.float32]) -> dict[str, float] | None:
    """How the image is turned -> root mean square distance of its changes from where they are expected, once it is
    turned back; None where too little is known. expected: float32 [T, 2], as `CameraClaim.place`; every: rows from an
    image to the next."""
    if len(images) <= FEWEST:
        return None
    centres, sizes = changed_places(images)
    places = np.full((len(centres) * every, 2), np.nan)
    rows = expected[1 : 1 + len(places)]
    places[: len(rows)] = rows
    grouped = places.reshape(len(centres), every, 2)
    known = np.isfinite(grouped).all(axis=2)
    counts = known.sum(axis=1)
    means = np.where(known[:, :, None], grouped, 0).sum(axis=1) / np.maximum(counts, 1)[:, None]
    told = (counts > 0) & (sizes > LEAST_CHANGE * float(percentile(sizes, 95)))
    if int(told.sum()) < FEWEST:
        return None
    centres, means = centres[told], means[told]
    off = np.sqrt(((centres @ _WAYS - means) ** 2).sum(axis=2).mean(axis=1))
    return dict(zip((AS_IT_IS, *TURNS), off.tolist(), strict=True))
