"""The floor of a conversion, only reading and decoding the same frames, and processes to measure in.

Floor and conversion each run in a fresh worker process, as parts do, in which one recording was decoded before. In a
process that did something else before, neither is what it would be alone: whether the C library gives freed memory
back, and pages it in again for the next block, depends on the largest block that was freed so far (the floor of LIBERO
took 106 or 72 us a frame, with 15 page faults or none), and a conversion finds digests of files that an earlier one has
hashed.

The floor is what the usual libraries take: libjpeg-turbo for JPEG, PyAV for video, and for pixels in HDF5 h5py and
numpy. What our own readers save beside them (a JPEG is checked at an eighth of its size, pixels are read past HDF5 and
turned colour by colour) counts for the conversion, and does not lower the floor that it is held against.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fwdata.api import Camera, RawCamera, VideoCamera
from fwdata.bench.timing import Timing, timed
from fwdata.images.jpeg import decode_rgb
from fwdata.manifest import Manifest
from fwdata.pipeline.registry import load_converter
from fwdata.pipeline.workers import Link, WorkerPool
from fwdata.store.codec import load_compressor


@runtime_checkable
class UsualReading(Protocol):
    """Pixels of a recording that can also be read as everybody reads them."""

    def usual(self) -> NDArray[np.uint8]:
        """uint8 [T, H, W, 3]: all frames at once, by the library of the recording's format and numpy alone."""


LIMIT_RECORDINGS = 50
"""Recordings at most that are decoded in one and in two processes at once."""


def in_worker[R](measured: Callable[..., R], manifest: Manifest, raw: Path, *others: Any) -> R:
    """`measured(manifest, raw, *others)`, a function of a module, in a fresh worker process. Errors come here."""
    with WorkerPool(1) as pool:
        found: R
        [found] = pool.run(_warm, [(measured, manifest, raw, *others)], lambda: None)
        return found


def _warm[R](measured: Callable[..., R], manifest: Manifest, raw: Path, *others: Any, link: Link) -> R:
    read_and_decode(manifest, raw, 1)  # imports the decoders
    load_compressor()
    return measured(manifest, raw, *others)


def ready(*, link: Link) -> None:
    """Nothing: a pool that has done it has imported what its workers need."""


def time_floor(manifest: Manifest, raw: Path) -> Timing:
    """Only reading and decoding, in camera frames, in this process."""
    return timed("read and decode only", lambda: read_and_decode(manifest, raw))


def read_and_decode(manifest: Manifest, raw: Path, most: int | None = None) -> int:
    """Camera frames of the first recordings, at most so many of them, every one decoded."""
    converter = load_converter(manifest)
    return sum(
        _decoded(camera)
        for ref in converter.discover(raw).episodes[:most]
        for camera in converter.read(raw, ref).cameras.values()
    )


def _decoded(camera: Camera) -> int:
    """Frames of a camera, every one decoded."""
    if isinstance(camera, VideoCamera):
        return sum(1 for _ in camera.frames())
    if isinstance(camera, RawCamera):
        pixels = camera.frames
        return len(pixels.usual()) if isinstance(pixels, UsualReading) else sum(len(block) for block in pixels())
    count = 0
    for frame in camera.frames():
        decode_rgb(frame.data, frame.red_blue_swapped)
        count += 1
    return count


def _decode_in_worker(manifest: Manifest, raw: Path, most: int, *, link: Link) -> int:
    return read_and_decode(manifest, raw, most)


def two_worker_limit(manifest: Manifest, raw: Path) -> float:
    """Twice the seconds of reading and decoding in one process over those of two that do so at once."""
    with WorkerPool(2) as pool:

        def seconds(processes: int, most: int) -> float:
            began = time.monotonic()
            list(pool.run(_decode_in_worker, [(manifest, raw, most)] * processes, lambda: None))
            return time.monotonic() - began

        seconds(2, 1)  # starts the processes
        one = seconds(1, LIMIT_RECORDINGS)
        return 2 * one / seconds(2, LIMIT_RECORDINGS)
