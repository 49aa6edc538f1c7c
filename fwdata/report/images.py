"""Images for people: strips and contact sheets (PNG, WebP), animations (WebP, APNG, GIF). Same frames, same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (22, 22, 26)
INK = (226, 226, 232)
EDGE = (255, 255, 255)
MARK = (255, 148, 102)
GAP = 6
SHEET_WIDTH = 1400
"""A contact sheet breaks its rows at about so many pixels."""
FRAME_SIDE = 384
"""Small frames are enlarged by the largest whole number that keeps their longer side at most so long."""


QUALITY = 70
"""Of lossy WebP images, of 100."""


LIGHT = 48_000
"""Bytes of a lossless still from which a page takes its lossy copy."""


@dataclass(frozen=True)
class Tile:
    """One camera's place in a stitched image, in pixels of that image."""

    name: str
    """Name of the camera."""
    top: int
    """First row."""
    left: int
    """First column."""
    height: int
    """Rows."""
    width: int
    """Columns."""


def frames_strip(
    frames: NDArray[np.uint8],
    scale: float = 1.0,
    labels: Sequence[str] = (),
    columns: int | None = None,
    *,
    lossy: bool = False,
) -> bytes:
    """PNG, or WebP where it may be lossy, of frames side by side.

    frames: uint8 [n, H, W, 3] RGB. scale: whole numbers repeat pixels, others resample. labels: one text per frame,
    written below it. columns: frames per row, all of them by default. Raises ValueError for other frames.
    """
    cells = _scaled(frames, scale)
    sheet = _sheet(cells, labels, columns or len(cells))
    return _webp(sheet) if lossy else _png(sheet)


