"""Columns of few steps: values that were rounded, or stored as small integers and scaled back (h8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, StepTrace
from fwdata.evidence.sides import opposite
from fwdata.evidence.signals import CONSTANT, Floats

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

FINE = "values as finely resolved as in other episodes"


@dataclass(frozen=True)
class _Coarse:
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
        rows = np.concatenate([episode.state64, episode.action64], axis=1)
        names = [f"state {name}" for name in episode.state_names] + [f"action {name}" for name in episode.action_names]
        found = np.array([_steps(column) for column in np.sort(rows, axis=0).T])
        return (StepTrace(tuple(names), *(values.astype(np.float32) for values in found.T)),)

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict; its episodes are those with coarse columns."""
        found = [(m.episode, trace) for m in episodes for trace in m.traces if isinstance(trace, StepTrace)]
        found = [(name, trace) for name, trace in found if trace.names == found[0][1].names]
        if not found:
            return ()
        traces = [trace for _, trace in found]
        usual, reach = (_medians([getattr(trace, key) for trace in traces]) for key in ("steps", "reach"))
        several = len(traces) >= EPISODES
        coarse = [(several and _among(trace, usual, reach)) or _alone(trace) for trace in traces]
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
                detail=f"{bad[0][0]}: {first.columns} columns, {first.example}" if first else "",
                episodes=tuple(name for name, _ in bad[:MAX_LISTED]),
            ),
        )


def _steps(values: Floats) -> tuple[float, float, float, float]:
    """What `StepTrace` keeps of a column [T], in order: smallest step, distinct values, range, how regular they are."""
    reach = float(values[-1] - values[0])
    gaps = np.diff(values)
    gaps = gaps[gaps > SAME * max(abs(float(values[0])), abs(float(values[-1])))]
    if not np.isfinite(reach) or reach <= CONSTANT or not len(gaps):
        return float("nan"), float("nan"), float("nan"), 0.0
    step, regular = float(gaps.min()), 0.0
    if len(gaps) >= GAPS and reach <= WHOLE * step:
        multiples = np.round(gaps / step)
        step = float(gaps.sum() / multiples.sum())
        on_grid = bool((np.abs(gaps / step - multiples) < OFF_GRID).all())
        regular = 2.0 if (values == np.round(values)).all() else 1.0 if on_grid else 0.0
    return step, float(len(gaps) + 1), reach, regular


def _among(trace: StepTrace, usual: NDArray[np.float32], reach: NDArray[np.float32]) -> _Coarse | None:
    """Columns whose steps are far wider than the usual ones of all episodes."""
    coarse = _few(trace, usual) & (trace.reach > REACH * reach)
    return _told(trace, coarse, "steps far wider than in the other episodes", usual)


def _alone(trace: StepTrace) -> _Coarse | None:
    """Columns of few steps, by the other arm or by themselves."""
    where = {name: column for column, name in enumerate(trace.names)}
    other = np.array([where.get(opposite(name), column) for name, column in where.items()])
    if len(other) == len(trace.names):
        usual = trace.steps[other]
        coarse = _few(trace, usual) & (trace.reach > REACH * trace.reach[other])
        found = _told(trace, coarse, "steps far wider than those of the other arm", usual, MOVING)
        if found:
            return found
    state = np.array([name.startswith("state ") for name in trace.names]) & (trace.distinct > GAPS)
    levels = trace.reach[state] / trace.steps[state]
    if len(levels) < MOVING or not trace.regular[state].all():
        return None
    whole = bool((trace.regular[state] == 2).all())
    if np.median(levels) > (WHOLE if whole else FEW):
        return None
    words = "whole numbers alone" if whole else "hardly any distinct values"
    return _told(trace, state, words, np.full(len(trace.names), np.nan))


def _few(trace: StepTrace, usual: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool [D], columns of at most 256 even steps that are far wider than the usual ones."""
    even = (trace.regular > 0) & (trace.reach <= LEVELS * trace.steps)
    found: NDArray[np.bool_] = even & (trace.steps > COARSER * usual)
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


def _medians(values: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """float32 [D], medians of the columns; NaN where a column moves in none."""
    stacked = np.stack(values)
    known = ~np.isnan(stacked).all(axis=0)
    found = np.full(stacked.shape[1], np.nan, np.float32)
    found[known] = np.nanmedian(stacked[:, known], axis=0)
    return found


DETECTORS = (CoarseValues(),)
