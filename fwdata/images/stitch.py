"""Multi-camera stitching: camera frames to one image, as the Fast-WAM loader builds it.

Each camera is resized to `camera_size`, then (layout `robotwin`) to its tile, with torchvision's antialiased bilinear
filter; tiles are joined and rounded to uint8 once: floor(255 * x + 0.5). Nothing is rounded between the two steps. The
filter is linear and separable, so both steps of one axis are a single matrix, of which only the parts near the diagonal
are multiplied. Result: within 0.51 grey levels of the official float result at every pixel.

Where the tiles are is the layout's (`fwdata.images.layouts`); cameras come in the order of the spec.

Sources: FastWAM robot_video_dataset.py and transforms/image.py; torchvision's `Resize(antialias=True)`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import UsageError
from fwdata.images.layouts import BUILT_IN, Tile, checked_tiles
from fwdata.manifest import StitchSpec

STITCH_CODE_VERSION = 1
"""Raised whenever a stitched pixel can change; part of every latent cache's identity. Not raised when halves were made
to go up everywhere: before, up to 2 in 1,000 pixels were one level lower or not, by the processor's kernels."""

FILTER = "bilinear-antialias, 2 steps, one rounding"

TIES_UP = 0.5 + 1e-9
"""Added before grey levels are cut off to integers: halves go up, and so does what is short of them by rounding."""

BAND = 16
"""Rows or columns of a tile that are computed at once."""


def resize_weights(n: int, m: int) -> NDArray[np.float64]:
    """float64 [m, n]: weights of the antialiased bilinear filter along one axis, n inputs to m outputs.

    With s = n/m and support u = max(s, 1), output i has centre c = s (i + 0.5) and weighs input j in
    [max(floor(c - u + 0.5), 0), min(floor(c + u + 0.5), n)) by max(0, 1 - |j - c + 0.5| / u), normalised.
    """
    if n == m:
        return np.eye(n)
    scale = n / m
    support = max(scale, 1.0)
    weights = np.zeros((m, n))
    for i in range(m):
        centre = scale * (i + 0.5)
        low = max(int(np.floor(centre - support + 0.5)), 0)
        high = min(int(np.floor(centre + support + 0.5)), n)
        taps = np.maximum(0.0, 1.0 - np.abs(np.arange(low, high) - centre + 0.5) / support)
        weights[i, low:high] = taps / taps.sum()
    return weights


class _Band(NamedTuple):
    """Some neighbouring outputs of an axis, and the inputs that they are made of."""

    outputs: slice
    inputs: slice
    weights: NDArray[np.float64]
    """float64 [outputs, inputs]"""


@lru_cache(maxsize=64)
def _bands(n: int, step: int, tile: int) -> tuple[_Band, ...]:
    """Resize n -> step -> tile as one matrix, of which only what is near the diagonal is kept; none: the identity."""
    if n == step == tile:
        return ()
    whole, found = resize_weights(step, tile) @ resize_weights(n, step), []
    for first in range(0, tile, BAND):
        part = whole[first : first + BAND]
        used = np.flatnonzero(part.any(0))
        low, high = int(used[0]), int(used[-1]) + 1
        found.append(_Band(slice(first, first + len(part)), slice(low, high), part[:, low:high]))
    return tuple(found)


@lru_cache(maxsize=64)
def _column_bands(n: int, step: int, tile: int) -> tuple[_Band, ...]:
    """The same for the colours of a line, three to a column; weights are [inputs, outputs]."""
    return tuple(
        _Band(_colours(outputs), _colours(inputs), np.ascontiguousarray(np.kron(weights, np.eye(3)).T, np.float64))
        for outputs, inputs, weights in _bands(n, step, tile)
    )


def _colours(columns: slice) -> slice:
    return slice(3 * columns.start, 3 * columns.stop)


