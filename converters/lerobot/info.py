"""`meta/info.json` of a LeRobot dataset, read without trusting it: version, rate, features and path templates."""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from stat import S_ISREG
from typing import Any

from converters.shared.content import not_content
from converters.shared.links import ANNEX, leads_inside, not_followed, store_of
from fwdata.errors import UsageError

INFO = "meta/info.json"
VERSIONS = ("v2.0", "v2.1", "v3.0")
MAX_INFO_BYTES = 16 << 20
MAX_NUMBERS = 4096
"""Numbers of one feature in one row."""

_DATA = {
    "v2": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "v3": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
_VIDEO = {
    "v2": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    "v3": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
_FIELDS = {"v2": {"episode_chunk", "episode_index", "video_key"}, "v3": {"chunk_index", "file_index", "video_key"}}
_DEPTH = frozenset({"disparity", "z16", "tof"})
_FORMATS = frozenset({"", "d", *(f"0{n}d" for n in range(1, 10)), *(f"0{n}" for n in range(1, 10))})
NUMBER_TYPES = frozenset({*(f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)), "bool"})


@dataclass(frozen=True)
class Feature:
    """One feature of info.json."""

    key: str
    """Its name, such as `observation.images.top`."""
    dtype: str
    """As declared: "video", "image", or the type of its numbers."""
    shape: tuple[int, ...]
    """As declared; of images with their channels."""
    names: tuple[str, ...] = ()
    """One name per number, flattened; () where info.json has none."""
    depth: bool = False
    """Whether it is a depth map stored as images, which is not converted."""
    absent: bool = False
    """Whether it is a camera that is listed and has no images."""
    pixels_as: str = ""
    """Pixel format of its videos, such as "yuv420p"; empty where info.json has none."""

    @property
    def size(self) -> int:
        """Numbers in one row; LeRobot stores shape (1,) as a plain number."""
        return math.prod(self.shape)

    @property
    def is_numbers(self) -> bool:
        """Whether it holds numbers, in one line or several, which follow each other."""
        return self.dtype in NUMBER_TYPES


@dataclass(frozen=True)
class Info:
    """What info.json says."""

    version: str
    """Format version, one of VERSIONS."""
    fps: float
    """Declared rate in Hz; published sets carry wrong ones."""
    robot: str
    """Declared robot_type; "" where there is none."""
    chunks_size: int
    """Episodes per chunk folder, which the path templates divide by; 1000 where it is not declared."""
    data_path: str
    """Checked template of the Parquet files, relative, POSIX."""
    video_path: str
    """Checked template of the video files, relative, POSIX."""
    features: Mapping[str, Feature]
    """All features by key."""
    total_episodes: int | None
    """Declared number of episodes; None: not declared."""
    total_frames: int | None
    """Declared number of rows of all episodes; None: not declared."""
    discarded: frozenset[int]
    """Episodes that `discarded_episode_indices` lists, as GR00T's sets do; they may be there all the same."""
    splits: Mapping[str, tuple[int, int]]
    """Episodes from .. up to, excluded, of every split, by name; those that are written otherwise are left out."""

    @property
    def shared_files(self) -> bool:
        """Whether one file holds several episodes (v3.0)."""
        return self.version.startswith("v3")

    def image_features(self) -> list[str]:
        """Keys of colour cameras."""
        return [f.key for f in self.features.values() if f.dtype in {"video", "image"} and not (f.depth or f.absent)]

    def depth(self) -> list[str]:
        """Keys of cameras that measure distances."""
        return [f.key for f in self.features.values() if f.dtype in {"video", "image"} and f.depth]

    def videos(self) -> list[str]:
        """Keys of colour cameras whose images are in video files."""
        return [key for key in self.image_features() if self.features[key].dtype == "video"]

    def vectors(self) -> list[str]:
        """Keys of features of numbers that a row of state or action can take."""
        return [f.key for f in self.features.values() if f.is_numbers and 0 < f.size <= MAX_NUMBERS]

    def data_file(self, episode: int = 0, chunk: int = 0, file: int = 0) -> str:
        """Path of a parquet file relative to the dataset."""
        return _fill(self.data_path, "", episode, self.chunks_size, chunk, file)

    def video_file(self, key: str, episode: int = 0, chunk: int = 0, file: int = 0) -> str:
        """Path of a camera's video relative to the dataset."""
        return _fill(self.video_path, key, episode, self.chunks_size, chunk, file)


def _fill(template: str, key: str, episode: int, chunks_size: int, chunk: int, file: int) -> str:
    path = template.format(
        video_key=key, episode_index=episode, episode_chunk=episode // chunks_size, chunk_index=chunk, file_index=file
    )
    _check_path(path, f"path {path!r}")
    return path


def inside(folder: Path, name: str) -> Path:
    """The path of a dataset's file; UsageError where a link leads out of its folder (the hub's cache is fine), or to
    content of git-annex that was not fetched."""
    path = folder / name
    linked = path.is_symlink()
    if linked and not path.exists() and (words := not_followed(str(path), name)).startswith(ANNEX):
        raise UsageError(f"{name} is {words}")
    if not _stays(path.parent, folder):
        parents = [parent.as_posix() for parent in reversed(Path(name).parents)]
        link = next((parent for parent in parents if (folder / parent).is_symlink()), "its folder")
        raise UsageError(f"{name}: {link} {_LEADS_OUT}; put the folder itself there, or mount it there")
    if linked and not stays_inside(path, folder):
        raise UsageError(f"{name} {_LEADS_OUT}; put the file itself there")
    return path


_LEADS_OUT = "is a link that leads out of the dataset's folder or nowhere"


def stays_inside(path: Path, folder: Path) -> bool:
    """Whether a path leads to a place in the dataset's folder, or in the hub's cache of the same dataset."""
    store = store_of(folder)
    return leads_inside(path, folder.resolve(), *([] if store is None else [store.resolve()]))


_stays = lru_cache(maxsize=4096)(stays_inside)
"""The same, kept for folders: a dataset has 100,000 files in a few."""


def read_json(path: Path, name: str, max_bytes: int) -> Any:
    """A JSON document; UsageError with one sentence for anything else. name: how messages call the file."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise UsageError(f"{name} cannot be read: it is not a regular file")
        if status.st_size > max_bytes:
            raise UsageError(f"{name} holds {status.st_size >> 20} MiB, at most {max_bytes >> 20} MiB are read")
        reason = not_content(path, name)
        if reason is not None:
            raise UsageError(reason)
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not valid JSON ({error}); download it again") from None


def read_info(folder: Path) -> Info:
    """info.json of a dataset folder, kept until the file changes. UsageError names the key and what was found."""
    try:
        status = inside(folder, INFO).stat()
    except OSError as error:
        raise UsageError(f"{INFO} cannot be read: {error.strerror}") from None
    return _read_info(folder, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=512)
def _read_info(folder: Path, mtime_ns: int, size: int) -> Info:
    data = read_json(folder / INFO, INFO, MAX_INFO_BYTES)
    if not isinstance(data, dict):
        raise UsageError(f"{INFO} must be an object, found {type(data).__name__}; download it again")
    version = _version(data.get("codebase_version"))
    generation = version[:2]
    features = data.get("features")
    if not isinstance(features, dict) or not features:
        raise UsageError(f"{INFO}: features must be an object that names the columns; download it again")
    own = (folder / EXPORTED).is_file()
    return Info(
        version=version,
        fps=_fps(data.get("fps")),
        robot=str(data.get("robot_type") or ""),
        chunks_size=_count(data, "chunks_size") or 1000,
        data_path=_template(data.get("data_path") or _DATA[generation], "data_path", generation),
        video_path=_template(data.get("video_path") or _VIDEO[generation], "video_path", generation),
        features={key: _feature(key, value, own) for key, value in features.items()},
        total_episodes=_count(data, "total_episodes"),
        total_frames=_count(data, "total_frames"),
        discarded=_indices(data.get("discarded_episode_indices")),
        splits=_splits(data.get("splits")),
    )


def _indices(found: object) -> frozenset[int]:
    """A list of whole numbers; what has another form is left out, as nothing depends on it."""
    return frozenset(n for n in found if isinstance(n, int)) if isinstance(found, list) else frozenset()


def _splits(found: object) -> dict[str, tuple[int, int]]:
    """`{"train": "0:40", "test": "40:50"}`; what has another form is left out, as nothing depends on it."""
    pairs = found.items() if isinstance(found, dict) else ()
    spans = {str(name): re.fullmatch(r"(\d{1,9}):(\d{1,9})", str(text)) for name, text in pairs}
    return {name: (int(span[1]), int(span[2])) for name, span in spans.items() if span}


def _version(found: object) -> str:
    if found not in VERSIONS:
        hint = ""
        if isinstance(found, str) and found.startswith("v1"):
            hint = "; convert it to v2.1 with the scripts of LeRobot 0.3 first"
        if found is None:
            hint = "; write the version that the files have to it, or download it again"
        raise UsageError(
            f"{INFO}: codebase_version {found!r} is not supported, only {', '.join(VERSIONS[:-1])} and "
            f"{VERSIONS[-1]} are{hint}"
        )
    return str(found)


def _fps(found: object) -> float:
    if isinstance(found, str) and re.fullmatch(r"\d{1,5}(\.\d{1,9})?", found.strip()):
        found = float(found)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= 10_000:
        raise UsageError(f"{INFO}: fps must be a number above 0, found {found!r}")
    return float(found)


def _count(data: Mapping[str, Any], key: str) -> int | None:
    found = counted(data.get(key))
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= 10**10:
        raise UsageError(f"{INFO}: {key} must be a whole number, found {found!r}")
    return found


def _template(found: object, key: str, generation: str) -> str:
    """A path template that names known fields only and cannot lead out of the dataset."""
    if not isinstance(found, str):
        raise UsageError(f"{INFO}: {key} must be text, found {found!r}")
    try:
        pieces = list(string.Formatter().parse(found))
    except ValueError as error:
        raise UsageError(f"{INFO}: {key} {found!r} is not a path template: {error}") from None
    for _, field, spec, conversion in pieces:
        if field is None:
            continue
        other = next((g for g in _FIELDS if g != generation and field in _FIELDS[g] - _FIELDS[generation]), None)
        if other:
            raise UsageError(
                f"{INFO}: codebase_version begins with {generation}, but {key} {found!r} is a template of {other}; "
                f"write the version that the files have to {INFO}, or download the dataset again"
            )
        if field not in _FIELDS[generation] or conversion or (spec or "") not in _FORMATS:
            raise UsageError(
                f"{INFO}: {key} {found!r} has the field {field!r} ({spec!r}); known are "
                f"{', '.join(sorted(_FIELDS[generation]))}, with formats such as ':06d'"
            )
    _check_path("".join(text + ("" if field is None else "x") for text, field, *_ in pieces), f"{key} {found!r}")
    return found


def _check_path(path: str, what: str) -> None:
    if path.startswith("/") or ".." in path.split("/") or "\\" in path or "\0" in path:
        raise UsageError(f"{INFO}: {what} leads out of the dataset's folder; refused")


def _feature(key: str, value: object, own: bool = False) -> Feature:
    """A feature; one that is not understood gets the dtype "unknown", so that only its use is an error. own: of an
    export of a store, which holds cameras alone."""
    _check_path(key, f"feature {key!r}")
    told: Mapping[str, Any] = value if isinstance(value, dict) else {}
    shape, dtype = told.get("shape"), told.get("dtype")
    shape = [counted(n) for n in shape] if isinstance(shape, list) else [shape] if isinstance(shape, int) else shape
    dtype = _plain_type(dtype) if isinstance(dtype, str) else dtype
    sound = isinstance(shape, list) and all(isinstance(n, int) and 0 <= n <= 10**6 for n in shape)
    if not sound or not isinstance(dtype, str):
        return Feature(key, "unknown", ())
    names, depth = _names_of(told.get("names"), tuple(shape or ())), not own and _is_depth(key, told)
    return Feature(key, dtype, tuple(shape or ()), names, depth, pixels_as=next(_pixel_formats(told), ""))


def _plain_type(dtype: str) -> str:
    """The type of numbers under the names of torch, numpy and C, as numpy calls it; others as they are."""
    plain = dtype.removeprefix("torch.").removeprefix("numpy.").removeprefix("np.").lstrip("<>=|")
    return _TYPES.get(plain, plain if plain in NUMBER_TYPES else dtype)


_TYPES = {
    "double": "float64",
    "float": "float32",
    "half": "float16",
    "halffloat": "float16",
    "long": "int64",
    "int": "int64",
    "boolean": "bool",
    **{f"{kind[0]}{size}": f"{kind}{8 * size}" for kind in ("float", "int", "uint") for size in (1, 2, 4, 8)},
}


def counted(value: object) -> object:
    """A whole number that was written as a fraction, as pandas does where tables were joined, or as text."""
    if isinstance(value, float) and abs(value) < 2**40 and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 13 else value


def _names_of(found: object, shape: Sequence[int]) -> tuple[str, ...]:
    """A name for every number; () where they name the lines of a shape such as [2, 7] alone, as of images.

    Names of both are joined: [["left", "right"], ["x", "y", "z"]] of shape [2, 3] to left_x, left_y, ..
    """
    flat, size = _flat_names(found), math.prod(shape)
    if sum(n != 1 for n in shape) < 2 or len(flat) == size:
        return flat
    told = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    lines = [line for line in told if isinstance(line, list)]
    if size <= MAX_NUMBERS and [len(line) for line in lines] == list(shape):
        return tuple("_".join(map(str, each)) for each in product(*lines))
    return () if len(flat) == len(shape) else flat


def _flat_names(found: object) -> tuple[str, ...]:
    """Names come as a list, lists in a list, one text with commas, or as {"motors": [..]} or {"x": 0, "y": 1}, the
    latter also within {"axes": ..}."""
    if isinstance(found, dict) and len(found) == 1 and isinstance(inner := next(iter(found.values())), dict):
        return _flat_names(inner)
    if isinstance(found, dict) and sorted(found.values(), key=str) == sorted(range(len(found)), key=str):
        return tuple(sorted(found, key=found.__getitem__))
    found = list(_leaves(found)) if isinstance(found, dict | list) else found
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], str) and "," in found[0]:
        found = [name.strip() for name in found[0].split(",")]
    return tuple(str(name) for name in found) if isinstance(found, list) else ()


def _leaves(found: object) -> Iterator[object]:
    """The names in lists, whatever they are nested in."""
    for item in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        if isinstance(item, dict | list):
            yield from _leaves(item)
        elif isinstance(found, list):
            yield item


EXPORTED = "meta/fwdata.json"
"""What `fwdata export lerobot` says of the store."""

DEEP = ("gray10", "gray12", "gray14", "gray16")
"""Pixel formats of videos of distances begin with one of these."""


_COLOURS_BY_NAME = re.compile("depth[-_ ]?ai(?![a-z])")
"""A make of cameras of colours, whose name alone says nothing of distances."""


def _is_depth(key: str, value: Mapping[str, Any]) -> bool:
    """Whether a camera measures distances: by its flag, its pixel format, or its name."""
    name = _COLOURS_BY_NAME.sub("", key.lower())
    if "depth" in name or _DEPTH & set(re.split(r"[^a-z0-9]+", name)):
        return True
    if any(place.get("video.is_depth_map") or place.get("is_depth_map") for place in _of_videos(value)):
        return True
    return any(said.startswith(DEEP) for said in _pixel_formats(value))


def _of_videos(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The places where a feature tells of its videos."""
    return [place for place in (value, value.get("info"), value.get("video_info")) if isinstance(place, dict)]


def _pixel_formats(value: Mapping[str, Any]) -> Iterator[str]:
    """The pixel formats that a feature is said to have."""
    return (str(place["video.pix_fmt"]) for place in _of_videos(value) if place.get("video.pix_fmt"))
