"""Stored bytes of Zarr v3 arrays that are chunked along their first axis: chunks, shards, metadata and seals.

A seal is an array's own list of the CRC-32C of every chunk, kept in the attributes of its `zarr.json`, whose sha256 is
in turn recorded by the folder that holds the array. A chunk that is whole but not the one that was written there, as
after swapping two shard files, does not match it.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from fwdata.errors import StoreDamaged
from fwdata.store.layout import ROOT_KEY, ArraySpec
from fwdata.store.records import JsonObject
from fwdata.store.records.arrays import ArrayRecord

MISSING = 2**64 - 1
"""Offset and length of a chunk that a shard does not hold (Zarr sharding specification)."""

SEAL_KEY = "chunk_crc32c"
"""Attribute that holds an array's seal: base64 of little-endian uint32, one per chunk in order."""


FAST_LEVEL = 1
"""Level of zstd that comes nearest to the parameters of codec "lines"; other writers may use it."""


def exchanged_axes(dimensions: int) -> tuple[int, ...]:
    """Order of the axes of a chunk of codec "lines", as Zarr's `transpose` codec states it; its own inverse."""
    return (1, 0, *range(2, dimensions))


def crc32c(data: bytes | NDArray[Any]) -> int:
    """CRC-32C of a contiguous buffer, hardware-accelerated; about 15 GB/s."""
    return int(google_crc32c.value(data))


def load_compressor() -> None:
    """Import what compresses chunks, which takes 0.1 s of CPU, before processes that need it are forked."""
    import numcodecs.zstd  # noqa: F401

    _fast_options(0)


def decode_chunk(data: bytes, codec: str, size: int, seal: int | None, where: str, advice: str) -> bytes:
    """The `size` bytes of one stored chunk; StoreDamaged when its checksum, its size or its seal does not hold."""
    damaged = f"{where}: checksum does not hold; {advice}"
    if codec == "crc32c":
        body, found = data[:-4], crc32c(data[:-4])
        if len(body) != size or found != int.from_bytes(data[-4:], "little"):
            raise StoreDamaged(damaged)
    else:
        body, found = _unzstd(data, size, damaged), 0 if seal is None else crc32c(data)
    check_seal(found, seal, where, advice)
    return body


def check_seal(found: int, seal: int | None, where: str, advice: str) -> None:
    """StoreDamaged when a whole chunk is not the one that was written there. found: what `chunk_seal` gives for it."""
    if seal is not None and found != seal:
        raise StoreDamaged(f"{where} is whole but was written for another position; {advice}")


def chunk_seal(data: bytes, codec: str) -> int:
    """CRC-32C that identifies a stored chunk: of its rows where they are stored plainly, else of its stored bytes."""
    return int.from_bytes(data[-4:], "little") if codec == "crc32c" else crc32c(data)


def read_seals(array: ArrayRecord) -> NDArray[np.uint32] | None:
    """The seal of an array; None for one written before seals."""
    text = array.attributes.fwdata.chunk_crc32c
    return None if text is None else np.frombuffer(base64.b64decode(text), "<u4")


def _unzstd(data: bytes, size: int, damaged: str) -> bytes:
    """Decompress one zstd frame that carries a checksum; StoreDamaged when it does not hold."""
    from numcodecs.zstd import decompress

    if len(data) < 5 or not data[4] & 0x04:
        raise StoreDamaged(damaged)
    try:
        body = bytes(decompress(data))
    except (RuntimeError, ValueError):
        raise StoreDamaged(damaged) from None
    if len(body) != size:
        raise StoreDamaged(damaged)
    return body


@dataclass(frozen=True)
class StoredChunk:
    """One chunk as it is stored."""

    pieces: tuple[NDArray[Any] | bytes, ...]
    """Its bytes, in pieces that follow each other."""
    seal: int
    """What it is known by in the array's seal."""

    @property
    def length(self) -> int:
        """Bytes of all pieces."""
        return sum(memoryview(piece).nbytes for piece in self.pieces)


