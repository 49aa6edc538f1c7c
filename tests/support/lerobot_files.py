"""Writes small LeRobot datasets, v2.x and v3.0, with lossless video so that every pixel and row can be checked."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

R1LITE = {
    **{f"observation.state.{side}_{part}": n for side in ("left", "right") for part, n in (("arm", 6), ("gripper", 1))},
    **{f"action.{side}_{part}": n for side in ("left", "right") for part, n in (("arm", 6), ("gripper", 1))},
}
R1LITE_CAMERAS = tuple(f"observation.images.{name}" for name in ("head_rgb", "left_wrist_rgb", "right_wrist_rgb"))
ROBOTWIN_CAMERAS = tuple(f"observation.images.{name}" for name in ("cam_high", "cam_left_wrist", "cam_right_wrist"))
LIBERO_CAMERAS = ("observation.images.image", "observation.images.wrist_image")
V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V3_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V3_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


@dataclass(frozen=True)
class Recipe:
    """A dataset to write. lengths: frames of its episodes. pictures: video, png or jpeg. tasks: text of each episode.

    values: rows instead of the drawn ones, by (key, episode). labels: further index columns by episode.
    """

    version: str = "v2.1"
    fps: float = 15
    robot: str = "r1lite"
    lengths: tuple[int, ...] = (5, 7)
    cameras: tuple[str, ...] = R1LITE_CAMERAS
    pictures: str = "video"
    size: tuple[int, int] = (24, 32)
    vectors: Mapping[str, int] = field(default_factory=lambda: dict(R1LITE))
    names: Mapping[str, object] = field(default_factory=dict)
    table: tuple[str, ...] = ("pick up the cup", "open the drawer")
    tasks: tuple[Sequence[int] | int, ...] = (0, 1)
    labels: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    values: Mapping[tuple[str, int], NDArray[np.float64]] = field(default_factory=dict)


def rows(recipe: Recipe, key: str, episode: int) -> NDArray[np.float64]:
    """The numbers of one feature, [T, n]."""
    if (key, episode) in recipe.values:
        return recipe.values[key, episode]
    rng = np.random.default_rng([zlib.crc32(key.encode()), episode])
    found = rng.normal(size=(recipe.lengths[episode], recipe.vectors[key]))
    return np.abs(found) * 30 + 3 if "gripper" in key else found


def frames(recipe: Recipe, key: str, episode: int) -> NDArray[np.uint8]:
    """The pictures of one camera, uint8 [T, H, W, 3]; every one different, blocky so that JPEG keeps them."""
    rng = np.random.default_rng([zlib.crc32(key.encode()), episode, 1])
    height, width = recipe.size
    cells = rng.integers(0, 256, (recipe.lengths[episode], height // 8, width // 8, 3), np.uint8)
    return cells.repeat(8, 1).repeat(8, 2)


def libero_values(
    lengths: Sequence[int], keys: tuple[str, str] = ("observation.state", "action")
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """State and action as LIBERO's controller makes them: steps move the hand, fingers mirror each other."""
    values = {}
    for episode, length in enumerate(lengths):
        rng = np.random.default_rng([episode, 7])
        steps = np.cumsum(rng.normal(size=(length, 6)), axis=0)
        steps = 0.9 * np.sin(0.3 * steps)
        position = np.array([0.1, 0.0, 0.9]) + 0.02 * np.cumsum(np.vstack([np.zeros(3), steps[:-1, :3]]), axis=0)
        turn = np.array([3.1, 0.05, 0.1]) + 0.01 * np.sin(np.arange(length))[:, None]
        closed = np.arange(length) >= length // 2
        finger = np.where(closed, 0.012, 0.039)[:, None]
        values[keys[0], episode] = np.hstack([position, turn, finger, -finger])
        values[keys[1], episode] = np.hstack([steps, np.where(closed, 1.0, -1.0)[:, None]])
    return values


def write_video(path: Path, pictures: NDArray[np.uint8], fps: float, codec: str = "libx264rgb", gop: int = 2) -> None:
    """One mp4; lossless with the codec's default here. Equal videos are encoded once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    what = (path.suffix, hashlib.sha256(np.ascontiguousarray(pictures)).digest(), pictures.shape, fps, codec, gop)
    if what in _VIDEOS:
        path.write_bytes(_VIDEOS[what])
        return
    lossless = codec == "libx264rgb"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "rgb24" if lossless else "yuv420p"
        stream.gop_size, stream.codec_context.thread_count = gop, 1
        stream.options = {"qp": "0", "preset": "ultrafast"} if lossless else {"libx264": {"mbtree": "0"}}.get(codec, {})
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    _VIDEOS[what] = path.read_bytes()


_VIDEOS: dict[tuple[object, ...], bytes] = {}


def encoded(picture: NDArray[np.uint8], kind: str) -> bytes:
    """One picture of an image feature. Equal ones are encoded once."""
    return _encoded(picture.tobytes(), picture.shape, kind)


@functools.lru_cache(maxsize=4096)
def _encoded(pixels: bytes, shape: tuple[int, ...], kind: str) -> bytes:
    picture = np.frombuffer(pixels, np.uint8).reshape(shape)
    if kind == "jpeg":
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=95, colorspace="RGB"))
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    return buffer.getvalue()


def write_dataset(folder: Path, recipe: Recipe) -> Path:
    """Write a dataset to `folder`, deterministic. Returns it."""
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    shared = recipe.version.startswith("v3")
    tables = [_table(recipe, episode) for episode in range(len(recipe.lengths))]
    if shared:
        write_table(folder / V3_DATA.format(chunk_index=0, file_index=0), pa.concat_tables(tables), group=4)
        _write_meta_v3(folder, recipe)
    else:
        for episode, table in enumerate(tables):
            write_table(folder / V2_DATA.format(episode_chunk=0, episode_index=episode), table)
        _write_meta_v2(folder, recipe)
    write_json(folder / "meta/info.json", _info(recipe))
    for key in recipe.cameras if recipe.pictures == "video" else ():
        shots = [frames(recipe, key, episode) for episode in range(len(recipe.lengths))]
        if shared:
            path = folder / V3_VIDEO.format(video_key=key, chunk_index=0, file_index=0)
            write_video(path, np.concatenate(shots), recipe.fps)
        else:
            for episode, pictures in enumerate(shots):
                path = folder / V2_VIDEO.format(video_key=key, episode_chunk=0, episode_index=episode)
                write_video(path, pictures, recipe.fps)
    return folder


def write_table(path: Path, table: pa.Table, group: int = 1000) -> None:
    """One parquet file; group: rows of a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


