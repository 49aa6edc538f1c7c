"""Recorded video written back into MP4 files without coding it again.

Packets are copied byte for byte; where they were recorded with start codes, the muxer makes them lengths.

Episodes follow each other in one file as long as their streams have equal parameters, begin with an entry that refers
to nothing before it, and the file stays below FILE_BYTES. An episode's frames begin `first` frames into its file:
frames that only others need come along.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fwdata.images.video import SetsKnown, VideoHeader, VideoPacket, nal_types
from fwdata.store.episode import StoredEpisode
from fwdata.store.video import VideoTrack, open_track

if TYPE_CHECKING:
    from av.video.stream import VideoStream

FILE_BYTES = 200 * 2**20
"""Bytes after which a further file is begun, as lerobot's writer does."""

TICKS = 256
"""Time units per frame."""


@dataclass(frozen=True)
class FilePosition:
    """Where an episode's frames are."""

    file: int
    """Number of the file."""
    first: int
    """Frames of the file before the episode's first row."""
    rows: int
    """Rows of the episode, one frame each."""


@dataclass(frozen=True)
class VideoFile:
    """One file to write."""

    header: VideoHeader
    """What its packets have in common."""
    episodes: tuple[StoredEpisode, ...]
    """Whose packets it holds, in order."""


@dataclass(frozen=True)
class CameraVideos:
    """One camera's recorded video, cut into files."""

    camera: str
    """Name of the camera."""
    files: tuple[VideoFile, ...]
    """Files in order."""
    places: tuple[FilePosition, ...]
    """Of every episode, in order."""


def plan_videos(episodes: Sequence[StoredEpisode], camera: str) -> CameraVideos | None:
    """How a camera's packets become files; None where they cannot be copied and frames must be encoded.

    They cannot where an episode holds another kind of camera, rows that are not consecutive frames, exchanged colours,
    or a stream that MP4 does not hold. Cost: metadata, and two packets per episode.
    """
    files: list[tuple[VideoHeader, list[StoredEpisode]]] = []
    places: list[FilePosition] = []
    frames = size = 0
    others = False  # parameter sets that the header lacks hold at the end of the last episode
    for episode in episodes:
        track = _track(episode, camera)
        shown = None if track is None else track.picture[episode.start : episode.start + episode.num_frames]
        if track is None or shown is None or (np.diff(shown) != 1).any():
            return None
        low, end = _packets(track, episode)
        header = track.headers[int(track.header_of[track.entry_of(int(shown[0]))])]
        count, total = _count(track, low, end), int(track.offset[end] - track.offset[low])
        same = bool(files) and header.stream() == files[-1][0].stream()
        fits = same and size + total <= FILE_BYTES and _begins_anew(track, header, low, others)
        if not header.init and not _in_band(header):
            return None
        if not fits:
            files.append((header, []))
            frames = size = 0
        files[-1][1].append(episode)
        places.append(FilePosition(len(files) - 1, frames + int(shown[0] - track.rank[low]), episode.num_frames))
        frames, size = frames + count, size + total
        others = _leaves_others(track, header, end)
    return CameraVideos(camera, tuple(VideoFile(h, tuple(e)) for h, e in files), tuple(places))


def _track(episode: StoredEpisode, camera: str) -> VideoTrack | None:
    if episode.part.record.cameras[camera].encoding != "video":
        return None
    track = open_track(episode.part, camera)
    return None if track.swapped else track


def _packets(track: VideoTrack, episode: StoredEpisode) -> tuple[int, int]:
    """(first, end) of an episode's packets."""
    entry = track.entry_of(int(track.picture[episode.start]))
    return int(track.entry[track.run[entry]]), track.run_end(entry)


def _count(track: VideoTrack, low: int, end: int) -> int:
    """Packets that are written: frames shown before the first entry cannot be decoded without what is not there."""
    return int((track.rank[low:end] >= track.rank[low]).sum())


def count_frames(file: VideoFile, camera: str) -> int:
    """Frames that a file holds. Cost: metadata."""
    total = 0
    for episode in file.episodes:
        track = open_track(episode.part, camera)
        total += _count(track, *_packets(track, episode))
    return total


def _data(track: VideoTrack, number: int) -> bytes:
    """Bytes of a packet."""
    return track.data.rows(int(track.offset[number]), int(track.offset[number + 1])).tobytes()


