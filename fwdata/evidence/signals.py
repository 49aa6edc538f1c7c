"""Signal processing that detectors share: moving rows, edge-padded smoothing, lagged correlation, non-negative fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from fwdata.evidence.shared_values import drawn

type Floats = NDArray[np.float64]

CONSTANT = 1e-6
"""Range below which a column does not move."""

QUIET_STEPS = 4.0
"""A column whose range is below so many of its 80th percentile steps is noise."""

MOVING_SHARE = 0.2
"""A row moves when its speed is above this share of the 90th percentile."""

BOOTSTRAPS = 200

LONGER, AT_ONCE = 1.25, 8_000
"""How much longer the longest of some series that are correlated at once may be than the shortest, and the numbers of
one side of them, so that what is computed of them stays in the processor's caches."""

EXCHANGES = 20
"""Rounds after which problems that are fitted at once are fitted alone."""

NOISE = 1e-10
"""Share of a column's squares below which its spread in some of the rows is rounding, and counts as none."""


def percentile(values: Floats, share: float) -> Floats:
    """`np.percentile(values, share, axis=0)` of [T] or [T, D], which takes four times as long for arrays this small."""
    ordered = np.sort(values, axis=0)
    place = (len(ordered) - 1) * share / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    found: Floats = ordered[low] + (ordered[high] - ordered[low]) * (place - low)
    return np.where(np.isnan(ordered[-1]), np.nan, found)


