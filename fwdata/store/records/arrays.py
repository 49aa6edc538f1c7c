"""`zarr.json` of the arrays of a store, typed: the fields of Zarr v3 that the reader looks at; others are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fwdata.store.records.base import Count, Record


class GridConfiguration(Record):
    """Configuration of a regular chunk grid."""

    chunk_shape: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Rows and row shape of one file: a chunk, or a shard of chunks."""


class ChunkGridRecord(Record):
    """How an array is cut into files."""

    configuration: GridConfiguration
    """Of the regular grid."""


class KeyConfiguration(Record):
    """Configuration of the names of chunk files."""

    separator: str = "/"
    """Between the chunk's numbers."""


class KeyEncodingRecord(Record):
    """How the files of an array's chunks are named."""

    name: str
    """"default": `c/0/0/..`."""
    configuration: KeyConfiguration = KeyConfiguration()
    """Its configuration."""


class CodecConfiguration(Record):
    """Configuration of a codec; the fields that this reader looks at."""

    endian: str = "little"
    """Byte order, of codec "bytes"."""
    order: tuple[Count, ...] = ()
    """Axes in the order they are stored in, of codec "transpose"."""
    chunk_shape: tuple[Count, ...] = ()
    """Rows and row shape of a chunk inside a shard, of codec "sharding_indexed"."""
    codecs: tuple[CodecRecord, ...] = ()
    """Codecs of the chunks inside a shard."""
    index_codecs: tuple[CodecRecord, ...] = ()
    """Codecs of a shard's index."""
    index_location: str = "end"
    """Where a shard's index lies in its file."""


class CodecRecord(Record):
    """One step from rows to stored bytes (Zarr v3 codec)."""

    name: str
    """"bytes", "crc32c", "zstd", "transpose", "sharding_indexed", or one that zarr-python knows."""
    configuration: CodecConfiguration = Field(default_factory=lambda: CodecConfiguration())
    """Its configuration."""


class SealRecord(Record):
    """What we keep in an array's own attributes."""

    chunk_crc32c: str | None = None
    """base64 of little-endian uint32, one CRC-32C per chunk; absent in arrays written before seals."""


class ArrayAttributes(Record):
    """Attributes of an array."""

    fwdata: SealRecord = SealRecord()
    """What this package adds to an array's metadata."""


class ArrayRecord(Record):
    """`zarr.json` of a Zarr v3 array."""

    node_type: Literal["array"]
    """What it describes."""
    shape: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Rows and row shape."""
    data_type: str
    """dtype by its name in numpy."""
    chunk_grid: ChunkGridRecord
    """How it is cut into files."""
    chunk_key_encoding: KeyEncodingRecord
    """How the files are named."""
    codecs: Annotated[tuple[CodecRecord, ...], Field(min_length=1)]
    """From rows to bytes, in order."""
    attributes: ArrayAttributes = ArrayAttributes()
    """The seal of its chunks."""
