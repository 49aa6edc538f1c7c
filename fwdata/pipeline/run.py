"""Doing a conversion: parts in worker processes, bad recordings quarantined, every part committed whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from fwdata.errors import UsageError, quoted
from fwdata.images.stitch import stitch_hash
from fwdata.io import among_writers, check_free
from fwdata.manifest import Manifest
from fwdata.pipeline.changes import (
    SourceCheck,
    check_sources,
    outdated_parts,
    outdated_sentence,
    part_differs,
    record_touched,
)
from fwdata.pipeline.discover import find_recordings
from fwdata.pipeline.evidence import EvidenceGate, first_recordings, recorded_gate
from fwdata.pipeline.first_look import (
    FirstLook,
    Outliers,
    forget_dropped,
    look_at_more,
    look_first,
    looks,
    refuse_late,
)
from fwdata.pipeline.jobs import Job, end_job
from fwdata.pipeline.part import RecordingOutcome, SampledRecording, convert_part, find_readable
from fwdata.pipeline.plan import ConversionPlan, PlannedPart, check_output, make_plan, number_of_parts, write_plan
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.results import ConvertReport, store_report
from fwdata.pipeline.roots import CombinedDiscovery
from fwdata.pipeline.same_collection import check_collection
from fwdata.pipeline.same_content import drop_unchanged
from fwdata.pipeline.shared_evidence import begin_handing_over, end_handing_over, handed_over
from fwdata.pipeline.spread_convert import convert_units, own_share, refuse_shared, seal, writing
from fwdata.pipeline.units import UnitsReport
from fwdata.pipeline.update import (
    Replacement,
    check_names,
    is_staged,
    plan_update,
    remove_part,
    renew_decisions,
    replace_part,
    sweep,
    switch,
)
from fwdata.pipeline.workers import RetryThenLeaveOut, Task, WorkerPool
from fwdata.store.change_view import adopt_manifest
from fwdata.store.evidence import EVIDENCE, read_part_evidence, write_evidence
from fwdata.store.files import LocalFiles, ensure_groups
from fwdata.store.layout import new_layout
from fwdata.store.metadata import has_record, write_record
from fwdata.store.pooling import pool_store
from fwdata.store.reader import open_store
from fwdata.store.records import DecisionsRecord, StoreRecord, ViewRecord
from fwdata.store.sources import SOURCES, read_sources, write_sources
from fwdata.store.view import VIEW, changes, flat, given_keys, write_view
from fwdata.warning_kinds import group_warnings
from fwdata.wording import verb

type OnEpisode = Callable[[int, int], None]
"""Called with (episodes done, frames done) after every recording."""


def part_losses(out: Path) -> RetryThenLeaveOut:
    """What to do about workers that end while they read recordings for a store."""
    return RetryThenLeaveOut(
        lambda task: f"writing part {task[-2].name} of {out}",
        "what is written is safe, run the same command again to continue, with fewer --workers if memory was short",
        "reading this recording",
    )


class _Progress:
    """Counts every recording once, also where a part is done again."""

    def __init__(self, on_episode: OnEpisode) -> None:
        self._on_episode = on_episode
        self._seen: set[tuple[str, int]] = set()

    def __call__(self, part: str, number: int, frames: int) -> None:
        if (part, number) not in self._seen:
            self._seen.add((part, number))
            self._on_episode(1, frames)


def convert(
    request: ConvertRequest,
    on_plan: Callable[[ConversionPlan], None],
    on_episode: OnEpisode,
    shared: WorkerPool | None = None,
) -> ConvertReport:
    """Convert all recordings of the roots that the store does not hold yet.

    on_plan: called once with the plan, before the first recording. on_episode: called with increments of (episodes,
    frames). The first recordings are measured before anything is written. Running it again continues, and writes
    nothing when all is done. Cost: every recording is read once (the first ones twice), every JPEG's coded bits are
    decoded once to check them. Raises UsageError for a wrong root, output or decision (`fwdata.evidence`), and with the
    bad recording's reason with on_error "fail"; StoreBusy when another process writes.
    Recordings whose files changed are reported, and converted again with `request.update`, as are those of a store that
    an older version of the converter made; without, such a store is left as it is. shared: workers that are there
    already and stay, None: those that the request asks for.
    """
    began = time.monotonic()
    refuse_shared(request)
    asked, request = request.manifest, _as_begun(request)
    check_free(request.out)
    older = outdated_parts(request)
    if older and not request.update:
        report = store_report(request.out, (), {}, time.monotonic() - began)
        report.outdated = outdated_sentence(request, older)
        return report
    with nullcontext(shared) if shared else WorkerPool(request.workers, request.memory) as pool:
        found = find_recordings(request, pool)
        _refuse_damaged(request, found)
        look = _first_look(request, found, pool)
        with writing(request), among_writers() if request.spread.shared else nullcontext():
            request = _as_begun(request)  # again: another process may have written until now
            plan = make_plan(request, found)
            check, update = _changes(request, plan, pool)
            plan = replace(plan, again=sum(len(item.again) for item in update))
            on_plan(own_share(request, plan))
            request, made_here, job = _begin(request, asked, plan, look, pool)
            units: UnitsReport | None = None
            if job is not None:
                new, units = _convert_share(request, plan, job, on_episode)
            else:
                new = _convert_parts(request, plan, pool, on_episode) if plan.pending else {}
                new |= _update_parts(request, found, update, pool, on_episode)
                if request.update or not check.changed:
                    sweep(request)
            notes: tuple[list[str], list[str]] = ([], [])
            if units is None or not units.left:
                record_touched(request, check)
                if request.gate is not None:
                    _settle(request, request.gate, plan, look, new, made_here=made_here and job is None, job=job)
                notes = _take_view(request, asked)
                end_job(request.out, "convert")
    report = store_report(request.out, found.warnings, new, time.monotonic() - began)
    again = {item.id for item in check.changed} | {name for item in update for name in item.again}
    report.changed = [] if request.update else check.changed
    report.updated = sorted({r.source for r in found.recordings if r.id in again}) if request.update else []
    report.left_out, report.units = list(found.left_out), units
    report.view_changes, warnings = notes
    report.warnings += warnings
    return report


def _first_look(request: ConvertRequest, found: CombinedDiscovery, pool: WorkerPool) -> FirstLook | None:
    """What the first recordings of a new store show; None where the store is not new, or conventions not measured."""
    if not looks(request):
        return None
    parts = number_of_parts(request, found.recordings)
    return look_first(request, first_recordings(found.recordings), pool, parts, warned=found.warnings)


def _check_verdicts(request: ConvertRequest, pending: Collection[str]) -> None:
    """StoreDamaged for recorded verdicts that cannot be read, but those of parts that are made anew: they are pooled
    once everything else is written."""
    files = LocalFiles(request.out)
    for name in files.names(EVIDENCE) if request.evidence else ():
        if name not in pending:
            read_part_evidence(files, name)


def _refuse_damaged(request: ConvertRequest, found: CombinedDiscovery) -> None:
    """UsageError for a damaged recording where bad ones are not to be quarantined."""
    damaged = next((skip for skip in found.skipped if skip.damaged), None)
    if damaged is not None and request.on_error == "fail":
        raise UsageError(f"{damaged.source}: {damaged.reason}")


def _begin(
    request: ConvertRequest, asked: Manifest, plan: ConversionPlan, look: FirstLook | None, pool: WorkerPool
) -> tuple[ConvertRequest, bool, Job | None]:
    """Write what a store has before its parts, after everything that may refuse.

    The request with its gate, whether this run began the store, and the job where other processes may share the work.
    """
    begun = has_record(LocalFiles(request.out), "")
    if begun:
        look_at_more(request, plan, pool)
    first = None if begun else sample(request, plan, pool, part_losses(request.out))
    job = seal(request, plan) if request.spread.shared else None
    if first is not None:
        forget_dropped(request.out)
    if look is not None and first is not None:
        write_evidence(request.out, look.episodes, look.verdicts, look.verdicts, request.accept)
    gate = recorded_gate(request.out, request.accept, plan.found.recordings) if request.evidence else None
    request = replace(request, gate=gate)
    write_plan(request.out, plan)
    _ensure_records(request, asked, plan)
    if first is not None:
        _write_root(request, plan, first)
    if gate is not None and job is None and plan.pending:
        begin_handing_over(request.out)
    return request, first is not None, job


def _convert_share(
    request: ConvertRequest, plan: ConversionPlan, job: Job, on_episode: OnEpisode
) -> tuple[dict[str, RecordingOutcome], UnitsReport]:
    """Write what is pending of this process's share of the parts, beside others; outcomes by source."""
    _ensure_shared_groups(request)
    return convert_units(request, plan, job, partial(part_losses, request.out), _Progress(on_episode))


