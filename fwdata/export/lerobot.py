"""A store as a LeRobot v3.0 dataset, written by lerobot's own writer (LeRobotDataset of lerobot 0.6).

    observation.state, action      float32, with names
    observation.images.<camera>    every camera, upright RGB: the recorded video where the store keeps it,
                                   else video (lossy, lerobot's codec and quality) or PNG (exact)
    task                           per frame: the instruction, or the one of its segment where a recording has segments
    fps                            a whole number, as the format wants; the true rate stays in meta/fwdata.json
    meta/fwdata.json               where it came from: store, fingerprint, true rate, decisions, units
    meta/fwdata_videos.json        frames of every copied video, those included that no row has
    meta/fwdata_episodes.jsonl     one line per episode: id, source, split, all instructions, metadata, invalid frames

Timestamps of the dataset are frame / fps; true stamps and validity of rows have no place in the format. Written beside
the output as `.<name>.export` and renamed when it is whole; a killed export keeps the videos that it has copied, and
starts the rest again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fwdata.errors import FwdataError, UsageError
from fwdata.export.kept_videos import add_videos, take_back, write_videos
from fwdata.export.remux import CameraVideos, plan_videos
from fwdata.io import remove, sync, write_atomic
from fwdata.store.episode import StoredEpisode
from fwdata.store.files import canonical_json, refuse_nested, write_lock
from fwdata.store.reader import Store
from fwdata.wording import counted, verb

FRAME_BLOCK = 32
"""Frames of each camera decoded together."""

COPIED = ".videos"
"""Folder of an unfinished export with the videos that it has copied."""

MIN_VIDEO_SIDE = 64
"""Smallest side that lerobot's default video codec (SVT-AV1) takes."""

type ImageStorage = Literal["video", "image"]
type Size = tuple[int, int]


@dataclass(frozen=True)
class ExportRequest:
    """One `fwdata export lerobot` call."""

    store: Store
    """The store to export."""
    out: Path
    """Folder of the new dataset."""
    episodes: tuple[int, ...] | None = None
    """Indices of the store, in this order; None: all."""
    storage: ImageStorage = "video"
    """How images are written: as video (kept packets stay as they are) or as image files."""


