"""What a recording of an unknown robot holds, as far as its container tells, for the first draft of a converter."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import BadEpisode, UsageError, one_line
from fwdata.images.files import images_in, read_image
from fwdata.images.video_files import WholeVideo, is_video
from fwdata.scaffold.bags import VECTORS, is_bag, read_topics
from fwdata.scaffold.draft import DEFAULT_FPS, Array, Draft, Kind, TextPlace
from fwdata.wording import counted

STATE_WORDS = ("state", "qpos", "joint", "proprio", "obs")
GRIPPER_WORDS = ("grip", "finger")
"""Words of numbers that are state beside those of STATE_WORDS."""
ACTION_WORDS = ("action", "command", "cmd", "target", "ctrl")
TIME_WORDS = ("time", "stamp")
TEXT_WORDS = ("instruction", "language", "prompt", "task")
NEVER_STATE = ("done", "reward", "success", "index", "episode", "frame")
"""Words of numbers that are about the recording and not the robot's state."""
TIME_UNITS_NS = ((1.0, 10**9), (1e3, 10**6), (1e6, 10**3), (np.inf, 1))
"""(step below which a time column is in this unit, nanoseconds of the unit): rates from 1 Hz to 1 kHz."""
HDF5 = (".hdf5", ".h5")
TABLES = (".csv", ".npz", ".parquet")
"""Endings of the tables that a folder of one recording may have."""
MOST_TEXT = 4096
"""Bytes of a text file that may be an instruction."""


def draft_from(path: Path) -> Draft:
    """The draft for a recording: an HDF5 or NPZ file, a bag, or a folder with a table and cameras (see `_from_folder`).

    Of a folder of recordings the first one is taken. UsageError with what to do for anything else.
    """
    if not path.exists():
        raise UsageError(f"--from {path}: there is no such file or folder")
    if is_bag(path):
        return _from_bag(path)
    if path.is_dir():
        return _from_first(path)
    suffix = path.suffix.lower()
    if suffix in TABLES and _cameras_of(path.parent):
        return _from_folder(path.parent)
    if suffix in HDF5:
        return _from_arrays(path, "hdf5", *_hdf5_contents(path))
    if suffix == ".npz":
        return _from_arrays(path, "npz", *_npz_contents(path))
    hint = {
        ".parquet": "; a LeRobot dataset is read by `fwdata convert lerobot`",
        **dict.fromkeys((".mcap", ".db3"), "; of a ROS 2 bag give the folder with its metadata.yaml"),
    }.get(suffix, "")
    raise UsageError(
        f"--from {path}: give an HDF5 or NPZ file, a bag, or a folder with a table ({', '.join(TABLES)}) and a "
        f"video or a folder of images per camera{hint}; without --from a converter for such folders is written"
    )


def _from_first(path: Path) -> Draft:
    """Of a folder: its first bag, else its first table with cameras beside it, else its first HDF5 or NPZ file."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    bag = next((p for p in sorted(path.rglob("*")) if is_bag(p)), None)
    if bag is not None:
        return _from_bag(bag)
    if any(p.suffix.lower() in TABLES and _cameras_of(p.parent) for p in files):
        return _from_folder(path)
    arrays = next((p for p in files if p.suffix.lower() in {*HDF5, ".npz"}), None)
    return _from_folder(path) if arrays is None else draft_from(arrays)


def _from_folder(path: Path) -> Draft:
    """Of a folder with a table (CSV, NPZ or Parquet) and, for each camera, a video or a folder of images beside it."""
    tables = (p for p in sorted(path.rglob("*")) if p.suffix.lower() in TABLES and p.is_file())
    table = next((p for p in tables if _cameras_of(p.parent)), None)
    if table is None:
        raise UsageError(
            f"--from {path}: no table ({', '.join(TABLES)}) with a video or a folder of images per camera beside it; "
            "give one recording's folder, or an HDF5 or NPZ file"
        )
    episode, cameras, columns = table.parent, _cameras_of(table.parent), read_columns(table)
    numbers = [name for name, values in columns.items() if values.dtype.kind in "fiu" and values.ndim in (1, 2)]
    clock = _clock({name: columns[name] for name in numbers})
    state, action, unused = _roles(numbers, clock)
    if not state:
        raise UsageError(
            f"--from {table}: no column of numbers for a state; it holds {', '.join(columns) or 'nothing'}"
        )
    texts = [p.name for p in sorted(episode.glob("*.txt")) if p.stat().st_size < MOST_TEXT]
    column = next((n for n, v in columns.items() if v.dtype.kind in "UO" and v.ndim == 1 and _is_text(n)), "")
    in_file = len(texts) == 1
    shown = ", ".join(name if v.ndim == 1 else f"{name} {list(v.shape)}" for name, v in columns.items())
    return Draft(
        kind="folder",
        cameras=_camera_names(cameras),
        state=state,
        action=action,
        size=_size(episode / cameras[0]),
        fps=clock.fps,
        found=(
            f"{table.name}: {shown}",
            *(f"{name}: video" if (episode / name).is_file() else f"{name}/: images" for name in cameras),
            *(f"{name}: text" for name in texts),
        ),
        sample=episode,
        table=table.name,
        text=texts[0] if in_file else column,
        text_in="file" if in_file else "column",
        time=clock.key,
        time_ns=clock.unit_ns,
        unused=unused,
    )


def _cameras_of(folder: Path) -> list[str]:
    """Videos and folders of images in a folder, or in folders of it where it has none itself, sorted paths from it."""
    for depth in ("*", "*/*"):
        entries = sorted(folder.glob(depth))
        found = [p for p in entries if is_video(p) or (p.is_dir() and images_in(p))]
        found = [p for p in found if p.parent == folder or not any(map(_is_table, p.parent.iterdir()))]
        if found:
            return [p.relative_to(folder).as_posix() for p in found]
    return []


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLES


def _camera_names(paths: Sequence[str]) -> dict[str, str]:
    """Camera name -> path: its last part, or the whole path where two have the same."""
    stems = [Path(path).stem for path in paths]
    return {_plain(s if stems.count(s) == 1 else path): path for s, path in zip(stems, paths, strict=True)}


def _size(camera: Path) -> tuple[int, int]:
    """(height, width) of a camera's first image."""
    try:
        if camera.is_file():
            video = WholeVideo.of(camera)
            return video.height, video.width
        height, width, _ = read_image(images_in(camera)[0]).shape
    except (BadEpisode, ValueError) as error:
        raise UsageError(f"--from {camera}: {error}") from None
    return height, width


