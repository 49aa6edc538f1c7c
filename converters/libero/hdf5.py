"""LIBERO HDF5 files: attributes, demonstrations and their rows, read without trusting the file.

    /data                        attributes in raw files, none in regenerated ones
    /data/demo_<i>               actions, states, robot_states, rewards, dones; regenerated files have gaps in i
    /data/demo_<i>/obs           agentview_rgb, eye_in_hand_rgb, ee_states, ee_pos, ee_ori, gripper_states, joint_states

Layout: LIBERO scripts/create_dataset.py, and the no-ops regeneration of openvla and any4lerobot.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from converters.libero.text import bddl_language, language_instruction, parse_json
from converters.shared.hdf5 import check_written, dataset, find, group_keys
from fwdata.errors import BadEpisode

if TYPE_CHECKING:
    import h5py

type Timing = Literal["after_action", "before_action"]

MAX_ROWS = 100_000
"""Most rows of one demonstration; the longest published one has 505."""
MAX_WIDTH = 4096
MAX_ATTRIBUTE_BYTES = 4 << 20

REPLAY = "fwdata regenerate libero RAW --suite SUITE --out FOLDER (docs/LIBERO.md), then convert that folder"
"""What makes observations for files without usable ones."""

ROW_KEYS = ("actions", "states", "robot_states", "rewards", "dones")
LOW_DIM_OBS = ("ee_states", "ee_pos", "ee_ori", "gripper_states", "joint_states")
STATE_NAMES = (
    *(f"eef_position_{axis}" for axis in "xyz"),
    *(f"eef_axis_angle_{axis}" for axis in "xyz"),
    "finger_1",
    "finger_2",
)
ACTION_NAMES = (*(f"delta_position_{axis}" for axis in "xyz"), *(f"delta_rotation_{axis}" for axis in "xyz"), "gripper")

TARGET_NAMES = (
    *(f"target_position_{axis}" for axis in "xyz"),
    *(f"target_rotation_{axis}" for axis in "xyz"),
    "gripper",
)
"""Action names where they are absolute targets."""

_DEMO = re.compile(r"demo_([0-9]{1,9})")
SAME = 1e-5
"""Largest difference of two copies of a number, one of which was cast to float32."""

_TIMING_RATIO = 3.0
_TIMING_MOTION = 1e-4


@dataclass(frozen=True)
class Attributes:
    """What the attributes of `/data` say; None where they do not. Stale paths in them are never followed."""

    present: bool
    """Whether there are any; only raw files have them."""
    image_convention: str | None = None
    """Declared row order of the images: "opengl" (bottom row first), "opencv" or another word."""
    problem_info: str | None = None
    """Instruction text of the benchmark's problem."""
    unread: bool = False
    """Whether there is a problem_info that cannot be read, or tells no instruction."""
    bddl: str | None = None
    """Instruction text of the BDDL problem definition."""
    control_freq: float | None = None
    """Declared control rate, Hz."""
    robot: str | None = None
    """The recorder's robot."""
    num_demos: int | None = None
    """Declared number of demonstrations."""
    total: int | None = None
    """Declared rows of all demonstrations."""


@dataclass(frozen=True)
class Demo:
    """Rows of one demonstration as recorded, all of the same length T."""

    state: NDArray[np.float64]
    """float64 [T, 8]: end effector position (m) and axis-angle (rad), two finger joints (m)."""
    actions: NDArray[np.float64]
    """float64 [T, 7]: position and rotation deltas, gripper command."""
    timing: Timing
    """Whether observation t is from before or after action t."""
    timing_source: str
    """How `timing` was found, for the episode's metadata."""
    unused: tuple[str, ...]
    """Names in `obs` that are neither state nor known."""
    joints: NDArray[np.float64] | None = None
    """float64 [T, 7], arm joints in rad; None where the file has none."""
    times: NDArray[np.float64] | None = None
    """float64 [T], column 0 of `states`, which is the simulator's time in s; None where the file has none."""


@dataclass(frozen=True)
class Commands:
    """What a replay of one demonstration needs; never its images."""

    actions: NDArray[np.float64]
    """float64 [T, 7], as recorded."""
    states: NDArray[np.float64]
    """float64 [T, S], simulator states (time, positions, velocities) from before every action."""
    robot_state: NDArray[np.float64] | None
    """float64 [9], the first row of `robot_states`; None where the file has none."""


