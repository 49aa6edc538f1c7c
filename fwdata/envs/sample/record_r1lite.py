"""Sample recordings as the Galaxea R1 Lite's own recorder leaves them: ROS 2 bags in MCAP, and one JSON file.

    <out>/RB000000001_<seed><episode>_RAW/RB..._RAW.mcap  metadata.yaml        <out>/raw_data_meta.json

Head and wrist JPEG images at 15 Hz, joint and gripper feedback at 200 Hz, targets at 30 Hz; grippers 0 closed .. 100
open. The world's step is one head image. Topics, rates and layout: Galaxea's GalaxeaLeRobotToolkit.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from fwdata.envs.base import Observation
from fwdata.envs.sample.env import SampleEnv, expert_rollout
from fwdata.envs.sample.request import SampleReport, begin_folder, check_request, write_recording
from fwdata.envs.sample.tasks import TASKS
from fwdata.envs.sample.world import ARM_DIMS
from fwdata.errors import FwdataError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

HZ, FEEDBACK_HZ, TARGET_HZ = 15, 200, 30
SECOND = 10**9
REST = 14
"""Images after success, so that most recordings are longer than a training window."""
START = 1_754_400_000 * SECOND
"""Stamp of the first image of the first recording; the next one begins two minutes later."""
LOG_DELAY = {"image": 40_000_000, "number": 1_000_000}
"""Nanoseconds between a stamp and its time in the log."""
CAMERAS = {
    "head_camera": "/hdas/camera_head/left_raw/image_raw_color/compressed",
    "left_camera": "/hdas/camera_wrist_left/color/image_raw/compressed",
    "right_camera": "/hdas/camera_wrist_right/color/image_raw/compressed",
}
META = "raw_data_meta.json"
IMAGE, JOINTS = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/JointState"
_SKEW = {"head_camera": 0, "left_camera": 4_000_000, "right_camera": -3_000_000}
"""Nanoseconds between a head image and the wrists' images."""


def write_r1lite(out: Path, episodes: int, seed: int = 0, *, camera_size: tuple[int, int] = (48, 64)) -> SampleReport:
    """Write expert recordings; see `write_sample`. Finished recordings of the same seed and size are kept; others in
    the folder are refused with UsageError. Complete when raw_data_meta.json is there."""
    check_request(out, episodes, seed, camera_size)
    begin_folder(out, seed, camera_size)
    env = SampleEnv("robotwin", pixels=camera_size)
    listed, frames, size, written = [], 0, 0, 0
    for episode in range(episodes):
        seen = expert_rollout(env, seed, episode, "record", REST)
        name = f"RB000000001_{seed:07d}{episode:010d}_RAW"
        if not (out / name).is_dir():
            _write_bag(out / name, seen, START + episode * 120 * SECOND)
            written += 1
        frames += len(seen)
        size += (out / name / f"{name}.mcap").stat().st_size
        listed.append(_entry(name, episode, len(seen)))
    meta = {"rawDataSetName": "Press_Buttons_20250805_001", "rawDataList": listed}
    write_recording(out / META, (json.dumps(meta, indent=1) + "\n").encode())
    return SampleReport("r1lite", out, episodes, frames, size, written)


def _entry(name: str, episode: int, length: int) -> dict[str, object]:
    """What the data platform notes of one recording: one annotated interval, the whole of it."""
    first = START + episode * 120 * SECOND
    last = first + length * SECOND // HZ
    text = TASKS[episode % len(TASKS)].seen[0]
    interval = {
        "text": text, "actionQualityLabel": "qualified", "startSecond": first // SECOND - 1, "startNanoSecond": 0,
        "endSecond": last // SECOND + 1, "endNanoSecond": 0,
    }  # fmt: skip
    return {"name": f"{name}.mcap", "path": f"{name}/{name}.mcap", "robotType": "R1Lite", "annotations": [interval]}


def _write_bag(folder: Path, seen: list[Observation], first: int) -> None:
    """One recording; the folder has its name when it is complete. FwdataError when the disk refuses it."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    partial = folder.parent / f".{folder.name}.tmp" / folder.name  # the bag's file is named after its folder
    shutil.rmtree(partial.parent, ignore_errors=True)
    try:
        partial.parent.mkdir(parents=True)
        with Writer(partial, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            made: dict[str, Connection] = {}
            for log, topic, kind, data in sorted(_messages(seen, first), key=lambda message: message[:2]):
                if topic not in made:
                    made[topic] = writer.add_connection(topic, kind, typestore=_types())
                writer.write(made[topic], log, data)
        partial.rename(folder)
        partial.parent.rmdir()
    except OSError as error:
        raise FwdataError(f"cannot write {folder}: {error.strerror}; free some space or use another folder") from error


@functools.cache
def _types() -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)


def _messages(seen: list[Observation], first: int) -> Iterator[tuple[int, str, str, bytes]]:
    """(time in the log, topic, type, CDR bytes) of every message."""
    states = np.stack([item.state for item in seen]).astype(np.float64)
    for camera, topic in CAMERAS.items():
        for number, item in enumerate(seen):
            stamp = first + number * SECOND // HZ + _SKEW[camera]
            stream = simplejpeg.encode_jpeg(np.ascontiguousarray(item.cameras[camera]), quality=95, colorspace="RGB")
            fields = {"format": "rgb8; jpeg compressed bgr8", "data": np.frombuffer(stream, np.uint8)}
            yield stamp + LOG_DELAY["image"], topic, IMAGE, _message(IMAGE, stamp, fields)
    for index, side in enumerate(("left", "right")):
        own = states[:, ARM_DIMS * index : ARM_DIMS * (index + 1)] * [1, 1, 1, 1, 1, 1, 100]
        for hz, ahead, arm, gripper in (
            (FEEDBACK_HZ, 0.0, f"/hdas/feedback_arm_{side}", f"/hdas/feedback_gripper_{side}"),
            (
                TARGET_HZ,
                1.0,
                f"/motion_target/target_joint_state_arm_{side}",
                f"/motion_target/target_position_gripper_{side}",
            ),
        ):
            for stamp, row in _sampled(own, first, hz, ahead):
                for topic, values in ((arm, row[:6]), (gripper, row[6:])):
                    fields = {"name": [], "position": values, "velocity": np.zeros(0), "effort": np.zeros(0)}
                    yield stamp + LOG_DELAY["number"], topic, JOINTS, _message(JOINTS, stamp, fields)


def _sampled(
    states: NDArray[np.float64], first: int, hz: int, ahead: float
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(stamp, float64 [7]) of the states at a rate, from 0.1 s before the first one on; `ahead` steps early."""
    steps = np.arange(len(states))
    for tick in range(-hz // 10, (len(states) * hz) // HZ + hz // 10):
        at = tick * HZ / hz + ahead
        yield (
            first + tick * SECOND // hz,
            np.array([np.interp(at, steps, states[:, column]) for column in range(states.shape[1])]),
        )


def _message(kind: str, stamp: int, fields: Mapping[str, object]) -> bytes:
    types = _types().types
    time = types["builtin_interfaces/msg/Time"](sec=stamp // SECOND, nanosec=stamp % SECOND)
    header = types["std_msgs/msg/Header"](stamp=time, frame_id="")
    return bytes(_types().serialize_cdr(types[kind](header=header, **fields), kind))
