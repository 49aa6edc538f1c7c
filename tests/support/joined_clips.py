"""Videos joined without coding them again, whose parameter sets change inside."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
from clips import moving, write_clip

FRAMES, GROUP = 8, 2
CODING = {"libx264": "chroma-qp-offset={0}", "libx265": "cbqpoffs={0}:crqpoffs={0}:log-level=none:pools=1:open-gop=0"}
KEYS = {"libx264": b"\0\0\1\x65", "libx265": b"\0\0\1\x28"}
"""Start of an IDR picture, from which a keyframe has no parameter sets."""


def clip(codec: str, seed: int, offset: int, form: str, count: int = FRAMES) -> io.BytesIO:
    """Frames whose image parameter set alone tells the offset of chroma."""
    made, name = io.BytesIO(), codec.removeprefix("lib")
    params = f"bframes=0:scenecut=0:repeat-headers={int(form != 'mp4')}:{CODING[codec].format(offset)}"
    write_clip(made, moving(count, seed=seed), codec, gop=GROUP, fps=10, form=form, options={f"{name}-params": params})
    return made


def joined(path: Path, codec: str, parts: Sequence[tuple[int, str]], bare: bool = False) -> None:
    """An MP4 of several parts: (offset, whether parameter sets are sent at its "first" keyframe or at "all").

    bare: the file's first packet carries none either.
    """
    form, packets = {"libx264": "h264", "libx265": "hevc"}[codec], list[bytes]()
    for seed, (offset, sent) in enumerate(parts):
        with av.open(clip(codec, seed, offset, form), format=form) as source:
            for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
                packets.append(_slices(bytes(packet), codec) if number and sent == "first" else bytes(packet))
    with av.open(io.BytesIO(b"".join(packets)), format=form) as source, av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, data in enumerate([bytes(p) for p in source.demux(video=0) if p.size]):
            packet = av.Packet(_slices(data, codec) if bare else data)
            packet.time_base, packet.pts, packet.dts, packet.duration = Fraction(1, 10), number, number, 1
            packet.stream, packet.is_keyframe = stream, number % GROUP == 0
            out.mux(packet)


def _slices(data: bytes, codec: str) -> bytes:
    """A packet without what comes before the IDR picture; unchanged where it holds none."""
    key = data.find(KEYS[codec])
    return data if key < 0 else b"\0" + data[key:]


def box(data: bytes, *path: bytes) -> tuple[int, int]:
    """(first, end) of the content of a box of an MP4."""
    low, high = 0, len(data)
    for kind in path:
        while data[low + 4 : low + 8] != kind:
            low += int.from_bytes(data[low : low + 4], "big")
        low, high = low + 8, low + int.from_bytes(data[low : low + 4], "big")
    return low, high


def with_two_descriptions(one: bytes, other: bytes) -> bytes:
    """The packets of two MP4s in one, each part with its own description, as joining without encoding makes them."""
    table = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
    packets = []
    for data in (one, other):
        with av.open(io.BytesIO(data)) as source:
            packets.append([bytes(packet) for packet in source.demux(video=0) if packet.size])
    first, count = (sum(map(len, packets[0])), len(packets[0]) + len(packets[1]))
    second = other[slice(*box(other, *table, b"stsd"))][8:]
    sizes, start = [len(packet) for part in packets for packet in part], box(one, b"mdat")[0]
    head = one[: start - 8]
    keys = list(range(1, count + 1, GROUP))
    stsd = one[slice(*box(one, *table, b"stsd"))]
    ticks = struct.unpack(">I", one[slice(*box(one, *table, b"stts"))][12:16])[0]
    boxes = {
        b"stsd": stsd[:4] + struct.pack(">I", 2) + stsd[8:] + second,
        b"stts": struct.pack(">IIII", 0, 1, count, ticks),
        b"stss": struct.pack(f">II{len(keys)}I", 0, len(keys), *keys),
        b"stsc": struct.pack(">8I", 0, 2, 1, len(packets[0]), 1, 2, len(packets[1]), 2),
        b"stsz": struct.pack(f">III{count}I", 0, 0, count, *sizes),
        b"stco": struct.pack(">4I", 0, 2, start, start + first),
    }

    def whole(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", len(content) + 8, kind) + content

    made = whole(b"stbl", b"".join(whole(kind, content) for kind, content in boxes.items()))
    for depth in range(len(table) - 1, 0, -1):
        low, high = box(one, *table[:depth])
        inside, place = b"", low
        while place < high:
            size, kind = struct.unpack(">I4s", one[place : place + 8])
            inside += {table[depth]: made, b"edts": b""}.get(kind, one[place : place + size])
            place += size
        made = whole(table[depth - 1], inside)
    return head + whole(b"mdat", b"".join(packet for part in packets for packet in part)) + made
