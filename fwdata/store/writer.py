"""Writing episodes: one part by one process, complete only when its zarr.json is written, last.

writer = PartWriter(store, "p00003", ...)     an attempt in a folder of its own, see `fwdata.store.attempts`
writer.add(ref, episode)                       BadEpisode leaves the part exactly as it was before
writer.commit()                                digests and mark, then the rename that makes its episodes visible
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwdata.api import Camera, EncodedCamera, EncodedFrame, Episode, EpisodeRef, RawCamera, VideoCamera
from fwdata.cameras import FillsMemory
from fwdata.errors import BadEpisode
from fwdata.evidence.thumbnails import Collector
from fwdata.images.jpeg import jpeg_size
from fwdata.io import json_fault
from fwdata.store.array import ArrayWriter, write_documents, write_table
from fwdata.store.attempts import UnitAttempt, whole_digests
from fwdata.store.episode import StoredEpisode
from fwdata.store.files import ensure_groups
from fwdata.store.layout import LINES_LAYOUT, byte_array, frame_array
from fwdata.store.metadata import COMPLETE, write_record
from fwdata.store.records import (
    FIRST_VERSION,
    CameraRecord,
    DetailsRecord,
    EpisodeDecisionsRecord,
    EpisodeRecord,
    FileRecord,
    LeftOutRecord,
    PartRecord,
    PartSources,
)
from fwdata.store.sources import SourceFile, write_sources
from fwdata.store.spool import FrameMemory, HeldBuffers, frame_bytes, is_memory
from fwdata.store.stored_camera import stored_camera
from fwdata.store.video_writer import VideoCameraWriter, VideoSpool, as_pixels

SPOOL_BYTES = 64 * 2**20
"""Frames of one camera of the episode in flight are held in memory up to here, then in a temporary file."""


class _CameraWriter:
    """One camera of one part: JPEG buffers (data, offset, swapped) or raw frames."""

    def __init__(self, folder: Path, camera: EncodedCamera | RawCamera, named: bool, layout: int) -> None:
        self.folder, self.encoding, self._named = folder, camera.encoding, named
        self.size = (camera.height, camera.width)
        spec = byte_array() if camera.encoding == "jpeg" else frame_array(*self.size, layout)
        self.writer = ArrayWriter(folder / ("data" if camera.encoding == "jpeg" else "frames"), spec, named=named)
        self.offsets = [0]
        self.swapped: list[bool] = []

    def check(self, name: str, camera: Camera) -> None:
        """BadEpisode when the camera cannot be appended to this part."""
        if camera.encoding != self.encoding:
            found = f"camera {name}: holds {camera.encoding} frames, the part holds {self.encoding}"
            raise BadEpisode(f"{found}; convert each kind to a store of its own (--only, --exclude)")
        if camera.encoding == "raw" and (camera.height, camera.width) != self.size:
            raise BadEpisode(
                f"camera {name}: frames are {camera.height}x{camera.width}, the part holds "
                f"{self.size[0]}x{self.size[1]}; convert recordings of different sizes to different stores"
            )

    def append(self, spool: _Spool | VideoSpool) -> None:
        assert isinstance(spool, _Spool)
        for data in spool.read():
            self.writer.append(np.frombuffer(data, np.uint8).reshape(-1, *self.writer.spec.row_shape))
        if self.encoding == "jpeg":
            start = self.offsets[-1]
            self.offsets += (start + np.cumsum(spool.held.lengths)).tolist()
            self.swapped += spool.swapped

    def finish(self) -> CameraRecord:
        self.writer.finish()
        height, width = self.size
        if self.encoding == "raw":
            return CameraRecord(encoding="raw", height=height, width=width, channel_order="rgb")
        write_table(self.folder / "offset", np.asarray(self.offsets, np.int64), self._named)
        write_table(self.folder / "swapped", np.asarray(self.swapped, np.bool_), self._named)
        kinds = set(self.swapped)
        order = "per frame, see array 'swapped'" if len(kinds) == 2 else ("bgr" if True in kinds else "rgb")
        return CameraRecord(encoding="jpeg", height=height, width=width, channel_order=order, media_type="image/jpeg")


class _Spool:
    """One camera's frames of the episode in flight, checked and counted before any of them reaches the part."""

    def __init__(
        self,
        name: str,
        camera: EncodedCamera | RawCamera,
        expected: int,
        folder: Path,
        taken: Collector | None,
        memory: FrameMemory | None,
    ) -> None:
        self._taken, self._memory = taken, memory
        self.held = HeldBuffers(folder, SPOOL_BYTES)
        self.swapped: list[bool] = []
        self.warnings: list[str] = []
        try:
            self._fill(name, camera, expected)
        except BaseException:
            self.close()
            raise

    def _fill(self, name: str, camera: EncodedCamera | RawCamera, expected: int) -> None:
        if isinstance(camera, EncodedCamera):
            filled = self._fill_jpeg(name, camera)
        else:
            filled = self._fill_raw(name, camera, expected)
        count = 0
        for count in filled:
            if count > expected:  # at once: a stream without an end must not fill the disk
                raise BadEpisode(f"camera {name}: holds more frames than the {expected} rows of state and action")
        if count != expected:
            raise BadEpisode(f"camera {name}: holds {count} frames, state and action hold {expected} rows")

    def _fill_jpeg(self, name: str, camera: EncodedCamera) -> Iterator[int]:
        """Take in buffer after buffer; yields how many there are so far."""
        for index, frame in enumerate(camera.frames()):
            try:
                check_jpeg(frame, camera.height, camera.width, self._taken)
            except ValueError as error:
                raise BadEpisode(f"camera {name}, frame {index}: {error}") from None
            self.held.add(bytes(frame.data))
            self.swapped.append(frame.red_blue_swapped)
            yield len(self.swapped)

    def _fill_raw(self, name: str, camera: RawCamera, expected: int) -> Iterator[int]:
        """Take in block after block; yields how many frames there are so far."""
        count = 0
        blocks, room = self._blocks(camera, expected)
        for block in blocks:
            if block.dtype != np.uint8 or block.shape[1:] != (camera.height, camera.width, 3):
                raise BadEpisode(
                    f"camera {name}, frame {count}: expected uint8 [n, {camera.height}, {camera.width}, 3], "
                    f"found {block.dtype} {list(block.shape)}"
                )
            if self._taken is not None:
                self._taken.add_rgb(block)
            first, count = count, count + len(block)
            if room is None or count > expected:
                self.held.add(frame_bytes(block))
            elif is_memory(block, room[first:count]):
                self.held.add(memoryview(block.reshape(-1)))
            else:  # may have been written over one that is held
                raise BadEpisode(f"camera {name}, frame {first}: the converter did not write it where it was asked to")
            yield count

    def _blocks(self, camera: RawCamera, expected: int) -> tuple[Iterator[NDArray[np.uint8]], NDArray[np.uint8] | None]:
        """The blocks of a camera, and the memory that they are asked to lie in, if any."""
        frames: object = camera.frames
        if self._memory is not None and isinstance(frames, FillsMemory):
            room = self._memory.room(expected, camera.height, camera.width)
            if room is not None:
                return frames.into(room), room
        return camera.frames(), None

    def read(self) -> Iterator[bytes | memoryview]:
        """The frames again, whole ones, several at a time."""
        return self.held.pieces()

    def close(self) -> None:
        self.held.close()


