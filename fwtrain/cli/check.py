"""`fwtrain recipes` and `fwtrain check-reference`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fwdata.cli._common import emit_json, fail, print_table
from fwdata.errors import EXIT_UNEXPECTED
from fwtrain.cli._common import Json, Threads, answer


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("recipes", epilog="Example: fwtrain recipes --json")(recipes_command)
    app.command("check-reference", epilog="Example: fwtrain check-reference tests/data/fastwam_golden/model")(
        check_reference_command
    )


def recipes_command(as_json: Json = False) -> None:
    """List the built-in recipes."""
    from fwtrain.recipe import load_recipe, recipe_names

    found = {name: load_recipe(name) for name in recipe_names()}
    data = {"recipes": [item.model_dump(mode="json") for item in found.values()]}
    answer(data, as_json, lambda: "\n".join(f"{name:10s} {item.description}" for name, item in found.items()))


def check_reference_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Reference folder.")],
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare the model with reference values and print the largest errors; exit code 1 above tolerance."""
    from fwtrain.reference import check_reference
    from fwtrain.train.run import set_threads

    set_threads(threads)
    rows = check_reference(folder)
    good = all(row.ok for row in rows)
    if as_json:
        emit_json({"ok": good, "rows": [{**asdict(row), "ok": row.ok} for row in rows]})
    else:
        cells: list[tuple[str, ...]] = [
            (row.run, row.quantity, f"{row.error:.2e}", f"{row.tolerance:.0e}", "" if row.ok else "ABOVE")
            for row in rows
        ]
        print_table(str(folder), ("run", "quantity", "error", "tolerance", ""), cells)
    if not good:
        fail(f"{sum(not row.ok for row in rows)} of {len(rows)} comparisons are above tolerance", EXIT_UNEXPECTED)
