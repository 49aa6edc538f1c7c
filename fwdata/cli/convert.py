"""`fwdata convert`."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fwdata.cli.converter_options import OptionsCommand, chosen_options, parse_options, with_flags
from fwdata.cli.inspect_verify import plain_decision
from fwdata.cli.spread_options import AddressOption, EngineOption, ShardOption, finish, shard_json, spread_of
from fwdata.console import (
    default_workers,
    emit_json,
    human_bytes,
    human_time,
    print_table,
    progress_bar,
    say,
    say_list,
    warn,
)
from fwdata.errors import EXIT_QUARANTINED, Contradicted, FwdataError, UsageError, quoted
from fwdata.store.locations import StoreUrl, parse_location
from fwdata.warning_kinds import WarningKind, group_warnings, with_source
from fwdata.wording import counted

if TYPE_CHECKING:
    from fwdata.api import LeftOut
    from fwdata.evidence.records import DatasetVerdict
    from fwdata.manifest import Manifest
    from fwdata.pipeline.request import ConvertRequest
    from fwdata.pipeline.results import ConvertReport
    from fwdata.pipeline.workers import WorkerPool

SHOWN = 20
"""Warnings and quarantined recordings printed before the rest is counted."""

SourceName = Annotated[str, typer.Argument(help="Source format: robotwin, libero, r1lite, lerobot, or your own.")]
RawPaths = Annotated[
    list[Path], typer.Argument(help="Folders (or files) of recordings; for lerobot also OWNER/NAME on the hub.")
]
OutStore = Annotated[str, typer.Option("--out", help="The store to write, a path or a URL, e.g. data/robotwin.zarr.")]
ManifestName = Annotated[
    str | None, typer.Option(help="Manifest name or path; default: the source's own, or the one that fits.")
]
SetOptions = Annotated[list[str] | None, typer.Option("--set", help="Converter option key=value; repeatable.")]
ReaderProcesses = Annotated[
    int | None, typer.Option(min=0, help="Reader processes; default: all cores, at most 8. 0: none, unsupervised.")
]
OnError = Annotated[str, typer.Option(help="skip: quarantine bad recordings; fail: stop at the first.")]
EpisodeSeconds = Annotated[
    float, typer.Option(min=1, help="Seconds one recording may take, and 20 more per MB; else it is quarantined.")
]
ReaderMemory = Annotated[int, typer.Option(min=256, help="MiB of memory a reader may use; else it is quarantined.")]
RetryQuarantined = Annotated[
    bool, typer.Option("--retry-quarantined", help="Try what an earlier run quarantined again, after a fix.")
]
UpdateChanged = Annotated[
    bool, typer.Option("--update", help="Convert recordings again whose files, or whose converter, changed.")
]
ReplaceAll = Annotated[
    bool,
    typer.Option("--replace-all", help="Let a newer version in another folder replace every recording of the store."),
]
ExcludeNames = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="Recording to leave out: its id, source, file, or a pattern; repeatable."),
]
ExcludeFile = Annotated[
    Path | None, typer.Option("--exclude-file", help="File with one such name a line; # starts a comment.")
]
OnlyNames = Annotated[
    list[str] | None, typer.Option("--only", help="Recording to take alone, named as for --exclude; repeatable.")
]
NoEvidence = Annotated[bool, typer.Option("--no-evidence", help="Do not measure conventions (docs/evidence.md).")]
Accepted = Annotated[
    list[str] | None,
    typer.Option("--accept", help='DETECTOR="why": keep what was decided though the data contradict it; repeatable.'),
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="convert", cls=OptionsCommand)(convert)


def convert(
    context: typer.Context,
    source: SourceName,
    raw: RawPaths,
    out: OutStore,
    manifest: ManifestName = None,
    options: SetOptions = None,
    workers: ReaderProcesses = None,
    on_error: OnError = "skip",
    episode_seconds: EpisodeSeconds = 300.0,
    memory: ReaderMemory = 4096,
    retry: RetryQuarantined = False,
    update: UpdateChanged = False,
    replace_all: ReplaceAll = False,
    exclude: ExcludeNames = None,
    exclude_file: ExcludeFile = None,
    only: OnlyNames = None,
    no_evidence: NoEvidence = False,
    accept: Accepted = None,
    shard: ShardOption = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    dry_run: DryRunFlag = False,
    as_json: AsJson = False,
) -> None:
    """Convert recordings to a store. Running it again continues; a finished store is left as it is.

    The options of a source are flags too: `fwdata convert SOURCE --help` lists them.

    Example: fwdata convert robotwin RAW_DIR --out data/robotwin.zarr --settings clean --max-episodes-per-task 5
    """
    from fwdata.pipeline.registry import located
    from fwdata.pipeline.request import ConvertRequest
    from fwdata.store.working_copy import reading_copy, working_copy

    check_on_error(on_error)
    given = parse_options(options or []) | chosen_options(context)
    roots = tuple(located(source, path, manifest, given) for path in raw)
    count = default_workers() if workers is None else workers
    copy = reading_copy if dry_run else working_copy
    with _worker_pool(count, memory << 20, measures=not no_evidence, writes=not dry_run) as pool, copy(out) as path:
        gc.enable()  # the readers are forked, see `fwdata.cli.main`
        chosen = _choose_manifest(source, manifest, given, roots, pool, out)
        request = ConvertRequest(
            *(source, roots, path, chosen, count, on_error, episode_seconds, memory << 20),
            retry=retry,
            update=update,
            replace_all=replace_all,
            exclude=(*(exclude or ()), *_names_in(exclude_file)),
            only=tuple(only or ()),
            evidence=not no_evidence,
            accept=_accepted(accept or []),
            spread=spread_of(out, shard, engine, address),
            named=manifest is not None,
        )
        if dry_run:
            _print_dry_run(request, as_json)
            return
        report = _converted(request, pool)
    _end(report, parse_location(out), as_json)


def check_on_error(given: str) -> None:
    """UsageError for a value that --on-error does not take."""
    if given not in {"skip", "fail"}:
        raise UsageError(f"--on-error must be skip or fail, found {given!r}")


def _worker_pool(count: int, memory: int, measures: bool, writes: bool) -> WorkerPool:
    """Readers that are forked from this command where the system can; memory: bytes of each.

    measures, writes: they measure conventions and compress what is stored, so the detectors and the compressor are
    imported once, before they are forked.
    """
    from fwdata.evidence.registry import all_detectors
    from fwdata.pipeline.fork_server import fork_command
    from fwdata.pipeline.worker import COLLECT_AFTER
    from fwdata.pipeline.workers import WorkerPool
    from fwdata.store.codec import load_compressor

    gc.set_threshold(COLLECT_AFTER)
    if measures:
        all_detectors()
    if writes:
        load_compressor()
    return WorkerPool(count, memory, soon=fork_command)


def _choose_manifest(
    source: str, named: str | None, given: Mapping[str, Any], roots: tuple[Path, ...], pool: WorkerPool, out: object
) -> Manifest:
    """The manifest; said where the command named none and it is not the source's usual one."""
    from fwdata.pipeline.choose import manifest_for

    chosen = manifest_for(source, named, given, roots, pool)
    if named is None and chosen.name != source:
        say(f"manifest {chosen.name}: {chosen.description}")
        _say_unstitched(chosen, out)
    return chosen