def write_json(path: Path, content: object) -> None:
    """One JSON document."""
    path.write_text(json.dumps(content))


def edit_info(folder: Path, **changes: object) -> None:
    """Change keys of info.json; None removes one."""
    path = folder / "meta/info.json"
    content = {**json.loads(path.read_text()), **changes}
    write_json(path, {key: value for key, value in content.items() if value is not None})


def edit_table(path: Path, key: str, column: pa.Array | None) -> None:
    """Put another column in the place of one of a parquet file; None drops it."""
    table = pq.read_table(path)
    index = table.schema.names.index(key)
    table = table.remove_column(index) if column is None else table.set_column(index, key, column)
    pq.write_table(table, path)


def _table(recipe: Recipe, episode: int) -> pa.Table:
    length = recipe.lengths[episode]
    columns: dict[str, pa.Array] = {}
    for key, size in recipe.vectors.items():
        found = rows(recipe, key, episode)
        flat = pa.array(found.ravel())
        columns[key] = flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)  # as LeRobot stores them
    for key in recipe.cameras if recipe.pictures != "video" else ():
        cells = [{"bytes": encoded(p, recipe.pictures), "path": "x.png"} for p in frames(recipe, key, episode)]
        columns[key] = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    start = sum(recipe.lengths[:episode])
    tasks = recipe.tasks[episode]
    for key, values in (
        ("frame_index", range(length)),
        ("episode_index", [episode] * length),
        ("index", range(start, start + length)),
        ("task_index", [tasks] * length if isinstance(tasks, int) else tasks),
        *((key, by_episode[episode]) for key, by_episode in recipe.labels.items()),
    ):
        columns[key] = pa.array(list(values), pa.int64())
    columns["timestamp"] = pa.array(np.arange(length) / recipe.fps, pa.float32())
    return pa.table(columns)


def _info(recipe: Recipe) -> dict[str, object]:
    shared = recipe.version.startswith("v3")
    kind = "video" if recipe.pictures == "video" else "image"
    features: dict[str, object] = {
        key: {"dtype": kind, "shape": [*recipe.size, 3], "names": ["height", "width", "channels"]}
        for key in recipe.cameras
    }
    for key, size in recipe.vectors.items():
        features[key] = {"dtype": "float64", "shape": [size], "names": recipe.names.get(key)}
    for key in ("frame_index", "episode_index", "index", "task_index", *recipe.labels):
        features[key] = {"dtype": "int64", "shape": [1], "names": None}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    return {
        "codebase_version": recipe.version,
        "robot_type": recipe.robot,
        "total_episodes": len(recipe.lengths),
        "total_frames": sum(recipe.lengths),
        "chunks_size": 1000,
        "fps": recipe.fps,
        "data_path": V3_DATA if shared else V2_DATA,
        "video_path": V3_VIDEO if shared else V2_VIDEO,
        "features": features,
    }


def _texts(recipe: Recipe, episode: int) -> list[str]:
    tasks = recipe.tasks[episode]
    return [recipe.table[i] for i in sorted({tasks} if isinstance(tasks, int) else set(tasks))]


def _write_meta_v2(folder: Path, recipe: Recipe) -> None:
    tasks = [{"task_index": index, "task": text} for index, text in enumerate(recipe.table)]
    episodes = [
        {"episode_index": index, "tasks": _texts(recipe, index), "length": length}
        for index, length in enumerate(recipe.lengths)
    ]
    for name, lines in (("tasks", tasks), ("episodes", episodes)):
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"meta/{name}.jsonl").write_text(content, encoding="utf-8")


def _write_meta_v3(folder: Path, recipe: Recipe) -> None:
    indices = pa.array(range(len(recipe.table)), pa.int64())
    write_table(folder / "meta/tasks.parquet", pa.table({"task_index": indices, "task": pa.array(recipe.table)}))
    lines, start = [], 0
    for index, length in enumerate(recipe.lengths):
        line = {"episode_index": index, "length": length, "tasks": _texts(recipe, index)}
        line |= {"dataset_from_index": start, "dataset_to_index": start + length}
        line |= {"data/chunk_index": 0, "data/file_index": 0}
        for key in recipe.cameras if recipe.pictures == "video" else ():
            line |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": 0}
            line |= {f"videos/{key}/from_timestamp": start / recipe.fps}
            line |= {f"videos/{key}/to_timestamp": (start + length) / recipe.fps}
        lines.append(line)
        start += length
    write_table(folder / "meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(lines))
