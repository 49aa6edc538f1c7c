"""Reading cameras of recorded video: only the groups that are needed are decoded, and each frame once when in order.

A frame is decoded from the last entry that is shown no later than it, in the same run of packets. Where reading goes on
just behind the last frame, decoding continues; so a pass in blocks costs what decoding the file costs. Every thread of
every process has its own decoders, at most MAX_POSITIONS of them.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import StoreDamaged
from fwdata.images.colour import ToRgb
from fwdata.images.video import DecodeError, PacketDecoder, SetsKnown, VideoHeader, VideoPacket, decoder_version
from fwdata.store.array import ChunkedArray
from fwdata.store.files import Files
from fwdata.store.layout import BYTES_CHUNK
from fwdata.store.records import PartRecord, VideoHeaderRecord

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


MAX_POSITIONS = 8
"""Decoders that a thread keeps open; one of 640x480 pixels holds 1.4 to 5 MiB."""

MAX_TRACKS = 256
"""Tracks whose tables a thread keeps: some 25 bytes per frame and camera."""


class HasArrays(Protocol):
    """A part of a store, see `fwdata.store.episode.Part`."""

    files: Files
    name: str
    record: PartRecord

    def array(self, key: str) -> ChunkedArray: ...


def _header(record: VideoHeaderRecord) -> VideoHeader:
    return VideoHeader.from_json(
        {
            "codec": record.codec,
            "extradata": record.extradata,
            "init": record.init,
            "pix_fmt": record.pix_fmt,
            "matrix": record.matrix,
            "range": record.range,
        }
    )


class VideoTrack:
    """The packets of one camera of one part. Thread-safe; its tables are read when first needed."""

    def __init__(self, part: HasArrays, camera: str) -> None:
        self._part, self._key = part, f"cameras/{camera}"
        self.name = f"{part.files.location}/parts/{part.name}/{self._key}"
        record = part.record.cameras[camera]
        self.headers = tuple(_header(header) for header in record.headers)
        self.swapped = record.channel_order == "bgr"

    def _table(self, name: str) -> NDArray[Any]:
        array = self._part.array(f"{self._key}/{name}")
        return array.rows(0, len(array))

    @cached_property
    def data(self) -> ChunkedArray:
        """uint8 [bytes], all packets."""
        return self._part.array(f"{self._key}/data")

    @cached_property
    def offset(self) -> NDArray[np.int64]:
        """int64 [P + 1], first byte of each packet."""
        return self._table("offset")

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """int64 [P], display position of each packet's frame, counted over the part."""
        return self._table("rank")

    @cached_property
    def entry(self) -> NDArray[np.int64]:
        """int64 [G + 1], packets that decoding may start from; the last is P."""
        return self._table("entry")

    @cached_property
    def header_of(self) -> NDArray[np.int32]:
        """int32 [G], number of the header that an entry needs."""
        return self._table("header")

    @cached_property
    def run(self) -> NDArray[np.int64]:
        """int64 [G], entry at which the contiguous packets of its episode begin."""
        return self._table("run")

    @cached_property
    def entry_rank(self) -> NDArray[np.int64]:
        """int64 [G], display position of each entry's own frame, ascending."""
        return self.rank[self.entry[:-1]]

    @cached_property
    def picture(self) -> NDArray[np.int64]:
        """int64 [F], display position of the frame shown at each row of the part."""
        return self._table("picture")

    def entry_of(self, rank: int) -> int:
        """The entry that decoding of a frame starts from."""
        return int(np.searchsorted(self.entry_rank, rank, side="right")) - 1

    def run_end(self, entry: int) -> int:
        """The packet behind the last one of an entry's run."""
        after = int(np.searchsorted(self.run, self.run[entry], side="right"))
        return int(self.entry[after])

    def episode_packets(self, start: int) -> Iterator[VideoPacket]:
        """The packets of the episode whose first row is `start`, ranks as `picture` counts them."""
        entry = self.entry_of(int(self.picture[start]))
        entries = frozenset(self.entry.tolist())
        for number in range(int(self.entry[self.run[entry]]), self.run_end(entry)):
            data = self.data.rows(int(self.offset[number]), int(self.offset[number + 1]))
            yield VideoPacket(data.tobytes(), int(self.rank[number]), number in entries)


