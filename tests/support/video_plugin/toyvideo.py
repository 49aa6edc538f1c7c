"""A converter for recordings of video: <root>/<task>/<name>.json names a clip and the frames of it, for each camera.

{"overhead": {"file": "a.mp4", "frames": [0, 1, 2]}, "wrist": {..}}      files beside it; frames by display position
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer

from fwdata.api import BadEpisode, Discovery, Episode, EpisodeRef, Manifest, VideoCamera
from fwdata.images.demux import index_packets


@dataclass(frozen=True)
class Clip:
    """A file, and which frames of it are rows; calling it decodes them."""

    path: Path
    wanted: tuple[int, ...]

    @contextmanager
    def open(self) -> Iterator[InputContainer]:
        with av.open(str(self.path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            yield container

    def __call__(self) -> Iterator[av.VideoFrame]:
        with self.open() as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in self.wanted:
                    yield frame


def camera(path: Path, wanted: list[int]) -> VideoCamera:
    """The camera of some frames of a clip."""
    clip = Clip(path, tuple(wanted))
    if path.read_bytes() == b"crash":
        os.abort()
    with clip.open() as container:
        stream = container.streams.video[0]
        size = stream.height, stream.width
    try:
        return VideoCamera.of_packets(index_packets(clip.open), np.asarray(wanted, np.int64), size, clip)
    except ValueError as error:
        raise BadEpisode(str(error)) from None


class Converter:
    """Reads the format above."""

    def __init__(self, manifest: Manifest) -> None:
        self.cameras = manifest.cameras

    def discover(self, root: Path) -> Discovery:
        refs = []
        for path in sorted(root.rglob("*.json")):
            name = path.relative_to(root).as_posix()
            refs.append(EpisodeRef(name.removesuffix(".json"), name, (name,), path.parent.name, path.stat().st_size))
        return Discovery(tuple(refs))

    def read(self, root: Path, ref: EpisodeRef) -> Episode:
        path = root / ref.source
        found: dict[str, Any] = json.loads(path.read_text())
        cameras = {name: camera(path.parent / c["file"], c["frames"]) for name, c in found.items()}
        rows = len(next(iter(found.values()))["frames"])
        numbers = np.cumsum(np.ones((rows, 2), np.float32), 0)
        return Episode(
            cameras={name: cameras[name] for name in self.cameras},
            state=numbers,
            action=numbers + 1,
            timestamp_ns=np.arange(rows, dtype=np.int64) * 100_000_000,
            valid=np.ones(rows, np.bool_),
            state_names=("x", "y"),
            action_names=("x", "y"),
            task=ref.group,
            instructions=("go on",),
        )
