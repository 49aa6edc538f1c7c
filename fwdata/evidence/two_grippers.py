"""Two grippers of a robot whose commands count opposite ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations

from fwdata.evidence.pooling import AGREEMENT, MIN_EPISODES
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement


def opposite_ways(
    episodes: Sequence[EpisodeMeasurement], detector: str, ways: tuple[str, str]
) -> Iterator[DatasetVerdict]:
    """A warning for two grippers of a data set of which one does one of the two `ways` in nearly all episodes and the
    other the other one, where nothing was decided: one of them was turned round, in its command or its opening."""
    groups: dict[str, dict[str, Counter[str]]] = {}
    for measurement in episodes:
        subjects = groups.setdefault(measurement.group, {})
        for verdict in measurement.of(detector):
            if not verdict.decided:  # of a kept verdict the words are the detail
                subjects.setdefault(verdict.subject, Counter())[verdict.measured or verdict.detail] += 1
    for group, subjects in groups.items():
        own = {name: way for name, counts in subjects.items() if (way := _usual(counts, ways))}
        for one, other in combinations(own, 2):
            if own[one] == own[other]:
                continue
            members = [each.episode for each in episodes if each.group == group]
            yield DatasetVerdict(
                detector,
                "contradicted",
                f"{one} and {other}",
                against=len(members),
                action="warn",
                decided="one direction in both grippers",
                measured=f"{own[one]} in {one}, {own[other]} in {other}",
                episodes=tuple(members[:MAX_LISTED]),
            )


def _usual(counts: Counter[str], ways: tuple[str, str]) -> str:
    """The way of nearly all episodes that show one; "" for none."""
    shown = [counts[way] for way in ways]
    return ways[shown.index(max(shown))] if max(shown) >= max(MIN_EPISODES, AGREEMENT * sum(shown)) else ""
