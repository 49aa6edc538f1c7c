"""`fwtrain import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fwdata.console import warn
from fwtrain.cli._common import Json, answer

EXAMPLE = "Example: fwtrain import libero_uncond_2cam224.pt runs/official --recipe libero --stats dataset_stats.json"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("import", epilog=EXAMPLE)(import_command)


def import_command(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Official .pt file, lerobot folder, or a folder or hub id with one."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Run folder to write; must not exist.")],
    recipe: Annotated[str, typer.Option(help="Recipe name or path with the model's sizes and deployment rules.")],
    manifest: Annotated[str | None, typer.Option(help="Manifest name or path (default: the recipe's name).")] = None,
    stats: Annotated[
        Path | None, typer.Option(help="Official dataset_stats.json; a lerobot folder has its own.")
    ] = None,
    vae: Annotated[str, typer.Option(help="As of fwdata encode-latents.")] = "wan2.2",
    encoder: Annotated[str, typer.Option(help="As of fwdata encode-text.")] = "umt5-xxl",
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Token rows of a prompt (default: those of the source, else 128).")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
    as_json: Json = False,
) -> None:
    """Make a run folder of a policy that was trained elsewhere, for eval, serve, predict and export.

    The action shift is recognised, or given with --set model.action_shift=5.
    """
    from fwdata.manifest import load_manifest
    from fwtrain.recipe import load_recipe
    from fwtrain.train.imported import ImportRequest, import_policy

    chosen = load_recipe(recipe, overrides or [])
    used = load_manifest(manifest or chosen.name)
    done = import_policy(ImportRequest(source, out, chosen, used, stats, vae, encoder, tokens))
    for sentence in done.notes:
        warn(sentence)
    deploy = done.recipe.deploy
    shift = done.recipe.model.action_shift
    data = {"out": str(out), "source": source, "action_shift": shift, "deploy": deploy}
    answer(data, as_json, lambda: f"{out}: {source}, action shift {shift:g}, deploy {deploy.model_dump(mode='json')}")
