"""Multi-camera stitching: camera frames to one image, as the Fast-WAM loader builds it.

Each camera is resized to `camera_size`, then (layout `robotwin`) to its tile, with torchvision's antialiased bilinear
filter; tiles are joined and rounded to uint8 once: floor(255 * x + 0.5). Nothing is rounded between the two steps. The
filter is linear and separable, so both steps of one axis are a single matrix, and a frame costs two matrix products per
camera. Result: within 0.51 grey levels of the official float result at every pixel.

Where the tiles are is the layout's (`fwdata.images.layouts`); cameras come in the order of the spec.

Sources: FastWAM robot_video_dataset.py and transforms/image.py; torchvision's `Resize(antialias=True)`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import UsageError
from fwdata.images.layouts import BUILT_IN, Tile, checked_tiles
from fwdata.manifest import StitchSpec

STITCH_CODE_VERSION = 1
"""Raised whenever a stitched pixel can change; part of every latent cache's identity."""

FILTER = "bilinear-antialias, 2 steps, one rounding"


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


@lru_cache(maxsize=64)
def _axis(n: int, step: int, tile: int) -> NDArray[np.float32] | None:
    """float32 [tile, n]: resize n -> step -> tile as one matrix; None when that is the identity."""
    if n == step == tile:
        return None
    return np.ascontiguousarray(resize_weights(step, tile) @ resize_weights(n, step), dtype=np.float32)


def _resize(frames: NDArray[np.uint8], step: tuple[int, int], tile: tuple[int, int]) -> NDArray[np.float32]:
    """uint8 [n, h, w, 3] to float32 [n, tile_h, tile_w, 3] in grey levels 0..255."""
    n, h, w, _ = frames.shape
    rows, columns = _axis(h, step[0], tile[0]), _axis(w, step[1], tile[1])
    out = frames.astype(np.float32)
    if rows is not None:
        out = np.matmul(rows, out.reshape(n, h, w * 3)).reshape(n, tile[0], w, 3)
    if columns is not None:
        out = np.matmul(columns, out.reshape(n * tile[0], w, 3)).reshape(n, tile[0], tile[1], 3)
    return out


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
        resized = _resize(camera, spec.camera_size, (height, width))
        resized += 0.5  # truncation towards zero is floor here: a convex combination of 0..255 stays in 0..255
        out[:, top : top + height, left : left + width] = np.minimum(resized, 255.5)
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
