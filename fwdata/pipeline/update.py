"""Converting again what changed: parts rebuilt beside those in use, and put in their place all at once.

The next generation of part p00003 is p00003-1. It takes the episodes that did not change from the part in use and
converts the others. Readers use the parts that the plan lists, so they see the store as it was until the plan, one
file, is replaced; a killed update leaves the store as it was or as it will be, and goes on when it is run again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fwdata.errors import UsageError
from fwdata.pipeline.changes import ChangedRecording
from fwdata.pipeline.part import RecordingOutcome, convert_recording, left_out_of, part_written
from fwdata.pipeline.plan import PlannedPart, plan_record, planned_part, read_plan
from fwdata.pipeline.registry import converter_version, load_converter
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import CombinedDiscovery, RootedRecording
from fwdata.pipeline.workers import LeftOut, Link
from fwdata.store.evidence import read_part_evidence, write_part_evidence
from fwdata.store.files import LocalFiles
from fwdata.store.layout import next_generation, part_base
from fwdata.store.metadata import read_part, read_root, write_record
from fwdata.store.reader import Store, open_store
from fwdata.store.records import DecisionsRecord, PlannedPartRecord
from fwdata.store.sources import read_sources


@dataclass(frozen=True)
class Replacement:
    """The next generation of one part."""

    part: PlannedPart
    """The part as it will be, under its new name."""
    entry: PlannedPartRecord
    """What the plan will say of it."""
    old: str
    """Name of the part in use."""
    again: frozenset[str]
    """Ids of the recordings to convert again."""

    @property
    def name(self) -> str:
        """The part's new name."""
        return self.part.name


def plan_update(
    request: ConvertRequest,
    found: CombinedDiscovery,
    changed: Sequence[ChangedRecording],
    outdated: Iterable[str],
) -> tuple[Replacement, ...]:
    """The parts to replace: those that hold a changed recording, and all of those in `outdated`.

    UsageError where a recording that has to be read again is no longer in the roots; nothing is written.
    """
    by_id = {recording.id: recording for recording in found.recordings}
    store, everything = open_store(request.out), set(outdated)
    again: dict[str, set[str]] = {}
    for item in changed:
        again.setdefault(item.part, set()).add(item.id)
    replacements = []
    for entry in store.plan.parts:
        name = entry.name
        if name not in again and name not in everything:
            continue
        part = next((part for part in store.parts if part.name == name), None)
        if part is None:
            continue  # not written yet, and then by this version
        video = any(camera.encoding == "video" for camera in part.record.cameras.values())
        ids = set(again.get(name, ()))
        if name in everything:
            ids |= {e.id for e in part.record.episodes} | {item.id for item in store.left_out(part)}
        elif video:  # packets are kept in groups that only reading the recording gives
            ids |= {e.id for e in part.record.episodes}
        _check_present(request, ids, by_id, {e.id: e.source for e in entry.episodes})
        replacements.append(_replacement(entry, by_id, ids))
    return tuple(replacements)


def _check_present(
    request: ConvertRequest, ids: set[str], by_id: Mapping[str, RootedRecording], sources: Mapping[str, str]
) -> None:
    gone = sorted(sources[name] for name in ids if name not in by_id)
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise UsageError(
            f"{request.out} holds {gone[0]}{more}, which {request.where()} no longer has and which would have to be "
            "read again; give the folder with every recording of the store"
        )


def _replacement(entry: PlannedPartRecord, by_id: Mapping[str, RootedRecording], again: set[str]) -> Replacement:
    episodes = tuple(
        e.model_copy(update={"bytes": by_id[e.id].ref.num_bytes}) if e.id in again else e for e in entry.episodes
    )
    renewed = entry.model_copy(update={"name": next_generation(entry.name), "episodes": episodes})
    return Replacement(planned_part(renewed, by_id), renewed, entry.name, frozenset(again))


