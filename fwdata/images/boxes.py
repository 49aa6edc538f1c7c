"""What only the boxes of an MP4 tell (ISO 14496-12): FFmpeg hands out the first description of a stream alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from fwdata.images.video import without_bit_rate

if TYPE_CHECKING:
    from av.container import InputContainer

_TO_DESCRIPTIONS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_VIDEO = frozenset({b"avc1", b"avc3", b"hvc1", b"hev1", b"av01", b"vp09", b"mp4v"})
"""Kinds of descriptions, of the codecs that are kept as recorded."""

_MOST = 1 << 20
"""Bytes of the descriptions of a stream that are looked at; one has some 200."""


def count_descriptions(container: InputContainer) -> int:
    """Most different descriptions (`stsd` 8.5.2: parameter sets and the like) that a video stream of an MP4 has; 1 for
    other containers.

    Tools that join files without encoding write several, and every frame is of one of them.
    """
    if "mp4" not in container.format.name:
        return 1
    with contextlib.suppress(OSError), Path(container.name).open("rb") as file:
        size = file.seek(0, 2)
        return max((len(set(found)) for found in _descriptions(file, 0, size, _TO_DESCRIPTIONS)), default=1)
    return 1


def _descriptions(file: IO[bytes], start: int, stop: int, path: tuple[bytes, ...]) -> Iterator[list[bytes]]:
    """The descriptions of every stream."""
    for kind, first, end in boxes(file, start, stop):
        if kind != path[0]:
            continue
        if len(path) > 1:
            yield from _descriptions(file, first, end, path[1:])
            continue
        file.seek(first)
        data = file.read(min(end - first, _MOST))
        yield [without_bit_rate(data[low:high]) for low, high in _entries(data)]


def boxes(file: IO[bytes], start: int, stop: int, beyond: bool = False) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte of the content, end) of the boxes between two places; stops at damage. beyond: last of all the
    one that ends behind `stop` too."""
    place = start
    while place + 8 <= stop:
        file.seek(place)
        head = file.read(16)
        length, content = int.from_bytes(head[:4], "big"), 8
        if length == 1:
            length, content = int.from_bytes(head[8:16], "big"), 16
        end = stop if length == 0 else place + length
        if end < place + content or (end > stop and not beyond):
            return
        yield head[4:8], place + content, end
        place = end


_TO_TABLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_MOST_OFFSETS = 64 << 20
"""Bytes of a list of places that are read."""


def last_chunk(file: IO[bytes], start: int, stop: int, path: tuple[bytes, ...] = _TO_TABLES) -> int:
    """The furthest place in the file where an MP4's index says that data begin (`stco`, `co64` 8.7.5); -1: none."""
    found = -1
    for kind, first, end in boxes(file, start, stop):
        if path and kind == path[0]:
            found = max(found, last_chunk(file, first, end, path[1:]))
        elif not path and kind in (b"stco", b"co64"):
            file.seek(first + 8)  # version, flags and number of entries come first
            data = file.read(min(end - first - 8, _MOST_OFFSETS))
            wide = 4 if kind == b"stco" else 8
            places = np.frombuffer(data[: len(data) // wide * wide], f">u{wide}")
            found = max(found, int(places.max(initial=0)))
    return found


def _entries(data: bytes) -> Iterator[tuple[int, int]]:
    """(first, end) of the descriptions of video in the content of `stsd`: behind version, flags and their number, each
    of size and kind."""
    place = 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if length < 8:
            return
        if data[place + 4 : place + 8] in _VIDEO:
            yield place, place + length
        place += length
