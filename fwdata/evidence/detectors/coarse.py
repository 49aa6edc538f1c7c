"""Columns of few steps: values that were rounded, or stored as small integers and scaled back (h8)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, StepTrace
from fwdata.evidence.sides import opposite
from fwdata.evidence.signals import CONSTANT, Floats, known_medians, medians
from fwdata.wording import counted

SAME = 1e-5
"""Share of a column's largest size within which two values are one: float32 keeps 1e-7 of it."""

COARSER, LEVELS = 10.0, 256.0
"""How much wider the steps of a column are than in the other episodes, or the other arm, and the steps that its range
has at most: 8 bits. States of true recordings have 878 and more, commands of a SpaceMouse 17, in all episodes alike."""

COLUMNS, EPISODES, REACH = 2, 4, 0.3
"""Columns that are coarse together, episodes that are compared, and the share of the others' range that a column
covers: one that hardly moves has few values."""

FEW, WHOLE = 128.0, 400.0
"""Median of the steps of all state columns up to which the whole state is coarse; the same of whole numbers, as angles
in degrees without decimals are. Encoders that count have more."""

GAPS, OFF_GRID = 4, 0.05
"""Gaps between distinct values that show whether all are multiples of one step, and how far off they may be."""

MOVING = 3
"""State columns that must move for that."""

type Values = NDArray[np.float32]

FINE = "values as finely resolved as in other episodes"


class _Coarse(NamedTuple):
    """What is coarse in one episode."""

    words: str
    """What, in words."""
    columns: int
    """How many columns."""
    example: str
    """One of them with its number of values."""


