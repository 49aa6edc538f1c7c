"""Decoded video frames that are looked at together."""

from __future__ import annotations

import av
import numpy as np
import pytest

from fwdata.evidence import thumbnails
from fwdata.evidence.thumbnails import Collector


@pytest.mark.parametrize(("height", "width"), [(60, 84), (240, 320)])
def test_video_frames_that_are_held_give_what_each_gives_alone(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (31, height, width), np.uint8)
    frames = [av.VideoFrame.from_ndarray(image, "gray").reformat(format="yuv420p") for image in images]
    held = [Collector(light=True, every=3), Collector(light=True, every=3)]
    for frame in frames:
        held[0].add_video(frame)
    monkeypatch.setattr(thumbnails, "HELD_FRAMES", 1)
    for frame in frames:
        held[1].add_video(frame)
    assert held[0].count == held[1].count == len(frames)
    np.testing.assert_array_equal(held[0].take(), held[1].take())
    together, alone = (each.look() for each in held)
    assert together is not None and alone is not None and len(together.prints) == 31
    np.testing.assert_array_equal(together.prints, alone.prints)
    np.testing.assert_array_equal(together.tiles, alone.tiles)
    later = Collector()
    for frame in frames[7:]:  # prints are those of the images, whatever row they are at
        later.add_video(frame)
    look = later.look()
    assert look is not None and set(look.prints.tolist()) == set(together.prints.tolist()) - set(prints_of(frames[:7]))


def prints_of(frames: list[av.VideoFrame]) -> set[int]:
    """The prints of some video frames."""
    taken = Collector()
    for frame in frames:
        taken.add_video(frame)
    look = taken.look()
    assert look is not None
    return set(look.prints.tolist())


def test_video_frames_of_another_size_are_looked_at_apart() -> None:
    taken = Collector()
    for height in (48, 48, 96):
        taken.add_video(av.VideoFrame.from_ndarray(np.full((height, 64), height, np.uint8), "gray"))
    look = taken.look()
    assert look is not None and len(look.prints) == 2 and taken.count == 3
