"""The numbers of one episode: state, action, and the columns that say which task every row belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.lerobot import parquet
from converters.lerobot.info import Feature, Info
from converters.lerobot.mapping import Columns, Fit
from converters.lerobot.parquet import Span
from converters.lerobot.stamps import order_by_motion, telling_times
from converters.lerobot.text import Labels, Rows
from converters.lerobot.values import Floats, integers, number_type, numbers
from converters.lerobot.values import seconds as seconds_of
from fwdata.errors import BadEpisode

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class TableRows:
    """The numbers of one episode."""

    state: Floats
    """float64 [T, Ds], as recorded."""
    action: Floats
    """float64 [T, Da], as recorded."""
    labels: Labels
    """Task table indices of the rows."""
    warnings: tuple[str, ...]
    """Sentences about timestamps or indices that are not as declared."""
    seconds: Floats | None = None
    """float64 [T], recorded times of the rows, where they may tell which frames of a video these show."""


def read_rows(span: Span, info: Info, mapping: Fit, rate: float | None = None) -> TableRows:
    """Read an episode's rows without its images. BadEpisode names the file, column and what was found.

    rate: rows per second that column timestamp is compared with; None: the label of info.json.
    """
    keys = list(dict.fromkeys(part.key for part in (*mapping.state, *mapping.action)))
    there = set(parquet.column_names(span))
    extra = [k for k in ("frame_index", "timestamp", "task_index", *_LABELS) if k in there and k not in keys]
    table = parquet.read_span(span, [*keys, *extra])
    values = {key: numbers(table, span.name, key, info.features[key].size) for key in keys}
    indices = {k: integers(table, span.name, k) for k in extra if k != "timestamp"}
    state = _joined(values, mapping.state)
    warnings, seconds = _check_types(table, [info.features[key] for key in keys]), None
    warnings += [SORTED] if span.places is not None else []
    if "frame_index" in indices:
        warnings += _check_order(span, indices["frame_index"])
    if "timestamp" in extra:
        times = seconds_of(table, span.name, "timestamp")
        seconds = telling_times(times, rate or info.fps)
        if rate is None:
            _check_step(span, times, info.fps)
        warnings += _check_times(times, rate or info.fps)
        warnings += _check_sorted(span, times, "frame_index" in indices, state)
    task, coarse, quality = (indices.get(key) for key in ("task_index", *_LABELS))
    return TableRows(
        state,
        _joined(values, mapping.action),
        Labels(task, coarse, quality),
        tuple(warnings),
        seconds,
    )


def _check_order(span: Span, found: Rows) -> list[str]:
    """A sentence where frame_index counts from another number than 0; BadEpisode where it does not count."""
    first = int(found[0])
    others = found != np.arange(first, first + span.count)
    if others.any():
        row = int(others.argmax())
        raise BadEpisode(
            f"{span.name}: frame_index is {found[row]} at row {row} of the episode, expected {first + row}: rows are "
            "missing or in another order; download the table again, or leave the episode out"
        )
    return [f"frame_index begins at {first}; row 0 is the first one that is there"] if first else []


SORTED = "rows are in another order than frame_index or index counts; they are read in its order"


def _check_sorted(span: Span, times: Floats, counted: bool, state: Floats) -> list[str]:
    """A sentence where times run backwards and the motion shows that the rows do not; BadEpisode where it does not.

    counted: there is a frame_index. BadEpisode too where rows were sorted, or no frame_index tells their order.
    """
    back = np.diff(times) < 0
    if not back.any():
        return []
    row = int(back.argmax()) + 1
    where = f"timestamp goes back from {times[row - 1]:.3f} s to {times[row]:.3f} s at row {row}"
    told = "no frame_index tells their order" if span.places is None else "the rows were sorted by their index"
    if counted and span.places is None:
        order = order_by_motion(times, state)
        if order.by_index:
            return [f"{where}; rows are stored in the order of frame_index: {order.why}"]
        told = f"frame_index does not: {order.why}"
    raise BadEpisode(
        f"{span.name}: {where}, and {told}: rows or times are in the wrong order; download the table again, or leave "
        "the episode out"
    )


def as_float32(values: Floats, names: Sequence[str], what: str) -> tuple[NDArray[np.float32], list[str]]:
    """(values as they are stored, float32 [T, n]; sentences about columns whose changes that loses).

    what: "state" or "action". BadEpisode for a number that float32 does not hold.
    """
    beyond = np.isfinite(values) & (np.abs(values) > np.finfo(np.float32).max)
    if beyond.any():
        frame, column = np.argwhere(beyond)[0]
        raise BadEpisode(
            f"{what} is {values[frame, column]:.3g} at frame {frame}, dimension {names[column]}: more than 32-bit "
            "numbers hold; leave the episode out, or fetch the table again"
        )
    found = values.astype(np.float32)
    with np.errstate(invalid="ignore"):
        lost, largest = np.abs(found - values).max(axis=0), np.abs(values).max(axis=0)
        told = (largest > COARSE) & (lost > LOST * np.ptp(values, axis=0)) & (lost > 0)
    return found, [
        f"{what} dimension {names[column]} is near {largest[column]:.6g} and stored as 32-bit numbers, which round it "
        f"by up to {lost[column]:.3g}: more than {LOST:.1%} of its range"
        for column in np.flatnonzero(told)
    ]


COARSE = 2**24 / 1000
"""Values above this are rounded by more than 0.001 in float32."""

LOST = 1e-3
"""Share of a column's range that rounding may take."""


