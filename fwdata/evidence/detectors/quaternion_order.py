"""Quaternions whose numbers are in another order, or of the other sign, in some episodes than in the others (b12)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.rotation import from_axis_angle
from fwdata.evidence.paths import known_paths
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement
from fwdata.evidence.signals import Floats, spread_places

FEWEST, OTHERS = 5, 512
"""Episodes that are compared, and others that each is compared with at most, evenly spread."""

LENGTH, MOVES = 0.02, 0.005
"""How far lengths are from 1 at most, and by how much one of the numbers changes in half of the episodes at least: a
task's number as one of four columns does not."""

NEAR, MARGIN = 0.9, 0.6
"""Angle in rad, of the first and of the mean rotation, within which two episodes are alike as they are or in another
order, and how much nearer one must be than the other."""

FAR, AT_REST = 1.5, 0.25
"""How much further apart than those of the larger side the rotations of both are at most once one is put in order, and
rad that are added: of 300 made sets of two tasks that begin with any rotations 10 came as near as NEAR by chance."""

AGREE = 0.9
"""Share of the pairs of episodes that must be told apart as two sides say: ways that begin anywhere make no sides."""

OWN = "quaternions of one order and sign"
ORDER = "the first number last in comparison with the others, as of w, x, y, z beside x, y, z, w"
SIGN = "the same rotations with the opposite sign in all numbers"

_VECTOR = re.compile(r"(?P<whole>.*(?:axis_?angle|rot_?vec(?:tor)?)[\W_]*)(?P<letter>[xyz])", re.I)


class _Sides(NamedTuple):
    """Two groups of episodes."""

    few: NDArray[np.int64]
    """Places of the smaller one."""
    as_is: float
    """Median of what tells them apart between both, as they are."""
    changed: float
    """The same once one of them is changed."""
    within: float
    """The same within the larger one."""


class QuaternionOrder(Detector):
    """b12: no episode's quaternions are those of others once their numbers move on, or change sign. Its traces are
    those of h1 and a5."""

    name, code, question, action = "quaternion_order", "b12", "quaternions as in other episodes", "warn"
    advice = "write the rotations in one order and sign in the recordings, or leave the episodes out (--exclude)"
    word = "expected"
    compares = True

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict per quaternion, or rotation vector made of one, of at least 5 episodes."""
        known = known_paths(episodes)
        if known is None or len(known.episodes) < FEWEST:
            return ()
        rotations = _rotations(known.names, known.paths)
        return tuple(self._one(known.episodes, known.names[columns[0]], q) for columns, q in rotations)

    def _one(self, ids: Sequence[str], title: str, quaternions: Floats) -> DatasetVerdict:
        first, mean = quaternions[:, 0], _means(quaternions)
        sides, measured = _order(first, mean), ORDER
        about = " rad from the others, as they are and once that is undone; a hand turned by 180 degrees may look so"
        if sides is None:
            sides, measured = _sign(quaternions, mean), SIGN
            about = " times the others', as they are and once that is undone"
        few = [] if sides is None else [ids[place] for place in sides.few]
        detail = "" if sides is None else f"{few[0]}: {sides.as_is:.2f} and {sides.changed:.2f}{about}"
        return DatasetVerdict(
            self.name,
            "contradicted" if few else "confirmed",
            title,
            value=float(len(few)),
            episodes_for=len(ids) - len(few),
            against=len(few),
            action="warn" if few else "note",
            decided=OWN,
            measured=measured if few else OWN,
            detail=detail,
            episodes=tuple(few[:MAX_LISTED]),
        )


def moved_on(names: Sequence[str], paths: Floats) -> dict[int, tuple[int, ...]]:
    """Episode of [n, 32, D] -> the columns of those rotations whose numbers are in another order than the others'."""
    found: dict[int, tuple[int, ...]] = {}
    for columns, quaternions in _rotations(names, paths):
        sides = _order(quaternions[:, 0], _means(quaternions))
        for place in () if sides is None else sides.few.tolist():
            found[place] = (*found.get(place, ()), *columns)
    return found


