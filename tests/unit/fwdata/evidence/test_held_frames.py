"""Decoded video frames that are looked at together."""

from __future__ import annotations

import zlib

import av
import numpy as np
import pytest

from fwdata.evidence import thumbnails
from fwdata.evidence.looks import packet_print
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
    assert together is not None and alone is not None
    np.testing.assert_array_equal(together.tiles, alone.tiles)


def test_the_colours_are_those_of_the_frame_that_the_first_row_shows() -> None:
    frames = [av.VideoFrame.from_ndarray(np.full((48, 64), 40 * n, np.uint8), "gray") for n in range(6)]
    for first in (0, 4, 5):
        taken = Collector(light=True, every=3)
        taken.clear(first)
        for frame in frames:
            taken.add_video(frame)
        look = taken.look()
        assert look is not None and abs(int(look.tiles[0, 0, 0]) - 40 * first) <= 1


def test_prints_of_video_are_those_of_packets_that_tell_something() -> None:
    taken = Collector()
    taken.add_video(av.VideoFrame.from_ndarray(np.zeros((48, 64), np.uint8), "gray"))
    coded = [bytes([n]) * 500 for n in range(12)]
    taken.add_prints(packet_print(data) for data in [*coded, *coded[:4], b"nothing moved", b""])
    look = taken.look()
    assert look is not None and sorted(look.prints) == sorted(zlib.crc32(data) for data in coded)


def test_video_frames_of_another_size_are_looked_at_apart() -> None:
    taken = Collector()
    for height in (48, 48, 96):
        taken.add_video(av.VideoFrame.from_ndarray(np.full((height, 64), height, np.uint8), "gray"))
    assert taken.count == 3
    taken._look_at_held()
    assert [block.shape[1] for block in taken._blocks] == [48, 48, 96]
