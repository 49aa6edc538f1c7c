"""Recorded video as packets: what a decoder needs besides them, and decoding without the file they came from.

An entry is a keyframe packet from which decoding may start. Packets keep the form they were recorded in (length
prefixes or start codes): the decoder tells them apart by the extradata.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypedDict

from fwdata.errors import needed_for

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

DECODERS = {"av1": "libdav1d", "h264": "h264", "hevc": "hevc", "vp9": "vp9", "mpeg4": "mpeg4"}
"""Codecs that are kept as recorded, and the decoder of each: FFmpeg's own "av1" works with hardware only."""


_BIT_RATE = b"\0\0\0\x14btrt"
"""Head of the box that says how many bits a second a stream has (ISO 14496-12 8.5.2.2: three numbers of 4 bytes)."""

UNALIGNED = 1
"""AV_CODEC_FLAG_UNALIGNED: cut a frame exactly where its stream says; else a cut at the left is rounded to 32 bytes."""


def without_bit_rate(boxes: bytes) -> bytes:
    """Boxes of an MP4 with zeros for the bit rate of their stream."""
    at = boxes.find(_BIT_RATE)
    if at < 0:
        return boxes
    first = at + len(_BIT_RATE)
    return boxes[:first] + bytes(12) + boxes[first + 12 :]


class HeaderJson(TypedDict):
    """A `VideoHeader` as JSON, bytes as base64."""

    codec: str
    """As of `VideoHeader`."""
    extradata: str
    """base64."""
    init: str
    """base64; empty: none."""
    pix_fmt: str
    """As of `VideoHeader`."""
    matrix: int
    """As of `VideoHeader`."""
    range: int
    """`VideoHeader.color_range`."""


@dataclass(frozen=True)
class VideoHeader:
    """What decoding needs besides packets; one for every stream of equal parameters."""

    codec: str
    """Name of the codec, a key of `DECODERS`."""
    extradata: bytes
    """Parameter sets as the container holds them (avcC, hvcC, av1C, ..); empty where packets carry them."""
    init: bytes
    """Start of a fragmented MP4 (ftyp and moov) of the same stream, a template to write it again; empty: none."""
    pix_fmt: str
    """Pixel format of the decoded frames, as FFmpeg names it."""
    matrix: int
    """AVColorSpace of the stream: which matrix makes RGB of YUV (`fwdata.images.colour`)."""
    color_range: int
    """AVColorRange of the stream: 2 is full range."""

    def to_json(self) -> HeaderJson:
        """Plain JSON, bytes as base64."""
        return {
            "codec": self.codec,
            "extradata": base64.b64encode(self.extradata).decode(),
            "init": base64.b64encode(self.init).decode(),
            "pix_fmt": self.pix_fmt,
            "matrix": self.matrix,
            "range": self.color_range,
        }

    def stream(self) -> VideoHeader:
        """The header without the bit rate of `init`, which tells videos of one encoder apart by their lengths alone."""
        return replace(self, init=without_bit_rate(self.init))

    @classmethod
    def from_json(cls, found: HeaderJson) -> VideoHeader:
        """The header that `to_json` wrote."""
        return cls(
            codec=found["codec"],
            extradata=base64.b64decode(found["extradata"]),
            init=base64.b64decode(found["init"]),
            pix_fmt=found["pix_fmt"],
            matrix=found["matrix"],
            color_range=found["range"],
        )


@dataclass(frozen=True)
class VideoPacket:
    """One coded frame, byte for byte as recorded."""

    data: bytes
    """The packet without any container framing."""
    rank: int
    """Position of its frame in display order, counted from 0 over the episode's packets."""
    is_entry: bool
    """Whether decoding may start here."""


def ffmpeg_words(error: Exception) -> str:
    """What an error of FFmpeg says, without its number and the name of its function or file."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


class DecodeError(ValueError):
    """A packet that the decoder does not take, or a frame that it marks as damaged; says what was found."""


def undamaged(frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    """The frames of an episode's rows in order. DecodeError for the first that its decoder marks as damaged."""
    for row, frame in enumerate(frames):
        if frame.is_corrupt:
            raise DecodeError(f"the decoder marks the frame of row {row} as damaged")
        yield frame


