"""By how many rows a camera is behind the joints, of all episodes together (d1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import as_strided

from fwdata.evidence.records import MotionTrace
from fwdata.evidence.shared_values import drawn
from fwdata.evidence.signals import BOOTSTRAPS, Floats, non_negative_fits, peak, peaks, percentile, running_sums

FOLDS = 4
"""Parts of the episodes, of which each is explained by the weights of the others."""

MAX_NUMBERS = 1_000_000
"""Numbers of products of speeds that are held at once."""


class LagEstimate:
    """A camera's lag in rows against the state, the score at the peak, what that gains over no lag, and whether it is
    interior."""

    def __init__(self, lags: Sequence[int], scores: Floats) -> None:
        together = scores.mean(axis=0)
        self._lags, self._scores = lags, scores
        self.score, self.gain = float(together.max()), float(together.max() - together[lags.index(0)])
        self.lag, self.interior = peak(lags, together)

    @cached_property
    def _draws(self) -> Floats:
        """float64 [n], the lags that episodes drawn from these with replacement tell."""
        count = len(self._scores)
        draws = drawn(count, (BOOTSTRAPS, count)) + count * np.arange(BOOTSTRAPS)[:, None]
        counts = np.bincount(draws.reshape(-1), minlength=BOOTSTRAPS * count).reshape(BOOTSTRAPS, count)
        return peaks(self._lags, counts @ self._scores / count)[0]

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % of the draws."""
        low, high = (float(percentile(self._draws, share)) for share in (2.5, 97.5))
        return low, high

    @cached_property
    def near(self) -> float:
        """Share of draws that are within a row of the lag."""
        return float((np.abs(self._draws - self.lag) <= 1.0).mean())


def estimate_lag(traces: Sequence[MotionTrace], reach: int) -> LagEstimate | None:
    """Explain the energy of each episode by joint speeds, weights fitted on the other folds; None without any fit.

    energy[t + lag] is compared with speeds[t]: a positive lag is an image that is late. Cost: 0.2 ms per lag of ten
    episodes and 14 columns.
    """
    width = max(t.speeds.shape[1] for t in traces)
    usable = [t for t in traces if t.speeds.shape[1] == width and len(t.energy) > 2 * reach + 8]
    if len(usable) < FOLDS:
        return None
    lags, overlaps = range(-reach, reach + 1), [Overlaps(t, reach) for t in usable]
    at_once = max(1, MAX_NUMBERS // (len(usable) * width**2))
    blocks = [slice(low, min(low + at_once, len(lags))) for low in range(0, len(lags), at_once)]
    return LagEstimate(lags, np.concatenate([_scores(overlaps, block) for block in blocks], axis=1))


def _scores(overlaps: Sequence[Overlaps], lags: slice) -> Floats:
    """float64 [episodes, lags]: correlation of each episode at every lag, by the weights of the other folds."""
    grams = np.stack([o.grams(lags) for o in overlaps])
    moments = np.stack([o.moments[lags] for o in overlaps])
    folds = np.arange(len(overlaps)) % FOLDS
    others = [folds != fold for fold in range(FOLDS)]
    left = np.stack([grams[other].sum(axis=0) for other in others])
    right = np.stack([moments[other].sum(axis=0) for other in others])
    shape = right.shape
    fitted = non_negative_fits(left.reshape(-1, *left.shape[2:]), right.reshape(-1, shape[2])).reshape(shape)[folds]
    explained = ((grams @ fitted[..., None])[..., 0] * fitted).sum(axis=2)
    scale = np.sqrt(np.maximum(explained, 0.0) * np.stack([o.squares[lags] for o in overlaps]))
    covered = (moments * fitted).sum(axis=2)
    found: Floats = np.divide(covered, scale, out=np.zeros_like(scale), where=scale > 1e-12)
    return found


class Overlaps:
    """Products of an episode's speeds [T, D] and energies [T], each less its mean over the rows of both at a lag.

    All lags of up to `reach` rows share one product of the whole episode, less that of the rows at its ends.
    """

    def __init__(self, trace: MotionTrace, reach: int) -> None:
        speeds, energy = trace.speeds - trace.speeds.mean(axis=0), trace.energy - trace.energy.mean()
        lags = np.arange(-reach, reach + 1)
        first, past = np.maximum(-lags, 0), len(speeds) - np.maximum(lags, 0)
        self._rows = past - first
        sums = running_sums(speeds)
        self._sums = sums[past] - sums[first]
        shown, powers = (running_sums(values) for values in (energy, energy**2))
        seen = shown[past + lags] - shown[first + lags]
        self.squares: Floats = powers[past + lags] - powers[first + lags] - seen**2 / self._rows
        """float64 [lags], of the energy."""
        padded = np.zeros(len(energy) + 2 * reach)
        padded[reach : reach + len(energy)] = energy
        shifts = as_strided(padded, (2 * reach + 1, len(energy)), 2 * padded.strides)
        self.moments: Floats = shifts @ speeds - self._sums * (seen / self._rows)[:, None]
        """float64 [lags, D], of speeds and energy."""
        self._whole = speeds.T @ speeds
        late, early = (running_sums(_outer(end[:reach])) for end in (speeds[::-1], speeds))
        self._ends = np.concatenate([early[:0:-1], late])

    def grams(self, lags: slice = slice(None)) -> Floats:
        """float64 [lags, D, D], of the speeds at these of the lags."""
        found: Floats = self._whole - self._ends[lags] - _outer(self._sums[lags]) / self._rows[lags, None, None]
        return found


def _outer(rows: Floats) -> Floats:
    return rows[:, :, None] * rows[:, None, :]