def _spool(
    name: str,
    camera: Camera,
    expected: int,
    folder: Path,
    taken: Collector | None = None,
    memory: FrameMemory | None = None,
) -> _Spool | VideoSpool:
    """The frames of a camera, checked; BadEpisode where they are not those of the expected rows.

    memory: lent to a camera that can fill it until the spool is closed.
    """
    try:
        if isinstance(camera, VideoCamera):
            return VideoSpool(name, camera, expected, folder, SPOOL_BYTES, taken)
        return _Spool(name, camera, expected, folder, taken, memory)
    except IndexError as error:  # of the converter's own iterator
        raise BadEpisode(
            f"camera {name}: has no frame for some of the {expected} rows of state and action ({error})"
        ) from None


@dataclass(frozen=True)
class FrameLook:
    """What else is done with the frames of an episode while they are checked, so that they are read once."""

    taken: Mapping[str, Collector]
    """Camera -> given its frames as they pass by."""
    approve: Callable[[], None]
    """Called when all frames are checked and none is appended yet; BadEpisode keeps the episode out."""


@dataclass
class PartWriter:
    """Writes one part. Not thread-safe; one process per part."""

    store: Path
    """Root of the store."""
    name: str
    """"p00003"."""
    group: str
    """Natural unit of its episodes."""
    cameras: tuple[str, ...]
    """Cameras that every episode must have."""
    state_names: tuple[str, ...]
    """State columns that every episode must have."""
    action_names: tuple[str, ...]
    """Action columns that every episode must have."""
    plan: str
    """Digest of the part's planned recordings, kept to recognise the part in a rerun."""
    version: int = FIRST_VERSION
    """The converter's, kept beside the part."""
    place: str = ""
    """Where its recordings lie, as `fwdata.store.sources.place_of` tells it; "" where that is not known."""
    keep_video: bool = True
    """Recorded video stays video; else (a store of layout 1) its frames are stored as pixels."""
    named: bool = False
    """Arrays name their dimensions; see `StoreRecord.named_dimensions`."""
    layout: int = LINES_LAYOUT
    """`StoreRecord.layout_version`, which decides how pixels are laid out."""
    _episodes: list[EpisodeRecord] = field(default_factory=list, init=False)
    _details: list[DetailsRecord] = field(default_factory=list, init=False)
    _quarantined: list[LeftOutRecord] = field(default_factory=list, init=False)
    _cameras: dict[str, _CameraWriter | VideoCameraWriter] = field(default_factory=dict, init=False)
    _memory: dict[str, FrameMemory] = field(default_factory=dict, init=False)
    _rows: list[tuple[NDArray[Any], ...]] = field(default_factory=list, init=False)
    _frames: int = field(default=0, init=False)
    _times: dict[str, int] = field(default_factory=dict, init=False)
    _entries: dict[str, dict[str, str]] = field(default_factory=dict, init=False)
    appending: bool = field(default=False, init=False)
    """True while rows are appended; an error then has spoilt the part, which must not be committed."""

    def __post_init__(self) -> None:
        group = self.store / "parts"
        self._attempt = UnitAttempt.begin(group / self.name, group, {"plan": self.plan})
        self.folder = self._attempt.folder

    def add(
        self, ref: EpisodeRef, episode: Episode, files: tuple[SourceFile, ...], look: FrameLook | None = None
    ) -> tuple[str, ...]:
        """Append one episode; returns its warnings, the converter's and those of writing it.

        BadEpisode (wrong names, cameras, frame counts or pixels, or raised by `look`) leaves the part untouched.
        """
        self._check_names(episode)
        self._checked_details(episode, ())
        cameras = {name: self._stored(episode.cameras[name]) for name in self.cameras}
        spools: dict[str, _Spool | VideoSpool] = {}
        try:
            for name, camera in cameras.items():
                if name in self._cameras:
                    self._cameras[name].check(name, camera)
                taken = None if look is None else look.taken.get(name)
                memory = self._memory.setdefault(name, FrameMemory(SPOOL_BYTES))
                spools[name] = _spool(name, camera, len(episode.state), self.store, taken, memory)
            if look is not None:
                look.approve()
            added = tuple(text for spool in spools.values() for text in spool.warnings)
            details = self._checked_details(episode, added)
            self.appending = True
            for name, spool in spools.items():
                self._camera_writer(name, cameras[name]).append(spool)
        finally:
            for spool in spools.values():
                spool.close()
        self._rows.append((episode.state, episode.action, episode.timestamp_ns, episode.valid))
        per_frame = {"instruction_per_frame": True} if episode.instruction_per_frame else {}
        self._episodes.append(
            EpisodeRecord(
                id=ref.id,
                source=ref.source,
                task=episode.task,
                instruction=episode.instructions[0],
                start=self._frames,
                length=len(episode.state),
                embodiment=episode.embodiment or "",
                files=tuple(FileRecord(path=f.path, bytes=f.bytes, sha256=f.sha256) for f in files),
                **per_frame,  # absent where it is not so, as in every store so far
            )
        )
        self._times.update({f.path: f.mtime_ns for f in files})
        for path, digest in ref.entries.items():
            self._entries.setdefault(path, {})[ref.id] = digest
        self._details.append(details)
        self._frames += len(episode.state)
        self.appending = False
        return (*episode.warnings, *added)

    def _camera_writer(self, name: str, camera: Camera) -> _CameraWriter | VideoCameraWriter:
        """What writes a camera of the part, made with its first episode."""
        if name not in self._cameras:
            folder = self.folder / "cameras" / name
            if isinstance(camera, VideoCamera):
                self._cameras[name] = VideoCameraWriter(folder, camera, self.named)
            else:
                self._cameras[name] = _CameraWriter(folder, camera, self.named, self.layout)
        return self._cameras[name]

    def _stored(self, camera: Camera) -> Camera:
        return as_pixels(camera) if isinstance(camera, VideoCamera) and not self.keep_video else camera

    def copy(self, stored: StoredEpisode, sources: PartSources) -> None:
        """Append an episode of another part of this store as it is stored; its cameras must not be video.

        sources: what is recorded of the other part's files.
        """
        for name in self.cameras:
            camera = stored_camera(stored, name)
            spool = _spool(name, camera, stored.num_frames, self.store)
            try:
                self.appending = True
                self._camera_writer(name, camera).append(spool)
            finally:
                spool.close()
        self._rows.append((stored.state(), stored.action(), stored.timestamp_ns(), stored.valid()))
        self._episodes.append(stored.record.model_copy(update={"start": self._frames}))
        paths = [str(file["path"]) for file in stored.files]
        times, entries = sources.mtime_ns, sources.entries
        self._times.update({path: times[path] for path in paths if path in times})
        for path in paths:
            if stored.id in entries.get(path, {}):
                self._entries.setdefault(path, {})[stored.id] = entries[path][stored.id]
        self._details.append(stored.details)
        self._frames += stored.num_frames
        self.appending = False

    def quarantine(self, source: str, reason: str) -> None:
        """Record a recording of this part that is left out."""
        self._quarantined.append(LeftOutRecord(source=source, reason=reason))

    def _check_names(self, episode: Episode) -> None:
        for what, found, expected in (
            ("state", tuple(episode.state_names), self.state_names),
            ("action", tuple(episode.action_names), self.action_names),
        ):
            if found != expected:
                raise BadEpisode(
                    f"{what} has the {len(found)} dimensions {_short(found)}, the store has {len(expected)} "
                    f"({_short(expected)}); convert recordings of different robots to different stores"
                )
        missing = [name for name in self.cameras if name not in episode.cameras]
        if missing:
            raise BadEpisode(f"camera {missing[0]} is missing; found {sorted(episode.cameras)}")

    def _checked_details(self, episode: Episode, added: tuple[str, ...]) -> DetailsRecord:
        sizes = {name: [episode.cameras[name].height, episode.cameras[name].width] for name in self.cameras}
        metadata = {**episode.stored_metadata(), "camera_sizes": sizes, "warnings": [*episode.warnings, *added]}
        if fault := json_fault(metadata, "metadata"):
            raise BadEpisode(f"{fault}; metadata must be plain JSON")
        decisions = EpisodeDecisionsRecord.model_validate(metadata)
        return DetailsRecord(instructions=tuple(episode.instructions), metadata=decisions)

    def commit(self) -> None:
        """Write what is buffered, then put the part where its episodes are visible; see `UnitAttempt.commit`.

        A part whose recordings are all quarantined is committed too, empty, so that a rerun knows it is done.
        """
        cameras = {name: writer.finish() for name, writer in self._cameras.items()}
        if self._rows:
            columns = [np.concatenate(c) for c in zip(*self._rows, strict=True)]
            for name, values in zip(("state", "action", "timestamp_ns", "valid"), columns, strict=True):
                write_table(self.folder / "lowdim" / name, values, self.named)
            write_documents(self.folder / "details", [details.model_dump() for details in self._details], self.named)
            for sub in ("lowdim", "details", *(f"cameras/{name}" for name in cameras)):
                ensure_groups(self.folder, self.folder / sub)
        files = {f.path: f.sha256 for episode in self._episodes for f in episode.files}
        made = PartSources(part=self.name, version=self.version, mtime_ns=self._times, digests=files, place=self.place)
        write_sources(self.store, made.model_copy(update={"entries": self._entries}) if self._entries else made)
        write_record(
            self.folder,
            PartRecord(
                state=COMPLETE,
                group=self.group,
                plan=self.plan,
                frames=self._frames,
                episodes=tuple(self._episodes),
                quarantined=tuple(self._quarantined),
                cameras=cameras,
                digests=whole_digests(self.folder),
            ),
        )
        self._attempt.commit()


def check_jpeg(frame: EncodedFrame, height: int, width: int, taken: Collector | None = None) -> None:
    """Decode a buffer strictly at an eighth of its size: every coded bit is read, which is all that can be damaged.

    Finds the same damage as a full decode at 0.4 of its cost; colours are not made. Of one that is checked already, the
    size alone is looked at. taken: given the image that is decoded for the check. ValueError with the reason.
    """
    found = jpeg_size(frame.data)
    if found != (height, width):
        raise ValueError(f"is {found[0]}x{found[1]} pixels, the camera's other frames are {height}x{width}")
    if taken is not None and frame.checked and taken.light:
        taken.pass_jpeg(frame.data, frame.red_blue_swapped)
    elif taken is not None:
        taken.add_jpeg(frame.data, frame.small if frame.checked else None, frame.red_blue_swapped, found)
    elif not frame.checked:
        import simplejpeg

        simplejpeg.decode_jpeg(frame.data, "GRAY", min_height=1, min_width=1, min_factor=8)


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", .." if len(names) > 3 else "")
