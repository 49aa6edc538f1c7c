"""What reading kept video costs by group length, against the same frames stored as pixels."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from fwdata.api import Episode, EpisodeRef, VideoCamera
from fwdata.bench.timing import cpu_seconds
from fwdata.images.demux import index_packets
from fwdata.report.inspect_store import folder_bytes
from fwdata.store.episode import Part
from fwdata.store.files import LocalFiles
from fwdata.store.metadata import read_part
from fwdata.store.video import read_video
from fwdata.store.writer import PartWriter

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

CLIPS: dict[str, tuple[str, int, dict[str, str]]] = {
    "AV1, group 2": ("libsvtav1", 2, {"preset": "12", "crf": "30", "svtav1-params": "lp=1"}),
    "H.264, group 2": ("libx264", 2, {}),
    "H.264, group 12": ("libx264", 12, {}),
    "H.264, group 250": ("libx264", 250, {}),
}
"""Encoder, group length and options; the first as lerobot writes."""


class VideoBenchJson(TypedDict):
    """One kind of clip. Rates are frames per CPU second, times milliseconds of CPU."""

    video: str
    """Codec and group length."""
    bytes_per_frame: float
    """Of the kept video."""
    pixel_bytes_per_frame: float
    """Of the same frames stored as pixels."""
    kept_per_cpu_second: float
    """Checking and copying the video."""
    in_order_per_cpu_second: float
    """Reading it in order."""
    pixels_in_order_per_cpu_second: float
    """Reading pixels in order."""
    random_ms: float
    """One frame at random, mean."""
    random_p99_ms: float
    """The same, 99th percentile."""
    pixels_random_ms: float
    """One frame of pixels at random."""


class BenchVideoJson(TypedDict):
    """The document of `fwdata bench video --json`."""

    unit: str
    """What is counted."""
    rows: list[VideoBenchJson]
    """One per kind of clip."""


BLOCK = 32
"""Frames read together in order, as stitching does."""

RANDOM = 60
"""Frames read at random."""


@dataclass(frozen=True)
class VideoBench:
    """One clip kept as video and stored as pixels. Rates per CPU second, milliseconds of CPU per frame."""

    name: str
    """Codec and group length."""
    video_bytes: float
    """Stored bytes per frame of the packets and their tables."""
    pixel_bytes: float
    """Stored bytes per frame of the pixels."""
    checked: float
    """Frames per second of keeping the video, its decode check included."""
    in_order: float
    """Frames per second, read in blocks in order."""
    pixels_in_order: float
    """The same of stored pixels."""
    random_ms: float
    """Mean of one frame at random."""
    random_p99_ms: float
    """99th percentile of one frame at random."""
    pixels_random_ms: float
    """Mean of one frame at random of stored pixels."""

    def row(self) -> tuple[str, ...]:
        """For the table."""
        rates = (f"{rate:,.0f}" for rate in (self.checked, self.in_order, self.pixels_in_order))
        times = (f"{ms:.1f}" for ms in (self.random_ms, self.random_p99_ms, self.pixels_random_ms))
        return (self.name, f"{self.video_bytes:,.0f}", f"{self.pixel_bytes / self.video_bytes:.0f}", *rates, *times)

    def to_json(self) -> VideoBenchJson:
        """Plain JSON."""
        return {
            "video": self.name,
            "bytes_per_frame": round(self.video_bytes, 1),
            "pixel_bytes_per_frame": round(self.pixel_bytes, 1),
            "kept_per_cpu_second": round(self.checked, 1),
            "in_order_per_cpu_second": round(self.in_order, 1),
            "pixels_in_order_per_cpu_second": round(self.pixels_in_order, 1),
            "random_ms": round(self.random_ms, 2),
            "random_p99_ms": round(self.random_p99_ms, 2),
            "pixels_random_ms": round(self.pixels_random_ms, 2),
        }


def bench_video(height: int, frames: int) -> list[VideoBench]:
    """Make clips, keep and store them, and read both; a few seconds of CPU per clip. Nothing is left on disk."""
    found = []
    with tempfile.TemporaryDirectory(prefix="fwdata-bench-") as folder:
        for number, (name, (codec, group, options)) in enumerate(CLIPS.items()):
            place = Path(folder) / str(number)
            place.mkdir()
            _write_clip(place / "clip.mp4", _images(height, height * 2 // 3 * 2, frames), codec, group, options)
            found.append(_measure(name, place))
    return found


@dataclass(frozen=True)
class _Clip:
    """A file; calling it decodes its frames."""

    path: Path

    @contextmanager
    def open(self) -> Iterator[InputContainer]:
        import av

        with av.open(str(self.path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            yield container

    def __call__(self) -> Iterator[VideoFrame]:
        with self.open() as container:
            yield from container.decode(container.streams.video[0])


def _measure(name: str, place: Path) -> VideoBench:
    clip = _Clip(place / "clip.mp4")
    index = index_packets(clip.open)
    rows = np.arange(len(index.pts))
    with clip.open() as container:
        size = container.streams.video[0].height, container.streams.video[0].width
    camera = VideoCamera(lambda: index.packets(0, len(rows)), clip, index.header, rows, *size)
    began = cpu_seconds()
    part = _stored(place / "video", camera, keep=True)
    checked = cpu_seconds() - began
    pixels = _stored(place / "pixels", camera, keep=False).array("cameras/camera/frames")
    wanted = np.random.default_rng(0).integers(0, len(rows), RANDOM)

    def video(some: NDArray[np.int64]) -> None:
        read_video(part, "camera", some, size, str)

    times, plain = _each(video, wanted), _each(pixels.take, wanted)
    return VideoBench(
        name=name,
        video_bytes=folder_bytes(place / "video/parts/p00000/cameras") / len(rows),
        pixel_bytes=folder_bytes(place / "pixels/parts/p00000/cameras") / len(rows),
        checked=len(rows) / checked,
        in_order=_in_order(video, rows),
        pixels_in_order=_in_order(pixels.take, rows),
        random_ms=1000 * float(np.mean(times)),
        random_p99_ms=1000 * float(np.quantile(times, 0.99)),
        pixels_random_ms=1000 * float(np.mean(plain)),
    )


def _each(read: Callable[[NDArray[np.int64]], object], wanted: NDArray[np.int64]) -> list[float]:
    """CPU seconds of every single read."""
    found = []
    for row in wanted:
        began = time.process_time()
        read(np.array([row]))
        found.append(time.process_time() - began)
    return found


def _in_order(read: Callable[[NDArray[np.int64]], object], rows: NDArray[np.int64]) -> float:
    """Frames per CPU second of a pass in blocks, the better of two."""
    best = 0.0
    for _ in range(2):
        began = time.process_time()
        for low in range(0, len(rows), BLOCK):
            read(rows[low : low + BLOCK])
        best = max(best, len(rows) / (time.process_time() - began))
    return best


def _stored(store: Path, camera: VideoCamera, keep: bool) -> Part:
    """A part of one episode with this camera."""
    rows = len(camera.rows)
    numbers, texts = np.zeros((rows, 1), np.float32), ("go",)
    episode = Episode(
        {"camera": camera},
        numbers,
        numbers,
        np.arange(rows) * 1_000_000,
        np.ones(rows, np.bool_),
        ("x",),
        ("x",),
        "go",
        texts,
    )
    writer = PartWriter(store, "p00000", "bench", ("camera",), ("x",), ("x",), "", keep_video=keep)
    writer.add(EpisodeRef("clip", "clip", (), "bench", 0), episode, ())
    writer.commit()
    files = LocalFiles(store)
    found = read_part(files, "p00000")
    assert found is not None
    return Part(files, "p00000", *found)


def _images(height: int, width: int, count: int) -> Iterator[NDArray[np.uint8]]:
    """uint8 [H, W, 3], frame after frame: a textured scene under a slow camera, two moving objects, fresh noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: height + count, : width + count].astype(np.float32)
    waves = [np.sin(x / a + c) + np.sin(y / b + c) for a, b, c in rng.uniform((9, 9, 0), (90, 90, 6), (3, 3))]
    scene = 128 + 40 * np.stack(waves, -1) + rng.normal(0, 6, (height + count, width + count, 3))
    for k in range(count):
        frame = scene[k // 3 : k // 3 + height, k // 2 : k // 2 + width].copy()
        for speed, level in ((3, 220), (5, 40)):
            left, top = (speed * k) % (width - 40), (2 * speed * k) % (height - 40)
            frame[top : top + 40, left : left + 40] = level
        frame += rng.normal(0, 3, (height, width, 1)) + rng.normal(0, 1.5, (height, width, 3))
        yield np.clip(frame, 0, 255).astype(np.uint8)


def _write_clip(
    path: Path, images: Iterator[NDArray[np.uint8]], codec: str, group: int, options: dict[str, str]
) -> None:
    import av
    from av.video.stream import VideoStream

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        assert isinstance(stream, VideoStream)
        for number, image in enumerate(images):
            if not number:
                stream.height, stream.width, stream.pix_fmt, stream.gop_size = *image.shape[:2], "yuv420p", group
                stream.codec_context.thread_count = 1
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
