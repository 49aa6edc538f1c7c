"""Checking recorded packets before they are stored: decoded once, exactly as the reader will decode them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fwdata.images.colour import tags_of
from fwdata.images.holes import Holes
from fwdata.images.video import DecodeError, PacketDecoder, SetsKnown, VideoHeader, nal_types, same_format

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

LONG_GROUP = 300
"""Frames between two entries from which a random frame is slow enough to say so (some 100 ms at 640x480)."""


@dataclass
class Packets:
    """Packets of one episode in decode order; their bytes are read by number."""

    header: VideoHeader
    """What decoding needs besides packets."""
    data: Callable[[int], bytes]
    """Bytes of packet k."""
    ranks: list[int] = field(default_factory=list)
    """Display position of each packet's frame."""
    entries: list[int] = field(default_factory=list)
    """Packets from which decoding may start."""

    def groups(self) -> Iterator[tuple[int, int]]:
        """(first, end) of the packets of every group."""
        yield from zip(self.entries, [*self.entries[1:], len(self.ranks)], strict=True)

    def open_groups(self) -> bool:
        """Whether a frame is shown before the keyframe that its packet comes after."""
        return any(min(self.ranks[a:b]) < self.ranks[a] for a, b in self.groups())


type Seen = Callable[[VideoFrame], None]
"""Called with every frame in the order they are shown, from the first entry's frame on."""


class DamagedVideo(DecodeError):
    """Packets of which a decoder makes something, and other things at times: no way to decode them is right."""


def check_packets(
    packets: Packets, rows: NDArray[np.int64], size: tuple[int, int], seen: Seen = lambda frame: None
) -> None:
    """Decode all packets once (twice with open groups, to compare). DecodeError saying what keeps them out of a store;
    DamagedVideo where their frames are not to be stored in another way either.

    Every frame from the first entry on must come out once, undamaged, of one size, format and colour, and an entry's
    own frame must be one that decoding can start from: containers lie about that.
    """
    ranks = packets.ranks
    if packets.entries[:1] != [0]:
        raise DecodeError("it does not begin with a keyframe")
    if sorted(ranks) != list(range(len(ranks))):
        raise DecodeError("two packets are shown at the same time")
    entry_ranks = [ranks[entry] for entry in packets.entries]
    if entry_ranks != sorted(entry_ranks):
        raise DecodeError("keyframes are shown in another order than they are stored")
    if len(rows) and rows.max() >= len(ranks):
        raise DecodeError(f"row {rows.argmax()} shows frame {rows.max()}, the video holds {len(ranks)} frames")
    if len(rows) and entry_ranks[0] > rows.min():
        raise DecodeError("a row's frame comes before the first keyframe")
    _check_parameter_sets(packets)
    _check_holes(packets, rows)
    look, noted = _Look(packets, size), list[int]()

    def shown(frame: VideoFrame) -> None:
        if frame.pts == entry_ranks[-1]:
            noted.append(_digest(frame))
        seen(frame)

    if not packets.open_groups():
        for first, end in packets.groups():
            look.expect(sorted(ranks[first:end]), look.decoded(first, end), seen=shown)
        _check_fresh(packets, size, noted[0])
        return
    whole: dict[int, int] = {}
    look.expect(range(entry_ranks[0], len(ranks)), look.decoded(0, len(ranks)), whole, shown)
    _check_fresh(packets, size, noted[0])
    bounds = [*entry_ranks[1:], len(ranks)]
    for first, low, high in zip(packets.entries, entry_ranks, bounds, strict=True):
        alone: dict[int, int] = {}
        look.expect(range(low, high), look.decoded(first, len(ranks), high - 1), alone)
        wrong = next((rank for rank in range(low, high) if alone[rank] != whole[rank]), None)
        if wrong == low:  # an entry's own frame is coded without any other, so that it cannot depend on these
            raise DamagedVideo(f"frame {wrong} is a keyframe that is decoded to another image each time")
        if wrong is not None:
            _check_same_again(look, whole)
            raise DecodeError(f"frame {wrong} differs when decoding starts at its keyframe")


def _check_same_again(look: _Look, whole: dict[int, int]) -> None:
    """DamagedVideo where decoding everything again gives other frames, or the decoder reports errors on the way: it
    conceals what it cannot decode, of HEVC without a mark. A keyframe that is none does not make it do so."""
    import av.logging

    before = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as told:
            again: dict[int, int] = {}
            look.expect(sorted(whole), look.decoded(0, len(look.packets.ranks)), again)
    finally:
        av.logging.set_level(before)
    if told:
        raise DamagedVideo(f"the decoder reports: {' '.join(told[0][2].split())}")
    wrong = next((rank for rank in sorted(whole) if again[rank] != whole[rank]), None)
    if wrong is not None:
        raise DamagedVideo(f"frame {wrong} is decoded to another image each time")


