"""Columns of state and action, and what normalisation makes of them: constant, nearly constant, clipped, squeezed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwdata.doctor.findings import DoctorFinding
from fwdata.doctor.remedies import Patient
from fwdata.evidence.signals import CONSTANT
from fwdata.normalise import CLIP, FLAT_RANGE, FLAT_STD, STD_OF_FLAT, Mode, Normaliser
from fwdata.store.caches.stats import FieldStatistics, Statistics, merge_statistics, statistics_of
from fwdata.wording import verb

SAMPLED_ROWS = 20_000
"""Rows of the data set that are kept to see what normalisation does to them."""

BATCH = 32
CLIPPED_SHARE = 0.01
SQUEEZED = 0.05
"""Middle 98 % of a column's normalised values, in all: below it an outlier decides the scale."""

MIN_ROWS = 200
"""Sampled rows that are needed to speak of shares."""


class RunningStatistics:
    """Statistics and a sample of the rows of any number of episodes, in memory that does not grow with them."""

    def __init__(self, episodes: int, action_horizon: int) -> None:
        self._per_episode = max(1, SAMPLED_ROWS // max(1, episodes))
        self._stride = max(1, episodes // SAMPLED_ROWS)
        self._horizon = action_horizon
        self._seen = 0
        self._several: list[Statistics] = []
        self._sample: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []

    def add(self, state: NDArray[np.float32], action: NDArray[np.float32]) -> None:
        """Take the rows of one training episode; one row has no variance and is left out, as training does."""
        if len(state) < 2:
            return
        self._several.append(statistics_of([state], [action], self._horizon))
        if len(self._several) == BATCH:
            self._several = [merge_statistics(self._several)]
        if self._seen % self._stride == 0:
            rows = np.unique(np.linspace(0, len(state) - 1, min(self._per_episode, len(state))).astype(np.int64))
            self._sample.append((state[rows], action[rows]))
        self._seen += 1

    def result(self) -> ColumnSample | None:
        """What was collected; None without an episode of two rows."""
        if not self._several:
            return None
        state, action = (np.concatenate(rows) for rows in zip(*self._sample, strict=True))
        return ColumnSample(merge_statistics(self._several), state, action)


@dataclass(frozen=True, eq=False)
class ColumnSample:
    """Statistics of a data set's training episodes and some of their rows."""

    statistics: Statistics
    """As training uses them."""
    state: NDArray[np.float32]
    """float32 [n, Ds], sampled rows."""
    action: NDArray[np.float32]
    """float32 [n, Da], the actions of the same rows."""


def column_findings(
    sample: ColumnSample, mode: Mode, names: tuple[Sequence[str], Sequence[str]], patient: Patient
) -> list[DoctorFinding]:
    """Findings on every column of state and action. names: of the state and of the action columns."""
    found: list[DoctorFinding] = []
    fields = (
        ("state", sample.statistics.state, sample.state, names[0]),
        ("action", sample.statistics.action, sample.action, names[1]),
    )
    for what, statistics, rows, labels in fields:
        found += _Field(what, statistics, rows, tuple(labels), mode, patient).findings()
    return found


@dataclass(frozen=True, eq=False)
class _Field:
    """State or action, with its statistics and sampled rows."""

    what: str
    """ "state" or "action"."""
    statistics: FieldStatistics
    """Of the training episodes."""
    rows: NDArray[np.float32]
    """float32 [n, D], sampled."""
    names: tuple[str, ...]
    """D names."""
    mode: Mode
    """The map of the current view."""
    patient: Patient
    """What commands name."""

    def findings(self) -> list[DoctorFinding]:
        """All findings of this field."""
        low, high = np.asarray(self.statistics.min), np.asarray(self.statistics.max)
        constant = high - low <= CONSTANT
        normaliser = Normaliser.from_statistics(
            self.statistics, self.mode, self.names, self.what, where=self.patient.where
        )
        wanted = self.rows * normaliser.scale + normaliser.offset
        found = self._constant(np.flatnonzero(constant))
        flat = self._nearly_constant(high - low) & ~constant
        found += [self._flat(int(i), high[i] - low[i], normaliser) for i in np.flatnonzero(flat)]
        if len(wanted) >= MIN_ROWS:
            for column in np.flatnonzero(~constant & ~flat):
                found += self._outliers(int(column), wanted[:, column])
        return found

    def _constant(self, columns: NDArray[np.int64]) -> list[DoctorFinding]:
        if not len(columns):
            return []
        listed = ", ".join(self.names[i] for i in columns[:4]) + (", .." if len(columns) > 4 else "")
        sentence = (
            f"{len(columns)} of {len(self.names)} {self.what} columns never "
            f"{verb(len(columns), 'changes', 'change')} ({listed}); normalised to always 0 or -1, which tells nothing"
        )
        return [DoctorFinding("note", "constant_column", sentence, self.what, float(len(columns)))]

    def _nearly_constant(self, width: NDArray[np.float64]) -> NDArray[np.bool_]:
        """bool [D]: columns whose spread is below what the official arithmetic can divide by."""
        if self.mode == "zscore":
            return np.asarray(self.statistics.std) < FLAT_STD
        if self.mode == "quantile":
            width = np.asarray(self.statistics.q99) - np.asarray(self.statistics.q01)
        return np.asarray(width < FLAT_RANGE)

    def _flat(self, column: int, width: float, normaliser: Normaliser) -> DoctorFinding:
        name, std = self.names[column], self.statistics.std[column]
        after = width * float(normaliser.scale[column])
        if self.mode == "zscore":
            done = (
                f"the official normalisation multiplies it by {1 / (std + 1e-8):.3g}, so that noise fills the range; "
                f"here {STD_OF_FLAT:g} is used for its std, and it spans {after:.3g}"
            )
        else:
            done = f"it is shifted and not scaled, and spans {after:.3g}"
        sentence = f"{self.what} {name} hardly moves: std {std:.2g}, range {width:.2g}; {done}"
        fix = self.patient.view("normalisation.mode=minmax") if self.mode == "zscore" else ""
        return DoctorFinding("warn", "near_constant_column", sentence, f"{self.what} {name}", std, command=fix)

    def _outliers(self, column: int, wanted: NDArray[np.float32]) -> list[DoctorFinding]:
        name = self.names[column]
        clipped = float((np.abs(wanted) > CLIP).mean())
        other = "quantile" if self.mode != "quantile" else "minmax"
        fix = self.patient.view(f"normalisation.mode={other}")
        if clipped > CLIPPED_SHARE:
            sentence = f"{self.what} {name}: normalisation ({self.mode}) clips {clipped:.1%} of its values at {CLIP:g}"
            return [DoctorFinding("warn", "clipped_column", sentence, f"{self.what} {name}", clipped, command=fix)]
        low, high = (float(v) for v in np.percentile(wanted, [1, 99]))
        if self.mode == "zscore" or high - low >= SQUEEZED:
            return []
        sentence = (
            f"{self.what} {name}: a few values decide the scale of normalisation ({self.mode}), so that 98 % of the "
            f"others lie within {high - low:.2g} of the 2 units"
        )
        return [DoctorFinding("warn", "squeezed_column", sentence, f"{self.what} {name}", high - low, command=fix)]
