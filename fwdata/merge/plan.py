"""What a merged store will hold: a function of the inputs alone, so that a killed merge continues with equal bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fwdata.errors import StoreError, UsageError, quoted
from fwdata.merge.duplicates import check_duplicates
from fwdata.merge.verdicts import MergedVerdicts, MovedVerdicts, merged_verdicts
from fwdata.store.caches.identity import differing, find_caches
from fwdata.store.caches.latents import LatentCache
from fwdata.store.caches.texts import TextCache
from fwdata.store.compatibility import check_joinable, difference
from fwdata.store.episode import Part
from fwdata.store.files import Files, plan_digest, refuse_nested
from fwdata.store.layout import part_name
from fwdata.store.metadata import has_record, read_complete
from fwdata.store.reader import Store, open_store
from fwdata.store.records import (
    CacheRecord,
    DecisionsRecord,
    EpisodeRecord,
    JsonObject,
    LatentPartRecord,
    OriginRecord,
    PartRecord,
    PlannedEpisodeRecord,
    PlanRecord,
    StitchedRecord,
    StoreRecord,
    TextPartRecord,
    ViewRecord,
)
from fwdata.wording import counted

type MovedRecord = PartRecord | StitchedRecord | LatentPartRecord | TextPartRecord
"""Record of a folder that a merge copies."""


@dataclass(frozen=True)
class MergeRequest:
    """One `fwdata merge` call."""

    stores: tuple[str, ...]
    """Paths or URLs of the inputs, in order."""
    out: Path
    """The new store."""
    allow_options: tuple[str, ...] = ()
    """Converter options that may differ (those that choose recordings and do not change what is in them)."""
    allow_duplicates: bool = False
    """Keep recordings given twice."""


@dataclass(frozen=True)
class Copy:
    """One folder that is copied whole."""

    files: Files
    """The store it is copied from."""
    key: str
    """The folder there."""
    target: str
    """The folder in the merged store."""
    record: MovedRecord
    """Its record in the merged store; the sha256 of its files among it."""


@dataclass(frozen=True)
class MergePlan:
    """A merged store before it is written."""

    root: StoreRecord
    """Record of its root."""
    plan: PlanRecord
    """Its plan: those of the inputs, one after another."""
    groups: dict[str, CacheRecord]
    """Records of its caches, by key."""
    copies: tuple[Copy, ...]
    """Folders to copy, in the order they are made."""
    notes: tuple[str, ...]
    """Sentences for the user (ids that change, caches that stay behind, ..)."""
    episodes: int
    """Episodes of all inputs."""
    frames: int
    """Frames of all inputs."""
    view: ViewRecord
    """Where the values of its view come from: those of the first input, whose view all inputs share."""
    verdicts: MergedVerdicts | None
    """Verdicts on conventions; None where no input was measured."""

    @cached_property
    def files(self) -> int:
        """Files to copy."""
        return sum(len(copy.record.digests) for copy in self.copies)


@dataclass(frozen=True)
class _Input:
    """One store to merge. name: short and unique; ids: new id of every planned recording whose id changes."""

    store: Store
    name: str
    ids: dict[str, str]


@dataclass(frozen=True)
class _MovedPart:
    """A part under its new number. record: as it will be written; digest: what caches refer to."""

    input: _Input
    part: Part
    name: str
    record: PartRecord
    digest: str


def plan_merge(request: MergeRequest) -> MergePlan:
    """Decide the merged store; reads metadata, and all state and action rows to find recordings given twice.

    UsageError for fewer than two stores, an unfinished or empty one, stores that differ (every difference is named) and
    recordings given twice.
    """
    refuse_nested(request.out)
    stores = [_opened(location) for location in request.stores]
    if len(stores) < 2:
        raise UsageError(f"merging takes at least two stores, found {len(stores)}")
    check_joinable(stores)
    _check_origin(stores, request.allow_options)
    notes = check_duplicates(stores, request.allow_duplicates)
    inputs = _named(stores)
    parts = list(_moved_parts(inputs))
    for item in inputs:
        if item.ids:
            old, new = next(iter(item.ids.items()))
            notes.append(
                f"{counted(len(item.ids), 'recording')} of {item.store.location} get new ids, as {old} -> {new}"
            )
    copies = [_copy(p.part, f"parts/{p.part.name}", f"parts/{p.name}", p.record) for p in parts]
    groups: dict[str, CacheRecord] = {}
    for found in (_stitched(parts), _latents(inputs, parts), _texts(inputs)):
        groups |= found.groups
        copies += found.copies
        notes += found.notes
    moved = [MovedVerdicts(p.input.store, p.input.name, p.part.name, p.name, p.input.ids) for p in parts]
    verdicts, unmeasured = merged_verdicts(moved)
    notes += unmeasured
    if any(has_record(store.files, "stats") for store in stores):
        notes.append(f"statistics are not merged; compute them with `fwdata stats {quoted(request.out)}`")
    if stores[0].manifest.split.val:
        notes.append("the validation split is drawn anew over all episodes")
    return MergePlan(
        root=_root(inputs),
        plan=_merged_plan(inputs, parts),
        groups=groups,
        copies=tuple(copies),
        notes=tuple(notes),
        episodes=sum(len(store.episodes) for store in stores),
        frames=sum(store.num_frames for store in stores),
        view=stores[0].view.record,
        verdicts=verdicts,
    )


def _opened(location: str) -> Store:
    store = open_store(location)
    if not store.complete:
        raise UsageError(f"{location} is not wholly written yet; finish it by running the command that made it again")
    if not len(store.episodes):
        raise UsageError(f"{location} holds no episode; leave it out")
    return store


def _check_origin(stores: Sequence[Store], allowed: Sequence[str]) -> None:
    """UsageError where converter or options differ."""
    first, problems = stores[0], []
    for store in stores[1:]:
        for key in ("source", "fps_nominal"):
            have, want = store.metadata.get(key), first.metadata.get(key)
            if have != want:
                problems.append(difference(key, store.location, have, first.location, want))
        for key, have, want in differing(store.manifest.options, first.manifest.options):
            if key.partition(".")[0] not in allowed:
                problems.append(difference(f"option {key}", store.location, have, first.location, want))
    if problems:
        advice = (
            "; an option that only chooses recordings may differ with --allow-option NAME"
            if any("option" in p for p in problems)
            else ""
        )
        raise UsageError(f"these stores cannot be merged: {'; '.join(problems)}{advice}")


def _named(stores: Sequence[Store]) -> list[_Input]:
    """The inputs with unique names, and new ids for recordings whose id an earlier input has."""
    inputs: list[_Input] = []
    names: set[str] = set()
    taken: set[str] = set()
    for store in stores:
        stem = Path(store.location.rstrip("/")).name.removesuffix(".zarr")
        name = _free(stem, names)
        names.add(name)
        own = dict.fromkeys(episode.id for part in store.plan.parts for episode in part.episodes)
        known, ids = taken | set(own), {}
        for old in own:
            if old in taken:
                ids[old] = _free(f"{name}/{old}", known)
                known.add(ids[old])
        taken = known
        inputs.append(_Input(store, name, ids))
    return inputs


def _free(wanted: str, taken: set[str]) -> str:
    """`wanted`, or with -2, -3, .. the first that is not taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name


