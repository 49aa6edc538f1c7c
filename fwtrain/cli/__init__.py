"""The `fwtrain` command. Results go to stdout (one JSON document with --json), messages and progress to stderr.

Exit codes: 0 done; 1 unexpected or diverged; 2 wrong usage or input; 3 some trials could not be run; 4 a damaged or
stale store; 130 interrupted (state saved, the same command continues). Commands parse and print; the work is in
importable functions.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os

import typer

from fwdata.console import add_version, local_paths_only, run_app, set_environment
from fwdata.errors import EXIT_INTERRUPTED
from fwtrain.cli import bench, check, compare, distil, evaluate, export, imports, plan, run, schema, serve
from fwtrain.cli import infer as use
from fwtrain.ending import end_at_once, left_behind

HELP = """Train Fast-WAM from cached latents and use the result.

Example: fwtrain run data/robotwin.zarr --recipe robotwin --out runs/rt
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
add_version(app, "fwtrain")
for module in (run, compare, distil, plan, use, evaluate, export, imports, check, schema, bench, serve):
    module.register(app)
local_paths_only(app)


def main() -> None:
    """Entry point. Turns a FwdataError into one sentence and its exit code."""
    set_environment()
    with contextlib.suppress(AttributeError, OSError, ValueError):  # stderr is closed, or no file
        faulthandler.enable(all_threads=False)  # a disk that fails under a mapped file ends a process without a word
    try:
        run_app(app)
    except SystemExit as end:
        stopped = end.code == EXIT_INTERRUPTED and int(os.environ.get("WORLD_SIZE", "1")) > 1
        if isinstance(end.code, int) and (
            stopped or left_behind()
        ):  # torchrun kills soon: taking torch down takes seconds
            end_at_once(end.code)
        raise
