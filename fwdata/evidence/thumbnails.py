"""Small grey images for detectors, made once per frame and dropped with the episode."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.image_memory import ImageMemory
from fwdata.evidence.looks import CameraLook, LookTaker, averaged, packet_print
from fwdata.evidence.sampled import LIGHT_WIDTH, Sampler
from fwdata.images.small import COARSE, WIDTH, block_size, small_grey

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from fwdata.api import Camera

LIGHT_EVERY, LIGHT_VIDEO_EVERY = 2, 3
"""Of the frames that only light detectors look at, every second one has a thumbnail, every third of a video: at most
the rows that a camera must be black for to be reported."""


def from_rgb(frames: NDArray[np.uint8], light: bool = False) -> NDArray[np.uint8]:
    """uint8 [n, H, W, 3] -> uint8 [n, h, w]: the green channel, averaged over blocks of pixels.

    Of large images every second row and column is averaged. light: of larger blocks one pixel each, as nothing coded
    these images, which would change single ones. Cost: 2 us for 128x128, 70 us for 640x480; light, 1 us.
    """
    if light:
        high, wide = frames.shape[1:3]
        side = block_size(high, wide, LIGHT_WIDTH)
        height, width = high // side * side, wide // side * side
        return frames[:, :height:side, :width:side, 1].copy()
    side = block_size(*frames.shape[1:3])
    step = 2 if side % 2 == 0 else 1
    if side == step:
        return frames[:, ::step, ::step, 1].copy()
    from PIL import Image

    green = [Image.fromarray(np.ascontiguousarray(frame[::step, ::step, 1])) for frame in frames]
    return np.stack([np.asarray(image.reduce(side // step)) for image in green])


def from_video(frame: VideoFrame) -> NDArray[np.uint8]:
    """A decoded frame -> uint8 [h, w], its brightness, in memory that the next one may take.

    Cost: 20 to 30 us for 320x240, 0.07 ms for 640x480.
    """
    height, width = _size(frame.height, frame.width)
    plane = averaged(frame, width, height, "gray").planes[0]
    return np.ndarray((height, width), np.uint8, plane, 0, (plane.line_size, 1))


@cache
def _size(height: int, width: int) -> tuple[int, int]:
    side = block_size(height, width)
    return height // side, width // side


def of_camera(camera: Camera, rows: int) -> NDArray[np.uint8]:
    """uint8 [T, h, w], thumbnails of the first `rows` frames of a camera; see `looked_through`."""
    return looked_through(camera, rows).take()


def looked_through(camera: Camera, rows: int, rendered: bool = False) -> Collector:
    """What is taken of the first `rows` frames of a camera; a fresh pass over its frames. rendered: see `Collector`.

    Raises what the camera raises, and ValueError for a damaged JPEG.
    """
    taken = Collector(rendered=rendered)
    if camera.encoding == "raw":
        for block in camera.frames():
            taken.add_rgb(block[: rows - taken.count])
            if taken.count >= rows:
                break
    elif camera.encoding == "jpeg":
        for encoded, _ in zip(camera.frames(), range(rows), strict=False):
            taken.add_jpeg(encoded.data, encoded.small, encoded.red_blue_swapped)
    else:
        for frame, _ in zip(camera.frames(), range(rows), strict=False):
            taken.add_video(frame)
        if not camera.unkept:
            shown = set(camera.rows[:rows].tolist())
            taken.add_prints(packet_print(packet.data) for packet in camera.packets() if packet.rank in shown)
    return taken


class Collector:
    """Takes the thumbnails of one camera as its frames pass by.

    light: only light detectors look at them. JPEG buffers are decoded no larger than checking them takes, and those
    that nothing else decodes are left out; of video frames some pixels are taken. every: frames from one that is taken
    to the next. memory: where they are put, of no other camera; None for some of its own. rendered: a simulator shows
    what JPEG buffers hold, so that smaller images do.
    """

    def __init__(
        self, light: bool = False, every: int = 1, memory: ImageMemory | None = None, rendered: bool = False
    ) -> None:
        self.light, self.every = light, every
        self._width = LIGHT_WIDTH if light else COARSE if rendered else WIDTH
        self._images = memory or ImageMemory()
        self._images.clear()
        self._passed, self._first = 0, 0
        self._order: NDArray[np.int64] | None = None
        self._sampler = Sampler()
        self._look = LookTaker()

    @property
    def count(self) -> int:
        """Frames that passed by so far."""
        return self._passed

    def _skips(self) -> bool:
        self._passed += 1
        return (self._passed - 1 - self._first) % self.every != 0

    def add_rgb(self, frames: NDArray[np.uint8]) -> None:
        """Take uint8 [n, H, W, 3]."""
        self._look.add_rgb(frames)
        first = -self._passed % self.every
        self._passed += len(frames)
        if first < len(frames):
            self._images.add(from_rgb(frames[first :: self.every], self.light))

    def add_jpeg(
        self,
        data: bytes,
        small: NDArray[np.uint8] | None = None,
        swapped: bool = False,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Take one JPEG buffer. ValueError when it is damaged, also where it is not kept.

        small: what `small_grey` made of it, where that is known. swapped: a decoder shows red and blue exchanged. size:
        its height and width, where they are known.
        """
        if small is None or self.light:
            small = small_grey(data, self._width, size)
        self._look.add_jpeg(data, swapped)
        if not self._skips():
            self._images.add_one(small)

    def pass_jpeg(self, data: bytes, swapped: bool = False) -> None:
        """Take of a JPEG buffer that is known to be good what it is known again by alone."""
        self._look.add_jpeg(data, swapped)

    def add_video(self, frame: VideoFrame) -> None:
        """Take one decoded video frame, of which nothing is held."""
        if self._passed == self._first:
            self._look.add_video(frame)
        if self._skips():
            return
        if not self.light:
            self._images.add_one(from_video(frame))
            return
        for images in self._sampler.add(frame):
            self._images.add(images)

    def add_prints(self, prints: Iterable[int]) -> None:
        """Take the prints of the video packets whose frames the rows show."""
        self._look.add_prints(prints)

    def order(self, rows: NDArray[np.int64]) -> None:
        """Say which of the frames taken is shown at each row, int64 [T]."""
        self._order = rows

    def clear(self, first: int = 0) -> None:
        """Forget everything taken, for another pass. first: the frame that row 0 shows, which is taken."""
        self._passed, self._first, self._order = 0, first, None
        self._images.clear()
        self._sampler, self._look = Sampler(), LookTaker()

    def take(self) -> NDArray[np.uint8]:
        """uint8 [ceil(T / every), h, w], the frames of the rows 0, every, 2 every, .. in order.

        They may lie in the memory that was given, and be overwritten with that.
        """
        for images in self._sampler.take():
            self._images.add(images)
        taken = self._images.take()
        if self._order is None or not len(taken):
            return taken
        shown = (self._order[:: self.every] - self._first % self.every) // self.every
        return taken if np.array_equal(shown, np.arange(len(taken))) else taken[shown]

    def look(self, camera: Camera | None = None) -> CameraLook | None:
        """What the frames that passed by are known again by; None without any. camera: whose frames they are, where
        they are as recorded."""
        return self._look.take(swapped=camera is not None and camera.encoding == "video" and camera.swapped)
