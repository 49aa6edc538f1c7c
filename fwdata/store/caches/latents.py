"""Latent caches of a store: the reader, and the writer that `fwdata.encode.latents` fills.

One cache is `latents/<name>-<fingerprint>/`, one folder per part of the store, rows in the part's frame order:

    first         float16 [F, C, h, w]         normalised first-frame latent of every frame
    future        float16 [W, C, f-1, h, w]    normalised future latents of every window start
    window_start  int64 [W]                     row of the window's first frame in the part
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import StaleCache, StoreDamaged, StoreError
from fwdata.store.array import ArrayWriter, ChunkedArray, write_table
from fwdata.store.attempts import UnitAttempt, remove_folder, whole_digests
from fwdata.store.caches.identity import (
    Cache,
    check_cache_name,
    choose_cache,
    encode_command,
    find_caches,
    fingerprint,
    latent_settings,
    refuse_if_different,
    refuse_stale,
)
from fwdata.store.caches.refinement import BegunRefinement, folders_of, unfinished_of
from fwdata.store.caches.window_rows import WindowRows
from fwdata.store.files import LocalFiles, ensure_groups
from fwdata.store.indices import whole_numbers
from fwdata.store.layout import latent_array
from fwdata.store.metadata import COMPLETE, holds_record, names_dimensions, read_complete, write_record
from fwdata.store.records import (
    JsonObject,
    LatentCacheRecord,
    LatentDraftRecord,
    LatentPartRecord,
    WindowRecord,
)
from fwdata.store.row_reader import Verify
from fwdata.window import Window

if TYPE_CHECKING:
    from fwdata.store.episode import Part, StoreContents, StoredEpisode


class LatentCache(Cache[LatentCacheRecord]):
    """Read access to one latent cache. Thread-safe; picklable."""

    def __init__(self, store: StoreContents, record: LatentCacheRecord) -> None:
        super().__init__(store, record)
        self._parts: dict[str, LatentPartRecord] = {}
        self._arrays: dict[tuple[str, str], ChunkedArray] = {}
        self._windows: dict[str, dict[int, int]] = {}

    @property
    def vae(self) -> str:
        """What `fwdata.encode.vae.wan.load_vae` was given: "tiny-libero", "tiny", "wan2.2", a path or a hub id."""
        return self.record.vae

    @property
    def stride(self) -> int:
        """Frames between two window starts that have future latents."""
        return self.record.stride

    @property
    def window(self) -> Window:
        """The training window the latents belong to."""
        return self.record.window.window()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent frame."""
        return self.record.shape

    def part_record(self, part: Part) -> LatentPartRecord:
        """The record of a complete part; StoreError when it is not encoded yet, StaleCache when its rows changed."""
        found = self._parts.get(part.name)
        if found is None:
            where = f"latent cache {self.name!r} of {self._store.location}"
            record = self._encoded(part)
            if record is None:
                raise StoreError(
                    f"{where} lacks {part.name} ({part.record.group}); "
                    f"complete it with `{encode_command(self._store.location, self.record, self.name)}`"
                )
            if record.source != part.digest:
                raise StaleCache(
                    f"{where} was made from other episodes than {part.name} holds now; make it again with "
                    f"`{encode_command(self._store.location, self.record, self.name)} --replace`"
                )
            found = self._parts[part.name] = record
        return found

    def _encoded(self, part: Part) -> LatentPartRecord | None:
        return read_complete(self._store.files, f"latents/{self._key}/{part.name}", LatentPartRecord)

    @property
    def complete(self) -> bool:
        """Whether every part of the store is encoded."""
        try:
            for part in self._store.parts:
                if part.record.episodes:
                    self.part_record(part)
        except StoreError:
            return False
        return True

    @property
    def num_windows(self) -> int:
        """Windows with future latents in the parts encoded so far."""
        return sum(record.windows for part in self._store.parts if (record := self._encoded(part)))

    def frames_of(self, part: Part) -> int:
        """Frames of a part with a first-frame latent; 0 where it is not encoded yet."""
        record = self._encoded(part)
        return record.frames if record else 0

    @property
    def num_frames(self) -> int:
        """Frames with a first-frame latent in the parts encoded so far."""
        return sum(self.frames_of(part) for part in self._store.parts)

    def array(self, part: Part, name: str) -> ChunkedArray:
        """The "first", "future" or "window_start" array of a part, its length checked against the part."""
        found = self._arrays.get((part.name, name))
        if found is None:
            record = self.part_record(part)
            key = f"latents/{self._key}/{part.name}/{name}"
            found = ChunkedArray(self._store.files, key, record.array_digest(name))
            if len(found) != (record.frames if name == "first" else record.windows):
                raise StoreDamaged(f"{self._store.location}/{key} has {len(found)} rows, its part says otherwise")
            self._arrays[part.name, name] = found
        return found

    def first(self, episode: StoredEpisode, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float16]:
        """float16 [n, C, h, w]: normalised first-frame latents of the frames `indices`. About 20 us a row."""
        wanted: list[int] = whole_numbers(indices, "frames").tolist()
        if wanted and (min(wanted) < 0 or max(wanted) >= episode.num_frames):
            raise IndexError(f"episode {episode.id} has frames 0..{episode.num_frames - 1}, asked for {wanted}")
        begin = episode.start
        return self.array(episode.part, "first").take([begin + frame for frame in wanted])

    def windows(
        self,
        episodes: Sequence[StoredEpisode],
        caches: Sequence[LatentCache] | None = None,
        verify: Verify = "always",
    ) -> WindowRows:
        """Reads the windows of these episodes, numbered as in the sequence, into buffers of the caller.

        caches: every episode's own cache, where several caches of equal shape are read as one.
        """
        return WindowRows(list(zip(caches or [self] * len(episodes), episodes, strict=True)), verify)

    def starts(self, episode: StoredEpisode) -> NDArray[np.int64]:
        """int64 [m]: frames of the episode at which a window with future latents starts. StoreError if not encoded."""
        self.part_record(episode.part)
        return self.window.starts(episode.num_frames, self.stride)

    def future(self, episode: StoredEpisode, starts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float16]:
        """float16 [m, C, f-1, h, w]: normalised future latents. StoreError for a start that has none."""
        wanted: list[int] = whole_numbers(starts, "window starts").tolist()
        bad = [start for start in wanted if not 0 <= start < episode.num_frames or start % self.stride]
        if bad:
            raise StoreError(
                f"episode {episode.id} has no future latents at frame {bad[0]}: latent cache {self.name!r} has "
                f"window starts 0, {self.stride}, .. below {episode.num_frames}"
            )
        begin = self.first_window(episode)
        return self.array(episode.part, "future").take([begin + start // self.stride for start in wanted])

    def first_window(self, episode: StoredEpisode) -> int:
        """Row of the episode's first window in its part. StoreDamaged when the part's windows start elsewhere."""
        part = episode.part
        rows = self._windows.get(part.name)
        if rows is None:
            records = part.record.episodes
            starts = [self.window.starts(r.length, self.stride) + r.start for r in records]
            found = self.array(part, "window_start")
            if not np.array_equal(found.rows(0, len(found)), np.concatenate(starts)):
                raise StoreDamaged(f"{self._store.location}/{found.key} does not hold the window starts of {part.name}")
            firsts = [0, *accumulate(len(s) for s in starts)]
            rows = {r.start: first for r, first in zip(records, firsts, strict=False)}
            self._windows[part.name] = rows
        return rows[episode.start]


def open_latents(store: StoreContents, name: str | None) -> LatentCache:
    """The latent cache called `name`; see `Store.latents`. StaleCache when this version would make another."""
    settings = latent_settings(store.manifest)
    record = choose_cache(store.files, "latents", LatentCacheRecord, name, "encode-latents", settings)
    refuse_stale("latent cache", store.location, record, record.identity, settings)
    return LatentCache(store, record)


@dataclass(frozen=True)
class LatentTarget:
    """Where an encoding writes."""

    record: LatentCacheRecord
    """The cache."""
    coarser: LatentCacheRecord | None = None
    """The cache of that name which it refines, and takes the place of when it is complete; until then that one is read
    and `record` is not published."""
    begun: tuple[BegunRefinement, ...] = ()
    """Refinements to other strides that were begun and not completed; their latents are taken over too."""

    @property
    def key(self) -> str:
        """The cache's folder below `latents`."""
        return self.record.key()

    def known(self, store: StoreContents) -> tuple[LatentCache, ...]:
        """Caches of other strides whose latents are taken over."""
        if self.coarser is None:
            return ()
        more = (item.record for item in self.begun if item.record.stride % self.coarser.stride)
        return tuple(LatentCache(store, record) for record in (self.coarser, *more))

    @property
    def kept(self) -> tuple[BegunRefinement, ...]:
        """Of `begun`, those that hold windows which this cache will not have: they stay, to be completed later."""
        return tuple(item for item in self.begun if item.record.stride % self.record.stride)


def refines(identity: JsonObject, record: LatentCacheRecord) -> bool:
    """Whether latents of this identity include those of a cache: its stride is a multiple, all else is equal."""
    stride = identity["stride"]
    return record.stride > stride and record.stride % stride == 0 and {**record.identity, "stride": stride} == identity


def create_latents(
    store: StoreContents, name: str, identity: JsonObject, vae: str, shape: tuple[int, int, int], replace: bool
) -> LatentTarget:
    """Make or find the cache called `name`; see `find_target`. replace: remove the one that is there first."""
    assert isinstance(store.files, LocalFiles)
    found = find_caches(store.files, "latents", LatentCacheRecord).get(name)
    if found is not None and replace:
        for left in folders_of(store.files.root / "latents", name):
            remove_folder(store.files.root, left)
    target = find_target(store, name, identity, vae, shape)
    begin_target(store, target)
    return target


def find_target(
    store: StoreContents, name: str, identity: JsonObject, vae: str, shape: tuple[int, int, int]
) -> LatentTarget:
    """Where latents of this identity belong in the cache called `name`; writes nothing. vae: loads the VAE again.

    StaleCache with the differences named when one of that name has another identity, unless it is the same with a
    coarser stride.
    """
    assert isinstance(store.files, LocalFiles)
    check_cache_name(name)
    found = find_caches(store.files, "latents", LatentCacheRecord).get(name)
    window = store.manifest.window
    record = LatentCacheRecord(
        name=name,
        fingerprint=fingerprint(identity),
        identity=identity,
        vae=vae,
        stride=identity["stride"],
        shape=shape,
        window=WindowRecord(
            num_frames=window.num_frames,
            video_stride=window.video_stride,
            latent_frames=window.latent_frames,
            action_horizon=window.action_horizon,
        ),
    )
    if found is None:
        return LatentTarget(record)
    if refines(identity, found):
        begun = [item for item in unfinished_of(store.files, found) if item.record.key() != record.key()]
        return LatentTarget(record, found, tuple(begun))
    advice = f"use --name NEW to keep both, or --replace to remove {name!r}"
    refuse_if_different("latent cache", name, found.identity, identity, advice)
    return LatentTarget(found, begun=tuple(unfinished_of(store.files, found)))


def begin_target(store: StoreContents, target: LatentTarget) -> None:
    """Write the metadata of a new cache; one that refines another gets its own when it is published."""
    assert isinstance(store.files, LocalFiles)
    root = store.files.root
    if target.coarser is None and not holds_record(store.files, f"latents/{target.key}", target.record):
        ensure_groups(root, root / "latents")
        write_record(root / "latents" / target.key, target.record)


def publish_latents(root: Path, target: LatentTarget) -> None:
    """Let a refined cache take the place of the coarser one, and remove what earlier refinements left, except `kept`.

    At every moment a cache of that name can be read: first both are there, of which the finer one counts.
    """
    folder = root / "latents"
    if target.coarser is not None:
        write_record(folder / target.key, target.record)
    stay = {target.key, *(item.record.key() for item in target.kept)}
    for left in folders_of(folder, target.record.name):
        if left.name not in stay:
            (left / "zarr.json").unlink(missing_ok=True)  # it is not a cache from here on
            shutil.rmtree(left)


class LatentPartWriter:
    """Writes the latents of one part, whole shards at a time; a killed run continues at the next unwritten shard.

    next_first, next_future: rows that are already on disk; rows below them may be passed again and are ignored.
    """

    def __init__(self, root: Path, key: str, part: Part, shape: tuple[int, int, int], future: int, starts: int) -> None:
        group = root / "latents" / key
        self._attempt = UnitAttempt.begin(group / part.name, group, {"source": part.digest}, resume=True)
        self.folder = self._attempt.folder
        self._part, self._starts = part, starts
        frames = part.record.frames
        draft = LatentDraftRecord(state="writing", source=part.digest)
        if self.folder.exists() and not holds_record(LocalFiles(self.folder), "", draft):
            shutil.rmtree(self.folder)
        if not self.folder.exists():
            write_record(self.folder, draft)
        c, h, w = shape
        self._named = names_dimensions(LocalFiles(root))
        self._first = ArrayWriter(self.folder / "first", latent_array(shape), frames, self._named)
        self._future = ArrayWriter(self.folder / "future", latent_array((c, future, h, w)), starts, self._named)
        self.next_first, self.next_future = self._first.rows, self._future.rows

    def add_first(self, row: int, latent: NDArray[np.float16]) -> None:
        """Append the first-frame latent [C, h, w] of a row; ignored when it is on disk."""
        if row >= self.next_first:
            self._first.append(latent[None])

    def add_future(self, row: int, latents: NDArray[np.float16]) -> None:
        """Append the future latents [C, f-1, h, w] of a window; ignored when they are on disk."""
        if row >= self.next_future:
            self._future.append(latents[None])

    def commit(self, window_starts: NDArray[np.int64]) -> None:
        """Write what is buffered, then put the part where it is visible; see `UnitAttempt.commit`."""
        self._first.finish()
        self._future.finish()
        if self._first.rows != self._part.record.frames or self._future.rows != self._starts:
            raise StoreDamaged(f"{self.folder}: {self._first.rows} first and {self._future.rows} future rows written")
        write_table(self.folder / "window_start", window_starts, self._named)
        record = LatentPartRecord(
            state=COMPLETE,
            source=self._part.digest,
            frames=self._first.rows,
            windows=self._future.rows,
            digests=whole_digests(self.folder),
        )
        write_record(self.folder, record)
        self._attempt.commit()
