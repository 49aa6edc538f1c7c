"""`fwdata repair`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.console import default_workers, emit_json, say
from fwdata.errors import EXIT_DAMAGED

if TYPE_CHECKING:
    from fwdata.pipeline.repair import RebuildList


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="repair")(repair)


def repair(
    store: Annotated[Path, typer.Argument(help="The store.")],
    raw: Annotated[
        list[Path] | None, typer.Option("--from", help="The recordings it was converted from; repeatable.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Reader processes; default: all cores, at most 8.")] = None,
    device: Annotated[str, typer.Option(help="Where damaged latents are encoded again: auto, cpu, cuda, ..")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be rebuilt; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Rebuild what is damaged in a store, and nothing else. Exit code 4 when something cannot be rebuilt.

    The recordings are compared with what the store recorded of them before anything is written; a repair that is
    refused leaves the store as it was. --dry-run with --from names recordings that do not fit (exit code 4).

    Example: fwdata repair data/robotwin.zarr --from RAW_DIR
    """
    from fwdata.io import refuse_url
    from fwdata.pipeline.repair import RepairRequest, assess, misfits
    from fwdata.pipeline.repair import repair as run
    from fwdata.store.verify import verify_store

    refuse_url(store, "`fwdata repair` rebuilds local stores only; remove the damaged folder and run its command again")
    request = RepairRequest(store, tuple(raw or ()), default_workers() if workers is None else workers, device)
    if dry_run:
        damage = assess(verify_store(store))
        unfit = misfits(request, damage)
        if (damage.parts or damage.plan) and not raw:
            say("the recordings are needed for this: give them with --from RAW, to check that they fit too")
        for finding in damage.beyond:
            say(f"would stay damaged: {store}/{finding.key} {finding.problem}")
        _answer(as_json, store, damage, [finding.key for finding in damage.beyond], unfit)
        if unfit:
            raise typer.Exit(EXIT_DAMAGED)
        return
    report = run(request, say)
    for line in report.left.damaged:
        say(f"damaged still: {line}")
    _answer(as_json, store, report.damage, report.left.damaged)
    if report.left.findings:
        raise typer.Exit(EXIT_DAMAGED)


def _answer(
    as_json: bool, store: Path, damage: RebuildList, left: list[str], unfit: tuple[str, ...] | None = None
) -> None:
    """unfit: of a dry run, sentences about recordings that do not fit; None after a repair."""
    steps, dry_run = damage.steps(), unfit is not None
    if as_json:
        from fwdata.cli.answers import RepairJson

        found = RepairJson(steps=steps, left=left, dry_run=dry_run)
        emit_json(found if unfit is None else RepairJson(**found, unfit=list(unfit)))
        return
    for step in steps:
        print(f"{store}: {'would' if dry_run else 'did'} {step}")
    for sentence in unfit or ():
        print(f"{store}: the recordings given do not fit: {sentence}")
    if not steps:
        print(f"{store}: nothing to rebuild")
