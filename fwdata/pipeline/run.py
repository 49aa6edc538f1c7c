"""Doing a conversion: parts in worker processes, bad recordings quarantined, every part committed whole."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fwdata.api import Converter, Episode
from fwdata.errors import BadEpisode, UsageError
from fwdata.manifest import Manifest
from fwdata.pipeline.plan import (
    ConvertRequest,
    Plan,
    PlannedPart,
    check_output,
    find_recordings,
    load_converter,
    make_plan,
    write_plan,
)
from fwdata.pipeline.workers import run_tasks
from fwdata.stitch import stitch_hash
from fwdata.store.files import LocalFiles, ensure_groups, read_attributes, write_group, write_lock
from fwdata.store.layout import LAYOUT_VERSION
from fwdata.store.writer import PartWriter, source_files

FATAL_ERRNOS = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EMFILE", "ENFILE", "EIO")
)
"""System errors that concern the machine, not one recording."""

type OnEpisode = Callable[[int, int], None]
"""Called with (episodes done, frames done) after every recording."""


@dataclass(frozen=True)
class PartResult:
    """What one part came to."""

    episodes: int
    frames: int
    quarantined: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


@dataclass
class ConvertReport:
    """What a conversion did. quarantined: (source, reason) of everything left out, earlier runs included."""

    out: Path
    episodes: int = 0
    frames: int = 0
    new_episodes: int = 0
    new_frames: int = 0
    seconds: float = 0.0
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DryRun:
    """What a conversion would do. bytes: source bytes of the recordings found."""

    episodes: int
    parts: int
    pending_parts: int
    bytes: int
    skipped: tuple[tuple[str, str], ...]
    decisions: dict[str, Any]
    warnings: tuple[str, ...]


def dry_run(request: ConvertRequest) -> DryRun:
    """Plan without reading a recording or writing a byte."""
    check_output(request)
    plan = make_plan(request, find_recordings(request, load_converter(request.manifest)))
    return DryRun(
        episodes=len(plan.discovery.episodes),
        parts=len(plan.parts),
        pending_parts=len(plan.pending),
        bytes=sum(ref.num_bytes for ref in plan.discovery.episodes),
        skipped=tuple((s.source, s.reason) for s in plan.discovery.skipped),
        decisions=dict(plan.discovery.decisions),
        warnings=plan.discovery.warnings,
    )


def convert(request: ConvertRequest, on_plan: Callable[[Plan], None], on_episode: OnEpisode) -> ConvertReport:
    """Convert all recordings of a root that the store does not hold yet.

    on_plan: called once with the plan, before the first recording. on_episode: called with increments of (episodes,
    frames). Running it again continues, and writes nothing when all is done. Cost: every recording is read once, every
    JPEG's coded bits are decoded once to check them. Raises UsageError for a wrong root or output, and with the bad
    recording's reason with on_error "fail"; StoreBusy when another process writes.
    """
    began = time.monotonic()
    check_output(request)
    converter = load_converter(request.manifest)
    discovery = find_recordings(request, converter)
    with write_lock(request.out):
        check_output(request)  # again: another process may have written until now
        plan = make_plan(request, discovery)
        on_plan(plan)
        write_plan(request.out, plan)
        report = ConvertReport(request.out, warnings=list(plan.discovery.warnings))
        if plan.pending:
            _prepare_store(request, converter, plan)
            _run_parts(request, plan.pending, report, on_episode)
    _summarise(request.out, report)
    report.seconds = time.monotonic() - began
    return report


def _summarise(out: Path, report: ConvertReport) -> None:
    from fwdata.store.reader import open_store

    store = open_store(out)
    report.episodes, report.frames = len(store.episodes), store.num_frames
    report.quarantined = [(q["source"], q["reason"]) for q in store.quarantined]


def _prepare_store(request: ConvertRequest, converter: Converter, plan: Plan) -> None:
    """Write the store's root metadata, its names taken from the first readable recording."""
    ensure_groups(request.out, request.out / "parts")
    if read_attributes(LocalFiles(request.out), "") is not None:
        return
    first, reasons = _first_readable(request, converter, plan)
    if first is None:
        listed = "; ".join(reasons[:3]) + ("; .." if len(reasons) > 3 else "")
        raise UsageError(f"none of the {len(reasons)} recordings below {request.raw} can be read: {listed}")
    manifest = request.manifest
    decisions = {**dict(plan.discovery.decisions), "cameras": list(manifest.cameras)}
    from fwdata import __version__

    write_group(
        request.out,
        {
            "layout_version": LAYOUT_VERSION,
            "source": request.source,
            "fps": manifest.fps.hz,
            "fps_nominal": manifest.fps.nominal,
            "cameras": list(manifest.cameras),
            "state_names": list(first.state_names),
            "action_names": list(first.action_names),
            "units": dict(manifest.units),
            "stitch_hash": stitch_hash(manifest.stitch),
            "manifest": manifest.model_dump(mode="json"),
            "manifest_digest": manifest.digest(),
            "decisions": decisions,
            "roots": [request.raw.resolve().name],
            "writer": f"fwdata {__version__}",
        },
    )


