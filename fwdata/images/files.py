"""Frames in image files (PNG, JPEG, ..), decoded to RGB a few at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import BadEpisode

BLOCK = 16
"""Frames decoded together."""

KINDS = ("bmp", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp")
"""Endings of image files."""


def is_image(path: Path) -> bool:
    """Whether a file's ending is that of an image."""
    return path.suffix.lower().removeprefix(".") in KINDS


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder in the order of the numbers in their names: 2.png before 10.png; hidden ones left out."""
    found = (p for p in folder.iterdir() if is_image(p) and p.is_file() and not p.name.startswith("."))
    return sorted(found, key=lambda p: [int(s) if s.isdecimal() else s for s in re.split(r"([0-9]+)", p.name)])


def read_image(path: Path) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], true RGB; a grey image has three equal channels.

    ValueError with the reason for a file that is not an image of 8 bits per channel, is damaged or has transparency.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            mode = image.mode
            if mode not in {"RGB", "L", "P", "RGBA"}:
                raise ValueError(f"holds {mode} pixels; 8-bit RGB or grey is needed")
            if mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
                raise ValueError("has transparent pixels; flatten them first")
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be read as an image: {error}") from None


@dataclass(frozen=True)
class ImageFiles:
    """Opens fresh passes over the frames of one camera, one file each."""

    paths: tuple[Path, ...]
    """In time order."""
    height: int
    """Pixels of every frame."""
    width: int
    """Pixels of every frame."""

    @classmethod
    def of(cls, paths: Sequence[Path]) -> ImageFiles:
        """Of files whose first one gives the size. ValueError where there is none or it cannot be read."""
        if not paths:
            raise ValueError("no image file")
        try:
            height, width, _ = read_image(paths[0]).shape
        except ValueError as error:
            raise ValueError(f"{paths[0].name} {error}") from None
        return cls(tuple(paths), height, width)

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        """Blocks of frames; BadEpisode naming the file that cannot be read or has another size."""
        for start in range(0, len(self.paths), BLOCK):
            yield np.stack([self._frame(path) for path in self.paths[start : start + BLOCK]])

    def _frame(self, path: Path) -> NDArray[np.uint8]:
        try:
            frame = read_image(path)
        except ValueError as error:
            raise BadEpisode(f"{path.name} {error}") from None
        if frame.shape[:2] != (self.height, self.width):
            found = f"{frame.shape[0]}x{frame.shape[1]}"
            raise BadEpisode(f"{path.name} is {found} pixels, {self.paths[0].name} is {self.height}x{self.width}")
        return frame
