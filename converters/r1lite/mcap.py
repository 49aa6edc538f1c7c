"""MCAP files (https://mcap.dev/spec) read front to back: what rosbags' reader refuses is read here too.

That is: truncated files and damaged chunks (`recover`), files without an index whose messages are not in log order,
and channels of foreign encodings beside the wanted ones. Messages come in the order they were written; one chunk is
held at a time, checksums are always compared, and a chunk that claims more than `MAX_RECORD` is never unpacked.
"""

from __future__ import annotations

import bz2
import contextlib
import os
import struct
import sys
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import lz4.frame  # type: ignore[import-untyped]

from fwdata.errors import BadEpisode

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"\x89MCAP0\r\n"
FOOTER_BYTES = 37
MAX_RECORD = 256 << 20
"""Largest record, and largest unpacked chunk, that is read; recorders write chunks of 1 to 4 MiB."""

_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _CHUNK_INDEX, _STATISTICS, _DATA_END = (
    0x02,
    0x03,
    0x04,
    0x05,
    0x06,
    0x08,
    0x0B,
    0x0F,
)
_RECORD, _MESSAGE_HEAD = struct.Struct("<BQ"), struct.Struct("<HIQQ")


class Truncated(BadEpisode):
    """The file has no end: its recorder was stopped, or it was copied in part."""


@dataclass(frozen=True)
class Channel:
    """Where a message comes from."""

    topic: str
    """Name of the topic."""
    msgtype: str
    """Name of the message type."""
    encoding: str
    """How messages are encoded, as the file names it."""
    definition: str
    """Text that defines the type."""
    definition_encoding: str
    """Language of `definition`, as the file names it."""


@dataclass
class McapDamage:
    """What `recover` left out."""

    truncated: bool = False
    """Whether the file has no end."""
    chunks: int = 0
    """Damaged chunks that were left out."""


class _Broken(Exception):
    """A record that does not hold what its header says."""


@dataclass
class _Tables:
    """Schemas and channels met so far. ids: of all channels; wanted: those of the topics, by id."""

    topics: Collection[str]
    schemas: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    ids: set[int] = field(default_factory=set)
    wanted: dict[int, Channel] = field(default_factory=dict)

    def add_schema(self, data: bytes) -> None:
        fields = _Fields(data)
        key = fields.number("<H")
        name, encoding = fields.text(), fields.text()
        self.schemas[key] = (name, encoding, fields.block().decode(errors="replace"))

    def add_channel(self, data: bytes) -> None:
        fields = _Fields(data)
        key, schema = fields.number("<H"), fields.number("<H")
        topic, encoding = fields.text(), fields.text()
        self.ids.add(key)
        if topic in self.topics:
            msgtype, definition_encoding, definition = self.schemas.get(schema, ("", "", ""))
            self.wanted[key] = Channel(topic, msgtype, encoding, definition, definition_encoding)


def _topic(channel: bytes) -> str:
    fields = _Fields(channel)
    fields.position = 4
    return fields.text()