def _leaves_others(track: VideoTrack, header: VideoHeader, end: int) -> bool:
    """Whether parameter sets that the header lacks hold at the end of a run: then its last entry carries them."""
    known = SetsKnown(header.extradata, header.codec)
    known(_data(track, int(track.entry[np.searchsorted(track.entry, end) - 1])))
    return known.ever_other


def _begins_anew(track: VideoTrack, header: VideoHeader, low: int, others: bool) -> bool:
    """Whether a run can follow another one: not where its first image only allows to tune in, nor where it counts on
    the header's parameter sets when others hold."""
    data = _data(track, low)
    if others and not SetsKnown(header.extradata, header.codec).carries_all(data):
        return False
    kinds = list(nal_types(data, header.extradata, header.codec)) if header.codec in ("h264", "hevc") else []
    if header.codec == "h264":
        return any(first & 0x1F == 5 for first in kinds)
    return header.codec != "hevc" or any(16 <= (first >> 1) & 0x3F <= 20 for first in kinds)


def episode_packets(episode: StoredEpisode, camera: str) -> Iterator[VideoPacket]:
    """Packets of an episode that can be decoded, ranks counted from 0; entries are those that players may seek to.

    A reader that seeks to the keyframe of an open group for a frame that is shown before it would never find the frame.
    """
    track = open_track(episode.part, camera)
    low, end = _packets(track, episode)
    closed = _closed(track, low, end)
    first = int(track.rank[low])
    for number, packet in enumerate(track.episode_packets(episode.start), low):
        if packet.rank >= first:
            yield VideoPacket(packet.data, packet.rank - first, number in closed)


def _closed(track: VideoTrack, low: int, end: int) -> frozenset[int]:
    """The first entry of a run, and the others that no frame of their group is shown before."""
    entries = [int(entry) for entry in track.entry if low <= entry < end]
    groups = zip(entries, [*entries[1:], end], strict=True)
    return frozenset(a for a, b in groups if a == low or track.rank[a:b].min() == track.rank[a])


def write_video(path: Path, file: VideoFile, camera: str, fps: int, on_frames: Callable[[int], None]) -> None:
    """Write one file; on_frames: called with the rows of every episode. Memory: one episode's packets."""
    import av
    from av.video.stream import VideoStream

    first = next(episode_packets(file.episodes[0], camera)).data
    start, form = (file.header.init, "mp4") if file.header.init else (file.header.extradata + first, file.header.codec)
    with av.open(io.BytesIO(start), format=form) as template, av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream_from_template(template.streams.video[0], opaque=True)
        assert isinstance(stream, VideoStream)
        _describe(stream, file, camera)
        stream.time_base = tick = Fraction(1, fps * TICKS)  # the muxer may choose a finer one
        base, delay = 0, max(_delay(episode_packets(e, camera)) for e in file.episodes)
        for episode in file.episodes:
            number = -1
            for number, found in enumerate(episode_packets(episode, camera)):
                packet = av.Packet(found.data)
                packet.stream, packet.time_base = stream, tick
                packet.pts, packet.dts = (base + found.rank) * TICKS, (base + number - delay) * TICKS
                packet.duration, packet.is_keyframe = TICKS, found.is_entry
                out.mux(packet)
            base += number + 1
            on_frames(episode.num_frames)


def _in_band(header: VideoHeader) -> bool:
    """Whether packets have start codes, as topics of ROS bags: the first one tells what init would."""
    return header.codec in ("h264", "hevc") and header.extradata[:1] != b"\x01"


def _describe(stream: VideoStream, file: VideoFile, camera: str) -> None:
    """Fill in what the template leaves out: the size of MPEG-4 part 2, the format of VP9, start codes.

    Templates of frames that were coded again in earlier versions describe another stream altogether.
    """
    context, record = stream.codec_context, file.episodes[0].part.record.cameras[camera]
    context.height, context.width, context.pix_fmt = record.height, record.width, file.header.pix_fmt
    context.colorspace, context.color_range = file.header.matrix, file.header.color_range
    if file.header.extradata:
        context.extradata = file.header.extradata


def _delay(packets: Iterable[VideoPacket]) -> int:
    """Most packets that come in decode order before one that is shown earlier."""
    return max((number - packet.rank for number, packet in enumerate(packets)), default=0)
