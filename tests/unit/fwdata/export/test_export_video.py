"""Export of kept video: packets copied, the same frames through lerobot's reader, resumed after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import ffmpeg_rgb, moving, write_clip
from fixtures import run_convert, tree
from video_stores import video_store

import fwdata
from fwdata.export import kept_videos
from fwdata.export.lerobot import ExportRequest, export_lerobot, plan_export
from fwdata.export.remux import episode_packets
from fwdata.manifest import Manifest, load_manifest

KINDS: dict[str, tuple[str, int, dict[str, str]]] = {
    "av1": ("libsvtav1", 2, {}),
    "h264": ("libx264", 12, {}),
    "h264-open": ("libx264", 10, {"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}),
    "hevc": ("libx265", 10, {"x265-params": "log-level=none:pools=1:frame-threads=1:open-gop=1:bframes=3:scenecut=0"}),
}


def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *more: str) -> fwdata.Store:
    """A store of two episodes that begin inside groups of one clip, and of one episode of every further kind."""
    folder = tmp_path / "raw/task"
    folder.mkdir(parents=True)
    recordings = {"a": (f"{kind}.mp4", range(3, 20)), "b": (f"{kind}.mp4", range(20, 38))}
    for number, name in enumerate((kind, *more)):
        codec, gop, options = KINDS[name]
        write_clip(folder / f"{name}.mp4", moving(40, seed=number), codec, gop=gop, fps=10, options=options)
        recordings |= {f"x{number}": (f"{name}.mp4", range(2, 9))} if number else {}
    report = video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, recordings)
    assert report.quarantined == [] and report.warnings == []
    return fwdata.open(tmp_path / "s.zarr")


def read_back(folder: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Any:
    """The dataset as lerobot opens it, videos decoded by PyAV."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    return LeRobotDataset("local/test", root=folder, video_backend="pyav")


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("av1",), ("h264",), ("h264-open",), ("hevc",), ("h264", "av1")], ids="+".join)
def test_lerobot_reads_the_same_frames(kinds: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path, monkeypatch, *kinds)
    assert [video.camera for video in plan_export(ExportRequest(store, tmp_path / "set")).videos] == list(store.cameras)
    export_lerobot(ExportRequest(store, tmp_path / "set"))
    dataset, row = read_back(tmp_path / "set", monkeypatch, tmp_path / "cache"), 0
    for episode in store.episodes:
        shown = {name: episode.frames(name) for name in store.cameras}
        for frame in range(episode.num_frames):
            item = dataset[row]
            assert int(item["episode_index"]) == episode.index
            for name in store.cameras:
                found = item[f"observation.images.{name}"].numpy().transpose(1, 2, 0) * 255
                assert np.array_equal(found.round().astype(np.uint8), shown[name][frame]), (row, name)
            row += 1
    assert row == len(dataset)
    assert {"overhead", "wrist"} == {key.rsplit(".", 1)[-1] for key in dataset.meta.video_keys}
    stats = dataset.meta.stats["observation.images.wrist"]
    assert stats["mean"].shape == (3, 1, 1) and 0 < stats["mean"].mean() < 1
    assert list(dataset.meta.stats) == sorted(dataset.meta.stats)  # so that two exports have the same bytes
    assert not list(tmp_path.glob(".set*"))