def _settle(
    request: ConvertRequest,
    gate: EvidenceGate,
    plan: ConversionPlan,
    look: FirstLook | None,
    new: Mapping[str, RecordingOutcome],
    *,
    made_here: bool,
    job: Job | None,
) -> None:
    """Pool and record the verdicts of all episodes; UsageError when they contradict what the first could not.

    made_here: this run began the store, and may remove it again. job: where others work on the store, too.
    """
    measured = {m.episode: m for outcome in new.values() if (m := outcome.measurement)}
    if job is not None or len(plan.pending) < len(plan.parts):  # else this run measured all of them
        measured |= handed_over(request.out, measured)
    pool_store(request.out, gate.accepted, measured)
    if job is None:
        end_handing_over(request.out)
    options = {name: option for m in measured.values() for name, option in m.options.items()}
    drop = made_here and look is not None and not look.images
    refuse_late(request, gate.accepted, options, drop, plan.found.warnings)


def _changes(
    request: ConvertRequest, plan: ConversionPlan, pool: WorkerPool
) -> tuple[SourceCheck, tuple[Replacement, ...]]:
    """What changed since the store was converted, and the parts to replace for it. Writes nothing."""
    older = outdated_parts(request)
    check = check_sources(request, plan.found, thorough=request.update)
    drop_unchanged(request, plan.found, check, pool)
    check_collection(request, plan.found, check, pool, grows=bool(plan.pending))
    replaces = request.update and bool(older or check.changed)
    if plan.pending or replaces:
        _check_verdicts(request, {part.name for part in plan.pending})
    if not replaces:
        return check, ()
    update = plan_update(request, plan.found, check.changed, older)
    if older:
        first = sample(request, plan, pool, part_losses(request.out))
        check_names(open_store(request.out), (first.state_names, first.action_names), str(request.out))
    return check, update


