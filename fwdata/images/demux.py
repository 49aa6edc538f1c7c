"""Packets of a video file: display order, entries and header, found without decoding (but one frame, for its tags)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fwdata.images.boxes import count_descriptions
from fwdata.images.colour import INEXACT, tags_of
from fwdata.images.holes import Holes
from fwdata.images.streams import recorded, videos
from fwdata.images.video import (
    DECODERS,
    DecodeError,
    SetsKnown,
    Unshown,
    VideoHeader,
    VideoPacket,
    ffmpeg_words,
    is_entry,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

INIT_OPTIONS = {"movflags": "empty_moov+default_base_moof", "fflags": "+bitexact"}
"""Of a fragmented MP4 whose start (ftyp and moov) is written before any packet."""

type Opener = Callable[[], AbstractContextManager[InputContainer]]
"""Opens the file anew, its first video stream on one thread."""


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """What the packets of a file say, in decode order."""

    pts: NDArray[np.int64]
    """int64 [P], display times in ticks, each one once."""
    shown: NDArray[np.bool_]
    """bool [P], False where an edit list hides the frame, or no decoder shows it; others may need such packets."""
    entries: NDArray[np.int64]
    """int64 [G], packets from which decoding may start."""
    header: VideoHeader
    """What decoding needs besides packets."""
    open_file: Opener = field(repr=False)
    """Opens the file again."""
    notes: tuple[str, ...] = ()
    """Of `notes_of` its first frame."""
    torn: frozenset[int] = frozenset()
    """Packets that the container marks as damaged, as that in which a file is cut."""

    @cached_property
    def by_time(self) -> NDArray[np.int64]:
        """int64 [P]: packet of each display position."""
        return np.argsort(self.pts, kind="stable")

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """int64 [P]: display position of each packet."""
        rank = np.empty(len(self.pts), np.int64)
        rank[self.by_time] = np.arange(len(rank))
        return rank

    def entry_time(self, pts: int) -> int:
        """Time of the last entry that is shown no later than `pts`; of the first one before all."""
        times = self.pts[self.entries]
        return int(times[max(0, int(np.searchsorted(times, pts, side="right")) - 1)])

    def span(self, ranks: NDArray[np.int64]) -> tuple[int, int]:
        """(first, end) of the packets in decode order that hold frames of these display positions in whole groups.

        A frame that is shown before its group's keyframe is decoded from the group before. A group ends in front of a
        damaged packet behind all of the frames. ValueError when no entry comes before the first one, or a damaged
        packet before the last.
        """
        entry_ranks = self.rank[self.entries]
        group = int(np.searchsorted(entry_ranks, ranks.min(), side="right")) - 1
        if group < 0:
            raise ValueError("no keyframe comes before its first frame")
        last = int(self.by_time[ranks].max())
        after = int(np.searchsorted(self.entries, last, side="right"))
        end = int(self.entries[after]) if after < len(self.entries) else len(self.pts)
        first = int(self.entries[group])
        end = min([end, *(number for number in self.torn if first <= number < end)])
        if end <= last:
            raise ValueError(f"packet {end} is damaged")
        return first, end

    def packets(self, first: int, end: int) -> Iterator[VideoPacket]:
        """The packets first..end, ranks counted from 0 over them alone."""
        order = np.argsort(self.pts[first:end], kind="stable")
        rank = np.empty(end - first, np.int64)
        rank[order] = np.arange(end - first)
        entries = frozenset(self.entries.tolist())
        with self.open_file() as container:
            stream = recorded(container)
            for number, packet in enumerate(packets_from(container, stream, int(self.pts[first]), first > 0)):
                if first + number >= end:
                    return
                if packet.pts != self.pts[first + number]:
                    raise DecodeError("the file holds other packets where it is entered in its middle")
                yield VideoPacket(bytes(packet), int(rank[number]), first + number in entries)


def packets_from(container: InputContainer, stream: VideoStream, pts: int, seek: bool = True) -> Iterator[Packet]:
    """Packets from the one of this time on; without a seek where the container's index leads past it."""
    if seek:
        container.seek(pts, stream=stream, backward=True, any_frame=False)
    found = False
    for packet in container.demux(stream):
        found = found or (packet.size > 0 and packet.pts == pts)
        if found and packet.size and packet.pts is not None:
            yield packet
    if not found and seek:
        container.seek(0, stream=stream, backward=True)
        yield from packets_from(container, stream, pts, False)


