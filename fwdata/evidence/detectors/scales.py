"""One scale for all episodes of a store: state and grippers, named or not, of which some are many times larger (a4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from fwdata.evidence.columns import ColumnValues, Mask
from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput, once
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, Verdict
from fwdata.evidence.signals import CONSTANT, Floats, middle

STATE = "state"
"""Subject of the state as a whole, known grippers left out; others are columns that go from one end to the other."""

GRIPPERS = "grippers"
"""Subject of the scale that was decided for each episode's grippers; of those that do not move nothing is measured."""

SCALES = {"unit": 1.0, "percent": 100.0}
"""What a fully open gripper reads."""

SIZE_RATIO = 8.0
"""So many times larger is the state in degrees (57) or mm (1000), and never the same robot in the same unit."""

REACH_RATIO = 5.0
"""A gripper of 0 .. 100 reaches more than so many times further than one of 0 .. 1; one that holds a thing less."""

AT_ENDS, ENDS, EACH_END = 0.05, 0.5, 0.1
"""A column goes from end to end when half of its rows, and a tenth for each end, are within a twentieth of its range
from one of its ends."""

TIGHT = 2.5
"""Grippers of one scale reach alike, within this ratio; joints that step by chance do not."""

PERCENT = (50.0, 200.0)
"""Ratio of grippers of 0 .. 100 to those of 0 .. 1."""

FULL, EXACT, WHOLE = (100.0, 255.0, 1000.0), 1e-3, 5
"""What grippers go to instead of 1, how near to it, and of how many episodes one alone is enough, whatever its name."""

COUNTS = ((0, 1), (-1, 1), (-1, 0), (0, 100), (-100, 100))
"""Ends between which a gripper goes, as it may be counted; 1 and up stand for them."""

COUNTED = "ends of "
"""Before the name of a column, the subject of how it is counted; nothing is measured of those with other ends."""

OF_ITS_END, BETWEEN = 0.01, 0.1
"""How far an end may be off, of the larger one, and how many rows may be in the middle third: a command of -1, 0 and 1
is no gripper's."""

FEW_ROWS = 20
"""Rows below which a column's ends tell nothing."""

type Size = tuple[str, float]
"""(episode id, how large its numbers are)."""