def _update_parts(
    request: ConvertRequest,
    found: CombinedDiscovery,
    update: tuple[Replacement, ...],
    pool: WorkerPool,
    on_episode: OnEpisode,
) -> dict[str, RecordingOutcome]:
    """Make the next generation of parts and put all of them in place at once; outcomes by source."""
    if not update:
        return {}
    older, losses = outdated_parts(request), part_losses(request.out)
    _ensure_shared_groups(request)
    todo = [item for item in update if not is_staged(request, item, lambda name: part_differs(request, found, name))]
    for item in todo:  # what an earlier run made of it, from other files
        remove_part(request.out / "parts" / item.name)
    tasks: list[Task] = [(request, item, dict(losses.reasons)) for item in todo]
    done = list(pool.run(replace_part, tasks, _Progress(on_episode), losses))
    switch(request, found, update)
    if older:
        renew_decisions(request, found)
    return {outcome.source: outcome for outcomes in done for outcome in outcomes}


def _as_begun(request: ConvertRequest) -> ConvertRequest:
    """The request with the manifest that its store was begun with, so that all its parts follow the same rules."""
    manifest = check_output(request)
    return request if manifest is None else replace(request, manifest=manifest)


def _ensure_records(request: ConvertRequest, asked: Manifest, plan: ConversionPlan) -> None:
    """Write the records of the view and of parts where they are missing: in a new store, in one of an earlier release
    that grows, and where one was lost."""
    files = LocalFiles(request.out)
    recorded = set(files.names(SOURCES))
    if not (plan.pending or plan.again or recorded):
        return
    if not has_record(files, VIEW):
        given = given_keys(asked) if asked.view == request.manifest.view else None
        write_view(request.out, ViewRecord(given=given))
    pending = {part.name for part in plan.pending}
    for part in plan.parts:
        if part.name not in pending and not has_record(files, f"{SOURCES}/{part.name}"):
            write_sources(request.out, read_sources(files, part.name))


CACHES = ("latents", "text", "stats")
"""Groups of a store whose contents depend on its view."""