def _resize(frames: NDArray[np.uint8], step: tuple[int, int], tile: tuple[int, int], out: NDArray[np.uint8]) -> None:
    """uint8 [n, h, w, 3] into uint8 [n, tile_h, tile_w, 3], the same on every processor: in which order its kernels add
    changes a float64 sum by 1e-13 grey levels, far less than the margin of TIES_UP."""
    h, w = frames.shape[1:3]
    rows, columns = _bands(h, step[0], tile[0]), _column_bands(w, step[1], tile[1])
    lines, resized = np.empty((tile[0], w * 3)), np.empty((tile[0], tile[1] * 3))
    for image, place in zip(frames, out, strict=True):
        pixels = image.reshape(h, w * 3).astype(np.float64)
        for outputs, inputs, weights in rows:
            np.matmul(weights, pixels[inputs], out=lines[outputs])
        found = lines if rows else pixels
        for outputs, inputs, weights in columns:
            np.matmul(found[:, inputs], weights, out=resized[:, outputs])
        found = resized if columns else found
        found += TIES_UP  # truncation towards zero is floor here: a convex combination of 0..255 stays in 0..255
        place[...] = found.reshape(*tile, 3)


def tiles(spec: StitchSpec) -> list[Tile]:
    """(top, left, height, width) in pixels of every camera's place in the stitched image, in camera order."""
    return checked_tiles(spec.layout, len(spec.cameras), spec.camera_size, spec.size)


def stitch(frames: Mapping[str, NDArray[np.uint8]], spec: StitchSpec) -> NDArray[np.uint8]:
    """Join camera frames into one image per time step. Pure; batching changes no value.

    frames: for every camera of the spec, uint8 [n, h, w, 3] true RGB; sizes may differ between cameras.
    Returns uint8 [n, H, W, 3]. Cost: about 2 ms per 384x320 image from three 320x240 cameras on one core.
    Raises UsageError for a missing camera, a frame of the wrong type, or cameras with different frame counts.
    """
    missing = [name for name in spec.cameras if name not in frames]
    if missing:
        raise UsageError(f"stitching needs the cameras {list(spec.cameras)}; {missing} are missing")
    counts = {name: len(frames[name]) for name in spec.cameras}
    if len(set(counts.values())) != 1:
        raise UsageError(f"cameras to be stitched must have equal frame counts, found {counts}")
    places = tiles(spec)
    covered = sum(height * width for _, _, height, width in places) >= spec.size[0] * spec.size[1]
    out = (np.empty if covered else np.zeros)((len(frames[spec.cameras[0]]), *spec.size, 3), np.uint8)
    for name, (top, left, height, width) in zip(spec.cameras, places, strict=True):
        camera = frames[name]
        if camera.dtype != np.uint8 or camera.ndim != 4 or camera.shape[3] != 3:
            raise UsageError(f"camera {name!r} must be uint8 [n, h, w, 3], found {camera.dtype} {list(camera.shape)}")
        if camera.shape[1:3] == spec.camera_size == (height, width):
            out[:, top : top + height, left : left + width] = camera
            continue
        _resize(camera, spec.camera_size, (height, width), out[:, top : top + height, left : left + width])
    return out


def stitch_identity(spec: StitchSpec) -> dict[str, object]:
    """Every choice that can change a stitched pixel, as JSON; part of the identity of latents."""
    own = {} if spec.layout in BUILT_IN else {"tiles": [list(tile) for tile in tiles(spec)]}
    return {
        **own,
        "layout": spec.layout,
        "cameras": list(spec.cameras),
        "camera_size": list(spec.camera_size),
        "size": list(spec.size),
        "filter": FILTER,
        "code": STITCH_CODE_VERSION,
    }


def stitch_hash(spec: StitchSpec) -> str:
    """First 12 hex digits of the sha256 of `stitch_identity`."""
    return hashlib.sha256(json.dumps(stitch_identity(spec), sort_keys=True).encode()).hexdigest()[:12]
