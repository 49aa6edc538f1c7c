"""One unit for every column: groups of episodes whose numbers differ by the factor between two units (a5)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.columns import at
from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.scales import switching
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, SizeTrace
from fwdata.evidence.signals import Floats, known_medians, middle
from fwdata.wording import counted

GAP, CLEAR, RATIO = 8.0, 3.0, 10.0
"""A column falls apart at a gap of 8; others follow where their sides are 3 times apart, and their medians 10 times."""

COLUMNS, SHARE = 3, 0.6
"""Columns of one kind that must fall apart alike, and the share of those that move on both sides."""

UNCHANGED = 2
"""Columns that must move on both sides and stay as they are beside a position without names."""

FACTORS = (("degrees and rad, or cm and m", 180 / math.pi), ("mm and m", 1000.0))
"""What such a ratio is usual for; 100 lies within the spread of the first."""

SPREAD = 2.5
"""Median ratios of episodes that do different things are within this ratio of the factor between their units."""

LEAST = 0.02
"""Median of the smaller sizes below which a robot hardly moves, whatever its unit, rad or m."""

OPENINGS, TIGHT, FEW = (1.25, 3.0), 1.03, 3
"""Openings of two groups, at least 3 episodes each, that lie apart by this ratio, and within 3 % of each other."""

_KINDS = (
    re.compile(r"(^|[^a-z])(x|y|z|position|xyz|trans|translation)([^a-z]|$)"),
    re.compile(r"(^|[^a-z])(roll|pitch|yaw|rx|ry|rz|rot|rotation|rpy|euler)([^a-z]|$)"),
)
"""Names of positions, and of angles that turn a hand: a state of both may have only one of them in another unit."""

type Mask = NDArray[np.bool_]


class _TwoSizes(NamedTuple):
    """Episodes of two sizes."""

    small: Mask
    """bool [E], the episodes whose numbers are small."""
    large: Mask
    """bool [E], those whose numbers are large."""
    columns: Mask
    """bool [D], the columns that tell them apart."""
    compared: int
    """Columns that move in episodes of both sides."""
    ratio: float
    """Median over these columns of the ratio between the medians of both sides."""
    least: float
    """Median over these columns of the small side's median size."""

    @property
    def units(self) -> str:
        """The two units that the ratio speaks for; "" where it is that of none, or the robot hardly moves."""
        known = self.least >= LEAST
        return next((u for u, f in FACTORS if known and f / SPREAD <= self.ratio <= f * SPREAD), "")


