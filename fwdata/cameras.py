"""Cameras of an episode while it is read: encoded images, pixels, or recorded video. Offered by `fwdata.api`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import BadEpisode
from fwdata.images.video import VideoHeader, VideoPacket

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from fwdata.images.demux import PacketIndex

MAX_IMAGE_PIXELS = 1 << 26
"""Pixels of one image (8192x8192): a header that claims more is damaged, and is refused unread."""


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1 or height * width > MAX_IMAGE_PIXELS:
        raise BadEpisode(f"images of {height}x{width} pixels; between 1 and {MAX_IMAGE_PIXELS} pixels are possible")


@dataclass(frozen=True)
class EncodedFrame:
    """One JPEG buffer as recorded."""

    data: bytes
    """The buffer; stored byte for byte."""
    red_blue_swapped: bool = False
    """Whether a standard JPEG decoder shows red and blue exchanged (legacy RoboTwin streams); readers exchange them
    back."""
    checked: bool = False
    """Whether the converter has decoded the buffer without an error already; else it is decoded when it is written."""
    small: NDArray[np.uint8] | None = field(default=None, compare=False)
    """What `fwdata.images.small.small_grey` made of a checked buffer, uint8 [h, w]; else detectors decode it again."""


@dataclass(frozen=True)
class EncodedCamera:
    """A camera whose source holds JPEG buffers; they are stored byte for byte."""

    frames: Callable[[], Iterator[EncodedFrame]]
    """Opens a fresh pass over the T buffers; may be called more than once."""
    height: int
    """Pixels of every frame of this episode; each buffer is checked against it when it is written."""
    width: int
    """Pixels of every frame of this episode; each buffer is checked against it when it is written."""
    encoding: Literal["jpeg"] = "jpeg"
    """Kind of camera, as `fwdata inspect` shows it."""

    def __post_init__(self) -> None:
        """BadEpisode for a size that no camera has."""
        _check_size(self.height, self.width)


@runtime_checkable
class FillsMemory(Protocol):
    """What `RawCamera.frames` may be beside a function, so that its frames are written where the store wants them: into
    memory that it uses again, as fresh memory costs more than copying into it."""

    def into(self, memory: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """A fresh pass over the same blocks, one after another in memory, uint8 [T, H, W, 3]; those that do not fit in
        arrays of their own."""


@dataclass(frozen=True)
class RawCamera:
    """A camera whose source holds pixels, or video that is decoded; they are stored losslessly."""

    frames: Callable[[], Iterator[NDArray[np.uint8]]]
    """Opens a fresh pass over the T frames as blocks, each uint8 [n, H, W, 3], true RGB, upright as the policy sees it.
    Blocks may have any n >= 1; keep them small (16 to 64 frames), they bound the memory of a conversion. They are
    copied, unless an array owns its pixels and is marked read-only (`block.flags.writeable = False`), or lies in
    memory of the store's (`FillsMemory`)."""
    height: int
    """Pixels of every frame of this episode."""
    width: int
    """Pixels of every frame of this episode."""
    encoding: Literal["raw"] = "raw"
    """Kind of camera, as `fwdata inspect` shows it."""

    def __post_init__(self) -> None:
        """BadEpisode for a size that no camera has."""
        _check_size(self.height, self.width)

    @classmethod
    def from_files(cls, paths: Sequence[Path]) -> RawCamera:
        """A camera of image files (PNG, JPEG, ..), one per frame in time order, all of the first one's size.

        BadEpisode where there is no file or the first cannot be read; later ones are checked when they are stored.
        """
        from fwdata.images.files import ImageFiles

        try:
            files = ImageFiles.of(paths)
        except ValueError as error:
            raise BadEpisode(str(error)) from None
        return cls(files, files.height, files.width)


@dataclass(frozen=True, eq=False)
class VideoCamera:
    """A camera whose source holds video; its packets are stored byte for byte and decoded when frames are read.

    The writer decodes every packet once to check them. Where they cannot be kept (a keyframe that is none, frames that
    the decoder leaves out), it stores `frames` losslessly coded instead, with a warning.
    """

    packets: Callable[[], Iterator[VideoPacket]]
    """Opens a fresh pass over the packets in decode order, in whole groups: the first is an entry."""
    frames: Callable[[], Iterator[VideoFrame]]
    """Opens a fresh pass over the T decoded frames of the rows, as read from the recording itself."""
    header: VideoHeader
    """What decoding needs besides packets."""
    rows: NDArray[np.int64]
    """int64 [T]: rank of the packet whose frame is shown at each row."""
    height: int
    """Pixels of every frame of this episode."""
    width: int
    """Pixels of every frame of this episode."""
    swapped: bool = False
    """Red and blue were exchanged before the video was encoded; readers exchange them back."""
    unkept: str = ""
    """Why the packets cannot be kept, where the converter knows that already: `frames` are stored instead."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about what the file asks for and is not done."""
    encoding: Literal["video"] = "video"
    """Kind of camera, as `fwdata inspect` shows it."""

    def __post_init__(self) -> None:
        """BadEpisode for a size that no camera has."""
        _check_size(self.height, self.width)

    @classmethod
    def from_file(cls, path: Path) -> VideoCamera:
        """A camera of a video file, one frame per row in the order they are shown.

        BadEpisode where the file cannot be read. Cost: two passes over its packets.
        """
        from fwdata.images.video_files import WholeVideo

        video = WholeVideo.of(path)
        size, rows = (video.height, video.width), np.arange(video.count)
        try:
            return cls.of_packets(video.index(), rows, size, video)
        except ValueError as error:
            return cls.of_frames(str(error), video.count, size, video, notes=video.notes())

    @classmethod
    def of_packets(
        cls,
        index: PacketIndex,
        frames: NDArray[np.int64],
        size: tuple[int, int],
        decode: Callable[[], Iterator[VideoFrame]],
        swapped: bool = False,
    ) -> VideoCamera:
        """The camera of an episode that shows these frames of a file, in whole groups of packets.

        frames: int64 [T], positions among the frames that the file shows. size: (height, width). decode: opens a fresh
        pass over the same frames, decoded. ValueError when no keyframe comes before the first one, and for a frame that
        the file does not show.
        """
        shown = np.flatnonzero(index.shown[index.by_time])
        beyond = np.flatnonzero((frames < 0) | (frames >= len(shown)))
        if len(beyond):
            row = int(beyond[0])
            raise ValueError(f"row {row} shows frame {frames[row]}, the video holds {len(shown)} frames")
        ranks = shown[frames]
        first, end = index.span(ranks)
        rows = np.searchsorted(np.sort(index.rank[first:end]), ranks).astype(np.int64)
        packets = partial(index.packets, first, end)
        return cls(packets, decode, index.header, rows, size[0], size[1], swapped, notes=index.notes)

    @classmethod
    def of_frames(
        cls,
        reason: str,
        count: int,
        size: tuple[int, int],
        decode: Callable[[], Iterator[VideoFrame]],
        swapped: bool = False,
        notes: tuple[str, ...] = (),
    ) -> VideoCamera:
        """A camera whose packets cannot be kept: its decoded frames are stored losslessly coded, with a warning."""
        nothing = VideoHeader("", b"", b"", "", 2, 0)
        return cls(lambda: iter(()), decode, nothing, np.arange(count), size[0], size[1], swapped, reason, notes)


type Camera = EncodedCamera | RawCamera | VideoCamera
