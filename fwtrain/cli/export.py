"""`fwtrain export` and `fwtrain push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fwdata.console import progress_bar, say
from fwdata.errors import UsageError
from fwtrain.cli._common import Json, RunArgument, WhichCheckpoint, answer

FORMATS = ("model", "lerobot", "fastwam", "robotwin-policy")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("export", epilog="Example: fwtrain export lerobot runs/libero exported/libero")(export_command)
    app.command("push", epilog="Example: fwtrain push runs/libero me/libero --license apache-2.0")(push_command)


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


def push_command(
    run: RunArgument,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Model repository on the hub.")],
    license_name: Annotated[
        str | None, typer.Option("--license", help="Licence of the weights, as the hub names it.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="model (for model.init=fastwam:) or lerobot.")] = "model",
    checkpoint: WhichCheckpoint = "last",
    any_encoder: Annotated[
        bool, typer.Option("--any-encoder", help="lerobot: a run on other encoders than Wan2.2's, too.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private where it is new.")] = False,
    as_json: Json = False,
) -> None:
    """Upload a trained run to the hub, with its recipe and a card. Log in first: hf auth login."""
    from fwtrain.export.push import push_run

    if license_name is None:
        raise UsageError("name the licence of the weights with --license, such as apache-2.0")
    with progress_bar("pushing", "files") as bar:
        step, sent = push_run(
            run, repo, license_name, form, checkpoint, any_encoder=any_encoder, private=private,
            begin=bar.start, done=bar.advance,
        )  # fmt: skip
    data = {"repository": repo, "run": str(run), "format": form, "step": step, "moved": sent}
    answer(data, as_json, lambda: f"{repo}: step {step} of {run} for {form}, {sent} files sent")
