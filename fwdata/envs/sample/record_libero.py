"""Sample recordings as raw LIBERO task files: one arm whose hand moves by small steps, two square cameras.

    <out>/sample_suite/<instruction>_demo.hdf5     data/demo_<i>/{actions,states,robot_states,rewards,dones,obs/..}

Row j holds the action of step j, the state from before it and the observation from after it; images are stored upside
down, as OpenGL leaves them. The wrist's camera looks from the other side of the hand, as LIBERO's does. An action is a
step of the hand in units of 0.05 m, no turn, and the gripper (-1 opens, 1 closes). Layout: LIBERO's
scripts/create_dataset.py. The arm has six joints; the seventh of `joint_states` is 0.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from fwdata.envs.sample.draw import render
from fwdata.envs.sample.request import SampleReport, check_request, write_recording
from fwdata.envs.sample.tasks import TASKS, Task
from fwdata.envs.sample.world import (
    LOWERED,
    ONE_ARM,
    Scene,
    State,
    advance,
    elbow_and_hand,
    expert_action,
    pressed_colours,
    sample_scene,
)
from fwdata.errors import UsageError

SUITE = "sample_suite"
STEP = 0.05
"""Metres of one unit of an action (robosuite's OSC_POSE controller)."""
CAMERAS = {"agentview_rgb": ("head_camera", -1), "eye_in_hand_rgb": ("arm_camera", 1)}
"""Camera of the sample world, and the step along rows and columns in which its image is stored."""
HZ = 20
LIMIT, HELD, REST = 96, 5, 14
STREAM = 2
"""Scenes are drawn from another random stream than those of two arms."""
DOWN = np.array([1.0, 0.0, 0.0, 0.0])
"""Quaternion x y z w of a hand that looks down."""


def write_libero(out: Path, episodes: int, seed: int = 0, *, camera_size: tuple[int, int] = (64, 64)) -> SampleReport:
    """Write expert recordings, one file per task; see `write_sample`. A finished file of the same seed, number and size
    is kept; others are refused with UsageError. camera_size: the height is used for both sides."""
    check_request(out, episodes, seed, camera_size)
    pixels = (camera_size[0], camera_size[0])
    frames = size = written = 0
    for number, task in enumerate(TASKS[:episodes]):
        path = out / SUITE / f"{_words(task).replace(' ', '_')}_demo.hdf5"
        numbers = range(number, episodes, len(TASKS))
        drawn = f"{seed} {len(numbers)} {pixels[0]}x{pixels[1]}"
        if path.is_file():
            _check_same(path, drawn)
        else:
            write_recording(path, _task_file(task, seed, numbers, pixels, drawn))
            written += len(numbers)
        with h5py.File(path) as file:
            frames += int(file["data"].attrs["total"])
        size += path.stat().st_size
    return SampleReport("libero", out, episodes, frames, size, written)


def _words(task: Task) -> str:
    """The instruction as LIBERO writes them: lower case, no full stop."""
    return task.seen[0].lower().rstrip(".")


def _check_same(path: Path, drawn: str) -> None:
    try:
        with h5py.File(path) as file:
            found = file["data"].attrs.get("sample")
    except (OSError, KeyError):
        found = None
    if found != drawn:
        raise UsageError(f"{path} holds other recordings; choose another folder or remove it")


def _task_file(task: Task, seed: int, numbers: range, pixels: tuple[int, int], drawn: str) -> bytes:
    """A whole HDF5 file."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        data = file.create_group("data")
        total = 0
        for index, number in enumerate(numbers):
            scene, states = _rollout(task, seed, number)
            _fill(data.create_group(f"demo_{index}"), scene, states, pixels)
            total += len(states) - 1
        data.attrs.update(_attributes(task, len(numbers), total, pixels))
        data.attrs["sample"] = drawn
    return buffer.getvalue()


def _rollout(task: Task, seed: int, number: int) -> tuple[Scene, list[State]]:
    """The scene and the arm's states, float32 [7] each, under the expert until a little after success."""
    scene = sample_scene(np.random.default_rng([seed, number, STREAM]), ONE_ARM)
    states, held, rest = [scene.start_state()], 0, REST
    while rest > 0 and len(states) <= LIMIT:
        states.append(advance(ONE_ARM, states[-1], expert_action(scene, task, states[-1])))
        held = held + 1 if task.colour in pressed_colours(scene, states[-1]) else 0
        rest -= held >= HELD
    return scene, states


def _fill(group: h5py.Group, scene: Scene, states: list[State], pixels: tuple[int, int]) -> None:
    """One demonstration of len(states) - 1 steps."""
    poses = np.stack(states).astype(np.float64)
    places = np.stack([_place(pose) for pose in poses])
    fingers = poses[:, 6:] * [[0.04, -0.04]]
    joints = np.concatenate([poses[:, :6], np.zeros((len(poses), 1))], 1)
    count = len(poses) - 1
    turns = np.zeros((count, 3))
    closes = np.where(np.diff(poses[:, 6]) < 0, 1.0, np.where(poses[1:, 6] < 0.5, 1.0, -1.0))
    group["actions"] = np.concatenate([np.diff(places, axis=0) / STEP, turns, closes[:, None]], 1)
    group["states"] = np.concatenate([np.arange(count)[:, None] / HZ, joints[:-1], fingers[:-1]], 1)
    quaternions = np.tile(DOWN, (count, 1))
    group["robot_states"] = np.concatenate([fingers[1:], places[1:], quaternions], 1)
    done = (np.arange(count) == count - 1).astype(np.uint8)
    group["rewards"], group["dones"] = done, done
    angles = np.tile([np.pi, 0.0, 0.0], (count, 1))
    group["obs/ee_pos"], group["obs/ee_ori"] = places[1:], angles
    group["obs/ee_states"] = np.concatenate([places[1:], angles], 1)
    group["obs/gripper_states"], group["obs/joint_states"] = fingers[1:], joints[1:]
    for key, (camera, way) in CAMERAS.items():
        images: NDArray[np.uint8] = np.stack([render(scene, s, camera, pixels) for s in states[1:]])[:, ::way, ::way]
        group.create_dataset(f"obs/{key}", data=images, chunks=(1, *images.shape[1:]), compression="gzip")
    group.attrs["num_samples"], group.attrs["init_state"] = count, group["states"][0]


def _place(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [3]: the hand in LIBERO's axes (x away from the robot, y to its left, z up), m."""
    _, (right, away) = elbow_and_hand(ONE_ARM.arms[0], pose)
    return np.array([away, -right, 0.02 + 0.10 * (1.0 - float(pose[2]) / LOWERED)])


def _attributes(task: Task, demos: int, total: int, pixels: tuple[int, int]) -> dict[str, object]:
    kwargs = {
        "robots": ["Panda"], "control_freq": HZ, "camera_names": ["robot0_eye_in_hand", "agentview"],
        "camera_heights": pixels[0], "camera_widths": pixels[1],
    }  # fmt: skip
    domain = "libero_tabletop_manipulation"
    name = "_".join(part.capitalize() for part in domain.split("_"))
    problem = {"problem_name": domain, "domain_name": "robosuite", "language_instruction": _words(task)}
    bddl = f"{SUITE}/{_words(task).replace(' ', '_')}.bddl"
    return {
        "bddl_file_name": bddl,
        "env_args": json.dumps({"type": 1, "env_name": name, "bddl_file": bddl, "env_kwargs": kwargs}),
        "env_name": name,
        "macros_image_convention": "opengl",
        "num_demos": demos,
        "problem_info": json.dumps(problem),
        "tag": "libero-v1",
        "total": total,
    }