def _moved_parts(inputs: Sequence[_Input]) -> Iterator[_MovedPart]:
    number = 0
    for item in inputs:
        planned = {part.name: part for part in item.store.plan.parts}
        for part in item.store.parts:
            refs = {item.ids.get(name, name): size for name, size in planned[part.name].sizes().items()}
            episodes = tuple(_renamed(episode, item) for episode in part.record.episodes)
            record = part.record.model_copy(update={"plan": plan_digest(refs), "episodes": episodes})
            yield _MovedPart(item, part, part_name(number), record, record.digest())
            number += 1


def _renamed[R: (EpisodeRecord, PlannedEpisodeRecord)](episode: R, item: _Input) -> R:
    """An episode's record under its new id, where it gets one."""
    return episode.model_copy(update={"id": item.ids.get(episode.id, episode.id)})


def _merged_plan(inputs: Sequence[_Input], parts: Sequence[_MovedPart]) -> PlanRecord:
    """The plans of all inputs, one after another; see `fwdata.pipeline.plan`."""
    planned = {item.name: {part.name: part for part in item.store.plan.parts} for item in inputs}
    entries = []
    for moved in parts:
        entry = planned[moved.input.name][moved.part.name]
        episodes = tuple(_renamed(episode, moved.input) for episode in entry.episodes)
        changes = {"name": moved.name, "episodes": episodes, **({"plan": ""} if entry.plan else {})}
        entries.append(entry.model_copy(update=changes))
    return PlanRecord(
        parts=tuple(entries),
        skipped=tuple(skipped for item in inputs for skipped in item.store.plan.skipped),
        warnings=tuple(dict.fromkeys(text for item in inputs for text in item.store.plan.warnings)),
    )


def _root(inputs: Sequence[_Input]) -> StoreRecord:
    """The first input's record, with the decisions and roots of all; `merged` says what came from where."""
    from fwdata import __version__

    decisions = {item.name: item.store.record.decisions.to_json() for item in inputs}
    keys = dict.fromkeys(key for one in decisions.values() for key in one)
    changes = {
        "layout_version": max(item.store.layout_version for item in inputs),
        "decisions": DecisionsRecord.model_validate({key: _decision(key, decisions) for key in keys}),
        "roots": tuple(root for item in inputs for root in item.store.record.roots),
        "merged": tuple(_origin(item) for item in inputs),
        "writer": f"fwdata {__version__}",
    }
    records = [item.store.record for item in inputs]
    if records[0].named_dimensions and not all(record.named_dimensions for record in records):
        changes["named_dimensions"] = False
    return inputs[0].store.record.model_copy(update=changes)


