"""Where a video file is cut or torn, by its container alone: boxes of an MP4, elements of a Matroska file, packets of a
transport stream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from fwdata.images.boxes import boxes, last_chunk
from fwdata.images.forms import TS_PACKET, form_of

_HEADER, _SEGMENT, _CLUSTER, _GROUP = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xA0
_TOP = frozenset({0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367})
"""Elements of a segment besides clusters (RFC 9559 5.1): seek head, information, tracks, cues and the like."""
_IN_CLUSTER = frozenset({0xE7, 0xA3, 0xA7, 0xAB, 0xAF, 0x5854, 0xA1, 0x9B, 0xFB, 0xFA, 0xA4, 0x8E, 0x75A1, 0x75A2})
"""Times, blocks and what groups of blocks hold."""
_ANYWHERE = frozenset({0xEC, 0xBF})
"""Void and CRC-32."""
_KNOWN = frozenset({_HEADER, _SEGMENT, _CLUSTER, _GROUP}) | _TOP | _IN_CLUSTER | _ANYWHERE

_TABLES = 8
"""Packets of a transport stream that may come before the first of the video: its tables."""
_CLUSTER_HEAD = 64
"""Bytes of a cluster before its first block, at most."""


@dataclass(frozen=True)
class Tear:
    """What a file's structure says of a part that is lost."""

    place: int
    """First byte that is missing or not what it should be."""
    stop: int
    """First byte behind it that reads well again; the size of the file where that is not known."""
    cut: bool
    """Whether it is the file's end that is lost."""
    words: str
    """What is said behind the file's name."""


def tear_of(path: Path) -> Tear | None:
    """Where the container is cut or torn; None where it is whole, or cannot tell. OSError when it cannot be read.

    Cost: a look at every box, cluster and block; of a transport stream all bytes are read.
    """
    form, size = form_of(path), path.stat().st_size
    with path.open("rb") as file:
        if form == "mp4":
            return _of_boxes(file, size)
        if form == "matroska":
            return _of_elements(file, size)
        return _of_packets(file, size) if form == "mpegts" else None


def begins_whole(path: Path, place: int) -> bool:
    """Whether no frame can have been lost in front of the one whose data begin at this byte of the file."""
    form, size = form_of(path), path.stat().st_size
    with path.open("rb") as file:
        if form == "mp4":
            return place == next((first for kind, first, _ in boxes(file, 0, size, True) if kind == b"mdat"), -1)
        if form == "matroska":
            return 0 <= place - file.read(1 << 16).find(_CLUSTER.to_bytes(4)) <= _CLUSTER_HEAD
        tear = _of_packets(file, size) if form == "mpegts" else None
        return form == "mpegts" and place <= _TABLES * TS_PACKET and (tear is None or tear.place > place)


def _cut(size: int, written: int) -> Tear:
    return Tear(size, size, True, f"is cut off at its end: {size} of at least {written} bytes are there")


def _torn(place: int, stop: int) -> Tear:
    return Tear(place, stop, False, f"is damaged at byte {place}")


def _of_boxes(file: IO[bytes], size: int) -> Tear | None:
    place = 0
    for kind, _, end in boxes(file, 0, size, beyond=True):
        if not kind.isalnum():
            return _torn(place, size)
        if end > size:
            return _cut(size, end)
        place = end
    if place < size:
        return _torn(place, size)
    last = last_chunk(file, 0, size)
    if last < size:
        return None
    words = f"has an index that points past its end: to byte {last}, the file has {size} bytes"
    return Tear(size, size, True, words)


def _of_elements(file: IO[bytes], size: int) -> Tear | None:
    """Walks the segment, its clusters and their blocks (RFC 8794: an element is a number, a length and content)."""
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(16)
        number, length, content = _element(head)
        if number in (0xA1, 0xA3) and not any(head[content : content + 1]):  # a block of track 0, which is none
            return _torn(place, size)
        if number not in _KNOWN or (length < 0 and number not in (_SEGMENT, _CLUSTER)):
            return _cut(size, size + 1) if size - place < 12 and number < 0 else _torn(place, size)
        if place + content + length > size:
            return _cut(size, place + content + length)
        place += content if number in (_SEGMENT, _CLUSTER, _GROUP) else content + length
    return None


def _element(head: bytes) -> tuple[int, int, int]:
    """(number, length of the content, bytes of both): a number of -1 where the bytes are none or end too early, a
    length of -1 where it is open."""
    wide = 9 - (head[0].bit_length() if head else 9)
    rest = head[wide:]
    if not 1 <= wide <= 4 or not rest or not rest[0]:
        return -1, 0, 0
    long = 9 - rest[0].bit_length()
    if len(rest) < long:
        return -1, 0, 0
    most = (1 << 7 * long) - 1
    length = int.from_bytes(rest[:long]) & most
    return int.from_bytes(head[:wide]), -1 if length == most else length, wide + long


def _of_packets(file: IO[bytes], size: int) -> Tear | None:
    """Packets of 188 bytes that begin with 47 (ISO 13818-1 2.4.3.2)."""
    whole = size // TS_PACKET
    data = np.fromfile(file, np.uint8, whole * TS_PACKET)
    wrong = np.flatnonzero(data[::TS_PACKET] != 0x47)
    if len(wrong):
        return _torn(int(wrong[0]) * TS_PACKET, int(wrong[-1] + 1) * TS_PACKET)
    return _cut(size, (whole + 1) * TS_PACKET) if size % TS_PACKET else None
