"""RoboTwin 2.0 HDF5 files: which variant one is, its joint rows and its cameras, read without trusting the file.

Every function raises BadEpisode naming the key and what was found.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from converters.shared.hdf5 import check_written, dataset, group_keys, open_recording
from fwdata.errors import BadEpisode

if TYPE_CHECKING:
    import h5py

type Variant = Literal["classic", "v1.0 native", "v1.0 converted", "v1.0 interim", "v1.0"]

GRIPPER_APART, GRIPPER_TOLERANCE = 0.5, 1e-3
"""Openings of a gripper (0 .. 1) from which two are not the same one, and up to which they are."""

MAX_FRAMES = 100_000
"""Most frames of one recording; the longest task has a limit of 1,700 steps."""
MAX_WIDTH = 64
MAX_PATH = 4096
MAX_TEXTS = 10_000
MAX_TEXT_BYTES = 16 << 20

CAMERA_NAMES = {
    "cam_head": "head_camera",
    "cam_left_wrist": "left_camera",
    "cam_right_wrist": "right_camera",
    "cam_third_view": "front_camera",
}
"""v1.0 camera names to the names of classic files, which the manifest uses."""


@dataclass(frozen=True)
class Motion:
    """Rows of one recording. Columns: left arm, left gripper, right arm, right gripper.

    Units: rad for joints, 0 closed .. 1 open for grippers.
    """

    state: NDArray[np.float32]
    """float32 [N, D], what was measured."""
    action: NDArray[np.float32]
    """float32 [N, D], targets that belong to the rows of `state`."""
    recorded: int
    """Rows of every array in the file; N or N + 1."""
    left: int
    """Joints of the left arm."""
    right: int
    """Joints of the right arm."""
    rule: str
    """How the actions came about, for the episode's metadata."""


def detect_variant(file: h5py.File) -> Variant:
    """Which writer made the file, from its content alone."""
    names = set(group_keys(file, ""))
    if "data_format_version" in names or {"state", "vision"} <= names:
        version = (texts(file, "data_format_version") or ["v1.0"])[0]
        if version != "v1.0":
            raise BadEpisode(f"data_format_version is {version[:40]!r}; known: 'v1.0' (and classic files without one)")
        native = file.attrs.get("source_path") in ("native_collection", b"native_collection")
        if "instruction" in names:
            return "v1.0 interim" if native else "v1.0 converted"
        return "v1.0 native" if native else "v1.0"
    if {"joint_action", "observation"} <= names:
        return "classic"
    raise BadEpisode(
        "not a RoboTwin recording: expected joint_action and observation (classic) or data_format_version (v1.0), "
        f"found {', '.join(sorted(names)[:8]) or 'nothing'}"
    )


def texts(file: h5py.File, key: str) -> list[str] | None:
    """A scalar or 1-D string dataset as a list; None where it is absent. BadEpisode when it is no UTF-8 text."""
    import h5py

    node = dataset(file, key)
    if node is None:
        return None
    kind = h5py.check_string_dtype(node.dtype)
    if kind is None or node.ndim > 1:
        raise BadEpisode(f"{key} must be text, found {node.dtype} of shape {node.shape}")
    if node.size > MAX_TEXTS or (kind.length or 0) * node.size > MAX_TEXT_BYTES:
        raise BadEpisode(f"{key} holds {node.size} strings of {kind.length or 'any'} bytes, more than is plausible")
    values = np.atleast_1d(node[()]).tolist()
    try:
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    except UnicodeDecodeError as error:
        raise BadEpisode(f"{key} is not UTF-8 text: {error}") from None


def frequency(file: h5py.File) -> float | None:
    """The rate label of v1.0 files (the number of physics steps per image, not the true rate)."""
    node = dataset(file, "additional_info/frequency")
    if node is None or node.size != 1 or node.dtype.kind not in "iuf":
        return None
    value = float(np.asarray(node[()]).reshape(-1)[0])
    return value if np.isfinite(value) else None


def source_folders(path: Path) -> tuple[str, ...]:
    """`made_from` of a file; () where it cannot be read."""
    try:
        with open_recording(path) as file:
            return made_from(file)
    except BadEpisode:
        return ()


def made_from(file: h5py.File) -> tuple[str, ...]:
    """Folder names of the file that a converted one was made from, by its attribute `source_path`; () where none is
    told. The path is of another machine and never followed."""
    value = file.attrs.get("source_path")
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > MAX_PATH:
        return ()
    return tuple(name for name in text.replace("\\", "/").split("/")[:-1] if name)


MOST_BEHIND, FEWEST_EQUAL = 40, 10
"""Rows by which actions may be late to be told so, and rows that must show it, where they are more than one late."""