def readable(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Packets of a stream as far as a file can be read; those that are damaged are marked."""
    import av

    with contextlib.suppress(av.FFmpegError):
        yield from container.demux(stream)


def index_packets(open_file: Opener) -> PacketIndex:
    """Index a file. ValueError with the reason when its packets cannot be kept (times missing or doubled, an unknown
    codec, no entry, several descriptions of the stream).

    Of a file that is cut or damaged, what is left is indexed. Cost: one pass over the file's bytes and one decoded
    frame.
    """
    pts: list[int] = []
    hidden: list[bool] = []
    keys: list[int] = []
    torn: list[int] = []
    untimed = lost = 0
    with open_file() as container:  # what is raised inside of it reads as an error of the file
        stream = recorded(container)
        codec = stream.codec_context.codec.canonical_name
        extradata = bytes(stream.codec_context.extradata or b"")
        unshown, sets_known, holes = Unshown(extradata, codec), SetsKnown(extradata, codec), Holes(extradata, codec)
        described = count_descriptions(container)
        for packet in readable(container, stream) if codec in DECODERS else ():
            if packet.size == 0:
                continue
            if packet.pts is None:
                untimed += 1
                continue
            if packet.is_corrupt or untimed > lost:
                torn.append(len(pts))
            lost = untimed
            data = bytes(packet)
            whole = not holes.see(data) and not packet.is_corrupt
            known = whole and sets_known(data)  # of a damaged packet anything may look like sets
            # containers without a list of keyframes mark every packet as one
            if packet.is_keyframe and known and is_entry(data, extradata, codec):
                keys.append(len(pts))
            pts.append(packet.pts)
            hidden.append(unshown(data) or packet.is_discard)
    keys = [number for number in keys if number not in holes.real()]
    if codec not in DECODERS:
        raise ValueError(f"codec {codec!r} is not kept as recorded")
    if described > 1:
        raise ValueError(f"the file describes its video in {described} ways, each for a part of the frames")
    if 2 * untimed > len(pts):
        raise ValueError(f"{untimed} packets have no time")
    if len(set(pts)) != len(pts):
        raise ValueError("two packets are shown at the same time")
    if not keys:
        raise ValueError("it does not begin with a keyframe, nor holds one")
    header, notes = _header(open_file, keys[0])
    times, shown = np.asarray(pts, np.int64), ~np.asarray(hidden, np.bool_)
    return PacketIndex(times, shown, np.asarray(keys, np.int64), header, open_file, notes, frozenset(torn))


def _header(open_file: Opener, first: int) -> tuple[VideoHeader, tuple[str, ...]]:
    """What decoding needs, and `notes_of` the first frame. first: packet that decoding begins at."""
    import av

    words, frame = "", None
    with open_file() as container:
        stream = recorded(container)
        context = stream.codec_context
        codec, extradata = context.codec.canonical_name, bytes(context.extradata or b"")
        try:
            packets = islice(container.demux(stream), first, None)
            frame = next((frame for packet in packets for frame in stream.decode(packet)), None)
        except av.FFmpegError as error:
            words = ffmpeg_words(error)
        init = init_segment(stream) if frame is not None else b""
        others = _other_streams(container)
    if words:
        raise ValueError(f"its first frame cannot be decoded, parameter sets may be missing: {words}")
    if frame is None:
        raise ValueError("none of its packets gives a frame")
    notes = (*others, *notes_of(frame), *_cut(init))
    return VideoHeader(codec, extradata, init, frame.format.name, *tags_of(frame)), notes


def notes_of(frame: VideoFrame) -> tuple[str, ...]:
    """Sentences about a decoded frame that is stored otherwise than the file asks to show it."""
    found = []
    if frame.rotation:
        found.append(
            f"the file asks players to turn the image by {frame.rotation} degrees or to mirror it; it is stored as "
            "coded, as lerobot's pyav reader shows it. Turn the video before converting if that is not upright: "
            "ffmpeg -i FILE OUT"
        )
    if frame.colorspace in INEXACT:
        found.append(
            f"its colours are tagged {INEXACT[frame.colorspace]}, which FFmpeg does not convert; they are shown by "
            "another matrix and are wrong. Encode the video again as BT.601 or BT.709"
        )
    return tuple(found)


def first_notes(open_file: Opener) -> tuple[str, ...]:
    """`notes_of` the first frame of a file; none where it cannot be decoded. Cost: one decoded frame."""
    import av

    with open_file() as container, contextlib.suppress(av.FFmpegError):
        for frame in container.decode(recorded(container)):
            init = init_segment(recorded(container))
            return (*_other_streams(container), *notes_of(frame), *_cut(init))
    return ()


_CLAP = b"\0\0\0\x28clap"
"""Head of the box that says what of an image is to be shown (ISO 14496-12 12.1.4)."""


def _cut(init: bytes) -> tuple[str, ...]:
    """A sentence for a container that asks to show a part of the image; init: of `init_segment`."""
    if _CLAP not in init:
        return ()
    return (
        "the file asks players to cut the edges of the image off; it is stored as coded, as lerobot's pyav reader "
        "shows it. Cut the video before converting if they are not to be seen: ffmpeg -i FILE OUT",
    )


def _other_streams(container: InputContainer) -> tuple[str, ...]:
    """A sentence for a file that holds several videos, such as a second camera; a cover is none."""
    found = videos(container)
    if len(found) < 2:
        return ()
    sizes = ", ".join(f"{stream.width}x{stream.height} {stream.codec_context.name}" for stream in found)
    return (
        f"the file holds {len(found)} videos ({sizes}); the first one is taken. Where another is meant, copy it "
        "alone: ffmpeg -i FILE -map 0:v:1 -c copy OUT",
    )


def init_segment(stream: VideoStream) -> bytes:
    """Start of a fragmented MP4 (ftyp and moov) for the stream's parameters; empty where MP4 cannot hold it."""
    import av

    buffer = io.BytesIO()
    start = b""
    with (
        contextlib.suppress(av.FFmpegError, ValueError),
        av.open(buffer, "w", format="mp4", options=INIT_OPTIONS) as out,
    ):
        out.add_stream_from_template(stream, opaque=True)
        out.start_encoding()
        start = buffer.getvalue()
    return start
