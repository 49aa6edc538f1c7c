"""Small images of decoded video frames, of which light detectors' are some pixels of each."""

from __future__ import annotations

import zlib

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from fwdata.evidence.image_memory import ImageMemory
from fwdata.evidence.looks import packet_print
from fwdata.evidence.sampled import BATCH, Sampler
from fwdata.evidence.thumbnails import Collector


def frames_of(images: NDArray[np.uint8], form: str) -> list[av.VideoFrame]:
    """Grey images as video frames of a pixel format."""
    return [av.VideoFrame.from_ndarray(image, "gray").reformat(format=form) for image in images]


def taken_of(frames: list[av.VideoFrame], light: bool) -> NDArray[np.uint8]:
    """What is taken of every third frame."""
    taken = Collector(light, every=3)
    for frame in frames:
        taken.add_video(frame)
    assert taken.count == len(frames)
    return taken.take()


@pytest.mark.parametrize("form", ["yuv420p", "yuvj420p", "yuv444p", "nv12", "gray", "yuv420p10le"])
@pytest.mark.parametrize("size", [(60, 84), (240, 320), (246, 330), (480, 640)])
def test_pixels_of_a_frame_show_what_its_average_shows(form: str, size: tuple[int, int]) -> None:
    """Of any format, and from its first frame to its last."""
    count = 3 * BATCH + 7
    down, across, time = np.ogrid[: size[0], : size[1], :count]
    moving = 128 + 127 * np.sin(down / size[0] * 6 + time / 5) * np.cos(across / size[1] * 4)
    frames = frames_of(np.moveaxis(moving, 2, 0).astype(np.uint8), form)
    sampled, averaged = taken_of(frames, light=True), taken_of(frames, light=False)
    assert len(sampled) == len(averaged) == -(-count // 3)
    assert 24 <= sampled.shape[1] <= averaged.shape[1] and 32 <= sampled.shape[2] <= averaged.shape[2]
    for statistic in (np.mean, np.std, np.max):
        found, expected = (statistic(images, axis=(1, 2)) for images in (sampled, averaged))
        np.testing.assert_allclose(found, expected, atol=4)


@pytest.mark.parametrize("light", [False, True])
def test_black_and_white_are_0_and_255_in_either_range(light: bool) -> None:
    """Also of a camera that comes after one of the other range."""
    images = np.repeat(np.array([0, 255], np.uint8), 3)[:, None, None].repeat(240, axis=1).repeat(320, axis=2)
    for form in ("yuv420p", "yuvj420p", "yuv420p"):
        dark, bright = taken_of(frames_of(images, form), light)
        assert dark.max() <= 1 and bright.min() >= 254


def test_frames_of_full_range_that_only_their_tag_tells_keep_their_levels() -> None:
    frames = frames_of(np.full((1, 240, 320), 90, np.uint8), "yuvj420p")
    plain = av.VideoFrame.from_ndarray(frames[0].to_ndarray(), "yuv420p")
    for color_range, level in ((2, 90), (1, round((90 - 16) * 255 / 219))):
        plain.color_range = color_range
        assert set(np.unique(taken_of([plain], light=True))) == {level}


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


def frames_of_heights(*heights: int) -> list[av.VideoFrame]:
    return [av.VideoFrame.from_ndarray(np.full((height, 64), height, np.uint8), "gray") for height in heights]


def test_video_frames_of_another_size_are_looked_at_apart() -> None:
    sampler = Sampler()
    blocks = [block for frame in frames_of_heights(48, 48, 96) for block in sampler.add(frame)]
    assert [image.mean() for block in [*blocks, *sampler.take()] for image in block] == [48, 48, 96]


@pytest.mark.parametrize("light", [False, True])
def test_small_images_of_two_sizes_are_no_sequence(light: bool) -> None:
    """Until the next pass."""
    taken = Collector(light)
    for frame in frames_of_heights(48, 48, 96, 48):
        taken.add_video(frame)
    assert taken.count == 4
    with pytest.raises(ValueError, match=r"small images of \d+x\d+ and of \d+x\d+ pixels"):
        taken.take()
    taken.clear()
    for frame in frames_of_heights(96, 96):
        taken.add_video(frame)
    assert taken.take().mean(axis=(1, 2)).tolist() == [96, 96]


def test_memory_that_is_used_again_shows_the_images_of_the_last_pass_alone() -> None:
    memory, images = ImageMemory(), np.arange(3 * 48 * 64, dtype=np.uint8).reshape(3, 48, 64)
    for count in (2, 3, 1):
        taken = Collector(memory=memory)
        taken.add_rgb(np.repeat(images[:count, :, :, None], 3, axis=3))
        np.testing.assert_array_equal(taken.take(), images[:count])
    memory.clear()
    assert memory.take().shape == (0, 1, 1)
    many = np.broadcast_to(images[:1], (3000, 48, 64))  # more than fits at first
    memory.add(images)
    memory.add(many)
    np.testing.assert_array_equal(memory.take()[:3], images)
    assert len(memory.take()) == 3003 and (memory.take()[3:] == images[0]).all()
