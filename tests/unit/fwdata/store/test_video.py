"""Cameras kept as recorded video: bytes, colours, whole groups, positions and what reading costs."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
import zarr
from clips import ffmpeg_rgb, moving, write_clip
from fixtures import run_convert, toy_store, tree
from numpy.typing import NDArray
from video_stores import video_manifest, video_store

import fwdata
from fwdata.errors import StoreDamaged
from fwdata.images.video import PacketDecoder
from fwdata.store import video
from fwdata.store.reader import Store
from fwdata.store.verify import verify_store

FRAMES = 40
QUIET_X265 = "log-level=none:pools=1:frame-threads=1"
CODECS = {
    "av1-2": ("libsvtav1", 2, {}),
    "h264-2": ("libx264", 2, {}),
    "h264-12": ("libx264", 12, {}),
    "h264-250": ("libx264", 250, {}),
    "h264-open": ("libx264", 10, {"x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}),
    "hevc-open": ("libx265", 10, {"x265-params": f"{QUIET_X265}:open-gop=1:bframes=3:scenecut=0"}),
    "hevc-closed": ("libx265", 10, {"x265-params": f"{QUIET_X265}:open-gop=0:bframes=3"}),
    "vp9": ("libvpx-vp9", 12, {}),
}


def clip(folder: Path, kind: str, frames: int = FRAMES, **more: object) -> NDArray[np.uint8]:
    """A clip at folder/KIND.mp4; what ffmpeg shows of it."""
    codec, gop, options = CODECS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    write_clip(folder / f"{kind}.mp4", moving(frames), codec, gop=gop, options=options, **more)  # type: ignore[arg-type]
    return ffmpeg_rgb(folder / f"{kind}.mp4")


@pytest.fixture(params=list(CODECS))
def kept(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Store, NDArray[np.uint8]]:
    """A store of two episodes that begin and end inside groups of one shared clip, and the clip's frames."""
    shown = clip(tmp_path / "raw/task", request.param, matrix=1)
    parts = {"a": (f"{request.param}.mp4", range(1, 17)), "b": (f"{request.param}.mp4", range(17, 37))}
    report = video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, parts)
    assert report.quarantined == [] and report.warnings == []
    return fwdata.open(tmp_path / "s.zarr"), shown


def test_every_frame_is_what_ffmpeg_shows(kept: tuple[Store, NDArray[np.uint8]]) -> None:
    store, shown = kept
    assert store.layout_version == 2
    first, second = store.episodes
    assert np.array_equal(first.frames("overhead"), shown[1:17])
    assert np.array_equal(second.frames("wrist"), shown[17:37])
    rng = np.random.default_rng(0)
    for _ in range(8):
        some = rng.integers(0, 20, 5)
        assert np.array_equal(second.frames("overhead", some), shown[17 + some])
    assert verify_store(Path(store.location)).damaged == []


def test_packets_are_the_recorded_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(tmp_path / "raw/task", "h264-12")
    video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, {"a": ("h264-12.mp4", range(FRAMES))})
    with av.open(str(tmp_path / "raw/task/h264-12.mp4")) as container:
        recorded = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    camera = zarr.open_group(str(tmp_path / "s.zarr"), mode="r")["parts/p00000/cameras/overhead"]
    data, offset = np.asarray(camera["data"]), np.asarray(camera["offset"])
    assert [data[a:b].tobytes() for a, b in itertools.pairwise(offset)] == recorded


