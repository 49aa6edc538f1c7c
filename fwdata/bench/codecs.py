"""What the compression of pixels costs: whole conversions with other codecs in the place of the writer's own.

Only sizes and times are looked at; no such store is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypedDict
from unittest.mock import patch

from numpy.typing import NDArray

from fwdata.bench.timing import Timing
from fwdata.store import codec, writer
from fwdata.store.layout import ArraySpec, Codec, frame_array


class CodecJson(TypedDict):
    """Whole conversions with one codec of pixels."""

    codec: str
    """What it is."""
    floor_share: float
    """Conversion's rate over that of only reading and decoding."""
    bytes_ratio: float
    """Bytes of the store over those of the recordings."""


@dataclass(frozen=True)
class PixelCodec:
    """One way to store chunks of pixels."""

    name: str
    """What it is, for the table."""
    form: Codec
    """How chunks are laid out."""
    compress: Callable[[NDArray[Any]], bytes] = codec.compress_lines
    """Given a chunk of form "lines"; not used by other forms."""


def _lz4(body: NDArray[Any], acceleration: int) -> bytes:
    from numcodecs.lz4 import compress

    return bytes(compress(body, acceleration))


CODECS = (
    PixelCodec("stored as is, CRC-32C", "crc32c"),
    PixelCodec("lines, LZ4, acceleration 8", "lines", partial(_lz4, acceleration=8)),
    PixelCodec("lines, LZ4", "lines", partial(_lz4, acceleration=1)),
    PixelCodec("lines, zstd fast, skipping 50", "lines", partial(codec.compress_lines, skip=50)),
    PixelCodec("lines, zstd fast, skipping 20", "lines", partial(codec.compress_lines, skip=20)),
    PixelCodec("lines, zstd fast, skipping 4", "lines", partial(codec.compress_lines, skip=4)),
    PixelCodec("lines, zstd fast (layout 3)", "lines"),
    PixelCodec("images, zstd 3 (layouts 1 and 2)", "zstd"),
)
"""From the fastest to the smallest."""


@dataclass(frozen=True)
class CodecBench:
    """What one codec came to."""

    codec: PixelCodec
    """The codec."""
    conversion: Timing
    """The fastest whole conversion with it."""
    store_bytes: int
    """Bytes of the store."""


@contextmanager
def pixels_as(chosen: PixelCodec) -> Iterator[None]:
    """Conversions in this process store pixels by this codec meanwhile."""

    def spec(height: int, width: int, layout: int) -> ArraySpec:
        return replace(frame_array(height, width, layout), codec=chosen.form)

    with patch.object(writer, "frame_array", spec), patch.object(codec, "compress_lines", chosen.compress):
        yield


def bench_codecs(convert: Callable[[PixelCodec], tuple[Timing, int]]) -> tuple[CodecBench, ...]:
    """Convert once by every codec. convert: a whole conversion by it; gives what it took, and the store's bytes."""
    return tuple(CodecBench(one, *convert(one)) for one in CODECS)


def fastest(runs: list[tuple[CodecBench, ...]]) -> tuple[CodecBench, ...]:
    """Of every codec its fastest run."""
    return tuple(min(same, key=lambda run: run.conversion.cpu_seconds) for same in zip(*runs, strict=True))