class _Fields:
    """Reads the fields of one record in order; _Broken when they do not fit."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def number(self, layout: str) -> int:
        try:
            (value,) = struct.unpack_from(layout, self.data, self.position)
        except struct.error:
            raise _Broken("a record is shorter than its fields") from None
        self.position += struct.calcsize(layout)
        return int(value)

    def block(self) -> bytes:
        size = self.number("<I")
        found = self.data[self.position : self.position + size]
        if len(found) != size:
            raise _Broken("a record is shorter than its fields")
        self.position += size
        return found

    def text(self) -> str:
        return self.block().decode(errors="replace")


def read_messages(
    path: Path, topics: Collection[str], recover: bool = False, damage: McapDamage | None = None
) -> Iterator[tuple[Channel, int, bytes]]:
    """(channel, log time in ns, payload) of every message of the wanted topics, in written order.

    recover: read what a truncated or damaged file still holds (counted in `damage`) instead of raising. Raises
    Truncated when the file has no end, BadEpisode for other damage. Cost: one sequential read; chunks that the index
    shows to hold none of the topics are passed over.
    """
    damage = damage if damage is not None else McapDamage()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(MAGIC)) != MAGIC:
            raise BadEpisode(
                f"{path.name} is {'empty' if not size else 'no MCAP file (wrong first bytes)'}; fetch it again"
            )
        damage.truncated = not _has_end(file, size)
        if damage.truncated and not recover:
            raise Truncated(f"{path.name} is truncated: its end mark is missing")
        try:
            tables, skip = _Tables(topics), set[int]()
            if not damage.truncated:
                with contextlib.suppress(_Broken):  # a broken summary is not needed
                    tables, skip = _summary(file, size, topics)
            file.seek(len(MAGIC))
            yield from _records(file, size, tables, skip, recover, damage)
        except _Broken as error:
            raise BadEpisode(f"{path.name} is damaged: {error}; --recover may read what is left") from None


def _has_end(file: BinaryIO, size: int) -> bool:
    if size < FOOTER_BYTES + len(MAGIC):
        return False
    file.seek(-FOOTER_BYTES, os.SEEK_END)
    end = file.read(FOOTER_BYTES)
    return end[-len(MAGIC) :] == MAGIC and end[0] == _FOOTER


def _summary(file: BinaryIO, size: int, topics: Collection[str]) -> tuple[_Tables, set[int]]:
    """What the end of the file repeats: schemas and channels, and the offsets of chunks without the topics' messages.

    A chunk that is passed over may hold the only other copy of a channel, so both come from here or neither does.
    """
    tables, chunks = _Tables(topics), []
    for kind, body in _summary_records(file, size):
        if kind == _SCHEMA:
            tables.add_schema(body)
        elif kind == _CHANNEL:
            tables.add_channel(body)
        elif kind == _CHUNK_INDEX:
            chunks.append(_chunk_index(body))
    return tables, {at for at, ids in chunks if ids and ids <= tables.ids and not ids & tables.wanted.keys()}


def _summary_records(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """(kind, body) of every record at the end of the file; none where it has no summary."""
    file.seek(size - FOOTER_BYTES + _RECORD.size)
    (start,) = struct.unpack("<Q", file.read(8))
    if not len(MAGIC) <= start < size - FOOTER_BYTES or size - start > MAX_RECORD:
        return
    file.seek(start)
    data, position = file.read(size - FOOTER_BYTES - start), 0
    while position + _RECORD.size <= len(data):
        kind, length = _RECORD.unpack_from(data, position)
        position += _RECORD.size
        yield kind, data[position : position + length]
        position += length


def topics_in(path: Path) -> set[str]:
    """All topics that the end of a file lists; none for a file without a summary, or a damaged one."""
    with path.open("rb") as file, contextlib.suppress(_Broken, struct.error, UnicodeDecodeError, ValueError):
        size = os.fstat(file.fileno()).st_size
        if _has_end(file, size):
            return {_topic(body) for kind, body in _summary_records(file, size) if kind == _CHANNEL}
    return set()


def log_times(path: Path) -> tuple[int, int] | None:
    """(first, last) log time in ns that the end of the file states; None where it is cut off or states none."""
    first, last = [], []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(MAGIC)) != MAGIC or not _has_end(file, size):
            return None
        for kind, body in _summary_records(file, size):
            if kind not in (_CHUNK_INDEX, _STATISTICS):
                continue
            try:
                begin, end = struct.unpack_from("<QQ", body, 0 if kind == _CHUNK_INDEX else 26)
            except struct.error:
                return None
            if end:
                first.append(begin)
                last.append(end)
    return (min(first), max(last)) if first else None


def _chunk_index(body: bytes) -> tuple[int, set[int]]:
    fields = _Fields(body)
    fields.position = 16
    offset = fields.number("<Q")
    fields.number("<Q")
    entries = fields.block()
    return offset, {key for key, _ in struct.iter_unpack("<HQ", entries[: len(entries) // 10 * 10])}


def _records(
    file: BinaryIO, size: int, tables: _Tables, skip: set[int], recover: bool, damage: McapDamage
) -> Iterator[tuple[Channel, int, bytes]]:
    """Messages of the data section, chunked or not."""
    while True:
        start = file.tell()
        head = file.read(_RECORD.size)
        if len(head) < _RECORD.size:
            return _ended("the file ends inside a record", recover)
        kind, length = _RECORD.unpack(head)
        if kind in (_DATA_END, _FOOTER):
            return None
        rest = size - file.tell()
        if length > rest or kind == 0:
            if recover and kind == _CHUNK:
                yield from _cut_chunk(file.read(min(rest, MAX_RECORD)), tables)
            return _ended(f"the record at byte {start} claims {length} bytes, {rest} are left", recover)
        if kind == _MESSAGE:
            yield from _message(file, length, tables)
        elif kind == _CHUNK and start not in skip:
            try:
                messages = list(_split(_unpacked(_bounded(file, length)), tables))
            except _Broken as error:
                if not recover:
                    raise _Broken(f"the chunk at byte {start}: {error}") from None
                damage.chunks += 1
                file.seek(start + _RECORD.size + length)
                continue
            yield from messages
        elif kind in (_SCHEMA, _CHANNEL):
            (tables.add_schema if kind == _SCHEMA else tables.add_channel)(_bounded(file, length))
        else:
            file.seek(length, os.SEEK_CUR)


def _ended(reason: str, recover: bool) -> None:
    if not recover:
        raise _Broken(reason)


def _bounded(file: BinaryIO, length: int) -> bytes:
    if length > MAX_RECORD:
        raise _Broken(f"a record claims {length >> 20} MiB, at most {MAX_RECORD >> 20} are read")
    return file.read(length)


def _message(file: BinaryIO, length: int, tables: _Tables) -> Iterator[tuple[Channel, int, bytes]]:
    if length < _MESSAGE_HEAD.size:
        raise _Broken("a message is shorter than its header")
    key, _, log_time, _ = _MESSAGE_HEAD.unpack(file.read(_MESSAGE_HEAD.size))
    channel = tables.wanted.get(key)
    if channel is None:
        file.seek(length - _MESSAGE_HEAD.size, os.SEEK_CUR)
    else:
        yield channel, log_time, _bounded(file, length - _MESSAGE_HEAD.size)


def _unpacked(body: bytes) -> bytes:
    """Records of a chunk, unpacked and compared with its checksum (0: none was written)."""
    fields = _Fields(body)
    fields.position = 16
    size, checksum = fields.number("<Q"), fields.number("<I")
    compression = fields.text()
    length = fields.number("<Q")
    packed = body[fields.position : fields.position + length]
    if len(packed) != length:
        raise _Broken("its data are cut short")
    if size > MAX_RECORD:
        raise _Broken(f"it claims {size >> 20} MiB unpacked, at most {MAX_RECORD >> 20} are read")
    data = _decompress(packed, compression, size)
    if len(data) != size:
        raise _Broken(f"it unpacks to another size than {size} bytes")
    if checksum and zlib.crc32(data) != checksum:
        raise _Broken("checksum mismatch")
    return data


_UNPACKERS: dict[str, Callable[[], Any]] = {
    "zstd": zstd.ZstdDecompressor,
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "bz2": bz2.BZ2Decompressor,
}


def _decompress(packed: bytes, compression: str, size: int) -> bytes:
    """At most size + 1 bytes."""
    if compression == "":
        return packed
    if compression not in _UNPACKERS:
        raise _Broken(f"its compression {compression!r} is unknown (expected zstd, lz4 or none)")
    parts, left = [], size + 1
    try:
        while packed and left > 0:
            unpacker = _UNPACKERS[compression]()
            parts.append(unpacker.decompress(packed, max_length=left))
            left -= len(parts[-1])
            packed = unpacker.unused_data if unpacker.eof else b""
    except (zstd.ZstdError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise _Broken(f"it cannot be unpacked ({error})") from None
    return b"".join(parts)


def _split(data: bytes, tables: _Tables) -> Iterator[tuple[Channel, int, bytes]]:
    """Messages of a chunk's records."""
    position, size, wanted = 0, len(data), tables.wanted
    while position < size:
        if position + _RECORD.size > size:
            raise _Broken("it ends inside a record")
        kind, length = _RECORD.unpack_from(data, position)
        position += _RECORD.size
        end = position + length
        if end > size:
            raise _Broken("it ends inside a record")
        if kind == _MESSAGE:
            if length < _MESSAGE_HEAD.size:
                raise _Broken("a message is shorter than its header")
            key, _, log_time, _ = _MESSAGE_HEAD.unpack_from(data, position)
            if key in wanted:
                yield wanted[key], log_time, data[position + _MESSAGE_HEAD.size : end]
        elif kind == _SCHEMA:
            tables.add_schema(data[position:end])
        elif kind == _CHANNEL:
            tables.add_channel(data[position:end])
        position = end


def _cut_chunk(body: bytes, tables: _Tables) -> Iterator[tuple[Channel, int, bytes]]:
    """Complete messages of a last chunk that was cut, where it is not compressed."""
    try:
        fields = _Fields(body)
        fields.position = 28
        if fields.text() == "":
            fields.number("<Q")
            yield from _split(body[fields.position :], tables)
    except _Broken:
        return


def unpack(data: bytes, compression: str) -> bytes:
    """A packed message or chunk ("zstd", "lz4" or "bz2"); ValueError when it is damaged or absurdly large."""
    try:
        plain = _decompress(data, compression, MAX_RECORD)
    except _Broken as error:
        raise ValueError(f"compressed data: {error}") from None
    if len(plain) > MAX_RECORD:
        raise ValueError(f"compressed data unpack to more than {MAX_RECORD >> 20} MiB")
    return plain
