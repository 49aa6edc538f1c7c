"""Videos whose parameter sets change inside: every frame is what decoding the whole file gives, in any order."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import ffmpeg_rgb, moving, write_clip
from joined_clips import FRAMES, GROUP, clip, joined, with_two_descriptions
from numpy.typing import NDArray
from video_stores import video_store

import fwdata
from fwdata.export.remux import plan_videos, write_video


def orders(count: int) -> list[NDArray[np.int64]]:
    """All frames in order, backwards, in two mixed orders, and every second one."""
    mixed = [np.random.default_rng(seed).permutation(count) for seed in (0, 1)]
    return [np.arange(count), np.arange(count)[::-1], *mixed, np.arange(0, count, 2)]


def check(raw: Path, monkeypatch: pytest.MonkeyPatch, episodes: Sequence[range]) -> tuple[fwdata.Store, list[str]]:
    """Convert parts of raw/task/clip.mp4; every frame, one by one and in blocks, must be that of the file."""
    shown, out = ffmpeg_rgb(raw / "task/clip.mp4"), raw.parent / "s.zarr"
    recordings = {f"e{number}": ("clip.mp4", frames) for number, frames in enumerate(episodes)}
    report = video_store(raw, out, monkeypatch, recordings)
    assert report.quarantined == []
    store = fwdata.open(out)
    for episode, frames in zip(store.episodes, episodes, strict=True):
        for order in orders(len(frames)):
            assert np.array_equal(episode.frames("wrist", order), shown[frames][order])
            assert all(np.array_equal(episode.frames("wrist", [row])[0], shown[frames[row]]) for row in order.tolist())
    return store, report.warnings


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize(
    "parts",
    [
        [(0, "first"), (6, "first"), (0, "first")],
        [(0, "first"), (6, "first")],
        [(0, "first"), (6, "all")],
        [(0, "all"), (6, "all")],
    ],
    ids=["there and back", "once", "once, then at all keyframes", "at all keyframes"],
)
def test_sets_that_change_inside_of_the_packets(
    parts: list[tuple[int, str]], codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Episodes: some of the first part, across all, and the end alone, inside of which decoding must not begin."""
    (tmp_path / "raw/task").mkdir(parents=True)
    joined(tmp_path / "raw/task/clip.mp4", codec, parts)
    end = FRAMES * len(parts)
    store, warnings = check(tmp_path / "raw", monkeypatch, [range(2), range(1, end - 1), range(end - 3, end)])
    assert warnings == []
    headers = store.parts[0].record.cameras["wrist"].headers
    assert [header.codec for header in headers] == [{"libx264": "h264", "libx265": "hevc"}[codec]]


def test_mpeg4_whose_layer_changes_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first part's head is in the container alone, the second one's in its keyframes."""
    (tmp_path / "raw/task").mkdir(parents=True)
    one, other = io.BytesIO(), io.BytesIO()
    write_clip(one, moving(FRAMES), "mpeg4", gop=GROUP, fps=10)
    options = {"mpeg_quant": "1", "flags": "+qpel"}
    write_clip(other, moving(FRAMES, seed=1), "mpeg4", gop=GROUP, fps=10, form="m4v", options=options)
    with av.open(io.BytesIO(other.getvalue()), format="m4v") as source:
        later = [bytes(packet) for packet in source.demux(video=0) if packet.size]
    with av.open(io.BytesIO(one.getvalue())) as source, av.open(str(tmp_path / "raw/task/clip.mp4"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        first = [bytes(packet) for packet in source.demux(video=0) if packet.size]
        for number, data in enumerate([*first, *later]):
            packet = av.Packet(data)
            packet.time_base, packet.pts, packet.dts, packet.duration = Fraction(1, 10), number, number, 1
            packet.stream, packet.is_keyframe = stream, number % GROUP == 0
            out.mux(packet)
    check(tmp_path / "raw", monkeypatch, [range(2), range(1, 2 * FRAMES - 1), range(2 * FRAMES - 3, 2 * FRAMES)])


def test_one_description_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw/task").mkdir(parents=True)
    one, other = (clip("libx264", seed, 0, "mp4").getvalue() for seed in (0, 1))
    (tmp_path / "raw/task/clip.mp4").write_bytes(with_two_descriptions(one, other))
    assert check(tmp_path / "raw", monkeypatch, [range(5), range(3, 14)])[1] == []


@pytest.mark.parametrize("sent", ["first", "all"])
def test_an_export_does_not_carry_sets_on_to_the_next_episode(
    sent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both begin with the header's sets; those of the first one's second part hold where it ends."""
    folder = tmp_path / "raw/task"
    folder.mkdir(parents=True)
    joined(folder / "a.mp4", "libx264", [(0, "first"), (6, sent)])
    joined(folder / "b.mp4", "libx264", [(0, "first")], bare=True)
    recordings = {"a": ("a.mp4", range(2 * FRAMES)), "b": ("b.mp4", range(FRAMES)), "c": ("a.mp4", range(FRAMES))}
    assert video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, recordings).quarantined == []
    store = fwdata.open(tmp_path / "s.zarr")
    found = plan_videos(tuple(store.episodes), "wrist")
    assert found is not None and [place.file for place in found.places] == [0, 1, 1]
    for number, file in enumerate(found.files):
        write_video(tmp_path / f"{number}.mp4", file, "wrist", 10, lambda rows: None)
    for episode, place in zip(store.episodes, found.places, strict=True):
        shown = ffmpeg_rgb(tmp_path / f"{place.file}.mp4")[place.first : place.first + place.rows]
        assert np.array_equal(shown, episode.frames("wrist"))
