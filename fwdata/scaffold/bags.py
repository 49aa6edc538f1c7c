"""Bags of an unknown robot: what their topics hold, and a short bag for a fixture. ROS 1 files and ROS 2 folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwdata.errors import UsageError, one_line

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader

IMAGES = ("sensor_msgs/msg/CompressedImage",)
"""Types that a draft reads as cameras."""
VECTORS = {
    "sensor_msgs/msg/JointState": "position",
    "std_msgs/msg/Float32MultiArray": "data",
    "std_msgs/msg/Float64MultiArray": "data",
}
"""Type of a message -> its field of numbers that a draft reads."""
FIXTURE_NS = 1_500_000_000
"""Length of a fixture, nanoseconds."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag."""

    name: str
    """As the bag has it."""
    kind: str
    """Type of its messages."""
    count: int
    """Messages."""
    size: tuple[int, int] = (0, 0)
    """(height, width) of the first image; (0, 0) of other types."""


def is_bag(path: Path) -> bool:
    """Whether a path is a ROS 1 bag or the folder of a ROS 2 bag."""
    return (path.is_file() and path.suffix == ".bag") or (path / "metadata.yaml").is_file()


@contextmanager
def opened(path: Path) -> Iterator[AnyReader]:
    """A bag for reading; UsageError where it cannot be read."""
    from rosbags.highlevel import AnyReader, AnyReaderError

    try:
        with AnyReader([path]) as reader:
            yield reader
    except (AnyReaderError, OSError) as error:
        raise UsageError(f"--from {path} cannot be read as a bag: {one_line(str(error))}") from None


def read_topics(path: Path) -> tuple[tuple[Topic, ...], float]:
    """The topics of a bag, sorted, and the rate in Hz of the first camera, 10 where there is none."""
    import simplejpeg

    found: list[Topic] = []
    rate = 10.0
    with opened(path) as reader:
        for connection in sorted(reader.connections, key=lambda c: c.topic):
            size = (0, 0)
            if connection.msgtype in IMAGES and connection.msgcount:
                _, _, raw = next(reader.messages([connection]))
                message: Any = reader.deserialize(raw, connection.msgtype)
                try:
                    height, width, _, _ = simplejpeg.decode_jpeg_header(bytes(message.data))
                except ValueError:
                    continue  # another coding, which a draft does not read
                size = int(height), int(width)
                if all(not topic.size[0] for topic in found) and connection.msgcount > 1:
                    stamps = [stamp for _, stamp, _ in reader.messages([connection])]
                    rate = round((len(stamps) - 1) * 1e9 / (stamps[-1] - stamps[0]), 1)
            found.append(Topic(connection.topic, connection.msgtype, connection.msgcount, size))
    return tuple(found), rate


def write_short_bag(source: Path, target: Path, topics: frozenset[str]) -> None:
    """The first `FIXTURE_NS` of some topics, as a bag of the same kind."""
    from rosbags.rosbag1 import Writer as Writer1
    from rosbags.rosbag2 import Writer as Writer2

    with opened(source) as reader:
        writer: Any = Writer2(target, version=9) if reader.is2 else Writer1(target)
        with writer:
            chosen = [c for c in reader.connections if c.topic in topics]
            made: dict[int, Any] = {}
            for c in chosen:
                definition = {} if reader.is2 else {"msgdef": c.msgdef.data, "md5sum": c.digest}
                made[c.id] = writer.add_connection(c.topic, c.msgtype, typestore=reader.typestore, **definition)
            for connection, stamp, raw in reader.messages(chosen, stop=reader.start_time + FIXTURE_NS):
                writer.write(made[connection.id], stamp, raw)
