"""Texts of a new converter's files; `NAME` and other words in capitals are replaced."""

from __future__ import annotations

FOLDER = '''"""@NAME@ recordings: a folder per episode with @TABLE@ and @CAMERA_KINDS@.

    RAW/<task>/<episode>/@TABLE@   one row per frame
    RAW/<task>/<episode>/<camera>   @CAMERA_LAYOUT@
@FOUND@"""

from __future__ import annotations

@IMPORT@from pathlib import Path

import numpy as np
@IMPORT_NEXT@
from fwdata.api import BadEpisode, Discovery, Episode, EpisodeRef, Manifest, @CAMERA_CLASSES@UsageError@CAMERA_CLASS@

TABLE = "@TABLE@"
@TEXT@STATE = @STATE@
ACTION = @ACTION@
CAMERAS = @CAMERAS@
"""Camera name in the manifest -> @CAMERA_OF@."""


class Converter:
    """Reads the layout above."""

    version = 1

    def __init__(self, manifest: Manifest) -> None:
        self.cameras = manifest.cameras
        self.step_ns = round(1e9 / manifest.fps.hz)

    def discover(self, root: Path) -> Discovery:
        refs = []
        for table in sorted(root.rglob(TABLE)):
            episode = table.parent
            paths = [table, @TEXT_FILE@*(p for name in CAMERAS.values() for p in self._files(episode / name))]
            files = tuple(p.relative_to(root).as_posix() for p in paths)
            name = episode.relative_to(root).as_posix() if episode != root else root.name
            size = sum(p.stat().st_size for p in paths if p.is_file())
            refs.append(EpisodeRef(name, name, files, episode.parent.name or root.name, size))
        if not refs:
            raise UsageError(f"{root} holds no {TABLE}")
        return Discovery(tuple(refs))

    def read(self, root: Path, ref: EpisodeRef) -> Episode:
        folder = (root / ref.files[0]).parent
        columns = self._table(folder / TABLE)
        state, state_names = self._joined(columns, STATE)
        action, action_names = self._joined(columns, ACTION)
        return Episode(
            cameras={name: self._camera(folder / CAMERAS[name]) for name in self.cameras},
            state=state,
            action=action,
            timestamp_ns=np.arange(len(state)) * self.step_ns,
            valid=np.ones(len(state), bool),
            state_names=state_names,
            action_names=action_names,
            task=ref.group,
            instructions=(@INSTRUCTION@,),
        )

    def _files(self, camera: Path) -> list[Path]:
        return [camera] if camera.is_file() else sorted(p for p in camera.glob("*") if p.is_file())

    def _camera(self, path: Path):
@CAMERA_BODY@

@TEXT_METHOD@    def _table(self, path: Path):
@TABLE_BODY@

    def _joined(self, columns, keys: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
        parts, names = [], []
        for key in keys:
            if key not in columns:
                raise BadEpisode(f"{TABLE} has no column {key!r}; it has {', '.join(columns)}")
            try:
                part = np.asarray(columns[key], np.float64)
            except (TypeError, ValueError) as error:
                raise BadEpisode(f"{TABLE} holds a value that is not a number: {error}") from None
            names += [key] if part.ndim == 1 else [f"{key}.{i}" for i in range(part.shape[1])]
            parts.append(part.reshape(len(part), -1))
        return np.concatenate(parts, axis=1), tuple(names)
'''

IMAGES_BODY = """        return RawCamera.from_files(self._files(path))"""
VIDEO_BODY = """        return VideoCamera.from_file(path)"""
BOTH_BODY = """\
        if path.is_file():
            return VideoCamera.from_file(path)
        return RawCamera.from_files(self._files(path))"""

TEXT_METHOD = """    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise BadEpisode(f"{TEXT} cannot be read: {error}") from None

"""

CSV_BODY = """        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {str(name).strip(): [row[name] for row in rows] for name in (rows[0] if rows else ())}"""
NPZ_BODY = """        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file}
        except (OSError, ValueError, EOFError) as error:
            raise BadEpisode(f"{TABLE} cannot be read: {error}") from None"""
