"""Two columns that are exchanged in single episodes: each is where the other one is in all others (b9)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.quaternion_order import moved_on
from fwdata.evidence.paths import known_paths
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement
from fwdata.evidence.signals import Floats, medians

FEWEST, MOST = 8, 1 / 3
"""Episodes that are compared, and the share of them that may be exceptions."""

AWAY, HOME = 4.0, 2.0
"""How far from the middle of the others both columns begin, and how far their start, mean and ends are at most once
they change places, in half widths of the range that eight in ten episodes keep to."""

LEAST = 0.05
"""Half width that every column has at least, as a share of the median one: some hardly move."""

OWN = "every column where it is in other episodes"


class ExchangedColumns(Detector):
    """b9: no two columns begin, and keep, where the other one does in all others. Its traces are those of h1 and a5."""

    name, code, question, action = "exchanged_columns", "b9", "columns as in other episodes", "warn"
    advice = "exchange the columns in the recordings, or leave them out (--exclude)"
    word = "expected"
    compares = True

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict for at least 8 episodes with the same columns."""
        known = known_paths(episodes)
        if known is None or len(known.episodes) < FEWEST:
            return ()
        names, paths = known.names, known.paths
        odd = exchanged(_signatures(paths), names)
        moved = moved_on(names, paths)  # of which two numbers may look exchanged
        odd = {place: pair for place, pair in odd.items() if not _within(pair, moved.get(place, ()))}
        bad = sorted(odd) if len(odd) <= MOST * len(known.episodes) else []
        first = f"{known.episodes[bad[0]]}: {names[odd[bad[0]][0]]} and {names[odd[bad[0]][1]]}" if bad else ""
        return (
            DatasetVerdict(
                self.name,
                "contradicted" if bad else "confirmed",
                value=float(len(bad)),
                episodes_for=len(known.episodes) - len(bad),
                against=len(bad),
                action="warn" if bad else "note",
                decided=OWN,
                measured="two columns exchanged" if bad else OWN,
                detail=first,
                episodes=tuple(known.episodes[place] for place in bad[:MAX_LISTED]),
            ),
        )


def _within(pair: tuple[int, int], columns: Sequence[int]) -> bool:
    return pair[0] in columns and pair[1] in columns


def _signatures(paths: Floats) -> Floats:
    """float64 [n, 4, D], start, mean and both ends of every column."""
    return np.stack([paths[:, 0], paths.mean(axis=1), paths.min(axis=1), paths.max(axis=1)], axis=1)


def exchanged(signatures: Floats, names: Sequence[str]) -> dict[int, tuple[int, int]]:
    """Episode -> the two columns of one kind that changed places in it, of signatures [n, 4, D]; several pairs, as of
    two arms, count as the first of them. Cost: 4 us per pair of columns and 1000 episodes."""
    kinds = np.array([name.partition(" ")[0] for name in names])
    low, high = np.percentile(signatures, 10, axis=0), np.percentile(signatures, 90, axis=0)
    middle, half = (low + high) / 2, (high - low) / 2
    half = np.maximum(half, LEAST * float(medians(half[half > 0]))) if (half > 0).any() else half + 1.0
    found: dict[int, tuple[int, int]] = {}
    for place, own in enumerate(signatures):
        # [D, D]: column i of this episode, compared with what column j is in all
        distances = np.abs(own[:, :, None] - middle[:, None, :]) / half[:, None, :]
        apart = distances.max(axis=0)
        away = np.flatnonzero(np.diag(distances[0]) > AWAY)  # an arm that moves in place of the other begins as always
        pairs = [
            (int(a), int(b))
            for n, a in enumerate(away)
            for b in away[n + 1 :]
            if kinds[a] == kinds[b] and max(apart[a, b], apart[b, a]) <= HOME
        ]
        if pairs:
            found[place] = pairs[0]
    return found


DETECTORS = (ExchangedColumns(),)
