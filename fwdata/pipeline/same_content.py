"""Whether what a file that several recordings share holds of one of them is what a store took from it.

Recorders append episodes to a file (a LeRobot table and its videos, demonstrations of one HDF5 file), and every byte of
its digest changes with that. So a recording of such a file is read again, and is the same where its numbers, text and
images are those that the store holds: packets of video byte for byte, else every pixel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwdata.api import Camera, EncodedCamera, Episode, VideoCamera
from fwdata.images.video import VideoHeader
from fwdata.pipeline.changes import ChangedRecording, SourceCheck
from fwdata.pipeline.part import use_recording
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import CombinedDiscovery, RootedRecording
from fwdata.pipeline.workers import LeftOut, Link, RetryThenLeaveOut, Task, WorkerPool
from fwdata.store.episode import StoredEpisode
from fwdata.store.reader import open_store
from fwdata.store.records import EpisodeDecisionsRecord
from fwdata.store.stored_camera import stored_camera
from fwdata.store.video import open_track
from fwdata.store.video_writer import as_pixels

STEERED = ("embodiment", "segments", "instruction_per_frame")
"""Keys of an episode's metadata that training reads."""


def shared_files(recordings: Iterable[RootedRecording]) -> frozenset[str]:
    """Files that several recordings are read from, as the store calls them."""
    count = Counter(name for recording in recordings for name in recording.stored().files)
    return frozenset(name for name, times in count.items() if times > 1)


def drop_unchanged(request: ConvertRequest, found: CombinedDiscovery, check: SourceCheck, pool: WorkerPool) -> None:
    """Take recordings out of `check.changed` whose shared files changed, but not in what they hold of these recordings.

    Writes nothing. Cost: such recordings are read again, and so is what the store holds of them, up to the first
    difference.
    """
    shared = shared_files(found.recordings) if check.changed else frozenset()
    by_id = {recording.id: recording for recording in found.recordings}
    asked: dict[str, list[ChangedRecording]] = {}
    for item in check.changed:
        if item.grown and item.grown.keys() <= shared and len(item.grown) == len(item.files):
            asked.setdefault(item.part, []).append(item)
    tasks: list[Task] = [(request, name, [by_id[item.id] for item in items], {}) for name, items in asked.items()]
    losses = RetryThenLeaveOut(lambda task: f"comparing part {task[1]}", "run it again", "reading this recording")
    same = {name for names in pool.run(same_recordings, tasks, lambda *_: None, losses) for name in names}
    kept = [item for item in check.changed if item.id not in same]
    spoilt = {item.part for item in kept}
    for item in check.changed:
        if item.id in same and item.part not in spoilt:
            check.grown.setdefault(item.part, {}).update(item.grown)
    check.same += len(check.changed) - len(kept)
    check.changed = kept


def same_recordings(
    request: ConvertRequest, name: str, recordings: list[RootedRecording], left_out: LeftOut, *, link: Link
) -> list[str]:
    """Ids of those recordings of a part that are as they were stored."""
    store = open_store(request.out)
    part = next(part for part in store.parts if part.name == name)
    stored = {episode.id: episode for episode in store.episodes.of(part)}
    found = []
    for recording in recordings:
        same = use_recording(request, recording, partial(_same, stored=stored[recording.id]), left_out, link)
        if same is True:
            found.append(recording.id)
    return found


def _same(episode: Episode, stored: StoredEpisode) -> bool:
    """Whether training reads the same of both. Descriptions (`Episode.metadata`) and warnings are not compared."""
    new: tuple[NDArray[Any], ...] = (episode.state, episode.action, episode.timestamp_ns, episode.valid)
    old = stored
    rows: tuple[NDArray[Any], ...] = (old.state(), old.action(), old.timestamp_ns(), old.valid())
    if any(one.shape != other.shape or one.tobytes() != other.tobytes() for one, other in zip(new, rows, strict=True)):
        return False
    said, kept = EpisodeDecisionsRecord.model_validate(episode.stored_metadata()).to_json(), old.metadata
    if any((said.get(key) or None) != (kept.get(key) or None) for key in STEERED):  # absent is as good as empty
        return False
    if (episode.task, tuple(episode.instructions)) != (old.task, old.instructions):
        return False
    cameras = old.part.record.cameras
    return all(name in episode.cameras and _same_camera(episode.cameras[name], old, name) for name in cameras)


def _same_camera(camera: Camera, stored: StoredEpisode, name: str) -> bool:
    kind = stored.part.record.cameras[name].encoding
    if isinstance(camera, VideoCamera):
        if kind == "video" and _same_packets(camera, stored, name):
            return True
        camera = as_pixels(camera)
    if isinstance(camera, EncodedCamera):
        there = stored_camera(stored, name) if kind == "jpeg" else None
        return isinstance(there, EncodedCamera) and all(
            one is not None
            and other is not None
            and (one.data, one.red_blue_swapped) == (other.data, other.red_blue_swapped)
            for one, other in zip_longest(camera.frames(), there.frames())
        )
    return kind != "jpeg" and _same_pixels(camera.frames(), stored, name)


def _same_packets(camera: VideoCamera, stored: StoredEpisode, name: str) -> bool:
    """Whether packets, and the one that each row shows, are those that were stored."""
    track = open_track(stored.part, name)
    shown = track.picture[stored.start : stored.start + stored.num_frames]
    header = track.headers[int(track.header_of[track.entry_of(int(shown[0]))])]
    if camera.unkept or _decodes(camera.header) != _decodes(header) or camera.swapped != track.swapped:
        return False
    entry = track.entry_of(int(shown[0]))
    low, end = int(track.entry[track.run[entry]]), track.run_end(entry)
    offsets, entries = track.offset[low : end + 1] - track.offset[low], frozenset((track.entry - low).tolist())
    data = track.data.rows(int(track.offset[low]), int(track.offset[end])).tobytes()
    ranks, number = list[int](), -1
    for number, packet in enumerate(camera.packets()):
        if number >= end - low or packet.is_entry != (number in entries):
            return False
        if packet.data != data[int(offsets[number]) : int(offsets[number + 1])]:
            return False
        ranks.append(packet.rank)
    first = int(track.rank[low]) - ranks[0] if ranks else 0
    return (
        number + 1 == end - low
        and np.array_equal(np.asarray(ranks) + first, track.rank[low:end])
        and np.array_equal(np.asarray(camera.rows) + first, shown)
    )


def _decodes(header: VideoHeader) -> VideoHeader:
    """What decoding needs of a header; the start of a file is of use for writing alone."""
    return replace(header, init=b"")


def _same_pixels(blocks: Iterator[NDArray[np.uint8]], stored: StoredEpisode, name: str) -> bool:
    row = 0
    for block in blocks:
        rows = range(row, row + len(block))
        if rows.stop > stored.num_frames or not np.array_equal(block, stored.frames(name, rows)):
            return False
        row = rows.stop
    return row == stored.num_frames
