"""Raw LIBERO files whose rows and images move as those of a robot do, for what is measured while converting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from paths import DATA

TASK = "pick_up_the_tomato_sauce_and_place_it_in_the_basket"
ROWS = 108

COMMAND = ("convert", "libero", "--workers", "0", "--gripper", "plus_closes")


def write_libero(root: Path, demos: int, change: Callable[[int, h5py.Group], None] = lambda number, demo: None) -> Path:
    """A raw LIBERO file of true rows (one demonstration, shifted in space per copy) and plain moving images."""
    source = next((DATA / "libero_replay").rglob("*.hdf5"))
    target = root / "libero_object" / f"{TASK}_demo.hdf5"
    target.parent.mkdir(parents=True)
    down, across = np.mgrid[:32, :32]
    with h5py.File(source) as old, h5py.File(target, "w") as new:
        for key, value in old["data"].attrs.items():
            new.require_group("data").attrs[key] = value
        robot = np.asarray(old["data/demo_0/robot_states"])
        for number in range(demos):
            demo = new.create_group(f"data/demo_{number}")
            for key in ("actions", "states", "rewards", "dones"):
                demo[key] = np.asarray(old[f"data/demo_0/{key}"])
            rows = robot.copy()
            rows[:, 2:5] += 0.05 * number
            demo["robot_states"] = rows
            demo["obs/gripper_states"], demo["obs/ee_pos"] = rows[:, :2], rows[:, 2:5]
            demo["obs/ee_ori"] = vectors(rows)
            demo["obs/ee_states"] = np.concatenate([rows[:, 2:5], vectors(rows)], axis=1)
            joints = np.asarray(demo["states"])[:, 1:8]
            demo["obs/joint_states"] = np.concatenate([joints[1:], joints[-1:]])  # from after the action
            shift = rows[:, 2:5] * 60
            image = 120 + 60 * np.sin((across[None] + shift[:, 1, None, None]) / 3) * np.cos(
                (down[None] + shift[:, 2, None, None]) / 4
            )
            frames = np.repeat(image.astype(np.uint8)[..., None], 3, axis=3)[:, ::-1, ::-1]
            demo["obs/agentview_rgb"] = demo["obs/eye_in_hand_rgb"] = frames
            change(number, demo)
    return root


def vectors(robot: np.ndarray) -> np.ndarray:
    """Rotation vectors of the rows' quaternions, without jumps."""
    quaternion = robot[:, 5:9] * np.sign(robot[:1, 5:9] @ robot[:, 5:9].T).T
    sine = np.linalg.norm(quaternion[:, :3], axis=1, keepdims=True)
    return quaternion[:, :3] / sine * 2 * np.arctan2(sine, quaternion[:, 3:])