class ColumnUnits(Detector):
    """a5: the columns of the state in one unit, and grippers that open equally far, in all episodes."""

    name, code, question, action = "column_units", "a5", "one unit for every column", "stop"
    advice = "bring the recordings to one unit, or convert each group to a store of its own (--exclude, --only)"
    word = "expected"
    min_episodes, compares = 1, True

    def trace(self, episode: EpisodeInput) -> tuple[SizeTrace, ...]:
        """Sizes of the state's columns and upper ends of those that switch."""
        columns, ends = episode.columns, switching(episode)
        sizes, tops = np.full(len(ends), np.nan), np.full(len(ends), np.nan)
        moving = np.flatnonzero(columns.active & ~ends)
        if len(moving):
            sizes[moving] = at(np.sort(np.abs(columns.values[moving]), axis=1), 95)
        if ends.any():
            tops[ends] = columns.percentile(98)[ends]
        return (SizeTrace(episode.names, sizes.astype(np.float32), tops.astype(np.float32)),)

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict for the columns, and one for the grippers where they open to two widths."""
        found = [(m.episode, trace) for m in episodes for trace in m.traces if isinstance(trace, SizeTrace)]
        found = [(name, trace) for name, trace in found if trace.names == found[0][1].names]
        if len(found) < 2:
            return ()
        names, ids = found[0][1].names, [name for name, _ in found]
        states = [i for i, name in enumerate(names) if name.startswith("state ")]
        sizes = np.stack([trace.sizes for _, trace in found]).astype(np.float64)[:, states]
        tops = np.stack([trace.tops for _, trace in found]).astype(np.float64)
        return (self._units(ids, [names[i] for i in states], sizes), *self._openings(ids, names, tops))

    def _units(self, ids: Sequence[str], names: Sequence[str], sizes: Floats) -> DatasetVerdict:
        split = _two_units(names, sizes)
        if split is None:
            return DatasetVerdict(
                self.name, "confirmed", episodes_for=len(ids), decided="one unit", measured="one unit"
            )
        column = int(np.flatnonzero(split.columns)[0])
        most, least = (float(known_medians(sizes[side, column])) for side in (split.large, split.small))
        count = f"{int(split.columns.sum())} of {counted(split.compared, 'column')}"
        as_of = f", as {split.units} differ" if split.units else ""
        return self._told(
            ids,
            split,
            "",
            "stop" if split.units else "warn",
            f"numbers {split.ratio:.3g} times as large in {count}{as_of}",
            f"{names[column].partition(' ')[2]} reaches {most:.3g} and {least:.3g}",
        )

    def _openings(self, ids: Sequence[str], names: Sequence[str], tops: Floats) -> Iterable[DatasetVerdict]:
        """Grippers of 0 .. 0.6 beside those of 0 .. 1; objects that are held tell in the state alone."""
        splits = {name: split for name, split in zip(names, map(_two_openings, tops.T), strict=True) if split}
        for name, split in splits.items():
            alike = [n for n, s in splits.items() if np.array_equal(s.large, split.large)]
            if name.startswith("action ") and any(n.startswith("state ") for n in alike):
                values = tops[:, names.index(name)]
                yield self._told(
                    ids,
                    split,
                    "grippers",
                    "warn",
                    f"openings {split.ratio:.3g} times as wide",
                    f"{name.partition(' ')[2]} opens to {middle(values[split.large]):.3g} and "
                    f"{middle(values[split.small]):.3g}",
                )
                return

    def _told(
        self, ids: Sequence[str], split: _TwoSizes, subject: str, action: str, measured: str, detail: str
    ) -> DatasetVerdict:
        """The verdict on two groups of episodes."""
        groups = [[ids[i] for i in np.flatnonzero(side)] for side in (split.large, split.small)]
        few, many = sorted(groups, key=len)
        both = " against ".join(f"{', '.join(group[:3])}{', ..' if len(group) > 3 else ''}" for group in groups)
        return DatasetVerdict(
            self.name,
            "contradicted",
            subject,
            value=split.ratio,
            episodes_for=len(many),
            against=len(few),
            action="stop" if action == "stop" else "warn",
            decided="one unit",
            measured=measured,
            detail=f"{detail}: {both}",
            episodes=tuple(few[:MAX_LISTED]),
        )


def _two_units(names: Sequence[str], sizes: Floats) -> _TwoSizes | None:
    """The episodes whose sizes [E, D], NaN where nothing moves, are of two units in the same columns; None: of one.

    Most of the columns must fall apart alike, or all that are positions, or angles, by their names; or three neighbours
    alone as mm and m do, as in a pose without names.
    """
    found = max(_splits(sizes), key=lambda split: int(split.columns.sum()), default=None)
    if found is None:
        return None
    count, moving = int(found.columns.sum()), ~np.isnan(sizes).all(axis=0)
    if count >= min(COLUMNS, max(found.compared, 2)) and count >= SHARE * found.compared:
        return found
    kinds = (np.array([bool(kind.search(name.lower())) for name in names]) & moving for kind in _KINDS)
    whole = any(kind.sum() >= COLUMNS and found.columns[kind].all() for kind in kinds)
    return found if (whole and found.units) or _unnamed_position(found) else None


def _unnamed_position(found: _TwoSizes) -> bool:
    """Whether just three neighbours, of columns that move on both sides, differ as mm and m do.

    Joints that rest in some episodes are more than three, and smaller than LEAST where they rest.
    """
    at = np.flatnonzero(found.columns)
    alone = len(at) == COLUMNS and int(np.ptp(at)) == COLUMNS - 1 and found.compared >= COLUMNS + UNCHANGED
    return alone and found.units == FACTORS[1][0]


def _splits(sizes: Floats) -> Iterable[_TwoSizes]:
    """Every way in which a column falls apart, with the columns that follow."""
    with np.errstate(divide="ignore"):
        logs = np.log(sizes)
    known = set[bytes]()
    for column in logs.T:
        order = np.argsort(column)[: int(np.isfinite(column).sum())]
        gaps = np.diff(column[order])
        if not len(gaps) or gaps.max() < math.log(GAP):
            continue
        cut = int(np.argmax(gaps)) + 1
        small, large = np.zeros(len(column), np.bool_), np.zeros(len(column), np.bool_)
        small[order[:cut]], large[order[cut:]] = True, True
        if large.tobytes() + small.tobytes() not in known:
            known.add(large.tobytes() + small.tobytes())
            yield _followed(logs, small, large)


def _followed(logs: Floats, small: Mask, large: Mask) -> _TwoSizes:
    ratios = np.full(logs.shape[1], np.nan)
    follows = np.zeros(logs.shape[1], np.bool_)
    for index, column in enumerate(logs.T):
        below, above = column[small & np.isfinite(column)], column[large & np.isfinite(column)]
        if len(below) and len(above):
            ratios[index] = middle(above) - middle(below)
            follows[index] = above.min() - below.max() > math.log(CLEAR) and ratios[index] > math.log(RATIO)
    if not follows.any():
        return _TwoSizes(small, large, follows, int(np.isfinite(ratios).sum()), 1.0, 0.0)
    least = math.exp(float(known_medians(logs[small][:, follows].reshape(-1))))
    return _TwoSizes(small, large, follows, int(np.isfinite(ratios).sum()), math.exp(middle(ratios[follows])), least)


def _two_openings(tops: Floats) -> _TwoSizes | None:
    """Two groups of openings [E], each tight and of at least 3 episodes; None where there are not."""
    order = np.argsort(tops)[: int(np.isfinite(tops).sum())]
    values = tops[order]
    if len(values) < 2 * FEW or values[0] <= 0:
        return None
    ratios = values[1:] / values[:-1]
    cut = int(np.argmax(ratios)) + 1
    groups = values[:cut], values[cut:]
    tight = all(len(group) >= FEW and group[-1] <= TIGHT * group[0] for group in groups)
    if not tight or not OPENINGS[0] <= ratios[cut - 1] <= OPENINGS[1]:
        return None
    small, large = np.zeros(len(tops), np.bool_), np.zeros(len(tops), np.bool_)
    small[order[:cut]], large[order[cut:]] = True, True
    return _TwoSizes(small, large, np.ones(1, np.bool_), 1, middle(groups[1]) / middle(groups[0]), 0.0)


DETECTORS = (ColumnUnits(),)