def _check_types(table: pa.Table, features: Sequence[Feature]) -> list[str]:
    """What was declared as fractions and is stored as whole numbers may have lost them in a cast."""
    found = []
    for feature in features:
        kind = number_type(table.schema.field(feature.key).type)
        if feature.dtype.startswith("float") and not kind.startswith(("float", "double", "halffloat", "decimal")):
            found.append(f"{feature.key} holds {kind}, meta/info.json says {feature.dtype}: fractions may be lost")
    return found


_LABELS = ("coarse_task_index", "quality_index")


def _joined(values: dict[str, Floats], parts: Sequence[Columns]) -> Floats:
    return np.concatenate([values[part.key][:, part.indices] for part in parts], axis=1)


def _check_step(span: Span, times: Floats, fps: float) -> None:
    """BadEpisode where times count as evenly as a clock at another rate than the dataset's: one store has one rate."""
    rate = clock_rate(times)
    if rate is not None and not any(abs(rate * unit - fps) <= OTHER_RATE * fps for unit in (1.0, 1e3, 1e6, 1e9)):
        raise BadEpisode(
            f"{span.name}: column timestamp steps by {1 / rate:.4g} s, {rate:.4g} a second, the dataset's rows by "
            f"{1 / fps:.4g} s, {fps:g} a second; bring the episode to that rate, leave it out, or say with --rate "
            f"{fps:g} that its times are wrong"
        )


def clock_rate(times: Floats) -> float | None:
    """Rows per unit of times that count evenly; None for others, and for fewer than 10."""
    steps = np.diff(times)
    if len(steps) < FEW_STEPS or not np.isfinite(steps).all():
        return None
    step = float(np.median(steps))
    return 1 / step if step > 0 and bool((np.abs(steps - step) <= EVEN * step).all()) else None


OTHER_RATE, EVEN, FEW_STEPS = 0.1, 0.02, 9
"""Share by which the rate of an episode's times is another one than the dataset's, that by which steps of an even clock
differ from each other, and how many of them tell. Times that were measured are uneven, and may be a little slower."""


def _check_times(times: Floats, fps: float) -> list[str]:
    """LeRobot's own timestamps are k / fps; others are not used, but reported."""
    lost = int((~np.isfinite(times)).sum())
    if lost:
        return [f"column timestamp is not a number in {lost} of {len(times)} rows; rows are stored as evenly spaced"]
    places = np.arange(len(times)) / fps
    offset = np.abs(times - times[0] - places)
    row = int(offset.argmax())
    if not offset[row] >= 0.5 / fps:
        return []
    for name, unit in (("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if (np.abs((times - times[0]) * unit - places) < 0.5 / fps).all() and len(times) >= FEW_STEPS:
            return [f"column timestamp counts in {name}, LeRobot's in s; its rows are evenly spaced"]
    return [
        f"column timestamp is {times[row] - times[0]:.3f} s at frame {row}, {fps:g} fps put it at {row / fps:.3f} s; "
        "rows are stored as evenly spaced"
    ]
