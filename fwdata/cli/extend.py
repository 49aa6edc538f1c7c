"""Commands for a robot of one's own: `init` and `check-converter`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fwdata.console import emit_json, say
from fwdata.errors import EXIT_USAGE, quoted

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command(name="init")(init)
    app.command(name="check-converter")(check)


def init(
    name: Annotated[str, typer.Argument(help="Name of the converter: lower-case letters, digits and '_'.")],
    source: Annotated[Path | None, typer.Option("--from", help="A recording to fill the files in from.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the files (default: NAME).")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a converter, a manifest, a fixture and a test for a new robot; they pass at once.

    --from takes an HDF5 or NPZ file, a ROS bag, or a folder with a table (CSV, NPZ, Parquet) and a video or a folder of
    images per camera; of a folder of such recordings the first one. Rate, time and instruction come from the recording
    where it names them.

    Example: fwdata init mybot --from RAW/task/episode0
    """
    from fwdata.scaffold.init import init as write

    made = write(name, out or Path(name), source)
    if as_json:
        from fwdata.cli.answers import InitJson

        draft = made.draft
        emit_json(
            InitJson(
                folder=str(made.folder),
                files=[str(path) for path in made.files],
                cameras=list(draft.cameras),
                state=list(draft.state),
                action=list(draft.action),
                fps=draft.fps,
                unused=list(draft.unused),
            )
        )
        return
    for path in made.files[:3]:
        print(path)
    for line in made.draft.open_questions(f"{name}.yaml"):
        say(line)
    say(f"read them, then: FWDATA_PLUGINS={quoted(made.folder)} fwdata check-converter {name} RAW")
    say(f"and: FWDATA_PLUGINS={quoted(made.folder)} fwdata convert {name} RAW --out data/{name}.zarr")


def check(
    name: Annotated[str, typer.Argument(help="Converter: built-in, installed, or of FWDATA_PLUGINS.")],
    raw: Annotated[Path, typer.Argument(help="Folder of recordings.")],
    manifest: Annotated[str | None, typer.Option(help="Manifest name or path.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Recordings to read whole, evenly spread.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Try a converter on recordings: discovery, reading, every image, rates, and files that it opens undeclared.

    Nothing is written. Exits 2 where the contract is broken.

    Example: FWDATA_PLUGINS=mybot fwdata check-converter mybot RAW
    """
    from fwdata.errors import UsageError
    from fwdata.scaffold.check import check_converter

    if not raw.exists():
        raise UsageError(f"{raw} does not exist")
    report = check_converter(name, raw, manifest, episodes)
    if as_json:
        emit_json(report)
    else:
        for line in report.passed:
            print(f"  {line}")
        for line in report.warnings:
            print(f"warning: {line}")
        for line in report.faults:
            print(f"fault: {line}")
        print(f"{name}: {len(report.faults)} faults, {len(report.warnings)} warnings")
    if report.faults:
        raise typer.Exit(EXIT_USAGE)
