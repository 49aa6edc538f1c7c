"""How LIBERO's stored frames are turned so that they lie as the policy sees them, decided for each camera.

The simulator writes row 0 at the bottom of the image (`opengl`), so raw frames of both cameras are upside down.
Fast-WAM, OpenVLA, openpi and LeRobot rotate both by 180 degrees, in training and evaluation, which leaves them upright
but mirrored; a vertical flip would be the true view. Regenerated files carry no attribute: openvla's hold frames as
recorded, any4lerobot's are rotated already. Two things in the frames tell them apart. The gripper is a plain dark band
that fills the top 15 % of `eye_in_hand_rgb` as recorded, and the bottom once it is upright. What moves in
`agentview_rgb` moves with the end effector: rotated by 180 degrees it goes up when the arm rises, and left when the arm
goes towards +y.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator

from converters.libero.cameras import WRIST, Operation, image_dataset
from converters.libero.neighbours import kept_of_file
from converters.shared.hdf5 import dataset, in_one_piece
from fwdata.errors import BadEpisode

if TYPE_CHECKING:
    import h5py

type Rotation = Literal["auto", "rot180", "flip_vertical", "mirror", "none"]
type Band = Literal["top", "bottom", "unclear", "absent"]

FIXED = "agentview_rgb"

BAND_SHARE = 0.15
BAND_GREY = (15.0, 150.0)
BAND_TINT, BAND_EVEN = 8, 12
BAND_FILLED, BAND_CLEAR = 0.9, 0.5
BAND_FRAMES = 9
BAND_BYTES = 8 << 20
"""Frames that are looked at in one go."""
OTHER_DEMOS = 5

MOTION_FRAMES, MOTION_ROWS = 48, 24
"""Frames of a demonstration that are compared, and the fewest rows it must have."""
MOTION_WIDTH = 64
MOTION_LEVEL = 8.0
"""Grey levels below which a change is noise of the coding."""
MOTION_TRAVEL = 0.05
"""Metres that the end effector must travel along y and z."""
MOTION_SIDE, MOTION_UP = 0.8, 0.6
"""Least correlations: 0.99 sideways and 0.84 upwards were measured on raw frames. The row must also follow the height
better than the other axes: a camera that looks straight down shows no height, but one of them."""

_MEANT: dict[tuple[int, int], Operation] = {
    (1, 1): "rot180",
    (-1, 1): "mirror",
    (1, -1): "flip_vertical",
    (-1, -1): "none",
}
"""(sign of row against z, of column against y) -> what turns such frames to a rotation by 180 degrees of raw ones."""


def _spelt_out(value: object) -> object:
    """`image=rot180,wrist_image=none` as a mapping; anything else as it is."""
    pairs = [part.partition("=") for part in re.split(r"[,\s]+", value.strip())] if isinstance(value, str) else []
    if not pairs or not all(mark for _, mark, _ in pairs):
        return value
    named = [name for name, _, _ in pairs]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"names {twice} more than once")
    return {name: turn for name, _, turn in pairs}


type RotationOption = Annotated[Rotation | dict[str, Rotation], BeforeValidator(_spelt_out)]
"""One rotation for every camera, or one by camera ("auto" for those not named)."""


@dataclass(frozen=True)
class Orientation:
    """How the frames of one demonstration are turned."""

    operations: Mapping[str, Operation]
    """What is done to the stored frames of each camera."""
    decided_by: str
    """What decided it."""
    band: Band
    """Where the gripper was in the stored frames of the wrist camera."""
    warnings: tuple[str, ...] = ()
    """Sentences for the user."""

    @property
    def spelt(self) -> str:
        """The operations as text: one, or `image=rot180,wrist_image=none` where they differ."""
        if len(set(self.operations.values())) == 1:
            return next(iter(self.operations.values()))
        return ",".join(f"{name}={operation}" for name, operation in self.operations.items())


@dataclass(frozen=True)
class _Decision:
    """What is done to all cameras of a file unless one of them tells otherwise."""

    operation: Operation
    decided_by: str
    warning: str | None = None


def rotation_of(option: Rotation | dict[str, Rotation], camera: str) -> Rotation:
    """What the option says about one camera."""
    return option.get(camera, "auto") if isinstance(option, dict) else option


def orient(
    file: h5py.File,
    demo: str,
    demos: Sequence[str],
    convention: str | None,
    option: Rotation | dict[str, Rotation],
    image_keys: Mapping[str, str],
) -> Orientation:
    """Decide how a demonstration's frames are turned.

    The option decides; with "auto" the attribute `macros_image_convention`, then the gripper's place in this
    demonstration or another one of the file, then the motion in the fixed camera, then the default rot180, with a
    warning. In files without the attribute the fixed camera's motion also decides that camera alone where it differs.
    BadEpisode when attribute and frames contradict each other. images: camera -> dataset name in `obs`. Cost: reads
    at most nine frames of a few demonstrations, and once for every file without the attribute 48 of one.
    """
    band = gripper_band(file, demo)
    forced: dict[str, Operation] = {}
    for name in image_keys:
        wanted = rotation_of(option, name)
        if wanted != "auto":
            forced[name] = wanted
    warnings = [
        _forced_warning(forced[name], band) for name, key in image_keys.items() if key == WRIST and name in forced
    ]
    if len(forced) == len(image_keys):
        return Orientation(forced, "option rotation", band, tuple(filter(None, warnings)))
    moved = None if convention in ("opengl", "opencv") else fixed_camera(file, demos)
    decision = _decide(file, demo, demos, convention, band, moved)
    operations = {name: forced.get(name, decision.operation) for name in image_keys}
    warnings.append(decision.warning)
    for name, key in image_keys.items():
        if key == FIXED and name not in forced and moved not in (None, decision.operation):
            moved = _fixed_camera_of(file, demo) or moved  # a file of several kinds of demonstrations
            assert moved is not None
            if moved == decision.operation:
                continue
            operations[name] = moved
            warnings.append(
                f"the cameras are turned differently: {decision.operation} by {decision.decided_by}, but {moved} for "
                f"{FIXED} by what moves in it; check with fwdata preview, option rotation sets each camera"
            )
    by = decision.decided_by + (f"; option rotation for {', '.join(forced)}" if forced else "")
    return Orientation(operations, by, band, tuple(filter(None, warnings)))


def _forced_warning(operation: Operation, band: Band) -> str | None:
    upright: dict[Band, tuple[Operation, ...]] = {"top": ("rot180", "flip_vertical"), "bottom": ("none", "mirror")}
    if operation in upright.get(band, (operation,)):
        return None
    return (
        f"rotation {operation} is forced, but leaves the gripper at the top of {WRIST}, where frames as the policy "
        "sees them have it at the bottom"
    )


def _decide(
    file: h5py.File, demo: str, demos: Sequence[str], convention: str | None, band: Band, moved: Operation | None
) -> _Decision:
    if convention in ("opengl", "opencv"):
        return _by_attribute(convention, band)
    decision = _by_content(band, WRIST)
    for other in [name for name in demos if name != demo][:OTHER_DEMOS]:
        if decision is not None:
            return decision
        decision = _by_content(_band_of_other(file, other), f"{WRIST} in {other}")
    if decision is not None:
        return decision
    if moved in ("rot180", "none"):
        return _Decision(moved, f"content: what moves in {FIXED} moves as in frames that need {moved}")
    return _Decision(
        "rot180",
        "default: frames taken as the simulator records them",
        f"nothing tells how the frames are turned (no attribute macros_image_convention, gripper {band} in {WRIST}); "
        "taken as recorded and rotated by 180 degrees; look at them, and set option rotation if they are upside down",
    )


def _by_attribute(convention: str, band: Band) -> _Decision:
    expected: Band = "top" if convention == "opengl" else "bottom"
    if band in ("top", "bottom") and band != expected:
        raise BadEpisode(
            f"macros_image_convention is {convention!r}, but the gripper is at the {band} of {WRIST}, where such "
            f"frames have it at the {expected}; look at the frames and set option rotation"
        )
    operation: Operation = "rot180" if convention == "opengl" else "mirror"
    return _Decision(operation, f"attribute macros_image_convention = {convention}")


def _by_content(band: Band, where: str) -> _Decision | None:
    if band == "top":
        return _Decision("rot180", f"content: gripper at the top of {where}, as recorded")
    if band == "bottom":
        return _Decision("none", f"content: gripper at the bottom of {where}, taken as rotated already")
    return None


def _band_of_other(file: h5py.File, demo: str) -> Band:
    """As `gripper_band`; a damaged demonstration tells nothing about its neighbours. Kept until the file changes."""
    return kept_of_file(file, _other_band, demo)


def _other_band(file: h5py.File, demo: str) -> Band:
    try:
        return gripper_band(file, demo)
    except (BadEpisode, OSError, RuntimeError, KeyError, ValueError):
        return "unclear"


def gripper_band(file: h5py.File, demo: str) -> Band:
    """Where the gripper is in the stored wrist images of a demonstration, by up to 9 frames spread over it."""
    node = dataset(file, f"data/{demo}/obs/{WRIST}")
    if node is None or node.ndim != 4 or node.shape[3:] != (3,) or node.dtype != np.uint8 or not node.size:
        return "absent"
    rows = int(node.shape[0])
    image_dataset(file, f"data/{demo}/obs/{WRIST}", rows)  # refuses absurd sizes
    looked_at = sorted({round(row) for row in np.linspace(0, rows - 1, BAND_FRAMES)})
    at_once = max(1, BAND_BYTES // (node.size // rows))
    votes: list[Band] = []
    for first in range(0, len(looked_at), at_once):
        votes += bands_of(_ends(node, looked_at[first : first + at_once]))
    sides: tuple[tuple[Band, Band], ...] = (("top", "bottom"), ("bottom", "top"))
    for side, other in sides:
        if 2 * votes.count(side) > len(votes) and 4 * votes.count(other) <= len(votes):
            return side
    return "unclear"


def _ends(node: h5py.Dataset, looked_at: Sequence[int]) -> NDArray[np.uint8]:
    """The top and the bottom of some of the frames that a dataset holds, for `bands_of`."""
    sides = int(node.shape[1])
    height = max(1, int(BAND_SHARE * sides))
    if in_one_piece(node):
        with suppress(OSError, RuntimeError, ValueError):  # then reading the whole frame says what is wrong
            return np.stack([node[row, low : low + height] for row in looked_at for low in (0, sides - height)])
    frames = (node[row] for row in looked_at)
    return np.stack([rows for frame in frames for rows in (frame[:height], frame[-height:])])


def bands_of(ends: NDArray[np.uint8]) -> list[Band]:
    """Where the plain grey band is in each of n images, by uint8 [2 n, h, W, 3]: top and bottom of one after another.

    It is where the share of pixels that are colourless and of nearly the median grey is BAND_FILLED or more, and at
    most BAND_CLEAR at the other end; no pixel counts where the median is black or light. The share of the colourless
    ones alone, which is never less, mostly tells that already, without a median.
    """
    values = ends.reshape(-1)  # of three values that follow each other, every third triple is a pixel
    one, two, three = values[:-2], values[1:-1], values[2:]
    high = np.maximum(np.maximum(one, two), three)[::3].reshape(len(ends), -1)
    low = np.minimum(np.minimum(one, two), three)[::3].reshape(len(ends), -1)
    plain = high - low <= BAND_TINT
    most = (np.count_nonzero(plain, axis=1) / plain.shape[1]).tolist()
    bands: list[Band] = []
    for at in range(0, len(ends), 2):
        if max(most[at : at + 2]) < BAND_FILLED:
            bands.append("unclear")
            continue
        top, bottom = (most[i] if most[i] <= BAND_CLEAR else _even_share(high[i], plain[i]) for i in (at, at + 1))
        if top >= BAND_FILLED and bottom <= BAND_CLEAR:
            bands.append("top")
        else:
            bands.append("bottom" if bottom >= BAND_FILLED and top <= BAND_CLEAR else "unclear")
    return bands


def _even_share(high: NDArray[np.uint8], plain: NDArray[np.bool_]) -> float:
    """Share of pixels that are plain and of nearly the median grey; 0 where that is black or light. high: their
    largest colours uint8 [P]."""
    ordered = np.sort(high, kind="stable")  # by counting, a fraction of what np.median takes
    middle = (int(ordered[(len(high) - 1) // 2]) + int(ordered[len(high) // 2])) / 2
    if not BAND_GREY[0] <= middle <= BAND_GREY[1]:
        return 0.0
    even = (high >= math.ceil(middle - BAND_EVEN)) & (high <= math.floor(middle + BAND_EVEN))
    return np.count_nonzero(even & plain) / len(high)


def fixed_camera(file: h5py.File, demos: Sequence[str]) -> Operation | None:
    """What turns the fixed camera's frames, by the first of the file's demonstrations that tells it; None if none does.

    The same for every demonstration of a file, and kept until the file changes.
    """
    told = (kept_of_file(file, _fixed_camera_of, demo) for demo in demos[:OTHER_DEMOS])
    return next((found for found in told if found is not None), None)


def _fixed_camera_of(file: h5py.File, demo: str) -> Operation | None:
    """What turns the fixed camera's frames of one demonstration; None where it does not tell."""
    try:
        return _turned_by_motion(file, f"data/{demo}/obs")
    except (BadEpisode, OSError, RuntimeError, KeyError, ValueError):
        return None  # reading that demonstration says what is wrong with it


