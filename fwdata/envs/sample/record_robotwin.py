"""Sample recordings in the genuine on-disk formats of RoboTwin 2.0.

classic (what released archives hold; classic envs/utils/pkl2hdf5.py and script/collect_data.py of RoboTwin 2.0):

    <out>/<task>/aloha-agilex_clean_<n>/data/episode{N}.hdf5  video/episode{N}.mp4  instructions/episode{N}.json
                                        seed.txt  scene_info.json

v1.0 (native collectors since August 2026, JPEG streams marked XPL-RGB1 as since September 2026):

    <out>/demo_clean/<task>/aloha_agilex/data/episode_{N:07d}.hdf5  video/..  instruction/..  seed.txt  scene_info.json

Classic JPEG streams have red and blue exchanged inside, as every classic RoboTwin file does. No pickles are written.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import av
import h5py
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from fwdata.envs.base import Observation
from fwdata.envs.sample.draw import Image, Viewpoint, camera_names, camera_view
from fwdata.envs.sample.env import SampleEnv, episode_scene, expert_rollout
from fwdata.envs.sample.request import SampleReport, check_request, write_recording
from fwdata.envs.sample.tasks import TASKS, Task
from fwdata.envs.sample.world import LOWERED, TWO_ARMS, arm_slice, elbow_and_hand
from fwdata.errors import UsageError, did_you_mean

VARIANTS = ("classic", "v1.0")
JPEG_MARK = b"\xff\xfe\x00\x0aXPL-RGB1"
"""COM segment of a JPEG stream whose colours are in standard order (XPolicyLab README)."""
SEEDS = 100_000
"""Seeds of recordings that one `--seed` has; that of a recording is --seed times this, plus its number."""
_V1_CAMERAS = {"head_camera": "cam_head", "left_camera": "cam_left_wrist", "right_camera": "cam_right_wrist"}
_ARMS = ("left", "right")
_X264 = {"crf": "23", "preset": "veryfast", "threads": "1", "mbtree": "0"}
"""Same pictures, same bytes: x264's macroblock tree also reads memory that it has not written."""


@dataclass(frozen=True)
class _Recording:
    """One episode's place: number within its task folder, number in the sample world, and its files."""

    index: int
    episode: int
    data: Path
    video: Path
    instructions: Path


@dataclass(frozen=True)
class _Folder:
    """One task folder and the recordings that belong into it."""

    task: Task
    path: Path
    recordings: tuple[_Recording, ...]
    seed_text: str


def write_robotwin(
    out: Path,
    episodes: int,
    seed: int = 0,
    *,
    camera_size: tuple[int, int] = (48, 64),
    variant: str = "classic",
) -> SampleReport:
    """Write expert recordings as RoboTwin 2.0 files, shared evenly among the tasks; see `writer.write_sample`.

    camera_size: (height, width) of every camera. Finished recordings of the same seed are kept as they are; a folder
    with recordings of another seed, number or image size is refused with UsageError.
    """
    check_request(out, episodes, seed, camera_size)
    if variant not in VARIANTS:
        raise UsageError(f"no RoboTwin variant {variant!r}{did_you_mean(variant, VARIANTS)}")
    folders = [_plan_folder(out, task, k, episodes, seed, variant) for k, task in enumerate(TASKS[:episodes])]
    for folder in folders:
        _check_not_mixed(folder, variant)
    env = SampleEnv("robotwin", pixels=camera_size)
    frames = size = written = 0
    for folder in folders:
        write_recording(folder.path / "seed.txt", folder.seed_text.encode())
        write_recording(folder.path / "scene_info.json", _scene_info(folder, seed))
        for recording in folder.recordings:
            count = _finished_frames(recording.data, camera_size)
            if count is None:
                count = _write_recording(env, folder.task, recording, seed, variant)
                written += 1
            frames += count
            size += recording.data.stat().st_size
    return SampleReport("robotwin", out, episodes, frames, size, written)


def _plan_folder(out: Path, task: Task, number: int, episodes: int, seed: int, variant: str) -> _Folder:
    """Names of everything in a task's folder; task k gets the world's episodes k, k + tasks, .."""
    numbers = range(number, episodes, len(TASKS))
    classic = variant == "classic"
    if classic:
        path = out / task.name / f"aloha-agilex_clean_{len(numbers)}"
    else:
        path = out / "demo_clean" / task.name / "aloha_agilex"
    recordings = []
    for index, episode in enumerate(numbers):
        name = f"episode{index}" if classic else f"episode_{index:07d}"
        text = path / ("instructions" if classic else "instruction") / f"{name}.json"
        recordings.append(
            _Recording(index, episode, path / "data" / f"{name}.hdf5", path / "video" / f"{name}.mp4", text)
        )
    seeds = "".join(f"{seed * SEEDS + episode} " for episode in numbers)
    return _Folder(task, path, tuple(recordings), seeds)