@lru_cache(maxsize=64)
def spread_places(count: int, most: int) -> NDArray[np.int64]:
    """int64 [n], at most so many of `count` places, evenly spread, in order; not to be changed."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def active_columns(rows: Floats) -> NDArray[np.int64]:
    """Indices of the columns of [T, D] that move and are not noise."""
    if len(rows) < 3:
        return np.empty(0, np.int64)
    spans = np.ptp(rows, axis=0)
    steps = percentile(np.abs(np.diff(rows, axis=0)), 80)
    return np.flatnonzero((spans > CONSTANT) & (spans >= QUIET_STEPS * steps))


def relative_speeds(rows: Floats, step: int = 1, active: NDArray[np.int64] | None = None) -> Floats:
    """float64 [T, D]: min(3, |step| / its 95th percentile) of every column, centred; zero for columns that are noise.

    Row t holds s[t] - s[t - 1] for step 1, s[t + step/2] - s[t - step/2] for an even step; borders repeat the nearest.
    active: `active_columns(rows)`, where they are known.
    """
    found, active = np.zeros(rows.shape), active_columns(rows) if active is None else active
    if not len(active) or len(rows) <= step:
        return found
    changes = np.abs(rows[step:, active] - rows[:-step, active])
    scale = percentile(changes, 95)
    scale = np.where(scale > 0, scale, np.maximum(changes.max(axis=0), CONSTANT))
    before = (step + 1) // 2
    found[:, active] = edged(np.minimum(3.0, changes / scale), before, step - before)
    return found


def speed(rows: Floats, active: NDArray[np.int64] | None = None) -> Floats:
    """float64 [T], root mean square over the active columns of their relative speeds; zeros where nothing moves.

    active: as of `relative_speeds`.
    """
    active = active_columns(rows) if active is None else active
    found: Floats = np.sqrt((relative_speeds(rows, active=active) ** 2).sum(axis=1) / max(1, len(active)))
    return found


def moving_rows(speeds: Floats) -> NDArray[np.bool_]:
    """bool [T], rows whose speed is above 0.2 of its 90th percentile."""
    limit = MOVING_SHARE * float(percentile(speeds, 90)) if len(speeds) else 0.0
    return speeds > limit if limit > 0 else np.zeros(len(speeds), np.bool_)


def edged(values: Floats, before: int, after: int) -> Floats:
    """`np.pad(.., mode="edge")` along the first axis, which takes ten times as long for arrays this small."""
    return np.concatenate([values[:1].repeat(before, axis=0), values, values[-1:].repeat(after, axis=0)])


def running_sums(values: Floats) -> Floats:
    """[T + 1, ..], sums of the first 0, 1, .. rows."""
    found = np.zeros((len(values) + 1, *values.shape[1:]), values.dtype)
    np.cumsum(values, axis=0, out=found[1:])
    return found


def smooth(values: Floats, width: int = 3) -> Floats:
    """Moving average along the first axis; the ends are padded with the edge value, never with zero."""
    if len(values) < 2 or width < 2:
        return values
    before, rows = width // 2, len(values)
    padded = edged(values, before, width - 1 - before)
    found: Floats = padded[:rows] + padded[1 : rows + 1]
    for step in range(2, width):
        found += padded[step : step + rows]
    found /= width
    return found


def centred(values: Floats) -> Floats:
    """[T, D] less the mean of each column."""
    found: Floats = values - values.sum(axis=0) / max(1, len(values))
    return found


def slope(values: Floats) -> Floats:
    """`np.gradient(values, axis=0)` of [T, D] with at least two rows, which takes longer for arrays this small."""
    found = np.empty(values.shape)
    found[1:-1] = (values[2:] - values[:-2]) / 2
    found[0], found[-1] = values[1] - values[0], values[-1] - values[-2]
    return found


def correlation(left: Floats, right: Floats) -> float:
    """Pearson correlation of two [T] series; 0 where one of them is constant or fewer than 3 rows are left."""
    return float(correlations(left[:, None], right[:, None])[0])


def correlations(left: Floats, right: Floats) -> Floats:
    """Pearson correlation of every column of two [T, D] arrays; 0 where a column is constant."""
    if len(left) < 3:
        return np.zeros(left.shape[1])
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    scale = np.sqrt((left**2).sum(axis=0) * (right**2).sum(axis=0))
    products = (left * right).sum(axis=0)
    found: Floats = np.divide(products, scale, out=np.zeros_like(products), where=scale > 1e-12)
    return found


def shifted(left: Floats, right: Floats, lag: int) -> tuple[Floats, Floats]:
    """(left[t], right[t + lag]) for every t where both exist."""
    rows = len(left)
    if lag >= 0:
        return left[: max(0, rows - lag)], right[lag:]
    return left[-lag:], right[: max(0, rows + lag)]


def lagged(left: Floats, right: Floats, lags: range) -> Floats:
    """float64 [len(lags), D], correlations of left[t] with right[t + lag]; 0 where a column is constant.

    Cost: 70 us for 41 lags of 6 columns of 120 rows.
    """
    return lagged_each([(left, right)], [lags])[0]


def lagged_each(pairs: Sequence[tuple[Floats, Floats]], lags: Sequence[range]) -> list[Floats]:
    """`lagged` of several pairs, those of about as many rows at once: half the time of one after the other, for 41 lags
    of 6 columns of 120 rows, and a fifth for one column."""
    found: list[Floats] = [np.zeros((len(each), left.shape[1])) for each, (left, _) in zip(lags, pairs, strict=True)]
    used = [place for place, each in enumerate(found) if each.size and len(pairs[place][0])]
    for places in _of_a_length(used, [left.shape for left, _ in pairs]):
        shift = range(min(lags[place].start for place in places), max(lags[place].stop for place in places))
        scores, first = _lagged([pairs[place] for place in places], shift), 0
        for place in places:
            wanted, past = lags[place], first + found[place].shape[1]
            found[place] = scores[first:past, wanted.start - shift.start : wanted.stop - shift.start].T
            first = past
    return found


def _of_a_length(places: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """The places in groups, none of which has many more rows than another, or very many numbers."""
    group: list[int] = []
    numbers = 0
    for place in sorted(places, key=lambda place: shapes[place][0]):
        rows, width = shapes[place]
        if group and (rows > LONGER * shapes[group[0]][0] or numbers + rows * width > AT_ONCE):
            yield group
            group, numbers = [], 0
        group.append(place)
        numbers += rows * width
    if group:
        yield group


def _lagged(pairs: Sequence[tuple[Floats, Floats]], lags: range) -> Floats:
    """float64 [D, lags], `lagged` of the columns of all pairs, shorter ones followed by zeros. Means and spreads of all
    overlaps come from running sums."""
    length, width = max(len(left) for left, _ in pairs), sum(left.shape[1] for left, _ in pairs)
    both = np.zeros((2, width, length))  # a column's rows side by side, which numpy sums several times as fast
    rows, first = np.empty((width, 1), np.int64), 0
    for left, right in pairs:
        columns = slice(first, first := first + left.shape[1])
        both[0, columns, : len(left)], both[1, columns, : len(left)], rows[columns] = left.T, right.T, len(left)
    both -= both.sum(axis=2, keepdims=True) / rows
    if len(pairs) > 1:
        both[:, np.arange(length) >= rows] = 0.0
    shift = np.arange(lags.start, lags.stop)
    before, after = max(0, -lags.start), max(0, lags.stop - 1)
    padded = np.zeros((width, before + length + after))
    padded[:, before : before + length] = both[1]
    along, step = padded.strides
    windows = as_strided(padded, (width, before + after + 1, length), (along, step, step))  # of a row for every lag
    products = np.einsum("dlt,dt->dl", windows[:, lags.start + before : lags.stop + before], both[0])
    running = np.zeros((2, 2, width, length + 1))  # of the values and of their squares, of both sides
    np.cumsum(both, axis=2, out=running[0, ..., 1:])
    np.cumsum(both * both, axis=2, out=running[1, ..., 1:])
    totals, flat = running[1, ..., -1:], running.reshape(2, 2, -1)
    count, at = np.maximum(rows - np.abs(shift), 0), np.arange(0, flat.shape[2], length + 1)[:, None]
    sums = np.empty((2, 2, width, len(shift)))
    for side, start in enumerate((-shift, shift)):
        begin = np.minimum(np.maximum(start, 0), rows)
        end = np.minimum(begin + count, rows)
        sums[:, side] = flat[:, side].take(end + at, axis=1) - flat[:, side].take(begin + at, axis=1)
    number = np.maximum(count, 1).astype(np.float64)
    spreads = sums[1] - sums[0] ** 2 / number
    spreads[spreads <= NOISE * totals] = 0.0
    scale = np.sqrt(spreads[0] * spreads[1])
    products -= sums[0, 0] * sums[0, 1] / number
    known = (scale > 1e-12) & (count >= 3)
    found: Floats = np.divide(products, scale, out=np.zeros_like(products), where=known)
    return found


def cross_lagged(left: Floats, right: Floats, lags: NDArray[np.int64]) -> Floats:
    """float64 [len(lags), A, B]: the same of every column of left [T, A] with every one of right [T, B]."""
    left, right = centred(left), centred(right)
    products = np.stack([one.T @ other for one, other in (shifted(left, right, int(lag)) for lag in lags)])
    count, sums, spreads = _overlaps(left, right, lags)
    width = left.shape[1]
    first, second = ((values[:, :width, None], values[:, None, width:]) for values in (sums, spreads))
    return _correlated(products, count[..., None], first, second)


def _correlated(products: Floats, count: Floats, sums: tuple[Floats, Floats], spreads: tuple[Floats, Floats]) -> Floats:
    """Correlations of sums of products, from counts, sums and spreads of both sides."""
    scale = np.sqrt(spreads[0] * spreads[1])
    known = (scale > 1e-12) & (count >= 3)
    covered = products - sums[0] * sums[1] / np.maximum(count, 1)
    found: Floats = np.divide(covered, scale, out=np.zeros_like(products), where=known)
    return found


def _overlaps(left: Floats, right: Floats, shift: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Rows [lags, 1] of every overlap, and sums and spreads [lags, A + B] of left's columns and right's in it."""
    rows, width = len(left), left.shape[1]
    both = np.concatenate([left, right], axis=1)
    running = running_sums(np.concatenate([both, both**2], axis=1))
    count = np.maximum(rows - np.abs(shift), 0)
    first, second = (np.minimum(np.maximum(start, 0), rows) for start in (-shift, shift))
    of_left, of_right = (
        running.take(np.minimum(start + count, rows), axis=0) - running.take(start, axis=0) for start in (first, second)
    )
    total = both.shape[1]
    of_right[:, :width], of_right[:, total : total + width] = of_left[:, :width], of_left[:, total : total + width]
    n = np.maximum(count, 1)[:, None].astype(np.float64)
    sums, squares = of_right[:, :total], of_right[:, total:]
    spread = squares - sums**2 / n
    spread[spread <= NOISE * running[-1, total:]] = 0.0
    return count[:, None].astype(np.float64), sums, spread