def _decision(key: str, decisions: Mapping[str, JsonObject]) -> Any:
    """Counts of all inputs together; a decision all of them took alike; else what each of them decided, by its name."""
    each = {name: one.get(key) for name, one in decisions.items()}
    values = list(each.values())
    if all(isinstance(value, dict) and value and all(type(n) is int for n in value.values()) for value in values):
        return dict(sum((Counter(value) for value in values), Counter()))
    return values[0] if all(value == values[0] for value in values) else each


def _origin(item: _Input) -> OriginRecord:
    record = item.store.record
    kept = record.model_fields_set
    return OriginRecord.model_validate(
        {
            "store": item.name,
            "fingerprint": item.store.fingerprint,
            "parts": len(item.store.parts),
            "episodes": len(item.store.episodes),
            "frames": item.store.num_frames,
            "options": item.store.manifest.options,
            "renamed": len(item.ids),
            **{key: getattr(record, key) for key in ("roots", "manifest_digest", "writer", "merged") if key in kept},
        }
    )


@dataclass(frozen=True)
class _Extra:
    """What comes along besides the parts."""

    groups: dict[str, CacheRecord]
    copies: list[Copy]
    notes: list[str]


def _copy(part: Part, key: str, target: str, record: MovedRecord) -> Copy:
    return Copy(part.files, key, target, record)


def _stitched(parts: Sequence[_MovedPart]) -> _Extra:
    """Materialised stitched frames of the parts that have them; `fwdata stitch` adds those of the others."""
    copies = []
    with_episodes = [p for p in parts if p.part.record.episodes]
    for moved in with_episodes:
        if moved.input.store.stitched_part(moved.part.name) is not None:
            key = f"parts/{moved.part.name}/frames"
            found = read_complete(moved.part.files, key, StitchedRecord)
            assert found is not None
            record = found.model_copy(update={"source": moved.digest})
            copies.append(_copy(moved.part, key, f"parts/{moved.name}/frames", record))
    missing = len(with_episodes) - len(copies)
    some = [f"{missing} of {len(with_episodes)} parts have no stitched frames; `fwdata stitch` adds them"]
    return _Extra({}, copies, some if copies and missing else [])


def _shared(inputs: Sequence[_Input], group: str, kind: str) -> tuple[list[str], list[str]]:
    """Names of the caches that every input has with the same identity, and a sentence for each other one."""
    caches = [find_caches(item.store.files, group, CacheRecord) for item in inputs]
    shared, notes = [], []
    for name in dict.fromkeys(name for found in caches for name in found):
        lacking = [i.store.location for i, found in zip(inputs, caches, strict=True) if name not in found]
        if lacking:
            notes.append(f"{kind} cache {name!r} is left out: {lacking[0]} has none")
            continue
        first = caches[0][name].identity
        differ = [
            difference(key, item.store.location, have, inputs[0].store.location, want)
            for item, found in zip(inputs, caches, strict=True)
            for key, have, want in differing(found[name].identity, first)
        ]
        if differ:
            notes.append(f"{kind} cache {name!r} is left out: {'; '.join(differ)}")
        else:
            shared.append(name)
    return shared, notes


def _latents(inputs: Sequence[_Input], parts: Sequence[_MovedPart]) -> _Extra:
    extra = _Extra({}, [], [])
    names, notes = _shared(inputs, "latents", "latent")
    extra.notes.extend(notes)
    for name in names:
        caches = {item.name: item.store.latents(name) for item in inputs}
        try:
            copies = [_latent_part(caches[p.input.name], p) for p in parts if p.part.record.episodes]
        except StoreError as error:
            extra.notes.append(f"latent cache {name!r} is left out: {error}")
            continue
        record = caches[inputs[0].name].record
        extra.groups[f"latents/{record.key()}"] = record
        extra.copies.extend(copies)
    return extra


def _latent_part(cache: LatentCache, moved: _MovedPart) -> Copy:
    record = cache.part_record(moved.part).model_copy(update={"source": moved.digest})
    key = f"latents/{cache.record.key()}"
    return _copy(moved.part, f"{key}/{moved.part.name}", f"{key}/{moved.name}", record)


def _texts(inputs: Sequence[_Input]) -> _Extra:
    """Parts of text caches that hold a prompt no earlier part has."""
    extra = _Extra({}, [], [])
    names, notes = _shared(inputs, "text", "text")
    extra.notes.extend(notes)
    for name in names:
        known: set[str] = set()
        number = 0
        for item in inputs:
            cache: TextCache = item.store.text(name)
            key = f"text/{cache.record.key()}"
            extra.groups.setdefault(key, cache.record)
            for part, record, prompts in cache.parts():
                if not known.issuperset(prompts):
                    target = f"{key}/{part_name(number)}"
                    extra.copies.append(Copy(item.store.files, f"{key}/{part}", target, record))
                    number += 1
                known.update(prompts)
    return extra
