"""Names, numbers and codecs of the on-disk layout. No input or output happens here."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

LAYOUT_VERSION = 3
"""Newest version that is read. Raised when a reader of the previous version could misread a store."""

PLAIN_LAYOUT, VIDEO_LAYOUT, LINES_LAYOUT = 1, 2, 3
"""Versions that are written, chosen by the first recording: 2 where it holds video, 3 where it holds pixels and no
video, else 1. A store keeps recorded video in the second only, and lays pixels out by lines in the third only, so that
what an older version began is continued and repaired with the same bytes."""

ROOT_KEY = "fwdata"
"""Attribute of every group of ours that holds our metadata."""

CLAIM = ".copy.json"
"""Hidden file of a place that a store is being copied to; see `fwdata.store.copy_target`."""

PART_EPISODES = 50
PART_BYTES = 512 * 2**20
"""A part holds at most so many episodes and about so many source bytes: the unit that a killed conversion redoes."""

BYTES_CHUNK = 64 * 2**10
BYTES_SHARD = 16 * 2**20
"""Chunk and shard length of byte arrays (JPEG buffers, JSON): a random frame costs one or two chunks."""

FRAME_CHUNK = 16
FRAME_SHARD_BYTES = 32 * 2**20
"""Frames per chunk of raw pixels; a shard holds at most 256 frames and about so many bytes."""

LATENT_SHARD = 256
"""Latent rows per shard, one row per chunk: the unit that a killed encoding redoes."""

TEXT_PART = 128
"""Distinct prompts per part of a text cache: the unit that a killed text encoding redoes."""

type Codec = Literal["crc32c", "zstd", "lines"]


@dataclass(frozen=True)
class ArraySpec:
    """One array that grows along its first axis."""

    dtype: str
    """Element type, by its name in numpy."""
    row_shape: tuple[int, ...]
    """Shape of one row."""
    chunk_rows: int
    """Rows per chunk."""
    shard_rows: int | None
    """Rows per shard, a multiple of `chunk_rows`; None for an unsharded array."""
    codec: Codec
    """"crc32c" (stored as is), "zstd" (level 3, checksum) or "lines" (the first two axes of a chunk exchanged, so that
    equal lines of successive images are neighbours, then zstd's fast strategy, checksum)."""


LATENT_AXES = ("channel", "latent_frame", "latent_row", "latent_column")
DIMENSIONS: dict[str, tuple[str, ...]] = {
    "state": ("frame", "state_dimension"),
    "action": ("frame", "action_dimension"),
    "timestamp_ns": ("frame",),
    "valid": ("frame",),
    "swapped": ("frame",),
    "picture": ("frame",),
    "frames": ("frame", "row", "column", "colour"),
    "stitched": ("frame", "row", "column", "colour"),
    "data": ("byte",),
    "offset": ("edge",),
    "rank": ("packet",),
    "entry": ("group_edge",),
    "header": ("group",),
    "run": ("group",),
    "first": ("frame", LATENT_AXES[0], *LATENT_AXES[2:]),
    "future": ("window", *LATENT_AXES),
    "window_start": ("window",),
}
"""Names of the dimensions of an array, by the array's name, as xarray asks for them; equal names in one group are of
equal length. None is the name of an array, which xarray would take for coordinates."""


def new_layout(encodings: Collection[str]) -> int:
    """Layout version of a store whose first recording has cameras of these encodings."""
    if "video" in encodings:
        return VIDEO_LAYOUT
    return LINES_LAYOUT if "raw" in encodings else PLAIN_LAYOUT


def dimension_names(array: str, dimensions: int) -> tuple[str, ...]:
    """Names of an array's dimensions; the embeddings of a text cache are "data" of two dimensions."""
    names = DIMENSIONS[array]
    return ("token", "feature") if array == "data" and dimensions == 2 else names


def byte_array(codec: Codec = "crc32c") -> ArraySpec:
    """uint8 [bytes], concatenated buffers."""
    return ArraySpec("uint8", (), BYTES_CHUNK, BYTES_SHARD, codec)


def table(dtype: str, row_shape: tuple[int, ...], rows: int) -> ArraySpec:
    """A small array written at once, in one chunk."""
    return ArraySpec(dtype, row_shape, max(rows, 1), None, "zstd")


def frame_array(height: int, width: int, layout: int = LINES_LAYOUT) -> ArraySpec:
    """uint8 [F, height, width, 3], raw or stitched pixels. layout: the store's version, which decides the codec."""
    frame_bytes = height * width * 3
    codec: Codec = "lines" if layout >= LINES_LAYOUT else "zstd"
    chunks = max(1, min(256 // FRAME_CHUNK, FRAME_SHARD_BYTES // (frame_bytes * FRAME_CHUNK)))
    return ArraySpec("uint8", (height, width, 3), FRAME_CHUNK, FRAME_CHUNK * chunks, codec)


def latent_array(shape: tuple[int, ...]) -> ArraySpec:
    """float16 [N, *shape]: one window per chunk, uncompressed (latents hardly compress)."""
    return ArraySpec("float16", shape, 1, LATENT_SHARD, "crc32c")


def part_name(index: int) -> str:
    """`p00000` for 0."""
    return f"p{index:05d}"


def part_base(name: str) -> str:
    """`p00003` for every generation of that part."""
    return name.partition("-")[0]


def part_generation(name: str) -> int:
    """1 for `p00003-1`, 0 for `p00003`."""
    return int(name.partition("-")[2] or 0)


def next_generation(name: str) -> str:
    """`p00003-1` for `p00003`, `p00003-2` for that; sorted, all of them lie before `p00004`."""
    return f"{part_base(name)}-{part_generation(name) + 1}"


_SEALED = re.compile(r"stats|parts/p[^/]*(?:/frames)?|(?:latents|text)/[^/]+/p[^/]*")


def may_be_sealed(folder: str) -> bool:
    """Whether the zarr.json of the folder of this key lists the sha256 of every other file below it, once complete."""
    return _SEALED.fullmatch(folder) is not None


def sealed_above(key: str) -> str | None:
    """The innermost folder above a file whose zarr.json covers it; None for that itself, and for what none covers."""
    names = key.split("/")
    folders = ("/".join(names[:length]) for length in range(len(names) - 1, 0, -1))
    folder = next(filter(may_be_sealed, folders), None)
    return None if folder is None or key == f"{folder}/zarr.json" else folder