def peak(lags: Sequence[int], scores: Floats) -> tuple[float, bool]:
    """(position of the highest score, refined by a parabola; whether it lies inside the range)."""
    best = int(scores.argmax())
    if not 0 < best < len(scores) - 1:
        return float(lags[best]), False
    low, middle, high = scores[best - 1 : best + 2].tolist()
    curve = low - 2 * middle + high
    return lags[best] + (0.5 * (low - high) / curve if curve < 0 else 0.0), True


def peaks(
    lags: Sequence[int], scores: Floats, best: NDArray[np.int64] | None = None
) -> tuple[Floats, NDArray[np.bool_]]:
    """The same of every row of [N, lags], or around its place in best [N]: float64 [N] and bool [N]."""
    best, last = np.argmax(scores, axis=1) if best is None else best, scores.shape[1] - 1
    found = np.asarray(lags, np.float64)[best]
    interior = (best > 0) & (best < last)
    row, at = np.flatnonzero(interior), best[interior]
    low, middle, high = (scores[row, at + step] for step in (-1, 0, 1))
    curve = low - 2 * middle + high
    found[row] += np.divide(0.5 * (low - high), curve, out=np.zeros_like(curve), where=curve < 0)
    return found, interior


def non_negative_fit(gram: Floats, moments: Floats) -> Floats:
    """float64 [D] >= 0 that minimises |X w - y|, from X'X [D, D] and X'y [D]; active set of Lawson and Hanson."""
    size = len(moments)
    ridged = gram + 1e-9 * np.trace(gram) / max(1, size) * np.eye(size)
    weights: Floats = np.zeros(size)
    free = weights > 0
    tolerance = 1e-10 * max(1.0, float(np.abs(moments).max(initial=0.0)))
    for _ in range(3 * size + 3):
        slopes = moments - gram @ weights
        slopes[free] = -np.inf
        entering = int(np.argmax(slopes)) if size else 0
        if not size or slopes[entering] <= tolerance:
            break
        free[entering] = True
        weights = _solved(ridged, moments, weights, free)
    return weights