class PacketDecoder:
    """One decoder context, fed with packets in decode order. One thread only; never pickled, never used after a fork.

    A live context of 640x480 pixels holds 1.4 (AV1) to 5 MiB (HEVC).
    """

    def __init__(self, header: VideoHeader) -> None:
        with needed_for("recorded video"):
            import av
            from av.video.codeccontext import VideoCodecContext

        name = DECODERS.get(header.codec)
        if name is None:
            raise DecodeError(f"codec {header.codec!r} is not kept as recorded; known are {', '.join(DECODERS)}")
        context = av.CodecContext.create(name, "r")
        assert isinstance(context, VideoCodecContext)
        if header.extradata:
            context.extradata = header.extradata
        context.thread_count = 1
        context.flags |= UNALIGNED
        self._context = context
        self._error = av.FFmpegError
        self._packet = av.Packet

    def feed(self, data: bytes, rank: int, number: int) -> list[VideoFrame]:
        """Frames that come out after one more packet; each has its rank as `pts`. DecodeError for damage."""
        packet = self._packet(data)
        packet.pts, packet.dts = rank, number
        return self._decode(packet)

    def drain(self) -> list[VideoFrame]:
        """The frames still inside, at the end of a run of packets; `reset` must follow."""
        return self._decode(None)

    def reset(self) -> None:
        """Forget everything: the next packet is an entry."""
        self._context.flush_buffers()

    def _decode(self, packet: Any) -> list[VideoFrame]:
        try:
            frames = self._context.decode(packet)
        except self._error as error:
            raise DecodeError(ffmpeg_words(error)) from None
        for frame in frames:
            if frame.is_corrupt:
                raise DecodeError("the decoder marks a frame as damaged")
        return frames


@cache
def decoder_version() -> str:
    """Libraries that decode, for messages and identities: `libavcodec 61.19.101, libswscale 8.3.100`."""
    with needed_for("recorded video"):
        import av

    found = av.library_versions
    return ", ".join(f"{name} {'.'.join(map(str, found[name]))}" for name in ("libavcodec", "libswscale"))


def same_format(one: str, other: str) -> bool:
    """Whether two pixel formats differ in the name of their range only (yuvj420p is yuv420p in full range)."""
    return one.replace("yuvj", "yuv") == other.replace("yuvj", "yuv")


_HEAD = 12
"""Bytes of a NAL unit that hold its type and, of an H.264 slice, the two numbers it begins with."""


def nal_types(data: bytes, extradata: bytes, codec: str) -> Iterator[int]:
    """First byte of every NAL unit of an H.264 or HEVC packet; stops at damage."""
    return (head[0] for head in _nal_heads(data, extradata, codec))


def _nal_heads(data: bytes, extradata: bytes, codec: str) -> Iterator[bytes]:
    """First bytes of every NAL unit, at least one and at most `_HEAD`."""
    return (data[first : min(first + _HEAD, end)] for first, end in _nal_places(data, extradata, codec))


def _nal_places(data: bytes, extradata: bytes, codec: str) -> Iterator[tuple[int, int]]:
    """(first, end) of every NAL unit, not empty.

    Units have start codes, or length prefixes where the extradata are avcC or hvcC (which begin with version 1).
    """
    if extradata[:1] != b"\x01":
        position = data.find(b"\0\0\1")
        while 0 <= position < len(data) - 3:
            after = data.find(b"\0\0\1", position + 3)
            yield position + 3, after if after >= 0 else len(data)
            position = after
        return
    place = 21 if codec == "hevc" else 4  # lengthSizeMinusOne: ISO 14496-15, 8.3.3.1 and 5.3.3.1
    position, width = 0, ((extradata[place] if len(extradata) > place else 3) & 3) + 1
    while position + width < len(data):
        end = position + width + int.from_bytes(data[position : position + width])
        yield position + width, max(end, position + width + 1)
        position = end


