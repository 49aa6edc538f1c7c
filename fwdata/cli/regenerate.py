"""`fwdata regenerate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.console import default_workers, emit_json, human_bytes, progress_bar, say
from fwdata.errors import EXIT_QUARANTINED
from fwdata.wording import counted

if TYPE_CHECKING:
    from fwdata.regenerate.run import RegeneratePlan, RegenerateReport


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="regenerate")(regenerate)


def regenerate(
    source: Annotated[str, typer.Argument(help="Source format: libero.")],
    raw: Annotated[Path, typer.Argument(help="Folder (or file) of raw recordings.")],
    suite: Annotated[str, typer.Option(help="libero_spatial, libero_object, libero_goal, libero_10 or libero_90.")],
    out: Annotated[Path, typer.Option("--out", help="Folder; files go to <suite>_no_noops below it.")],
    resolution: Annotated[int, typer.Option(help="Height and width of both cameras in pixels.")] = 512,
    tasks: Annotated[str | None, typer.Option(help="Only these tasks, comma-separated; default: all.")] = None,
    max_demos: Annotated[int | None, typer.Option(min=1, help="Only the first recordings of every task.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; default: all cores, at most 8, if memory allows.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Replay recordings in their simulator: sharper images, no no-ops, only what solves its task.

    Running it again continues. Needs the extra libero-sim; docs/LIBERO.md says more. Images are stored like those of
    raw files, bottom row first; `fwdata convert libero` turns both. Failed replays are expected (some 15 % of LIBERO)
    and listed in <suite>_metainfo.json; exit code 3 says that files or recordings could not be read.

    Example: fwdata regenerate libero --suite libero_goal --resolution 512 RAW_DIR --out data/libero
    """
    from fwdata.regenerate import run

    chosen = tuple(name.strip() for name in tasks.split(",") if name.strip()) if tasks is not None else None
    request = run.RegenerateRequest(
        source, suite, raw, out, resolution, chosen, max_demos, workers or _affordable_workers()
    )
    if dry_run:
        _print_plan(run.make_plan(request), as_json)
        return
    with progress_bar("replaying", "demos") as bar:
        report = run.regenerate(
            request,
            lambda plan: bar.start(sum(len(task.demos) for task in plan.pending)),
            lambda demos, steps: bar.advance(demos),
        )
    if as_json:
        emit_json(run.report_json(report))
    else:
        _print_report(report)
    if report.skipped or report.damaged:
        raise typer.Exit(EXIT_QUARANTINED)


def _affordable_workers() -> int:
    """A process per core, at most 8, as far as the machine's memory holds their simulators."""
    from fwdata.regenerate.run import WORKER_BYTES

    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(default_workers(), memory // WORKER_BYTES))


def _print_plan(plan: RegeneratePlan, as_json: bool) -> None:
    demos, recorded = sum(len(task.demos) for task in plan.pending), sum(task.recorded for task in plan.pending)
    rows = sum(task.rows for task in plan.pending)
    if as_json:
        from fwdata.regenerate.answers import RegenerationPlanJson
        from fwdata.report.conversion import ReasonJson

        emit_json(
            RegenerationPlanJson(
                tasks=len(plan.tasks),
                pending_tasks=len(plan.pending),
                demos=demos,
                recorded=recorded,
                rows=rows,
                bytes=plan.bytes,
                skipped=[ReasonJson(source=source, reason=reason) for source, reason in plan.skipped],
            )
        )
        return
    for source, reason in plan.skipped:
        say(f"would skip: {source}: {reason}")
    print(
        f"{counted(len(plan.tasks), 'task')}, {len(plan.pending)} still to replay: {counted(demos, 'demo')}, "
        f"{recorded} recorded steps"
    )
    print(
        f"  {counted(rows, 'step')} without no-ops, at most {human_bytes(plan.bytes)} of images (about half "
        "when compressed)"
    )


def _print_report(report: RegenerateReport) -> None:
    for source, reason in report.skipped:
        say(f"skipped: {source}: {reason}")
    for task, demo, reason in report.damaged:
        say(f"damaged: {task} {demo}: {reason}")
    for task, demo, _ in report.failed:
        say(f"failed: {task} {demo}")
    print(
        f"{report.folder}: {report.kept} of {counted(report.demos, 'demo')} kept in "
        f"{counted(report.tasks, 'task')}, {counted(report.rows, 'step')}"
    )
    print(f"  {report.noops} no-ops left out, {len(report.failed)} replays did not solve their task")
    speed = f", {report.new_steps / report.seconds:.1f} steps/s" if report.new_steps else ""
    print(f"  new: {counted(report.new_steps, 'step')} in {report.seconds:.1f} s{speed}")