class _Position:
    """Where a decoder stands in a run of packets. Used by one thread."""

    def __init__(self, track: VideoTrack, header: int) -> None:
        self.track, self.header = track, header
        self._open()
        self.packet = self.end = 0  # next packet, and the one behind the run
        self.last = -1  # highest rank that came out
        self.inside = False  # the decoder was fed since it was reset
        self.held: dict[int, VideoFrame] = {}  # came out, not asked for yet
        self.buffer, self.buffer_start = b"", 0

    def _open(self) -> None:
        header = self.track.headers[self.header]
        self.decoder, self.to_rgb, self.sets = PacketDecoder(header), ToRgb(), SetsKnown(header.extradata, header.codec)

    def frame(self, rank: int) -> VideoFrame:
        """The frame of a rank; decoding goes on where that is nearer than to start anew. DecodeError without it."""
        self.held = {key: frame for key, frame in self.held.items() if key >= rank}
        if rank not in self.held:
            entry = self.track.entry_of(rank)
            nearer = int(self.track.entry[entry]) <= self.packet and self.track.run_end(entry) == self.end
            if not (self.inside and rank > self.last and nearer):
                self._start(entry)
        try:
            while rank not in self.held:
                self._step(rank)
        except DecodeError:
            self.inside = False
            self.decoder.reset()
            raise
        return self.held[rank]

    def _start(self, entry: int) -> None:
        header, first = int(self.track.header_of[entry]), int(self.track.entry[entry])
        self.packet, self.end, self.last = first, self.track.run_end(entry), -1
        replaced = self.sets.ever_other and not self.sets.carries_all(self._bytes(first))  # kept when it is reset
        if header != self.header or replaced:
            self.header = header
            self._open()
        elif self.inside:
            self.decoder.reset()
        self.held, self.inside = {}, True

    def _step(self, rank: int) -> None:
        """Decode one packet; or at the end of the run, what the decoder still holds."""
        if not self.inside:
            raise DecodeError("the frame does not come out of the decoder")
        if self.packet < self.end:
            number = self.packet
            data = self._bytes(number)
            self.sets(data)
            frames = self.decoder.feed(data, int(self.track.rank[number]), number)
            self.packet += 1
        else:
            frames = self.decoder.drain()
            self.decoder.reset()
            self.inside = False
        for frame in frames:
            assert frame.pts is not None
            self.last = max(self.last, frame.pts)
            if frame.pts >= rank:
                self.held[frame.pts] = frame

    def _bytes(self, number: int) -> bytes:
        """One packet, from a buffer that reaches to the end of its chunk: a chunk is checked whole in any case."""
        low, high = int(self.track.offset[number]), int(self.track.offset[number + 1])
        if low < self.buffer_start or high > self.buffer_start + len(self.buffer):
            stop = min(int(self.track.offset[self.end]), -(-high // BYTES_CHUNK) * BYTES_CHUNK)
            self.buffer, self.buffer_start = self.track.data.rows(low, stop).tobytes(), low
        return self.buffer[low - self.buffer_start : high - self.buffer_start]


class _Kept(threading.local):
    """Tracks and positions of one thread, least recently used first. Dropped in a forked process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.tracks: OrderedDict[tuple[HasArrays, str], VideoTrack] = OrderedDict()
        self.positions: OrderedDict[VideoTrack, _Position] = OrderedDict()

    def track(self, part: HasArrays, camera: str) -> VideoTrack:
        """The track of a camera of a part."""
        if self.pid != os.getpid():
            self.pid, self.tracks, self.positions = os.getpid(), OrderedDict(), OrderedDict()
        found = self.tracks.pop((part, camera), None) or VideoTrack(part, camera)
        self.tracks[part, camera] = found
        while len(self.tracks) > MAX_TRACKS:
            self.tracks.popitem(last=False)
        return found

    def position(self, track: VideoTrack, rank: int) -> _Position:
        """The position of a track; a new one starts at the header that the frame needs."""
        found = self.positions.pop(track, None)
        if found is None:
            found = _Position(track, int(track.header_of[track.entry_of(rank)]))
        self.positions[track] = found
        while len(self.positions) > MAX_POSITIONS:
            self.positions.popitem(last=False)
        return found


_kept = _Kept()


def open_track(part: HasArrays, camera: str) -> VideoTrack:
    """The packets of a video camera of a part, kept for this thread."""
    return _kept.track(part, camera)


def read_video(
    part: HasArrays, camera: str, rows: NDArray[np.int64], size: tuple[int, int], where: Callable[[int], str]
) -> NDArray[np.uint8]:
    """uint8 [n, H, W, 3]: true RGB of rows of a part, in any order, each frame decoded once.

    where: names a row for messages. StoreDamaged when a frame does not come out of the decoder.
    """
    out = np.empty((len(rows), *size, 3), np.uint8)
    if not len(rows):
        return out
    track = open_track(part, camera)
    ranks = track.picture[rows]
    position, before = _kept.position(track, int(ranks.min())), -1
    for index in np.argsort(ranks, kind="stable").tolist():
        rank = int(ranks[index])
        if before >= 0 and rank == ranks[before]:
            out[index] = out[before]
        else:
            try:
                frame = position.frame(rank)
            except DecodeError as error:
                raise StoreDamaged(f"{where(int(rows[index]))}: {error} ({decoder_version()})") from None
            header = track.headers[position.header]
            rgb = position.to_rgb(frame, (header.matrix, header.color_range))
            out[index] = rgb[..., ::-1] if track.swapped else rgb
        before = index
    return out