class CoarseValues(Detector):
    """h8: no columns have far fewer steps than in other episodes, or than the other arm, or hardly any at all."""

    name, code, question, action = "coarse_values", "h8", "resolution of values", "warn"
    advice = "write the recordings again from what was measured, without rounding, or leave them out (--exclude)"
    word = "expected"
    compares = True
    min_rows = 40

    def trace(self, episode: EpisodeInput) -> tuple[StepTrace, ...]:
        """Steps and distinct values of every column."""
        found = _steps(episode.columns.ordered)
        return (StepTrace(episode.names, *(values.astype(np.float32) for values in found)),)

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict; its episodes are those with coarse columns."""
        found = [(m.episode, trace) for m in episodes for trace in m.traces if isinstance(trace, StepTrace)]
        found = [(name, trace) for name, trace in found if trace.names == found[0][1].names]
        if not found:
            return ()
        coarse = _coarse([trace for _, trace in found])
        bad = [(name, each) for (name, _), each in zip(found, coarse, strict=True) if each]
        first = bad[0][1] if bad else None
        return (
            DatasetVerdict(
                self.name,
                "contradicted" if bad else "confirmed",
                value=float(len(bad)),
                episodes_for=len(found) - len(bad),
                against=len(bad),
                action="warn" if bad else "note",
                decided=FINE,
                measured=first.words if first else FINE,
                detail=f"{bad[0][0]}: {counted(first.columns, 'column')}, {first.example}" if first else "",
                episodes=tuple(name for name, _ in bad[:MAX_LISTED]),
            ),
        )


def _steps(ordered: Floats) -> tuple[Floats, ...]:
    """What `StepTrace` keeps of columns [D, T], each in order: smallest steps, distinct values, ranges, regularity."""
    first, last = ordered[:, 0], ordered[:, -1]
    reach, gaps = last - first, ordered[:, 1:] - ordered[:, :-1]
    several = gaps > (SAME * np.maximum(np.abs(first), np.abs(last)))[:, None]
    count = np.count_nonzero(several, axis=1)
    moving = np.isfinite(reach) & (reach > CONSTANT) & (count > 0)
    step = np.where(several, gaps, np.inf).min(axis=1, initial=np.inf)
    regular = np.zeros(len(ordered))
    for column in np.flatnonzero(moving & (count >= GAPS) & (reach <= WHOLE * step)):
        step[column], regular[column] = _grid(ordered[column], gaps[column][several[column]], step[column])
    return (*(np.where(moving, values, np.nan) for values in (step, count + 1.0, reach)), regular)


def _grid(values: Floats, gaps: Floats, step: float) -> tuple[float, float]:
    """(step, how regular) of a column of few values in order, from the gaps between them and the smallest of these."""
    multiples = np.round(gaps / step)
    step = float(gaps.sum() / multiples.sum())
    on_grid = bool((np.abs(gaps / step - multiples) < OFF_GRID).all())
    return step, 2.0 if (values == np.round(values)).all() else 1.0 if on_grid else 0.0


def _coarse(traces: Sequence[StepTrace]) -> list[_Coarse | None]:
    """What is coarse in each episode; all are sifted at once, and few are left to look at."""
    keys = ("steps", "reach", "distinct", "regular")
    steps, wide, distinct, regular = (np.stack([getattr(trace, key) for trace in traces]) for key in keys)
    usual, reach = _medians(steps), _medians(wide)
    several = len(traces) >= EPISODES
    suspect = (~(_is_state(traces[0].names) & (distinct > GAPS)) | (regular > 0)).all(axis=1)
    suspect |= (_few(wide, steps, regular, usual) & (wide > REACH * reach)).sum(axis=1) >= COLUMNS
    other = _other_arm(traces[0].names)
    if other is not None:
        few = _few(wide, steps, regular, steps[:, other])
        suspect |= (few & (wide > REACH * wide[:, other])).sum(axis=1) >= MOVING
    return [
        ((several and _among(trace, usual, reach)) or _alone(trace)) if worth else None
        for trace, worth in zip(traces, suspect.tolist(), strict=True)
    ]


def _among(trace: StepTrace, usual: NDArray[np.float32], reach: NDArray[np.float32]) -> _Coarse | None:
    """Columns whose steps are far wider than the usual ones of all episodes."""
    coarse = _few(trace.reach, trace.steps, trace.regular, usual) & (trace.reach > REACH * reach)
    return _told(trace, coarse, "steps far wider than in the other episodes", usual)


def _alone(trace: StepTrace) -> _Coarse | None:
    """Columns of few steps, by the other arm or by themselves."""
    other = _other_arm(trace.names)
    if other is not None:
        usual = trace.steps[other]
        coarse = _few(trace.reach, trace.steps, trace.regular, usual) & (trace.reach > REACH * trace.reach[other])
        found = _told(trace, coarse, "steps far wider than those of the other arm", usual, MOVING)
        if found:
            return found
    state = _is_state(trace.names) & (trace.distinct > GAPS)
    levels = trace.reach[state] / trace.steps[state]
    if len(levels) < MOVING or not trace.regular[state].all():
        return None
    whole = bool((trace.regular[state] == 2).all())
    if float(medians(levels)) > (WHOLE if whole else FEW):
        return None
    words = "whole numbers alone" if whole else "hardly any distinct values"
    return _told(trace, state, words, np.full(len(trace.names), np.nan))


@lru_cache(maxsize=4)
def _other_arm(names: tuple[str, ...]) -> NDArray[np.int64] | None:
    """int64 [D], the column of the other arm for each, or itself; None where two have one name."""
    where = {name: column for column, name in enumerate(names)}
    return np.array([where.get(opposite(name), where[name]) for name in names]) if len(where) == len(names) else None


@lru_cache(maxsize=4)
def _is_state(names: tuple[str, ...]) -> NDArray[np.bool_]:
    """bool [D], the columns of the state."""
    return np.array([name.startswith("state ") for name in names])


def _few(reach: Values, steps: Values, regular: Values, usual: Values) -> NDArray[np.bool_]:
    """bool [.., D], columns of at most 256 even steps that are far wider than the usual ones."""
    found: NDArray[np.bool_] = (regular > 0) & (reach <= LEVELS * steps) & (steps > COARSER * usual)
    return found


def _told(
    trace: StepTrace, coarse: NDArray[np.bool_], words: str, usual: NDArray[np.float32], least: int = COLUMNS
) -> _Coarse | None:
    where = np.flatnonzero(coarse)
    if len(where) < least:
        return None
    worst = int(where[np.argmin(trace.distinct[where])])
    against = f", {usual[worst]:.2g} in the others" if np.isfinite(usual[worst]) else ""
    example = (
        f"{trace.names[worst]} has {trace.distinct[worst]:.0f} values over a range of {trace.reach[worst]:.3g} "
        f"(steps of {trace.steps[worst]:.2g}{against})"
    )
    return _Coarse(words, len(where), example)


def _medians(stacked: Values) -> Values:
    """float32 [D], medians of the columns of [n, D]; NaN where a column moves in none."""
    known = ~np.isnan(stacked).all(axis=0)
    found = np.full(stacked.shape[1], np.nan, np.float32)
    found[known] = known_medians(stacked[:, known])
    return found


DETECTORS = (CoarseValues(),)