def _check_parameter_sets(packets: Packets) -> None:
    """DecodeError for an entry that needs parameter sets which neither the header nor it has: readers begin at any
    entry."""
    header, entries = packets.header, frozenset(packets.entries)
    if header.codec not in ("h264", "hevc", "mpeg4"):
        return
    known = SetsKnown(header.extradata, header.codec)
    for number, rank in enumerate(packets.ranks):
        if not known(packets.data(number)) and number in entries:
            raise DecodeError(f"frame {rank} is a keyframe without the parameter sets that decoding needs there")


def _check_holes(packets: Packets, rows: NDArray[np.int64]) -> None:
    """DamagedVideo for a packet with a hole, DecodeError where it comes behind all rows. Decoders make an image of
    what is left, without a sign."""
    extradata, codec = packets.header.extradata, packets.header.codec
    seen = Holes(extradata, codec)
    for number in range(len(packets.ranks)):
        seen.see(packets.data(number))
    holes = seen.real()
    if not holes:
        return
    wanted = frozenset(rows.tolist())
    last = max((number for number, rank in enumerate(packets.ranks) if rank in wanted), default=0)
    number, count = next(iter(holes.items()))
    first = packets.ranks[number]
    found = f"the data of frame {first} hold {count} zeros in a row, as where a file has a hole"
    raise (DamagedVideo if number <= last else DecodeError)(found)


def _check_fresh(packets: Packets, size: tuple[int, int], digest: int) -> None:
    """DecodeError where a fresh decoder does not give the last entry's frame: parameter sets in packets may differ from
    the header's and not be sent again. digest: of the frame that came out of the whole."""
    if not any(_carries_sets(packets, entry) for entry in packets.entries):
        return
    entry = packets.entries[-1]
    rank = packets.ranks[entry]
    frames = _Look(packets, size).decoded(entry, len(packets.ranks), rank)
    alone = next((_digest(frame) for frame in frames if frame.pts == rank), None)
    if alone != digest:
        raise DecodeError(f"frame {rank} differs when a fresh decoder starts at it: parameter sets change before it")


def _carries_sets(packets: Packets, number: int) -> bool:
    """Whether a packet of H.264 or HEVC holds a sequence parameter set."""
    codec, extradata = packets.header.codec, packets.header.extradata
    if codec not in ("h264", "hevc"):
        return False
    kinds = nal_types(packets.data(number), extradata, codec)
    return any(first & 0x1F == 7 if codec == "h264" else (first >> 1) & 0x3F == 33 for first in kinds)


class _Look:
    """One decoder, and what all frames must have in common."""

    def __init__(self, packets: Packets, size: tuple[int, int]) -> None:
        self.packets, self.size = packets, size
        self.decoder = PacketDecoder(packets.header)
        self.entry_ranks = {packets.ranks[entry] for entry in packets.entries}

    def decoded(self, first: int, end: int, last_rank: int | None = None) -> Iterator[VideoFrame]:
        """Frames of the packets first..end, the decoder emptied before and after; up to `last_rank` if given."""
        packets, done = self.packets, False
        for number in range(first, end):
            for frame in self.decoder.feed(packets.data(number), packets.ranks[number], number):
                yield frame
                done = done or (last_rank is not None and frame.pts is not None and frame.pts >= last_rank)
            if done:
                self.decoder.reset()
                return
        yield from self.decoder.drain()
        self.decoder.reset()

    def expect(
        self,
        wanted: range | list[int],
        frames: Iterator[VideoFrame],
        digests: dict[int, int] | None = None,
        seen: Seen = lambda frame: None,
    ) -> None:
        """The wanted frames in order, each good; others are passed over. digests: filled with one number per frame."""
        ranks = iter(wanted)
        rank = next(ranks, None)
        for frame in frames:
            if frame.pts is None or rank is None or frame.pts < rank:
                continue
            if frame.pts != rank:
                break
            self._check(frame, rank)
            seen(frame)
            if digests is not None:
                digests[rank] = _digest(frame)
            rank = next(ranks, None)
        if rank is not None:
            raise DecodeError(f"frame {rank} does not come out of the decoder")

    def _check(self, frame: VideoFrame, rank: int) -> None:
        header = self.packets.header
        if (frame.height, frame.width) != self.size:
            raise DecodeError(
                f"frame {rank} has {frame.height}x{frame.width} pixels, others {self.size[0]}x{self.size[1]}"
            )
        if not same_format(frame.format.name, header.pix_fmt):
            raise DecodeError(f"frame {rank} has pixel format {frame.format.name}, others {header.pix_fmt}")
        matrix, color_range = tags_of(frame)
        if matrix not in (2, header.matrix) or color_range not in (0, header.color_range):
            raise DecodeError(
                f"frame {rank} has colour matrix {matrix} and range {color_range}, the first one {header.matrix} and "
                f"{header.color_range}"
            )
        if rank in self.entry_ranks and not frame.key_frame:
            raise DecodeError(f"frame {rank} is marked as a keyframe, but decoding cannot start there")


def _digest(frame: VideoFrame) -> int:
    """CRC-32 of a frame's planes, without the padding of their lines."""
    deep = max(component.bits for component in frame.format.components) > 8
    value = 0
    for plane in frame.planes:
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : plane.width * (1 + deep)]
        value = zlib.crc32(np.ascontiguousarray(lines), value)
    return value
