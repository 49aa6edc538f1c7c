"""Messages of one recording, whatever container it was written in: MCAP, ROS 2 sqlite (.db3) or ROS 1 (.bag).

Decoded by rosbags from the definitions in the file, without a ROS installation. Only definitions of wanted topics are
looked at, so unknown types beside them cannot break the reading.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from converters.r1lite import mcap
from converters.shared.content import not_content
from fwdata.errors import BadEpisode

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.rosbag1.reader import Chunk
    from rosbags.typesys.store import Typestore

SUFFIXES = (".mcap", ".db3", ".bag")
UNSET_NS = 10**18
"""Header stamps before 10^9 s (the year 2001) were never set."""

TAKE_PAUSE_NS = 2 * 10**9
"""Longest pause between two files of one recording, which a recorder splits between two messages."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

type Decode = Callable[[bytes], Any]


class Message(NamedTuple):
    """One message."""

    topic: str
    """Its topic."""
    log_ns: int
    """When it was recorded, nanoseconds."""
    value: Any
    """The decoded message, whose fields depend on its type."""


def header_stamp(value: Any) -> int | None:
    """Header stamp in int64 nanoseconds; None for types without one."""
    stamp = value.header.stamp if hasattr(value, "header") else getattr(value, "timestamp", None)
    return None if stamp is None else int(stamp.sec) * 10**9 + int(stamp.nanosec)


@dataclass
class Bags:
    """The files of one recording."""

    files: tuple[Path, ...]
    """In their order; each goes on where the one before ends."""
    recover: bool = False
    """Whether damaged chunks and a missing end are left out instead of refused."""
    damage: mcap.McapDamage = field(default_factory=mcap.McapDamage)
    """What `recover` left out; filled by a pass over the messages."""
    spans: list[tuple[str, int, int]] = field(default_factory=list)
    """(file, first and last log time in ns of the messages asked for) of every file with any; filled by a pass."""
    topics: set[str] = field(default_factory=set)
    """All topics of the files, as far as their indexes tell; filled by a pass."""

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Every message of the topics: file after file, within a file in written (MCAP) or log order.

        The order is the same in every pass. Raises BadEpisode naming the file for damage of any kind. Cost: one
        sequential read; some 80,000 decoded messages per second.
        """
        self.damage, self.spans = mcap.McapDamage(), []
        for path in self.files:
            other = not_content(path, path.name)
            if other is not None:
                raise BadEpisode(other)
            first = last = None
            for message in self._mcap(path, topics) if path.suffix == ".mcap" else _rosbags(path, topics, self.topics):
                first = message.log_ns if first is None else min(first, message.log_ns)
                last = message.log_ns if last is None else max(last, message.log_ns)
                yield message
            if first is not None and last is not None:
                self.spans.append((path.name, first, last))

    def check_one_take(self) -> None:
        """BadEpisode where a file does not go on where the one before ends, after a pass: they are separate takes."""
        for (before, _, end), (after, begin, _) in pairwise(self.spans):
            if not -TAKE_PAUSE_NS <= begin - end <= TAKE_PAUSE_NS:
                how = f"{(begin - end) / 1e9:.1f} s after" if begin > end else f"{(end - begin) / 1e9:.1f} s before"
                raise BadEpisode(
                    f"{after} begins {how} {before} ends: files of a split recording go on at once, these are takes of "
                    "their own; option split_files = separate takes each file as a recording, gap = keep joins them"
                )

    def _mcap(self, path: Path, topics: Collection[str]) -> Iterator[Message]:
        self.topics |= mcap.topics_in(path)
        decoders: dict[mcap.Channel, Decode] = {}
        damage = mcap.McapDamage()
        for channel, log_ns, data in mcap.read_messages(path, topics, self.recover, damage):
            if channel not in decoders:
                decoders[channel] = _mcap_decoder(path, channel)
            yield _message(path, channel.topic, log_ns, data, decoders[channel])
        self.damage = mcap.McapDamage(self.damage.truncated or damage.truncated, self.damage.chunks + damage.chunks)


def _message(path: Path, topic: str, log_ns: int, data: bytes, decode: Decode) -> Message:
    from rosbags.serde import SerdeError

    try:
        return Message(topic, log_ns, decode(data))
    except (SerdeError, struct.error, ValueError, LookupError, AssertionError, OverflowError) as error:
        raise BadEpisode(f"{path.name}: a message of {topic} cannot be decoded ({error or 'too short'})") from None


def _mcap_decoder(path: Path, channel: mcap.Channel) -> Decode:
    if channel.encoding != "cdr":
        raise BadEpisode(f"{path.name}: {channel.topic} is encoded as {channel.encoding!r}, expected 'cdr'")
    kind = {"ros2msg": "msg", "ros2idl": "idl", "omgidl": "idl", "": "none"}.get(channel.definition_encoding)
    if kind is None:
        raise BadEpisode(
            f"{path.name}: the schema of {channel.topic} is encoded as {channel.definition_encoding!r}, "
            "expected ros2msg"
        )
    return _decoder(path, channel.topic, channel.msgtype, kind, channel.definition, ros1=False)


def _decoder(path: Path, topic: str, msgtype: str, kind: str, definition: str, ros1: bool) -> Decode:
    """A function from payload to message, from the definition in the file or, where there is none, ROS 2's own."""
    from rosbags.typesys import TypesysError
    from rosbags.typesys.msg import normalize_msgtype

    try:
        msgtype = normalize_msgtype(msgtype)
        store = _typestore(msgtype, kind, definition)
    except (TypesysError, KeyError, ValueError) as error:
        raise BadEpisode(f"{path.name}: the definition of {topic} ({msgtype}) cannot be read: {error}") from None
    if msgtype not in store.fielddefs:
        raise BadEpisode(f"{path.name}: {topic} has the unknown type {msgtype}, which the file does not define")
    if ros1:
        return lambda data: store.deserialize_ros1(data, msgtype)
    return lambda data: store.deserialize_cdr(_plain(data), msgtype)