_PARAMETER_SETS = {"h264": (7, 8), "hevc": (32, 33, 34)}
"""NAL unit types: sequence and image parameter sets (ITU H.264 table 7-1), for HEVC video ones too (H.265 7-1)."""

_SETS = {**_PARAMETER_SETS, "mpeg4": (0x20,)}
"""The same, and the start codes 20 to 2F of MPEG-4's video object layer (ISO 14496-2 table 6-3)."""


def parameter_sets(data: bytes, codec: str) -> bytes:
    """The parameter sets of an H.264 or HEVC packet with start codes, each behind one; empty where it lacks a kind."""
    found: dict[int, bytes] = {}
    start = data.find(b"\0\0\1")
    while 0 <= start < len(data) - 3:
        after = data.find(b"\0\0\1", start + 3)
        kind = data[start + 3] & 0x1F if codec == "h264" else (data[start + 3] >> 1) & 0x3F
        if kind in _PARAMETER_SETS[codec]:
            unit = data[start + 3 : after if after >= 0 else len(data)].rstrip(b"\0")
            found[kind] = found.get(kind, b"") + b"\0\0\0\1" + unit
        start = after
    return b"".join(found.values()) if len(found) == len(_PARAMETER_SETS[codec]) else b""


class SetsKnown:
    """Tells the packets that a decoder can begin at as far as parameter sets go: `SetsKnown(...)(packet)` for each in
    turn, in decode order.

    Sets that packets carry hold until others come (ITU H.264 7.4.1.2.1, H.265 7.4.2.4.2); MPEG-4 part 2 has the head of
    a video object layer instead. A decoder that was opened with the header's lacks them, and one that was fed with them
    no longer knows the header's.
    """

    def __init__(self, extradata: bytes, codec: str) -> None:
        self._extradata, self._codec = extradata, codec
        self._kinds = _SETS.get(codec, ())
        self._other = dict.fromkeys(self._kinds, not extradata)
        self.ever_other = False
        """Whether a packet carried sets that the header lacks."""

    def __call__(self, data: bytes) -> bool:
        """Whether a decoder with the header's sets, given this packet, has all sets that hold."""
        if not self._kinds:
            return True
        own = self._carried(data)
        for kind, units in own.items():
            self._other[kind] = any(unit not in self._extradata for unit in units)
        self.ever_other = self.ever_other or any(self._other[kind] for kind in own)
        return len(own) == len(self._kinds) or not any(self._other.values())

    def carries_all(self, data: bytes) -> bool:
        """Whether a packet carries sets of every kind itself."""
        return len(self._carried(data)) == len(self._kinds)

    def _kind(self, first: int) -> int:
        """What a unit of this first byte is, as in `_SETS`."""
        if self._codec == "mpeg4":
            return first & 0xF0
        return first & 0x1F if self._codec == "h264" else (first >> 1) & 0x3F

    def _carried(self, data: bytes) -> dict[int, list[bytes]]:
        """Kind -> its sets in a packet."""
        own: dict[int, list[bytes]] = {}
        last = 0
        for first, last in _nal_places(data, self._extradata, self._codec):
            kind = self._kind(data[first])
            if kind in self._kinds:
                own.setdefault(kind, []).append(data[first:last].rstrip(b"\0"))
        return own if last <= len(data) else {}  # of a damaged packet anything may look like sets


_HOLE, _MIDDLE_HOLE, _SHORT_HOLE = bytes(256), bytes(32), bytes(16)
"""What a part of a file that was never written reads as. No coded frame of HEVC (ITU H.265 7.4.2: three zeros do not
follow each other) holds as many as the long one; a slice of H.264 (ITU H.264 7.4.1) or HEVC not even the short one. In
VP9 and AV1, coders whose output looks random, no more than 8 were found in images of one colour or lossless noise."""