def _rows_behind(action: NDArray[np.float32], state: NDArray[np.float32]) -> int:
    """By how many rows the action is an earlier state throughout; 0 where by none. Both [T, D]."""
    rows = len(state)
    for behind in range(1, min(MOST_BEHIND, rows - 1) + 1):
        told = action[behind:]
        moves = behind == 1 or (len(told) >= FEWEST_EQUAL and np.ptp(told, axis=0).any())
        if moves and np.array_equal(told, state[:-behind]):
            return behind
    return 0


def _in_degrees(action: NDArray[np.float32], reached: NDArray[np.float32]) -> str:
    """Which of both is in degrees where the other one is the same in rad, grippers aside; empty where neither is."""
    equal = np.isclose(action, reached, rtol=1e-3, atol=1e-4).all(axis=0)
    for name, one, other in (("state", reached, action), ("action", action, reached)):
        same = np.isclose(np.radians(one), other, rtol=1e-3, atol=1e-4).all(axis=0)
        if (same & ~equal).any() and (same | equal).all():
            return name
    return ""


def read_motion(file: h5py.File, variant: Variant, recorded_targets: bool = False) -> Motion:
    """State and action rows, every array of joints, grippers and poses checked for its length.

    Classic files hold T recorded rows v: state = v[:-1], action = v[1:]. v1.0 files hold both; rows where action equals
    state throughout are turned into the same form. recorded_targets: keep the actions of v1.0 files as they are.
    """
    if recorded_targets and variant == "classic":
        raise BadEpisode(
            "option actions is recorded, but classic files hold no actions besides their joint targets; leave the "
            "option out, or convert them to a store of their own (--exclude, --only)"
        )
    if variant == "classic":
        rows, left, right = _joint_rows(file, "joint_action", _CLASSIC)
        _check_lengths(file, ("endpose/left_endpose", "endpose/right_endpose"), len(rows), "joint_action")
        _check_lengths(file, ("endpose/left_gripper", "endpose/right_gripper"), len(rows), "joint_action")
        for side, column in (("left", left), ("right", left + right + 1)):
            _check_gripper(file, side, rows[:, column])
        if len(rows) < 2:
            raise BadEpisode(f"too short: {len(rows)} recorded frame(s) give no state with an action, 2 are needed")
        return Motion(rows[:-1], rows[1:], len(rows), left, right, "state = row t, action = row t + 1")
    state, left, right = _joint_rows(file, "state", _V1)
    action, *arms = _joint_rows(file, "action", _V1)
    if arms != [left, right] or len(action) != len(state):
        raise BadEpisode(
            f"action is {action.shape} with arms of {arms} joints, state {state.shape} with {[left, right]}"
        )
    for side in ("left", "right"):
        _check_lengths(file, (f"state/{side}_ee_poses", f"action/{side}_ee_poses"), len(state), "state")
    if len(state) < 1:
        raise BadEpisode("too short: state has no rows")
    recorded = len(state)
    if recorded_targets:
        return Motion(state, action, recorded, left, right, "as stored (recorded targets, option actions)")
    if np.array_equal(action[:-1], state[1:]):
        return Motion(state, action, recorded, left, right, "as stored (action = next row's state)")
    behind = 0 if np.array_equal(action, state) else _rows_behind(action, state)
    if behind:
        raise BadEpisode(
            f"action row t is the state of row t - {behind} throughout: "
            f"{'the rows are in reverse order, or ' * (behind == 1)}the actions are {behind + 1} rows late; put them "
            "in order, or leave the recording out (--exclude)"
        )
    if len(state) > 1 and not behind and (other := _in_degrees(action[:-1], state[1:])):
        raise BadEpisode(
            f"{other} is in degrees, {'state' if other == 'action' else 'action'} in rad: the action of a row is "
            "the next row's state but for that; bring both to rad (degrees times pi / 180), or leave the recording out "
            "(--exclude)"
        )
    if not np.array_equal(action, state):
        row = int(np.flatnonzero((action[:-1] != state[1:]).any(axis=1))[0])
        raise BadEpisode(
            f"action row {row} is neither state row {row + 1} nor (throughout the file) the same row's state; option "
            "actions = recorded keeps such targets as they are"
        )
    return Motion(
        state[:-1], state[1:], recorded, left, right, "rebuilt: action equalled state, now the next row's state"
    )


_CLASSIC = (("left_arm", "left_gripper", "right_arm", "right_gripper"), "vector")
_V1 = (
    ("left_arm_joint_states", "left_ee_joint_states", "right_arm_joint_states", "right_ee_joint_states"),
    "joint_states",
)


