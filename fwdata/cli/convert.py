"""`fwdata convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fwdata.cli._common import default_workers, emit_json, human_bytes, parse_options, progress_bar, say, warn
from fwdata.errors import EXIT_QUARANTINED, UsageError

if TYPE_CHECKING:
    from fwdata.pipeline.run import ConvertReport, DryRun

SHOWN = 20
"""Warnings and quarantined recordings printed before the rest is counted."""


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="convert")(convert)


def convert(
    source: Annotated[str, typer.Argument(help="Source format: robotwin, libero, r1lite, lerobot, or your own.")],
    raw: Annotated[
        Path, typer.Argument(help="Folder (or file) of recordings; for lerobot also OWNER/NAME on the hub.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The store to write, e.g. data/robotwin.zarr.")],
    manifest: Annotated[
        str | None, typer.Option(help="Manifest name or path; default: the source's own, or the one that fits.")
    ] = None,
    options: Annotated[list[str] | None, typer.Option("--set", help="Converter option key=value; repeatable.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: all cores, at most 8.")] = None,
    on_error: Annotated[str, typer.Option(help="skip: quarantine bad recordings; fail: stop at the first.")] = "skip",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Convert recordings to a store. Running it again continues; a finished store is left as it is.

    Example: fwdata convert robotwin RAW_DIR --out data/robotwin.zarr --workers 4
    """
    from fwdata.pipeline import run as pipeline
    from fwdata.pipeline.plan import ConvertRequest, located, manifest_for

    if on_error not in {"skip", "fail"}:
        raise UsageError(f"--on-error must be skip or fail, found {on_error!r}")
    given = parse_options(options or [])
    root = located(source, raw, manifest, given)
    chosen = manifest_for(source, manifest, given, [root])
    if manifest is None and chosen.name != source:
        say(f"manifest {chosen.name}: {chosen.description}")
    request = ConvertRequest(source, root, out, chosen, workers or default_workers(), on_error)
    if dry_run:
        _print_dry_run(pipeline.dry_run(request), as_json)
        return
    with progress_bar("converting", "episodes") as bar:
        report = pipeline.convert(
            request,
            lambda plan: bar.start(sum(len(part.refs) for part in plan.pending)),
            lambda episodes, frames: bar.advance(episodes),
        )
    _print_report(report, as_json)
    if report.quarantined:
        raise typer.Exit(EXIT_QUARANTINED)


def _print_dry_run(plan: DryRun, as_json: bool) -> None:
    if as_json:
        emit_json(
            {
                "episodes": plan.episodes,
                "parts": plan.parts,
                "pending_parts": plan.pending_parts,
                "bytes": plan.bytes,
                "skipped": [{"source": source, "reason": reason} for source, reason in plan.skipped],
                "decisions": plan.decisions,
                "warnings": list(plan.warnings),
            }
        )
        return
    _list("warning", [(text, "") for text in plan.warnings])
    _list("would skip", list(plan.skipped))
    size = human_bytes(plan.bytes)
    print(f"{plan.episodes} episodes ({size}) in {plan.parts} parts, {plan.pending_parts} still to write")


def _print_report(report: ConvertReport, as_json: bool) -> None:
    _list("warning", [(text, "") for text in report.warnings])
    _list("quarantined", report.quarantined)
    if as_json:
        emit_json(report_json(report))
        return
    speed = f", {report.new_frames / report.seconds:,.0f} frames/s" if report.new_frames else ""
    print(f"{report.out}: {report.episodes} episodes, {report.frames} frames")
    print(f"  new: {report.new_episodes} episodes, {report.new_frames} frames in {report.seconds:.1f} s{speed}")
    if report.quarantined:
        print(f"  quarantined: {len(report.quarantined)} recordings, listed above and in `fwdata inspect {report.out}`")


def report_json(report: ConvertReport) -> dict[str, Any]:
    """The report as `--json` prints it."""
    return {
        "out": str(report.out),
        "episodes": report.episodes,
        "frames": report.frames,
        "new_episodes": report.new_episodes,
        "new_frames": report.new_frames,
        "seconds": round(report.seconds, 3),
        "quarantined": [{"source": source, "reason": reason} for source, reason in report.quarantined],
        "warnings": report.warnings,
    }


def _list(kind: str, items: list[tuple[str, str]]) -> None:
    for source, reason in items[:SHOWN]:
        text = f"{source}: {reason}" if reason else source
        if kind == "warning":
            warn(text)
        else:
            say(f"{kind}: {text}")
    if len(items) > SHOWN:
        say(f"{kind}: {len(items) - SHOWN} more")
