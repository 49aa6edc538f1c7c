"""Frames of video that cannot be kept as recorded, coded again without loss (H.264, quantiser 0)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fwdata.images.colour import tags_of
from fwdata.images.demux import init_segment
from fwdata.images.video import DecodeError, VideoHeader, VideoPacket, ffmpeg_words

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

GROUP = 16
"""Frames per group: as many as a chunk of raw pixels holds."""

_RGB = {"gbrp": "rgb24", "rgb24": "rgb24", "bgr24": "bgr24"}
_YUV = frozenset(
    f"yuv{kind}{sub}p{depth}" for kind, depth in (("", ""), ("j", ""), ("", "10le")) for sub in ("420", "422", "444")
) - {"yuvj422p10le"}


def recode(frames: Iterator[VideoFrame], size: tuple[int, int]) -> tuple[VideoHeader, Iterator[VideoPacket]]:
    """Header and packets of frames in display order, exact in every sample; one packet per frame, no reordering.

    DecodeError for no frame, a pixel format that the encoder does not take, and frames that change on the way.
    Cost: 280 frames of 640x480 pixels per CPU second; 99 to 132 kB each.
    """
    first = next(frames, None)
    if first is None:
        raise DecodeError("the video holds no frame")
    found = first.format.name
    encoder, form = ("libx264rgb", _RGB[found]) if found in _RGB else ("libx264", found)
    if found not in _RGB and found not in _YUV:
        raise DecodeError(f"pixel format {found} cannot be coded again without loss")
    matrix, color_range = tags_of(first)
    packets = _Encoding(encoder, form, size, (matrix, color_range))
    return packets.header(found), packets.run(first, frames)


class _Encoding:
    """One encoder, the MP4 template of its stream beside it."""

    def __init__(self, encoder: str, form: str, size: tuple[int, int], tags: tuple[int, int]) -> None:
        import av
        from av.video.codeccontext import VideoCodecContext
        from av.video.stream import VideoStream

        self._form, self._size, self._tags = form, size, tags
        options = {"preset": "ultrafast", "qp": "0", "threads": "1"}
        self._template = av.open(io.BytesIO(), "w", format="mp4")
        stream = self._template.add_stream(encoder, rate=30, options=options)
        context = stream.codec_context
        assert isinstance(stream, VideoStream) and isinstance(context, VideoCodecContext)
        context.height, context.width, context.pix_fmt = size[0], size[1], form
        context.gop_size, context.max_b_frames, context.thread_count = GROUP, 0, 1
        context.colorspace, context.color_range = tags
        context.open()
        self._stream, self._context = stream, context

    def header(self, pix_fmt: str) -> VideoHeader:
        """The header of what comes out."""
        extradata = bytes(self._context.extradata or b"")
        return VideoHeader("h264", extradata, init_segment(self._stream), pix_fmt, *self._tags)

    def run(self, first: VideoFrame, frames: Iterator[VideoFrame]) -> Iterator[VideoPacket]:
        """Packets of all frames."""
        import av

        rank = 0
        try:
            for number, frame in enumerate(_with(first, frames)):
                if (frame.height, frame.width) != self._size:
                    raise DecodeError(f"frame {number} has {frame.height}x{frame.width} pixels, the first {self._size}")
                plain = frame if frame.format.name == self._form else frame.reformat(format=self._form)
                plain.pts, plain.time_base = number, self._context.time_base
                for packet in self._context.encode(plain):
                    yield VideoPacket(bytes(packet), rank, packet.is_keyframe)
                    rank += 1
            for packet in self._context.encode(None):
                yield VideoPacket(bytes(packet), rank, packet.is_keyframe)
                rank += 1
        except av.FFmpegError as error:
            raise DecodeError(f"it cannot be coded again: {ffmpeg_words(error)}") from None


def _with(first: VideoFrame, others: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    yield first
    yield from others
