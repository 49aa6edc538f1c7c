"""Adding copied videos to a LeRobot v3.0 dataset that lerobot's writer made without them: files and metadata.

What is added is what lerobot 0.6 writes for a video feature: its entry in meta/info.json, place, times and statistics
in meta/episodes, and the statistics of all episodes in meta/stats.json. Image statistics are taken from the frames that
lerobot samples.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fwdata.export.remux import CameraVideos, count_frames, write_video
from fwdata.io import sync, whole_file, write_atomic
from fwdata.store.episode import StoredEpisode
from fwdata.store.files import canonical_json

VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
"""lerobot's default."""

CHUNK_FILES = 1000
"""Files of one folder, lerobot's default."""

COUNTS = "meta/fwdata_videos.json"
"""Frames of every file, those included that no row has: a converter need not wonder whether some were lost."""

PLAN = "plan.json"
"""What the files beside an unfinished export were made for."""


def key_of(camera: str) -> str:
    """A camera's feature."""
    return f"observation.images.{camera}"


def write_videos(
    folder: Path, videos: Sequence[CameraVideos], fps: int, origin: Mapping[str, Any], on_frames: Callable[[int], None]
) -> None:
    """Write the files of all cameras to `folder`; run again after a kill it keeps those that are whole.

    origin: what the files follow from; files made for another origin are removed.
    """
    plan = {**origin, "files": {v.camera: [len(f.episodes) for f in v.files] for v in videos}, "fps": fps}
    digest = hashlib.sha256(canonical_json(plan)).hexdigest().encode()
    if folder.exists() and (not (folder / PLAN).is_file() or (folder / PLAN).read_bytes() != digest):
        shutil.rmtree(folder)
    write_atomic(folder / PLAN, digest)
    for found in videos:
        for number, file in enumerate(found.files):
            path = folder / _file(found.camera, number)
            if path.is_file():
                on_frames(sum(episode.num_frames for episode in file.episodes))
                continue
            with whole_file(path, suffix=".mp4") as temporary:
                write_video(temporary, file, found.camera, fps, on_frames)
            sync(path.parent)


def _file(camera: str, number: int) -> str:
    chunk, file = divmod(number, CHUNK_FILES)
    return VIDEO_PATH.format(video_key=key_of(camera), chunk_index=chunk, file_index=file)


def take_back(folder: Path, dataset: Path) -> None:
    """Undo what `add_videos` moved, before an unfinished dataset is made anew."""
    for path in sorted((dataset / "videos").glob("*/chunk-*/*.mp4")):
        back = folder / path.relative_to(dataset)
        if (folder / PLAN).is_file() and not back.exists():
            back.parent.mkdir(parents=True, exist_ok=True)
            path.rename(back)


def add_videos(
    dataset: Path, folder: Path, videos: Sequence[CameraVideos], episodes: Sequence[StoredEpisode], fps: int
) -> None:
    """Move the files into the dataset and name them in its metadata."""
    for found in videos:
        for number in range(len(found.files)):
            path = dataset / _file(found.camera, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            (folder / _file(found.camera, number)).rename(path)
    counts = {_file(v.camera, n): count_frames(file, v.camera) for v in videos for n, file in enumerate(v.files)}
    (dataset / COUNTS).write_bytes(canonical_json(counts))
    statistics = [{key_of(v.camera): _statistics(episode, v.camera) for v in videos} for episode in episodes]
    _add_to_episodes(dataset, videos, statistics, fps)
    _add_to_info(dataset, videos, episodes[0])
    _add_to_statistics(dataset, statistics)


def _statistics(episode: StoredEpisode, camera: str) -> dict[str, np.ndarray[Any, Any]]:
    """Per channel over sampled frames, values of 0 .. 1, as lerobot's `compute_episode_stats`."""
    from lerobot.datasets.compute_stats import auto_downsample_height_width, get_feature_stats, sample_indices

    frames = episode.frames(camera, sample_indices(episode.num_frames)).transpose(0, 3, 1, 2)
    small = np.stack([auto_downsample_height_width(frame) for frame in frames])
    found: dict[str, np.ndarray[Any, Any]] = get_feature_stats(small, axis=(0, 2, 3), keepdims=True)
    return {key: value if key == "count" else np.squeeze(value / 255.0, axis=0) for key, value in found.items()}


def _add_to_episodes(
    dataset: Path, videos: Sequence[CameraVideos], statistics: Sequence[Mapping[str, Any]], fps: int
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in sorted((dataset / "meta/episodes").glob("chunk-*/*.parquet")):
        table = pq.read_table(path)
        rows = [int(index) for index in table["episode_index"].to_pylist()]
        for found in videos:
            key = key_of(found.camera)
            places = [found.places[row] for row in rows]
            columns: dict[str, list[Any]] = {
                f"videos/{key}/chunk_index": [place.file // CHUNK_FILES for place in places],
                f"videos/{key}/file_index": [place.file % CHUNK_FILES for place in places],
                f"videos/{key}/from_timestamp": [place.first / fps for place in places],
                f"videos/{key}/to_timestamp": [(place.first + place.rows) / fps for place in places],
            }
            for name in statistics[0][key]:
                columns[f"stats/{key}/{name}"] = [statistics[row][key][name].tolist() for row in rows]
            for name, values in columns.items():
                table = table.append_column(name, pa.array(values))
        pq.write_table(table, path)


def _add_to_info(dataset: Path, videos: Sequence[CameraVideos], first: StoredEpisode) -> None:
    from lerobot.datasets.video_utils import get_video_info

    path = dataset / "meta/info.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    info["video_path"] = info.get("video_path") or VIDEO_PATH
    for found in videos:
        height, width = first.details.metadata.camera_sizes[found.camera]
        info["features"][key_of(found.camera)] = {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": get_video_info(dataset / _file(found.camera, 0)),
        }
    path.write_text(json.dumps(info, indent=4, ensure_ascii=False), encoding="utf-8")


def _add_to_statistics(dataset: Path, statistics: Sequence[Mapping[str, Any]]) -> None:
    from lerobot.datasets.compute_stats import aggregate_stats

    path = dataset / "meta/stats.json"
    stats = json.loads(path.read_text(encoding="utf-8"))
    for key, found in aggregate_stats(list(statistics)).items():
        stats[key] = {name: np.asarray(value).tolist() for name, value in found.items()}
    path.write_text(json.dumps(stats, indent=4, sort_keys=True), encoding="utf-8")
