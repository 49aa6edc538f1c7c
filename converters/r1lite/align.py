"""Aligning topics with the head camera: pure functions of int64 nanosecond stamps and float64 values.

Stamps stay int64; only differences to the first head stamp become float64, which holds them exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

type Stamps = NDArray[np.int64]
type Values = NDArray[np.float64]
type Mask = NDArray[np.bool_]

SECOND = 10**9
HOLE_NS = SECOND // 4
"""A pause longer than this is not a pair of neighbours: nothing is interpolated across it."""

SPARSE = 0.2
"""A topic with fewer messages per head frame is a command published now and then: its last value holds."""


@dataclass(frozen=True)
class Order:
    """Messages of a topic in the order of their stamps."""

    index: NDArray[np.int64]
    """int64 [n], positions in written order; of equal stamps the one written last."""
    inversions: int
    """Messages stamped before their predecessor."""
    duplicates: int
    """Messages left out because a later one has the same stamp."""


def order_of(stamps: Stamps) -> Order:
    """Sort by stamp, keep the last written of equal ones. O(n log n)."""
    inversions = int((np.diff(stamps) < 0).sum())
    index = np.argsort(stamps, kind="stable")
    ordered = stamps[index]
    last = np.append(ordered[1:] != ordered[:-1], True) if len(ordered) else np.zeros(0, np.bool_)
    return Order(index[last], inversions, int((~last).sum()))


def nearest(times: Stamps, stamps: Stamps) -> NDArray[np.int64]:
    """For every time the index of the nearest stamp (sorted, at least one); of two equally near the earlier one."""
    right = np.clip(np.searchsorted(stamps, times), 1, max(len(stamps) - 1, 1))
    right = np.minimum(right, len(stamps) - 1)
    left = np.maximum(right - 1, 0)
    found: NDArray[np.int64] = np.where(times - stamps[left] <= stamps[right] - times, left, right)
    return found


def held(times: Stamps, stamps: Stamps, values: Values) -> Values:
    """Previous-sample hold: the value of the last stamp at or before each time, the first value before that."""
    found: Values = values[np.maximum(np.searchsorted(stamps, times, side="right") - 1, 0)]
    return found


def in_holes(times: Stamps, stamps: Stamps) -> Mask:
    """Times strictly between two neighbouring stamps that are more than `HOLE_NS` apart."""
    if len(stamps) < 2:
        return np.zeros(len(times), np.bool_)
    after = np.searchsorted(stamps, times)
    inside = (after > 0) & (after < len(stamps))
    after = np.clip(after, 1, len(stamps) - 1)
    inside &= times != stamps[after]
    mask: Mask = inside & (stamps[after] - stamps[after - 1] > HOLE_NS)
    return mask


def interpolated(times: Stamps, stamps: Stamps, values: Values) -> tuple[Values, Mask]:
    """Linear interpolation per column in float64, first and last value held outside; previous-sample hold in holes.

    stamps: int64 [n], sorted and distinct, n >= 1. values: float64 [n, d]. Returns float64 [len(times), d] and where
    a hole was.
    """
    origin = times[0] if len(times) else np.int64(0)
    at, known = (times - origin).astype(np.float64), (stamps - origin).astype(np.float64)
    result = np.stack([np.interp(at, known, column) for column in values.T], axis=1)
    holes = in_holes(times, stamps)
    result[holes] = held(times[holes], stamps, values)
    return result, holes


def is_sparse(messages: int, frames: int) -> bool:
    """Whether a command topic has too few messages to interpolate."""
    return messages < SPARSE * frames


def frame_rate(stamps: Stamps) -> int | None:
    """Frames per second, rounded: one over the median distance of sorted stamps; None for a single frame."""
    if len(stamps) < 2:
        return None
    return round(SECOND / float(np.median(np.diff(stamps))))