def non_negative_fits(grams: Floats, moments: Floats) -> Floats:
    """float64 [N, D], `non_negative_fit` of N problems [N, D, D] and [N, D] at once, by exchanging all columns that are
    on the wrong side of their bound; the few that this does not settle are fitted alone. Cost: 25 us each for 14
    columns, a quarter of one after the other."""
    size = moments.shape[1]
    ridged = grams + (1e-9 / max(1, size)) * np.trace(grams, axis1=1, axis2=2)[:, None, None] * np.eye(size)
    tolerance = 1e-10 * np.maximum(1.0, np.abs(moments).max(axis=1, initial=0.0))[:, None]
    weights, free = np.zeros(moments.shape), np.zeros(moments.shape, np.bool_)
    left: NDArray[np.int64] = np.arange(len(moments))
    for _ in range(EXCHANGES):
        slopes = moments[left] - (grams[left] @ weights[left, :, None])[..., 0]
        wrong = np.where(free[left], weights[left] <= 0, slopes > tolerance[left])
        unsettled = wrong.any(axis=1)
        left, wrong = left[unsettled], wrong[unsettled]
        if not len(left):
            return weights
        free[left] ^= wrong
        used = free[left]
        system = np.where(used[:, :, None] & used[:, None], ridged[left], np.eye(size))
        weights[left] = np.linalg.solve(system, np.where(used, moments[left], 0.0)[..., None])[..., 0]
    for index in left:
        weights[index] = non_negative_fit(grams[index], moments[index])
    return weights


def _solved(ridged: Floats, moments: Floats, weights: Floats, free: NDArray[np.bool_]) -> Floats:
    """The inner loop: solve for the free columns, and bind again those that would become negative."""
    while free.any():
        index = np.flatnonzero(free)
        trial = np.zeros_like(weights)
        trial[index] = np.linalg.solve(ridged[index[:, None], index], moments[index])
        bad = free & (trial <= 0)
        if not bad.any():
            return trial
        step = float(np.min(weights[bad] / np.maximum(weights[bad] - trial[bad], 1e-300)))
        weights = weights + step * (trial - weights)
        free &= ~(bad & (weights <= 1e-12))
        if bad.any() and step == 0.0:
            free &= ~bad
    return np.zeros_like(weights)


def middle(values: NDArray[np.float64]) -> float:
    """The median, NaN where a value is. `np.median` imports numpy.ma first, which costs 60 ms in every process."""
    ordered = np.sort(values)
    if not len(ordered) or np.isnan(ordered[-1]):
        return float("nan")
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def medians(values: NDArray[Any], axis: int = 0) -> NDArray[Any]:
    """`np.median` along an axis, NaN where a value is; floats stay what they are."""
    ordered = np.moveaxis(np.sort(values, axis=axis), axis, 0)
    found = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return np.where(np.isnan(ordered[-1]), ordered[-1], found)


def known_medians(values: NDArray[Any], axis: int = 0) -> NDArray[Any]:
    """`np.nanmedian` along an axis: the median of the values that are not NaN, NaN where all are."""
    ordered = np.moveaxis(np.sort(values, axis=axis), axis, 0)
    known = np.count_nonzero(~np.isnan(ordered), axis=0, keepdims=True)
    places = (np.maximum(known - 1, 0) // 2, np.minimum(known // 2, len(ordered) - 1))
    low, high = (np.take_along_axis(ordered, place, axis=0)[0] for place in places)
    found: NDArray[Any] = (low + high) / 2
    return found


def bootstrap_interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the median of [n] values, by resampling; deterministic."""
    medians = np.percentile(values[drawn(len(values), (BOOTSTRAPS, len(values)), seed)], 50, axis=1)
    return float(np.percentile(medians, 2.5)), float(np.percentile(medians, 97.5))