def _check_not_mixed(folder: _Folder, variant: str) -> None:
    """UsageError when the folder, or one beside it for the same task, holds other recordings."""
    hint = "choose another folder or remove it"
    if variant == "classic" and folder.path.parent.is_dir():
        others = sorted(p.name for p in folder.path.parent.iterdir() if p.is_dir() and p != folder.path)
        if others:
            raise UsageError(f"{folder.path.parent} already holds {others[0]}, not {folder.path.name}; {hint}")
    seeds = folder.path / "seed.txt"
    if not seeds.is_file():
        if (folder.path / "data").exists():
            raise UsageError(f"{folder.path} holds recordings that the sample world did not write; {hint}")
        return
    found = seeds.read_text(encoding="utf-8", errors="replace")
    if found != folder.seed_text:
        held, asked = (_seed(text) for text in (found, folder.seed_text))
        raise UsageError(
            f"{folder.path} holds {len(found.split())} recordings made with --seed {held}, but "
            f"{len(folder.recordings)} with --seed {asked} were asked for; {hint}"
        )


def _seed(text: str) -> str:
    """The seed given by `--seed`, from the file that lists a seed for each recording; "?" for a file of other text."""
    first = text.partition(" ")[0]
    return str(int(first) // SEEDS) if first.isdecimal() else "?"


def _finished_frames(path: Path, camera_size: tuple[int, int]) -> int | None:
    """Camera instants of a finished recording; None when it is absent or not readable and must be written (again).

    Raises UsageError when its images have another size.
    """
    if not path.is_file():
        return None
    try:
        with h5py.File(path) as file:
            key = "observation/head_camera/rgb" if "observation" in file else "vision/cam_head/colors"
            streams = file[key]
            count, first = len(streams), bytes(streams[0])
    except (OSError, KeyError):
        return None
    height, width = simplejpeg.decode_jpeg_header(first)[:2]
    if (height, width) != camera_size:
        raise UsageError(
            f"{path} holds {width}x{height} images, but {camera_size[1]}x{camera_size[0]} were asked for; choose "
            "another folder or remove it"
        )
    return count


def _write_recording(env: SampleEnv, task: Task, recording: _Recording, seed: int, variant: str) -> int:
    """Record one episode; the HDF5 file comes last and marks it finished. Returns its stored camera instants."""
    observations = expert_rollout(env, seed, recording.episode, "record")
    text = json.dumps({"seen": list(task.seen), "unseen": list(task.unseen)}, indent=2)
    write_recording(recording.instructions, text.encode())
    video = encode_video([observation.cameras["head_camera"] for observation in observations])
    if video is not None:
        write_recording(recording.video, video)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        (_fill_classic if variant == "classic" else _fill_v1)(file, observations, task)
    write_recording(recording.data, buffer.getvalue())
    return len(observations) - (variant != "classic")


def _scene_info(folder: _Folder, seed: int) -> bytes:
    """scene_info.json as the collector writes it: placeholders of the instructions, no clutter, no textures."""
    entries = {}
    for recording in folder.recordings:
        task, scene = episode_scene("robotwin", seed, recording.episode, "record")
        arm = scene.layout.arms[scene.pressing_arm(task)].name
        entries[f"episode_{recording.index}"] = {
            "cluttered_table_info": [],
            "texture_info": {"wall_texture": None, "table_texture": None},
            "info": {"{A}": f"{task.colour} button", "{a}": arm},
        }
    return json.dumps(entries, indent=4).encode()


def _fill_classic(file: h5py.File, observations: list[Observation], task: Task) -> None:
    """The keys and dtypes of classic RoboTwin 2.0; T rows for T camera instants."""
    states = np.stack([observation.state for observation in observations])
    vector = states.astype(np.float64)
    poses = hand_poses(states)
    joints, ends = file.create_group("joint_action"), file.create_group("endpose")
    for arm, name in enumerate(_ARMS):
        part = vector[:, arm_slice(arm)]
        joints[f"{name}_arm"], joints[f"{name}_gripper"] = part[:, :6], part[:, 6]
        ends[f"{name}_endpose"], ends[f"{name}_gripper"] = poses[arm], part[:, 6]
    joints["vector"] = vector
    for camera in camera_names(TWO_ARMS):
        group = file.create_group(f"observation/{camera}")
        frames = [observation.cameras[camera] for observation in observations]
        views = [camera_view(TWO_ARMS, state, camera, (frames[0].shape[0], frames[0].shape[1])) for state in states]
        group["rgb"] = np.array([encode_legacy_jpeg(frame) for frame in frames])
        group["intrinsic_cv"] = np.stack([view.intrinsic() for view in views])
        group["extrinsic_cv"] = np.stack([_world_to_camera(view) for view in views])
        group["cam2world_gl"] = np.stack([_camera_to_world(view) for view in views])
    file["pointcloud"] = np.zeros((len(observations), 0))


def _fill_v1(file: h5py.File, observations: list[Observation], task: Task) -> None:
    """The keys and dtypes of the native XPolicyLab v1.0 writer; T - 1 rows, the last instant is only an action."""
    states = np.stack([observation.state for observation in observations])
    poses = hand_poses(states).astype(np.float32)
    text = h5py.string_dtype("utf-8")
    file.attrs["source_format"], file.attrs["source_path"] = "RoboTwin", "native_collection"
    file.create_dataset("data_format_version", data="v1.0", dtype=text)
    file.create_dataset("instructions", data=json.dumps(list(task.seen)), dtype=text)
    file.create_dataset("additional_info/frequency", data=np.int32(15))
    for key, rows in (("state", slice(0, -1)), ("action", slice(1, None))):
        group = file.create_group(key)
        for arm, name in enumerate(_ARMS):
            part = states[rows, arm_slice(arm)]
            group[f"{name}_arm_joint_states"], group[f"{name}_ee_joint_states"] = part[:, :6], part[:, 6:]
            group[f"{name}_ee_poses"] = poses[arm, rows]
    for camera, name in _V1_CAMERAS.items():
        group = file.create_group(f"vision/{name}")
        frames = [observation.cameras[camera] for observation in observations[:-1]]
        height, width = frames[0].shape[:2]
        views = [camera_view(TWO_ARMS, state, camera, (height, width)) for state in states[:-1]]
        group["colors"] = np.array([encode_marked_jpeg(frame) for frame in frames])
        group["shape"] = np.array([height, width, 3], np.int32)
        group["intrinsic_matrix"] = np.stack([view.intrinsic() for view in views])
        group["extrinsics_matrix"] = np.stack([_camera_to_world(view) for view in views])


def encode_legacy_jpeg(frame: Image) -> bytes:
    """JPEG as classic RoboTwin stores it: quality 95, 4:2:0, red and blue exchanged (RGB given to a BGR encoder)."""
    return bytes(simplejpeg.encode_jpeg(frame, quality=95, colorspace="BGR", colorsubsampling="420"))


def encode_marked_jpeg(frame: Image) -> bytes:
    """Standard JPEG, quality 95, 4:2:0, with the COM segment XPL-RGB1 after APP0."""
    plain = bytes(simplejpeg.encode_jpeg(frame, quality=95, colorspace="RGB", colorsubsampling="420"))
    after = 4 + int.from_bytes(plain[4:6], "big")
    return plain[:after] + JPEG_MARK + plain[after:]


def encode_video(frames: list[Image]) -> bytes | None:
    """mp4 with H.264 yuv420p CRF 23 at 30 fps, true colours; None when this FFmpeg has no H.264 encoder."""
    if "libx264" not in av.codecs_available:
        return None
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30, options=_X264)
        stream.height, stream.width, stream.pix_fmt = frames[0].shape[0], frames[0].shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def hand_poses(states: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64 [arms, T, 7]: x y z qw qx qy qz of each hand in the world frame, m."""
    poses = np.zeros((len(TWO_ARMS.arms), len(states), 7))
    for index, arm in enumerate(TWO_ARMS.arms):
        for row, state in enumerate(states):
            pose = state[arm_slice(index)].astype(np.float64)
            _, hand = elbow_and_hand(arm, pose)
            yaw = float(pose[0] + pose[1] + pose[5])
            height = 0.02 + 0.10 * (1.0 - float(pose[2]) / LOWERED)
            poses[index, row] = (*hand, height, math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))
    return poses


def _world_to_camera(view: Viewpoint) -> NDArray[np.float32]:
    """float32 [3, 4]: world to camera, OpenCV axes (x right, y down, z into the image)."""
    rotation = np.diag([1.0, -1.0, -1.0])
    return np.hstack([rotation, -rotation @ np.array(view.position())[:, None]]).astype(np.float32)


def _camera_to_world(view: Viewpoint) -> NDArray[np.float32]:
    """float32 [4, 4]: camera to world, OpenGL axes (x right, y up, z out of the image)."""
    pose = np.eye(4, dtype=np.float32)
    pose[:3, 3] = view.position()
    return pose
