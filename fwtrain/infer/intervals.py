"""95 % confidence intervals of success rates, of means over a few seeds, and of paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NORMAL = 1.959964
"""97.5 % quantile of the normal distribution."""
STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
"""97.5 % quantiles of Student's t with 1..10 degrees of freedom."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    """The estimate."""
    low: float
    """Lower bound; not finite where the data bound nothing."""
    high: float
    """Upper bound; not finite where the data bound nothing."""

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference with this interval is distinguishable from none."""
        return self.low > 0 or self.high < 0


def wilson(successes: int, episodes: int) -> Interval:
    """Wilson's interval of a success rate."""
    z, n, rate = NORMAL, episodes, successes / episodes
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(rate, max(centre - half, 0.0), min(centre + half, 1.0))


def mean(values: Sequence[float]) -> Interval:
    """Student's interval of a mean; one value bounds nothing."""
    found, count = np.asarray(values, np.float64), len(values)
    middle = float(found.mean())
    if count < 2:
        return Interval(middle, -math.inf, math.inf)
    half = student(count - 1) * float(found.std(ddof=1)) / math.sqrt(count)
    return Interval(middle, middle - half, middle + half)


def student(freedom: int) -> float:
    """97.5 % quantile of Student's t; beyond the table by the expansion of Abramowitz and Stegun 26.7.5."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z, n = NORMAL, freedom
    return (
        z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )  # fmt: skip


def paired_rates(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> Interval:
    """Difference of two success rates (one - other) on the same episodes, bool [n] each, as pairs.

    Newcombe's score interval for paired proportions (Statistics in Medicine 17, 1998, method 10), which stays wide
    where all or none succeed.
    """
    both, only_one = int((one & other).sum()), int((one & ~other).sum())
    only_other, none = int((~one & other).sum()), int((~one & ~other).sum())
    n = len(one)
    first, second = wilson(both + only_one, n), wilson(both + only_other, n)
    margins = (both + only_one) * (only_other + none) * (both + only_other) * (only_one + none)
    excess = float(both * none - only_one * only_other)
    excess = max(excess - n / 2, 0.0) if excess > 0 else excess
    phi = excess / math.sqrt(margins) if margins else 0.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))

    value = first.value - second.value
    return Interval(
        value,
        value - reach(first.value - first.low, second.high - second.value),
        value + reach(first.high - first.value, second.value - second.low),
    )
