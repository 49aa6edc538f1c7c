"""Times of a video's frames, from the file's index alone: nothing is decoded."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.info import DEEP
from converters.shared.content import not_content
from fwdata.errors import BadEpisode
from fwdata.images.forms import form_of
from fwdata.images.holes import Holes
from fwdata.images.streams import recorded
from fwdata.images.tears import Tear, tears_of
from fwdata.images.video import Unshown, is_entry
from fwdata.images.video_files import is_untimed, open_file

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

ADVICE = "download the video again, or leave the episode out"


@dataclass(frozen=True, eq=False)
class Timeline:
    """What a video's index says about its N frames, in order of presentation."""

    pts: NDArray[np.int64]
    """int64 [N], presentation times in the stream's time base, ascending."""
    times: NDArray[np.float64]
    """float64 [N], `pts` in seconds."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    codec: str
    """Name of the codec as FFmpeg gives it."""
    keys: NDArray[np.int64]
    """int64, ascending positions of the keyframes."""
    digests: NDArray[np.int64]
    """int64 [N], a checksum of each frame's packet."""
    spoilt: NDArray[np.int64]
    """int64, ascending positions of the frames whose packets are damaged, or that may be decoded from such a one."""
    damage: str = ""
    """What is said behind the file's name where the container marks a packet as damaged; empty: it does not."""
    listed: int | None = None
    """Frames that the file's index lists, in an MP4 that is not in fragments; more than N where the end is lost."""
    place: int = -1
    """First byte of the first packet in the file; -1: not known."""
    tears: tuple[Tear, ...] = ()
    """Where the container is cut or torn."""


@contextmanager
def open_video(path: Path, name: str) -> Iterator[InputContainer]:
    """Open a local video; BadEpisode where it is none, a pointer to one included."""
    reason = not_content(path, name)
    if reason is not None:
        raise BadEpisode(reason)
    with open_file(path, name) as container:
        yield container


def is_deep(path: Path, name: str) -> bool:
    """Whether a video is grey with more than 8 bits, as maps of distances are. BadEpisode when it cannot be opened."""
    with open_video(path, name) as container:
        return str(recorded(container).codec_context.pix_fmt).startswith(DEEP)


