"""Frames of video that cannot be kept as recorded, coded again without loss (H.264, quantiser 0).

Samples stay what they are where the encoder takes them. Frames of other pixel formats or odd sizes, and videos whose
format or colour tags change inside, are converted to RGB first, as reading them would do: then RGB is exact.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from fwdata.images.colour import FULL_RANGE, ToRgb, tags_of
from fwdata.images.demux import INIT_OPTIONS
from fwdata.images.video import DecodeError, VideoHeader, VideoPacket, ffmpeg_words, undamaged

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

GROUP = 16
"""Frames per group: as many as a chunk of raw pixels holds."""

_RGB = frozenset({"gbrp", "rgb24", "bgr24"})
_RGB_TAGS = (0, FULL_RANGE)
"""AVCOL_SPC_RGB: there is no matrix to undo."""
_YUV = frozenset(
    f"yuv{kind}{sub}p{depth}" for kind, depth in (("", ""), ("j", ""), ("", "10le")) for sub in ("420", "422", "444")
) - {"yuvj422p10le"}


class MixedFrames(DecodeError):
    """A frame of another pixel format or with other colour tags than the first: only RGB can hold all of them."""


def recode(
    frames: Iterator[VideoFrame], size: tuple[int, int], as_rgb: bool = False
) -> tuple[VideoHeader, Iterator[VideoPacket]]:
    """Header and packets of frames in display order; one packet per frame, no reordering.

    as_rgb: code the RGB of the frames. DecodeError for no frame, a damaged one and one of another size; MixedFrames,
    while packets are taken, where as_rgb is False and not all samples can be kept as they are.
    Cost: 280 frames of 640x480 pixels per CPU second; 99 to 132 kB each.
    """
    frames = undamaged(frames)
    first = next(frames, None)
    if first is None:
        raise DecodeError("the video holds no frame")
    found, every = first.format.name, chain([first], frames)
    if as_rgb or found in _RGB or not _fits(found, size):
        coded = _Encoding("libx264rgb", "rgb24", size, _RGB_TAGS)
        return coded.header("gbrp"), coded.run(_as_rgb(every))
    coded = _Encoding("libx264", found, size, tags_of(first))
    return coded.header(found), coded.run(_alike(every, found, tags_of(first)))


def _fits(form: str, size: tuple[int, int]) -> bool:
    """Whether the encoder takes a pixel format at a size: chroma of half a pixel is not coded."""
    height, width = size
    return form in _YUV and not (width % 2 and "444" not in form) and not (height % 2 and "420" in form)


def _as_rgb(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    from av.video.frame import VideoFrame

    to_rgb = ToRgb()
    for frame in frames:
        yield VideoFrame.from_ndarray(to_rgb(frame), format="rgb24")


def _alike(frames: Iterator[VideoFrame], form: str, tags: tuple[int, int]) -> Iterator[VideoFrame]:
    for number, frame in enumerate(frames):
        if frame.format.name != form or tags_of(frame) != tags:
            raise MixedFrames(f"frame {number} has another pixel format or other colour tags than the first")
        yield frame


class _Encoding:
    """One encoder, and the start of an MP4 of its stream."""

    def __init__(self, encoder: str, form: str, size: tuple[int, int], tags: tuple[int, int]) -> None:
        import av

        self._size, self._tags = size, tags
        start = io.BytesIO()
        with av.open(start, "w", format="mp4", options=INIT_OPTIONS) as out:
            _open_encoder(out, encoder, form, size, tags)
            out.start_encoding()
            self._init = start.getvalue()
        self._unused = av.open(io.BytesIO(), "w", format="mp4")  # an encoder does not outlive its container
        self._context = _open_encoder(self._unused, encoder, form, size, tags)

    def header(self, pix_fmt: str) -> VideoHeader:
        """The header of what comes out."""
        return VideoHeader("h264", bytes(self._context.extradata or b""), self._init, pix_fmt, *self._tags)

    def run(self, frames: Iterator[VideoFrame]) -> Iterator[VideoPacket]:
        """Packets of all frames."""
        import av

        rank = 0
        try:
            for number, frame in enumerate(frames):
                if (frame.height, frame.width) != self._size:
                    size = "{}x{}".format(*self._size)
                    raise DecodeError(f"frame {number} has {frame.height}x{frame.width} pixels, the first {size}")
                frame.pts, frame.time_base = number, self._context.time_base
                for packet in self._context.encode(frame):
                    yield VideoPacket(bytes(packet), rank, packet.is_keyframe)
                    rank += 1
            for packet in self._context.encode(None):
                yield VideoPacket(bytes(packet), rank, packet.is_keyframe)
                rank += 1
        except av.FFmpegError as error:
            raise DecodeError(f"it cannot be coded again: {ffmpeg_words(error)}") from None


def _open_encoder(
    out: OutputContainer, encoder: str, form: str, size: tuple[int, int], tags: tuple[int, int]
) -> VideoCodecContext:
    from av.video.codeccontext import VideoCodecContext

    stream = out.add_stream(encoder, rate=30, options={"preset": "ultrafast", "qp": "0", "threads": "1"})
    context = stream.codec_context
    assert isinstance(context, VideoCodecContext)
    context.height, context.width, context.pix_fmt = size[0], size[1], form
    context.gop_size, context.max_b_frames, context.thread_count = GROUP, 0, 1
    context.colorspace, context.color_range = tags
    context.open()
    return context
