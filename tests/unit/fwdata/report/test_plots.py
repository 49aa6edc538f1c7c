"""Plots and tables of the report pages: axes that show what changes, and text that stays readable when narrow."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fwdata.report import Panel, Report
from fwdata.report.images import frames_strip
from fwdata.report.plots import Scale, line_plot, small_multiples


def heights(svg: str) -> float:
    """Units of y that the first line of a drawing spans."""
    points = re.search(r'<path class="line[^"]*" d="M([^"]*)"', svg)
    assert points is not None
    ys = [float(pair.split(" ")[1]) for pair in points[1].split("L")]
    return max(ys) - min(ys)


def test_small_changes_are_flat_unless_the_axis_includes_a_value():
    rates = ([0, 1, 2], [1e-4, 5e-5, 1e-6])
    assert heights(small_multiples("", [Panel("joint", {"": rates})], "")) < 2
    assert heights(small_multiples("", [Panel("learning rate", {"": rates}, includes=(0.0,))], "")) > 60


def test_an_axis_includes_zero_where_it_is_asked_to():
    text = small_multiples("", [Panel("speed", {"": ([0, 1], [80.0, 90.0])}, includes=(0.0,))], "")
    assert ">0</text>" in text


@pytest.mark.parametrize(
    ("low", "high", "labels"), [(0.09, 3, {"0.1", "0.2", "0.5", "1", "2"}), (0.01, 10, {"0.01", "1"})]
)
def test_a_logarithmic_axis_has_several_labels(low: float, high: float, labels: set[str]):
    assert labels <= {label for _, label in Scale(low, high, 0, 1, log=True).ticks(6)}


def test_the_unit_of_y_is_in_the_title_too_since_narrow_windows_hide_the_axis_title():
    assert "(robot units)" in line_plot("joint", {"a": ([0, 1], [0, 1])}, "step", "robot units")


def test_a_strip_of_frames_scrolls_and_a_film_does_not():
    report = Report("x")
    frames = np.zeros((9, 16, 16, 3), np.uint8)
    report.images([(frames_strip(frames), "strip"), (frames_strip(frames[:1]), "one")])
    assert report.html().count('class="strip"') == 1
