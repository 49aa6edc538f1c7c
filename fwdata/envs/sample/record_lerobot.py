"""Sample recordings as a LeRobot dataset, v2.1, with RoboTwin's features as they are published in that format.

    <out>/meta/{info.json,episodes.jsonl,tasks.jsonl}    data/chunk-000/episode_{N:06d}.parquet

A row is (state of frame t, drive targets of frame t + 1), images are JPEG streams in the rows. Read it back with
`fwdata convert lerobot OUT --manifest lerobot-robotwin`. Source: lerobot's dataset format v2.1, and the RoboTwin sets
published in it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from fwdata.envs.base import Observation
from fwdata.envs.sample.env import SampleEnv, expert_rollout
from fwdata.envs.sample.request import SampleReport, begin_folder, check_request, write_recording
from fwdata.envs.sample.tasks import TASKS

FPS = 15
"""The label that published sets carry for 16.7 Hz rows."""
CHUNK = 1000
DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
CAMERAS = {"head_camera": "cam_high", "left_camera": "cam_left_wrist", "right_camera": "cam_right_wrist"}


def write_lerobot(out: Path, episodes: int, seed: int = 0, *, camera_size: tuple[int, int] = (48, 64)) -> SampleReport:
    """Write expert recordings as one dataset; see `write_sample`. Finished episodes of the same seed are kept; a folder
    with another dataset is refused with UsageError. The dataset is complete when meta/info.json is there."""
    check_request(out, episodes, seed, camera_size)
    begin_folder(out, seed, camera_size)
    env = SampleEnv("robotwin", pixels=camera_size)
    lengths, size, written, start = [], 0, 0, 0
    for episode in range(episodes):
        path = out / DATA.format(episode_chunk=episode // CHUNK, episode_index=episode)
        if not path.is_file():
            rows = _rows(expert_rollout(env, seed, episode, "record"), episode, start)
            buffer = io.BytesIO()
            pq.write_table(rows, buffer)
            write_recording(path, buffer.getvalue())
            written += 1
        lengths.append(pq.read_metadata(path).num_rows)
        start += lengths[-1]
        size += path.stat().st_size
    _write_meta(out, lengths, camera_size)
    return SampleReport("lerobot", out, episodes, sum(lengths), size, written)


def _rows(seen: list[Observation], episode: int, start: int) -> pa.Table:
    length = len(seen) - 1
    states = np.stack([item.state for item in seen]).astype(np.float32)
    columns: dict[str, pa.Array] = {
        key: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), states.shape[1])
        for key, values in (("observation.state", states[:-1]), ("action", states[1:]))
    }
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for camera, name in CAMERAS.items():
        frames = (item.cameras[camera] for item in seen[:-1])
        streams = [simplejpeg.encode_jpeg(np.ascontiguousarray(f), quality=95, colorspace="RGB") for f in frames]
        paths = (f"frame_{number:06d}.jpg" for number in range(length))
        cells = [{"bytes": bytes(stream), "path": path} for stream, path in zip(streams, paths, strict=True)]
        columns[f"observation.images.{name}"] = pa.array(cells, cell)
    numbers: tuple[tuple[str, Iterable[int]], ...] = (
        ("frame_index", range(length)),
        ("episode_index", [episode] * length),
        ("index", range(start, start + length)),
        ("task_index", [episode % len(TASKS)] * length),
    )
    columns |= {key: pa.array(list(values), pa.int64()) for key, values in numbers}
    columns["timestamp"] = pa.array(np.arange(length) / FPS, pa.float32())
    return pa.table(columns)


def _write_meta(out: Path, lengths: list[int], camera_size: tuple[int, int]) -> None:
    tasks = [task.seen[0] for task in TASKS[: len(lengths)]]
    vector = {"dtype": "float32", "shape": [14], "names": None}
    features: dict[str, object] = {"observation.state": vector, "action": vector}
    for name in CAMERAS.values():
        shape = {"shape": [*camera_size, 3], "names": ["height", "width", "channels"]}
        features[f"observation.images.{name}"] = {"dtype": "image", **shape}
    for key in ("frame_index", "episode_index", "index", "task_index"):
        features[key] = {"dtype": "int64", "shape": [1], "names": None}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    info = {
        "codebase_version": "v2.1", "robot_type": "aloha", "total_episodes": len(lengths),
        "total_frames": sum(lengths), "total_tasks": len(tasks), "total_videos": 0,
        "total_chunks": 1 + (len(lengths) - 1) // CHUNK, "chunks_size": CHUNK, "fps": FPS,
        "splits": {"train": f"0:{len(lengths)}"}, "data_path": DATA, "video_path": None, "features": features,
    }  # fmt: skip
    known = [{"task_index": index, "task": text} for index, text in enumerate(tasks)]
    listed = [
        {"episode_index": index, "tasks": [tasks[index % len(TASKS)]], "length": length}
        for index, length in enumerate(lengths)
    ]
    for name, lines in (("tasks", known), ("episodes", listed)):
        content = "".join(json.dumps(line) + "\n" for line in lines)
        write_recording(out / "meta" / f"{name}.jsonl", content.encode())
    write_recording(out / "meta" / "info.json", (json.dumps(info, indent=1) + "\n").encode())
