"""Video files: opened as the container that they are, by their first bytes or their ending, and decoded whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EACCES, EISDIR, ENOENT
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fwdata.errors import BadEpisode, needed_for
from fwdata.images.demux import PacketIndex, first_notes, index_packets
from fwdata.images.forms import FORMATS, form_of
from fwdata.images.jpeg import MAX_SIDE
from fwdata.images.streams import recorded
from fwdata.images.video import UNALIGNED, Unshown

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

_UNTIMED = frozenset({"avi", "mpeg"})


def is_video(path: Path) -> bool:
    """Whether a file's ending is that of a video."""
    return path.suffix.lower() in FORMATS


def is_untimed(path: Path) -> bool:
    """Whether a file's container (AVI, MPEG-PS) lacks the time of every frame.

    Frames are then counted as they are decoded, at an even rate. Reads the first bytes.
    """
    return form_of(path) in _UNTIMED


def has_index(path: Path) -> bool:
    """Whether a file's container (MP4, MKV) lists where its keyframes are. Reads the first bytes."""
    return form_of(path) in {"mp4", "matroska"}


@contextmanager
def open_file(path: Path, name: str) -> Iterator[InputContainer]:
    """Open a local video as the container that it is: no playlists, nothing outside the file is read.

    name: how messages call it. BadEpisode where it cannot be read; also for what reading raises inside of the block.
    """
    import av

    form = form_of(path)
    if form is None:
        raise BadEpisode(f"{name} has the ending {path.suffix!r}; known are {', '.join(FORMATS)}")
    try:
        with av.open(str(path.resolve()), format=form) as container:
            if not container.streams.video:
                raise BadEpisode(f"{name} holds no video stream")
            stream = recorded(container)
            if stream.codec_context is None:
                raise BadEpisode(f"{name} is coded in a way that no decoder here knows")
            if not (0 < stream.width <= MAX_SIDE and 0 < stream.height <= MAX_SIDE):
                raise BadEpisode(f"{name} claims {stream.height}x{stream.width} pixels; sides must be 1 to {MAX_SIDE}")
            stream.codec_context.thread_count = 1
            stream.codec_context.flags |= UNALIGNED
            yield container
    except BadEpisode:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadEpisode(f"{name} cannot be read as video: {_why(path, error)}") from error


def _why(path: Path, error: Exception) -> str:
    """What is wrong with a file that FFmpeg does not open, without its error numbers; our own errors say it already."""
    import av

    if not isinstance(error, (av.FFmpegError, OSError)):
        return str(error)
    if isinstance(error, OSError) and error.errno in (ENOENT, EACCES, EISDIR):
        return str(error.strerror)
    other = _other_kind(path)
    if other is not None:
        return other
    if path.suffix.lower() in _INDEXED and _lacks_index(path):
        return (
            "it ends before its index (moov), so the download or the recording broke off; fetch it again, or leave "
            "its episodes out"
        )
    return "it is truncated, damaged, or not a video; fetch it again"


def _other_kind(path: Path) -> str | None:
    """What a file is that holds no container that is read, by its first bytes, and what to do; None where unknown."""
    with path.open("rb") as file:
        head = file.read(16)
    kind = next((what for magic, what in _CONTAINERS.items() if head.startswith(magic)), None)
    if kind is not None:
        copied = "" if kind == "GIF" else "-c copy "
        return f"it is {kind}, which is not read; put it into a container that is: ffmpeg -i FILE {copied}FILE.mkv"
    if head.startswith((b"\0\0\0\1", b"\0\0\1")):
        return (
            "it is a coded stream without a container, which holds no times; put it into one at its rate: ffmpeg "
            "-framerate FPS -i FILE -c copy FILE.mp4"
        )
    what = next((what for magic, what in _NO_VIDEOS.items() if head.startswith(magic)), None)
    return what and f"it is {what}, not a video; fetch it again, or leave its episodes out"


_CONTAINERS = {
    b"GIF8": "GIF",
    b"FLV\1": "Flash video (FLV)",
    b"OggS": "Ogg",
    b"\x30\x26\xb2\x75": "Windows media (ASF)",
    b"nut/": "NUT",
}
_NO_VIDEOS = {
    b"\xff\xd8\xff": "a single JPEG image",
    b"\x89PNG": "a single PNG image",
    b"PAR1": "a Parquet table",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"ID3": "sound",
    b"RIFF": "sound or an image (RIFF)",
}
_INDEXED = (".mp4", ".m4v", ".mov")


def _lacks_index(path: Path) -> bool:
    """Whether a file begins as an MP4 does and holds no whole index (ISO 14496-12 4.2: boxes of size and type)."""
    with path.open("rb") as file:
        place, size = 0, path.stat().st_size
        while place + 8 <= size:
            file.seek(place)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if place == 0 and kind != b"ftyp":
                return False
            if kind == b"moov":
                return place + length > size
            length = int.from_bytes(head[8:16], "big") if length == 1 else length
            if length < 8:
                return True
            place += length
    return place > 0


@dataclass(frozen=True)
class WholeVideo:
    """Every frame of a file in the order they are shown. Calling it opens a fresh pass. Picklable."""

    path: Path
    """The video."""
    count: int
    """Frames that it shows."""
    height: int
    """Pixels of every frame."""
    width: int
    """Pixels of every frame."""

    @classmethod
    def of(cls, path: Path) -> WholeVideo:
        """BadEpisode where the file cannot be read. Cost: one pass over the packets, of containers without times one
        decoding."""
        untimed = is_untimed(path)
        with needed_for("recorded video"), open_file(path, path.name) as container:
            stream = recorded(container)
            height, width = stream.height, stream.width
            if untimed:
                count = sum(1 for _ in container.decode(stream))
            else:
                unshown = Unshown(
                    bytes(stream.codec_context.extradata or b""), stream.codec_context.codec.canonical_name
                )
                count = 0
                for packet in container.demux(stream):
                    if packet.is_corrupt:
                        raise BadEpisode(f"{path.name} is cut short or damaged at frame {count}; fetch it again")
                    count += packet.size > 0 and not (unshown(bytes(packet)) or packet.is_discard)
        if not count:
            raise BadEpisode(f"{path.name} holds no frame")
        return cls(path, count, height, width)

    def __call__(self) -> Iterator[VideoFrame]:
        """The frames; BadEpisode for one that is damaged, missing or of another size."""
        done = 0
        with open_file(self.path, self.path.name) as container:
            stream = recorded(container)
            made_up = stream.codec_context.codec.canonical_name != "h264"  # what others show before any keyframe
            for frame in container.decode(stream):
                made_up = made_up and not frame.key_frame
                if frame.is_corrupt or made_up or done == self.count:
                    break
                if (frame.height, frame.width) != (self.height, self.width):
                    found = f"{frame.height}x{frame.width}"
                    raise BadEpisode(
                        f"{self.path.name}: frame {done} is {found} pixels, the first {self.height}x{self.width}"
                    )
                yield frame
                done += 1
        if done < self.count:
            raise BadEpisode(f"{self.path.name}: frame {done} of {self.count} cannot be decoded, the video is damaged")

    def notes(self) -> tuple[str, ...]:
        """Sentences about what the file asks for and is not done."""
        return first_notes(partial(open_file, self.path, self.path.name))

    def index(self) -> PacketIndex:
        """Its packets. ValueError with the reason where they cannot be kept."""
        if is_untimed(self.path):
            raise ValueError("the file tells no display times")
        found = index_packets(partial(open_file, self.path, self.path.name))
        if int(np.count_nonzero(found.shown)) != self.count:
            raise ValueError("its index does not count its frames")
        return found