@lru_cache(maxsize=64)
def _typestore(msgtype: str, kind: str, definition: str) -> Typestore:
    """Types of one definition. Kept: rosbags compiles a decoder for each (20 ms), every file has the same few."""
    from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

    if kind == "none":
        return get_typestore(Stores.ROS2_HUMBLE)
    store = get_typestore(Stores.EMPTY)
    if kind == "msg":
        store.register(get_types_from_msg(definition, msgtype))
    else:
        for text in _idl_texts(definition):
            store.register(get_types_from_idl(text))
    return store


def _idl_texts(definition: str) -> list[str]:
    """The files of an IDL bundle: sections that begin with a line of 80 `=` and a line `IDL: name`."""
    line = "=" * 80 + "\n"
    if not definition.startswith(f"{line}IDL: "):
        return [definition]
    return [section.partition("\n")[2] for section in definition.split(line)[1:]]


def _plain(data: bytes) -> bytes:
    """The message of a bag whose recorder compressed each one (`--compression-mode message`)."""
    return mcap.unpack(data, "zstd") if data[:4] == _ZSTD_MAGIC else data


def _rosbags(path: Path, topics: Collection[str], every: set[str]) -> Iterator[Message]:
    """Messages of a .bag or .db3 through rosbags' readers; their errors become BadEpisode. All topics go to `every`."""
    ros1 = path.suffix == ".bag"
    damage = damage_kinds()
    messages = _raw_messages(path, topics, ros1, every)
    decoders: dict[int, Decode] = {}
    while True:
        try:
            connection, log_ns, data = next(messages)
        except StopIteration:
            return
        except damage as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the machine's trouble, not the file's
            raise BadEpisode(_unreadable(path, ros1, error)) from None
        if connection.id not in decoders:
            kind = connection.msgdef.format.name.lower()
            decoders[connection.id] = _decoder(
                path, connection.topic, connection.msgtype, kind, connection.msgdef.data, ros1
            )
        yield _message(path, connection.topic, log_ns, data, decoders[connection.id])


def damage_kinds() -> tuple[type[Exception], ...]:
    """What rosbags' readers raise for a damaged file: they check their input with exceptions of many kinds."""
    import apsw
    from rosbags.rosbag1 import ReaderError as Reader1Error
    from rosbags.rosbag2 import ReaderError as Reader2Error

    own = Reader1Error, Reader2Error, apsw.Error, struct.error
    return (*own, OSError, ValueError, LookupError, AssertionError, RuntimeError, EOFError, TypeError)


def _unreadable(path: Path, ros1: bool, error: Exception) -> str:
    what = str(error) or type(error).__name__
    if ros1:
        return f"{path.name} cannot be read ({what}); if its recording was cut off, run `rosbag reindex {path.name}`"
    return f"{path.name} cannot be read ({what}); fetch it again, or leave it out (--exclude)"


def _raw_messages(
    path: Path, topics: Collection[str], ros1: bool, every: set[str]
) -> Iterator[tuple[Connection, int, bytes]]:
    from rosbags.rosbag1 import Reader as Reader1
    from rosbags.rosbag2 import Reader as Reader2

    with Reader1(path) if ros1 else Reader2(path) as reader:
        if isinstance(reader, Reader1):
            reader.chunks = {at: chunk._replace(decompressor=_bounded(chunk)) for at, chunk in reader.chunks.items()}
        every.update(connection.topic for connection in reader.connections)
        wanted = [c for c in reader.connections if c.topic in topics]
        if wanted:  # none would mean all
            yield from reader.messages(wanted)


def _bounded(chunk: Chunk) -> Callable[[bytes], bytes]:
    """The chunk's decompressor with a limit: rosbags' own unpacks whatever the bytes claim."""
    from rosbags.rosbag1.reader import decompressors

    name = next(name for name, function in decompressors.items() if function is chunk.decompressor)
    return chunk.decompressor if name == "none" else lambda data: mcap.unpack(data, name)
