"""Where the episodes of a shared video begin, from times of which some are wrong."""

from __future__ import annotations

import pytest

from converters.lerobot.shared_video import Slot, overlaps, tiling


def slots(*places: tuple[float, int]) -> list[Slot]:
    """Of episodes 0, 1, .. with these (first frame by time, rows), in order of their times."""
    found = [Slot(start, rows, number) for number, (start, rows) in enumerate(places)]
    return sorted(found, key=lambda slot: (slot.start, slot.episode))


@pytest.mark.parametrize(
    ("places", "first"),
    [
        ([(0, 5), (5, 5), (10, 5)], {0: 0, 1: 5, 2: 10}),
        ([(0, 5), (4, 5), (8, 5)], {0: 0, 1: 5, 2: 10}),  # each end counted one frame short
        ([(10, 5), (0, 5), (5, 5)], {1: 0, 2: 5, 0: 10}),  # stored in another order, every time is right
        ([(10, 1), (0, 5), (4.6, 5)], {1: 0, 2: 5, 0: 10}),
        ([(25, 1), (1, 5), (6, 5), (11, 5)], {0: 0, 1: 1, 2: 6, 3: 11}),  # beyond the end: the gap is its place
        ([(0, 5), (40, 5), (10, 5)], {0: 0, 1: 5, 2: 10}),
        ([(0, 5), (5, 5), (31, 5)], {0: 0, 1: 5, 2: 10}),
        ([(9, 1), (1, 1)], {0: 0, 1: 1}),
    ],
)
def test_episodes_that_follow_each_other_are_placed(places, first):
    given = slots(*places)
    found = tiling(given)
    assert found is not None
    assert {slot.episode: int(at) for slot, at in zip(given, found, strict=True)} == first
    assert overlaps(given, "v.mp4", 10) == {}


@pytest.mark.parametrize(
    ("places", "claimed"),
    [
        ([(10, 1), (1, 5), (6, 5), (11, 5)], {0, 2}),  # in another order a time that is off is no hint
        ([(0, 5), (0, 5), (10, 5)], {0, 1}),
        ([(0, 5), (9, 5), (10, 5)], {1, 2}),
    ],
)
def test_episodes_that_claim_the_same_frames_are_named(places, claimed):
    assert tiling(slots(*places)) is None
    assert set(overlaps(slots(*places), "v.mp4", 10)) == claimed