def _first_readable(request: ConvertRequest, converter: Converter, plan: Plan) -> tuple[Episode | None, list[str]]:
    reasons: list[str] = []
    for part in plan.parts:
        for ref in part.refs:
            try:
                return converter.read(request.raw, ref), reasons
            except Exception as error:  # the boundary that leaves out one recording
                if _concerns_all(error):
                    raise
                reasons.append(f"{ref.source}: {_reason(error)}")
                if request.on_error == "fail":
                    raise UsageError(reasons[-1]) from None
    return None, reasons


def _concerns_all(error: Exception) -> bool:
    """Whether an error is of the machine or of what the user asked for, not of one recording."""
    return isinstance(error, MemoryError | UsageError) or (isinstance(error, OSError) and error.errno in FATAL_ERRNOS)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, BadEpisode) else f"{type(error).__name__}: {error}"


def convert_part(request: ConvertRequest, part: PlannedPart, manifest: Manifest, on_episode: OnEpisode) -> PartResult:
    """Convert one part in this process; see `convert`."""
    attributes = read_attributes(LocalFiles(request.out), "")
    assert attributes is not None
    converter = load_converter(manifest)
    names = (tuple(attributes["state_names"]), tuple(attributes["action_names"]))
    writer = PartWriter(request.out, part.name, part.group, manifest.cameras, *names, plan=part.digest)
    quarantined = [(source, "the recording is no longer in the folder") for source in part.missing]
    warnings: list[str] = []
    episodes = frames = 0
    for ref in part.refs:
        length = 0
        try:
            episode = converter.read(request.raw, ref)
            writer.add(ref, episode, source_files(request.raw, ref))
            length = len(episode.state)
            warnings += [f"{ref.source}: {text}" for text in episode.warnings]
        except Exception as error:  # the boundary that quarantines one recording
            if writer.appending or _concerns_all(error):
                raise
            quarantined.append((ref.source, _reason(error)))
        if quarantined and request.on_error == "fail":
            raise UsageError(f"{quarantined[-1][0]}: {quarantined[-1][1]}")
        episodes, frames = episodes + bool(length), frames + length
        on_episode(1, length)
    for source, reason in quarantined:
        writer.quarantine(source, reason)
    writer.commit()
    return PartResult(episodes, frames, tuple(quarantined), tuple(warnings))


def _run_parts(
    request: ConvertRequest, parts: tuple[PlannedPart, ...], report: ConvertReport, on_episode: OnEpisode
) -> None:
    if request.workers <= 1 or len(parts) == 1:
        for part in parts:
            _add(report, convert_part(request, part, request.manifest, on_episode))
        return
    tasks = [(request, part) for part in parts]
    for result in run_tasks(_part_in_worker, tasks, request.workers, on_episode):
        _add(report, result)


def _add(report: ConvertReport, result: PartResult) -> None:
    report.new_episodes += result.episodes
    report.new_frames += result.frames
    report.warnings += result.warnings


def _part_in_worker(request: ConvertRequest, part: PlannedPart, *, report: OnEpisode) -> PartResult:
    return convert_part(request, part, request.manifest, report)
