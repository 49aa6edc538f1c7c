"""When the messages of a recording file were logged, from its index: no message is read."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from converters.r1lite import mcap
from converters.r1lite.bags import damage_kinds
from fwdata.errors import BadEpisode


class LogSpan(NamedTuple):
    """First and last log time of a file's messages."""

    first: int
    """Nanoseconds."""
    last: int
    """Nanoseconds."""


def log_span(path: Path) -> LogSpan | None:
    """The span of a .mcap, .db3 or .bag; None where its index is absent or damaged, or its log times stand still.

    Cost: the end of the file, about a millisecond.
    """
    readers = {".mcap": mcap.log_times, ".db3": _sqlite, ".bag": _ros1}
    found = None
    with contextlib.suppress(BadEpisode, OSError):
        found = readers[path.suffix](path)
    if found is None or not 0 < found[0] < found[1]:
        return None
    return LogSpan(*found)


_ENDS = ("min", "max")
"""One query each: both in one read the whole index, two the ends of rosbag2's index."""


def _sqlite(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_connected(path)) as database:
        first, last = (database.execute(f"SELECT {end}(timestamp) FROM messages").fetchone()[0] for end in _ENDS)
        return None if first is None else (int(first), int(last))
    return None


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True)


def _ros1(path: Path) -> tuple[int, int] | None:
    from rosbags.rosbag1 import Reader

    with contextlib.suppress(*damage_kinds()), Reader(path) as reader:
        return (reader.start_time, reader.end_time - 1)
    return None
