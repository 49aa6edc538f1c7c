"""Where a video file is cut or torn, by its container alone: boxes of an MP4, elements of a Matroska file, packets of a
transport stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
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

_HEAD, _TEXT = 24, bytes([9, 10, 13, *range(32, 127)])
"""Bytes that tell text from coded data, and those of text."""
_TABLES = 8
"""Packets of a transport stream that may come before the first of the video: its tables."""
_SYNC, _IN_SYNC = 0x47, 5
"""What a packet of a transport stream begins with, and how many of them follow each other by more than chance."""
_PITCHES, _LOOK = {TS_PACKET: 0, 192: 4, 204: 0}, 1 << 20
"""Bytes from one packet to the next, in M2TS and with parity behind each too -> bytes in front of the first (the time
stamp of M2TS); how far a file is looked at to tell which."""
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
    """First byte whose frames may be wrong: bytes that were left out shift what comes behind them."""
    whole_in_front: bool = False
    """Of a transport stream, whether the frame in front of `place` is known to be whole; most often nothing tells where
    it ends."""


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
    """last: where what seemed to end at `place` begins. Where filling or text follows, it did end there."""
    file.seek(max(place - 8, 0))
    before, behind = file.read(min(place, 8)), file.read(_HEAD)
    fill = not any(behind[:8])
    if len(behind) == _HEAD:
        fill |= len(set(behind)) == 1 and len(before[-4:].strip(behind[:1])) > 0
        fill |= not behind.translate(None, _TEXT) and len(before.translate(None, _TEXT)) > 0
    return Tear(place, stop, False, f"is damaged at byte {place}", place if fill else last)


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
        others = {end: min(kind) >= 0x20 for kind, _, end in boxes(file, place, size)}  # kinds of a writer's own
        yield _torn(file, place, size, place if size in others and all(others.values()) else last)
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
            if number > 0xFFFF and length >= 0 and _is_followed(file, place + content + length, size):
                place += content + length  # of another version, or of the writer's own
                continue
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


def _is_followed(file: IO[bytes], place: int, size: int) -> bool:
    """Whether an element of a segment, or the end of the file, is at a place."""
    file.seek(min(place, size))
    return place == size or int.from_bytes(file.read(4)) in _TOP | {_CLUSTER}


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
    """Packets that begin with 47 (ISO 13818-1 2.4.3.2); behind damage from where several do again."""
    data = np.fromfile(file, np.uint8, size)
    wide = max(_PITCHES, key=lambda pitch: _in_sync(data[:_LOOK], pitch))
    place = stamp = _PITCHES[wide]
    while size - place >= TS_PACKET:
        count = (size - place + stamp) // wide
        wrong = np.flatnonzero(data[place : place + count * wide : wide] != _SYNC)
        if not len(wrong):
            break
        torn = place + int(wrong[0]) * wide
        place = _next_packets(data, torn + 1, wide)
        if size - place < TS_PACKET:
            place = size
        whole = torn == stamp and place - torn < wide  # it begins inside of a packet
        if place == size and (data[torn:] == data[torn]).all():
            whole = _ended(data, torn, wide, int(data[torn]))
        yield Tear(torn, place, False, f"is damaged at byte {torn}", torn, whole)
    if place < size and (size - place + stamp) % wide:
        last = place + (size - place + stamp) // wide * wide
        yield replace(_cut(size, last + wide - stamp), whole_in_front=_ended(data, last, wide))


def _in_sync(data: NDArray[np.uint8], pitch: int) -> int:
    """How often a packet seems to follow another one at this distance."""
    return int(np.count_nonzero((data[:-pitch] == _SYNC) & (data[pitch:] == _SYNC)))


def _next_packets(data: NDArray[np.uint8], place: int, wide: int) -> int:
    """First byte from which packets follow each other again, as many as are left but at most `_IN_SYNC`."""
    while place < len(data):
        begins = place + np.flatnonzero(data[place : place + (1 << 16)] == _SYNC)
        for begin in begins.tolist():
            if (data[begin : begin + _IN_SYNC * wide : wide] == _SYNC).all():
                return int(begin)
        place += 1 << 16
    return len(data)


def _ended(data: NDArray[np.uint8], stop: int, wide: int, fill: int = -1) -> bool:
    """Whether the last frame in front of a place is whole: the last packet of every stream of video is filled up, as
    only that at the end of a frame's data is (ISO 13818-1 2.4.3.5). fill: what the file goes on with, and a packet that
    was not written to its end ends with."""
    begins = np.arange(stop % wide, stop - TS_PACKET + 1, wide)
    begins = begins[(data[begins] == _SYNC) & (data[begins + 3] & 0x10 > 0)]  # those with data
    numbers = (data[begins + 1] & 0x1F).astype(np.int64) << 8 | data[begins + 2]
    extra = np.where(data[begins + 3] & 0x20, data[begins + 4].astype(np.int64) + 1, 0)
    heads = begins + 4 + np.minimum(extra, TS_PACKET - 8)
    starts = (data[begins + 1] & 0x40 > 0) & (data[heads] == 0) & (data[heads + 1] == 0) & (data[heads + 2] == 1)
    streams = np.unique(numbers[starts & (data[heads + 3] & 0xF0 == 0xE0)])
    lasts = [int(np.flatnonzero(numbers == number)[-1]) for number in streams]
    heads = [data[begins[last] : begins[last] + 4 + extra[last]] for last in lasts]
    return len(lasts) > 0 and all(map(_filled, heads)) and fill not in data[begins[lasts] + TS_PACKET - 1]


def _filled(head: NDArray[np.uint8]) -> bool:
    """Whether a packet's head, with its adaptation field, ends in bytes that only fill it up (ISO 13818-1 2.4.3.4)."""
    if len(head) < 6:
        return len(head) == 5
    flags = int(head[5])
    needed = 6 + 6 * (flags >> 4 & 1) + 6 * (flags >> 3 & 1) + (flags >> 2 & 1)
    return not flags & 3 and len(head) > needed and int(head[-1]) == 0xFF
