"""Image features: JPEG buffers as they are, other images (PNG), and those that EXIF asks to turn, decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.parquet import Span, read_images
from fwdata.api import EncodedCamera, EncodedFrame, RawCamera
from fwdata.errors import BadEpisode
from fwdata.images.jpeg import MAX_SIDE, has_exif, jpeg_size

JPEG = b"\xff\xd8"
_FORMATS = ("PNG", "BMP", "TIFF", "WEBP", "JPEG")
_MODES = frozenset({"RGB", "RGBA", "L", "LA", "P", "1"})
_ORIENTATION = 0x0112
"""EXIF tag; 1 is upright (CIPA DC-008, 4.6.5)."""


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
        for frame, data in enumerate(read_images(self.span, self.key)):
            if data[:2] != JPEG:
                raise BadEpisode(
                    f"{self.key} frame {frame} is not a JPEG (starts with {data[:4].hex(' ')}), frame 0 is"
                )
            if is_turned(data):
                raise BadEpisode(f"{self.key} frame {frame} is to be turned by its EXIF orientation, frame 0 is not")
            yield EncodedFrame(data, self.swapped)


@dataclass(frozen=True)
class RecordedImages:
    """Images of an image feature, decoded and turned upright one by one: uint8 [1, H, W, 3]. Picklable."""

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
        for frame, data in enumerate(read_images(self.span, self.key)):
            image = decode_image(data, f"{self.key} frame {frame}")
            if image.shape[:2] != (self.height, self.width):
                found = f"{image.shape[0]}x{image.shape[1]}"
                raise BadEpisode(f"{self.key} frame {frame} is {found} pixels, frame 0 {self.height}x{self.width}")
            yield (image[..., ::-1] if self.swapped else image)[None]


def open_images(span: Span, key: str, swapped: bool) -> EncodedCamera | RawCamera:
    """The camera of an image feature; only its first image is read. BadEpisode when that is none."""
    data = next(read_images(span, key))
    where = f"{key} frame 0"
    if data[:2] != JPEG or is_turned(data):
        height, width, _ = decode_image(data, where).shape
        return RawCamera(RecordedImages(span, key, height, width, swapped), height, width)
    try:
        height, width = jpeg_size(data)
    except ValueError as error:
        raise BadEpisode(f"{where}: {error}") from None
    return EncodedCamera(ParquetJpegs(span, key, swapped), height, width)


def is_turned(data: bytes) -> bool:
    """Whether a JPEG asks to be turned or mirrored, which lerobot does; False where that cannot be told."""
    if not has_exif(data):
        return False
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return image.getexif().get(_ORIENTATION, 1) not in (0, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def image_bytes(value: object) -> bytes:
    """The buffer of an image feature's value, as a struct or alone; b"" where it has none."""
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) else b""


def is_deep(data: bytes) -> bool:
    """Whether an image is of more than 8 bits in grey, as maps of distances are: by the header of a PNG (ISO 15948,
    11.2.2: bits and colour type), else by what PIL says of a TIFF."""
    if data[:4] == b"\x89PNG":
        return data[24:26] == b"\x10\x00"
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return False
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            return image.mode.startswith(("I", "F"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def decode_image(data: bytes, where: str) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], RGB; transparency is dropped. BadEpisode for damage, other formats and more than 8 bits."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            image.verify()  # the checksums of its chunks, which decoding alone does not look at
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if not (0 < image.width <= MAX_SIDE and 0 < image.height <= MAX_SIDE):
                raise BadEpisode(f"{where} claims {image.height}x{image.width} pixels; sides are 1 to {MAX_SIDE}")
            if image.mode not in _MODES:
                raise BadEpisode(f"{where} is an image of mode {image.mode}, expected 8-bit colours")
            return np.array(ImageOps.exif_transpose(image).convert("RGB"), np.uint8)
    except BadEpisode:
        raise
    except UnidentifiedImageError:
        raise BadEpisode(
            f"{where} is not a readable image (starts with {data[:4].hex(' ')}); expected JPEG, PNG, BMP, TIFF or WEBP"
        ) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadEpisode(f"{where} is damaged (starts with {data[:4].hex(' ')}): {reason}") from None
