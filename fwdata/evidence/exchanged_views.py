"""Two cameras that are exchanged in some episodes: each shows there what the other one shows in the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.signals import Floats, spread_places

FEWEST, SCENE, MARGIN = 5, 0.7, 0.3
"""Episodes with both cameras that are compared; correlation of the first images of both cameras from which two episodes
show one scene, and by how much it must be better one way round than the other.

The worse of both cameras counts, so that cameras that look alike, as those of both wrists, tell nothing."""

PARTNERS, MOST = 3, 0.4
"""Episodes of its scene that one is compared with at least, and share of them that may be like it."""

OTHERS = 512
"""Episodes that every one is compared with, evenly spread."""


class ExchangedViews(NamedTuple):
    """Episodes in which two cameras are exchanged against others of the same scene."""

    places: tuple[int, ...]
    """Which they are; of two groups, of which nothing tells the right one, the smaller."""
    halves: bool
    """Whether they are one of two such groups."""
    as_is: float
    """Correlation of the first one with the others, of the worse camera, median."""
    changed: float
    """The same with the other camera's images."""


def exchanged_views(one: Floats, other: Floats) -> ExchangedViews | None:
    """Among the first images of two cameras of the same episodes, float64 [n, P] and [n, P], each of mean 0 and length
    1. None where there are none. Cost: four products of [n, P] with at most 512 of them."""
    if len(one) < FEWEST:
        return None
    others = spread_places(len(one), OTHERS)
    straight = np.minimum(one @ one[others].T, other @ other[others].T)
    crossed = np.minimum(one @ other[others].T, other @ one[others].T)
    straight[others, np.arange(len(others))] = crossed[others, np.arange(len(others))] = -1.0
    alike = (straight >= SCENE) & (straight - crossed >= MARGIN)
    against = (crossed >= SCENE) & (crossed - straight >= MARGIN)
    if not against.any():
        return None
    counts = against.sum(axis=1) + alike.sum(axis=1)
    share = against.sum(axis=1) / np.maximum(counts, 1)
    odd = np.flatnonzero((counts >= PARTNERS) & (share >= 1 - MOST))
    halves = (counts >= PARTNERS) & (share > MOST) & (share < 1 - MOST)
    if not len(odd):
        odd = _smaller_half(np.flatnonzero(halves), against, others)
    if not len(odd):
        return None
    first = int(odd[0])
    partners = against[first]
    return ExchangedViews(
        tuple(odd.tolist()),
        bool(halves[first]),
        float(np.median(straight[first, partners])),
        float(np.median(crossed[first, partners])),
    )


def _smaller_half(
    places: NDArray[np.int64], against: NDArray[np.bool_], others: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Of episodes in two groups, those that are exchanged against the first one, or the rest where these are fewer."""
    if not len(places):
        return places
    opposed = np.isin(places, others[against[places[0]]])
    return places[opposed] if opposed.sum() <= len(places) / 2 else places[~opposed]