def hole_in(data: bytes, extradata: bytes, codec: str) -> int:
    """How many zeros, at least, follow each other in a packet as no encoder writes them; 0: none do. Decoders make an
    image of what is left, without a sign.

    Some encoders fill up packets with zeros at their end, see `Holes`; black frames of raw video are nothing else.
    """
    if not any(data[:64]) and not any(data) and len(data) >= len(_SHORT_HOLE) and codec != "rawvideo":
        return len(data)
    if codec not in ("h264", "hevc", "vp9", "av1") or _SHORT_HOLE not in data:
        return 0
    if codec != "h264" and _HOLE in data:
        return len(_HOLE)
    if codec in ("vp9", "av1"):
        return len(_MIDDLE_HOLE) if _MIDDLE_HOLE in data else 0
    prefixed = extradata[:1] == b"\x01"
    for first, end in _nal_places(data, extradata, codec):
        kind = data[first] & 0x1F if codec == "h264" else (data[first] >> 1) & 0x3F
        is_slice = 1 <= kind <= 5 if codec == "h264" else kind < 32
        unit = data[first:end]
        if is_slice and (_SHORT_HOLE in (unit if prefixed else unit.rstrip(b"\0")) or unit.endswith(_MIDDLE_HOLE)):
            return len(_SHORT_HOLE)
    return 0


def _is_intra(head: bytes) -> bool:
    """Whether an H.264 NAL unit is no slice, or one of an IDR picture, or of I or SI macroblocks alone."""
    if head[0] & 0x1F not in (1, 2):
        return True
    bits = "".join(f"{byte:08b}" for byte in head[1:])
    _, rest = _unsigned(bits)  # first_mb_in_slice
    kind, _ = _unsigned(rest)
    return kind % 5 in (2, 4)


def _unsigned(bits: str) -> tuple[int, str]:
    """(number, what follows) of an Exp-Golomb code, ITU H.264 9.1; 0 where the bits end."""
    zeros = len(bits) - len(bits.lstrip("0"))
    return int(bits[zeros : 2 * zeros + 1] or "1", 2) - 1, bits[2 * zeros + 1 :]


def is_entry(data: bytes, extradata: bytes, codec: str) -> bool:
    """Whether decoding may start at a packet that a container marks as a keyframe.

    H.264: all its slices are intra coded (ITU H.264 table 7-6), as a stream that is refreshed bit by bit has recovery
    points at frames that others are needed for. HEVC: it holds a random access picture (ITU H.265 7.4.2.2: NAL unit
    types 16 to 21). MPEG-4 part 2: its first VOP is
    intra coded (ISO 14496-2 6.2.5: the two bits behind the start code). FFmpeg parses the other codecs itself.
    """
    if codec == "h264":
        return all(map(_is_intra, _nal_heads(data, extradata, "h264")))
    if codec == "hevc":
        return any(16 <= (first >> 1) & 0x3F <= 21 for first in nal_types(data, extradata, "hevc"))
    if codec == "mpeg4":
        position = data.find(b"\0\0\1\xb6")
        return 0 <= position < len(data) - 4 and data[position + 4] >> 6 == 0
    return True


class Unshown:
    """Tells the packets that no decoder shows a frame of, from their order: `Unshown(...)(packet)` for each in turn.

    HEVC: leading pictures that refer to what came before the stream's beginning, as a cut without encoding leaves them
    (ITU H.265 8.1.3 and 8.3.1: RASL pictures behind a random access picture that the stream, or a part of it, begins
    with).
    """

    def __init__(self, extradata: bytes, codec: str) -> None:
        self._extradata, self._codec = extradata, codec
        self._begins = True  # no packet yet, or an end of sequence before the next one
        self._skips = False

    def __call__(self, data: bytes) -> bool:
        """Whether the next packet, in decode order, is such a one."""
        if self._codec != "hevc":
            return False
        kinds = [(first >> 1) & 0x3F for first in nal_types(data, self._extradata, "hevc")]
        coded = next((kind for kind in kinds if kind < 32), -1)  # 0 to 31 are pictures, H.265 table 7-1
        if 16 <= coded <= 21:
            self._skips = coded < 21 or self._begins  # 21: CRA; the others refer to nothing before them
        if coded >= 0:
            self._begins = any(kind in (36, 37) for kind in kinds)  # end of sequence, of bitstream
        return self._skips and coded in (8, 9)
