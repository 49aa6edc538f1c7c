"""Episodes whose images move with the joints of the next episode, or the one before, from one of them on (d2).

So it is where files count otherwise than episodes, or an episode was removed from one of both and all behind it were
numbered again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from fwdata.evidence.own_lags import scores_in_step
from fwdata.evidence.records import MotionTrace
from fwdata.evidence.signals import Floats, middle

FEWEST, ALL, SHARE, GAIN, SCORE = 7, 5, 0.9, 0.1, 0.4
"""Episodes that must be so from one on, and where all are; the share of them whose images fit the neighbour's joints
better, by how much in the median, and how well. In clean sets those fit worse by 0.05 or more."""

_NUMBER = re.compile(r"([0-9]+)$")


class NextDoor(NamedTuple):
    """Episodes whose images are their neighbours'."""

    places: tuple[int, ...]
    """Which of the traces they are, in order."""
    step: int
    """1: their images are the next episode's; -1: those of the one before."""
    own: float
    """Median correlation of their images with their own joints."""
    other: float
    """The same with the neighbours'."""


def next_door(names: Sequence[tuple[str, str]], traces: Sequence[MotionTrace]) -> NextDoor | None:
    """Of one camera's episodes of the same joints; None where all are their own. names: (group, id) of each.

    Cost: a fit of the joints for each episode, three times.
    """
    if len(traces) <= ALL:
        return None
    places = {key: place for place, key in enumerate(map(_numbered, names)) if key is not None}
    own = _scores(traces)
    for step in (1, -1):
        pairs = [(here, places[(g, n + step)]) for (g, n), here in sorted(places.items()) if (g, n + step) in places]
        if len(pairs) < ALL:
            continue
        other = _scores([_with_joints(traces[here], traces[there]) for here, there in pairs])
        gains = other - own[[here for here, _ in pairs]]
        for first in range(max(1, len(pairs) - FEWEST + 1)):
            rest = slice(first, None)
            if gains[first] <= 0 or (gains[rest] > 0).mean() < SHARE or middle(gains[rest]) < GAIN:
                continue
            if middle(other[rest]) >= SCORE:
                found = tuple(here for here, _ in pairs[rest])
                return NextDoor(found, step, middle(own[list(found)]), middle(other[rest]))
    return None


def _numbered(name: tuple[str, str]) -> tuple[str, int] | None:
    match = _NUMBER.search(name[1])
    return None if match is None else (f"{name[0]}/{name[1][: match.start()]}", int(match[1]))


def _with_joints(one: MotionTrace, other: MotionTrace) -> MotionTrace:
    """The images of one with the joints of another, as long as both last."""
    rows = min(len(one.energy), len(other.speeds))
    return replace(one, energy=one.energy[:rows], speeds=other.speeds[:rows])


def _scores(traces: Sequence[MotionTrace]) -> Floats:
    """float64 [n], correlation of each one's images with what its joints explain by the weights of the others."""
    return scores_in_step(traces)