def _turned_by_motion(file: h5py.File, where: str) -> Operation | None:
    """Centre of what changes between frames against the end effector's position in m."""
    position = dataset(file, f"{where}/ee_states") or dataset(file, f"{where}/ee_pos")
    if position is None or position.ndim != 2 or position.shape[1] < 3 or len(position) < MOTION_ROWS:
        return None
    at = np.unique(np.linspace(0, len(position) - 1, MOTION_FRAMES).round().astype(np.int64))
    place = np.asarray(position[()], np.float64)[at, :3]
    place = (place[1:] + place[:-1]) / 2
    if np.ptp(place[:, 1:], axis=0).min() < MOTION_TRAVEL:
        return None
    grey = _grey_frames(image_dataset(file, f"{where}/{FIXED}", len(position)), at)
    change = np.diff(grey, axis=0)
    np.abs(change, out=change)
    change[change < MOTION_LEVEL] = 0
    total = change.sum(axis=(1, 2))
    seen = total > 0
    if seen.sum() < MOTION_ROWS // 2:
        return None
    row = (change.sum(axis=2) @ np.arange(change.shape[1]))[seen] / total[seen]
    column = (change.sum(axis=1) @ np.arange(change.shape[2]))[seen] / total[seen]
    if min(row.std(), column.std()) < 1e-6:
        return None
    followed = [float(np.corrcoef(row, place[seen, axis])[0, 1]) for axis in range(3)]
    up, side = followed[2], float(np.corrcoef(column, place[seen, 1])[0, 1])
    if abs(up) < max(MOTION_UP, *map(abs, followed[:2])) or abs(side) < MOTION_SIDE:
        return None
    return _MEANT[int(np.sign(up)), int(np.sign(side))]


def _grey_frames(node: h5py.Dataset, at: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [n, h, w]: the mean colours of some frames, of every pixel where they are not much wider than
    MOTION_WIDTH, else of every second, third, .. one."""
    step = max(1, int(node.shape[2]) // MOTION_WIDTH)
    height, width = (-(-int(size) // step) for size in node.shape[1:3])
    total = np.empty((len(at), height, width), np.uint16)
    whole = in_one_piece(node)  # HDF5 takes several times as long to pick pixels as to read them all
    for index, row in enumerate(at.tolist()):
        frame = node[row][::step, ::step] if whole else node[row, ::step, ::step]
        np.add(frame[..., 0], frame[..., 1], out=total[index], dtype=np.uint16)
        total[index] += frame[..., 2]
    grey: NDArray[np.float64] = total / 3
    return grey
