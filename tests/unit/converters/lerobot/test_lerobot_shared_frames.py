"""How many frames of videos that share some with their neighbours are before the first row."""

from __future__ import annotations

import numpy as np
import pytest

from converters.lerobot.shared_frames import Cut, frames_before_rows

ROWS = 10


def told(heads: list[int | None], tails: list[int | None]) -> list[int | None]:
    """The answer for every video cut out of one, with so many frames before and behind its rows; None: not there."""
    cuts: dict[int, Cut] = {}
    for place, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        if head is not None and tail is not None:
            frames = np.arange(100 + ROWS * place - head, 100 + ROWS * (place + 1) + tail)
            cuts[place] = Cut(ROWS, frames, begins=True)
    return [frames_before_rows(lambda step, at=place: cuts.get(at + step)) for place in cuts]


@pytest.mark.parametrize(
    ("heads", "tails"),
    [
        ([0, 3, 2, 1], [0, 0, 0, 0]),
        ([0, 3, 3, 3], [0, 0, 0, 0]),
        ([0, 0, 0, 0], [1, 1, 1, 0]),
        ([0, 1, 3, 2], [2, 2, 2, 0]),
        ([0, 4, 0, 4], [0, 1, 1, 0]),
    ],
)
def test_one_answer_is_left_where_an_end_of_the_run_has_no_frames_over(heads, tails):
    assert told(heads, tails) == heads


def test_frames_that_could_be_either_neighbours_tell_nothing():
    assert told([0, 0, 0], [1, 1, 1]) == [None, None, None]
    assert told([2, 2], [0, 0]) == [None, None]


def test_frames_that_no_neighbour_has_tell_nothing():
    assert told([None, 2, 0], [None, 0, 0]) == [None, 0]
    assert told([0, 0, None], [0, 3, None]) == [0, None]


def test_a_video_that_begins_without_a_keyframe_was_not_cut_there():
    whole = np.arange(30)
    cuts = {-1: Cut(10, whole[:10], begins=True), 0: Cut(10, whole[8:20], begins=False)}
    assert frames_before_rows(cuts.get) is None
