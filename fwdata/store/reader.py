"""The public reader: a store, its episodes, and what is cached beside them. Read-only, thread-safe, picklable."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fwdata.errors import StoreDamaged, StoreError, UsageError, quoted
from fwdata.manifest import Manifest
from fwdata.store.array import ChunkedArray
from fwdata.store.episode import EpisodeList, Part
from fwdata.store.files import Files, json_digest, plan_digest
from fwdata.store.layout import CLAIM, part_base
from fwdata.store.metadata import many_records, read_complete, read_part, read_record, read_root
from fwdata.store.opening import open_files
from fwdata.store.records import JsonObject, LeftOutRecord, PlannedPartRecord, PlanRecord, StitchedRecord, StoreRecord
from fwdata.store.view import StoreView, read_view

if TYPE_CHECKING:
    from fwdata.store.caches.latents import LatentCache
    from fwdata.store.caches.stats import Statistics
    from fwdata.store.caches.texts import TextCache


@dataclass(frozen=True)
class Quarantined:
    """A planned recording that could not be converted."""

    id: str
    """Id that its episode would have."""
    record: LeftOutRecord
    """Its source and the reason."""


class Store:
    """A unified store. Open with `fwdata.open`."""

    def __init__(self, files: Files) -> None:
        self._files = files
        record = read_root(files)
        if record is None:
            if files.read(CLAIM) is not None:
                raise StoreError(f"{files.location} is half a copy of a store; run the same `fwdata copy` again")
            if files.location.startswith("memory://"):
                raise StoreError(
                    f"{files.location} is not in the memory of this process, which no other process sees; copy the "
                    "store to a folder, or read it in the process that wrote it"
                )
            raise StoreError(
                f"{files.location} is not an fwdata store: it has no zarr.json with fwdata attributes; to make "
                "one of recordings: `fwdata convert SOURCE RAW --out STORE`"
            )
        self.record = record
        self._stitched: dict[str, ChunkedArray | None] = {}

    def __reduce__(self) -> tuple[type[Store], tuple[Files]]:
        return Store, (self._files,)

    def __repr__(self) -> str:
        return f"Store({self.location!r}, {len(self.episodes)} episodes)"

    @property
    def location(self) -> str:
        """Path or URL the store was opened with."""
        return self._files.location

    @property
    def files(self) -> Files:
        """Raw access to the store's keys, for caches."""
        return self._files

    @property
    def layout_version(self) -> int:
        """Version of the on-disk layout."""
        return self.record.layout_version

    @property
    def source(self) -> str:
        """Name of the converter."""
        return self.record.source

    @property
    def fps(self) -> float:
        """True rate of the rows in Hz."""
        return self.record.fps

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera names in stitching order."""
        return self.record.cameras

    @property
    def state_names(self) -> tuple[str, ...]:
        """One name per state dimension."""
        return self.record.state_names

    @property
    def action_names(self) -> tuple[str, ...]:
        """One name per action dimension."""
        return self.record.action_names

    @property
    def stitch_layout(self) -> str:
        """ "horizontal", "vertical" or "robotwin"."""
        return self.manifest.stitch.layout

    @property
    def metadata(self) -> JsonObject:
        """Manifest with the current view, every convention decided, tool version and root names, as JSON."""
        return self.current_record.to_json()

    @property
    def current_record(self) -> StoreRecord:
        """The root record with the current view in place of the one it was written with."""
        if self.view.manifest is self.view.converted:
            return self.record
        from fwdata.images.stitch import stitch_hash

        manifest = self.view.manifest
        changes = {"manifest": manifest.model_dump(mode="json"), "manifest_digest": manifest.digest()}
        return self.record.model_copy(update={**changes, "stitch_hash": stitch_hash(manifest.stitch)})

    @cached_property
    def view(self) -> StoreView:
        """How the store is used, and where each value comes from; see `fwdata view`."""
        return read_view(self._files, self.record.manifest)

    @property
    def manifest(self) -> Manifest:
        """The dataset's manifest: the source it was converted with, and the current view."""
        return self.view.manifest

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The complete parts, in order. StoreDamaged for a part that holds other recordings than planned for it.

        Generations of a part that the plan does not list are being made, or were replaced: they are not the store's.
        """
        bases = {part_base(name) for name in self._planned}
        names = [n for n in self._files.names("parts") if n in self._planned or part_base(n) not in bases]
        self._files.read_ahead(f"parts/{name}/zarr.json" for name in names)
        with many_records():
            found = [self._part(name) for name in names]
        return tuple(part for part in found if part is not None)

    def _part(self, name: str) -> Part | None:
        """One part; None when it is absent or was never finished."""
        found = read_part(self._files, name)
        if found is None:
            return None
        record, digest = found
        planned = self._planned.get(name)
        if record.plan != ((planned and planned.plan) or plan_digest(planned.sizes() if planned else {})):
            raise StoreDamaged(
                f"{self.location}/parts/{name} does not hold the recordings that the store's plan says; "
                f"run `fwdata verify {quoted(self.location)}`"
            )
        return Part(self._files, name, record, digest)

    @cached_property
    def episodes(self) -> EpisodeList:
        """Every complete episode, in conversion order."""
        return EpisodeList(self, self.parts)

    @property
    def fingerprint(self) -> str:
        """12 hex digits that change with any episode: the digest of the parts."""
        return json_digest([part.digest for part in self.parts])[:12]

    @property
    def embodiments(self) -> frozenset[str]:
        """Robots that the recordings name; empty where none of them tells."""
        found = {episode.embodiment for part in self.parts for episode in part.record.episodes}
        return frozenset(found - {"", "unknown"})

    @property
    def num_frames(self) -> int:
        """Frames of all episodes."""
        return sum(part.record.frames for part in self.parts)

    @property
    def has_video(self) -> bool:
        """Whether a camera of a part is kept as recorded video, whose images are decoded when they are read."""
        return any(camera.encoding == "video" for part in self.parts for camera in part.record.cameras.values())

    @cached_property
    def plan(self) -> PlanRecord:
        """The conversion's plan: which recording belongs to which part, and what discovery left out."""
        with many_records():
            plan = read_record(self._files, "plan", PlanRecord)
        if plan is None:
            raise StoreDamaged(
                f"{self.location}/plan/zarr.json is missing; run `fwdata repair {quoted(self.location)} --from RAW` "
                "with the recordings it was converted from"
            )
        return plan

    @property
    def quarantined(self) -> list[dict[str, str]]:
        """Recordings that were left out, each with its reason: [{"source", "reason"}]."""
        left_out = [item.record for part in self.parts for item in self.left_out(part)]
        return [{"source": item.source, "reason": item.reason} for item in (*self.plan.skipped, *left_out)]

    def left_out(self, part: Part) -> list[Quarantined]:
        """Recordings of a part that were left out and not tried again since."""
        ids = {planned.source: planned.id for planned in self._planned[part.name].episodes}
        found = [Quarantined(ids[item.source], item) for item in part.record.quarantined]
        return [item for item in found if self._last_tries[item.id] == part.name]

    @cached_property
    def _planned(self) -> dict[str, PlannedPartRecord]:
        return {part.name: part for part in self.plan.parts}

    @cached_property
    def _last_tries(self) -> dict[str, str]:
        """The last complete part that a recording was planned for, by id."""
        return {planned.id: part.name for part in self.parts for planned in self._planned[part.name].episodes}

    @property
    def complete(self) -> bool:
        """Whether every planned part is written."""
        return {planned.name for planned in self.plan.parts} <= {part.name for part in self.parts}

    @cached_property
    def val_indices(self) -> frozenset[int]:
        """Indices of the validation episodes; see `fwdata.manifest.Split`."""
        count, split = len(self.episodes), self.manifest.split
        if count * split.val < 1:
            return frozenset()
        order = np.arange(count)
        np.random.default_rng(split.seed).shuffle(order)
        return frozenset(int(i) for i in order[int(count * (1 - split.val)) :])

    def stitched_part(self, name: str) -> ChunkedArray | None:
        """The materialised stitched frames of a part, when they exist and were made with this store's stitching."""
        if name not in self._stitched:
            from fwdata.images.stitch import stitch_hash

            key = f"parts/{name}/frames"
            found = read_complete(self._files, key, StitchedRecord)
            fits = found is not None and found.stitch_hash == stitch_hash(self.manifest.stitch)
            if found is not None and found.source not in {part.digest for part in self.parts if part.name == name}:
                raise StoreDamaged(f"{self.location}/{key} was made from other episodes than its part holds")
            self._stitched[name] = (
                ChunkedArray(self._files, f"{key}/stitched", found.array_digest("stitched"))
                if found is not None and fits
                else None
            )
        return self._stitched[name]

    def latents(self, name: str | None = None) -> LatentCache:
        """A latent cache by name; without a name the only one, or the one named "default".

        StoreError naming `fwdata encode-latents` when there is none, StaleCache when the episodes changed since.
        """
        from fwdata.store.caches.latents import open_latents

        return open_latents(self, name)

    def text(self, name: str | None = None) -> TextCache:
        """A text cache by name; without a name the only one, or the one named "default"."""
        from fwdata.store.caches.texts import open_texts

        return open_texts(self, name)

    def stats(self) -> Statistics:
        """Normalisation statistics of the training episodes: saved by `fwdata stats`, else computed from all rows."""
        from fwdata.store.caches.stats import compute_statistics, load_statistics

        return load_statistics(self) or compute_statistics(self)


def open_store(location: str | Path) -> Store:
    """Open a store by local path or URL. StoreError (one sentence) when it is absent, foreign, newer or damaged."""
    if not str(location):
        raise UsageError("the store's path is empty")
    return Store(open_files(location))