def _take_view(request: ConvertRequest, manifest: Manifest) -> tuple[list[str], list[str]]:
    """Take over the view of the manifest asked for: what changed, and what does not follow it since it was set."""
    out, made = request.out, request.manifest.name
    if not request.named and manifest.name != made:
        taken = f"the view stays as it is: the store was made with manifest {made!r}, and this command named none"
        return [], [f"{taken}; to change it to that of {manifest.name!r}: --manifest {manifest.name}"]
    before, after = adopt_manifest(out, manifest)
    asked = dict(flat(manifest.view))
    kept = [
        f"view: {s.key} stays {s.value}, set with `fwdata view`; the manifest says {asked[s.key]} "
        f"(fwdata view {quoted(out)} --unset {s.key})"
        for s in after.settings
        if s.origin == "set" and s.value != asked[s.key] and before is not after
    ]
    changed = changes(before, after)
    caches = [name for name in CACHES if changed and (out / name).is_dir()]
    if caches:
        keys = ", ".join(key for key, _, _ in changed)
        kept.append(
            f"view: {keys} changed to this manifest's values; of {', '.join(caches)} of {out} those made under another "
            "view are refused from now on; make them again, or run this command with the earlier --manifest and "
            "options to go back"
        )
    return [f"{key}: {old} -> {new}" for key, old, new in changed], kept


def _convert_parts(
    request: ConvertRequest, plan: ConversionPlan, pool: WorkerPool, on_episode: OnEpisode
) -> dict[str, RecordingOutcome]:
    """Write what is pending; outcomes by source."""
    losses = part_losses(request.out)
    _ensure_shared_groups(request)
    tasks = [(request, part, dict(losses.reasons)) for part in plan.pending]
    count, new = sum(len(part.recordings) for part in plan.pending), dict[str, RecordingOutcome]()
    outliers = Outliers(count, plan.found.warnings)
    for outcomes in pool.run(convert_part, tasks, _Progress(on_episode), losses, _first_file, takes=_names):
        outliers.add(outcomes)
        new |= {outcome.source: outcome for outcome in outcomes}
    return new


def _names(task: Task) -> Iterable[str]:
    part: PlannedPart = task[1]
    return (recording.id for recording in part.recordings)


def _first_file(task: Task) -> object:
    """Which file a part is read from first: a large one is hashed by every worker that reads it."""
    part: PlannedPart = task[1]
    first = next(iter(part.recordings), None)
    return part.name if first is None else (first.root.path, first.ref.files[:1])


def _ensure_shared_groups(request: ConvertRequest) -> None:
    """Write the groups that parts lie in, before workers that would all write them at once under one temporary name."""
    for name in ("parts", SOURCES, *([EVIDENCE] if request.gate is not None else [])):
        ensure_groups(request.out, request.out / name)


def sample(
    request: ConvertRequest, plan: ConversionPlan, pool: WorkerPool, losses: RetryThenLeaveOut
) -> SampledRecording:
    """The first readable recording. UsageError when there is none."""
    reasons: list[str] = []
    for part in plan.parts:
        task = (request, part, dict(losses.reasons))
        found: SampledRecording | None
        [(found, unread)] = pool.run(find_readable, [task], lambda: None, losses, takes=_names)
        reasons += unread
        if found is not None:
            return found
    kinds = group_warnings((source, reason) for source, _, reason in (text.partition(": ") for text in reasons))
    listed = "; ".join(kind.sentence() for kind in kinds[:3]) + ("; .." if len(kinds) > 3 else "")
    lead = verb(len(reasons), "the one recording", f"none of the {len(reasons)} recordings")
    raise UsageError(f"{lead} below {request.where()} {verb(len(reasons), 'cannot', 'can')} be read: {listed}")


def _write_root(request: ConvertRequest, plan: ConversionPlan, first: SampledRecording) -> None:
    """Write the store's root metadata, its names taken from the first readable recording."""
    ensure_groups(request.out, request.out / "parts")
    manifest = request.manifest
    from fwdata import __version__

    write_record(
        request.out,
        StoreRecord(
            layout_version=new_layout({camera.encoding for camera in first.cameras}),
            named_dimensions=True,
            source=request.source,
            fps=manifest.fps.hz,
            fps_nominal=manifest.fps.nominal,
            cameras=manifest.cameras,
            state_names=first.state_names,
            action_names=first.action_names,
            units=manifest.units,
            stitch_hash=stitch_hash(manifest.stitch),
            manifest=manifest.model_dump(mode="json"),
            manifest_digest=manifest.digest(),
            decisions=DecisionsRecord.model_validate({**plan.found.decisions, "cameras": manifest.cameras}),
            roots=tuple(root.name for root in plan.found.roots),
            writer=f"fwdata {__version__}",
        ),
    )
