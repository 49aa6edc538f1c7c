"""Colours of decoded video: what ffmpeg shows, whatever a file's tags are."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from clips import ffmpeg_rgb, moving, write_clip
from numpy.typing import NDArray

from fwdata.images.colour import FULL_RANGE, ToRgb, colour_version, tags_of


def shown(data: io.BytesIO) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[int, int]]:
    """(ours, PyAV's own, tags of the first frame)."""
    to_rgb = ToRgb()
    with av.open(io.BytesIO(data.getvalue())) as container:
        frames = list(container.decode(video=0))
    plain = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    return np.stack([to_rgb(frame) for frame in frames]), plain, tags_of(frames[0])


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize("matrix", [2, 1, 5, 6, 7, 9])
def test_colours_are_those_of_ffmpeg(codec: str, matrix: int, color_range: int) -> None:
    data = io.BytesIO()
    write_clip(data, moving(2), codec, matrix=matrix, color_range=color_range)
    ours, plain, tags = shown(data)
    assert np.array_equal(ours, ffmpeg_rgb(data))
    assert (tags[1] == FULL_RANGE) == (color_range == 2)
    if matrix == 1:
        assert np.abs(ours.astype(int) - plain).max() >= 20


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("libx264rgb", "rgb24"), ("libx264", "yuv444p"), ("libx264", "yuv422p"), ("libx264", "yuv420p10le")],
)
def test_other_pixel_formats_are_converted_as_by_ffmpeg(codec: str, pix_fmt: str) -> None:
    data = io.BytesIO()
    write_clip(data, moving(2, (50, 70)), codec, pix_fmt=pix_fmt, matrix=1 if pix_fmt != "rgb24" else 0)
    ours, _, _ = shown(data)
    assert np.array_equal(ours, ffmpeg_rgb(data))


@pytest.mark.parametrize("color_range", [0, 1, 2])
def test_deep_gray_is_of_full_range_whatever_its_tag(color_range: int) -> None:
    """By FFV1: x265 leaves parts of monochrome video unset, which then cannot be muxed."""
    data = io.BytesIO()
    write_clip(data, moving(2), "ffv1", pix_fmt="gray10le", color_range=color_range, form="matroska")
    ours, _, _ = shown(data)
    assert np.array_equal(ours, ffmpeg_rgb(data))


def test_only_latents_of_deep_gray_have_another_identity() -> None:
    assert [colour_version([name]) for name in ("yuv420p", "gray", "yuv420p10le", "gray10le")] == [1, 1, 1, 2]


def test_tags_of_the_container_win_over_the_frames_own() -> None:
    data = io.BytesIO()
    write_clip(data, moving(1), matrix=2)
    with av.open(io.BytesIO(data.getvalue())) as container:
        frame = next(container.decode(video=0))
    told = ToRgb()(frame, (1, FULL_RANGE))
    assert np.abs(told.astype(int) - ToRgb()(frame)).max() > 10
