"""Shared videos (v3.0) that are whole, though their containers or packets look unlike others: read without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import ffmpeg_rgb
from fixtures import run_convert
from lerobot_reading import manifest
from torn_videos import write_set

import fwdata

LENGTHS = (7, 6, 9, 8)
STARTS = np.cumsum([0, *LENGTHS])
PACKET = 188
ADDED = {
    "own box": b"\0\0\0\x0c\xa9xyzabcd",
    "own element": b"\x1a\x2b\x3c\x4d\x84abcd",
    "erased flash": b"\xff" * 300,
    "log lines": b"# uploaded by robot 7\n" * 9,
    "zeros": bytes(3000),
    "part of a packet": b"G\1\0\x10" + bytes(60),
}


def check(raw: Path, path: Path, store: Path) -> None:
    """All is converted without a word about the video, kept as recorded, and shows what FFmpeg does."""
    shown = ffmpeg_rgb(path)
    report = run_convert(raw, store, manifest())
    assert report.quarantined == []
    told = [text for text in report.warnings if "head_rgb" in text or "losslessly" in text]
    assert not [text for text in told if "the first frame is shown at" not in text]  # of streams, rightly
    for episode, start, length in zip(fwdata.open(store).episodes, STARTS, LENGTHS, strict=False):
        assert np.array_equal(episode.frames("head_rgb"), shown[start : start + length])


@pytest.mark.parametrize(
    ("form", "added"),
    [
        ("bare fragments", "own box"),
        ("bare fragments", "erased flash"),
        ("live", "own element"),
        ("live", "log lines"),
        ("ts", "zeros"),
        ("ts", "part of a packet"),
    ],
)
def test_what_is_added_behind_the_last_frame_costs_none(tmp_path: Path, form: str, added: str) -> None:
    raw, path = write_set(tmp_path, LENGTHS, form, "h264")
    with path.open("ab") as file:
        file.write(ADDED[added])
    check(raw, path, tmp_path / "s.zarr")


@pytest.mark.parametrize("kind", ["time stamps", "parity", "begins inside of a packet"])
def test_transport_streams_with_packets_of_another_pitch_are_whole(tmp_path: Path, kind: str) -> None:
    """M2TS has 4 bytes in front of each packet, broadcasts have 16 behind it (ISO 13818-1 annex, ETSI EN 300 429)."""
    raw, path = write_set(tmp_path, LENGTHS, "m2ts" if kind == "time stamps" else "ts", "h264")
    data = path.read_bytes()
    if kind == "parity":
        path.write_bytes(b"".join(data[k : k + PACKET] + b"parity 16 bytes." for k in range(0, len(data), PACKET)))
    elif kind != "time stamps":
        path.write_bytes(data[PACKET - 90 : PACKET] + data)
    check(raw, path, tmp_path / "s.zarr")


def test_a_transport_stream_that_ends_inside_of_a_frame_is_still_cut(tmp_path: Path) -> None:
    raw, path = write_set(tmp_path, LENGTHS, "ts", "h264")
    data = path.read_bytes()
    path.write_bytes(data[: -2 * PACKET] + bytes(2 * PACKET))
    report = run_convert(raw, tmp_path / "s.zarr", manifest())
    assert [source[-1] for source, _ in report.quarantined] == ["3"]


@pytest.mark.parametrize(("form", "pitch"), [("faststart", 32), ("mkv", 32), ("ts", 64)])
def test_packets_that_are_filled_up_with_a_few_zeros_have_no_holes(tmp_path: Path, form: str, pitch: int) -> None:
    """About half of them have so many that they look like the begin of a hole."""

    def filled(data: bytes) -> bytes:
        more, place = -len(data) % pitch, 0
        while (end := place + 4 + int.from_bytes(data[place : place + 4])) < len(data):
            place = end
        return data[:place] + (end - place - 4 + more).to_bytes(4) + data[place + 4 :] + bytes(more)

    raw, path = write_set(
        tmp_path, LENGTHS, form, "h264", change=filled if form != "ts" else lambda d: d + bytes(-len(d) % pitch)
    )
    check(raw, path, tmp_path / "s.zarr")


def test_black_frames_of_raw_video_are_no_holes(tmp_path: Path) -> None:
    raw, path = write_set(tmp_path, LENGTHS, "avi", "raw")
    report = run_convert(raw, tmp_path / "s.zarr", manifest())
    assert report.quarantined == [] and not ffmpeg_rgb(path)[2:4].any()
