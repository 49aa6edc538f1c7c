"""Text of a converter of ROS bags; words between @ signs are replaced."""

from __future__ import annotations

BAG = '''"""@NAME@ recordings: one bag per episode, RAW/<task>/<episode>@SUFFIX@.

A row is an image of the first camera; of all other topics it has the latest message.
@FOUND@"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError

from fwdata.api import BadEpisode, Discovery, EncodedCamera, EncodedFrame, Episode, EpisodeRef, Manifest, UsageError

STATE = @STATE@
ACTION = @ACTION@
"""Topics of numbers, joined in this order."""
CAMERAS = @CAMERAS@
"""Camera name in the manifest -> topic of its JPEG images."""
FIELDS = @FIELDS@
"""Type of a message -> its field of numbers."""


@dataclass(frozen=True)
class Frames:
    """Opens fresh passes over the images of one topic, those of the rows alone."""

    path: Path
    topic: str
    rows: tuple[int, ...]

    def __call__(self) -> Iterator[EncodedFrame]:
        wanted = list(self.rows)
        with AnyReader([self.path]) as bag:
            for number, (data, _) in enumerate(messages(bag, self.topic)):
                while wanted and wanted[0] == number:  # a row may show the image of the one before
                    yield EncodedFrame(bytes(data.data))
                    wanted.pop(0)


def messages(bag: AnyReader, topic: str):
    """(message, stamp in nanoseconds) in order; the time in the bag where a message has no header."""
    for connection, logged, raw in bag.messages([c for c in bag.connections if c.topic == topic]):
        message = bag.deserialize(raw, connection.msgtype)
        stamp = getattr(getattr(message, "header", None), "stamp", None)
        yield message, logged if stamp is None else stamp.sec * 10**9 + stamp.nanosec


class Converter:
    """Reads the layout above."""

    version = 1

    def __init__(self, manifest: Manifest) -> None:
        self.cameras = manifest.cameras

    def discover(self, root: Path) -> Discovery:
        refs = []
        for path in sorted([*root.rglob("*.bag"), *(p.parent for p in root.rglob("metadata.yaml"))]):
            parts = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
            name = path.relative_to(root).as_posix() if path != root else root.name
            files = tuple(p.relative_to(root).as_posix() for p in parts)
            group = path.parent.name if path.parent != root else root.name
            refs.append(EpisodeRef(name.removesuffix(".bag"), name, files, group, sum(p.stat().st_size for p in parts)))
        if not refs:
            raise UsageError(f"{root} holds no bag")
        return Discovery(tuple(refs))

    def read(self, root: Path, ref: EpisodeRef) -> Episode:
        path = (root / ref.files[0]).parent if not ref.files[0].endswith(".bag") else root / ref.files[0]
        try:
            with AnyReader([path]) as bag:
                values = {topic: self._numbers(bag, topic) for topic in dict.fromkeys((*STATE, *ACTION))}
                stamps = {name: self._stamps(bag, CAMERAS[name]) for name in self.cameras}
                first = {name: next(messages(bag, CAMERAS[name]))[0] for name in self.cameras}
        except (AnyReaderError, OSError) as error:
            raise BadEpisode(f"cannot be read: {error}") from None
        times = stamps[self.cameras[0]]
        times = times[times >= max(t[0] for t in [*(t for t, _ in values.values()), *stamps.values()])]
        state, state_names = self._joined(values, STATE, times)
        action, action_names = self._joined(values, ACTION, times)
        return Episode(
            cameras={
                name: self._camera(path, CAMERAS[name], first[name], self._latest(stamps[name], times))
                for name in self.cameras
            },
            state=state,
            action=action,
            timestamp_ns=times,
            valid=np.ones(len(times), bool),
            state_names=state_names,
            action_names=action_names,
            task=ref.group,
            instructions=(ref.group.replace("_", " "),),
        )

    def _camera(self, path: Path, topic: str, first, rows: np.ndarray) -> EncodedCamera:
        from simplejpeg import decode_jpeg_header

        height, width, _, _ = decode_jpeg_header(bytes(first.data))
        return EncodedCamera(Frames(path, topic, tuple(rows.tolist())), height, width)

    def _stamps(self, bag: AnyReader, topic: str) -> np.ndarray:
        found = np.array([stamp for _, stamp in messages(bag, topic)], np.int64)
        if not len(found):
            raise BadEpisode(f"topic {topic} has no message")
        return found

    def _numbers(self, bag: AnyReader, topic: str) -> tuple[np.ndarray, np.ndarray]:
        rows = [(stamp, getattr(m, FIELDS[m.__msgtype__])) for m, stamp in messages(bag, topic)]
        if not rows:
            raise BadEpisode(f"topic {topic} has no message")
        return np.array([stamp for stamp, _ in rows], np.int64), np.array([row for _, row in rows], np.float64)

    def _latest(self, stamps: np.ndarray, times: np.ndarray) -> np.ndarray:
        return np.searchsorted(stamps, times, side="right") - 1

    def _joined(self, values, topics: tuple[str, ...], times: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        parts = [values[topic][1][self._latest(values[topic][0], times)] for topic in topics]
        plain = [topic.strip("/").replace("/", ".") for topic in topics]
        names = [f"{name}.{i}" for name, part in zip(plain, parts) for i in range(part.shape[1])]
        return np.concatenate(parts, axis=1), tuple(names)
'''
