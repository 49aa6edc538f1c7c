"""What a conversion would do: the converter, the recordings found, and the parts they will be stored in.

The plan is a function of the recordings and the manifest alone, is written before the first episode, and is followed
by every later run; so a store's bytes do not depend on workers or interruptions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fwdata.errors import StaleCache, UsageError
from fwdata.manifest import Manifest, validate_model
from fwdata.pipeline.registry import filled_options
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import CombinedDiscovery, RootedRecording
from fwdata.store.caches.identity import differences, listed
from fwdata.store.files import LocalFiles, plan_digest, refuse_nested
from fwdata.store.layout import PART_BYTES, PART_EPISODES, part_name
from fwdata.store.leases import JOBS
from fwdata.store.metadata import has_record, read_complete, read_record, read_root, write_record
from fwdata.store.records import (
    CountRecord,
    JsonObject,
    PartRecord,
    PlannedEpisodeRecord,
    PlannedPartRecord,
    PlanRecord,
    SkippedRecord,
)
from fwdata.store.sources import SOURCES
from fwdata.store.view import VIEW


@dataclass(frozen=True)
class PlannedPart:
    """Recordings that share one part."""

    name: str
    """Name of the part, such as `p00003`."""
    group: str
    """Natural unit its recordings belong to."""
    recordings: tuple[RootedRecording, ...]
    """Its recordings, in order."""
    missing: tuple[str, ...]
    """Planned recordings that are no longer in the roots."""
    digest: str
    """sha256 of what it is made from, by which a written part is recognised."""

    def entry(self) -> PlannedPartRecord:
        """The part as it is written to the plan, for a part planned now, or one whose plan was lost."""
        episodes = (PlannedEpisodeRecord(id=r.id, source=r.source, bytes=r.ref.num_bytes) for r in self.recordings)
        entry = PlannedPartRecord(name=self.name, group=self.group, episodes=tuple(episodes))
        if plan_digest(entry.sizes()) == self.digest:
            return entry
        return entry.model_copy(update={"plan": self.digest})


@dataclass(frozen=True)
class ConversionPlan:
    """All parts of a store, and those that are not written yet."""

    found: CombinedDiscovery
    """What the roots hold."""
    parts: tuple[PlannedPart, ...]
    """All parts."""
    pending: tuple[PlannedPart, ...]
    """Parts that are not written yet."""
    again: int = 0
    """Recordings that are converted again because they, or the converter, changed."""


def _cut(recordings: Iterable[RootedRecording], most: int) -> Iterator[list[RootedRecording]]:
    """Recordings in order, cut where the group changes or a part is full."""
    part: list[RootedRecording] = []
    size = 0
    for recording in recordings:
        full = len(part) >= most or size + recording.ref.num_bytes > PART_BYTES
        if part and (recording.group != part[0].group or full):
            yield part
            part, size = [], 0
        part.append(recording)
        size += recording.ref.num_bytes
    if part:
        yield part


def number_of_parts(request: ConvertRequest, recordings: Iterable[RootedRecording]) -> int:
    """Parts that a new store of these recordings has."""
    return sum(1 for _ in _cut(recordings, request.part_episodes or PART_EPISODES))


def check_output(request: ConvertRequest) -> Manifest | None:
    """The manifest that `out` was converted with where it holds this conversion already (whole or in part), else None.

    UsageError when it is something else or inside another store, StaleCache with the differences named when it was
    made from another Source.
    The View may differ: `adopt_manifest` takes it over.
    """
    out = request.out
    refuse_nested(out)
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise UsageError(f"--out {out}: {path} is a file; name a folder that does not exist yet")
    if not out.exists() or all(
        p.name in {"plan", "parts", "evidence", SOURCES, VIEW, JOBS} or p.name.endswith(".tmp") for p in out.iterdir()
    ):
        return None  # nothing, or what a conversion leaves that ended before its first episode
    store = read_root(LocalFiles(out))
    if store is None and has_record(LocalFiles(out), "plan"):
        return None  # a store that lost its own metadata: they are written anew
    if store is None:
        raise UsageError(f"--out {out} exists and is not an fwdata store; choose another folder")
    if store.merged:
        raise UsageError(f"--out {out} was made by `fwdata merge`; convert to a store of its own and merge again")
    before, now = store.source, request.manifest.converter
    if before != now:
        raise StaleCache(f"{out} was converted from {before} recordings, these are to be {now}; choose another --out")
    converted = validate_model(Manifest, store.manifest, f"the manifest in {out}")
    if converted.source() == request.manifest.source():
        return converted
    changed = differences(_source(converted), _source(request.manifest))
    if changed:
        before, now = converted.name, request.manifest.name
        how = "with other settings" if before == now else f"with manifest {before!r}, asked for {now!r}"
        raise StaleCache(f"{out} was converted {how}: {listed(changed)}; choose another --out")
    return converted


def _source(manifest: Manifest) -> JsonObject:
    """The Source of a manifest as plain JSON, with every option that is not stated at its default."""
    options = filled_options(manifest.converter, manifest.options)
    return manifest.source().model_copy(update={"options": options}).model_dump(mode="json", exclude={"version"})


def make_plan(request: ConvertRequest, found: CombinedDiscovery) -> ConversionPlan:
    """Decide the parts of the recordings found.

    A store's existing plan is followed; recordings that are new in a root, and with `retry` those left out by earlier
    runs, become further parts. UsageError when the store was made from other roots or other recordings altogether.
    """
    _check_roots(request.out, found)
    by_id = {recording.id: recording for recording in found.recordings}
    before = read_plan(request.out)
    old = before.parts if before else ()
    planned = {episode.id for part in old for episode in part.episodes}
    if planned and planned.isdisjoint(by_id):
        raise UsageError(
            f"{request.out} was converted from other recordings: it has none of the {len(by_id)} found below "
            f"{request.where()}; choose another --out"
        )
    parts = [planned_part(entry, by_id) for entry in old]
    done = planned - _left_out(request.out, old) if request.retry else planned
    new = [r for r in found.recordings if r.id not in done]
    _check_stored(request.out, old, [r for r in new if r.id not in planned])
    for members in _cut(new, request.part_episodes or PART_EPISODES):
        digest = plan_digest({r.id: r.ref.num_bytes for r in members})
        parts.append(PlannedPart(part_name(len(parts)), members[0].group, tuple(members), (), digest))
    return ConversionPlan(found, tuple(parts), _once(request.out, parts))


def _once(out: Path, parts: Sequence[PlannedPart]) -> tuple[PlannedPart, ...]:
    """The parts that are not written yet, each recording in one of them alone.

    One that was left out and tried again is planned twice. Where the part that left it out is lost and made anew, it
    would be read now, and stood in the store beside the one of the later part.
    """
    from fwdata.store.reader import open_store

    pending = [part for part in parts if not _is_written(out, part)]
    planned = Counter(recording.id for part in parts for recording in part.recordings)
    if not any(planned[recording.id] > 1 for part in pending for recording in part.recordings):
        return tuple(pending)
    return once(pending, {episode.id for part in open_store(out).parts for episode in part.record.episodes})


def once(parts: Iterable[PlannedPart], held: Collection[str]) -> tuple[PlannedPart, ...]:
    """The parts with each recording in the last of them alone, and in none where another part of the store holds it."""
    found, there = list[PlannedPart](), set(held)
    for part in reversed(tuple(parts)):
        found.append(replace(part, recordings=tuple(r for r in part.recordings if r.id not in there)))
        there |= {recording.id for recording in part.recordings}
    return tuple(reversed(found))


def _check_stored(out: Path, planned: Sequence[PlannedPartRecord], new: Sequence[RootedRecording]) -> None:
    """UsageError where a file of a new recording is in the store already, under another id: it would be there twice.

    That is so where files that were one recording are several now, or the other way round, or have other names.
    """
    from fwdata.store.reader import open_store

    if not planned or not new:
        return
    stored = {episode.source: episode.id for part in planned for episode in part.episodes}
    held = {
        file.path: episode.id
        for part in open_store(out).parts
        for episode in part.record.episodes
        for file in episode.files
    } | stored
    for recording in new:
        again = [recording.source, *(file for file in recording.stored().files if file in stored)]
        found = next((source for source in again if source in held), None)
        if found is not None:
            raise UsageError(
                f"{found} is in {out} as a file of recording {held[found]!r}, and now belongs to {recording.id!r}: it "
                "would be stored twice; nothing was changed. Give the folder as it was (with every file of a recording "
                "and no others of its name), or convert to another --out"
            )


def _left_out(out: Path, planned: Sequence[PlannedPartRecord]) -> set[str]:
    """Ids of recordings that the store lists as left out, and that no part still to write has planned again."""
    from fwdata.store.reader import open_store

    if not planned:
        return set()
    store = open_store(out)
    written = {part.name for part in store.parts}
    waiting = {episode.id for part in planned if part.name not in written for episode in part.episodes}
    return {item.id for part in store.parts for item in store.left_out(part)} - waiting


def _check_roots(out: Path, found: CombinedDiscovery) -> None:
    """UsageError when a store of several roots is continued with others; one root may have moved."""
    store = read_root(LocalFiles(out)) if out.is_dir() else None
    before = list(store.roots) if store else []
    now = [root.name for root in found.roots]
    if not before or (len(before) == len(now) == 1) or before == now:
        return
    absent = [f"without {name}" for name in before if name not in now]
    more = [f"with {name}" for name in now if name not in before]
    raise UsageError(
        f"{out} was converted from {', '.join(before)}, now asked for {' and '.join([*absent, *more])}; give the same "
        "folders, or choose another --out and `fwdata merge` the stores"
    )


def planned_part(entry: PlannedPartRecord, by_id: Mapping[str, RootedRecording]) -> PlannedPart:
    """A part of a store's plan, with the recordings that were found for it."""
    return PlannedPart(
        name=entry.name,
        group=entry.group,
        recordings=tuple(by_id[episode.id] for episode in entry.episodes if episode.id in by_id),
        missing=tuple(episode.source for episode in entry.episodes if episode.id not in by_id),
        digest=entry.plan or plan_digest(entry.sizes()),
    )


