"""Episodes of one scene that were changed together (a camera mounted upside down for a day): each other's nearest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.signals import Floats

ALIKE, MARGIN = 0.7, 0.3
"""Correlation of two first images, as they are or one of them changed, from which they show one scene, and by how much
it must be better one way than the other."""

FEWEST, AGREE, HALVES = 3, 0.95, 0.4
"""Episodes of a group, share of the pairs that must agree with the two sides, and share of the episodes of both from
which on nothing tells which side is the changed one."""

COVERED = 0.3
"""Share of all episodes that those of a group must look like, on average, once they are changed: of 300 made sets of
things on a bare table seen from above, 16 were reported without that, and 2 with it."""

ROUNDS = 8
"""Times that the side of every episode is computed again from the sides of the others."""


class TurnedGroup(NamedTuple):
    """Episodes that are like others of their scene only once they are changed."""

    places: tuple[int, ...]
    """Which they are."""
    halves: bool
    """Whether they are about as many as the others."""
    as_is: float
    """Their correlation with the others, median."""
    changed: float
    """The same once they are changed."""


def turned_groups(as_is: Floats, changed: Floats, others: NDArray[np.int64]) -> Iterator[TurnedGroup]:
    """The smaller side of every scene that has two, by correlations of n episodes with m others of them, float64
    [n, m], as they are and changed; -1 with themselves."""
    against = (changed >= ALIKE) & (changed - as_is >= MARGIN)
    pairs = ((as_is >= ALIKE) & (as_is - changed >= MARGIN)).astype(np.float64) - against
    left = np.ones(len(others), np.bool_)
    while (counts := np.where(left, against[others].sum(axis=0), 0)).any():
        first = int(np.argmax(counts))
        side: Floats = np.zeros(len(others))
        side[first] = 1.0
        for _ in range(ROUNDS):
            side = np.where(left, np.sign(pairs[others] @ side + side), 0.0)
        left &= side == 0
        left[first] = False
        whole = np.sign(pairs @ side)
        decided = (pairs != 0) & (whole != 0)[:, None] & (side != 0)
        small, large = sorted((np.flatnonzero(whole == 1), np.flatnonzero(whole == -1)), key=len)
        if len(small) < FEWEST or (pairs == whole[:, None] * side)[decided].mean() < AGREE:
            continue
        if against[small].mean() < COVERED:
            continue
        across = np.ix_(small, np.isin(others, large))
        halves = len(small) > HALVES * (len(small) + len(large))
        middles = (float(np.median(scores[across])) for scores in (as_is, changed))
        yield TurnedGroup(tuple(small.tolist()), halves, *middles)