@pytest.mark.slow
def test_frames_that_no_row_has_do_not_keep_an_export_from_being_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two frames behind the last row, as of a group that goes on, looked like two that were lost or added."""
    folder = tmp_path / "raw/task"
    folder.mkdir(parents=True)
    write_clip(folder / "clip.mp4", moving(40), gop=12, fps=10)
    recordings = {"a": ("clip.mp4", range(3, 20)), "b": ("clip.mp4", range(20, 34))}
    video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, recordings)
    store = fwdata.open(tmp_path / "s.zarr")
    export_lerobot(ExportRequest(store, tmp_path / "set"))
    plain = load_manifest("lerobot").model_dump(mode="json")
    cameras = {name: f"observation.images.{name}" for name in store.cameras}
    options = {"cameras": cameras, "state": "observation.state", "action": "action"}
    stitch = {"layout": "horizontal", "cameras": list(cameras), "camera_size": [64, 96], "size": [64, 192]}
    manifest = Manifest.model_validate(
        {**plain, "fps": {"hz": 10}, "cameras": list(cameras), "stitch": stitch, "options": options}
    )
    report = run_convert(tmp_path / "set", tmp_path / "back.zarr", manifest)
    back = fwdata.open(tmp_path / "back.zarr")
    assert report.quarantined == [] and not any("frames" in text for text in report.warnings), report.warnings
    for one, other in zip(store.episodes, back.episodes, strict=True):
        assert all(np.array_equal(one.frames(name), other.frames(name)) for name in store.cameras)


@pytest.mark.slow
def test_packets_are_copied_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path, monkeypatch, "h264")
    export_lerobot(ExportRequest(store, tmp_path / "set"))
    [path] = (tmp_path / "set/videos/observation.images.wrist").rglob("*.mp4")
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 10
        found = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    assert found == [packet.data for episode in store.episodes for packet in episode_packets(episode, "wrist")]


def test_streams_of_other_parameters_begin_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path, monkeypatch, "h264", "hevc", "av1")
    [wrist] = [v for v in plan_export(ExportRequest(store, tmp_path / "set")).videos if v.camera == "wrist"]
    assert [file.header.codec for file in wrist.files] == ["h264", "hevc", "av1"]
    assert [len(file.episodes) for file in wrist.files] == [2, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_videos_of_one_encoder_share_a_file_whatever_their_bit_rates(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "raw/task"
    folder.mkdir(parents=True)
    clips = {
        name: np.where(np.arange(24)[:, None, None, None] < calm, 90, moving(24))
        for name, calm in (("a", 0), ("b", 20))
    }
    for name, frames in clips.items():
        write_clip(folder / f"{name}.mp4", frames.astype(np.uint8), codec, gop=8, fps=10)
    video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, {n: (f"{n}.mp4", range(24)) for n in clips})
    store = fwdata.open(tmp_path / "s.zarr")
    request = ExportRequest(store, tmp_path / "set")
    [wrist] = [v for v in plan_export(request).videos if v.camera == "wrist"]
    assert [len(file.episodes) for file in wrist.files] == [2]
    export_lerobot(request)
    [path] = (tmp_path / "set/videos/observation.images.wrist").rglob("*.mp4")
    assert np.array_equal(ffmpeg_rgb(path), np.concatenate([e.frames("wrist") for e in store.episodes]))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["write_video", "_add_to_episodes", "_add_to_statistics"])
def test_a_killed_export_keeps_the_videos_it_has_copied(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path, monkeypatch, "h264")
    export_lerobot(ExportRequest(store, tmp_path / "whole"))
    work: Callable[..., None] = getattr(kept_videos, where)
    calls = 0

    def dying(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == (2 if where == "write_video" else 1):
            raise KeyboardInterrupt
        work(*arguments)

    monkeypatch.setattr(kept_videos, where, dying)
    with pytest.raises(KeyboardInterrupt):
        export_lerobot(ExportRequest(store, tmp_path / "set"))
    assert not (tmp_path / "set").exists()
    monkeypatch.setattr(kept_videos, where, work)
    written: list[Path] = []
    write = kept_videos.write_video

    def noting(path: Path, *arguments: Any) -> None:
        written.append(path)
        write(path, *arguments)

    monkeypatch.setattr(kept_videos, "write_video", noting)
    export_lerobot(ExportRequest(store, tmp_path / "set"))
    assert len(written) == (1 if where == "write_video" else 0)
    videos = {name: digest for name, digest in tree(tmp_path / "whole").items() if name.startswith("videos")}
    assert len(videos) == 2 and videos.items() <= tree(tmp_path / "set").items()
    assert not list(tmp_path.glob(".set*"))


@pytest.mark.slow
def test_an_export_killed_at_any_rename_of_its_end_leaves_nothing_when_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path, monkeypatch, "h264")
    export_lerobot(ExportRequest(store, tmp_path / "whole"))
    rename, kills = Path.rename, 0
    for moment in range(20):  # renames of the dataset's folders, and of the whole
        calls = 0

        def dying(path: Path, target: Path, moment: int = moment) -> Path:
            nonlocal calls
            if ".set.export" in path.parts or path.name == ".set.export":
                calls += path.suffix != ".mp4" and not path.name.endswith(".tmp")
                if calls == moment + 1:
                    raise KeyboardInterrupt
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", dying)
        try:
            export_lerobot(ExportRequest(store, tmp_path / "set"))
        except KeyboardInterrupt:
            kills += 1
            assert not (tmp_path / "set").exists()
            continue
        break
    assert kills == 4  # data, meta, videos, and the folder itself
    assert {path.name for path in tmp_path.glob("*set*")} == {"set"}
    whole, found = tree(tmp_path / "whole"), tree(tmp_path / "set")
    assert whole.keys() == found.keys() and {name for name in whole if whole[name] != found[name]} <= {"meta/info.json"}


@pytest.mark.slow
def test_videos_of_another_export_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path, monkeypatch, "h264")
    request = ExportRequest(store, tmp_path / "set")
    plan = plan_export(request)
    folder = tmp_path / ".set.export/.videos"
    kept_videos.write_videos(folder, plan.videos, 10, {"fingerprint": "another"}, lambda rows: None)
    for path in folder.rglob("*.mp4"):
        path.write_bytes(b"not this one")
    export_lerobot(request)
    assert all(path.stat().st_size > 1000 for path in (tmp_path / "set").rglob("*.mp4"))


def test_rows_that_skip_frames_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, monkeypatch, "h264")
    shutil.rmtree(tmp_path / "s.zarr")
    video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, {"a": ("h264.mp4", range(0, 12, 2))})
    plan = plan_export(ExportRequest(fwdata.open(tmp_path / "s.zarr"), tmp_path / "set"))
    assert plan.videos == () and "lossy video" in plan.decisions[-1]
