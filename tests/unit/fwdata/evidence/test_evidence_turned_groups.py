"""Groups of episodes of one scene that were turned together, told from correlations of all pairs of first images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fwdata.evidence.turned_groups import TurnedGroup, turned_groups

type Scores = NDArray[np.float64]


def scene(sides: list[int]) -> tuple[Scores, Scores]:
    """Correlations of the episodes of one scene as they are and turned: 0.9 one way, 0.2 the other; 0.2 both ways with
    those of no side (0)."""
    side = np.array(sides)
    pairs = side[:, None] * side
    as_is, turned = np.where(pairs == 1, 0.9, 0.2), np.where(pairs == -1, 0.9, 0.2)
    np.fill_diagonal(as_is, -1.0)
    np.fill_diagonal(turned, -1.0)
    return as_is, turned


def groups(as_is: Scores, turned: Scores) -> list[TurnedGroup]:
    return list(turned_groups(as_is, turned, np.arange(len(as_is))))


def set_pair(scores: Scores, one: int, other: int, value: float) -> None:
    scores[one, other] = scores[other, one] = value


def test_the_smaller_side_of_a_scene_is_named() -> None:
    assert groups(*scene([1] * 8 + [-1] * 4)) == [TurnedGroup((8, 9, 10, 11), False, 0.2, 0.9)]
    assert groups(*scene([-1, 1, 1, -1, 1, 1, 1, -1, 1])) == [TurnedGroup((0, 3, 7), False, 0.2, 0.9)]
    assert groups(*scene([1] * 12)) == [] and groups(*scene([1] * 12 + [-1] * 2)) == [], "fewer than three"


def test_of_about_as_many_nothing_tells_which_are_turned() -> None:
    (group,) = groups(*scene([1] * 7 + [-1] * 6))
    assert group.halves and group.places == tuple(range(7, 13))


@pytest.mark.parametrize("alike", [0.72, 0.68])
def test_an_episode_that_is_like_few_others_is_on_the_side_of_all_its_pairs(alike: float) -> None:
    """An arm fills much of the image: episode 0 is upright, and like one of the others alone, which is too little for a
    group of its neighbours to tell; it was named among those upside down."""
    as_is, turned = scene([1] * 8 + [-1] * 4)
    as_is[0, 1:8] = as_is[1:8, 0] = turned[0, 8:] = turned[8:, 0] = 0.6
    set_pair(as_is, 0, 3, alike)
    (group,) = groups(as_is, turned)
    assert group.places == (8, 9, 10, 11)


def test_sides_that_pairs_contradict_are_no_groups() -> None:
    as_is, turned = scene([1] * 8 + [-1] * 4)
    assert len(groups(as_is, turned)) == 1
    for one, other in ((0, 8), (1, 9), (2, 10), (3, 11), (4, 8), (5, 9)):  # alike both ways round, among all pairs
        set_pair(as_is, one, other, 0.9)
        set_pair(turned, one, other, 0.2)
    assert groups(as_is, turned) == []


def test_a_group_that_is_like_few_of_all_episodes_is_chance() -> None:
    """Things on a bare table happen to lie turned against those of some others."""
    assert len(groups(*scene([1] * 8 + [-1] * 4 + [0] * 10))) == 1, "8 of 22"
    assert groups(*scene([1] * 8 + [-1] * 4 + [0] * 18)) == [], "8 of 30"


def test_scenes_are_told_apart() -> None:
    one, other = scene([1] * 6 + [-1] * 3), scene([1] * 7 + [-1] * 4)
    size = 9 + 11
    as_is, turned = np.full((size, size), 0.1), np.full((size, size), 0.1)
    for matrix, first, second in ((as_is, one[0], other[0]), (turned, one[1], other[1])):
        matrix[:9, :9], matrix[9:, 9:] = first, second
    found = {group.places for group in groups(as_is, turned)}
    assert found == {(6, 7, 8), (16, 17, 18, 19)}
