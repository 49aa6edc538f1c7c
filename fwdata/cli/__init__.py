"""The `fwdata` command. Commands parse and print; the work is in importable functions. Starts without torch or zarr."""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from fwdata.console import add_version, local_paths_only, run_app, set_environment

if TYPE_CHECKING:
    app: typer.Typer

HELP = """Raw robot recordings to one Zarr store, and the latents, text and statistics that Fast-WAM trains from.

Example: fwdata convert robotwin RAW_DIR --out data/robotwin.zarr
"""

MODULES = {
    "convert": ("convert",),
    "regenerate": ("regenerate",),
    "inspect_verify": ("inspect", "verify"),
    "look": ("preview", "report"),
    "doctor": ("doctor",),
    "view": ("view",),
    "repair": ("repair",),
    "plan": ("plan",),
    "caches": ("stitch", "stats", "encode-text", "encode-latents"),
    "merge_export": ("merge", "copy", "export"),
    "sample": ("sample", "quickstart"),
    "extend": ("init", "check-converter"),
    "machines": ("status", "clean", "slurm"),
    "schema": ("schema",),
    "share": ("push", "pull"),
    "bench": ("bench",),
}
"""Module of this package -> the commands that it registers, in the order of the help."""


def main() -> NoReturn:
    """Entry point of the `fwdata` script."""
    set_environment()
    if sys.argv[1:2] == ["convert"]:  # which enables it again when its readers are forked: imports make no garbage
        gc.disable()
        atexit.register(gc.freeze)
    try:
        run_app(_app_of(sys.argv[1:]))
    finally:
        gc.enable()


def _app_of(arguments: Sequence[str]) -> typer.Typer:
    """The command line with the module of the asked command alone, which halves the time to start; else with all."""
    asked = [module for module, commands in MODULES.items() if arguments and arguments[0] in commands]
    return _made(asked) if asked else _whole()


def command_named(name: str) -> Any:
    """One command as click sees it, with the types and the help of its options."""
    made = _made([module for module, commands in MODULES.items() if name in commands])
    return vars(typer.main.get_command(made))["commands"][name]


def _made(modules: Iterable[str]) -> typer.Typer:
    made = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    add_version(made, "fwdata")
    for name in modules:
        importlib.import_module(f"fwdata.cli.{name}").register(made)
    local_paths_only(made)
    return made


@cache
def _whole() -> typer.Typer:
    return _made(MODULES)


def __getattr__(name: str) -> object:
    if name == "app":
        return _whole()
    raise AttributeError(f"module 'fwdata.cli' has no attribute {name!r}")
