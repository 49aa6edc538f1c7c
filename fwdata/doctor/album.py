"""Single episodes to look at again, for the page: of a store, or of recordings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fwdata.api import Camera, Episode
from fwdata.images.colour import ToRgb
from fwdata.images.jpeg import decode_rgb
from fwdata.pipeline.part import Unreadable, use_recording
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import RootedRecording
from fwdata.pipeline.workers import LocalLink
from fwdata.store.reader import Store

type Frames = Callable[[str, Sequence[int]], NDArray[np.uint8]]
"""(camera, rows in order) -> uint8 [n, H, W, 3], true RGB."""


@dataclass(frozen=True, eq=False)
class ShownEpisode:
    """One episode."""

    id: str
    """The episode's id in the store."""
    state: NDArray[np.float32]
    """float32 [T, Ds]."""
    action: NDArray[np.float32]
    """float32 [T, Da]."""
    names: tuple[tuple[str, ...], tuple[str, ...]]
    """Of the state and of the action columns."""
    seconds: NDArray[np.float64]
    """float64 [T], from the first frame."""
    valid: NDArray[np.bool_]
    """bool [T], False where alignment rules marked the frame."""
    instruction: str
    """The canonical instruction."""
    cameras: tuple[str, ...]
    """Names of its cameras."""
    frames: Frames
    """Reads images."""


class Album(Protocol):
    """Episodes by id."""

    def episode(self, name: str | None) -> ShownEpisode | None:
        """One episode, the first for None; None where there is no such episode, or it cannot be read."""


class StoredAlbum:
    """The episodes of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        records = [record for part in store.parts for record in part.record.episodes]
        self._index = {record.id: number for number, record in enumerate(records)}

    def episode(self, name: str | None) -> ShownEpisode | None:
        """See `Album`."""
        number = (0 if self._index else None) if name is None else self._index.get(name)
        if number is None:
            return None
        found = self._store.episodes[number]
        cameras = tuple(name for name in self._store.cameras if name in found.part.record.cameras)
        names = self._store.state_names, self._store.action_names
        rows = found.state(), found.action()
        stamps = found.timestamps(), found.valid()
        return ShownEpisode(found.id, *rows, names, *stamps, found.instruction, cameras, found.frames)


class RecordingAlbum:
    """Recordings, read again in this process; those that could not be read when they were examined are not shown."""

    def __init__(self, request: ConvertRequest, recordings: Sequence[RootedRecording]) -> None:
        self._request = request
        self._known = {recording.id: recording for recording in recordings}

    def episode(self, name: str | None) -> ShownEpisode | None:
        """See `Album`."""
        recording = next(iter(self._known.values()), None) if name is None else self._known.get(name)
        if recording is None:
            return None

        def show(episode: Episode) -> ShownEpisode:
            return _shown(recording.id, episode)

        found = use_recording(self._request, recording, show, {}, LocalLink(lambda *_: None))
        return None if isinstance(found, Unreadable) else found


def _shown(name: str, episode: Episode) -> ShownEpisode:
    cameras: Mapping[str, Camera] = episode.cameras

    def frames(camera: str, rows: Sequence[int]) -> NDArray[np.uint8]:
        return read_frames(cameras[camera], rows)

    names = tuple(episode.state_names), tuple(episode.action_names)
    stamps = episode.timestamp_ns / 1e9, episode.valid
    text = episode.instructions[0]
    return ShownEpisode(name, episode.state, episode.action, names, *stamps, text, tuple(cameras), frames)


def read_frames(camera: Camera, rows: Sequence[int]) -> NDArray[np.uint8]:
    """uint8 [n, H, W, 3] of some rows, in order, from one pass over a camera; rows that it lacks are left out."""
    wanted, found, row = set(rows), list[NDArray[np.uint8]](), 0
    last = max(wanted, default=-1)
    if camera.encoding == "raw":
        for block in camera.frames():
            found += [block[i].copy() for i in range(len(block)) if row + i in wanted]
            row += len(block)
            if row > last:
                break
    elif camera.encoding == "jpeg":
        for row, encoded in zip(range(last + 1), camera.frames(), strict=False):
            if row in wanted:
                found.append(decode_rgb(encoded.data, encoded.red_blue_swapped))
    else:
        convert = ToRgb()
        for row, frame in zip(range(last + 1), camera.frames(), strict=False):
            if row in wanted:
                rgb = convert(frame)
                found.append(rgb[..., ::-1] if camera.swapped else rgb)
    return np.stack(found) if found else np.zeros((0, camera.height, camera.width, 3), np.uint8)
