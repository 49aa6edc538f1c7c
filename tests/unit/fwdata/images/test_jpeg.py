"""JPEG headers, the colour marker and strict decoding."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DATA
from robotwin_files import encode, picture

from fwdata.images.jpeg import MAX_SIDE, decode_rgb, is_marked_rgb, jpeg_size

ROOT = DATA / "robotwin"
IMAGE = picture("head_camera", 0, (48, 64))
LEGACY, MARKED = encode(IMAGE), encode(IMAGE, marked=True)
COM = b"\xff\xfe\x00\x0aXPL-RGB1"


def probes() -> list[tuple[str, str, dict[str, object]]]:
    episodes = json.loads((ROOT / "expected.json").read_text())["episodes"]
    return [
        (episode["path"], camera, probe)
        for episode in episodes.values()
        for camera, about in episode["cameras"].items()
        for probe in about["first_frame_true_rgb_probes"]
    ]


@pytest.mark.parametrize(("path", "camera", "probe"), probes())
def test_true_colours_of_official_recordings(path, camera, probe):
    with h5py.File(ROOT / path) as file:
        data = bytes(file[f"observation/{camera}/rgb"][0])
    assert not is_marked_rgb(data)
    found = decode_rgb(data, red_blue_swapped=True)[probe["y"], probe["x"]].astype(int)
    assert np.abs(found - probe["rgb"]).max() <= 8


@pytest.mark.parametrize(("data", "swapped"), [(LEGACY, True), (MARKED, False)])
def test_both_kinds_of_stream_give_the_same_true_colours(data, swapped):
    assert is_marked_rgb(data) is not swapped
    decoded = decode_rgb(data, swapped)
    assert decoded.shape == (48, 64, 3) and decoded.dtype == np.uint8
    flat = decoded[40, 4].astype(int)  # orange, away from edges
    assert np.abs(flat - IMAGE[40, 4]).max() <= 3
    wrong = decode_rgb(data, not swapped)
    assert np.array_equal(wrong[..., ::-1], decoded)


def test_size_comes_from_the_header():
    assert jpeg_size(LEGACY) == (48, 64)
    assert jpeg_size(MARKED[:300]) == (48, 64)  # the frame header lies before the cut


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n", "not a JPEG: starts with 89 50 4e 47"),
        (b"\xff\xd8", "without a frame header"),
        (LEGACY[:20], "without a frame header"),
        (LEGACY[:-2], "cannot be decoded"),
        (LEGACY[: len(LEGACY) // 2], "cannot be decoded"),
    ],
)
def test_damaged_buffers_are_refused_with_a_reason(data, reason):
    with pytest.raises(ValueError, match=reason):
        decode_rgb(data)


def test_every_truncation_is_refused():
    for end in range(len(LEGACY)):
        with pytest.raises(ValueError, match=r"JPEG|empty"):
            decode_rgb(LEGACY[:end])


@pytest.mark.parametrize("sides", [(0, 64), (MAX_SIDE + 1, 64), (48, 65535)])
def test_absurd_sizes_are_refused_before_decoding(sides):
    at = LEGACY.index(b"\xff\xc0") + 5
    data = LEGACY[:at] + sides[0].to_bytes(2) + sides[1].to_bytes(2) + LEGACY[at + 4 :]
    with pytest.raises(ValueError, match=f"{sides[0]} x {sides[1]} pixels"):
        decode_rgb(data)


def test_the_marker_inside_compressed_data_or_after_the_scan_does_not_count():
    scan = LEGACY.index(b"\xff\xda")
    assert not is_marked_rgb(LEGACY[: scan + 14] + COM + LEGACY[scan + 14 :])
    assert not is_marked_rgb(LEGACY + COM)
    assert not is_marked_rgb(COM)
    assert not is_marked_rgb(b"")


segments = st.builds(
    lambda marker, payload: bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2) + payload,
    st.sampled_from([0xE0, 0xE1, 0xEF, 0xFE, 0xDB, 0xC4, 0xDD]),
    st.binary(max_size=40).filter(lambda b: b != b"XPL-RGB1"),
)
pieces = st.lists(st.one_of(segments, st.just(b"\xff"), st.sampled_from([b"\xff\x01", b"\xff\xd0"])), max_size=6)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(before=pieces, after=pieces, scan=st.binary(max_size=30))
def test_the_marker_is_found_behind_any_segments_and_only_there(before, after, scan):
    head, tail = b"\xff\xd8" + b"".join(before), b"".join(after) + b"\xff\xda" + scan
    assert is_marked_rgb(head + COM + tail)
    assert not is_marked_rgb(head + tail)
    assert not is_marked_rgb(head + tail + COM)
    assert not is_marked_rgb(head + COM.replace(b"XPL", b"XPM") + tail)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80), start=st.booleans())
def test_any_bytes_give_an_answer_or_a_reason(data, start):
    data = b"\xff\xd8" + data if start else data
    assert is_marked_rgb(data) in (True, False)
    try:
        height, width = jpeg_size(data)
    except ValueError as error:
        assert str(error)
    else:
        assert 0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE


def test_importing_the_module_loads_no_decoder():
    code = "import sys, fwdata.images.jpeg; print([m for m in ('simplejpeg', 'numpy', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "simplejpeg" not in out.stdout and "torch" not in out.stdout


def test_a_buffer_that_was_decoded_before_is_checked_for_its_size_alone() -> None:
    from fwdata.api import EncodedFrame
    from fwdata.store.writer import check_jpeg

    whole = simplejpeg.encode_jpeg(np.full((16, 24, 3), 90, np.uint8))
    damaged = whole[:-40]
    check_jpeg(EncodedFrame(whole), 16, 24)
    check_jpeg(EncodedFrame(damaged, checked=True), 16, 24)
    with pytest.raises(ValueError):
        check_jpeg(EncodedFrame(damaged), 16, 24)
    with pytest.raises(ValueError, match="is 16x24 pixels, the camera's other frames are 24x16"):
        check_jpeg(EncodedFrame(damaged, checked=True), 24, 16)