def is_staged(request: ConvertRequest, item: Replacement, changed: Callable[[str], bool]) -> bool:
    """Whether an earlier run that was ended has made the replacement, from the files that are there now.

    changed: whether the files of the part of that name differ from those that are there.
    """
    files = LocalFiles(request.out)
    made = read_part(files, item.part.name)
    if made is None or made[0].plan != item.part.digest:
        return False
    version = read_sources(files, item.part.name).version
    return version == converter_version(request.source) and not changed(item.part.name)


def replace_part(
    request: ConvertRequest, item: Replacement, left_out: LeftOut, *, link: Link
) -> tuple[RecordingOutcome, ...]:
    """Write the next generation of a part; the outcomes of the recordings that were converted again."""
    converter, part = load_converter(request.manifest), item.part
    store = open_store(request.out)
    old = next(found for found in store.parts if found.name == item.old)
    episodes = {episode.id: episode for episode in store.episodes.of(old)}
    reasons = {left.source: left.reason for left in old.record.quarantined}
    sources = read_sources(store.files, item.old)
    recordings = {recording.id: recording for recording in part.recordings}
    outcomes = list[RecordingOutcome]()
    with part_written(request, part) as writer:
        for number, planned in enumerate(item.entry.episodes):
            if planned.id in item.again:
                outcome = convert_recording(request, converter, writer, recordings[planned.id], left_out, link)
                outcomes.append(outcome)
                left_out_of(writer, outcome)
                link.report(part.name, number, outcome.frames)
            elif planned.id in episodes:
                writer.copy(episodes[planned.id], sources)
            else:
                writer.quarantine(planned.source, reasons.get(planned.source, "it was not converted"))
        link.announce(None)
        if request.gate is not None:
            kept = [m for m in read_part_evidence(store.files, item.old) if m.episode not in item.again]
            measured = {m.episode: m for m in (*kept, *(o.measurement for o in outcomes if o.measurement))}
            ordered = [measured[e.id] for e in item.entry.episodes if e.id in measured]
            write_part_evidence(request.out, part.name, ordered)
        writer.commit()
    return tuple(outcomes)


def switch(request: ConvertRequest, found: CombinedDiscovery, replacements: Sequence[Replacement]) -> None:
    """Put all replacements in the place of their parts at once, then remove those. The caller holds the lock."""
    renewed, plan = {item.old: item.entry for item in replacements}, read_plan(request.out)
    assert plan is not None
    now = plan_record([renewed.get(entry.name, entry) for entry in plan.parts], found)
    write_record(request.out / "plan", plan.model_copy(update=dict(now)))  # fields of newer versions stay
    sweep(request)


def sweep(request: ConvertRequest) -> None:
    """Remove generations of parts that the plan does not list, and what was made from them. Lock held."""
    plan = read_plan(request.out)
    listed = {entry.name for entry in plan.parts} if plan else set()
    bases = {part_base(name) for name in listed}
    for pattern in ("parts/p*", "sources/p*", "evidence/p*", "latents/*/p*"):
        for folder in sorted(request.out.glob(pattern)):
            if folder.name not in listed and part_base(folder.name) in bases:
                remove_part(folder)


def remove_part(folder: Path) -> None:
    """Remove a sealed folder, if it is there: its mark first, so that what is half removed does not look complete."""
    (folder / "zarr.json").unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def renew_decisions(request: ConvertRequest, found: CombinedDiscovery) -> None:
    """Write the conventions that discovery decided now over those of the version before. Lock held."""
    root = read_root(LocalFiles(request.out))
    assert root is not None
    decisions = DecisionsRecord.model_validate({**found.decisions, "cameras": request.manifest.cameras})
    if root.decisions.to_json() != decisions.to_json():
        write_record(request.out, root.model_copy(update={"decisions": decisions}))


def check_names(store: Store, names: tuple[tuple[str, ...], tuple[str, ...]], where: str) -> None:
    """UsageError where a new version of a converter names state or action otherwise than the store does."""
    if names != (store.state_names, store.action_names):
        raise UsageError(
            f"the installed version of the converter gives other state or action names than {where} has; convert to "
            "another --out"
        )