def read_columns(table: Path) -> dict[str, NDArray[np.generic]]:
    """Columns of a CSV, NPZ or Parquet file by name, as they are stored; of CSV float64, or text where one is none.

    UsageError where it cannot be read.
    """
    try:
        if table.suffix.lower() == ".npz":
            with table.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                return {name: file[name] for name in file}
        if table.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            columns = pq.read_table(table, use_threads=False).to_pydict()
            return {name: np.array(values) for name, values in columns.items()}
        with table.open(newline="", encoding="utf-8-sig") as text:
            header, *rows = [row for row in csv.reader(text) if row] or [[]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        kind = table.suffix.removeprefix(".").upper()
        raise UsageError(f"--from {table} cannot be read as {kind}: {one_line(str(error))}") from None
    return {name.strip(): _numbers([row[i] if i < len(row) else "" for row in rows]) for i, name in enumerate(header)}


def _numbers(values: list[str]) -> NDArray[np.generic]:
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return np.array(values)


@dataclass(frozen=True)
class _RowTime:
    """Time of a recording's rows."""

    key: str = ""
    """Column or array of the time; empty: none was found."""
    unit_ns: int = 10**9
    """Nanoseconds of its unit."""
    fps: float = DEFAULT_FPS
    """Its rate in Hz."""


def _clock(numbers: Mapping[str, NDArray[np.generic]]) -> _RowTime:
    """The first column named as a time that rises and does not merely count rows."""
    for name, values in numbers.items():
        if not _is_time(name) or values.ndim != 1 or len(values) < 2:
            continue
        steps = np.diff(values.astype(np.float64))
        if not np.isfinite(steps).all() or steps.min() < 0 or steps.max() <= 0 or (steps == 1).all():
            continue
        step, middle = float(steps.mean()), float(np.median(steps))
        step = step if abs(step - middle) < 0.05 * step else middle or step
        unit = next(ns for below, ns in TIME_UNITS_NS if step < below)
        rate = 1e9 / (step * unit)
        whole = round(rate)
        return _RowTime(name, unit, float(whole) if abs(rate - whole) < 5e-4 * rate else round(rate, 3))
    return _RowTime()


def _roles(numbers: Sequence[str], clock: _RowTime) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(state, action, unused) of columns or arrays of numbers; the state stands for an action that is not there."""
    action = tuple(n for n in numbers if _is_action(n))
    rest = [n for n in numbers if n not in action and not _is_time(n)]
    robot = tuple(n for n in rest if not any(word in n.lower() for word in NEVER_STATE))
    named = any(_is_state(n) for n in robot)
    state = tuple(n for n in robot if _is_state(n) or any(w in n.lower() for w in GRIPPER_WORDS)) if named else robot
    used = {*state, *action, clock.key}
    return state, action or state, tuple(n for n in numbers if n not in used)


def _from_bag(path: Path) -> Draft:
    """Of a bag with JPEG images and topics of numbers."""
    topics, rate = read_topics(path)
    found = tuple(f"{topic.name}: {topic.kind}, {counted(topic.count, 'message')}" for topic in topics)
    cameras = [topic for topic in topics if topic.size[0]]
    numbers = [topic.name for topic in topics if topic.kind in VECTORS and topic.count]
    action = tuple(name for name in numbers if _is_action(name))
    state = tuple(name for name in numbers if name not in action)
    if not cameras or not numbers:
        what = "topic of JPEG images" if not cameras else f"topic of {', '.join(VECTORS)}"
        raise UsageError(f"--from {path}: no {what}; it holds {'; '.join(found[:12]) or 'nothing'}")
    names = _distinct([topic.name for topic in cameras])
    return Draft("bag", names, state or action, action or state, cameras[0].size, rate, found, path)


def _distinct(topics: Sequence[str]) -> dict[str, str]:
    """Camera name -> topic: the first words in which topics differ."""
    words = [topic.strip("/").split("/") for topic in topics]
    depth = max(map(len, words))
    differ = [i for i in range(depth) if len({tuple(w[i : i + 1]) for w in words}) > 1]
    chosen = [w[differ[0]] if differ and len(w) > differ[0] else w[0] for w in words]
    unique = chosen if len(set(chosen)) == len(chosen) else ["_".join(w) for w in words]
    return {_plain(name): topic for name, topic in zip(unique, topics, strict=True)}


def _from_arrays(
    path: Path,
    kind: Kind,
    arrays: tuple[Array, ...],
    times: Mapping[str, NDArray[np.generic]],
    texts: Mapping[str, TextPlace],
) -> Draft:
    """Of a file of arrays; times: the values of those named as a time; texts: names of texts -> where they stand."""
    found = tuple(f"{a.key}: {a.dtype} {list(a.shape)}" for a in arrays) + tuple(f"{t}: text" for t in texts)
    images = [a for a in arrays if a.dtype == "uint8" and len(a.shape) == 4 and a.shape[3] == 3]
    if not images:
        listed = "; ".join(found[:12])
        raise UsageError(f"--from {path}: no camera in it (an array uint8 [T, H, W, 3]); it holds {listed}")
    rows = images[0].shape[0]
    numbers = [
        a.key for a in arrays if len(a.shape) in (1, 2) and a.shape[0] == rows and a.dtype.startswith(("f", "i"))
    ]
    clock = _clock({key: values for key, values in times.items() if key in numbers})
    state, action, unused = _roles(numbers, clock)
    if not state:
        raise UsageError(f"--from {path}: no table of {rows} rows beside the camera; it holds {'; '.join(found[:12])}")
    cameras: dict[str, str] = {}
    for image in images:
        name = _plain(image.key.split("/")[-1])
        cameras[name if name not in cameras else _plain(image.key)] = image.key
    size = (images[0].shape[1], images[0].shape[2])
    text = next(filter(_is_text, texts), "")
    return Draft(
        kind=kind,
        cameras=cameras,
        state=state,
        action=action,
        size=size,
        fps=clock.fps,
        found=found,
        sample=path,
        arrays=arrays,
        text=text,
        text_in=texts.get(text, "array"),
        time=clock.key,
        time_ns=clock.unit_ns,
        unused=unused,
    )


type _Contents = tuple[tuple[Array, ...], dict[str, NDArray[np.generic]], dict[str, TextPlace]]
"""Arrays; values of those named as a time; names of texts -> where they stand."""


def _hdf5_contents(path: Path) -> _Contents:
    import h5py

    arrays: list[Array] = []
    times: dict[str, NDArray[np.generic]] = {}
    texts: dict[str, TextPlace] = {}
    try:
        with h5py.File(path, "r") as file:
            texts |= {name: "attribute" for name, value in file.attrs.items() if isinstance(value, str | bytes)}

            def visit(name: str, item: object) -> None:
                if not isinstance(item, h5py.Dataset):
                    return
                if h5py.check_string_dtype(item.dtype) is not None and item.size == 1:
                    texts[name] = "array"
                elif item.shape:
                    arrays.append(Array(name, tuple(item.shape), str(item.dtype)))
                    if _is_time(name) and len(item.shape) == 1:
                        times[name] = item[()]

            file.visititems(visit)
    except OSError as error:
        raise UsageError(f"--from {path} cannot be read as HDF5: {error}") from None
    return tuple(arrays), times, texts


def _npz_contents(path: Path) -> _Contents:
    columns = read_columns(path)
    texts: dict[str, TextPlace] = {n: "array" for n, v in columns.items() if v.dtype.kind in "US" and v.size == 1}
    arrays = tuple(Array(name, tuple(v.shape), str(v.dtype)) for name, v in columns.items() if name not in texts)
    return arrays, {name: v for name, v in columns.items() if _is_time(name) and v.ndim == 1}, texts


def _is_action(name: str) -> bool:
    return any(word in name.lower() for word in ACTION_WORDS)


def _is_state(name: str) -> bool:
    return any(word in name.lower() for word in STATE_WORDS) and not _is_action(name) and not _is_time(name)


def _is_time(name: str) -> bool:
    last = name.lower().split("/")[-1]
    return last in {"t", "ts"} or any(word in last for word in TIME_WORDS)


def _is_text(name: str) -> bool:
    return any(word in name.lower() for word in TEXT_WORDS)


def _plain(name: str) -> str:
    """A camera name of letters, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "camera"