def read_attributes(file: h5py.File) -> Attributes:
    """The attributes of `/data`; values that cannot be read count as absent."""
    node = find(file, "data")
    names = set(node.attrs) if node is not None else set[str]()
    if node is None or not names:
        return Attributes(present=False)
    values = parse_json(text_attribute(node, "env_args"))
    arguments = values.get("env_kwargs")
    arguments = arguments if isinstance(arguments, dict) else {}
    rate, robots = arguments.get("control_freq"), arguments.get("robots")
    robot = robots[0] if isinstance(robots, list) and robots else robots
    told = language_instruction(text_attribute(node, "problem_info"))
    return Attributes(
        present=True,
        image_convention=text_attribute(node, "macros_image_convention"),
        problem_info=told,
        unread="problem_info" in names and told is None,
        bddl=bddl_language(text_attribute(node, "bddl_file_content")),
        control_freq=float(rate) if isinstance(rate, int | float) and not isinstance(rate, bool) else None,
        robot=robot if isinstance(robot, str) else None,
        num_demos=integer_attribute(node, "num_demos"),
        total=integer_attribute(node, "total"),
    )


def attribute(node: h5py.Group, name: str) -> Any:
    """An attribute as a plain scalar; None where it is absent, unreadable, implausibly large or no scalar."""
    value = _attribute(node, name)
    if isinstance(value, np.ndarray):
        return value.reshape(-1)[0] if value.size == 1 else None
    return value


def _attribute(node: h5py.Group, name: str) -> Any:
    """The same as h5py gives it, arrays too."""
    if name not in node.attrs:
        return None
    try:
        if node.attrs.get_id(name).get_storage_size() > MAX_ATTRIBUTE_BYTES:
            return None
        return node.attrs[name]
    except (OSError, TypeError, ValueError, RuntimeError):
        return None


def text_attribute(node: h5py.Group, name: str) -> str | None:
    """An attribute as text, from text or bytes of UTF-8, or UTF-16 with its mark; None where it is none."""
    value = _attribute(node, name)
    if isinstance(value, np.ndarray):
        bytes_in_turn = value.ndim == 1 and value.size > 1 and value.dtype in (np.uint8, np.int8)
        value = value.tobytes() if bytes_in_turn else attribute(node, name)
    try:
        if isinstance(value, np.void):
            value = value.tobytes()
        if isinstance(value, bytes):
            marked = value.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            return value.decode("utf-16" if marked else "utf-8-sig").rstrip("\0")
        return value.encode().decode("utf-8-sig") if isinstance(value, str) else None
    except UnicodeError:
        return None


def integer_attribute(node: h5py.Group, name: str) -> int | None:
    """An integer attribute; None where it is absent or something else."""
    value = attribute(node, name)
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def demo_names(file: h5py.File) -> list[str]:
    """Names of the demonstrations by their number (byte order would put demo_10 before demo_2); others are ignored."""
    found = [(int(match[1]), name) for name in group_keys(file, "data") if (match := _DEMO.fullmatch(name))]
    return [name for _, name in sorted(found)]


def has_actions(file: h5py.File, path: str) -> bool:
    """Whether a group holds actions; not where a link leads out of the file: what is there is not ours."""
    import h5py

    try:
        node = find(file, path)
    except BadEpisode:
        return False
    return isinstance(node, h5py.Group) and "actions" in node


def other_names(file: h5py.File) -> list[str]:
    """Names of other groups that hold actions (`demo_1_success`, `episode_2`), by the numbers in them."""
    names = (name for name in group_keys(file, "data") if not _DEMO.fullmatch(name))
    found = [name for name in names if has_actions(file, f"data/{name}")]
    return sorted(found, key=lambda name: ([int(n) for n in re.findall(r"[0-9]{1,9}", name)], name))


def demo_number(name: str) -> int | None:
    """3 for `demo_3`, `demo_3_success` and `episode_3`; None for a name without a number."""
    number = re.search(r"[0-9]{1,9}", name)
    return int(number[0]) if number else None


def read_masks(file: h5py.File) -> dict[str, tuple[str, ...] | None]:
    """Demonstrations of every filter in the group `mask`; None for one that does not hold names."""
    masks: dict[str, tuple[str, ...] | None] = {}
    for key in group_keys(file, "mask"):
        masks[key] = None
        try:
            node = dataset(file, f"mask/{key}")
            if node is None or node.ndim != 1 or node.size > MAX_ROWS or (node.size and node.dtype.kind not in "SO"):
                continue
            names = [value.decode() if isinstance(value, bytes) else str(value) for value in node[()].tolist()]
        except (BadEpisode, OSError, RuntimeError, ValueError):
            continue
        masks[key] = tuple(names)
    return masks


def demo_size(file: h5py.File, name: str, obs: Sequence[str]) -> tuple[int, int]:
    """(rows, stored bytes of actions and images) without reading any; (0, 0) where something is wrong with it."""
    try:
        nodes = [dataset(file, f"data/{name}/{key}") for key in ("actions", *(f"obs/{key}" for key in obs))]
        rows = nodes[0].shape[0] if nodes[0] is not None and nodes[0].ndim else 0
        return int(rows), sum(int(node.id.get_storage_size()) for node in nodes if node is not None)
    except (BadEpisode, OSError, RuntimeError, KeyError, ValueError):
        return 0, 0


