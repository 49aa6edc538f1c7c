"""The `fwdata` command. Commands parse and print; the work is in importable functions. Starts without torch or zarr."""

from __future__ import annotations

from typing import NoReturn

import typer

from fwdata.cli import (
    bench,
    caches,
    convert,
    doctor,
    extend,
    look,
    machines,
    plan,
    regenerate,
    repair,
    sample,
    schema,
    share,
    view,
)
from fwdata.cli import inspect_verify as check
from fwdata.cli import merge_export as combine
from fwdata.console import add_version, local_paths_only, run_app, set_environment

HELP = """Raw robot recordings to one Zarr store, and the latents, text and statistics that Fast-WAM trains from.

Example: fwdata convert robotwin RAW_DIR --out data/robotwin.zarr
"""

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
add_version(app, "fwdata")
for module in (
    convert,
    regenerate,
    check,
    look,
    doctor,
    view,
    repair,
    plan,
    caches,
    combine,
    sample,
    extend,
    machines,
    schema,
    share,
    bench,
):
    module.register(app)
local_paths_only(app)


def main() -> NoReturn:
    """Entry point of the `fwdata` script."""
    set_environment()
    run_app(app)