def contact_sheet(
    frames: NDArray[np.uint8], labels: Sequence[str], tiles: Sequence[Tile] = (), marked: Sequence[bool] = ()
) -> bytes:
    """PNG of frames in rows, small ones enlarged, with camera borders on every frame and their names on the first.

    frames: uint8 [n, H, W, 3] RGB. labels: one text per frame. tiles: where the cameras lie. marked: frames whose
    label stands out. Raises ValueError for other frames.
    """
    _, height, width, _ = _checked(frames).shape
    scale = max(1, FRAME_SIDE // max(height, width))
    fit = max(1, (SHEET_WIDTH + GAP) // (width * scale + GAP))
    rows = -(-len(frames) // fit)
    cells = _scaled(frames, scale)
    for number, cell in enumerate(cells):
        _draw_tiles(cell, tiles, scale, names=number == 0)
    return _png(_sheet(cells, labels, -(-len(frames) // rows), marked))


def animate(
    frames: NDArray[np.uint8],
    fps: float,
    scale: float = 1.0,
    kind: Literal["apng", "gif", "webp"] = "apng",
    hold: float = 1.0,
) -> bytes:
    """A looping APNG (true colours), GIF (one palette of 256 colours) or WebP (lossy, a tenth of an APNG's bytes).

    frames: uint8 [n, H, W, 3] RGB. fps: frames per second; above 50 a GIF plays slower. hold: seconds the last frame
    stays. Raises ValueError for other frames or a rate that is not positive.
    """
    if not fps > 0:
        raise ValueError(f"fps must be positive, found {fps}")
    images = _scaled(frames, scale)
    ends = np.round(np.arange(len(images) + 1) * 100 / fps).astype(int)
    durations = [max(2, int(length)) * 10 for length in np.diff(ends)]
    durations[-1] += round(hold * 100) * 10
    out = io.BytesIO()
    if kind == "gif":
        palette = _palette(images)
        images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
        images[0].save(out, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False)
    elif kind == "webp":
        images[0].save(
            out, "WEBP", save_all=True, append_images=images[1:], duration=durations, loop=0, quality=QUALITY, method=2
        )
    else:
        images[0].save(out, "PNG", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return out.getvalue()


def light_copy(data: bytes) -> bytes:
    """A lossy WebP of a large lossless still image, a fifth of its bytes; any other image as it is.

    data: an encoded image, such as a PNG of `frames_strip`. ValueError when no decoder knows it.
    """
    _, _, media = image_size(data)
    if media != "image/png" or len(data) < LIGHT:
        return data
    with Image.open(io.BytesIO(data)) as image:
        copy = data if getattr(image, "is_animated", False) else _webp(image.convert("RGB"))
    return min(copy, data, key=len)


def image_size(data: bytes) -> tuple[int, int, str]:
    """(width, height, media type) of an encoded image. ValueError when it is none that browsers show."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            found = Image.MIME.get(image.format or "", "")
            width, height = image.size
    except OSError:
        raise ValueError(f"not an image: {len(data)} bytes that no decoder knows") from None
    if found not in {"image/png", "image/apng", "image/gif", "image/jpeg", "image/webp"}:
        raise ValueError(f"browsers show no images of type {found or 'unknown'}")
    return width, height, found


def _checked(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(f"frames must be uint8 [n >= 1, H, W, 3], found {frames.dtype} {list(frames.shape)}")
    return frames


def _scaled(frames: NDArray[np.uint8], scale: float) -> list[Image.Image]:
    _, height, width, _ = _checked(frames).shape
    if not scale > 0:
        raise ValueError(f"scale must be positive, found {scale}")
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    if scale == 1:
        return images
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = Image.Resampling.NEAREST if float(scale).is_integer() else Image.Resampling.LANCZOS
    return [image.resize(size, method) for image in images]


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _webp(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", quality=QUALITY, method=2)
    return out.getvalue()


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


def _sheet(
    cells: Sequence[Image.Image], labels: Sequence[str], columns: int, marked: Sequence[bool] = ()
) -> Image.Image:
    """Cells of equal size in rows, with a gap around each and a text line below those with labels."""
    if labels and len(labels) != len(cells):
        raise ValueError(f"{len(cells)} frames need as many labels, found {len(labels)}")
    width, height = cells[0].size
    text = 20 if labels else 0
    rows = -(-len(cells) // columns)
    size = (columns * (width + GAP) + GAP, rows * (height + text + GAP) + GAP)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), _font(13)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        left, top = GAP + column * (width + GAP), GAP + row * (height + text + GAP)
        sheet.paste(cell, (left, top))
        if labels:
            colour = MARK if marked and marked[number] else INK
            text_line = _cut(draw, labels[number], font, width)
            draw.text((left + 1, top + height + 2), text_line, fill=colour, font=font)
    return sheet


def _draw_tiles(cell: Image.Image, tiles: Sequence[Tile], scale: int, names: bool) -> None:
    draw, font = ImageDraw.Draw(cell, "RGBA"), _font(13)
    for tile in tiles:
        left, top = tile.left * scale, tile.top * scale
        right, bottom = left + tile.width * scale - 1, top + tile.height * scale - 1
        draw.rectangle((left, top, right, bottom), outline=(*EDGE, 200))
        if not names:
            continue
        name = _cut(draw, tile.name, font, right - left - 10)
        box = draw.textbbox((left + 6, top + 4), name, font=font)
        draw.rectangle((left + 1, top + 1, box[2] + 5, box[3] + 4), fill=(0, 0, 0, 150))
        draw.text((left + 6, top + 4), name, fill=EDGE, font=font)


def _cut(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    """The text, its end replaced by two dots where it is wider than `width` pixels."""
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(f"{text}..", font=font) > width:
        text = text[:-1]
    return f"{text}.."


def _palette(images: Sequence[Image.Image]) -> Image.Image:
    """256 colours for all frames, taken from up to 8 of them."""
    chosen = [images[i] for i in np.unique(np.linspace(0, len(images) - 1, 8).astype(int))]
    width, height = chosen[0].size
    joined = Image.new("RGB", (width, height * len(chosen)))
    for number, image in enumerate(chosen):
        joined.paste(image, (0, number * height))
    return joined.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