def _say_unstitched(manifest: Manifest, out: object) -> None:
    """Name the cameras that are stored, but that no policy would see; out: the store, path or URL."""
    stitch = manifest.stitch
    left = [name for name in manifest.cameras if name not in stitch.cameras]
    if left:
        height, width = stitch.camera_size if stitch.layout == "horizontal" else (224, 224)
        every = ",".join(manifest.cameras)
        say(
            f"not stitched: {', '.join(left)}: stored, but not in the image that a policy sees, which layout "
            f"{stitch.layout} makes of {', '.join(stitch.cameras)}; for all of them: fwdata view {quoted(out)} --set "
            f"stitch.layout=horizontal --set 'stitch.cameras=[{every}]' --set 'stitch.size=[{height},"
            f"{width * len(manifest.cameras)}]'"
        )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Print what discovery warned about before the sentence for recordings that contradict what was decided, and an
    error's options as flags."""
    try:
        yield
    except FwdataError as error:
        if isinstance(error, Contradicted):
            _say_kinds(group_warnings(("", text) for text in error.warnings), ())
        error.args = (with_flags(str(error)),)
        raise


def _converted(request: ConvertRequest, pool: WorkerPool) -> ConvertReport:
    from fwdata.pipeline.run import convert as run

    with _explained(), progress_bar("converting", "episodes") as bar:
        return run(
            request,
            lambda plan: bar.start(sum(len(part.recordings) for part in plan.pending) + plan.again),
            lambda episodes, frames: bar.advance(episodes),
            pool,
        )


