"""`fwtrain recipes`, `fwtrain check-reference` and `fwtrain check-mask`."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.console import emit_json, fail, print_table, say
from fwdata.errors import EXIT_UNEXPECTED, UsageError
from fwtrain.cli._common import Json, Threads, answer

if TYPE_CHECKING:
    from fwtrain.checks.attention_leaks import GroupPair
    from fwtrain.model import ModelConfig


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("recipes", epilog="Example: fwtrain recipes libero")(recipes_command)
    app.command("check-reference", epilog="Example: fwtrain check-reference tests/data/fastwam_golden/model")(
        check_reference_command
    )
    app.command("check-mask", epilog="Example: fwtrain check-mask --recipe libero --set model.variant=idm")(
        check_mask_command
    )


def recipes_command(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print this recipe, or file, as it is.")] = None,
    as_json: Json = False,
) -> None:
    """List the built-in recipes, or print one with the source of every value."""
    from fwtrain.recipe import load_recipe, recipe_names, recipe_text

    if name is not None:
        recipe = load_recipe(name)
        answer(recipe.model_dump(mode="json"), as_json, lambda: recipe_text(name).rstrip())
        return
    found = {known: load_recipe(known) for known in recipe_names()}
    data = {"recipes": list(found.values())}
    answer(data, as_json, lambda: "\n".join(f"{known:10s} {item.description}" for known, item in found.items()))


def check_reference_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Reference folder.")],
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare the model with reference values and print the largest errors; exit code 1 above tolerance."""
    from fwtrain.checks.reference import check_reference, not_compared
    from fwtrain.train.run import set_threads

    set_threads(threads)
    rows = check_reference(folder)
    good = all(row.ok for row in rows)
    passed_over = not_compared(folder)
    if passed_over:
        say(f"not compared, config.json does not list them: {', '.join(passed_over)}")
    if as_json:
        emit_json({"ok": good, "rows": [{**asdict(row), "ok": row.ok} for row in rows]})
    else:
        cells: list[tuple[str, ...]] = [
            (row.run, row.quantity, f"{row.error:.2e}", f"{row.tolerance:.0e}", "" if row.ok else "ABOVE")
            for row in rows
        ]
        print_table(str(folder), ("run", "quantity", "error", "tolerance", ""), cells)
        if good:
            nearest = max(rows, key=lambda row: row.error / (row.tolerance or math.inf))
            print(
                f"ok: all {len(rows)} comparisons are within tolerance; nearest to it is {nearest.run} "
                f"{nearest.quantity} with {nearest.error:.2e} of {nearest.tolerance:.0e}"
            )
    if not good:
        fail(f"{sum(not row.ok for row in rows)} of {len(rows)} comparisons are above tolerance", EXIT_UNEXPECTED)


def check_mask_command(
    recipe: Annotated[
        str | None, typer.Option(help="Recipe name or path whose model is checked; this, --run or --variant.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder whose model is checked.")] = None,
    variant: Annotated[str | None, typer.Option(help="A variant at the size of recipe tiny.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Follow gradients from every token group to every input, in training and in sampling; exit code 1 on a leak.

    The model keeps its variant, layers, heads and frames (at least two layers); its widths, image and text are made
    small and its weights random, so that the published size is checked in seconds too.
    """
    from fwtrain.checks.attention_leaks import check_reach
    from fwtrain.train.run import set_threads

    config = _wanted_config(recipe, run, variant, overrides or [])
    set_threads(threads)
    cells = check_reach(config)
    wrong = [cell for cell in cells if not cell.ok]
    video = config.video_expert
    if as_json:
        emit_json(
            {
                "ok": not wrong, "variant": config.variant, "layers": max(video.num_layers, 2),
                "heads": video.num_heads, "frames": config.latent_grid[0],
                "cells": [{**asdict(cell), "ok": cell.ok} for cell in cells],
            }
        )  # fmt: skip
    else:
        structure = f"{max(video.num_layers, 2)} layers, {video.num_heads} heads, {config.latent_grid[0]} latent frames"
        _print_reach(f"{config.variant}: {structure}, small widths", cells)
    if wrong:
        names = "; ".join(
            f"{c.phase}: {c.query} {'does not see' if c.may_see else 'sees'} {c.key}" for c in wrong
        )  # fmt: skip
        fail(f"{len(wrong)} of {len(cells)} pairs are wrong: {names}", EXIT_UNEXPECTED)


def _wanted_config(recipe: str | None, run: Path | None, variant: str | None, overrides: list[str]) -> ModelConfig:
    """The configuration that the options name; UsageError for none, and for several at once."""
    from fwtrain.checks.attention_leaks import recipe_structure
    from fwtrain.recipe import load_recipe, recipe_names
    from fwtrain.train.folder import RunFolder

    if sum(option is not None for option in (recipe, run, variant)) > 1:
        raise UsageError("--recipe, --run and --variant exclude each other")
    if run is not None:
        if overrides:
            raise UsageError("--set changes a recipe; with --run the run's own model is checked")
        return RunFolder(run).info().model
    if variant is not None:
        return recipe_structure(load_recipe("tiny", [*overrides, f"model.variant={variant}"]))
    if recipe is None:
        raise UsageError(
            f"choose the model to check: --recipe {', '.join(recipe_names())} or a .yaml file, --run RUN, or "
            "--variant NAME (at the size of recipe tiny)"
        )
    return recipe_structure(load_recipe(recipe, overrides))


def _print_reach(title: str, cells: list[GroupPair]) -> None:
    """A row per phase and query group, a column per input group."""
    keys = list(dict.fromkeys(cell.key for cell in cells))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        text = ("sees" if cell.may_see else "-") if cell.ok else ("NOT SEEN" if cell.may_see else "LEAK")
        rows.setdefault((cell.phase, cell.query), {})[cell.key] = text
    table: list[tuple[str, ...]] = [(*names, *(row.get(key, "") for key in keys)) for names, row in rows.items()]
    print_table(title, ("pass", "tokens", *keys), table)