def unwritten(out: Path, parts: Iterable[PlannedPart]) -> list[str]:
    """Names of the parts that are not whole in a store."""
    return [part.name for part in parts if not _is_written(out, part)]


def _is_written(out: Path, part: PlannedPart) -> bool:
    if not out.is_dir():
        return False
    record = read_complete(LocalFiles(out), f"parts/{part.name}", PartRecord)
    if record is None:
        return False
    if record.plan != part.digest:
        raise StaleCache(f"{out}/parts/{part.name} does not belong to the store's plan; convert to another --out")
    return True


def parts_again(request: ConvertRequest, found: CombinedDiscovery, *, cut_anew: bool) -> tuple[PlannedPart, ...]:
    """Every part of a store, with the recordings found for it; recordings that the store has not planned are left out.

    cut_anew: the store's plan is lost, so that the recordings found are cut into parts as a new store's are.
    UsageError when the store was made from other roots or other recordings altogether.
    """
    _check_roots(request.out, found)
    if not cut_anew:
        by_id = {recording.id: recording for recording in found.recordings}
        plan = read_plan(request.out)
        parts = [planned_part(entry, by_id) for entry in (plan.parts if plan else ())]
        if not any(part.recordings for part in parts):
            raise UsageError(
                f"{request.out} was converted from other recordings: it has none of the {len(by_id)} found below "
                f"{request.where()}; give the recordings it was converted from"
            )
        return tuple(parts)
    return tuple(
        PlannedPart(part_name(n), cut[0].group, tuple(cut), (), plan_digest({r.id: r.ref.num_bytes for r in cut}))
        for n, cut in enumerate(_cut(found.recordings, request.part_episodes or PART_EPISODES))
    )


