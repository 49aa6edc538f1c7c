"""Cameras of stored episodes, to be written again: JPEG buffers byte for byte, raw pixels as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwdata.api import EncodedCamera, EncodedFrame, RawCamera
from fwdata.store.episode import StoredEpisode

COPY_BLOCK = 32
"""Frames that are copied together."""


@dataclass(frozen=True)
class _StoredJpeg:
    """Opens fresh passes over the JPEG buffers of a stored episode."""

    episode: StoredEpisode
    camera: str

    def __call__(self) -> Iterator[EncodedFrame]:
        swapped = self.episode.swapped(self.camera)
        for low in range(0, self.episode.num_frames, COPY_BLOCK):
            rows = range(low, min(low + COPY_BLOCK, self.episode.num_frames))
            for row, data in zip(rows, self.episode.encoded(self.camera, rows), strict=True):
                yield EncodedFrame(data, bool(swapped[row]), checked=True)


@dataclass(frozen=True)
class _StoredPixels:
    """Opens fresh passes over the raw frames of a stored episode."""

    episode: StoredEpisode
    camera: str

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        for low in range(0, self.episode.num_frames, COPY_BLOCK):
            rows = range(low, min(low + COPY_BLOCK, self.episode.num_frames))
            yield self.episode.frames(self.camera, rows)


def stored_camera(episode: StoredEpisode, name: str) -> EncodedCamera | RawCamera:
    """A camera of a stored episode as a converter would give it; it must hold JPEG buffers or raw pixels."""
    height, width = episode.details.metadata.camera_sizes[name]
    if episode.part.record.cameras[name].encoding == "jpeg":
        return EncodedCamera(_StoredJpeg(episode, name), height, width)
    return RawCamera(_StoredPixels(episode, name), height, width)