def read_demo(file: h5py.File, name: str, image_keys: Mapping[str, str], layout_timing: Timing) -> Demo:
    """State and action rows of one demonstration.

    image_keys: dataset name in `obs` of every camera that is used. layout_timing: assumed where the content does not
    tell it. BadEpisode for missing keys, wrong shapes, unequal lengths and numbers that are not finite.
    """
    import h5py

    where = f"data/{name}"
    if not isinstance(find(file, where), h5py.Group):
        raise BadEpisode(f"{where} must be a group of arrays; found {'a dataset' if find(file, where) else 'nothing'}")
    if not isinstance(find(file, f"{where}/obs"), h5py.Group):
        held = group_keys(file, where)
        found = ", ".join(held[:8]) or "nothing"
        make = "make them from the states: " if "states" in held else "files with states can be replayed: "
        raise BadEpisode(f"{where} has no group obs (found {found}), so no observations; {make}{REPLAY}")
    _refuse_robomimic(file, f"{where}/obs")
    rows = _check_lengths(file, where, list(image_keys.values()))
    actions = _finite(_numbers(file, f"{where}/actions", 7), f"{where}/actions")
    fingers = _finite(_numbers(file, f"{where}/obs/gripper_states", 2), f"{where}/obs/gripper_states")
    state = np.concatenate([_end_effector(file, where), fingers], axis=1)
    states = None
    if dataset(file, f"{where}/states") is not None:
        states = _finite(_numbers(file, f"{where}/states", None), f"{where}/states")
    node, joints, tells_timing = dataset(file, f"{where}/obs/joint_states"), None, rows >= 3 and states is not None
    if node is not None and (tells_timing or node.shape == (rows, 7)):
        joints = _numbers(file, f"{where}/obs/joint_states", None if tells_timing else 7)
    timing, source = _timing(states, joints, layout_timing)
    known = {*LOW_DIM_OBS, *image_keys.values()}
    unused = tuple(key for key in group_keys(file, f"{where}/obs") if key not in known)
    told = joints if joints is not None and joints.shape == (rows, 7) else None
    return Demo(state, actions, timing, source, unused, told, None if states is None else states[:, 0])


def _refuse_robomimic(file: h5py.File, where: str) -> None:
    """BadEpisode for observations under robomimic's names, whose images and rotation follow other conventions."""
    held = group_keys(file, where)
    theirs = [name for name in held if name.startswith("robot0_") or name.endswith("_image")]
    effector = "ee_states" in held or {"ee_pos", "ee_ori"} <= set(held)
    if theirs and not (effector and "gripper_states" in held):
        raise BadEpisode(
            f"{where} holds observations under robomimic's names ({', '.join(theirs[:4])}), not LIBERO's "
            f"(ee_states, gripper_states, agentview_rgb); make LIBERO's from the states: {REPLAY}"
        )


def read_commands(file: h5py.File, name: str) -> Commands:
    """Actions and simulator states of one demonstration; BadEpisode as for `read_demo`."""
    where = f"data/{name}"
    _check_lengths(file, where, [])
    actions = _finite(_numbers(file, f"{where}/actions", 7), f"{where}/actions")
    states = _finite(_numbers(file, f"{where}/states", None), f"{where}/states")
    if dataset(file, f"{where}/robot_states") is None:
        return Commands(actions, states, None)
    return Commands(actions, states, _numbers(file, f"{where}/robot_states", 9)[0])


def read_quaternions(file: h5py.File, demo: str, rows: Demo) -> NDArray[np.float32] | None:
    """float32 [T, 4], x y z w: the end effector's rotation in `robot_states`, whose rows are those of the observations.

    None where the file has no such rows.
    """
    node = dataset(file, f"data/{demo}/robot_states")
    if node is None or node.shape != (len(rows.actions), 9) or node.dtype.kind != "f":
        return None
    recorded: NDArray[np.float32] = np.asarray(node[:, 5:9], np.float32)
    return recorded if np.isfinite(recorded).all() else None


def _check_lengths(file: h5py.File, where: str, image_keys: list[str]) -> int:
    """The common number of rows; BadEpisode, naming every length, when arrays or `num_samples` disagree."""
    lengths: dict[str, int] = {}
    for key in (*ROW_KEYS, *(f"obs/{name}" for name in (*LOW_DIM_OBS, *image_keys))):
        node = dataset(file, f"{where}/{key}")
        if node is not None:
            if not node.shape:
                raise BadEpisode(f"{where}/{key} must have one row per frame, found a single {node.dtype} value")
            lengths[key] = int(node.shape[0])
    claimed = integer_attribute(find(file, where) or file[where], "num_samples")
    if claimed is not None:
        lengths["attribute num_samples"] = claimed
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise BadEpisode(f"{where} has arrays of different length, refusing to cut any: {listed}")
    rows = lengths.get("actions", 0)
    if rows > MAX_ROWS:
        raise BadEpisode(f"{where}/actions has {rows} rows; at most {MAX_ROWS} are plausible")
    if "actions" in lengths and rows < 1:
        raise BadEpisode(f"{where} is too short: it holds no row")
    return rows


