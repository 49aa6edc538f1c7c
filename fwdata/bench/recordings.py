"""Recordings of every source format at its real image sizes, with moving textured images, for benchmarks.

robotwin   classic HDF5, three 320x240 JPEG cameras        libero    raw HDF5, two 128x128 cameras, uncompressed
r1lite     .mcap, 1280x720 head and 640x360 wrist JPEGs    lerobot   v3.0 with three 320x240 videos, by lerobot's writer
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import UsageError, did_you_mean

type Image = NDArray[np.uint8]

SECOND = 10**9
START = 1_754_400_852 * SECOND


def write_recordings(source: str, root: Path, episodes: int, rows: int) -> Path:
    """Write `episodes` recordings of `rows` frames below `root`, half of them of another task; returns `root`.

    UsageError for a source that is not among SOURCES.
    """
    if source not in SOURCES:
        raise UsageError(
            f"the benchmark cannot record {source!r}{did_you_mean(source, SOURCES)}; name a folder of its recordings"
        )
    SOURCES[source](root, episodes, rows)
    return root


def _images(height: int, width: int, seed: int, noise: float = 4) -> Callable[[int], Image]:
    """Frame number -> uint8 [H, W, 3]: soft shapes that move, with the noise of a sensor, or flat as a simulator's.

    They move by 2 pixels and a hundredth of the width per frame, so that no detector takes a large camera for frozen.
    """
    step = max(2, width // 100)
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: height + 64, : width + 64].astype(np.float64)
    waves = [np.sin(x / a + c) + np.sin(y / b + c) for a, b, c in rng.uniform((9, 9, 0), (90, 90, 6), (3, 3))]
    soft = 128 + 50 * np.stack(waves, -1)
    grain = rng.normal(0, noise, soft.shape) if noise else -(soft % 6)
    whole = np.clip(soft + grain, 0, 255).astype(np.uint8)
    return lambda frame: np.ascontiguousarray(np.roll(whole, step * frame, axis=1)[:height, :width])


def _joints(rows: int, width: int, seed: int) -> NDArray[np.float32]:
    time = np.arange(rows + 1)[:, None] / 15
    values: NDArray[np.float32] = (0.4 * np.sin(time + np.arange(width) + seed) + 0.5).astype(np.float32)
    return values


def _jpeg(image: Image) -> bytes:
    import simplejpeg

    return bytes(simplejpeg.encode_jpeg(image, quality=95, colorspace="RGB", colorsubsampling="420"))


def _robotwin(root: Path, episodes: int, rows: int) -> None:
    import h5py

    for number in range(episodes):
        task = ("beat_block_hammer", "click_bell")[number % 2]
        path = root / task / "aloha-agilex_clean_50" / "data" / f"episode{number // 2}.hdf5"
        path.parent.mkdir(parents=True, exist_ok=True)
        joints = _joints(rows, 14, number)
        with h5py.File(path, "w") as file:
            file["joint_action/vector"] = joints.astype(np.float64)
            for side, first in (("left", 0), ("right", 7)):
                file[f"joint_action/{side}_arm"] = joints[:, first : first + 6].astype(np.float64)
                file[f"joint_action/{side}_gripper"] = joints[:, first + 6].astype(np.float64)
            for camera, name in enumerate(("head_camera", "left_camera", "right_camera")):
                view = _images(240, 320, 10 * number + camera)
                buffers = [_jpeg(view(frame)) for frame in range(rows + 1)]  # the last row has no action
                file[f"observation/{name}/rgb"] = np.array(buffers, dtype=f"S{max(map(len, buffers))}")
        text = path.parents[1] / "instructions" / f"{path.stem}.json"
        text.parent.mkdir(exist_ok=True)
        text.write_text('{"seen": ["do the task"], "unseen": []}')


def _libero(root: Path, episodes: int, rows: int) -> None:
    import h5py

    for task, name in enumerate(("turn_on_the_stove", "open_the_middle_drawer_of_the_cabinet")):
        path = root / "libero_goal" / f"{name}_demo.hdf5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            for number in range(task, episodes, 2):
                group = file.create_group(f"data/demo_{number // 2}")
                rng = np.random.default_rng(number)
                actions = rng.uniform(0.1, 0.9, (rows, 7))
                actions[:, 6] = np.where(np.arange(rows) < rows // 2, -1, 1)
                group["actions"] = actions
                group["obs/ee_states"] = _joints(rows, 6, number)[:rows].astype(np.float64)
                group["obs/gripper_states"] = np.linspace([0.04, -0.04], [0.01, -0.01], rows)
                group["obs/joint_states"] = _joints(rows, 7, number)[:rows].astype(np.float64)
                for camera, key in enumerate(("agentview_rgb", "eye_in_hand_rgb")):
                    view = _images(128, 128, 10 * number + camera, noise=0)
                    group[f"obs/{key}"] = np.stack([view(frame) for frame in range(rows)])


def _r1lite(root: Path, episodes: int, rows: int) -> None:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    for number in range(episodes):
        path = root / f"RB25010100{number}_20250805213{number:06d}_RAW"
        with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            made: dict[str, Connection] = {}
            for topic, kind, stamp, fields in sorted(_messages(rows, number), key=lambda m: m[2]):
                types = store.types
                time = types["builtin_interfaces/msg/Time"](sec=stamp // SECOND, nanosec=stamp % SECOND)
                header = types["std_msgs/msg/Header"](stamp=time, frame_id="")
                if topic not in made:
                    made[topic] = writer.add_connection(topic, kind, typestore=store)
                writer.write(made[topic], stamp, store.serialize_cdr(types[kind](header=header, **fields), kind))


def _messages(rows: int, seed: int) -> Iterator[tuple[str, str, int, Mapping[str, Any]]]:
    """(topic, type, stamp, fields besides the header)."""
    step = SECOND // 15
    cameras = (
        ("/hdas/camera_head/left_raw/image_raw_color/compressed", 720, 1280),
        ("/hdas/camera_wrist_left/color/image_raw/compressed", 360, 640),
        ("/hdas/camera_wrist_right/color/image_raw/compressed", 360, 640),
    )
    for hue, (topic, height, width) in enumerate(cameras):
        view = _images(height, width, 10 * seed + hue)
        for frame in range(rows):
            data = np.frombuffer(_jpeg(view(frame)), np.uint8)
            fields = {"format": "rgb8; jpeg compressed bgr8", "data": data}
            yield topic, "sensor_msgs/msg/CompressedImage", START + frame * step + hue * 1_000_000, fields
    for side in ("left", "right"):
        for tick in range(-20, rows * 14 + 20):  # 200 Hz
            stamp, angle = START + tick * step // 14, 0.3 * np.sin(tick / 200 + np.arange(6))
            for topic, values in (
                (f"/hdas/feedback_arm_{side}", angle),
                (f"/hdas/feedback_gripper_{side}", 50 + 40 * np.sin([tick / 100])),
                (f"/motion_target/target_joint_state_arm_{side}", angle + 0.01),
                (f"/motion_target/target_position_gripper_{side}", 50 + 41 * np.sin([tick / 100])),
            ):
                empty = np.zeros(0)
                fields = {"name": [], "position": values, "velocity": empty, "effort": empty}
                yield topic, "sensor_msgs/msg/JointState", stamp, fields


def _lerobot(root: Path, episodes: int, rows: int) -> None:
    from fwdata.export.lerobot import quiet, write_dataset

    cameras = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    vector = {"dtype": "float32", "shape": (14,), "names": [f"joint_{i}" for i in range(14)]}
    features: dict[str, object] = {"observation.state": vector, "action": vector}
    for name in cameras:
        shape = {"shape": (240, 320, 3), "names": ["height", "width", "channels"]}
        features[f"observation.images.{name}"] = {"dtype": "video", **shape}

    def frames(number: int) -> Iterator[dict[str, object]]:
        joints = _joints(rows, 14, number)
        views = [_images(240, 320, 10 * number + camera) for camera in range(3)]
        for row in range(rows):
            images = {f"observation.images.{c}": v(row) for c, v in zip(cameras, views, strict=True)}
            task = ("hammer", "bell")[number % 2]
            yield {"observation.state": joints[row], "action": joints[row + 1], **images, "task": task}

    with quiet():
        write_dataset(root, features, 17, "aloha", (frames(number) for number in range(episodes)))


SOURCES: dict[str, Callable[[Path, int, int], None]] = {
    "robotwin": _robotwin,
    "libero": _libero,
    "r1lite": _r1lite,
    "lerobot": _lerobot,
}
"""Writers of recordings by source."""

EPISODES = {"robotwin": 40, "libero": 80, "r1lite": 8, "lerobot": 20}
"""Recordings of 120 rows that take some seconds to convert: of fewer, what a conversion pays once weighs most."""
