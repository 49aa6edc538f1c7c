"""Records of normalisation statistics."""

from __future__ import annotations

from fwdata.io import Json
from fwdata.store.records.base import Count, Record, SealedRecord


class FieldStatisticsRecord(Record):
    """Statistics of state or action; one number per dimension."""

    min: tuple[float, ...]
    """Least value."""
    max: tuple[float, ...]
    """Greatest value."""
    mean: tuple[float, ...]
    """Mean value."""
    std: tuple[float, ...]
    """Population standard deviation."""
    q01: tuple[float, ...]
    """1 % quantile."""
    q99: tuple[float, ...]
    """99 % quantile."""
    stepwise: dict[str, tuple[tuple[float, ...], ...]]
    """The same six by name, per window step: [K][D]."""


class StatisticsRecord(Record):
    """The numbers of `StatsRecord`."""

    state: FieldStatisticsRecord
    """Of the state."""
    action: FieldStatisticsRecord
    """Of the action."""
    num_episodes: Count
    """Training episodes."""
    num_transitions: Count
    """Rows of the episodes counted."""


class StatsRecord(SealedRecord):
    """The statistics of a store."""

    identity: dict[str, Json]
    """What they were computed from: digest of the parts, split, action horizon."""
    statistics: StatisticsRecord
    """The numbers."""