@dataclass(frozen=True)
class ExportPlan:
    """What an export will write."""

    episodes: tuple[int, ...]
    """Indices of the episodes, in order."""
    frames: int
    """Rows of all of them."""
    fps: int
    """Rate that is written, Hz."""
    sizes: dict[str, Size]
    """(height, width) by camera."""
    decisions: tuple[str, ...]
    """Sentences, stored and printed."""
    videos: tuple[CameraVideos, ...] = ()
    """Cameras whose recorded packets are copied."""


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote."""

    plan: ExportPlan
    """What was planned, and so written."""
    seconds: float
    """Time of the whole call."""


def plan_export(request: ExportRequest) -> ExportPlan:
    """Check what an export will write; reads metadata only.

    UsageError for episodes that are not there, images whose size changes between episodes or is too small for video,
    an unfinished store, and an output that exists or is where lerobot cannot join videos.
    """
    store = request.store
    if not store.complete:
        raise UsageError(f"{store.location} is not wholly written yet; finish it by running the same command again")
    refuse_nested(request.out)
    if request.out.exists():
        raise UsageError(f"{request.out} exists; name a folder that does not exist yet, or remove it")
    chosen = tuple(range(len(store.episodes))) if request.episodes is None else request.episodes
    if not chosen:
        raise UsageError(f"there is no episode of {store.location} to export")
    wrong = [number for number in chosen if not 0 <= number < len(store.episodes)]
    if wrong:
        raise UsageError(f"{store.location} has episodes 0..{len(store.episodes) - 1}, asked for {wrong[0]}")
    if len(set(chosen)) < len(chosen):
        raise UsageError("an episode is asked for twice; name each once")
    episodes = [store.episodes[number] for number in chosen]
    planned = (plan_videos(episodes, name) for name in store.cameras) if request.storage == "video" else ()
    videos = tuple(found for found in planned if found is not None)
    encoded = [name for name in store.cameras if name not in {found.camera for found in videos}]
    sizes = _sizes(store, episodes, encoded if request.storage == "video" else [])
    if encoded and request.storage == "video" and "'" in str(request.out.resolve()):
        raise UsageError(
            f"{request.out.resolve()}: lerobot's writer joins no videos in a folder with ' in its path; choose "
            "another one, or use --image"
        )
    fps = max(1, round(store.fps))
    invalid = sum(int((~episode.valid()).sum()) for episode in episodes)
    decisions = [
        f"rate: {store.fps:.6g} Hz written as {fps} fps, the format takes whole numbers; the true rate is in "
        "meta/fwdata.json",
        "timestamps are frame / fps",
        *_image_decisions(request, videos, encoded),
    ][0 if fps != store.fps else 1 :]
    if invalid:
        decisions.append(
            f"{counted(invalid, 'frame')} marked invalid {verb(invalid, 'is', 'are')} kept; "
            "meta/fwdata_episodes.jsonl lists them"
        )
    return ExportPlan(chosen, sum(episode.num_frames for episode in episodes), fps, sizes, tuple(decisions), videos)


def _image_decisions(request: ExportRequest, videos: Sequence[CameraVideos], encoded: Sequence[str]) -> Iterator[str]:
    if request.storage == "image":
        yield "images: PNG, exact"
        return
    if videos:
        names = ", ".join(found.camera for found in videos)
        yield f"images of {names}: the recorded video, packets copied"
    if encoded:
        yield f"images of {', '.join(encoded)}: lossy video, as lerobot encodes it"


def _sizes(store: Store, episodes: Sequence[StoredEpisode], encoded: Sequence[str]) -> dict[str, Size]:
    """Sizes of all cameras; encoded: those that a video encoder will take."""
    first = episodes[0].details.metadata.camera_sizes
    for episode in episodes[1:]:
        for name in store.cameras:
            found = episode.details.metadata.camera_sizes[name]
            if found != first[name]:
                raise UsageError(
                    f"camera {name} is {found[0]}x{found[1]} in episode {episode.index}, {first[name][0]}x"
                    f"{first[name][1]} in episode {episodes[0].index}; a dataset has one size, export them apart with "
                    "--episodes"
                )
    sizes = {name: (first[name][0], first[name][1]) for name in store.cameras}
    small = [name for name in encoded if min(sizes[name]) < MIN_VIDEO_SIDE]
    if small:
        raise UsageError(
            f"camera {small[0]} is {sizes[small[0]][0]}x{sizes[small[0]][1]}, the video codec takes at least "
            f"{MIN_VIDEO_SIDE} pixels a side; use --image"
        )
    return sizes


def export_lerobot(
    request: ExportRequest,
    on_plan: Callable[[ExportPlan], None] = lambda _: None,
    on_frames: Callable[[int], None] = lambda _: None,
) -> ExportReport:
    """Write the dataset; see the module.

    Cost: lerobot's writer, some 50 to 300 frames a second per camera; memory: one episode's rows, and with images
    "image" its PNG files. No network. Raises what `plan_export` raises, and FwdataError when the writer fails.
    """
    began = time.monotonic()
    plan = plan_export(request)
    on_plan(plan)
    out = request.out
    beside = out.parent / f".{out.name}.export"
    with write_lock(beside):
        dataset, copied = beside / "dataset", beside / COPIED
        _start_again(beside)
        with quiet():
            _write(request, plan, dataset, copied, on_frames)
        shutil.rmtree(dataset / "images", ignore_errors=True)  # where the writer kept its images on the way
        _write_provenance(request, plan, dataset / "meta")
        for path in sorted(p for p in dataset.rglob("*") if p.is_file()):
            sync(path)
        if out.exists():
            raise UsageError(f"{out} appeared while it was being written; the export is in {dataset}")
        for path in sorted(dataset.iterdir()):
            path.rename(beside / path.name)
        dataset.rmdir()
        shutil.rmtree(copied, ignore_errors=True)
        beside.rename(out)  # last, so that a kill leaves the dataset whole or the folder beside it
        sync(out.parent)
    return ExportReport(plan, time.monotonic() - began)


def _start_again(beside: Path) -> None:
    """Remove what a killed export left but the videos that it had copied."""
    for place in (beside, beside / "dataset"):
        take_back(beside / COPIED, place)
    for path in beside.iterdir():
        if path.name != COPIED:
            remove(path)


def features(store: Store, plan: ExportPlan, storage: ImageStorage) -> dict[str, dict[str, object]]:
    """The dataset's features, as LeRobotDataset.create takes them."""
    found: dict[str, dict[str, object]] = {}
    for key, names in (("observation.state", store.state_names), ("action", store.action_names)):
        found[key] = {"dtype": "float32", "shape": (len(names),), "names": list(names)}
    copied = {video.camera for video in plan.videos}
    for name, (height, width) in plan.sizes.items():
        if name in copied:
            continue  # added when the rows are written
        shape = {"shape": (height, width, 3), "names": ["height", "width", "channels"]}
        found[f"observation.images.{name}"] = {"dtype": storage, **shape}
    return found


