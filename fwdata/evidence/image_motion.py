"""What moves in an image sequence: how much changes between frames, and where to it is shifted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.signals import Floats, edged

NOISE_LEVELS = 2
"""Grey levels of change that count as noise."""

COMPARED = 9
"""Frames that brightness and content are measured on."""

HELD_PIXELS = 1 << 16
"""Pixels that are compared at once: memory for more is fetched from the system anew each time, which takes longer."""

EXACT = 1 << 24
"""The largest whole number up to which single precision holds all."""

MOVING_PIXEL, LEAST_MOVING = 4, 4
FEW_MOVING, FRAMES_OF_FEW, FRAMES_OF_MANY = 0.1, 64, 16
"""Share of the pixels up to which those that change are looked at one by one, and frames that are looked at at once:
more where few of their pixels change, as calls of numpy cost as much then as what they do."""

RIDGE = 1.0


class ImageMotion:
    """What detectors need of one camera's thumbnails uint8 [T, h, w], each part computed when asked for.

    every: rows from one of them to the next; rows: T, where that is above 1.
    """

    def __init__(self, images: NDArray[np.uint8], every: int = 1, rows: int | None = None) -> None:
        self.images, self.every = images, every
        self.rows = len(images) if rows is None else rows
        self._energies: dict[int, Floats] = {}

    @cached_property
    def spread(self) -> NDArray[np.uint8]:
        """uint8 [n, h, w], at most nine frames, evenly spread."""
        return self.images[_spread(len(self.images))]

    @cached_property
    def brightness(self) -> tuple[float, float]:
        """Mean of those frames, and the largest standard deviation within one of them, in grey levels."""
        means, pixels = self.means[_spread(len(self.images))], self.spread
        products = np.multiply(pixels, pixels, dtype=np.uint16)
        squares = products.sum(axis=(1, 2), dtype=np.uint32) / float(pixels[0].size)
        return float(means.mean()), float(np.sqrt(np.maximum(squares - means**2, 0.0)).max())

    @cached_property
    def means(self) -> Floats:
        """float64 [n], mean grey level of every image. Cost: 1 us for 64x48."""
        return byte_sums(self.images) / float(self.images[0].size)

    @cached_property
    def energy(self) -> NDArray[np.float64]:
        """float64 [T]: mean over pixels of max(0, |I[t] - I[t - 1]| - 2); row 0 repeats row 1.

        With fewer images than rows, a row has the change from the image before it to the next one.
        """
        change = self._over(1)
        return change if self.every == 1 else self._between(change)

    @property
    def changes(self) -> Floats:
        """float64 [n], the change from the image before; image 0 repeats image 1."""
        return self._over(1)

    def energy_over(self, step: int) -> Floats:
        """float64 [T]: the same over `step` rows, a multiple of `every`, centred; borders repeat the nearest row.

        With fewer images than rows, those between two of them have what lies between their values.
        """
        change = self._over(step // self.every)
        if self.every == 1 or not len(change):
            return change
        between: Floats = np.interp(np.arange(self.rows), np.arange(len(change)) * self.every, change)
        return between

    def _between(self, values: Floats) -> Floats:
        """[T, ..] of what was measured from an image to the next, [n, ..]: at the rows after the one up to the next."""
        following = (np.arange(self.rows) + self.every - 1) // self.every
        found: Floats = values[np.minimum(following, len(values) - 1)]
        return found

    def _over(self, step: int) -> Floats:
        if step not in self._energies:
            self._energies[step] = self._changes(step)
        return self._energies[step]

    def _changes(self, step: int) -> Floats:
        """float64 [n], energy over so many images, centred."""
        images = self.images
        if len(images) <= step:
            return np.zeros(len(images))
        found, size = np.empty(len(images) - step), images[0].size
        held = max(1, HELD_PIXELS // size)
        room = np.empty((2, held, *images.shape[1:]), np.uint8)  # taken once: each block would take three others
        noise = np.full((held, *images.shape[1:]), NOISE_LEVELS, np.uint8)  # a number takes ten times as long
        for low, high in _blocks(len(found), held):
            later, earlier, (change, lower) = images[low + step : high + step], images[low:high], room[:, : high - low]
            np.maximum(later, earlier, out=change)
            change -= np.minimum(later, earlier, out=lower)
            found[low:high] = byte_sums(np.maximum(change, noise[: high - low], out=change))
        found = (found - float(NOISE_LEVELS * size)) / size
        before = (step + 1) // 2
        return edged(found, before, step - before)

    @cached_property
    def translation(self) -> Floats:
        """float64 [T, 2], pixels in a row, `apparent_motion` from an image to the next.

        Not over more rows than the images are apart: on genuine RoboTwin recordings the correlation with the recorded
        camera pose falls from 0.90 to 0.76 (a wrist camera) and from 0.66 to 0.37 (a fixed one) over two rows.
        """
        return self._between(apparent_motion(self.images) / self.every)


def byte_sums(images: NDArray[np.uint8]) -> Floats:
    """float64 [n], the sum of each of uint8 [n, ..], exact.

    As single precision holds all whole numbers up to 2^24, a product of matrices adds them up: in less time than numpy
    adds bytes, and in half the instructions.
    """
    flat = images.reshape(len(images), math.prod(images.shape[1:]))
    if 255 * flat.shape[1] > EXACT:
        whole: Floats = flat.sum(axis=1, dtype=np.uint64).astype(np.float64)
        return whole
    found, held = np.empty(len(flat)), max(1, HELD_PIXELS // max(1, flat.shape[1]))
    ones = np.ones(flat.shape[1], np.float32)
    for low, high in _blocks(len(flat), held):
        found[low:high] = flat[low:high].astype(np.float32) @ ones
    return found


@lru_cache(maxsize=64)
def _spread(count: int) -> NDArray[np.int64]:
    """int64 [n], at most nine of so many places, evenly spread."""
    return np.linspace(0, count - 1, min(COMPARED, count)).round().astype(np.int64)


def apparent_motion(images: NDArray[np.uint8]) -> Floats:
    """float64 [T, 2], mean motion (x, y) in pixels of what changes between frames; row 0 repeats row 1.

    One translation per pair of frames, by least squares over the pixels that change (gradients against difference);
    pixels of the border, which have one neighbour less, are left out. Cost: 3 to 12 us per frame of 64x64.
    """
    found = np.zeros((len(images), 2))
    for low, high in _blocks(len(images) - 1, FRAMES_OF_FEW):
        frames = images[low : high + 1]
        moving = _moving_pixels(frames)
        if np.count_nonzero(moving) < FEW_MOVING * moving.size:
            found[low + 1 : high + 1] = _motion(*_products_of_few(frames, moving))
            continue
        for first, last in _blocks(len(moving), FRAMES_OF_MANY):
            some = slice(low + first + 1, low + last + 1)
            found[some] = _motion(*_products_of_many(frames[first : last + 1], moving[first:last]))
    if len(found) > 1:
        found[0] = found[1]
    return found


type _Products = tuple[NDArray[np.integer], Floats]
"""int [n], pixels that move from each of n frames to the next, and float64 [5, n], sums over them of products xx, xy,
yy, xt and yt of four times their gradients across (x) and down (y), and their change (t): whole numbers, and exact."""


def _motion(counts: NDArray[np.integer], products: Floats) -> Floats:
    """float64 [n, 2], of `_Products`."""
    xx, xy, yy, xt, yt = products / np.array([[16.0], [16.0], [16.0], [4.0], [4.0]])
    xx, yy = xx + RIDGE, yy + RIDGE
    motion = np.stack([xy * yt - yy * xt, xy * xt - xx * yt], axis=1) / (xx * yy - xy * xy)[:, None]
    return np.where((counts >= LEAST_MOVING)[:, None], motion, 0.0)


def _moving_pixels(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """bool [n - 1, h, w], the pixels that change to the next frame; none of the border."""
    later, earlier = frames[1:], frames[:-1]
    changing: NDArray[np.bool_] = np.maximum(later, earlier) - np.minimum(later, earlier) > MOVING_PIXEL
    changing[:, [0, -1]] = False
    changing[:, :, [0, -1]] = False
    return changing


def _products_of_few(frames: NDArray[np.uint8], moving: NDArray[np.bool_]) -> _Products:
    """Where few pixels move: by these and their neighbours alone."""
    places, width = np.flatnonzero(moving), frames.shape[2]
    ends = np.searchsorted(places, np.arange(len(frames)) * frames[0].size)
    counts, products = ends[1:] - ends[:-1], np.zeros((5, len(moving)))
    some = np.flatnonzero(counts)
    if len(some):
        flat, steps = frames.reshape(-1), np.array([[0], [1], [-1], [width], [-width]])
        before, after = (flat[first:].take(places + steps).astype(np.int32) for first in (0, frames[0].size))
        both = before + after
        x, y, t = both[1] - both[2], both[3] - both[4], after[0] - before[0]
        for line, product in enumerate((x * x, x * y, y * y, x * t, y * t)):
            products[line, some] = np.add.reduceat(product, ends[some], dtype=np.int64)  # far faster than running sums
    return counts, products


def _products_of_many(frames: NDArray[np.uint8], moving: NDArray[np.bool_]) -> _Products:
    """Where many move: of all pixels, with 0 for those that do not."""
    count, width = len(moving), frames.shape[2]
    whole = frames.astype(np.int16).reshape(len(frames), -1)
    both, slopes = (whole[1:] + whole[:-1]).reshape(-1), np.zeros((3, moving.size), np.int16)
    for values, step in zip(slopes, (1, width), strict=False):
        np.subtract(both[2 * step :], both[: -2 * step], out=values[step:-step])
    np.subtract(whole[1:], whole[:-1], out=slopes[2].reshape(count, -1))
    slopes &= -moving.reshape(-1).view(np.int8).astype(np.int16)  # all bits where one moves
    each = slopes.reshape(3, count, -1).astype(np.float64).transpose(1, 0, 2)
    (xx, xy, xt), (_, yy, yt) = (each[:, :2] @ each.transpose(0, 2, 1)).transpose(1, 2, 0)
    counts = moving.reshape(count, -1).view(np.uint8).sum(axis=1, dtype=np.uint32)  # bools take four times as long
    return counts, np.stack([xx, xy, yy, xt, yt])


def _blocks(rows: int, size: int) -> Iterator[tuple[int, int]]:
    return ((low, min(low + size, rows)) for low in range(0, rows, size))
