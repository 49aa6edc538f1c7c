"""Memory for small grey images that is used again from one episode to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST = 1 << 22
"""Bytes that are asked for first, of which the system gives those that are used; what is full is doubled."""


class ImageMemory:
    """Where the small images of one camera and one episode lie, one after the other.

    Fetched from the system anew for every episode, and once more for all of them together, memory takes longer than
    making the images. What `take` returned is overwritten after the next `clear`.
    """

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)
        self._used = 0
        self._size: tuple[int, int] | None = None
        self._other: tuple[int, int] | None = None

    def clear(self) -> None:
        """Forget the images; those of another episode follow."""
        self._used, self._size, self._other = 0, None, None

    def add(self, images: NDArray[np.uint8]) -> None:
        """Copy uint8 [n, h, w]; nothing once there was one of another size, see `take`."""
        count, height, width = images.shape
        if self._size is None:
            self._size = height, width
        elif self._size != (height, width):
            self._other = height, width
        if self._other is not None:
            return
        end = self._used + count * height * width
        if end > len(self._bytes):
            grown = np.empty(max(LEAST, 2 * len(self._bytes), end), np.uint8)
            grown[: self._used] = self._bytes[: self._used]
            self._bytes = grown
        self._bytes[self._used : end].reshape(images.shape)[...] = images
        self._used = end

    def add_one(self, image: NDArray[np.uint8]) -> None:
        """Copy uint8 [h, w]: `add` of one image, of which a video has thousands."""
        end = self._used + image.size
        if image.shape != self._size or self._other is not None or end > len(self._bytes):
            self.add(image[None])
            return
        self._bytes[self._used : end].reshape(image.shape)[...] = image
        self._used = end

    def take(self) -> NDArray[np.uint8]:
        """uint8 [n, h, w], all of them, not copied; [0, 1, 1] without any. ValueError where they differ in size."""
        height, width = self._size or (1, 1)
        if self._other is not None:
            raise ValueError(f"small images of {self._other[1]}x{self._other[0]} and of {width}x{height} pixels")
        return self._bytes[: self._used].reshape(-1, height, width)
