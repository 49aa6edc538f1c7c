"""Writes small LIBERO task files: raw ones, and both kinds of regenerated ones.

    written = write_file(root / "libero_goal" / "turn_on_the_stove_demo.hdf5", [0, 1])
    write_file(path, [0, 3], kind="openvla")        no attributes, before-action observations, upside down
    write_file(path, [0, 3], kind="any4lerobot")    the same, pictures rotated already

Pictures are defined as the policy sees them and stored the way the kind stores them. Files are deterministic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

CAMERAS = {"image": "agentview_rgb", "wrist_image": "eye_in_hand_rgb"}
KINDS = ("raw", "openvla", "any4lerobot")
STATE_WIDTH = 23


@dataclass(frozen=True)
class Written:
    """One demonstration: rows as recorded, and its pictures uint8 [T, H, W, 3] as the policy sees them."""

    state: NDArray[np.float64]
    actions: NDArray[np.float64]
    pictures: dict[str, NDArray[np.uint8]]


def picture(camera: str, frame: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], upright: colours that differ in every direction, the frame's number, a gripper for the wrist."""
    height, width = size
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(100, 250, height).astype(np.uint8)[:, None]
    image[..., 1] = np.linspace(10, 200, width).astype(np.uint8)
    image[..., 2] = (40 + 13 * frame + 90 * list(CAMERAS).index(camera)) % 256
    if camera == "wrist_image":
        image[-max(1, round(0.17 * height)) :] = 50 + frame % 10
    return image


def paint(pictures: h5py.Dataset, value: int) -> None:
    """One grey everywhere. `pictures[...] = value` would write pixel by pixel, 4 us each."""
    pictures[...] = np.full(pictures.shape, value, pictures.dtype)


def moving(num_frames: int, seed: int = 0) -> NDArray[np.float64]:
    """Actions float64 [T, 7] without no-ops, quantised like the published ones; the gripper closes half-way."""
    rng = np.random.default_rng(seed)
    actions = np.zeros((num_frames, 7))
    actions[:, :3] = rng.integers(1, 350, (num_frames, 3)) * 0.9375 / 350
    actions[:, 3:6] = rng.integers(-100, 100, (num_frames, 3)) * 0.375 / 350
    actions[:, 6] = np.where(np.arange(num_frames) < num_frames // 2, -1, 1)
    return actions


def write_file(
    path: Path,
    demos: Sequence[int] = (0, 1),
    kind: str = "raw",
    num_frames: int = 8,
    size: tuple[int, int] = (20, 24),
    actions: NDArray[np.float64] | None = None,
    attributes: Mapping[str, object] | None = None,
    text: str | None = None,
) -> dict[int, Written]:
    """Write a task file; returns its demonstrations by number.

    actions: float64 [T, 7], the same in all demonstrations. attributes: of `/data`, added to (None: removed from) those
    of a raw file. text: language_instruction of problem_info, else that of the file's name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written: dict[int, Written] = {}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for number in demos:
            rows = moving(num_frames, number) if actions is None else actions
            written[number] = _write_demo(data.create_group(f"demo_{number}"), rows, kind, size, number)
        if kind == "raw":
            text = text or path.stem.removesuffix("_demo").replace("_", " ")
            total = sum(len(demo.actions) for demo in written.values())
            for name, value in {**_attributes(text, len(demos), total), **(attributes or {})}.items():
                if value is not None:
                    data.attrs[name] = value
    return written


def _attributes(text: str, num_demos: int, total: int) -> dict[str, object]:
    robot = {"robots": ["Panda"], "control_freq": 20, "camera_names": ["robot0_eye_in_hand", "agentview"]}
    return {
        "bddl_file_name": "chiliocosm/bddl_files/libero_100/stale.bddl",
        "env_args": json.dumps({"type": 1, "env_name": "Libero_Floor_Manipulation", "env_kwargs": robot}),
        "env_name": "Libero_Floor_Manipulation",
        "macros_image_convention": "opengl",
        "num_demos": np.int64(num_demos),
        "problem_info": json.dumps({"domain_name": "robosuite", "language_instruction": text}),
        "tag": "libero-v1",
        "total": np.int64(total),
    }


def _write_demo(
    group: h5py.Group, actions: NDArray[np.float64], kind: str, size: tuple[int, int], seed: int
) -> Written:
    count, rng = len(actions), np.random.default_rng(100 + seed)
    joints = rng.uniform(-1, 1, 7) + np.cumsum(rng.uniform(0.01, 0.05, (count + 1, 7)), axis=0)
    pose = rng.uniform(-0.3, 0.3, 3) + np.cumsum(rng.uniform(-0.01, 0.01, (count, 3)), axis=0)
    angle = np.tile([3.14, 0.01, -0.05], (count, 1)) + rng.uniform(-0.02, 0.02, (count, 3))
    fingers = np.linspace([0.04, -0.0399], [0.011, -0.0112], count) if count else np.zeros((0, 2))
    states = np.zeros((count, STATE_WIDTH))
    states[:, 0], states[:, 1:8], states[:, 8:10] = np.arange(count) * 0.05, joints[:count], fingers
    group["actions"], group["states"] = actions, states
    size_of = np.linalg.norm(angle, axis=1, keepdims=True)
    quaternion = np.concatenate([angle / size_of * np.sin(size_of / 2), np.cos(size_of / 2)], axis=1)
    group["robot_states"] = np.concatenate([fingers, pose, quaternion], axis=1)
    done = (np.arange(count) == count - 1).astype(np.uint8)
    group["rewards"], group["dones"] = done, done
    late = 1 if kind == "raw" else 0
    for name, values in {
        "ee_states": np.concatenate([pose, angle], axis=1),
        "ee_pos": pose,
        "ee_ori": angle,
        "gripper_states": fingers,
        "joint_states": joints[late : late + count] + 1e-4,
    }.items():
        group[f"obs/{name}"] = values
    pictures: dict[str, NDArray[np.uint8]] = {}
    for camera, key in CAMERAS.items():
        frames = [picture(camera, frame, size) for frame in range(count)]
        upright = np.stack(frames) if frames else np.zeros((0, *size, 3), np.uint8)
        pictures[camera] = upright
        group[f"obs/{key}"] = upright if kind == "any4lerobot" else upright[:, ::-1, ::-1]
    if kind == "raw":
        group.attrs["num_samples"] = np.int64(count)
        group.attrs["init_state"] = np.zeros(STATE_WIDTH)
    return Written(np.concatenate([pose, angle, fingers], axis=1), actions, pictures)
