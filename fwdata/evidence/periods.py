"""Lags of motion that comes back, as of wiping or stirring, and so fits itself again a period later."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.signals import Floats

AS_HIGH, VALLEY = 0.03, 0.2
"""Correlation by which a top may be lower than the highest one and still tell as much, and by which the scores drop
between two tops: noise makes smaller ones on the way up."""


def nearest_tops(lags: Sequence[int], scores: Floats) -> NDArray[np.int64]:
    """int64 [N]: place of the top nearest to no lag among those as high as the highest, of every row of [N, lags]."""
    heights = _heights(scores)
    highest = heights.max(axis=1, keepdims=True, initial=-np.inf)
    part = np.cumsum(scores < highest - VALLEY, axis=1)
    near = np.where(heights >= highest - AS_HIGH, np.abs(np.asarray(lags, np.float64)), np.inf).argmin(axis=1)
    same = part == part[np.arange(len(part)), near][:, None]
    found: NDArray[np.int64] = np.where(same, scores, -np.inf).argmax(axis=1)
    return found


def _heights(scores: Floats) -> Floats:
    """The scores, and at tops what a parabola reaches between lags: that of a short period by whole rows is lower."""
    heights: Floats = scores.astype(np.float64)
    low, middle, high = scores[:, :-2], scores[:, 1:-1], scores[:, 2:]
    curve = low - 2 * middle + high
    tops = (middle >= low) & (middle >= high) & (curve < 0)
    heights[:, 1:-1] -= np.divide((low - high) ** 2, 8 * curve, out=np.zeros_like(curve), where=tops)
    return heights
