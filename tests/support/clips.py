"""Tiny videos made by PyAV's encoders: any codec, group length, tags and container."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def moving(count: int, size: tuple[int, int] = (64, 96), seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [count, H, W, 3]: coloured shapes that move, every frame different from every other."""
    rng = np.random.default_rng(seed)
    height, width = size
    cells = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    frames = [np.roll(cells, (k, 2 * k), (0, 1))[:height, :width].copy() for k in range(count)]
    for k, frame in enumerate(frames):
        frame[:8, :8] = 8 * (k % 32)
    return np.stack(frames)


def write_clip(
    path: Path | io.BytesIO,
    frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    codec: str = "libx264",
    *,
    gop: int = 4,
    fps: float = 30,
    pix_fmt: str = "yuv420p",
    matrix: int = 2,
    color_range: int = 0,
    form: str = "mp4",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
) -> None:
    """One video. matrix, color_range: AVColorSpace and AVColorRange tags. times: ticks of 1/fps instead of 0, 1, .."""
    with av.open(path if isinstance(path, io.BytesIO) else str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.gop_size = pix_fmt, gop
        stream.codec_context.thread_count = 1
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, color_range
        stream.options = {**quiet_options(codec), **(options or {})}
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format=pix_fmt)
            frame.pts = number if times is None else times[number]
            frame.colorspace, frame.color_range = matrix, color_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def quiet_options(codec: str) -> dict[str, str]:
    """Encoder options for small deterministic clips: x264's macroblock tree reads memory that it has not written."""
    return {
        "libx264": {"preset": "veryfast", "mbtree": "0"},
        "libx264rgb": {"preset": "ultrafast", "qp": "0"},
        "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"},
        "libsvtav1": {"preset": "12", "crf": "40", "svtav1-params": "lp=1"},
        "libaom-av1": {"cpu-used": "8", "usage": "realtime"},
    }.get(codec, {})


def ffmpeg_rgb(path: Path | io.BytesIO) -> NDArray[np.uint8]:
    """uint8 [N, H, W, 3] as `ffmpeg -pix_fmt rgb24` shows it: libavfilter's own conversion by each frame's tags."""
    shown = []
    with av.open(io.BytesIO(path.getvalue()) if isinstance(path, io.BytesIO) else str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        graph: av.filter.Graph | None = None
        for frame in container.decode(stream):
            if graph is None:
                graph = av.filter.Graph()
                source = graph.add(
                    "buffer",
                    args=f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/30:"
                    f"pixel_aspect=1/1:colorspace={int(frame.colorspace)}:range={int(frame.color_range)}",
                )
                rgb, sink = graph.add("format", "rgb24"), graph.add("buffersink")
                source.link_to(rgb)
                rgb.link_to(sink)
                graph.configure()
            graph.push(frame)
            shown.append(graph.pull().to_ndarray())
    return np.stack(shown)
