"""Videos of LeRobot datasets: which frame belongs to which row, from the file's index; then one sequential decode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.timelines import ADVICE, Timeline, open_video, timeline
from fwdata.errors import BadEpisode
from fwdata.images.colour import ToRgb
from fwdata.images.demux import PacketIndex, first_notes, index_packets, packets_from
from fwdata.images.streams import recorded
from fwdata.images.video import ffmpeg_words
from fwdata.images.video_files import is_untimed
from fwdata.wording import counted

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

_CONTRADICTS = (
    "its times contradict the order in which its frames are coded to be shown, so that nothing tells which frame is of "
    "which row; encode the video again (ffmpeg -i FILE -r RATE OUT), or leave the episode out"
)
_DAMAGED = "cannot be decoded, the video is damaged there or shortly before"
_REORDERED = 32
"""Frames behind another that are looked at for one that should have come before it; decoders hold 16 at most."""

BLOCK_FRAMES = 32
BLOCK_BYTES = 32 << 20


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which frame of a video every row of an episode has."""

    ranks: NDArray[np.int64]
    """int64 [T], position in the video of every row's frame."""
    rule: str
    """How that was decided, for the episode's metadata."""
    largest_offset_s: float
    """Largest distance of a frame from the time of its row, seconds."""
    warning: str | None = None
    """A sentence for the user; None: nothing unusual."""


def check_whole(found: Timeline, name: str, ranks: NDArray[np.int64]) -> None:
    """BadEpisode for a row whose frame is damaged, or may be decoded from a damaged one. ranks: of `Assignment`."""
    bad = np.flatnonzero(np.isin(ranks, found.spoilt))
    if len(bad):
        raise BadEpisode(f"{name}: frame {bad[0]} of the episode {_DAMAGED}; {ADVICE}")