def timeline(path: Path, name: str, torn: bool = False) -> Timeline:
    """Times of a video's frames, from the packets alone: nothing is decoded. Kept until the file changes.

    torn: also of a file with damaged packets, such as one that is cut. BadEpisode when it is not a video or has frames
    without times. Cost: one pass over the file's bytes.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise BadEpisode(f"{name} cannot be read: {error.strerror}") from None
    found = _timeline(path, name, status.st_mtime_ns, status.st_size)
    if found.damage and not torn:
        raise BadEpisode(f"{name} {found.damage}; {ADVICE}")
    return found


@lru_cache(maxsize=16)
def _timeline(path: Path, name: str, mtime_ns: int, size: int) -> Timeline:
    with open_video(path, name) as container:
        stream, untimed = recorded(container), is_untimed(path)
        tick = float(stream.time_base) if stream.time_base is not None else 0.0
        if untimed:
            tick = 1 / float(stream.guessed_rate or stream.average_rate or 30)
        codec = stream.codec_context.codec.canonical_name
        seen = _Packets(codec, bytes(stream.codec_context.extradata or b""))
        seen.take(container, stream, untimed)
        dts = seen.dts.restarted(name)
        if seen.damage and dts:
            raise BadEpisode(dts)
        pts, order, twice = seen.in_order()
        if twice:
            raise BadEpisode(dts or f"{name} shows {twice} frames at the time of another")
        if not len(pts) or not tick:
            raise BadEpisode(_holds_none(path, name))
        keys = np.flatnonzero([seen.coded[k].key for k in order])
        digests = np.array([seen.coded[k].digest for k in order], np.int64)
        listed, tears = _listed(path, stream, seen), tears_of(path)
        torn = seen.at_tears(tears, form_of(path)) if listed is None else set()
        spoilt = np.flatnonzero(np.array(seen.spoilt(torn))[order])
        times = np.asarray(pts * tick, np.float64)
        return Timeline(
            pts,
            times,
            stream.height,
            stream.width,
            codec,
            keys,
            digests,
            spoilt,
            seen.damage,
            listed,
            seen.place,
            tears,
        )


def _listed(path: Path, stream: VideoStream, seen: _Packets) -> int | None:
    """`Timeline.listed`."""
    found = stream.frames - seen.unshown
    return found if form_of(path) == "mp4" and found >= len(seen.coded) else None


def _holds_none(path: Path, name: str) -> str:
    """A sentence for a file without a frame."""
    tears = tears_of(path)
    return f"{name} {tears[0].words}; it holds no frame; {ADVICE}" if tears else f"{name} holds no frame"


@dataclass(frozen=True)
class _Coded:
    """What is remembered of a packet."""

    time: int
    """Ticks."""
    place: int
    """First byte in the file; -1: not known."""
    key: bool
    """Whether the container marks it as a keyframe."""
    digest: int
    """Checksum."""
    torn: bool
    """Whether the container marks it as damaged, or packets in front of it are lost."""
    hole: bool
    """Whether its data have a hole."""
    entry: bool
    """Whether decoding may start at it."""


@dataclass
class _Packets:
    """The packets of a file that show a frame, in its order."""

    codec: str
    """Name of the codec."""
    extradata: bytes
    """Its parameter sets."""
    coded: list[_Coded] = field(default_factory=list)
    """Those that show a frame."""
    unshown: int = 0
    """How many show none."""
    damage: str = ""
    """`Timeline.damage`."""
    place: int = -1
    """`Timeline.place`."""

    def take(self, container: InputContainer, stream: VideoStream, untimed: bool) -> None:
        """Read the file to its end, or as far as it can be."""
        holes = Holes(self.extradata, self.codec)
        self._read(container, stream, untimed, holes)
        for number in holes.real():
            self.coded[number] = replace(self.coded[number], hole=True, entry=False)

    def _read(self, container: InputContainer, stream: VideoStream, untimed: bool, holes: Holes) -> None:
        import av

        self.dts = _DecodingTimes()
        unshown, lost = Unshown(self.extradata, self.codec), False
        with contextlib.suppress(av.FFmpegError):
            for packet in container.demux(stream):
                if packet.size == 0:  # the flushing one at the end
                    continue
                time = len(self.coded) if untimed else packet.pts
                self.dts.see(packet)
                if (packet.is_corrupt or time is None) and not self.damage:
                    self.damage = f"is cut short or damaged at frame {len(self.coded)}"
                if self.place < 0 and packet.pos is not None:
                    self.place = packet.pos
                data = bytes(packet)
                if unshown(data) or packet.is_discard:
                    self.unshown += 1
                elif time is None:
                    lost = True
                else:
                    holes.see(data)
                    self.coded.append(self._coded(packet, data, time, lost))
                    lost = False
            return
        self.damage = self.damage or f"is cut short or damaged at frame {len(self.coded)}"

    def _coded(self, packet: Packet, data: bytes, time: int, lost: bool) -> _Coded:
        digest = zlib.crc32(data) ^ packet.size << 32
        key, place = packet.is_keyframe, -1 if packet.pos is None else packet.pos
        entry = key and is_entry(data, self.extradata, self.codec)
        return _Coded(time, place, key, digest, lost or packet.is_corrupt, False, entry)

    def at_tears(self, tears: tuple[Tear, ...], form: str | None) -> set[int]:
        """Packets that may be wrong by where the container is torn."""
        found = {k for k, one in enumerate(self.coded) for tear in tears if tear.since <= one.place < tear.place}
        if form == "mpegts":
            # FFmpeg's parser marks the packet that it hands out while it reads the damaged one: that before
            found |= {k + 1 for k, one in enumerate(self.coded[:-1]) if one.torn}
            fronts = [(self._in_front(tear), tear) for tear in tears]  # where a packet ends is not told
            found |= {front for front, tear in fronts if not tear.whole_in_front}
            known = found | {front for front, _ in fronts}
            found |= self._at_gaps(known | {k for k, one in enumerate(self.coded) if one.torn or one.hole})
        return found

    def _in_front(self, tear: Tear) -> int:
        """The packet in front of a tear; the first where none is."""
        return max((k for k, one in enumerate(self.coded) if one.place < tear.place), default=0)

    def _at_gaps(self, torn: Set[int]) -> set[int]:
        """Packets behind which others may be lost, by gaps in the times, of groups without a damaged one: the first of
        a group with B-frames, as nothing tells which of them were decoded before the lost one."""
        times = np.array([one.time for one in self.coded], np.int64)
        order = np.argsort(times, kind="stable")
        steps = np.diff(times[order])
        gaps = np.flatnonzero(steps > 1.5 * np.median(steps)) if len(steps) else np.array([], np.int64)
        entries = np.array([0, *(k for k, one in enumerate(self.coded) if one.entry), len(times)])
        found = set[int]()
        for before, behind in zip(order[gaps].tolist(), order[gaps + 1].tolist(), strict=True):
            group = int(np.searchsorted(entries, before, side="right"))
            first, end = int(entries[group - 1]) + 1, int(entries[group])
            if not any(first <= k < end for k in torn):
                found.add(first if (np.diff(times[first:end]) < 0).any() else behind)
        return found

    def spoilt(self, torn: Set[int]) -> list[bool]:
        """Of every packet, whether it is damaged, or comes behind such a one and before decoding begins afresh.

        torn: further ones that are damaged.
        """
        found, spoils, since = [], False, None
        for number, one in enumerate(self.coded):
            if one.torn or number in torn or one.hole:
                spoils = True
            elif spoils and one.entry:
                spoils, since = False, one.time
            found.append(spoils or (since is not None and one.time < since))
        return found

    def in_order(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """(times in ascending order, their packets, how many have the time of another); of two with one time a damaged
        one is left out."""
        whole = {one.time for one in self.coded if not one.torn}
        kept = [k for k, one in enumerate(self.coded) if not (one.torn and one.time in whole)]
        order = np.array(sorted(kept, key=lambda k: self.coded[k].time), np.int64)
        times = np.array([self.coded[k].time for k in order], np.int64)
        return np.unique(times), order, len(times) - len(np.unique(times))


@dataclass
class _DecodingTimes:
    """Whether the decoding times of a file begin again inside of it, as those of recordings that were joined do."""

    seen: int = 0
    last: int | None = None
    again: int | None = None

    def see(self, packet: Packet) -> None:
        """Take one packet, in the file's order."""
        if packet.dts is not None:
            if self.last is not None and packet.dts < self.last and self.again is None:
                self.again = self.seen
            self.last = packet.dts
        self.seen += 1

    def restarted(self, name: str) -> str | None:
        """A sentence about it; None where they do not."""
        if self.again is None:
            return None
        return (
            f"{name}: its times begin again after {self.again} of {self.seen} frames: recordings were joined byte by "
            "byte, so that nothing tells which of them a time is of; join their videos anew (ffmpeg -f concat -c "
            "copy), or leave the episodes out"
        )