def _write(
    request: ExportRequest, plan: ExportPlan, folder: Path, copied: Path, on_frames: Callable[[int], None]
) -> None:
    store = request.store
    robot = next(iter(sorted(store.embodiments)), store.source)
    episodes = [store.episodes[number] for number in plan.episodes]
    origin = {"fingerprint": store.fingerprint, "episodes": list(plan.episodes)}
    if plan.videos:
        write_videos(copied, plan.videos, plan.fps, origin, lambda frames: None)
    encoded = [name for name in plan.sizes if name not in {video.camera for video in plan.videos}]
    frames = (episode_frames(episode, encoded) for episode in episodes)
    write_dataset(folder, features(store, plan, request.storage), plan.fps, robot, frames, on_frames)
    if plan.videos:
        add_videos(folder, copied, plan.videos, episodes, plan.fps)


def write_dataset(
    folder: Path,
    features: Mapping[str, Any],
    fps: int,
    robot: str,
    episodes: Iterable[Iterable[dict[str, object]]],
    on_frames: Callable[[int], None] = lambda _: None,
) -> None:
    """Write frames, episode by episode, with lerobot's writer. FwdataError when it fails."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    try:
        dataset = LeRobotDataset.create(
            repo_id=f"local/{folder.name}",
            fps=fps,
            features=dict(features),
            root=folder,
            robot_type=robot,
            use_videos=any(feature["dtype"] == "video" for feature in features.values()),
        )
        for frames in episodes:
            for frame in frames:
                dataset.add_frame(frame)
                on_frames(1)
            dataset.save_episode(parallel_encoding=False)
        dataset.finalize()
        _sort_keys(folder / "meta/stats.json")
    except (RuntimeError, ValueError) as error:
        if isinstance(error, FwdataError):
            raise
        raise FwdataError(f"lerobot's writer failed: {error}") from error


def _sort_keys(path: Path) -> None:
    """Write a JSON document with its keys in order: lerobot takes those of the statistics from a set, whose order is
    another one in every process."""
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(content, indent=4, sort_keys=True, ensure_ascii=False), encoding="utf-8")


def episode_frames(episode: StoredEpisode, cameras: Sequence[str]) -> Iterator[dict[str, object]]:
    """One dictionary per frame, as LeRobotDataset.add_frame takes it; images of `cameras` are decoded in blocks."""
    state, action, tasks = episode.state(), episode.action(), frame_tasks(episode)
    for low in range(0, episode.num_frames, FRAME_BLOCK):
        block = np.arange(low, min(low + FRAME_BLOCK, episode.num_frames))
        shown = {f"observation.images.{name}": episode.frames(name, block) for name in cameras}
        for offset, row in enumerate(block):
            views = {key: frames[offset] for key, frames in shown.items()}
            yield {"observation.state": state[row], "action": action[row], **views, "task": tasks[row]}


def frame_tasks(episode: StoredEpisode) -> list[str]:
    """The task text of every frame: the instruction of a window that starts there."""
    return [episode.instruction_at(frame) for frame in range(episode.num_frames)]


def _write_provenance(request: ExportRequest, plan: ExportPlan, meta: Path) -> None:
    store = request.store
    content = {
        "store": Path(store.location).name,
        "fingerprint": store.fingerprint,
        "fps": store.fps,
        "fps_label": plan.fps,
        "export_decisions": list(plan.decisions),
        **{key: store.metadata.get(key) for key in ("source", "decisions", "units", "roots", "merged", "writer")},
        "manifest": store.metadata["manifest"],
    }
    write_atomic(meta / "fwdata.json", canonical_json(content))
    with (meta / "fwdata_episodes.jsonl").open("w", encoding="utf-8") as file:
        for index, number in enumerate(plan.episodes):
            json.dump(_about(index, store.episodes[number]), file, sort_keys=True, ensure_ascii=False)
            file.write("\n")


def _about(index: int, episode: StoredEpisode) -> dict[str, object]:
    return {
        "episode_index": index,
        "id": episode.id,
        "source": episode.source,
        "task": episode.task,
        "split": episode.split,
        "instructions": list(episode.instructions),
        "metadata": episode.metadata,
        "invalid_frames": np.flatnonzero(~episode.valid()).tolist(),
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """lerobot, datasets and the video codec say nothing, and nobody asks the network."""
    for name, value in {"HF_DATASETS_OFFLINE": "1", "SVT_LOG": "1"}.items():
        os.environ.setdefault(name, value)
    import av.logging
    import datasets
    from huggingface_hub import constants

    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    showed = not datasets.are_progress_bars_disabled()
    level = logging.root.manager.disable
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)
    av.logging.set_libav_level(av.logging.ERROR)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline  # the hub may be asked again, as by --push
        logging.disable(level)
        av.logging.set_libav_level(av.logging.INFO)  # libav's own default
        if showed:
            datasets.enable_progress_bars()
