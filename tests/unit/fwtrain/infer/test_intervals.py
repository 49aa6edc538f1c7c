"""Confidence intervals against published values and their own properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwtrain.infer.intervals import mean, paired_rates, student, wilson


def test_wilson_agrees_with_published_values():
    found = wilson(81, 263)  # Newcombe 1998, Statistics in Medicine 17, table I: 0.2553 to 0.3662
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    found = wilson(0, 20)
    assert (found.value, found.low, found.high) == pytest.approx((0, 0, 0.1611), abs=5e-5)


def pairs(both: int, only_one: int, only_other: int, none: int) -> tuple[np.ndarray, np.ndarray]:
    one = [True] * both + [True] * only_one + [False] * only_other + [False] * none
    other = [True] * both + [False] * only_one + [True] * only_other + [False] * none
    return np.array(one), np.array(other)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, 2635-2650, table III, method 10
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((30, 0, 0, 0), -0.1135, 0.1135),
        ((0, 30, 0, 0), 0.8395, 1.0),
    ],
)
def test_paired_rates_agree_with_published_values(table: tuple[int, ...], low: float, high: float):
    found = paired_rates(*pairs(*table))
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-4)


@pytest.mark.slow
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_paired_rates_hold_the_difference_and_turn_with_the_pair(rows: list[tuple[bool, bool]]):
    one, other = np.array(rows, np.bool_).T
    found, turned = paired_rates(one, other), paired_rates(other, one)
    assert found.low <= found.value <= found.high
    assert found.low < found.high
    assert found.low >= -1 - 1e-12 and found.high <= 1 + 1e-12
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_students_interval():
    found = mean([1.0, 2.0, 3.0])
    assert (found.value, found.high) == pytest.approx((2.0, 2.0 + 4.3027 / math.sqrt(3)))
    assert not found.excludes_zero
    assert mean([1.0]).low == -math.inf and not mean([5.0]).excludes_zero
    assert [student(n) for n in (1, 10, 11, 30, 1000)] == pytest.approx(
        [12.7062, 2.2281, 2.2010, 2.0423, 1.9623], abs=2e-4
    )