def _rotations(names: Sequence[str], paths: Floats) -> Iterator[tuple[tuple[int, ...], Floats]]:
    """(columns, unit quaternions [n, 32, 4]) of four columns in a row that are of length 1 at all times and move, and
    of three that are named as a rotation vector."""
    kinds = [name.partition(" ")[0] for name in names]
    squares = paths**2
    column = 0
    while column + 3 < len(names):
        four = slice(column, column + 4)
        length = np.sqrt(squares[..., four].sum(axis=-1))
        if kinds[column] == kinds[column + 3] and (np.abs(length - 1) <= LENGTH).all() and _move(paths[..., four]):
            yield tuple(range(column, column + 4)), paths[..., four] / length[..., None]
            column += 3
        column += 1
    for column in range(len(names) - 2):
        told = [_VECTOR.fullmatch(name) for name in names[column : column + 3]]
        if "".join(each["letter"].lower() if each else "-" for each in told) == "xyz":
            vectors = paths[..., column : column + 3].reshape(-1, 3)
            yield (column, column + 1, column + 2), from_axis_angle(vectors).reshape(*paths.shape[:2], 4)


def _move(values: Floats) -> bool:
    return bool(np.median(np.ptp(values, axis=1).max(axis=-1)) > MOVES)


def _means(quaternions: Floats) -> Floats:
    """float64 [n, 4], the mean rotation of each episode, of the sign that its first one has."""
    found = np.linalg.eigh(np.einsum("nti,ntj->nij", quaternions, quaternions))[1][..., -1]
    signed: Floats = found * np.where((found * quaternions[:, 0]).sum(axis=1) < 0, -1.0, 1.0)[:, None]
    return signed


def _angles(one: Floats, other: Floats) -> Floats:
    """float64 [n, m], rad between rotations."""
    found: Floats = 2 * np.arccos(np.clip(np.abs(one @ other.T), 0.0, 1.0))
    return found


def _order(first: Floats, mean: Floats) -> _Sides | None:
    """The sides of which one is the other's with the first number last, or the last first."""
    others = spread_places(len(first), OTHERS)
    both = (first, mean)
    straight = np.maximum.reduce([_angles(each, each[others]) for each in both])
    moved = [np.maximum.reduce([_angles(np.roll(each, way, axis=1), each[others]) for each in both]) for way in (1, -1)]
    crossed = np.minimum(*moved)
    alike = (straight <= NEAR) & (crossed - straight >= MARGIN)
    against = (crossed <= NEAR) & (straight - crossed >= MARGIN)
    found = _sides(alike, against, straight, crossed, others)
    return found if found is not None and found.changed <= FAR * found.within + AT_REST else None


def _sign(quaternions: Floats, mean: Floats) -> _Sides | None:
    """The sides of the same rotations and opposite signs; None where signs change within episodes."""
    if not ((quaternions * mean[:, None]).sum(axis=-1) > 0).all():
        return None
    others = spread_places(len(mean), OTHERS)
    products: Floats = mean @ mean[others].T
    near = _angles(mean, mean[others]) <= NEAR
    return _sides(near & (products > 0), near & (products < 0), products, -products, others)


def _sides(
    alike: NDArray[np.bool_],
    against: NDArray[np.bool_],
    as_is: Floats,
    changed: Floats,
    others: NDArray[np.int64],
) -> _Sides | None:
    """The smaller of two sides that nearly all pairs [n, m] of episodes agree with; None where there are not two."""
    alike, against = alike.copy(), against.copy()
    alike[others, np.arange(len(others))], against[others, np.arange(len(others))] = True, False
    reference = int(np.argmax(alike.sum(axis=0)))
    side = alike[:, reference].astype(np.float64) - against[:, reference]
    if not (side < 0).any():
        return None
    pairs = alike.astype(np.float64) - against
    if (pairs == side[:, None] * side[others]).mean() < AGREE or (side != 0).mean() < AGREE:
        return None
    few, many = sorted((np.flatnonzero(side < 0), np.flatnonzero(side > 0)), key=len)
    across, among = (np.ix_(group, np.isin(others, many)) for group in (few, many))
    return _Sides(few, *(float(np.median(each)) for each in (as_is[across], changed[across], as_is[among])))


DETECTORS = (QuaternionOrder(),)
