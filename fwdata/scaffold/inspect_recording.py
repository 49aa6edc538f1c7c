"""What a recording of an unknown robot holds, as far as its container tells, for the first draft of a converter."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import BadEpisode, UsageError, one_line
from fwdata.images.files import is_image, read_image
from fwdata.images.video_files import WholeVideo, is_video
from fwdata.scaffold.bags import VECTORS, is_bag, read_topics

type Kind = Literal["folder", "hdf5", "npz", "bag"]

STATE_WORDS = ("state", "qpos", "joint", "proprio", "obs")
ACTION_WORDS = ("action", "command", "cmd", "target", "ctrl")
TIME_WORDS = ("time", "stamp")
TABLES = (".csv", ".npz", ".parquet")
"""Endings of the tables that a folder of one recording may have."""
MOST_TEXT = 4096
"""Bytes of a text file that may be an instruction."""


@dataclass(frozen=True)
class Array:
    """An array of a recording."""

    key: str
    """Its name in the file."""
    shape: tuple[int, ...]
    """Rows first."""
    dtype: str
    """NumPy's name of the element type."""


@dataclass(frozen=True)
class Draft:
    """What a converter's first version is written from."""

    kind: Kind
    """How recordings lie on disk."""
    cameras: Mapping[str, str]
    """Camera name -> key in the recording (a folder of images, a video, or an array)."""
    state: tuple[str, ...]
    """Keys (arrays) or columns that make the state."""
    action: tuple[str, ...]
    """Keys or columns that make the action."""
    size: tuple[int, int]
    """(height, width) of the first camera."""
    fps: float
    """Rate in Hz; from the time column where there is one, else 10."""
    found: tuple[str, ...] = ()
    """Lines that list everything the recording holds."""
    sample: Path | None = None
    """The recording itself, for a fixture; None: one is made up."""
    arrays: tuple[Array, ...] = ()
    """Arrays of an HDF5 or NPZ file."""
    table: str = "rows.csv"
    """Of a folder: name of the CSV, NPZ or Parquet file with its rows."""
    text: str = ""
    """Of a folder: name of the text file with its instruction; empty: the task's folder is the instruction."""


EXAMPLE = Draft(
    kind="folder",
    cameras={"front": "front"},
    state=("state.x", "state.y", "state.gripper"),
    action=("action.x", "action.y", "action.gripper"),
    size=(48, 64),
    fps=10.0,
)
"""Without a recording: a folder per episode with rows.csv and a folder of images per camera."""


def draft_from(path: Path) -> Draft:
    """The draft for a recording: an HDF5 or NPZ file, a bag, or a folder with a table and cameras (see `_from_folder`).

    Of a folder of recordings the first one is taken. UsageError with what to do for anything else.
    """
    if not path.exists():
        raise UsageError(f"--from {path}: there is no such file or folder")
    if is_bag(path):
        return _from_bag(path)
    if path.is_dir():
        bag = next((p for p in sorted(path.rglob("*")) if is_bag(p)), None)
        return _from_folder(path) if bag is None else _from_bag(bag)
    suffix = path.suffix.lower()
    if suffix in TABLES and _cameras_of(path.parent):
        return _from_folder(path.parent)
    if suffix in {".hdf5", ".h5"}:
        return _from_arrays(path, "hdf5", tuple(_hdf5_arrays(path)))
    if suffix == ".npz":
        return _from_arrays(path, "npz", tuple(_npz_arrays(path)))
    hint = {
        ".parquet": "; a LeRobot dataset is read by `fwdata convert lerobot`",
        **dict.fromkeys((".mcap", ".db3"), "; of a ROS 2 bag give the folder with its metadata.yaml"),
    }.get(suffix, "")
    raise UsageError(
        f"--from {path}: give an HDF5 or NPZ file, a bag, or a folder with a table ({', '.join(TABLES)}) and a "
        f"video or a folder of images per camera{hint}; without --from a converter for such folders is written"
    )


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
    rest = tuple(n for n in numbers if not _is_action(n) and not _is_time(n))
    state = tuple(n for n in numbers if _is_state(n)) or rest
    if not state:
        raise UsageError(
            f"--from {table}: no column of numbers for a state; it holds {', '.join(columns) or 'nothing'}"
        )
    texts = [p.name for p in sorted(episode.glob("*.txt")) if p.stat().st_size < MOST_TEXT]
    shown = ", ".join(name if v.ndim == 1 else f"{name} {list(v.shape)}" for name, v in columns.items())
    return Draft(
        kind="folder",
        cameras={_plain(Path(name).stem): name for name in cameras},
        state=state,
        action=tuple(n for n in numbers if _is_action(n)) or state,
        size=_size(episode / cameras[0]),
        fps=_rate(columns),
        found=(
            f"{table.name}: {shown}",
            *(f"{name}: video" if (episode / name).is_file() else f"{name}/: images" for name in cameras),
            *(f"{name}: text" for name in texts),
        ),
        sample=episode,
        table=table.name,
        text=texts[0] if len(texts) == 1 else "",
    )