def count_packets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the packets that readers decode from now on."""
    fed: list[int] = []
    feed = PacketDecoder.feed

    def counting(self: PacketDecoder, data: bytes, rank: int, number: int) -> list[av.VideoFrame]:
        fed.append(number)
        return feed(self, data, rank, number)

    monkeypatch.setattr(PacketDecoder, "feed", counting)
    return fed


@pytest.mark.parametrize("kind", ["h264-250", "hevc-open", "av1-2"])
def test_in_order_every_packet_is_decoded_once_however_it_is_cut(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = clip(tmp_path / "raw/task", kind)
    video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, {"a": (f"{kind}.mp4", range(FRAMES))})
    episode = fwdata.open(tmp_path / "s.zarr").episodes[0]
    fed = count_packets(monkeypatch)
    blocks = [episode.frames("overhead", range(low, min(low + 7, FRAMES))) for low in range(0, FRAMES, 7)]
    assert np.array_equal(np.concatenate(blocks), shown)
    assert sorted(fed) == list(range(FRAMES))


def test_a_random_frame_costs_its_group_up_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = clip(tmp_path / "raw/task", "av1-2")
    video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, {"a": ("av1-2.mp4", range(FRAMES))})
    episode = fwdata.open(tmp_path / "s.zarr").episodes[0]
    fed = count_packets(monkeypatch)
    assert np.array_equal(episode.frames("overhead", [31, 5, 31])[0], shown[31])
    assert sorted(fed) == [4, 5, 30, 31]


@pytest.mark.slow
def test_threads_and_processes_have_decoders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = clip(tmp_path / "raw/task", "h264-12")
    video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, {"a": ("h264-12.mp4", range(FRAMES))})
    episode = fwdata.open(tmp_path / "s.zarr").episodes[0]
    users: dict[int, set[int]] = {}
    feed = PacketDecoder.feed

    def noting(self: PacketDecoder, data: bytes, rank: int, number: int) -> list[av.VideoFrame]:
        users.setdefault(id(self), set()).add(threading.get_ident())
        return feed(self, data, rank, number)

    monkeypatch.setattr(PacketDecoder, "feed", noting)

    def read(seed: int) -> bool:
        some = np.random.default_rng(seed).integers(0, FRAMES, 12)
        return np.array_equal(episode.frames("overhead", some), shown[some])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(24)))
    assert users and all(len(threads) == 1 for threads in users.values())  # shared, they crash the process
    assert episode.frames("overhead", [3]).any()  # this process holds a position now
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as processes:
            assert np.array_equal(processes.apply(frame_of, (episode, 20)), shown[20])
    assert np.array_equal(copy.copy(episode).frames("wrist", [7])[0], shown[7])  # as pickling does


def frame_of(episode: fwdata.store.episode.Episode, index: int) -> NDArray[np.uint8]:
    """Read in another process."""
    return episode.frames("overhead", [index])[0]


def test_few_decoders_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(tmp_path / "raw/task", "h264-12")
    video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, {"a": ("h264-12.mp4", range(4))})
    monkeypatch.setattr(video, "MAX_POSITIONS", 1)
    episode = fwdata.open(tmp_path / "s.zarr").episodes[0]
    for camera in ("overhead", "wrist", "overhead"):
        episode.frames(camera, [0])
        assert len(video._kept.positions) == 1


@pytest.mark.slow
def test_same_input_same_bytes_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(tmp_path / "raw/task", "h264-12")
    recordings = {name: ("h264-12.mp4", range(3, 20)) for name in "abcd"}
    video_store(tmp_path / "raw", tmp_path / "one.zarr", monkeypatch, recordings)
    manifest = video_manifest(monkeypatch)
    run_convert(tmp_path / "raw", tmp_path / "two.zarr", manifest, workers=2)
    assert tree(tmp_path / "one.zarr") == tree(tmp_path / "two.zarr")


def test_a_store_of_pixels_has_their_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fwdata.open(toy_store(tmp_path, monkeypatch, {"push": [5]})).layout_version == 3


def test_damage_that_checksums_miss_names_episode_camera_and_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip(tmp_path / "raw/task", "h264-12")
    video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, {"a": ("h264-12.mp4", range(FRAMES))})
    episode = fwdata.open(tmp_path / "s.zarr").episodes[0]
    feed = PacketDecoder.feed

    def damaging(self: PacketDecoder, data: bytes, rank: int, number: int) -> list[av.VideoFrame]:
        return feed(self, data[: len(data) // 4] if number == 14 else data, rank, number)

    monkeypatch.setattr(PacketDecoder, "feed", damaging)
    with pytest.raises(StoreDamaged, match=r"episode task/a, camera overhead, frame 1\d.*libavcodec"):
        episode.frames("overhead", range(12, 20))
    monkeypatch.setattr(PacketDecoder, "feed", feed)
    assert len(episode.frames("overhead", range(12, 20))) == 8  # the decoder was made good again
