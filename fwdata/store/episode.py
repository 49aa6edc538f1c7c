"""One part of a store, one episode, and the sequence of all: what `fwdata.store.reader.Store` hands out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import StoreDamaged, StoreError
from fwdata.store.array import ChunkedArray
from fwdata.store.files import Files
from fwdata.store.indices import whole_numbers
from fwdata.store.metadata import read_document
from fwdata.store.records import DetailsRecord, EpisodeDecisionsRecord, EpisodeRecord, JsonObject, PartRecord

if TYPE_CHECKING:
    from fwdata.manifest import Manifest

type Indices = Sequence[int] | NDArray[np.int64] | None

STITCH_BLOCK = 32
"""Frames that are decoded and stitched together: bounds the memory of `StoredEpisode.stitched`."""


class Part:
    """One complete part: its metadata and its arrays. Internal to the store package."""

    def __init__(self, files: Files, name: str, record: PartRecord, digest: str) -> None:
        self.files, self.name, self.record, self.digest = files, name, record, digest
        self._arrays: dict[str, ChunkedArray] = {}

    def array(self, key: str) -> ChunkedArray:
        """An array of the part by key, e.g. "lowdim/state"."""
        found = self._arrays.get(key)
        if found is None:
            expected = self.record.array_digest(key)
            found = ChunkedArray(self.files, f"parts/{self.name}/{key}", expected)
            self._arrays[key] = found
        return found


class StoreContents(Protocol):
    """What episodes and caches read of the store that they belong to; `fwdata.store.reader.Store` offers it."""

    @property
    def location(self) -> str: ...
    @property
    def files(self) -> Files: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def cameras(self) -> tuple[str, ...]: ...
    @property
    def embodiments(self) -> frozenset[str]: ...
    @property
    def parts(self) -> tuple[Part, ...]: ...
    @property
    def episodes(self) -> EpisodeList: ...
    @property
    def val_indices(self) -> frozenset[int]: ...
    def stitched_part(self, name: str) -> ChunkedArray | None: ...


class StoredEpisode:
    """One recording. Arrays are read when asked for; nothing is kept."""

    def __init__(self, store: StoreContents, index: int, part: Part, position: int) -> None:
        record = part.record.episodes[position]
        self._store, self._part, self._position, self._record = store, part, position, record
        self.index = index
        self.id = record.id
        self.source = record.source
        self.num_frames = record.length
        self.task = record.task

    def __reduce__(self) -> tuple[Callable[[StoreContents, int], StoredEpisode], tuple[StoreContents, int]]:
        return _episode_of, (self._store, self.index)

    def __repr__(self) -> str:
        return f"Episode({self.index}, {self.id!r}, {self.num_frames} frames)"

    @property
    def part(self) -> Part:
        """The part that holds this episode."""
        return self._part

    @property
    def start(self) -> int:
        """First row of this episode in its part's arrays."""
        return self._record.start

    @property
    def files(self) -> tuple[JsonObject, ...]:
        """Files it was read from, the recording itself first: {"path" (relative to the root), "bytes", "sha256"}."""
        return tuple(file.to_json() for file in self._record.files)

    @property
    def instruction(self) -> str:
        """The canonical training instruction."""
        return self._record.instruction

    @cached_property
    def _spans(self) -> list[tuple[int, int, str]]:
        """(first, last, instruction) of the segments, where the recording's text changes on the way."""
        if not self._record.instruction_per_frame:
            return []
        found = self._decision("segments").segments
        return [(s.first_frame, s.last_frame, s.instruction) for s in found if s.instruction]

    def instruction_at(self, frame: int) -> str:
        """The training instruction of a window that starts at `frame`: its segment's where the recording's text
        changes on the way, else the canonical one."""
        return next((text for first, last, text in self._spans if first <= frame <= last), self.instruction)

    @property
    def window_instructions(self) -> tuple[str, ...]:
        """Every text that `instruction_at` gives, the first frame's first."""
        if not self._spans:
            return (self.instruction,)
        return tuple(dict.fromkeys(self.instruction_at(frame) for frame in range(self.num_frames)))

    @property
    def split(self) -> Literal["train", "val"]:
        """Whether the episode trains or validates; see `fwdata.manifest.Split`."""
        return "val" if self.index in self._store.val_indices else "train"

    @cached_property
    def _details(self) -> DetailsRecord:
        offsets = self._part.array("details/offset").rows(self._position, self._position + 2)
        data = self._part.array("details/data").rows(int(offsets[0]), int(offsets[1]))
        return read_document(DetailsRecord, data.tobytes(), self._where)

    def _decision(self, field: str, key: str | None = None) -> EpisodeDecisionsRecord:
        """The episode's decisions, one of which is needed. StoreDamaged where it is not there."""
        found = self._details.metadata
        if field not in found.model_fields_set or (key is not None and key not in getattr(found, field)):
            missing = field if key is None else f"{field}.{key}"
            raise StoreDamaged(f"{self._where}: field 'metadata.{missing}' is missing; convert the recording again")
        return found

    @property
    def _where(self) -> str:
        return f"{self._store.location}/parts/{self._part.name}/details, episode {self.id}"

    @property
    def details(self) -> DetailsRecord:
        """The episode's own document, as it is stored."""
        return self._details

    @property
    def record(self) -> EpisodeRecord:
        """The episode's entry in its part's metadata, as it is stored."""
        return self._record

    @property
    def instructions(self) -> tuple[str, ...]:
        """Training instructions, canonical first."""
        return self._details.instructions

    @property
    def metadata(self) -> JsonObject:
        """Every decision made for this episode."""
        return self._details.metadata.to_json()

    def _rows(self, key: str) -> NDArray[Any]:
        return self._part.array(key).rows(self.start, self.start + self.num_frames)

    def state(self) -> NDArray[np.float32]:
        """float32 [T, Ds], raw units of the source."""
        return self._rows("lowdim/state").astype(np.float32, copy=False)

    def action(self) -> NDArray[np.float32]:
        """float32 [T, Da], what was commanded at each frame."""
        return self._rows("lowdim/action").astype(np.float32, copy=False)

    def timestamp_ns(self) -> NDArray[np.int64]:
        """int64 [T], nanoseconds from the first frame."""
        return self._rows("lowdim/timestamp_ns").astype(np.int64, copy=False)

    def timestamps(self) -> NDArray[np.float64]:
        """float64 [T], seconds from the first frame."""
        return self.timestamp_ns() / 1e9

    def valid(self) -> NDArray[np.bool_]:
        """bool [T], False where alignment rules marked the frame."""
        return self._rows("lowdim/valid").astype(np.bool_, copy=False)

    def _wanted(self, indices: Indices) -> NDArray[np.int64]:
        if indices is None:
            return np.arange(self.num_frames)
        wanted = whole_numbers(indices, "frames")
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.num_frames):
            raise IndexError(f"episode {self.id} has frames 0..{self.num_frames - 1}, asked for {wanted.tolist()}")
        return wanted

    def frames(self, camera: str, indices: Indices = None) -> NDArray[np.uint8]:
        """uint8 [n, H, W, 3], true RGB, upright as the policy sees it; all frames when `indices` is None.

        Cost: one decode per frame; of video, a frame elsewhere than behind the last one read costs its group up to it.
        Raises StoreError for an unknown camera, IndexError outside 0..T-1 and for a mask.
        """
        info = self._part.record.cameras.get(camera)
        if info is None:
            raise StoreError(
                f"{self._store.location} has no camera {camera!r}; it has {', '.join(self._store.cameras)}"
            )
        wanted = self._wanted(indices)
        if info.encoding == "raw":
            return self._part.array(f"cameras/{camera}/frames").take(wanted + self.start)
        if info.encoding == "video":
            return self._video(camera, wanted)
        return self._decoded(camera, wanted)

    def _size(self, camera: str) -> tuple[int, int]:
        """(height, width) of a camera's frames."""
        return self._decision("camera_sizes", camera).camera_sizes[camera]

    def _video(self, camera: str, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        from fwdata.store.video import read_video

        size = self._size(camera)

        def where(row: int) -> str:
            return f"episode {self.id}, camera {camera}, frame {row - self.start}"

        return read_video(self._part, camera, wanted + self.start, size, where)

    def _decoded(self, camera: str, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        from fwdata.images.jpeg import decode_rgb

        size = self._size(camera)
        out = np.empty((len(wanted), *size, 3), np.uint8)
        swapped = self._rows(f"cameras/{camera}/swapped")
        for position, (frame, buffer) in enumerate(zip(wanted, self.encoded(camera, wanted), strict=True)):
            try:
                out[position] = decode_rgb(buffer, bool(swapped[frame]))
            except ValueError as error:
                raise StoreDamaged(f"episode {self.id}, camera {camera}, frame {frame}: {error}") from None
        return out

    def swapped(self, camera: str) -> NDArray[np.bool_]:
        """bool [T]: frames of a JPEG camera whose buffers hold red and blue exchanged."""
        return self._rows(f"cameras/{camera}/swapped").astype(np.bool_, copy=False)

    def encoded(self, camera: str, indices: Indices = None) -> list[bytes]:
        """The recorded JPEG buffers, byte for byte. Raises StoreError for a camera that holds none."""
        info = self._part.record.cameras.get(camera)
        if info is None or info.encoding != "jpeg":
            raise StoreError(f"camera {camera!r} of {self._store.location} holds no JPEG buffers")
        wanted = self._wanted(indices)
        if not len(wanted):
            return []
        offsets = self._part.array(f"cameras/{camera}/offset").rows(self.start, self.start + self.num_frames + 1)
        data = self._part.array(f"cameras/{camera}/data")
        low, high = int(wanted.min()), int(wanted.max())
        if high - low < 4 * len(wanted):  # a dense range: one pass over the bytes
            base = int(offsets[low])
            block = data.rows(base, int(offsets[high + 1])).tobytes()
            return [block[int(offsets[i]) - base : int(offsets[i + 1]) - base] for i in wanted]
        return [data.rows(int(offsets[i]), int(offsets[i + 1])).tobytes() for i in wanted]

    def stitched(self, indices: Indices = None) -> NDArray[np.uint8]:
        """uint8 [n, Hs, Ws, 3], the cameras joined into one image; read when materialised, else computed."""
        from fwdata.images.stitch import stitch

        wanted = self._wanted(indices)
        materialised = self._store.stitched_part(self._part.name)
        if materialised is not None:
            return materialised.take(wanted + self.start)
        unique, inverse = np.unique(wanted, return_inverse=True)
        spec = self._store.manifest.stitch
        out = np.empty((len(unique), *spec.size, 3), np.uint8)
        for low in range(0, len(unique), STITCH_BLOCK):
            block = unique[low : low + STITCH_BLOCK]
            out[low : low + len(block)] = stitch({name: self.frames(name, block) for name in spec.cameras}, spec)
        return out[inverse]


def _episode_of(store: StoreContents, index: int) -> StoredEpisode:
    return store.episodes[index]


class EpisodeList(Sequence[StoredEpisode]):
    """All complete episodes in conversion order. Episodes are made when asked for."""

    def __init__(self, store: StoreContents, parts: Sequence[Part]) -> None:
        self._store, self._parts = store, [p for p in parts if p.record.episodes]
        counts = [len(p.record.episodes) for p in self._parts]
        self._starts = [0, *np.cumsum(counts, dtype=np.int64).tolist()]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def of(self, part: Part) -> list[StoredEpisode]:
        """The episodes of one part."""
        if part not in self._parts:
            return []
        which = self._parts.index(part)
        return self[self._starts[which] : self._starts[which + 1]]

    @overload
    def __getitem__(self, index: int) -> StoredEpisode: ...
    @overload
    def __getitem__(self, index: slice) -> list[StoredEpisode]: ...
    def __getitem__(self, index: int | slice) -> StoredEpisode | list[StoredEpisode]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"{self._store.location} has episodes 0..{len(self) - 1}, asked for {index}")
        which = bisect_right(self._starts, position) - 1
        return StoredEpisode(self._store, position, self._parts[which], position - self._starts[which])
