"""Grippers that are brought to 0 .. 1."""

from __future__ import annotations

import numpy as np
import pytest

from converters.shared.gripper_unit import to_unit
from fwdata.api import BadEpisode

SWEEP = np.linspace(0, 1, 101)[:, None]


@pytest.mark.parametrize(("values", "top"), [(SWEEP * 108, 100.0), (SWEEP * 104 - 4, 100.0), (SWEEP * 1.05, 1.0)])
def test_a_gripper_that_overshoots_is_cut(values: np.ndarray, top: float) -> None:
    assert np.array_equal(to_unit(values, top), np.clip(values / top, 0, 1))


def test_single_wrong_readings_are_cut() -> None:
    values = SWEEP * 100
    values[50] = 250
    assert to_unit(values, 100.0)[50] == 1


@pytest.mark.parametrize(("values", "top"), [(SWEEP * 255, 100.0), (SWEEP * 1.485, 1.0), (SWEEP * 200 - 100, 100.0)])
def test_another_scale_is_refused(values: np.ndarray, top: float) -> None:
    with pytest.raises(BadEpisode, match=r"would cut off those of \d+% of the rows"):
        to_unit(values, top)
