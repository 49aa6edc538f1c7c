"""Files of copied packets, without lerobot: every kind of kept video, and readers that seek to keyframes."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from clips import ffmpeg_rgb, moving, write_clip
from fixtures import run_convert
from lerobot_files import Recipe, write_dataset
from lerobot_reading import manifest
from video_stores import video_manifest, write_recording

import fwdata
from fwdata.export.remux import plan_videos, write_video
from fwdata.pipeline.results import ConvertReport

FPS = 10
SPANS = {"a": range(3, 20), "b": range(20, 30)}
OPEN = {"x265-params": "log-level=none:pools=1:frame-threads=1:open-gop=1:bframes=4:scenecut=0"}


def stored(folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[fwdata.Store, ConvertReport]:
    """Two episodes that begin inside groups of a clip."""
    for name, span in SPANS.items():
        write_recording(clip.parent, name, clip.name, span)
    report = run_convert(clip.parents[1], folder / "s.zarr", video_manifest(monkeypatch))
    assert report.quarantined == []
    return fwdata.open(folder / "s.zarr"), report


def exported(store: fwdata.Store, folder: Path) -> list[tuple[Path, int]]:
    """The file of each episode, and its first frame there."""
    camera = store.cameras[-1]
    found = plan_videos(store.episodes, camera)
    assert found is not None
    for number, file in enumerate(found.files):
        write_video(folder / f"{number}.mp4", file, camera, FPS, lambda rows: None)
    return [(folder / f"{place.file}.mp4", place.first) for place in found.places]


def clip_at(folder: Path, suffix: str) -> Path:
    (folder / "raw/task").mkdir(parents=True)
    return folder / f"raw/task/clip{suffix}"


@pytest.mark.parametrize(
    ("codec", "suffix", "form", "pix_fmt"),
    [
        ("libvpx-vp9", ".webm", "webm", "yuv444p"),
        ("mpeg4", ".mp4", "mp4", "yuv420p"),
        ("libx264", ".ts", "mpegts", "yuv420p"),
        ("libx265", ".ts", "mpegts", "yuv420p"),
        ("libx264", ".mp4", "mp4", "yuv420p10le"),
        ("libsvtav1", ".mkv", "matroska", "yuv420p"),
    ],
)
def test_copied_packets_of_every_kind_decode_to_the_same_frames(
    codec: str, suffix: str, form: str, pix_fmt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clip_at(tmp_path, suffix)
    write_clip(clip, moving(32), codec, gop=7, fps=FPS, form=form, pix_fmt=pix_fmt, matrix=1, color_range=1)
    store, report = stored(tmp_path, clip, monkeypatch)
    assert report.warnings == []
    for episode, (path, first) in zip(store.episodes, exported(store, tmp_path), strict=True):
        shown = ffmpeg_rgb(path)[first : first + episode.num_frames]
        assert np.array_equal(shown, episode.frames("wrist"))


@pytest.mark.parametrize(("codec", "pix_fmt"), [("mjpeg", "yuvj420p"), ("png", "rgb24")])
def test_frames_that_were_coded_again_are_copied_without_loss(codec: str, pix_fmt: str, tmp_path: Path) -> None:
    recipe = Recipe(version="v3.0", lengths=(9, 5), size=(64, 96))
    raw = write_dataset(tmp_path / "set", recipe)
    for path in raw.rglob("*.mp4"):
        write_clip(path, moving(14), codec, fps=15, pix_fmt=pix_fmt, color_range=2)
    assert run_convert(raw, tmp_path / "s.zarr", manifest()).quarantined == []
    store = fwdata.open(tmp_path / "s.zarr")
    for episode, (path, first) in zip(store.episodes, exported(store, tmp_path), strict=True):
        shown = ffmpeg_rgb(path)[first : first + episode.num_frames]
        assert np.array_equal(shown, episode.frames(store.cameras[-1]))


def test_every_frame_of_open_groups_is_found_by_readers_that_seek(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that are shown before the keyframe of their group cannot be decoded from it."""
    clip = clip_at(tmp_path, ".mp4")
    write_clip(clip, moving(32), "libx265", gop=8, fps=FPS, options={"preset": "medium", **OPEN})
    store, _ = stored(tmp_path, clip, monkeypatch)
    for episode, (path, first) in zip(store.episodes, exported(store, tmp_path), strict=True):
        for row, wanted in enumerate(episode.frames("wrist")):
            assert np.array_equal(sought(path, (first + row) / FPS), wanted), row


def sought(path: Path, time: float) -> np.ndarray:
    """The frame at a time as lerobot's PyAV reader finds it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(int(time * av.time_base), backward=True)
        frames = [frame for frame in container.decode(stream) if frame.pts is not None]
        return min(frames, key=lambda f: abs(float(f.pts * stream.time_base) - time)).to_ndarray(format="rgb24")