def _cameras_of(folder: Path) -> list[str]:
    """Names of the videos and folders of images in a folder, sorted."""
    entries = sorted(folder.iterdir())
    return [p.name for p in entries if is_video(p) or (p.is_dir() and any(map(is_image, p.iterdir())))]


def _size(camera: Path) -> tuple[int, int]:
    """(height, width) of a camera's first image."""
    try:
        if camera.is_file():
            video = WholeVideo.of(camera)
            return video.height, video.width
        height, width, _ = read_image(min(p for p in camera.iterdir() if is_image(p))).shape
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
        with table.open(newline="", encoding="utf-8") as text:
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


def _rate(columns: Mapping[str, NDArray[np.generic]]) -> float:
    """Rate from the table's time column, in seconds or nanoseconds; 10 where there is none."""
    found = (v for name, v in columns.items() if _is_time(name) and v.ndim == 1 and v.dtype.kind in "fiu")
    stamps = np.asarray(next(found, ()), np.float64)
    if len(stamps) < 2:
        return 10.0
    step = float(stamps[-1] - stamps[0]) / (len(stamps) - 1)
    step = step / 1e9 if step > 1e6 else step
    return round(1 / step, 3) if step > 0 else 10.0


def _from_bag(path: Path) -> Draft:
    """Of a bag with JPEG images and topics of numbers."""
    topics, rate = read_topics(path)
    found = tuple(f"{topic.name}: {topic.kind}, {topic.count} messages" for topic in topics)
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


def _from_arrays(path: Path, kind: Kind, arrays: tuple[Array, ...]) -> Draft:
    found = tuple(f"{a.key}: {a.dtype} {list(a.shape)}" for a in arrays)
    images = [a for a in arrays if a.dtype == "uint8" and len(a.shape) == 4 and a.shape[3] == 3]
    if not images:
        listed = "; ".join(found[:12])
        raise UsageError(f"--from {path}: no camera in it (an array uint8 [T, H, W, 3]); it holds {listed}")
    rows = images[0].shape[0]
    numbers = [a for a in arrays if len(a.shape) == 2 and a.shape[0] == rows and a.dtype.startswith(("f", "i"))]
    action = tuple(a.key for a in numbers if _is_action(a.key))
    state = tuple(a.key for a in numbers if _is_state(a.key) and a.key not in action)
    state = state or tuple(a.key for a in numbers if a.key not in action)
    if not state:
        raise UsageError(f"--from {path}: no table of {rows} rows beside the camera; it holds {'; '.join(found[:12])}")
    cameras: dict[str, str] = {}
    for image in images:
        name = _plain(image.key.split("/")[-1])
        cameras[name if name not in cameras else _plain(image.key)] = image.key
    size = (images[0].shape[1], images[0].shape[2])
    return Draft(kind, cameras, state, action or state, size, 10.0, found, path, arrays)


def _hdf5_arrays(path: Path) -> Iterator[Array]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found: list[Array] = []

            def visit(name: str, item: object) -> None:
                if isinstance(item, h5py.Dataset) and item.shape:
                    found.append(Array(name, tuple(item.shape), str(item.dtype)))

            file.visititems(visit)
    except OSError as error:
        raise UsageError(f"--from {path} cannot be read as HDF5: {error}") from None
    yield from found


def _npz_arrays(path: Path) -> Iterator[Array]:
    yield from [Array(name, tuple(values.shape), str(values.dtype)) for name, values in read_columns(path).items()]


def _is_action(name: str) -> bool:
    return any(word in name.lower() for word in ACTION_WORDS)


def _is_state(name: str) -> bool:
    return any(word in name.lower() for word in STATE_WORDS) and not _is_action(name) and not _is_time(name)


def _is_time(name: str) -> bool:
    return name.lower() in {"t", "ts"} or any(word in name.lower() for word in TIME_WORDS)


def _plain(name: str) -> str:
    """A camera name of letters, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "camera"
