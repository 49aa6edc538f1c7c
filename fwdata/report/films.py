"""Films of an episode: stitched frames with the course of its numbers below, and a cursor that moves along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fwdata.report.images import BACKGROUND, INK, animate

COLOURS = ((108, 176, 255), (255, 148, 102), (79, 209, 161), (196, 161, 255), (240, 198, 74), (255, 133, 173))
SHOWN = len(COLOURS)
"""Columns that are drawn: those that move most."""
STRIP = 72
"""Height of the numbers' strip, in pixels."""
FRAMES = 48
"""Most frames of a film."""
NARROWEST = 192
"""Smaller frames are enlarged by whole numbers to at least this width."""


def cursor_film(frames: NDArray[np.uint8], rows: NDArray[np.int64], state: NDArray[np.float32], fps: float) -> bytes:
    """WebP film of frames with the state's most moving columns below them, each scaled to its own range.

    frames: uint8 [n, H, W, 3], of the rows `rows` of the episode. state: float32 [T, D]. fps: of the film.
    """
    scale = max(1, -(-NARROWEST // frames.shape[2]))
    large = np.repeat(np.repeat(frames, scale, axis=1), scale, axis=2)
    strip = _strip(state, large.shape[2])
    shown = []
    for frame, row in zip(large, rows, strict=True):
        image = Image.new("RGB", (frame.shape[1], frame.shape[0] + STRIP), BACKGROUND)
        image.paste(Image.fromarray(frame), (0, 0))
        image.paste(strip, (0, frame.shape[0]))
        x = round(float(row) / max(len(state) - 1, 1) * (frame.shape[1] - 1))
        ImageDraw.Draw(image).line((x, frame.shape[0], x, image.height), fill=INK, width=1)
        shown.append(np.asarray(image))
    return animate(np.stack(shown), fps=fps, kind="webp")


def _strip(state: NDArray[np.float32], width: int) -> Image.Image:
    """The lines of the numbers, without the cursor."""
    image = Image.new("RGB", (width, STRIP), BACKGROUND)
    draw = ImageDraw.Draw(image)
    reach = np.ptp(state, axis=0)
    for colour, column in zip(COLOURS, np.argsort(-reach, kind="stable")[:SHOWN], strict=False):
        if not reach[column] > 0:
            continue
        share = (state[:, column] - state[:, column].min()) / reach[column]
        xs = np.linspace(0, width - 1, len(state))
        ys = (1 - share) * (STRIP - 9) + 4
        draw.line([(float(x), float(y)) for x, y in zip(xs, ys, strict=True)], fill=colour, width=1)
    return image


def rollout_film(frames: NDArray[np.uint8], fps: float) -> bytes:
    """WebP film of a rollout, as long as it is but with at most `FRAMES` frames, of the frames' own size.

    frames: uint8 [n, H, W, 3]. fps: rate of the frames. A page enlarges small films (`Report.pictures`): enlarged
    pixels in the file are three times the bytes.
    """
    rows = film_rows(len(frames))
    return animate(frames[rows], fps=fps * len(rows) / len(frames), kind="webp")


def film_rows(length: int) -> NDArray[np.int64]:
    """int64: at most `FRAMES` evenly spaced rows of an episode."""
    return np.unique(np.linspace(0, length - 1, min(length, FRAMES)).round().astype(np.int64))


def film_frames(path: Path, count: int = 8) -> NDArray[np.uint8]:
    """uint8 [<= count, H, W, 3]: frames of a film on disk, evenly spaced, the last one included."""
    import av

    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chosen = np.unique(np.linspace(0, len(frames) - 1, count).astype(int))
    return np.stack([frames[i] for i in chosen])