PARQUET_BODY = """        try:
            return pq.read_table(path, use_threads=False).to_pydict()
        except (OSError, ValueError) as error:
            raise BadEpisode(f"{TABLE} cannot be read: {error}") from None"""

ARRAYS = '''"""@NAME@ recordings: one @KIND@ file per episode, RAW/<task>/<episode>@SUFFIX@.
@FOUND@"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

@IMPORT@import numpy as np

from fwdata.api import BadEpisode, Discovery, Episode, EpisodeRef, Manifest, RawCamera, UsageError

STATE = @STATE@
ACTION = @ACTION@
CAMERAS = @CAMERAS@
"""Camera name in the manifest -> array of its frames, uint8 [T, H, W, 3] RGB."""

BLOCK = 16


@dataclass(frozen=True)
class Frames:
    """Opens fresh passes over the frames of one camera."""

    path: Path
    key: str

    def __call__(self) -> Iterator[np.ndarray]:
        with @OPEN_SELF@ as file:
            frames = file[self.key]
            for start in range(0, len(frames), BLOCK):
                yield frames[start : start + BLOCK]


class Converter:
    """Reads the layout above."""

    version = 1

    def __init__(self, manifest: Manifest) -> None:
        self.cameras = manifest.cameras
        self.step_ns = round(1e9 / manifest.fps.hz)

    def discover(self, root: Path) -> Discovery:
        refs = []
        for path in sorted(root.rglob("*@SUFFIX@")):
            name = path.relative_to(root).as_posix()
            group = path.parent.name if path.parent != root else root.name
            refs.append(EpisodeRef(name.removesuffix("@SUFFIX@"), name, (name,), group, path.stat().st_size))
        if not refs:
            raise UsageError(f"{root} holds no *@SUFFIX@ file")
        return Discovery(tuple(refs))

    def read(self, root: Path, ref: EpisodeRef) -> Episode:
        path = root / ref.source
        with self._open(path) as file:
            for key in (*STATE, *ACTION, *CAMERAS.values()):
                if key not in file:
                    raise BadEpisode(f"array {key!r} is missing")
            state, state_names = self._joined(file, STATE)
            action, action_names = self._joined(file, ACTION)
            sizes = {name: file[CAMERAS[name]].shape[1:3] for name in self.cameras}
        return Episode(
            cameras={n: RawCamera(Frames(path, CAMERAS[n]), int(h), int(w)) for n, (h, w) in sizes.items()},
            state=state,
            action=action,
            timestamp_ns=np.arange(len(state)) * self.step_ns,
            valid=np.ones(len(state), bool),
            state_names=state_names,
            action_names=action_names,
            task=ref.group,
            instructions=(ref.group.replace("_", " "),),
        )

    def _open(self, path: Path):
        try:
            return @OPEN@
        except (OSError, ValueError) as error:
            raise BadEpisode(f"cannot be read: {error}") from None

    def _joined(self, file, keys: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
        parts = [np.asarray(file[key], np.float64) for key in keys]
        names = [f"{key.split('/')[-1]}.{i}" for key, part in zip(keys, parts) for i in range(part.shape[1])]
        return np.concatenate(parts, axis=1), tuple(names)
'''

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

MANIFEST = """# What fwdata stores (cameras, fps, units, options) and how it is used (stitch, window, split, prompt).
name: @NAME@
converter: @NAME@
description: Recordings of @NAME@
fps: @FPS@
cameras: [@CAMERA_LIST@]
stitch:
  layout: horizontal
  camera_size: [@HEIGHT@, @WIDTH@]     # every camera is resized to it; sides of the stitched image are multiples of 32
split: {val: 0.1, seed: 42}
units: {state: raw, action: raw}
options: {}
"""

TEST = '''"""The converter of @NAME@ keeps the contract on its fixture. Run: FWDATA_PLUGINS=. pytest test_@NAME@.py"""

from __future__ import annotations

from pathlib import Path

from fwdata.scaffold.check import check_converter

HERE = Path(__file__).parent


def test_the_converter_keeps_the_contract(monkeypatch):
    monkeypatch.setenv("FWDATA_PLUGINS", str(HERE))
    report = check_converter("@NAME@", HERE / "fixture")
    assert report.faults == ()
    assert report.episodes >= 1
'''
