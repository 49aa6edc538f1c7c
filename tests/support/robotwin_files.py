"""Writes small RoboTwin 2.0 recordings in every variant and folder order, as the official writers do.

    written = write_episode(path, "native", num_frames=6)
    folder = write_task(root, "archive", "click_bell", [0, 1, 3])

Pictures have flat colours with red and blue far apart, so a wrong channel order shows. Recordings are deterministic.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import simplejpeg
from numpy.typing import NDArray

CAMERAS = ("head_camera", "left_camera", "right_camera", "front_camera")
VARIANTS = ("classic", "native", "converted", "interim", "marked")
LAYOUTS = ("classic", "archive", "v1", "v1-archive")
V1_CAMERAS = {
    "head_camera": "cam_head",
    "left_camera": "cam_left_wrist",
    "right_camera": "cam_right_wrist",
    "front_camera": "cam_third_view",
}
SEEN = ("Use the left arm to hit the block.", "Hit the block with the hammer", "Use the left arm to hit the block.")
UNSEEN = ("Strike the cube.",)


@dataclass(frozen=True)
class Written:
    """What a recording holds: rows float64 [T, D] and true RGB pictures uint8 [T, H, W, 3] by classic camera name."""

    path: Path
    rows: NDArray[np.float64]
    pictures: dict[str, NDArray[np.uint8]]


def joint_rows(num_frames: int, n_left: int, n_right: int, seed: int = 0) -> NDArray[np.float64]:
    """Slow joint paths from one start pose and open/closed grippers, float32-representable as in genuine files."""
    rng = np.random.default_rng(seed)
    dims = n_left + n_right + 2
    rng.uniform(-0.5, 0.5, dims)
    rows = np.linspace(-0.5, 0.5, dims) + np.cumsum(rng.uniform(-0.05, 0.05, (num_frames, dims)), axis=0)
    for column in (n_left, dims - 1):
        rows[:, column] = np.linspace(1, 0, num_frames) if num_frames else 0
    return rows.astype(np.float32).astype(np.float64)


def picture(camera: str, frame: int, size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: orange left half, blue right half, a green bar that moves with the frame."""
    height, width = size
    shade = 10 * CAMERAS.index(camera) + seed % 5
    image = np.empty((height, width, 3), np.uint8)
    image[:, : width // 2] = (210 - shade, 110, 20)
    image[:, width // 2 :] = (20, 60, 200 - shade)
    bar = 8 * (frame % (height // 8))
    image[bar : bar + 8, width // 4 : width // 4 + 16] = (30, 200, 40)
    return image


def encode(image: NDArray[np.uint8], marked: bool = False) -> bytes:
    """JPEG as the collectors write it: red and blue exchanged, or standard with the COM marker after APP0."""
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=95, colorspace="RGB" if marked else "BGR", colorsubsampling="420"
    )
    if not marked:
        return data
    after_app0 = 4 + int.from_bytes(data[4:6])
    return data[:after_app0] + b"\xff\xfe\x00\x0aXPL-RGB1" + data[after_app0:]


def write_episode(
    path: Path,
    variant: str = "classic",
    num_frames: int = 6,
    n_arm: int | tuple[int, int] = 6,
    size: tuple[int, int] = (48, 64),
    seed: int = 0,
    cameras: Sequence[str] = CAMERAS,
    seen: Sequence[str] = SEEN,
) -> Written:
    """Write one recording of `num_frames` recorded frames (v1.0 variants store one row less) and return its content."""
    n_left, n_right = (n_arm, n_arm) if isinstance(n_arm, int) else n_arm
    rows = joint_rows(num_frames, n_left, n_right, seed)
    pictures = {
        camera: np.stack([picture(camera, t, size, seed) for t in range(num_frames)])
        if num_frames
        else np.zeros((0, *size, 3), np.uint8)
        for camera in cameras
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        if variant == "classic":
            _write_classic(file, rows, n_left, pictures)
        else:
            _write_v1(file, variant, rows, n_left, pictures, seen)
    return Written(path, rows, pictures)


def _split(rows: NDArray[np.float64], n_left: int) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
    yield "left", "arm", rows[:, :n_left]
    yield "left", "gripper", rows[:, n_left]
    yield "right", "arm", rows[:, n_left + 1 : -1]
    yield "right", "gripper", rows[:, -1]


def _buffers(images: NDArray[np.uint8], marked: bool) -> NDArray[np.bytes_]:
    data = [encode(image, marked) for image in images]
    return np.array(data, dtype=f"S{max(map(len, data), default=1)}")


def _write_classic(
    file: h5py.File, rows: NDArray[np.float64], n_left: int, pictures: dict[str, NDArray[np.uint8]]
) -> None:
    count = len(rows)
    for side, part, values in _split(rows, n_left):
        file[f"joint_action/{side}_{part}"] = values
        if part == "gripper":
            file[f"endpose/{side}_gripper"] = values
            file[f"endpose/{side}_endpose"] = np.tile([0.1, 0.2, 0.3, 1, 0, 0, 0], (count, 1))
    file["joint_action/vector"] = rows
    file["pointcloud"] = np.zeros((count, 0))
    for camera, images in pictures.items():
        file[f"observation/{camera}/rgb"] = _buffers(images, marked=False)
        file[f"observation/{camera}/intrinsic_cv"] = np.zeros((count, 3, 3), np.float32)


def _write_v1(
    file: h5py.File,
    variant: str,
    rows: NDArray[np.float64],
    n_left: int,
    pictures: dict[str, NDArray[np.uint8]],
    seen: Sequence[str],
) -> None:
    text = h5py.string_dtype("utf-8")
    native = variant in ("native", "marked")
    file.attrs["source_format"] = "RoboTwin"
    file.attrs["source_path"] = "data/episode0.hdf5" if variant == "converted" else "native_collection"
    file.create_dataset("data_format_version", data="v1.0", dtype=text)
    file["additional_info/frequency"] = np.int32(15)
    for group, values in (("state", rows[:-1]), ("action", rows[1:])):
        for side, part, numbers in _split(values, n_left):
            name = f"{side}_arm_joint_states" if part == "arm" else f"{side}_ee_joint_states"
            file[f"{group}/{name}"] = (numbers if part == "arm" else numbers[:, None]).astype(np.float32)
        if not native:
            file[f"{group}/joint_states"] = values.astype(np.float32)
    if native:
        file.create_dataset("instructions", data=json.dumps(list(seen)), dtype=text)
    else:
        file.create_dataset("instructions", data=list(seen), dtype=text)
        file.create_dataset("instruction", data=seen[0] if seen else "", dtype=text)
    for camera, images in pictures.items():
        group = f"vision/{V1_CAMERAS[camera]}"
        file[f"{group}/colors"] = _buffers(images[:-1], marked=variant == "marked")
        file[f"{group}/shape"] = np.array(images.shape[1:], np.int32)


def write_video(path: Path, images: NDArray[np.uint8]) -> None:
    """The collector's H.264 video of the head camera, true colours, 30 fps."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "23", "mbtree": "0"})
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def episode_name(index: int, layout: str, suffix: str = "hdf5") -> str:
    """File name of an episode as the writer of that layout spells it."""
    return f"episode{index}.{suffix}" if layout in ("classic", "archive") else f"episode_{index:07d}.{suffix}"


def task_folder(root: Path, layout: str, task: str, embodiment: str = "aloha-agilex", setting: str = "clean") -> Path:
    """The folder that holds `data`, in one of the four folder orders."""
    short = re.sub(r"\W+", "_", embodiment).lower()
    return {
        "classic": root / task / f"demo_{setting}",
        "archive": root / task / f"{embodiment}_{setting}_50",
        "v1": root / f"demo_{setting}" / task / short,
        "v1-archive": root / task / short,
    }[layout]


def write_task(
    root: Path,
    layout: str,
    task: str,
    episodes: Sequence[int],
    *,
    variant: str | None = None,
    embodiment: str = "aloha-agilex",
    setting: str = "clean",
    num_frames: int = 6,
    n_arm: int = 6,
    size: tuple[int, int] = (48, 64),
    seen: Sequence[str] | None = SEEN,
    video: bool = False,
) -> Path:
    """Write a task's recordings with everything that lies beside them; returns the folder that holds `data`.

    Episode i has seed 100 + i and joint rows of seed i. seen None: no instruction files.
    """
    folder = task_folder(root, layout, task, embodiment, setting)
    kind = variant or ("classic" if layout in ("classic", "archive") else "native")
    for index in episodes:
        path = folder / "data" / episode_name(index, layout)
        written = write_episode(path, kind, num_frames, n_arm, size, index, seen=seen or [""])
        if video:
            write_video(folder / "video" / episode_name(index, layout, "mp4"), written.pictures["head_camera"])
        if seen is not None and layout != "v1-archive":
            name = "instruction" if layout == "v1" else "instructions"
            text = folder / name / episode_name(index, layout, "json")
            text.parent.mkdir(exist_ok=True)
            text.write_text(json.dumps({"seen": list(seen), "unseen": list(UNSEEN)}))
    last = max(episodes, default=-1)
    (folder / "seed.txt").write_text("".join(f"{100 + i} " for i in range(last + 1)))
    entry = {"cluttered_table_info": [], "info": {"{A}": "020_hammer/base0", "{a}": "left"}}
    (folder / "scene_info.json").write_text(json.dumps({f"episode_{i}": entry for i in episodes}, indent=4))
    return folder
