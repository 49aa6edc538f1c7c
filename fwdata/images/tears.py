"""Where a video file is cut or torn, by its container alone: boxes of an MP4, elements of a Matroska file, packets of a
transport stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

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
_SYNC, _IN_SYNC = 0x47, 5
"""What a packet of a transport stream begins with, and how many of them follow each other by more than chance."""
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
    since: int
    """First byte whose frames may be wrong: bytes that were left out shift what comes behind them; of a transport
    stream the frame in front of `place` may be too, as nothing tells where it ends."""


def tears_of(path: Path) -> tuple[Tear, ...]:
    """Where the container is cut or torn, in order; nothing where it is whole or cannot tell. OSError when it cannot
    be read.

    Cost: a look at every box, cluster and block; of a transport stream all bytes are read.
    """
    form, size = form_of(path), path.stat().st_size
    with path.open("rb") as file:
        if form == "mp4":
            return tuple(_of_boxes(file, size))
        if form == "matroska":
            return tuple(_of_elements(file, size))
        return tuple(_of_packets(file, size)) if form == "mpegts" else ()


def begins_whole(path: Path, place: int, tears: tuple[Tear, ...]) -> bool:
    """Whether no frame can have been lost in front of the one whose data begin at this byte. tears: of `tears_of`."""
    form, size = form_of(path), path.stat().st_size
    if any(tear.place <= place for tear in tears if not tear.cut):
        return False
    with path.open("rb") as file:
        if form == "mp4":
            return place == next((first for kind, first, _ in boxes(file, 0, size, True) if kind == b"mdat"), -1)
        if form == "matroska":
            return 0 <= place - file.read(1 << 16).find(_CLUSTER.to_bytes(4)) <= _CLUSTER_HEAD
    return form == "mpegts" and place <= _TABLES * TS_PACKET


def _cut(size: int, written: int) -> Tear:
    return Tear(size, size, True, f"is cut off at its end: {size} of at least {written} bytes are there", size)


def _torn(file: IO[bytes], place: int, stop: int, last: int) -> Tear:
    """last: where what seemed to end at `place` begins. Where zeros follow, it did end there."""
    file.seek(place)
    return Tear(place, stop, False, f"is damaged at byte {place}", last if any(file.read(8)) else place)


def _of_boxes(file: IO[bytes], size: int) -> Iterator[Tear]:
    place = last = 0
    for kind, first, end in boxes(file, 0, size, beyond=True):
        if not kind.isalnum():
            break
        if end > size:
            yield _cut(size, end)
            return
        place, last = end, first
    if place < size:
        yield _torn(file, place, size, last)
        return
    reach = last_chunk(file, 0, size)
    if reach >= size:
        words = f"has an index that points past its end: to byte {reach}, the file has {size} bytes"
        yield Tear(size, size, True, words, size)


def _of_elements(file: IO[bytes], size: int) -> Iterator[Tear]:
    """Walks the segment, its clusters and their blocks (RFC 8794: an element is a number, a length and content); behind
    damage from the next cluster on."""
    place = last = 0
    while place < size:
        file.seek(place)
        head = file.read(16)
        number, length, content = _element(head)
        inside = number in (_SEGMENT, _CLUSTER, _GROUP)
        no_track = number in (0xA1, 0xA3) and not any(head[content : content + 1])  # a block of track 0, which is none
        if number not in _KNOWN or (length < 0 and not inside) or no_track:
            if number < 0 and size - place < 12:
                yield _cut(size, size + 1)
                return
            stop = _next_cluster(file, place + 1, size)
            yield _torn(file, place, stop, last)
            place = last = stop
            continue
        if place + content + length > size:
            yield _cut(size, place + content + length)
            if number != _SEGMENT:
                return
        last = place
        place += content if inside else content + length


def _next_cluster(file: IO[bytes], place: int, size: int) -> int:
    """First byte of the next cluster; the file's size where there is none."""
    wanted, step = _CLUSTER.to_bytes(4), 1 << 20
    while place < size:
        file.seek(place)
        found = file.read(step + 3).find(wanted)
        if found >= 0:
            return place + found
        place += step
    return size


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


def _of_packets(file: IO[bytes], size: int) -> Iterator[Tear]:
    """Packets of 188 bytes that begin with 47 (ISO 13818-1 2.4.3.2); behind damage from where several do again."""
    data = np.fromfile(file, np.uint8, size)
    place = 0
    while size - place >= TS_PACKET:
        whole = (size - place) // TS_PACKET * TS_PACKET
        wrong = np.flatnonzero(data[place : place + whole : TS_PACKET] != _SYNC)
        if not len(wrong):
            break
        torn = place + int(wrong[0]) * TS_PACKET
        place = _next_packets(data, torn + 1)
        yield Tear(torn, place, False, f"is damaged at byte {torn}", torn)
    if (size - place) % TS_PACKET:
        yield _cut(size, place + ((size - place) // TS_PACKET + 1) * TS_PACKET)


def _next_packets(data: NDArray[np.uint8], place: int) -> int:
    """First byte from which packets follow each other again, as many as are left but at most `_IN_SYNC`."""
    while place < len(data):
        begins = place + np.flatnonzero(data[place : place + (1 << 16)] == _SYNC)
        for begin in begins.tolist():
            if (data[begin : begin + _IN_SYNC * TS_PACKET : TS_PACKET] == _SYNC).all():
                return int(begin)
        place += 1 << 16
    return len(data)