def join_block(spec: ArraySpec, chunks: Sequence[StoredChunk]) -> bytes:
    """Bytes of one shard (or of the one chunk of an unsharded array).

    chunks: in order, at least one and at most a block; those past the array's end are marked missing (Zarr sharding
    specification).
    """
    whole = [piece for chunk in chunks for piece in chunk.pieces]
    if spec.shard_rows is None:
        return b"".join(whole)
    index = np.full((spec.shard_rows // spec.chunk_rows, 2), MISSING, "<u8")
    offset = 0
    for slot, chunk in enumerate(chunks):
        index[slot] = (offset, chunk.length)
        offset += chunk.length
    table = index.tobytes()
    return b"".join([*whole, table, crc32c(table).to_bytes(4, "little")])


def whole_shard(data: bytes, spec: ArraySpec) -> list[int] | None:
    """Seals of a full shard's chunks, each read and checked; None when the shard is damaged or not full."""
    assert spec.shard_rows is not None
    count = spec.shard_rows // spec.chunk_rows
    table = data[-16 * count - 4 : -4]
    if len(table) != 16 * count or crc32c(table) != int.from_bytes(data[-4:], "little"):
        return None
    seals = []
    for offset, length in np.frombuffer(table, "<u8").reshape(count, 2).tolist():
        chunk = data[offset : offset + length]
        try:
            decode_chunk(chunk, spec.codec, _chunk_bytes(spec), None, "", "")
        except StoreDamaged:
            return None
        seals.append(chunk_seal(chunk, spec.codec))
    return seals


def _chunk_bytes(spec: ArraySpec) -> int:
    return int(np.prod(spec.row_shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize * spec.chunk_rows


def encode_chunk(spec: ArraySpec, parts: Sequence[NDArray[Any]]) -> StoredChunk:
    """One chunk, padded with zeros where rows are missing. Rows that are stored plainly are not copied.

    parts: its rows in order, at least one and at most a chunk, in arrays of any lengths.
    """
    if spec.codec == "lines":
        data = compress_lines(_exchanged(spec, parts))
        return StoredChunk((data,), crc32c(data))
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    body: NDArray[Any] | bytes = np.ascontiguousarray(rows, np.dtype(spec.dtype).newbyteorder("<"))
    missing = _chunk_bytes(spec) - memoryview(body).nbytes
    if missing:
        body = memoryview(body).tobytes() + bytes(missing)
    if spec.codec == "crc32c":
        seal = crc32c(body)
        return StoredChunk((body, seal.to_bytes(4, "little")), seal)
    from numcodecs.zstd import compress

    data = bytes(compress(body, 3, True))
    return StoredChunk((data,), crc32c(data))


def _exchanged(spec: ArraySpec, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """A chunk's rows with its first two axes exchanged, and zeros for the rows it lacks."""
    lines, *rest = spec.row_shape
    body = np.empty((lines, spec.chunk_rows, *rest), np.dtype(spec.dtype).newbyteorder("<"))
    row = 0
    for part in parts:
        body[:, row : row + len(part)] = np.swapaxes(part, 0, 1)
        row += len(part)
    body[:, row:] = 0
    return body


def compress_lines(body: NDArray[Any], skip: int = 0) -> bytes:
    """One zstd frame of its own size, with a checksum. The same bytes for every call: no state is kept.

    skip: positions that are passed over after each without a match; stores are written with 0.
    """
    compress, options = _fast_options(skip)
    return bytes(compress(body, options=options))


@cache
def _fast_options(skip: int) -> tuple[Any, dict[Any, int]]:
    """(compress, its parameters): stated one by one, since what a level stands for changes between releases of zstd.

    A table of 16 k positions fits the processor's nearest cache, and finds the line of the image before where equal
    lines are neighbours. Measured against other settings in docs/benchmarks.md.
    """
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    key = zstd.CompressionParameter
    options = {
        key.compression_level: FAST_LEVEL,
        key.strategy: int(zstd.Strategy.fast),
        key.window_log: 20,
        key.hash_log: 14,
        key.chain_log: 13,
        key.search_log: 1,
        key.min_match: 5,
        key.target_length: skip,
        key.checksum_flag: 1,
    }
    return zstd.compress, options


def array_metadata(spec: ArraySpec, rows: int, seals: list[int], names: tuple[str, ...] = ()) -> JsonObject:
    """The `zarr.json` of an array with `rows` rows, with standard Zarr v3 codecs only.

    names: of its dimensions; none of them is stored when empty.
    """
    chunk = [spec.chunk_rows, *spec.row_shape]
    plain: JsonObject = {"name": "bytes"}
    if np.dtype(spec.dtype).itemsize > 1:
        plain["configuration"] = {"endian": "little"}
    if spec.codec == "crc32c":
        check: JsonObject = {"name": "crc32c"}
    else:
        check = {"name": "zstd", "configuration": {"level": 3, "checksum": True}}
    codecs: list[JsonObject] = [plain, check]
    if spec.codec == "lines":
        check["configuration"]["level"] = FAST_LEVEL
        order = exchanged_axes(1 + len(spec.row_shape))
        codecs.insert(0, {"name": "transpose", "configuration": {"order": list(order)}})
    outer = chunk
    if spec.shard_rows is not None:
        outer = [spec.shard_rows, *spec.row_shape]
        index_codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        inner = {"chunk_shape": chunk, "codecs": codecs, "index_codecs": index_codecs, "index_location": "end"}
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
    is_float = np.dtype(spec.dtype).kind == "f"
    fill: str | bool | int = "NaN" if is_float else (False if spec.dtype == "bool" else 0)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, *spec.row_shape],
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": outer}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        **({"dimension_names": list(names)} if names else {}),
        "fill_value": fill,
        "codecs": codecs,
        "attributes": {ROOT_KEY: {SEAL_KEY: base64.b64encode(np.asarray(seals, "<u4").tobytes()).decode()}},
        "storage_transformers": [],
    }
