"""How the images of a recording must move, by its camera matrices: what shows a mirrored or upside-down camera.

Classic files hold `extrinsic_cv` (world to camera, OpenCV axes: right, down, ahead) for every frame. A camera on an arm
sees a point ahead of it move against its own motion; a fixed one sees the end effector move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from converters.shared.hdf5 import dataset
from fwdata.api import BadEpisode, CameraClaim

if TYPE_CHECKING:
    import h5py

type Floats = NDArray[np.float64]

AHEAD = 0.3
"""Distance in m of the point that a moving camera is taken to look at; only the direction of its motion counts."""

STILL = 1e-3
"""Change of a matrix's entries (m, or a share of one) below which a camera stands still."""

NEAR = 0.05
"""Distance in m in front of a camera from which an end effector is seen."""

ALONE = 3.0
"""How many times further than the other one an end effector moves in the image, where its motion identifies it."""

LEAST_STEP, SEEN = 2e-3, 1.1
"""Motion in half sizes of the image from which an end effector moves, and how far from the middle it is seen."""

OBLONG, ALIKE = 0.05, 0.02
"""How far the sides of an image are apart at least, and two aspects at most that are the same."""

MOUNTED = ("left_camera", "right_camera")


def camera_claims(file: h5py.File, cameras: Sequence[str], rows: int) -> tuple[CameraClaim, ...]:
    """Cameras of a classic file whose motion its matrices tell, for `rows` rows; no others."""
    found = []
    for name in cameras:
        try:
            motion = _motion(file, name, rows)
            place = None if name in MOUNTED else _place(file, name, rows)
        except (BadEpisode, OSError, RuntimeError, ValueError):
            continue  # matrices are not stored: what is wrong with them does not matter
        told = motion.astype(np.float32) if motion is not None and np.isfinite(motion).all() else None
        if told is not None or place is not None:
            found.append(CameraClaim(name, mounted=name in MOUNTED, motion=told, place=place))
    return tuple(found)


def _motion(file: h5py.File, name: str, rows: int) -> Floats | None:
    """float64 [rows, 2], motion right and down from the row before; None where nothing tells it."""
    matrix = _values(file, f"observation/{name}/extrinsic_cv", (3, 4), rows)
    if matrix is None:
        return None
    turn, shift = matrix[:, :, :3], matrix[:, :, 3]
    if np.ptp(matrix, axis=0).max() > STILL:
        world = np.einsum("tji,tj->ti", turn, np.array([0.0, 0.0, AHEAD]) - shift)
        seen = np.einsum("tij,tj->ti", turn[1:], world[:-1]) + shift[1:]
        return np.concatenate([np.zeros((1, 2)), _flat(seen)])
    paths = [_flat(np.einsum("tij,tj->ti", turn, place) + shift) for place in _end_effectors(file, rows)]
    paths = [path for path in paths if np.isfinite(path).all()]
    if not paths:
        return None
    paths.sort(key=lambda path: -float(np.abs(np.diff(path, axis=0)).sum()))
    most, rest = paths[0], sum(float(np.abs(np.diff(path, axis=0)).sum()) for path in paths[1:])
    if float(np.abs(np.diff(most, axis=0)).sum()) <= ALONE * rest:
        return None
    return np.diff(most, axis=0, prepend=most[:1])


def check_upright(file: h5py.File, name: str, height: int, width: int) -> None:
    """BadEpisode where the images have the sides of their camera matrix's the other way round."""
    try:
        lens = _values(file, f"observation/{name}/intrinsic_cv", (3, 3), 1)
    except (BadEpisode, OSError, RuntimeError, ValueError):
        return
    if lens is None or not (lens[0, :2, 2] > 0).all():
        return
    across, down = (2 * lens[0, :2, 2]).tolist()
    if abs(across / down - 1) > OBLONG and abs((width / height) * (across / down) - 1) < ALIKE:
        raise BadEpisode(
            f"{name} has images of {height} x {width} pixels (height x width), its camera matrix (intrinsic_cv) is of "
            f"{down:.0f} x {across:.0f}: they were turned by 90 degrees; turn them back in the recordings"
        )


def _place(file: h5py.File, name: str, rows: int) -> NDArray[np.float32] | None:
    """float32 [rows, 2], where in a fixed camera's image the end effectors move, each as far as it does, from -1 to 1;
    NaN where none does, or out of sight."""
    matrix = _values(file, f"observation/{name}/extrinsic_cv", (3, 4), rows)
    lens = _values(file, f"observation/{name}/intrinsic_cv", (3, 3), rows)
    if matrix is None or lens is None or np.ptp(matrix, axis=0).max() > STILL:
        return None
    focus, middle = np.stack([lens[:, 0, 0], lens[:, 1, 1]], axis=1), lens[:, :2, 2]
    if not (focus > 0).all() or not (middle > 0).all():
        return None
    paths = []
    for path in _end_effectors(file, rows):
        seen = np.einsum("tij,tj->ti", matrix[:, :, :3], path) + matrix[:, :, 3]
        paths.append(_flat(seen) * focus / middle)
    if not paths:
        return None
    place, whole = np.zeros((rows, 2)), np.zeros(rows)
    for path in paths:
        step = np.nan_to_num(np.abs(np.diff(path, axis=0, prepend=path[:1])).sum(axis=1))
        place += step[:, None] * np.nan_to_num((path + np.roll(path, 1, axis=0)) / 2)
        whole += step
    place /= np.maximum(whole, 1e-12)[:, None]
    place[(whole < LEAST_STEP) | (np.abs(place) > SEEN).any(axis=1)] = np.nan
    found: NDArray[np.float32] = place.astype(np.float32)
    return found if np.isfinite(found).any() else None


def _flat(points: Floats) -> Floats:
    """Points [T, 3] as a camera sees them, [T, 2]: right and down, NaN behind it."""
    ahead = np.where(points[:, 2:] > NEAR, points[:, 2:], np.nan)
    flat: Floats = points[:, :2] / ahead
    return flat


def _end_effectors(file: h5py.File, rows: int) -> list[Floats]:
    """Places [rows, 3] of the left and of the right end effector, m."""
    poses = (_values(file, f"endpose/{side}_endpose", (7,), rows) for side in ("left", "right"))
    return [pose[:, :3] for pose in poses if pose is not None]


def _values(file: h5py.File, key: str, shape: tuple[int, ...], rows: int) -> Floats | None:
    node = dataset(file, key)
    if node is None or node.shape[1:] != shape or len(node) < rows or node.dtype.kind != "f":
        return None
    return np.asarray(node[:rows], np.float64)