def _end(report: ConvertReport, store: Path | StoreUrl, as_json: bool) -> None:
    """Print what was done; exit code 3 where recordings were left out or have changed."""
    report.out = store
    _print_report(report, as_json)
    finish(store, report.units, as_json)
    if report.quarantined or report.changed or report.outdated:
        raise typer.Exit(EXIT_QUARANTINED)


def _accepted(given: list[str]) -> dict[str, str]:
    """Detector -> reason, of every --accept. UsageError for an unknown detector or a missing reason."""
    from fwdata.evidence.registry import find_detector

    found = {}
    for item in given:
        name, _, reason = item.partition("=")
        if not name.strip():
            raise UsageError(f'--accept takes DETECTOR="why", found {item!r}')
        if not reason.strip():
            raise UsageError(f'--accept {item}: give a reason, --accept {name}="why the data are right as decided"')
        found[find_detector(name).name] = reason.strip()
    return found


def _names_in(file: Path | None) -> tuple[str, ...]:
    """The names of an --exclude-file. UsageError when it cannot be read or names nothing."""
    if file is None:
        return ()
    try:
        lines = (line.partition(" #")[0].strip() for line in file.read_text(encoding="utf-8-sig").splitlines())
    except OSError as error:
        raise UsageError(f"--exclude-file {file} cannot be read: {error.strerror or error}") from None
    except UnicodeError:
        raise UsageError(f"--exclude-file {file} is not text in UTF-8; save it as that, a name a line") from None
    names = tuple(line for line in lines if line and not line.startswith("#"))
    if not names:
        raise UsageError(f"--exclude-file {file} names no recording")
    return names


def _say_evidence(verdicts: tuple[DatasetVerdict, ...], accepted: Mapping[str, str]) -> None:
    """What warns, at most one line per detector, and what is not verified, a line for each kind."""
    from fwdata.evidence import sentences

    for text in sentences.warnings(verdicts, accepted):
        warn(text)
    headline = f"{sentences.count_not_verified(verdicts)}; check these in the films of `fwdata report`"
    say_list(headline, sentences.not_verified(verdicts))


def _print_dry_run(request: ConvertRequest, as_json: bool) -> None:
    from fwdata.pipeline.estimate import dry_run

    with _explained():
        plan = dry_run(request)
    _say_kinds(group_warnings(plan.warnings), plan.skipped)
    _say_left_out(plan.left_out)
    _list("would skip", list(plan.skipped))
    _list("changed", [(item.source, "; ".join(item.files)) for item in plan.changed])
    if plan.outdated:
        say(f"outdated: {plan.outdated}")
    _say_evidence(plan.evidence, request.accept)
    if as_json:
        from fwdata.report.conversion import dry_run_json

        emit_json(dry_run_json(plan))
        return
    rows: list[tuple[str, ...]] = [
        (g.name, str(g.episodes), ("" if g.frames_known else "~") + str(g.frames), human_time(g.seconds))
        for g in plan.groups
    ]
    print_table("", ("group", "episodes", "frames", "recorded"), rows)
    for key, value in plan.decisions.items():
        print(f"  {key}: {plain_decision(value)}")
    about = "" if all(g.frames_known for g in plan.groups) else "about "
    print(
        f"{counted(plan.episodes, 'episode')}, {about}{counted(plan.frames, 'frame')}, "
        f"{human_bytes(plan.bytes)} in {counted(plan.parts, 'part')}, "
        f"{plan.pending_parts} still to write"
    )
    if plan.looked_at < plan.episodes:
        print(
            f"looked at {counted(plan.looked_at, 'recording')}; the conversion reads the others, too, and "
            "says what is wrong"
        )
    print(f"expected: a store of {human_bytes(plan.store_bytes)}, {human_time(plan.expected_seconds)} of work left")
    print(f"  from {plan.basis}")