def read_plan(out: Path) -> PlanRecord | None:
    """The plan that a store follows; None before its root metadata are written."""
    if not out.is_dir() or not has_record(LocalFiles(out), ""):
        return None
    return read_record(LocalFiles(out), "plan", PlanRecord)


def write_plan(out: Path, plan: ConversionPlan) -> None:
    """Write the store's plan when it says anything new; recordings planned earlier stay as they were planned."""
    previous = read_plan(out)
    old = {part.name: part for part in previous.parts} if previous else {}
    now = plan_record([old.get(part.name) or part.entry() for part in plan.parts], plan.found)
    said = {name: getattr(now, name) for name in now.model_fields_set}
    content = previous.model_copy(update=said) if previous else now  # fields of newer versions stay
    if previous is None or content.to_json() != previous.to_json():
        write_record(out / "plan", content)


def plan_record(parts: Sequence[PlannedPartRecord], found: CombinedDiscovery) -> PlanRecord:
    """The plan of a store. parts: `PlannedPart.entry` of each."""
    skipped = tuple(
        SkippedRecord(source=skip.source, reason=skip.reason, **({"damaged": True} if skip.damaged else {}))
        for skip in found.skipped
    )
    record = PlanRecord(parts=tuple(parts), skipped=skipped, warnings=found.warnings)
    counted = tuple(CountRecord(**vars(left)) for left in found.left_out)
    more = {"left_out": counted, "exclude": found.exclude, "only": found.only}
    said = {key: value for key, value in more.items() if value}  # a plan that leaves out nothing is as it always was
    return record.model_copy(update=said)
