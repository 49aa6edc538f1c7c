"""RGB of decoded video frames, with exactly the colours that `ffmpeg -pix_fmt rgb24` gives.

A frame's own tags say how YUV becomes RGB: the matrix (BT.601, BT.709, BT.2020, ..) and the range (16..235 or
0..255). PyAV's `to_ndarray(format="rgb24")` ignores the tag of BT.709 and is up to 34 levels off; torchcodec
ignores the range of AV1. Frames without tags are BT.601 in limited range, as everywhere.

RGB of one frame is not the same on every CPU: libswscale with and without SSSE3 differs by up to 3 levels, mean 0.67.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import needed_for

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_COLOUR_CODE_VERSION = 1
_DEEP_GRAY_VERSION = 2
"""Of formats without colours of more than 8 bits, which were taken for limited range before."""

FULL_RANGE = 2
"""AVCOL_RANGE_JPEG: luma of 0..255; 1 is 16..235, 0 is not tagged (as 1)."""

_BT601 = 5
_SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""AVColorSpace of a tag -> SWS_CS_* of libswscale; anything else is BT.601. ffmpeg refuses what is in INEXACT."""

INEXACT = {
    8: "YCgCo",
    10: "BT.2020 constant luminance",
    11: "SMPTE ST 2085",
    12: "chromaticity-derived",
    13: "chromaticity-derived constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
"""AVColorSpace of a tag -> name of a matrix that libswscale does not know; its colours come out wrong."""


def tags_of(frame: VideoFrame) -> tuple[int, int]:
    """(matrix, range) of a frame as AVColorSpace and AVColorRange numbers; full range where its format implies it."""
    full = frame.format.name.startswith("yuvj")
    return int(frame.colorspace), FULL_RANGE if full else int(frame.color_range)


def is_gray(pix_fmt: str) -> bool:
    """Whether a pixel format has no colours: FFmpeg takes all of these for full range, whatever their tag says."""
    return pix_fmt.startswith(("gray", "ya8", "ya16"))


def colour_version(pix_fmts: Iterable[str]) -> int:
    """Raised whenever an RGB value of frames of these formats can change; part of the identity of their latents."""
    deep = any(is_gray(name) and name not in ("gray", "ya8") for name in pix_fmts)
    return _DEEP_GRAY_VERSION if deep else _COLOUR_CODE_VERSION


class ToRgb:
    """Converts frames of one stream; keeps libswscale's tables between calls. Not for use by two threads at once."""

    def __init__(self) -> None:
        with needed_for("recorded video"):
            from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame, tags: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """uint8 [H, W, 3], true RGB. tags: of `tags_of`, where the container tells more than the frame.

        Cost: 0.2 ms for 640x480 pixels.
        """
        colorspace, color_range = tags_of(frame) if tags is None else tags
        matrix = _SWS_MATRIX.get(colorspace, _BT601)
        full = color_range == FULL_RANGE or is_gray(frame.format.name)
        converted = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=matrix,
            # PyAV passes the details on only where source and target differ; RGB has no matrix, so any will do
            dst_colorspace=1 if matrix != 1 else _BT601,
            src_color_range=FULL_RANGE if full else 1,
            dst_color_range=FULL_RANGE,
            interpolation="BICUBIC",  # matters where chroma is scaled apart, as for 10 bits
        )
        return np.asarray(converted.to_ndarray(), np.uint8)
