"""Duplicates: episodes that hold the same rows, exactly or nearly (h1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, RowTrace
from fwdata.evidence.shared_values import Pairs, odd_factors, shared_values
from fwdata.evidence.signals import Floats

POINTS, NEAR, SHARED, ROUNDING = 32, 0.08, 0.5, 1e-4
NEAREST, SMOOTH = 0.025, 0.5
"""From the first distance on a difference that goes on from point to point, by its correlation with the next one, is
that of two takes of one motion: noise on a copy is new at every point, and what cuts and other rates make of one is
taken off first. Of 140 sets of made recordings three of 40 had a pair at 0.049 to 0.075, with 0.8 to 0.95."""

CERTAIN, AROUND, MANY = 0.012, 0.16, 4
"""A pair of which one has so many episodes around it, none of them so near that it is a copy for certain, is two of
many takes of one motion, as a robot that replays it makes them, unless it is as near itself."""

UNITS, IN_UNITS = 8.0, 0.6
"""Groups of episodes of which one spreads so many times further than another, in such a share of the columns that move,
are in two units; in fewer, or where each spreads further in some, they move other arms."""

MIN_EPISODES = 3
"""Distances are in units of the data set's spread, which takes some episodes to know."""

BLOCK = 256


class DuplicateEpisodes(Detector):
    """h1: rows shared between episodes, and paths that lie within 0.08 of the data set's spread."""

    name, code, question, action = "duplicate_episodes", "h1", "every episode once", "warn"
    advice = "leave one of each pair out (--exclude)"
    word = "expected"
    compares = True

    def trace(self, episode: EpisodeInput) -> tuple[RowTrace, ...]:
        """Path and row digests of one episode."""
        columns = episode.columns.values
        return (RowTrace(path_of(columns), digests_of(columns)),)

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict; its episodes are the later ones of every pair."""
        found = [(m, trace) for m in episodes for trace in m.traces if isinstance(trace, RowTrace)]
        if len(found) < 2:
            return ()
        names, traced = [m.episode for m, _ in found], [trace for _, trace in found]
        exact = exact_pairs([t.rows for t in traced])
        near = near_pairs([t.path for t in traced], [m.group for m, _ in found], exact)
        keys = np.sort(np.concatenate([exact, near]) @ np.array([len(found), 1]))  # no pair is in both
        pairs = np.stack(np.divmod(keys, len(found)), axis=1)
        later = np.unique(pairs[:, 1]).tolist()
        examples = ", ".join(f"{names[second]} repeats {names[first]}" for first, second in pairs[:2].tolist())
        return (
            DatasetVerdict(
                self.name,
                "contradicted" if later else "confirmed",
                value=float(len(later)),
                episodes_for=len(traced) - len(later),
                against=len(later),
                action="warn" if later else "note",
                decided="every episode once",
                measured=f"{len(later)} of {len(traced)} repeat another" if later else "every episode once",
                detail=examples,
                episodes=tuple(names[index] for index in later[:MAX_LISTED]),
            ),
        )


def path_of(columns: Floats) -> NDArray[np.float32]:
    """float32 [32, D], of columns [D, T]: rows at evenly spaced times, linearly interpolated."""
    low, high, part = _times(columns.shape[1])
    found = columns[:, low] * (1 - part) + columns[:, high] * part
    return np.ascontiguousarray(found.T, np.float32)


@lru_cache(maxsize=64)
def _times(rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """(row before, row after, share of the way to it) of 32 evenly spaced times."""
    wanted = np.linspace(0, rows - 1, POINTS, dtype=np.float64)
    low = wanted.astype(np.int64)
    high: NDArray[np.int64] = np.minimum(low + 1, rows - 1)
    return low, high, wanted - low


def digests_of(columns: Floats) -> NDArray[np.uint64]:
    """uint64 [n], of columns [D, T]: digests of the distinct rows, rounded to 1e-4, in order: sums of their numbers
    times random odd ones.

    Two rows that differ have one digest by a chance of about 1 in 2^63.
    """
    whole = np.round(columns / ROUNDING).astype(np.int64).view(np.uint64)
    found: NDArray[np.uint64] = np.sort((whole * odd_factors(len(whole))[:, None]).sum(axis=0, dtype=np.uint64))
    different: NDArray[np.uint64] = found[np.concatenate([[True], found[1:] != found[:-1]])]
    return different


def exact_pairs(rows: Sequence[NDArray[np.uint64]]) -> Pairs:
    """int64 [m, 2], the first before the second: episodes that share more than half of the fewer distinct rows."""
    pairs, counts = shared_values(rows, BLOCK)
    lengths = np.array([len(each) for each in rows])
    many: Pairs = pairs[counts > SHARED * lengths[pairs].min(axis=1)]
    return many


def near_pairs(paths: Sequence[NDArray[np.float32]], groups: Sequence[str], known: Pairs) -> Pairs:
    """int64 [m, 2], the first before the second: episodes whose paths differ by less than 0.08 of the data set's spread
    (root mean square), not smoothly where by more than 0.025; without those that are known to be copies."""
    found: list[Pairs] = [np.empty((0, 2), np.int64)]
    if len(paths) < MIN_EPISODES or len({path.shape for path in paths}) != 1:
        return found[0]
    stacked = np.stack(paths).astype(np.float64)
    spread = _spread(stacked, groups)
    moving = spread > 1e-6
    if not moving.any():
        return found[0]
    flat = (stacked[:, :, moving] / spread[moving]).reshape(len(paths), -1)
    squares = (flat**2).sum(axis=1)
    for low in range(0, len(flat), BLOCK):
        block = flat[low : low + BLOCK]
        distance = squares[low : low + BLOCK, None] + squares[None, low:] - 2 * block @ flat[low:].T
        near = np.triu(distance < NEAR**2 * flat.shape[1], 1)
        own = known[(known[:, 0] >= low) & (known[:, 0] < low + BLOCK)] - low
        near[own[:, 0], own[:, 1]] = False
        pairs = np.argwhere(near) + low
        copied = [_copied(*(flat[place].reshape(POINTS, -1) for place in pair)) for pair in pairs.tolist()]
        found.append(pairs[np.array(copied, np.bool_)])
    pairs = np.concatenate(found)
    return pairs[~_one_of_many(flat, squares, pairs)]


def _one_of_many(flat: Floats, squares: Floats, pairs: Pairs) -> NDArray[np.bool_]:
    """bool [m], pairs of paths [n, size], with sums of squares [n], that are two of many takes of one motion."""
    many, size = np.zeros(len(flat), np.bool_), flat.shape[1]
    places = np.unique(pairs)
    for low in range(0, len(places), BLOCK):
        block = places[low : low + BLOCK]
        distance = squares[block, None] + squares[None] - 2 * flat[block] @ flat.T
        around = (distance > CERTAIN**2 * size) & (distance < AROUND**2 * size)
        many[block] = around.sum(axis=1) >= MANY
    apart = ((flat[pairs[:, 0]] - flat[pairs[:, 1]]) ** 2).mean(axis=1) > CERTAIN**2
    found: NDArray[np.bool_] = many[pairs].any(axis=1) & apart
    return found


def _copied(one: Floats, other: Floats) -> bool:
    """Whether two near paths [32, D], in spreads, differ by little, by noise, or by where they begin and end."""
    rest = one - other
    if (rest**2).mean() < NEAREST**2:
        return True
    along = np.gradient((one + other) / 2, axis=0)  # what a shift, and a stretch, of time make of the path
    moved = np.stack([along.ravel(), (along * np.linspace(-1, 1, len(along))[:, None]).ravel()], axis=1)
    rest = rest - (moved @ np.linalg.lstsq(moved, rest.ravel(), rcond=None)[0]).reshape(rest.shape)
    rest = rest - rest.mean(axis=0)
    whole = float((rest**2).sum())
    return float((rest[1:] * rest[:-1]).sum()) <= SMOOTH * whole or whole < NEAREST**2 * rest.size


def _spread(stacked: Floats, groups: Sequence[str]) -> Floats:
    """float64 [D], of [n, 32, D]: how far the columns spread; in the smaller unit where groups are in two.

    Beside degrees all episodes in rad look alike.
    """
    spread: Floats = stacked.std(axis=(0, 1))
    labels = np.array(groups)
    own = [stacked[labels == group].std(axis=(0, 1)) for group in dict.fromkeys(groups)]
    own = [np.where(found > 1e-6, found, spread) for found in own]
    least, most = np.min(own, axis=0), np.max(own, axis=0)
    apart = most > UNITS * least
    smaller = np.argmin(own, axis=0)[apart]
    alike = np.bincount(smaller).max(initial=0)  # columns of which one and the same group has the smaller spread
    in_units = alike > IN_UNITS * np.count_nonzero(spread > 1e-6)
    return np.where(apart & in_units, least, spread)


DETECTORS = (DuplicateEpisodes(),)
