"""`fwdata plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from fwdata.console import default_workers, emit_json, human_bytes, human_time, print_table
from fwdata.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="plan")(plan)


def plan(
    store: Annotated[str, typer.Argument(help="The store: a path or a URL, e.g. data/robotwin.zarr.")],
    vae: Annotated[str, typer.Option(help="As of encode-latents.")] = "wan2.2",
    stride: Annotated[str, typer.Option(help="Strides to compare.")] = "1,2,4",
    devices: Annotated[int | None, typer.Option(min=1, help="GPUs to plan for; default: those that are here.")] = None,
    device: Annotated[str, typer.Option(help="Where a few windows are measured: auto, cpu, cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="As of encode-latents.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes on a CPU; default: all cores.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Windows, share of windows with video loss, bytes and hours of encoding latents at several strides.

    A few windows are encoded to measure the time where the VAE is on this machine; else it is computed from counted
    operations at a stated throughput.

    Example: fwdata plan data/robotwin.zarr --vae wan2.2 --stride 1,2,4 --devices 8
    """
    from fwdata.encode.estimate import LatentPlanJson, estimate_latents
    from fwdata.store.working_copy import reading_copy

    parts = [part.strip() for part in stride.split(",")]
    if not all(part.isdigit() for part in parts):
        raise UsageError(f"--stride must be numbers of at least 1 such as 1,2,4, found {stride!r}")
    with reading_copy(store) as folder:
        cost, found = estimate_latents(
            folder,
            vae,
            [int(part) for part in parts],
            device=device,
            dtype=dtype,
            devices=devices,
            workers=workers or default_workers(),
        )
    if as_json:
        emit_json(LatentPlanJson(cost=cost, strides=found))
        return
    rows: list[tuple[str, ...]] = [
        (
            str(item.stride),
            f"{item.windows:,}",
            f"{item.video_share:.0%}",
            human_bytes(item.bytes),
            human_time(3600 * item.hours),
        )
        for item in found
    ]
    print_table(
        f"{store}: {found[0].frames:,} frames on {cost.devices} device{'s' if cost.devices > 1 else ''}",
        ("stride", "windows with video loss", "of all", "cache", "time"),
        rows,
    )
    print(f"time: {cost.basis}")
    print("every window trains the action loss; a cache is refined later with a smaller --stride of encode-latents")
