"""The rate of a dataset's rows: the label of info.json against the column of timestamps."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from converters.lerobot.meta import Dataset, load_dataset
from converters.lerobot.parquet import column_names, read_span
from converters.lerobot.values import seconds
from fwdata.errors import BadEpisode, UsageError

SCANNED_EPISODES = 3
TOLERANCE = 0.02
_UNITS = (1.0, 1e3, 1e6, 1e9)
"""Timestamps are seconds; some sets write ms, us or ns."""


def check_rate(dataset: Dataset, rate: float | None, wanted: Iterable[int] | None = None) -> None:
    """UsageError where the timestamps step by another rate than the label says, and option `rate` does not decide.

    wanted: the episodes of which the first are looked at; None: all.

    LeRobot's own timestamps are made from the label and prove nothing; others may be measured.
    """
    chosen = tuple(dataset.episodes if wanted is None else wanted)[:SCANNED_EPISODES]
    label, measured = dataset.info.fps, _measured(dataset.folder, dataset.stamp, chosen)
    if rate is not None or measured is None or any(_near(measured * unit, label) for unit in _UNITS):
        return
    raise UsageError(
        f"meta/info.json says {label:g} fps, column timestamp steps by {1 / measured:.4g} s, {measured:.4g} a second; "
        f"say which rate the rows have with --rate {label:g} or --rate {measured:.4g}"
    )


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * other


@lru_cache(maxsize=256)
def _measured(folder: Path, stamp: int, chosen: tuple[int, ...]) -> float | None:
    """Rows per unit of column timestamp, the median of the first episodes; None where it does not tell."""
    dataset = load_dataset(folder)
    steps = []
    for entry in (dataset.episodes[index] for index in chosen):
        try:
            span = dataset.span(entry)
            if "timestamp" in column_names(span) and span.count > 2:
                steps.append(np.diff(seconds(read_span(span, ["timestamp"]), span.name, "timestamp")))
        except BadEpisode:
            continue
    if not steps:
        return None
    step = float(np.median(np.concatenate(steps)))
    return 1 / step if np.isfinite(step) and step > 0 else None