class OneScale(Detector):
    """a4: the size of the state, and the reach of every column that switches, without a gap between episodes."""

    name, code, question, action = "one_scale", "a4", "one scale for all episodes", "stop"
    advice = "bring the recordings to one unit, or convert each kind to a store of its own (--exclude, --only)"
    word = "expected"
    min_episodes = 1

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """The sizes that `pool` compares, as values of verdicts that agree."""
        columns = np.flatnonzero(switching(episode)).tolist()
        reaches = [(episode.names[column], float(episode.columns.reach[column])) for column in columns]
        counted = [(episode.names[column], _counted(episode.columns.ordered[column])) for column in columns]
        ends = {subject for subject, _ in reaches}
        grippers = {column for claim in episode.claims.grippers for column in claim.state}
        names = episode.names[: len(episode.state_names)]
        others = [i for i, name in enumerate(names) if name not in ends and i not in grippers]
        size = float(np.sqrt((episode.columns.values[others] ** 2).mean())) if others else 0.0
        tops = [SCALES[claim.state_scale] for claim in episode.claims.grippers if claim.state_scale in SCALES]
        found = [(STATE, size)] if size > CONSTANT else []
        found += [*((GRIPPERS, top) for top in tops[:1]), *reaches]
        found += [(COUNTED + subject, float(count)) for subject, count in counted if count]
        action = self.action if episode.claims.layout else "warn"
        return tuple(
            self.verdict("confirmed", "", subject=subject, value=value, n=len(episode.state), action=action)
            for subject, value in found
        )

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict for the state, and one per column that falls apart, or that is counted in two ways."""
        sizes: dict[str, list[Size]] = {}
        strict = False
        for measurement in episodes:
            for verdict in measurement.of(self.name):
                strict |= verdict.action == "stop"
                if verdict.value is not None and verdict.value > 0:
                    sizes.setdefault(verdict.subject, []).append((measurement.episode, verdict.value))
        counts = {subject: sizes.pop(subject) for subject in [s for s in sizes if s.startswith(COUNTED)]}
        pooled = [self._pooled(subject, found, strict) for subject, found in _told(sizes)]
        told = {COUNTED + verdict.subject for verdict in pooled}
        two_ways = {s: sides for s, found in counts.items() if s not in told and (sides := _two_counts(s, found))}
        return (*pooled, *(self._counted_apart(subject, *sides) for subject, sides in two_ways.items()))

    def _counted_apart(self, subject: str, few: Sequence[Size], many: Sequence[Size]) -> DatasetVerdict:
        (fewer, less), (more, most) = (side[0] for side in (few, many))
        return DatasetVerdict(
            self.name,
            "contradicted",
            subject.removeprefix(COUNTED),
            episodes_for=len(many),
            against=len(few),
            action="warn",
            decided="one scale",
            measured=f"{_ends(less)} in {len(few)} of {len(few) + len(many)} episodes, {_ends(most)} in the others",
            detail=f"such as {fewer} and {more}",
            episodes=tuple(name for name, _ in few[:MAX_LISTED]),
        )

    def _pooled(self, subject: str, found: Sequence[Size], strict: bool) -> DatasetVerdict:
        small, large = _sides(subject, found)
        if not small:
            return DatasetVerdict(
                self.name, "confirmed", subject, episodes_for=len(found), decided="one scale", measured="one scale"
            )
        ratio = middle(np.array([v for _, v in large])) / middle(np.array([v for _, v in small]))
        few, many = sorted((small, large), key=len)
        return DatasetVerdict(
            self.name,
            "contradicted",
            subject,
            value=ratio,
            episodes_for=len(many),
            against=len(few),
            action="stop" if strict else "warn",
            decided="one scale",
            measured=f"{len(large)} of {len(found)} episodes {ratio:.3g} times as large as the others",
            detail=f"such as {large[0][0]} ({large[0][1]:.3g}) and {small[0][0]} ({small[0][1]:.3g})",
            episodes=tuple(name for name, _ in few[:MAX_LISTED]),
        )


def _told(sizes: dict[str, list[Size]]) -> Iterator[tuple[str, list[Size]]]:
    """The state, and of the columns those that fall apart: the others would be a line each."""
    for subject, found in sizes.items():
        if subject == STATE or _sides(subject, found)[0]:
            yield subject, found


def _sides(subject: str, found: Sequence[Size]) -> tuple[list[Size], list[Size]]:
    """(the small, the large) where the sizes fall apart; of columns only where several of each reach alike.

    One episode alone is enough where names and a ratio near 100 say that a gripper is on the other of two scales.
    """
    if subject in (STATE, GRIPPERS):
        return apart(found, SIZE_RATIO)
    sides = apart(found, REACH_RATIO)
    ratio = sides[1][0][1] / sides[0][-1][1] if sides[0] else 0.0
    named = "gripper" in subject.lower() and PERCENT[0] <= ratio <= PERCENT[1]
    least = 1 if named or (len(found) >= WHOLE and any(_whole(sides, full) for full in FULL)) else 2
    alike = all(len(side) >= least and side[-1][1] <= TIGHT * side[0][1] for side in sides)
    return sides if alike else ([], [])


def _counted(ordered: Floats) -> int:
    """Between which of the usual ends a column goes, of its values in order, as 1 and up; 0: between others."""
    low, high = float(ordered[0]), float(ordered[-1])
    near = OF_ITS_END * max(abs(low), abs(high))
    third = (high - low) / 3
    between = np.searchsorted(ordered, high - third) - np.searchsorted(ordered, low + third)
    if between > BETWEEN * len(ordered):
        return 0
    return next((i for i, (a, b) in enumerate(COUNTS, 1) if abs(low - a) <= near and abs(high - b) <= near), 0)


def _ends(count: float) -> str:
    low, high = COUNTS[round(count) - 1]
    return f"{low} to {high}"


def _two_counts(subject: str, found: Sequence[Size]) -> tuple[list[Size], list[Size]] | None:
    """(the fewer, the more) where episodes count a gripper in two ways; of columns of other names several of each."""
    counts = sorted(([each for each in found if each[1] == count] for count in {c for _, c in found}), key=len)
    least = 1 if "gripper" in subject.lower() else 2
    return (counts[-2], counts[-1]) if len(counts) > 1 and len(found) > 2 and len(counts[-2]) >= least else None


def _whole(sides: tuple[list[Size], list[Size]], full: float) -> bool:
    """Whether columns go from exactly 0 to 1 on one side, and as far as another scale of grippers on the other."""
    return all(abs(value / top - 1) <= EXACT for side, top in zip(sides, (1.0, full), strict=True) for _, value in side)


def apart(found: Sequence[Size], ratio: float) -> tuple[list[Size], list[Size]]:
    """(those below, those above) the widest gap between sizes, where it is at least `ratio`; else ([], [])."""
    ordered = sorted(found, key=lambda size: size[1])
    gaps = [high[1] / low[1] for low, high in pairwise(ordered)]
    if not gaps or max(gaps) < ratio:
        return [], []
    cut = int(np.argmax(gaps)) + 1
    return ordered[:cut], ordered[cut:]


@once
def switching(episode: EpisodeInput) -> Mask:
    """bool [Ds + Da], `switches` of state and action; the last episode's answer is kept, as three detectors ask."""
    return switches(episode.columns)


def switches(columns: ColumnValues) -> Mask:
    """bool [D], the columns that go from one end to the other and are mostly there, as a gripper's."""
    found = np.zeros(len(columns.values), np.bool_)
    if columns.values.shape[1] < FEW_ROWS:
        return found
    low, high, reach, ordered = columns.low, columns.high, columns.reach, columns.ordered
    rows, near = ordered.shape[1], AT_ENDS * reach
    fewest = int(EACH_END * rows)  # rows but one that are at each end at least
    ends = (ordered[:, fewest] - low < near) & (high - ordered[:, -1 - fewest] < near)
    wide = np.flatnonzero(ends & (reach > CONSTANT) & (reach >= 0.8 * np.maximum(np.abs(low), np.abs(high))))
    wide = wide[~columns.resting[wide]]
    if not len(wide):
        return found
    values, near = columns.values[wide], near[wide, None]
    lower = (values - low[wide, None] < near).sum(axis=1) / rows
    upper = (high[wide, None] - values < near).sum(axis=1) / rows
    found[wide] = (lower + upper > ENDS) & (np.minimum(lower, upper) > EACH_END)
    return found


DETECTORS = (OneScale(),)
