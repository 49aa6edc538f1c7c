"""Image features: JPEG buffers as they are, other images (PNG) decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.parquet import Span, read_pictures
from fwdata.api import EncodedCamera, EncodedFrame, RawCamera
from fwdata.errors import BadEpisode
from fwdata.images.jpeg import MAX_SIDE, jpeg_size

JPEG = b"\xff\xd8"
_FORMATS = ("PNG", "BMP", "TIFF", "WEBP")
_MODES = frozenset({"RGB", "RGBA", "L", "P", "1"})


@dataclass(frozen=True)
class ParquetJpegs:
    """JPEG buffers of an image feature, byte for byte; calling it opens a fresh pass. Picklable."""

    span: Span
    """Rows of the episode in its Parquet file."""
    key: str
    """The image feature."""
    swapped: bool
    """Whether red and blue are exchanged in every buffer."""

    def __call__(self) -> Iterator[EncodedFrame]:
        for frame, data in enumerate(read_pictures(self.span, self.key)):
            if data[:2] != JPEG:
                raise BadEpisode(
                    f"{self.key} frame {frame} is not a JPEG (starts with {data[:4].hex(' ')}), frame 0 is"
                )
            yield EncodedFrame(data, self.swapped)


@dataclass(frozen=True)
class Pictures:
    """Losslessly coded images of an image feature, decoded one by one: uint8 [1, H, W, 3]. Picklable."""

    span: Span
    """Rows of the episode in its Parquet file."""
    key: str
    """The image feature."""
    height: int
    """Pixels of every image; another size is refused."""
    width: int
    """Pixels of every image; another size is refused."""
    swapped: bool
    """Whether red and blue are exchanged after decoding."""

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        for frame, data in enumerate(read_pictures(self.span, self.key)):
            image = _decode(data, f"{self.key} frame {frame}")
            if image.shape[:2] != (self.height, self.width):
                found = f"{image.shape[0]}x{image.shape[1]}"
                raise BadEpisode(f"{self.key} frame {frame} is {found} pixels, frame 0 {self.height}x{self.width}")
            yield (image[..., ::-1] if self.swapped else image)[None]


def open_images(span: Span, key: str, swapped: bool) -> EncodedCamera | RawCamera:
    """The camera of an image feature; only its first image is read. BadEpisode when that is none."""
    data = next(read_pictures(span, key))
    where = f"{key} frame 0"
    if data[:2] != JPEG:
        height, width, _ = _decode(data, where).shape
        return RawCamera(Pictures(span, key, height, width, swapped), height, width)
    try:
        height, width = jpeg_size(data)
    except ValueError as error:
        raise BadEpisode(f"{where}: {error}") from None
    return EncodedCamera(ParquetJpegs(span, key, swapped), height, width)


def _decode(data: bytes, where: str) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], RGB; transparency is dropped. BadEpisode for damage, other formats and more than 8 bits."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            image.verify()  # the checksums of its chunks, which decoding alone does not look at
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if not (0 < image.width <= MAX_SIDE and 0 < image.height <= MAX_SIDE):
                raise BadEpisode(f"{where} claims {image.height}x{image.width} pixels; sides are 1 to {MAX_SIDE}")
            if image.mode not in _MODES:
                raise BadEpisode(f"{where} is an image of mode {image.mode}, expected 8-bit colours")
            return np.array(image.convert("RGB"), np.uint8)
    except BadEpisode:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadEpisode(
            f"{where} is neither JPEG nor PNG (starts with {data[:4].hex(' ')}), or damaged: {reason}"
        ) from None
