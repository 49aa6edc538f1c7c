"""Commands about work that many machines share: `status`, `clean`, `slurm`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.console import Rows, emit_json, human_bytes, human_time, print_table
from fwdata.errors import EXIT_QUARANTINED

if TYPE_CHECKING:
    from fwdata.pipeline.status import WorkStatus

StorePath = Annotated[Path, typer.Argument(help="The store, e.g. data/robotwin.zarr.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(name="status")(status)
    app.command(name="clean")(clean)
    app.command(name="slurm", context_settings={"ignore_unknown_options": True})(slurm)


def status(
    store: StorePath,
    fail_if_left: Annotated[
        bool, typer.Option("--fail-if-left", help="Exit code 3 when a unit is not done, for scripts.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what is done, where the rest runs (host, process, since, last sign of life), what failed and hours left.

    Example: fwdata status data/robotwin.zarr
    """
    from fwdata.pipeline.status import store_status
    from fwdata.store.locations import parse_location
    from fwdata.store.working_copy import reading_copy

    with reading_copy(store, watched=True) as path:
        found = store_status(path)
    if as_json:
        from fwdata.cli.answers import StatusJson

        emit_json(StatusJson(store=str(parse_location(store)), work=[item.to_json() for item in found]))
    else:
        rows: Rows = [(i.name, f"{i.done}/{i.total}", str(len(i.running)), str(len(i.failed)), _left(i)) for i in found]
        print_table("", ("work", "done", "running", "failed", "left"), rows)
        for item in found:
            _print_attempts(item)
    if fail_if_left and any(item.left for item in found):
        raise typer.Exit(EXIT_QUARANTINED)


def _left(item: WorkStatus) -> str:
    if not item.left:
        return "0"
    return str(item.left) + (f", about {item.hours_left:.1f} h" if item.hours_left is not None else "")


def _print_attempts(item: WorkStatus) -> None:
    for kind, attempts in (("running", item.running), ("lost", item.lost)):
        for seen in attempts:
            lease = seen.lease
            print(
                f"  {kind}: {item.name} {lease.unit} on {lease.host}, process {lease.pid}, for "
                f"{human_time(max(time.time() - lease.since, 0))}, last sign of life {human_time(seen.age)} ago"
            )
    for unit, host, reason in item.failed:
        print(f"  failed: {item.name} {unit} on {host}: {reason}")


def clean(
    store: StorePath,
    older_than: Annotated[
        float, typer.Option("--older-than", min=0, help="Hours since anything in it changed.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Remove what killed processes left of shared work: attempts, jobs and temporary files that nobody works on.

    What a live process holds (see `fwdata status`) is never removed, whatever its age.

    Example: fwdata clean data/robotwin.zarr
    """
    from fwdata.io import refuse_url
    from fwdata.pipeline.clean import clean as run

    refuse_url(store, "leftovers are removed from local stores only")
    found = run(store, older_than * 3600, dry_run)
    if as_json:
        from fwdata.cli.answers import CleanJson, LeftoverJson

        rows = [LeftoverJson(path=str(i.path.relative_to(store)), age_s=round(i.age), bytes=i.bytes) for i in found]
        emit_json(CleanJson(store=str(store), removed=[] if dry_run else rows, found=rows))
        return
    for item in found:
        did = "would remove" if dry_run else "removed"
        about = f"{human_bytes(item.bytes)}, unchanged for {human_time(item.age)}"
        print(f"{did} {item.path.relative_to(store)} ({about})")
    if not found:
        print(f"{store}: nothing to remove")


def slurm(
    command: Annotated[
        list[str], typer.Argument(help="convert, stitch, encode-latents or encode-text, and arguments.")
    ],
    shards: Annotated[int, typer.Option(min=1, help="Tasks of the array.")] = 16,
    at_once: Annotated[int | None, typer.Option(min=1, help="Tasks that run at the same time at most.")] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of a task.")] = 0,
    cpus: Annotated[int, typer.Option(min=1, help="CPU cores of a task.")] = 8,
    memory: Annotated[str, typer.Option("--mem", help="Host memory of a task.")] = "32G",
    limit: Annotated[str, typer.Option("--time", help="Longest time of a task.")] = "12:00:00",
    partition: Annotated[str | None, typer.Option(help="Slurm partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm account.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document with the script.")] = False,
) -> None:
    """Print a Slurm array script for a command; `bash SCRIPT` submits the array and the job that finishes it.

    The command's options and its store or recordings are checked now, not when the job runs.

    Example: fwdata slurm --shards 64 --gpus 1 encode-latents data/robotwin.zarr --vae wan2.2 > job.sh
    """
    from fwdata.cli.wrapped import check_wrapped
    from fwdata.pipeline.slurm import SlurmRequest, slurm_script

    request = SlurmRequest(tuple(command), shards, at_once, gpus, cpus, memory, limit, partition, account)
    script = slurm_script(request)
    check_wrapped(request.command, shards)
    if as_json:
        from fwdata.cli.answers import SlurmJson

        emit_json(SlurmJson(script=script, shards=shards))
    else:
        print(script, end="")
