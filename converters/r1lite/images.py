"""Images of R1 Lite recordings: what a message holds, and second passes that stream the frames of one camera.

JPEG buffers pass through byte for byte; plain images become RGB; H.264 and H.265 are decoded once, in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.r1lite.bags import Bags
from fwdata.api import EncodedFrame
from fwdata.errors import BadEpisode
from fwdata.images.colour import ToRgb
from fwdata.images.jpeg import MAX_SIDE, jpeg_size
from fwdata.images.small import small_grey
from fwdata.images.video import UNALIGNED

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

type Kind = Literal["jpeg", "rgb8", "bgr8", "mono8", "h264", "hevc", "unsupported"]
type Image = NDArray[np.uint8]

BLOCK_FRAMES = 8
_CODECS: dict[str, Kind] = {"h264": "h264", "avc": "h264", "h265": "hevc", "hevc": "hevc"}
_CHANNELS: dict[str, int] = {"rgb8": 3, "bgr8": 3, "mono8": 1}


class Look(NamedTuple):
    """What one message holds."""

    kind: Kind | None
    """How the image is coded; None: nothing that can be recognised."""
    height: int
    """Pixels; 0 where unknown."""
    width: int
    """Pixels; 0 where unknown."""
    problem: str
    """What is wrong with it; "" where nothing is."""
    key: bool = False
    """Whether it is a video frame that needs no other."""
    small: Image | None = None
    """What `small_grey` makes of a JPEG, uint8 [h, w]; None where that was not asked for."""


def look_at(message: Any, small: bool = False) -> Look:
    """Recognise an image by its bytes (the `format` text of real recordings cannot be trusted) and check it.

    small: keep the small image of a JPEG that checking it makes. Cost: every coded bit of a JPEG is decoded once, at
    an eighth of its size (1.8 ms for 1280x720 pixels).
    """
    if hasattr(message, "encoding"):
        return _look_at_pixels(message)
    if not hasattr(message, "format"):
        return Look("unsupported", 0, 0, f"{type(message).__name__} messages, expected CompressedImage or Image")
    data = bytes(message.data)
    if not data:
        return Look(None, 0, 0, "the buffer is empty")
    if data[:2] == b"\xff\xd8":
        return _look_at_jpeg(data, small)
    codec = _video_codec(message.format, data[:4])
    if codec:
        return Look(codec, 0, 0, "", is_key(data, codec))
    if data[:4] == b"\x89PNG":
        return Look("unsupported", 0, 0, "PNG images; only JPEG, plain images and H.264/H.265 video are read")
    return Look(None, 0, 0, f"no JPEG: starts with {data[:4].hex(' ')}, format {message.format[:40]!r}")


def _look_at_jpeg(data: bytes, small: bool) -> Look:
    import simplejpeg

    try:
        height, width = jpeg_size(data)
        if small:
            return Look("jpeg", height, width, "", small=small_grey(data))
        simplejpeg.decode_jpeg(data, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        return Look(None, 0, 0, f"the JPEG is damaged ({error})")
    return Look("jpeg", height, width, "")


def _look_at_pixels(message: Any) -> Look:
    channels, height, width = _CHANNELS.get(message.encoding), int(message.height), int(message.width)
    if channels is None:
        return Look("unsupported", 0, 0, f"{message.encoding!r} images; plain ones must be rgb8, bgr8 or mono8")
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        return Look(None, 0, 0, f"claims {height}x{width} pixels; sides must be 1 to {MAX_SIDE}")
    if message.step < width * channels or len(message.data) < message.step * height:
        return Look(None, 0, 0, f"holds {len(message.data)} bytes, too few for {height}x{width} pixels")
    return Look(message.encoding, height, width, "")


def _video_codec(name: str, start: bytes) -> Kind | None:
    named = next((codec for text, codec in _CODECS.items() if text in name.lower()), None)
    if named:
        return named
    return "h264" if start[:3] == b"\0\0\1" or start == b"\0\0\0\1" else None


def is_key(data: bytes, codec: Kind) -> bool:
    """Whether an Annex B buffer holds an image that decoding can start with (ITU H.264 7.4.1, H.265 7.4.2.2)."""
    position = data.find(b"\0\0\1")
    while 0 <= position < len(data) - 3:
        head = data[position + 3]
        if codec == "h264" and head & 0x1F == 5:
            return True
        if codec == "hevc" and 16 <= (head >> 1) & 0x3F <= 21:
            return True
        position = data.find(b"\0\0\1", position + 3)
    return False


@dataclass(frozen=True)
class BagFrames:
    """The frames of one camera, one per row; calling a subclass opens a fresh pass over the recording. Picklable."""

    bags: Bags
    """The recording."""
    camera: str
    """Name of the camera, for messages."""
    topic: str
    """The topic that is read."""
    kind: Kind
    """How its images are coded."""
    rows: tuple[int, ...]
    """Message (number in written order) of every row."""
    first: int = 0
    """Message that decoding starts with; above 0 only for video, which is entered at a keyframe."""
    reordered: bool = False
    """Whether the video is known to have B-frames; its rows are then the messages of the frames to show."""

    def messages(self) -> Iterator[tuple[int, Any]]:
        """(number, message) in written order."""
        for number, message in enumerate(self.bags.messages({self.topic})):
            yield number, message.value


@dataclass(frozen=True)
class BagJpegs(BagFrames):
    """JPEG buffers as recorded."""

    small: Mapping[int, Image] = field(default_factory=dict)
    """By message, the small images that are known of looking at the buffers."""

    def __call__(self) -> Iterator[EncodedFrame]:
        wanted = frozenset(self.rows)
        frames = (
            # checked by `look_at`, before rows were chosen
            (number, EncodedFrame(bytes(message.data), checked=True, small=self.small.get(number)))
            for number, message in self.messages()
            if number in wanted
        )
        yield from in_row_order(self.rows, frames, self.camera)


@dataclass(frozen=True)
class BagPixels(BagFrames):
    """Plain images or decoded video: RGB, uint8 [n, H, W, 3]."""

    def __call__(self) -> Iterator[Image]:
        frames = self._video() if self.kind in ("h264", "hevc") else self._plain()
        block: list[Image] = []
        for image in in_row_order(self.rows, frames, self.camera):
            block.append(image)
            if len(block) == BLOCK_FRAMES:
                yield np.stack(block)
                block = []
        if block:
            yield np.stack(block)

    def size(self) -> tuple[int, int]:
        """(height, width) of the first frame."""
        for _, image in self._video():
            return image.shape[0], image.shape[1]
        raise BadEpisode(f"{self.camera}: the {self.kind} video holds no frame")

    def _plain(self) -> Iterator[tuple[int, Image]]:
        wanted = frozenset(self.rows)
        for number, message in self.messages():
            if number in wanted:
                yield number, rgb_of(message)

    def _video(self) -> Iterator[tuple[int, Image]]:
        to_rgb = ToRgb()
        for number, frame in self.decoded():
            yield number, to_rgb(frame)

    def video_frames(self) -> Iterator[VideoFrame]:
        """The decoded frame of every row of a video."""
        yield from in_row_order(self.rows, self.decoded(), self.camera)

    def decoded(self) -> Iterator[tuple[int, VideoFrame]]:
        """(message, frame) of a video, those of the rows alone, in display order."""
        import av
        from av.video.codeccontext import VideoCodecContext

        wanted = frozenset(self.rows)
        decoder = av.CodecContext.create(self.kind, "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.thread_count = 1
        decoder.flags |= UNALIGNED
        shown = [self.first - 1]
        try:
            for number, message in self.messages():
                if number < self.first:
                    continue
                packet = av.Packet(bytes(message.data))
                packet.pts = number
                yield from _wanted(self._in_order(decoder.decode(packet), shown), wanted)
            yield from _wanted(self._in_order(decoder.decode(None), shown), wanted)
        except BadEpisode as error:
            raise BadEpisode(f"{self.camera}: {error}") from None
        except av.FFmpegError as error:
            raise BadEpisode(f"{self.camera}: the {self.kind} video cannot be decoded: {error.strerror}") from None

    def _in_order(self, frames: list[VideoFrame], shown: list[int]) -> list[VideoFrame]:
        """The frames; BadEpisode for B-frames that the stream does not announce, and for a message that gives no frame
        before others that may be decoded from it. shown: the last message, updated."""
        for frame in frames:
            if frame.pts is not None and frame.pts < shown[0] and not self.reordered:
                raise BadEpisode(
                    f"the video has B-frames that it does not announce: message {frame.pts} is displayed after message "
                    f"{shown[0]}, so stamps and images do not belong together; encode the topic again without B-frames "
                    "(ffmpeg -bf 0)"
                )
            if not self.reordered and not frame.key_frame and frame.pts is not None and frame.pts > shown[0] + 1:
                raise BadEpisode(
                    f"message {shown[0] + 1} of the video gives no image: it is damaged, and so may be those after it, "
                    "up to the next keyframe; copy the recording again, or leave it out (--exclude)"
                )
            shown[0] = max(shown[0], frame.pts or 0)
        return frames


def _wanted(frames: list[VideoFrame], wanted: frozenset[int]) -> Iterator[tuple[int, VideoFrame]]:
    for frame in frames:
        if not (0 < frame.width <= MAX_SIDE and 0 < frame.height <= MAX_SIDE):
            raise BadEpisode(f"a video frame claims {frame.height}x{frame.width} pixels")
        if frame.is_corrupt:
            raise BadEpisode(f"message {frame.pts} of the video is damaged, or one it builds on is missing")
        if frame.pts in wanted:
            assert frame.pts is not None
            yield frame.pts, frame


def rgb_of(message: Any) -> Image:
    """A plain image (sensor_msgs Image: rgb8, bgr8 or mono8) as RGB, uint8 [H, W, 3]."""
    channels, height, width = _CHANNELS[message.encoding], int(message.height), int(message.width)
    lines = np.asarray(message.data, np.uint8)[: message.step * height].reshape(height, message.step)
    image = lines[:, : width * channels].reshape(height, width, channels)
    order = [2, 1, 0] if message.encoding == "bgr8" else [0, 1, 2] if channels == 3 else [0, 0, 0]
    return np.ascontiguousarray(image[..., order])


def in_row_order[T](rows: tuple[int, ...], items: Iterator[tuple[int, T]], camera: str) -> Iterator[T]:
    """The item of every row, from items that come in written order.

    Holds an item only from where it is read to its last row: one, unless stamps were out of order. BadEpisode when an
    item is missing, so that no row is ever filled with another's image.
    """
    left = Counter(rows)
    held: dict[int, T] = {}
    row = 0
    for number, item in items:
        if left[number]:
            held[number] = item
        while row < len(rows) and rows[row] in held:
            yield held[rows[row]]
            left[rows[row]] -= 1
            if not left[rows[row]]:
                del held[rows[row]]
            row += 1
        if row == len(rows):
            return
    if row < len(rows):
        raise BadEpisode(f"{camera}: frame {row} (message {rows[row]}) cannot be read again")