def _print_report(report: ConvertReport, as_json: bool) -> None:
    from fwdata.report.conversion import report_json, warning_kinds

    _say_kinds(warning_kinds(report), report.quarantined)
    _say_left_out(report.left_out)
    _list("quarantined", report.quarantined)
    _list("changed", [(item.source, "; ".join(item.files)) for item in report.changed])
    if report.outdated:
        say(f"outdated: {report.outdated}")
    _say_evidence(report.evidence, report.accepted)
    if any(v.action == "warn" and v.against and v.detector not in report.accepted for v in report.evidence):
        say(f"what corrects contradicted conventions: fwdata doctor {quoted(report.out)}")
    if as_json:
        emit_json({**report_json(report), **shard_json(report.units)})
        return
    speed = f", {report.new_frames / report.seconds:,.0f} frames/s" if report.new_frames else ""
    print(f"{report.out}: {counted(report.episodes, 'episode')}, {counted(report.frames, 'frame')}")
    print(
        f"  new: {counted(report.new_episodes, 'episode')}, {counted(report.new_frames, 'frame')} in "
        f"{report.seconds:.1f} s{speed}"
    )
    if report.changed:
        print(
            f"  changed since: {counted(len(report.changed), 'recording')}, listed above; --update converts "
            "exactly those again"
        )
    if report.updated:
        print(
            f"  updated: {counted(len(report.updated), 'recording')}; encode-latents, encode-text and stats "
            "renew caches"
        )
    for line in report.view_changes:
        print(f"  view changed: {line}")
    if report.quarantined:
        where = f"listed above and in `fwdata inspect {quoted(report.out)}`"
        print(f"  quarantined: {counted(len(report.quarantined), 'recording')}, {where}")
    if any(row.outcome == "quarantined" for row in report.rows):
        print("  after you fix them, the same command with --retry-quarantined converts them")


def _say_kinds(found: list[WarningKind], left_out: Sequence[tuple[str, str]]) -> None:
    """One line for every kind of warning that is not the reason of a recording that is listed as left out."""
    reasons = {reason for _, reason in left_out}
    kinds = [kind for kind in found if kind.text not in reasons]
    for kind in kinds[:SHOWN]:
        warn(with_flags(kind.sentence()))
    if len(kinds) > SHOWN:
        say(f"warning: {len(kinds) - SHOWN} more kinds, in --json")


def _say_left_out(left_out: Sequence[LeftOut]) -> None:
    """One line for every reason; a warning where no option asked for it."""
    for left in left_out:
        more = ", .." if left.count > len(left.examples) else ""
        shown = f": {', '.join(left.examples)}{more}" if left.examples else ""
        text = with_flags(f"left out, {left.count}: {left.reason}{shown}")
        if left.asked:
            say(text)
        else:
            warn(text)


def _list(kind: str, items: list[tuple[str, str]]) -> None:
    """One line for every recording; for every kind of reason where they are many, so that none hides another."""
    if len(items) > SHOWN:
        lines = [found.sentence() for found in group_warnings(items)]
    else:
        lines = [with_source(source, reason) for source, reason in items]
    for line in lines[:SHOWN]:
        say(f"{kind}: {with_flags(line)}")
    if len(lines) > SHOWN:
        say(f"{kind}: {len(lines) - SHOWN} more kinds")