def indexed(path: Path, name: str) -> PacketIndex:
    """The packets of a file, kept until it changes. ValueError when they cannot be kept as recorded."""
    status = path.stat()
    return _indexed(path, name, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _indexed(path: Path, name: str, mtime_ns: int, size: int) -> PacketIndex:
    return index_packets(partial(open_video, path, name))


def notes(path: Path, name: str) -> tuple[str, ...]:
    """Sentences about what the file asks for and is not done, kept until it changes."""
    status = path.stat()
    return _notes(path, name, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _notes(path: Path, name: str, mtime_ns: int, size: int) -> tuple[str, ...]:
    return first_notes(partial(open_video, path, name))


def _entry_time(source: VideoPixels, codec: str, pts: int) -> int | None:
    """Time of the keyframe that the frame at `pts` is decoded from; None where only the container tells keyframes.

    Containers may mark other packets as keyframes too, from which decoding gives wrong frames without an error.
    """
    if codec in ("h264", "hevc", "mpeg4"):
        with contextlib.suppress(ValueError):
            return indexed(source.path, source.name).entry_time(pts)
    return None


def _decoded_from(container: InputContainer, entry: int | None, pts: int) -> Iterator[VideoFrame]:
    """Decoded frames from the keyframe on that the one at `pts` needs, or from an earlier one."""
    stream = recorded(container)
    if entry is None:
        container.seek(pts, stream=stream, backward=True, any_frame=False)
        yield from container.decode(stream)
        return
    for packet in packets_from(container, stream, entry):
        yield from stream.decode(packet)
    yield from stream.decode(None)


def assign_whole(found: Timeline, name: str, rows: int, fps: float) -> Assignment:
    """Frames of a video that holds one episode alone (v2.x) and has as many frames as that has rows.

    BadEpisode when there are fewer or more, or when frames are missing or doubled inside (uneven times).
    """
    if len(found.times) != rows:
        raise BadEpisode(
            f"{name} holds {counted(len(found.times), 'frame')}, the episode has {counted(rows, 'row')}, so "
            "nothing tells which frame each "
            "row has; download the video again, or leave the episode out"
        )
    return assign_run(found, name, rows, fps, 0, "frame k is row k")


def assign_run(found: Timeline, name: str, rows: int, fps: float, first: int, rule: str) -> Assignment:
    """`rows` consecutive frames from `first`; BadEpisode when they are not evenly spaced in time."""
    times = found.times[first : first + rows]
    step = float(times[-1] - times[0]) / (rows - 1) if rows > 1 else 1 / fps
    offset = np.abs(times - times[0] - np.arange(rows) * step)
    if (offset >= step / 2).any():
        row = int(offset.argmax())
        raise BadEpisode(
            f"{name}: frame {row} is shown at {times[row] - times[0]:.3f} s, an even rate puts it at {row * step:.3f} "
            f"s; frames are missing or doubled; {ADVICE}"
        )
    warning = None
    if abs(step * fps - 1) > 0.01:
        warning = f"{name} runs at {1 / step:.4g} frames/s, meta/info.json says {fps:g}; frame k belongs to row k"
    return Assignment(_run(first, rows), rule, float(offset.max()), warning)


def _run(first: int, rows: int) -> NDArray[np.int64]:
    return np.arange(first, first + rows, dtype=np.int64)


def assign_span(found: Timeline, name: str, rows: int, fps: float, start_s: float) -> Assignment:
    """Frames of an episode in a shared video (v3.0): row k is shown at start_s + k / fps of the file.

    BadEpisode when the video ends before the last row, or a row has no frame within half a period.
    """
    wanted = start_s + np.arange(rows) / fps
    first = int(np.abs(found.times - wanted[0]).argmin())
    times = found.times[first : first + rows]
    offset = np.abs(times - wanted[: len(times)])
    if (offset >= 0.5 / fps).any():
        row = int((offset >= 0.5 / fps).argmax())
        raise BadEpisode(
            f"{name}: row {row} is at {wanted[row]:.3f} s, the closest frame left for it at {times[row]:.3f} s; "
            f"frames are missing or doubled; {ADVICE}"
        )
    if len(times) < rows:
        raise BadEpisode(
            f"{name} has {counted(len(times), 'frame')} from {start_s:.3f} s on, the episode has {counted(rows, 'row')}"
        )
    return Assignment(_run(first, rows), "nearest frame to from_timestamp + k / fps", float(offset.max()))


@dataclass(frozen=True, eq=False)
class VideoPixels:
    """Frames of one episode and camera; calling it opens a fresh pass that decodes each frame once. Picklable.

    Blocks are uint8 [n, H, W, 3], n <= 32 and at most 32 MiB; a shared file is entered at the keyframe before the
    episode.
    """

    path: Path
    """The video."""
    name: str
    """How messages call it: relative to the dataset, POSIX."""
    ranks: NDArray[np.int64]
    """int64 [T], ascending positions in the video of the episode's frames."""
    swapped: bool = False
    """Whether red and blue are exchanged after decoding."""

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        found = timeline(self.path, self.name, torn=True)
        size = found.height, found.width
        limit = max(1, min(BLOCK_FRAMES, BLOCK_BYTES // (size[0] * size[1] * 3)))
        block: list[NDArray[np.uint8]] = []
        to_rgb = ToRgb()
        for frame in decode(self):
            image = to_rgb(frame)
            block.append(image[..., ::-1] if self.swapped else image)
            if len(block) == limit:
                yield np.stack(block)
                block = []
        if block:
            yield np.stack(block)

    @property
    def untimed(self) -> bool:
        """Whether the file tells no display times."""
        return is_untimed(self.path)


class _Group:
    """Whether the frames since the last keyframe have all come out of the decoder, undamaged.

    pts: int64 [N], ascending times of all frames of the file. entry: the frame that decoding begins at, if known.
    Before the first keyframe they have not: decoders make up what such frames refer to, but for H.264's, which shows
    none of them and does not mark every frame that it may begin with.
    """

    def __init__(self, pts: NDArray[np.int64], entry: int | None, codec: str) -> None:
        self._pts = pts
        self._next = entry
        self._spoilt = codec != "h264"
        self.backwards = False
        """Whether a frame came out behind one that is shown later."""

    def spoilt_by(self, frame: VideoFrame, time: int | None) -> bool:
        """Take the next frame in the order shown; whether it, or one since its keyframe, is missing or damaged."""
        place = -1 if time is None else int(np.searchsorted(self._pts, time))
        if not 0 <= place < len(self._pts) or self._pts[place] != time:
            return self._spoilt or frame.is_corrupt  # hidden by an edit list
        self.backwards = self.backwards or (self._next is not None and place < self._next - 1)
        lost = not frame.key_frame and (self._spoilt or self._next not in (None, place))
        self._spoilt, self._next = lost or frame.is_corrupt, place + 1
        return self._spoilt


def decode(source: VideoPixels) -> Iterator[VideoFrame]:
    """The frames in order; BadEpisode for one that the decoder leaves out or marks as damaged, or of another size, and
    for one that is decoded from such a frame: decoders show that without an error.

    A shared file is entered in its middle, where a transport stream may lead past the frame and a group may show it
    before its keyframe; then it is decoded from its start.
    """
    shown = _decode(source, enter=bool(source.ranks[0]) and not source.untimed)
    first = next(shown, None)
    if first is None:
        yield from _decode(source, enter=False)
        return
    yield first
    yield from shown


def _decode(source: VideoPixels, enter: bool) -> Iterator[VideoFrame]:
    """`decode` from the start of the file, or to `enter` it from a keyframe: then nothing where the first frame does
    not come out and only the container tells keyframes."""
    found = timeline(source.path, source.name, torn=True)
    size = found.height, found.width
    wanted = found.pts[source.ranks].tolist()
    done, words, untimed = 0, "", source.untimed
    entry = _entry_time(source, found.codec, wanted[0]) if enter else None
    begin = 0 if not enter else None if entry is None else int(np.searchsorted(found.pts, entry))
    group = _Group(found.pts, begin, found.codec)
    with open_video(source.path, source.name) as container:
        decoded = _decoded_from(container, entry, wanted[0]) if enter else container.decode(recorded(container))
        shown = _until_damage(decoded)
        for number, frame in enumerate(shown):
            if isinstance(frame, str):
                words = f" ({frame})"
                break
            time = number if untimed else frame.pts
            spoilt = group.spoilt_by(frame, time)
            if time is not None and time < wanted[done]:
                continue
            if time != wanted[done] or spoilt:
                late = islice(() if untimed else shown, _REORDERED)
                if group.backwards or any(getattr(frame, "pts", None) == wanted[done] for frame in late):
                    raise BadEpisode(f"{source.name}: {_CONTRADICTS}")
                break
            if (frame.height, frame.width) != size:
                raise BadEpisode(
                    f"{source.name}: frame {done} of the episode has {frame.height}x{frame.width} pixels, the file's "
                    f"header says {size[0]}x{size[1]}"
                )
            while done < len(wanted) and wanted[done] == time:  # a row may show the frame of the one before
                yield frame
                done += 1
            if done == len(wanted):
                return
    if enter and entry is None and not done:
        return
    raise BadEpisode(f"{source.name}: frame {done} of the episode {_DAMAGED}{words}; {ADVICE}")


def _until_damage(decoded: Iterator[VideoFrame]) -> Iterator[VideoFrame | str]:
    """Decoded frames; last of all what the decoder says of damage."""
    import av

    try:
        yield from decoded
    except av.FFmpegError as error:
        yield ffmpeg_words(error)
