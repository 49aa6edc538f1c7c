"""What several detectors measure of the columns of state and action: ends, steps, percentiles, each computed once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.signals import CONSTANT, QUIET_STEPS, Floats

type Mask = NDArray[np.bool_]

RESTING = 0.015
"""An arm, a gripper or a joint rests that reaches less than this share of what the others reach: what it does is the
noise of its encoder, which otherwise would pass for motion that no camera shows."""


OF_CLAIMS = ("_alike", "resting", "active")
"""What a `ColumnValues` computes of anything but its values."""


class ColumnValues:
    """D columns of T rows, at least one, as float64 [D, T]: numpy sorts and sums along memory several times as fast."""

    def __init__(self, values: Floats, alike: Sequence[Sequence[Sequence[int]]] = ()) -> None:
        """alike: several groups of columns each, such as those of both arms, of which some may rest."""
        self.values = values
        self._alike = alike
        self._percentiles: dict[float, Floats] = {}
        self._step_percentiles: dict[float, Floats] = {}

    def unclaimed(self) -> ColumnValues:
        """The same where nothing is claimed of the columns, with what was computed of their values."""
        found = ColumnValues(self.values)
        found.__dict__.update({name: value for name, value in vars(self).items() if name not in OF_CLAIMS})
        return found

    @cached_property
    def ordered(self) -> Floats:
        """float64 [D, T], every column in order, NaN last."""
        return np.sort(self.values, axis=1)

    @cached_property
    def low(self) -> Floats:
        """float64 [D], smallest values; NaN where one is."""
        ordered = self.ordered
        return np.where(np.isnan(ordered[:, -1]), np.nan, ordered[:, 0])

    @property
    def high(self) -> Floats:
        """float64 [D], largest values; NaN where one is."""
        return self.ordered[:, -1]

    @cached_property
    def reach(self) -> Floats:
        """float64 [D], ranges; NaN where a value is."""
        return self.high - self.low

    @cached_property
    def finite(self) -> bool:
        """Whether all values are finite: others are at the ends."""
        return bool(np.isfinite(self.ordered[:, [0, -1]]).all())

    @cached_property
    def steps(self) -> Floats:
        """float64 [D, T - 1], sizes of the steps from row to row."""
        return np.abs(self.values[:, 1:] - self.values[:, :-1])

    @cached_property
    def ordered_steps(self) -> Floats:
        """float64 [D, T - 1], the same in order, NaN last."""
        return np.sort(self.steps, axis=1)

    @cached_property
    def active(self) -> Mask:
        """bool [D], whether a column moves: no noise, as `signals.active_columns` tells, and not at rest."""
        if self.values.shape[1] < 3:
            return np.zeros(len(self.values), np.bool_)
        moves = (self.reach > CONSTANT) & (self.reach >= QUIET_STEPS * self.step_percentile(80))
        return moves & ~self.resting

    @cached_property
    def resting(self) -> Mask:
        """bool [D], the columns of groups that rest while others of their kind move."""
        found, each = np.zeros(len(self.values), np.bool_), self.reach.tolist()
        for sides in self._alike:
            if len(sides) < 2:
                continue
            reaches = [max((each[column] for column in side), default=0.0) for side in sides]
            least = RESTING * max(reaches)
            for side, reach in zip(sides, reaches, strict=True):
                if reach < least:
                    found[list(side)] = True
        return found

    def percentile(self, share: float) -> Floats:
        """float64 [D], as `signals.percentile` of the columns."""
        if share not in self._percentiles:
            self._percentiles[share] = at(self.ordered, share)
        return self._percentiles[share]

    def step_percentile(self, share: float) -> Floats:
        """float64 [D], the same of the sizes of their steps; at least two rows."""
        if share not in self._step_percentiles:
            self._step_percentiles[share] = at(self.ordered_steps, share)
        return self._step_percentiles[share]

    def relative_steps(self, columns: NDArray[np.int64]) -> Floats:
        """float64 [n, T - 1], min(3, step / its 95th percentile) of these columns."""
        changes, scale = self.steps[columns], self.step_percentile(95)[columns]
        still = ~(scale > 0)
        if still.any():
            scale[still] = np.maximum(changes[still].max(axis=1), CONSTANT)
        return np.minimum(3.0, changes / scale[:, None])

    def speed(self, columns: NDArray[np.int64]) -> Floats:
        """float64 [T], `signals.speed` of these columns, all of which are active."""
        rows = self.values.shape[1]
        if not len(columns) or rows < 2:
            return np.zeros(rows)
        found, relative = np.empty(rows), self.relative_steps(columns)
        np.sqrt((relative * relative).sum(axis=0) / len(columns), out=found[1:])
        found[0] = found[1]
        return found


def at(ordered: Floats, share: float) -> Floats:
    """float64 [D], percentiles of columns [D, T] in order; NaN where a value is."""
    last = ordered.shape[1] - 1
    place = last * share / 100
    low = int(place)
    below = ordered[:, low]
    found = below + (ordered[:, min(low + 1, last)] - below) * (place - low)
    found[np.isnan(ordered[:, -1])] = np.nan
    return found


@lru_cache(maxsize=8)
def titles(state: Sequence[str], action: Sequence[str]) -> tuple[str, ...]:
    """Names of all columns, "state " or "action " before each; the same object for the episodes of a data set."""
    return (*(f"state {name}" for name in state), *(f"action {name}" for name in action))