def _joint_rows(
    file: h5py.File, group: str, names: tuple[tuple[str, ...], str]
) -> tuple[NDArray[np.float32], int, int]:
    """(rows float32 [T, D], joints of the left arm, of the right arm); the joined vector must equal its parts."""
    parts = {name: _numbers(file, f"{group}/{name}") for name in names[0]}
    lengths = {name: len(part) for name, part in parts.items()}
    if len(set(lengths.values())) > 1:
        raise BadEpisode(f"{group} has arrays of different length: {', '.join(f'{n} {k}' for n, k in lengths.items())}")
    for name in (names[0][1], names[0][3]):
        if parts[name].shape[1] != 1:
            raise BadEpisode(f"{group}/{name} must hold one value per frame, found shape {parts[name].shape}")
    joined = np.concatenate(list(parts.values()), axis=1)
    if dataset(file, f"{group}/{names[1]}") is not None:
        vector = _numbers(file, f"{group}/{names[1]}")
        if len(vector) != len(joined) or vector.shape != joined.shape:
            raise BadEpisode(f"{group}/{names[1]} is {vector.shape}, its parts make {joined.shape}")
        coarser = min(vector.dtype, joined.dtype, key=lambda dtype: dtype.itemsize)  # one may be cast from the other
        wrong = vector.astype(coarser) != joined.astype(coarser)
        wrong &= ~(np.isnan(vector) & np.isnan(joined))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            found, part = vector[row, column], joined[row, column]
            raise BadEpisode(
                f"{group}/{names[1]} disagrees with its parts at frame {row}, column {column}: {found} != {part}"
            )
    with np.errstate(over="ignore"):
        rows = joined.astype(np.float32)
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise BadEpisode(f"{group} is not finite at frame {row}, column {column}: {joined[row, column]}")
    return rows, parts[names[0][0]].shape[1], parts[names[0][2]].shape[1]


def _numbers(file: h5py.File, key: str) -> NDArray[Any]:
    """A float array [T, n]; 1-D arrays become one column."""
    node = dataset(file, key)
    if node is None:
        found = ", ".join(group_keys(file, key.rpartition("/")[0])[:12]) or "nothing"
        raise BadEpisode(f"{key} is missing (found {found}); give its dataset that name")
    kinds = "fiu" if key.endswith(("gripper", "_ee_joint_states")) else "f"  # angles cut to integers are lost
    if node.dtype.kind not in kinds or node.ndim not in (1, 2):
        raise BadEpisode(
            f"{key} must be floating-point numbers of shape (frames, n), found {node.dtype} of shape {node.shape}"
        )
    if node.shape[0] > MAX_FRAMES or (node.ndim == 2 and not 0 < node.shape[1] <= MAX_WIDTH):
        raise BadEpisode(f"{key} has shape {node.shape}; at most ({MAX_FRAMES}, {MAX_WIDTH}) is plausible")
    check_written(node, key)
    values: NDArray[Any] = node[()]
    return values.reshape(len(values), -1) if len(values) else np.zeros((0, 1 if node.ndim == 1 else node.shape[1]))


def _check_lengths(file: h5py.File, keys: tuple[str, ...], rows: int, what: str) -> None:
    for key in keys:
        node = dataset(file, key)
        if node is not None and (node.ndim < 1 or node.shape[0] != rows):
            raise BadEpisode(f"{key} has shape {node.shape}, but {what} has {rows} rows")


def _check_gripper(file: h5py.File, side: str, values: NDArray[np.float32]) -> None:
    """BadEpisode where a classic file holds a gripper's opening, float32 [T], twice: reversed, or still."""
    key = f"endpose/{side}_gripper"
    node = dataset(file, key)
    if node is None or node.shape != values.shape or node.dtype.kind not in "fiu" or not len(values):
        return
    other = np.asarray(node[()], np.float32)
    apart = np.abs(other - values)
    if not np.isfinite(other).all() or apart.max() < GRIPPER_APART:
        return
    reverse = float(np.abs(other - (1 - values)).max()) <= GRIPPER_TOLERANCE
    if reverse or np.ptp(values) == 0 < np.ptp(other):
        row = int(apart.argmax())
        what = "one is 1 minus the other" if reverse else f"joint_action/{side}_gripper never changes"
        raise BadEpisode(
            f"{key} disagrees with joint_action/{side}_gripper at frame {row}: {other[row]:g} != {values[row]:g}, "
            f"{what}; correct the one that is wrong, or remove endpose/{side}_gripper"
        )


def camera_keys(file: h5py.File, variant: Variant) -> dict[str, str]:
    """Dataset key of every camera's images, by classic camera name; groups without images are left out."""
    keys: dict[str, str] = {}
    group, name = ("observation", "rgb") if variant == "classic" else ("vision", "colors")
    for camera in group_keys(file, group):
        if name in group_keys(file, f"{group}/{camera}"):
            keys[CAMERA_NAMES.get(camera, camera)] = f"{group}/{camera}/{name}"
    return keys


def joint_digest(path: Path) -> str | None:
    """sha256 of the recorded joint rows, equal for every variant of one recording; None when it cannot be read."""
    try:
        with open_recording(path) as file:
            motion = read_motion(file, detect_variant(file))
    except BadEpisode:
        return None
    rows = np.concatenate([motion.state, motion.action[-1:]])
    return hashlib.sha256(str(rows.shape).encode() + rows.tobytes()).hexdigest()
