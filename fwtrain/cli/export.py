"""`fwtrain export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fwdata.console import say
from fwdata.errors import UsageError
from fwtrain.cli._common import Json, RunArgument, WhichCheckpoint, answer

FORMATS = ("model", "lerobot", "fastwam", "robotwin-policy")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("export", epilog="Example: fwtrain export lerobot runs/libero exported/libero")(export_command)


def export_command(
    form: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help="model (a folder with all weights in one safetensors file), lerobot or robotwin-policy (folders), "
            "or fastwam (a .pt file).",
        ),
    ],
    run: RunArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder or file to write; must not exist.")],
    checkpoint: WhichCheckpoint = "last",
    any_encoder: Annotated[
        bool, typer.Option("--any-encoder", help="lerobot: export a run on other encoders than Wan2.2's, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a trained run as one file of weights, for lerobot's FastWAMPolicy, as an official Fast-WAM checkpoint, or a
    policy for RoboTwin."""
    if form not in FORMATS:
        raise UsageError(f"format {form!r} is unknown; known: {', '.join(FORMATS)}")
    from fwtrain.export import export_lerobot, export_model, export_official, export_robotwin

    if form == "lerobot":
        result = export_lerobot(run, out, checkpoint, any_encoder=any_encoder)
    elif form == "model":
        result = export_model(run, out, checkpoint)
    elif form == "fastwam":
        result = export_official(run, out, checkpoint)
    else:
        result = export_robotwin(run, out, checkpoint)
    for note in result.notes:
        say(f"note: {note}")
    data = {"format": form, "out": str(out), "run": str(run), "step": result.step, "notes": list(result.notes)}
    answer(data, as_json, lambda: f"{out}: step {result.step} of {run} for {form}")
