"""RoboTwin 2.0 images: buffers or pixels streamed from HDF5, their true colours, and a check against the video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converters.shared.content import not_content
from converters.shared.hdf5 import MAX_FRAME_BYTES, check_written, dataset, open_recording
from fwdata.api import EncodedCamera, EncodedFrame, RawCamera
from fwdata.errors import BadEpisode
from fwdata.images.jpeg import MAX_SIDE, decode_rgb, is_grey, is_marked_rgb, jpeg_size
from fwdata.images.streams import recorded
from fwdata.images.video import ffmpeg_words

type Colour = Literal["auto", "rgb", "swapped"]
type Order = Literal["swapped", "marked", "rgb"]

ALIKE_LEVELS = 12.0
"""Grey levels up to which an image and the video's are the same one."""

MOVED_LEVELS, MOVED_SHARE = 40, 1e-3
"""Grey levels by which a pixel changes where something moved, and the share of such pixels that tells something."""

BLOCK_FRAMES = 64
BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Hdf5Frames:
    """Where one camera's images are; calling a subclass opens a fresh pass. Picklable."""

    path: Path
    """The HDF5 file."""
    key: str
    """The images' dataset in it."""
    camera: str
    """Name of the camera, for messages."""
    rows: int
    """Images in the file, which the dataset must have."""
    count: int
    """Images of the episode; the last row of a classic file is only an action."""
    colour: Colour
    """"auto" decides for every buffer from its marker; the others are forced by the user."""
    first: int = 0
    """Image that a pass begins with."""

    def blocks(self) -> Iterator[tuple[int, Any]]:
        """(index of the first frame, rows of the dataset) in blocks of bounded size."""
        with open_recording(self.path) as file:
            node = checked(dataset(file, self.key), self.key, self.rows)
            frame_bytes = node.dtype.itemsize * int(np.prod(node.shape[1:], dtype=np.int64))
            step = max(1, min(BLOCK_FRAMES, BLOCK_BYTES // max(1, frame_bytes)))
            for start in range(self.first, self.count, step):
                yield start, node[start : min(start + step, self.count)]


@dataclass(frozen=True)
class Hdf5Jpegs(Hdf5Frames):
    """JPEG buffers, byte for byte without their padding."""

    def __call__(self) -> Iterator[EncodedFrame]:
        for start, block in self.blocks():
            for offset, row in enumerate(block):
                where = f"{self.camera} frame {start + offset}"
                data = _buffer(row, where)
                swapped = not is_marked_rgb(data) if self.colour == "auto" else self.colour == "swapped"
                yield EncodedFrame(data, swapped)


@dataclass(frozen=True)
class Hdf5Pixels(Hdf5Frames):
    """Decoded images, uint8 [n, H, W, 3]; already RGB. Greyscale ones, [n, H, W] or [n, H, W, 1], are tripled."""

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        for _, block in self.blocks():
            if block.ndim == 3 or block.shape[3] == 1:
                yield np.repeat(block.reshape(*block.shape[:3], 1), 3, axis=3)
                continue
            yield np.ascontiguousarray(block[..., ::-1]) if self.colour == "swapped" else block


@dataclass(frozen=True)
class CameraInfo:
    """One camera of an episode, and what its first image's header says."""

    source: Hdf5Jpegs | Hdf5Pixels
    """Its images, not read yet."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    order: Order
    """Colour order of the first image."""
    grey: bool = False
    """Whether it has one channel, which says nothing about red and blue."""

    def camera(self) -> EncodedCamera | RawCamera:
        """The camera as the converter contract wants it."""
        if isinstance(self.source, Hdf5Jpegs):
            return EncodedCamera(self.source, self.height, self.width)
        return RawCamera(self.source, self.height, self.width)


def checked(node: Any, key: str, rows: int) -> Any:
    """The dataset, if it can hold images and has the expected number of rows; BadEpisode otherwise."""
    if node is None:
        raise BadEpisode(f"{key} is missing")
    shape, dtype = node.shape, node.dtype
    if not shape or shape[0] != rows:
        raise BadEpisode(
            f"{key} has {shape[0] if shape else 'no'} frames, the joints have {rows}; refusing to cut either"
        )
    pixels = dtype == np.uint8 and (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)))
    rows_of_bytes = len(shape) == 2 and dtype == np.uint8
    strings = len(shape) == 1 and dtype.kind in "SO"
    if not (pixels or rows_of_bytes or strings):
        raise BadEpisode(
            f"{key} must hold JPEG buffers or uint8 (frames, H, W, 3) or (frames, H, W), found {dtype} of shape {shape}"
        )
    if pixels and not all(0 < side <= MAX_SIDE for side in shape[1:3]):
        raise BadEpisode(f"{key} has images of {shape[1]} x {shape[2]} pixels; sides must be 1 to {MAX_SIDE}")
    if dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64)) > MAX_FRAME_BYTES:
        raise BadEpisode(f"{key} has frames of shape {shape[1:]} {dtype}, more than {MAX_FRAME_BYTES >> 20} MiB each")
    check_written(node, key)
    return node


def open_camera(file: Any, source: Hdf5Frames) -> CameraInfo:
    """Check one camera's dataset and read the header of its first frame: size, and which colour order it has."""
    node = checked(dataset(file, source.key), source.key, source.rows)
    fields = (source.path, source.key, source.camera, source.rows, source.count, source.colour)
    if node.ndim >= 3:
        height, width = node.shape[1:3]
        order: Order = "swapped" if source.colour == "swapped" else "rgb"
        grey = node.ndim == 3 or node.shape[3] == 1
        return CameraInfo(Hdf5Pixels(*fields), int(height), int(width), order, grey)
    data = _buffer(node[0], f"{source.camera} frame 0")
    try:
        height, width = jpeg_size(data)
    except ValueError as error:
        raise BadEpisode(f"{source.camera} frame 0: {error}") from None
    marked: Order = "marked" if is_marked_rgb(data) else "swapped"
    order = marked if source.colour == "auto" else source.colour
    return CameraInfo(Hdf5Jpegs(*fields), height, width, order, is_grey(data))


def _buffer(row: Any, where: str) -> bytes:
    """One JPEG buffer as bytes, from a byte string or a padded uint8 row; BadEpisode when it cannot be one."""
    if isinstance(row, np.ndarray) and row.dtype == np.uint8 and row.ndim == 1:
        data = row.tobytes()
    elif isinstance(row, bytes):
        data = bytes(row)
    else:
        raise BadEpisode(f"{where} must be a JPEG buffer, found {type(row).__name__}")
    data = data.rstrip(b"\0")
    if data[:2] != b"\xff\xd8":
        found = f"bytes {data[:4].hex(' ')}" if data else "an empty string"
        raise BadEpisode(f"{where} is not a JPEG: found {found}, expected ff d8")
    return data


def image_of(info: CameraInfo, row: int) -> NDArray[np.uint8]:
    """One frame as uint8 [H, W, 3], true RGB as we read it; BadEpisode when it cannot be decoded."""
    source = replace(info.source, first=row, count=row + 1)
    if isinstance(source, Hdf5Pixels):
        image: NDArray[np.uint8] = next(source())[0]
        return image
    frame = next(source())
    try:
        return decode_rgb(frame.data, frame.red_blue_swapped)
    except ValueError as error:
        raise BadEpisode(f"{source.camera} frame {row}: {error}") from None


type Verdict = Literal["agrees", "contradicts", "not coloured enough", "undecided"]


@dataclass(frozen=True)
class VideoComparison:
    """An image against frame 0 of the collector's video."""

    verdict: Verdict
    """Whether the video shows the colours as they are read."""
    straight: float
    """Mean difference in grey levels as read, over pixels with |R - B| > 40: 1 to 8 for the right order."""
    exchanged: float
    """The same with red and blue exchanged: 40 to 119 where `straight` is right."""
    frames: int
    """Frames of the video by its header; 0 where that does not tell."""
    turned: str = ""
    """How the image is turned against the video, e.g. "mirrored"; "" where it is not."""
    backwards: bool = False
    """Whether the last image is the video's first frame, and the first is not."""


_TURNS = {"mirrored": (1, -1), "upside down": (-1, 1), "rotated by 180 degrees": (-1, -1)}
"""Steps along rows and columns that undo each."""


def compare_with_video(image: NDArray[np.uint8], last: NDArray[np.uint8], video: Path) -> VideoComparison:
    """Compare the first image with frame 0 of the collector's video, which always has true colours and lies right.

    last: the last image, which must not be the one that frame 0 shows.

    Raises ValueError with a reason when the video cannot be decoded or has another size. Cost: about 10 ms.
    """
    first, frames = _first_video_frame(video)
    shown, ours = first.astype(np.int16), image.astype(np.int16)
    if shown.shape != ours.shape:
        raise ValueError(f"{video.name} has images of {shown.shape[:2]}, the head camera of {ours.shape[:2]}")
    coloured = np.abs(shown[..., 0] - shown[..., 2]) > 40
    if coloured.mean() < 0.002:
        return VideoComparison("not coloured enough", 0.0, 0.0, frames)
    straight, exchanged = _apart(ours, shown, coloured)
    verdict: Verdict = "agrees" if 2 * straight < exchanged else "undecided"
    if verdict == "agrees" and straight <= ALIKE_LEVELS:
        return VideoComparison("agrees", straight, exchanged, frames, backwards=_backwards(ours, last, shown))
    turned = {name: min(_apart(ours[::down, ::across], shown, coloured)) for name, (down, across) in _TURNS.items()}
    nearest = min(turned, key=lambda name: turned[name])
    found = nearest if 2 * turned[nearest] < min(straight, exchanged) else ""
    verdict = "contradicts" if 2 * exchanged < straight else verdict
    return VideoComparison(verdict, straight, exchanged, frames, found)


def _backwards(ours: NDArray[np.int16], last: NDArray[np.uint8], shown: NDArray[np.int16]) -> bool:
    """Whether what moved between the first image and the last is in frame 0 of the video as in the last."""
    end = last.astype(np.int16)
    moved = np.abs(ours - end).max(axis=2) > MOVED_LEVELS
    if moved.mean() < MOVED_SHARE:
        return False
    first, later = (float(np.abs(each - shown)[moved].mean()) for each in (ours, end))
    return 2 * later < first


def _apart(ours: NDArray[np.int16], shown: NDArray[np.int16], where: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean difference as read, and with red and blue exchanged."""
    straight, exchanged = (float(np.abs(each - shown)[where].mean()) for each in (ours, ours[..., ::-1]))
    return straight, exchanged


def _first_video_frame(video: Path) -> tuple[NDArray[np.uint8], int]:
    """(frame 0 as RGB, frames by the header)."""
    import av

    try:
        with av.open(str(video), format="mp4") as container:
            stream = recorded(container)
            stream.codec_context.thread_count = 1
            if not (0 < stream.width <= MAX_SIDE and 0 < stream.height <= MAX_SIDE):
                raise ValueError(f"{video.name} claims {stream.height} x {stream.width} pixels")
            for frame in container.decode(stream):
                return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8), stream.frames
    except (av.FFmpegError, OSError, IndexError) as error:
        why = not_content(video, video.name) or f"{video.name} cannot be decoded: {ffmpeg_words(error)}"
        raise ValueError(why) from None
    raise ValueError(f"{video.name} holds no frame")