def _numbers(file: h5py.File, key: str, width: int | None) -> NDArray[np.float64]:
    """Numbers [T, width] as float64; BadEpisode when missing, misshapen or cast to integers."""
    node = dataset(file, key)
    if node is None:
        found = ", ".join(group_keys(file, key.rpartition("/")[0])[:12]) or "nothing"
        replay = f"; files with states can be replayed: {REPLAY}" if "/obs/" in key else ""
        raise BadEpisode(f"{key} is missing (found {found}){replay or '; give its dataset that name'}")
    shape = node.shape
    plausible = len(shape) == 2 and shape[0] <= MAX_ROWS and 0 < shape[1] <= MAX_WIDTH
    if node.dtype.kind != "f" or not plausible or (width and shape[1] != width):
        wanted = f"(frames, {width or 'n'})"
        raise BadEpisode(f"{key} must be floating-point numbers of shape {wanted}, found {node.dtype} of shape {shape}")
    check_written(node, key)
    return np.asarray(node[()], dtype=np.float64)


def _finite(values: NDArray[np.float64], key: str) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32))
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise BadEpisode(f"{key} is not finite at frame {row}, column {column}: {values[row, column]}")
    return values


def _end_effector(file: h5py.File, where: str) -> NDArray[np.float64]:
    """Position and axis-angle [T, 6] from `ee_states`, else from its two halves.

    Never from `robot_states`, whose first row is stale in regenerated files.
    """
    if dataset(file, f"{where}/obs/ee_states") is not None:
        whole = _finite(_numbers(file, f"{where}/obs/ee_states", 6), f"{where}/obs/ee_states")
        _check_halves(file, where, whole)
        return whole
    halves = []
    for name in ("ee_pos", "ee_ori"):
        key = f"{where}/obs/{name}"
        if dataset(file, key) is None:
            raise BadEpisode(
                f"{where}/obs/ee_states is missing, and so is {name}, a half of it; files with states can be "
                f"replayed: {REPLAY}"
            )
        halves.append(_finite(_numbers(file, key, 3), key))
    return np.concatenate(halves, axis=1)


def _check_halves(file: h5py.File, where: str, whole: NDArray[np.float64]) -> None:
    """BadEpisode where `ee_pos` or `ee_ori` holds other numbers than its half of `ee_states`."""
    for name, half in (("ee_pos", whole[:, :3]), ("ee_ori", whole[:, 3:])):
        node = dataset(file, f"{where}/obs/{name}")
        if node is None or node.shape != half.shape or node.dtype.kind != "f":
            continue
        apart = np.abs(np.asarray(node[()], np.float64) - half)
        if not apart.max(initial=0.0) <= SAME:
            row, column = np.unravel_index(int(np.nan_to_num(apart, nan=np.inf).argmax()), apart.shape)
            raise BadEpisode(
                f"{where}/obs/{name} contradicts ee_states: {node[row, column]:.6g} against {half[row, column]:.6g} in "
                f"row {row}, column {column}; remove or correct the one that is wrong"
            )


def _timing(
    states: NDArray[np.float64] | None, joints: NDArray[np.float64] | None, layout_timing: Timing
) -> tuple[Timing, str]:
    """Whether observation t is from before or after action t, and what showed it.

    `states[t]` is always from before action t and holds the arm joints in columns 1 to 7; in raw files row t of
    `joint_states` is close to row t + 1 of it (0.002 rad against 0.05), in regenerated ones to row t.
    """
    default = f"layout: {'attributes' if layout_timing == 'after_action' else 'no attributes'}"
    if states is None or joints is None or len(states) < 3 or states.shape[1] < 8 or joints.shape[1] != 7:
        return layout_timing, default
    arm = states[:, 1:8]
    same, following = (float(np.abs(a - joints[1:-1]).mean()) for a in (arm[1:-1], arm[2:]))
    if not np.isfinite(same + following) or max(same, following) < _TIMING_MOTION:
        return layout_timing, default
    if same > _TIMING_RATIO * following:
        return "after_action", "content: joint_states[t] follows states[t + 1]"
    if following > _TIMING_RATIO * same:
        return "before_action", "content: joint_states[t] follows states[t]"
    return layout_timing, default
