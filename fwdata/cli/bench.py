"""`fwdata bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.cli._common import emit_json, print_table

if TYPE_CHECKING:
    from fwdata.bench import Timing

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="Measure speed against a limit found in the same run.", no_args_is_help=True)
    group.command(name="convert")(convert)
    group.command(name="read")(read)
    app.add_typer(group, name="bench")


def convert(
    source: Annotated[str, typer.Argument(help="Source format.")],
    raw: Annotated[Path, typer.Argument(help="Folder of recordings.")],
    manifest: Annotated[str | None, typer.Option(help="Manifest name or path.")] = None,
    as_json: AsJson = False,
) -> None:
    """Frames per CPU second of a conversion, against only reading and decoding the same frames.

    Example: fwdata bench convert robotwin RAW_DIR
    """
    from fwdata.bench import bench_convert
    from fwdata.pipeline.plan import manifest_for

    _print("camera frames", bench_convert(source, raw, manifest_for(source, manifest, {}, [raw])), as_json)


def read(store: Annotated[Path, typer.Argument(help="Store with latents.")], as_json: AsJson = False) -> None:
    """Random training windows per CPU second, against numpy.memmap and zarr-python.

    Example: fwdata bench read data/robotwin.zarr
    """
    from fwdata import open as open_store
    from fwdata.bench import bench_read

    _print("windows", bench_read(open_store(store)), as_json)


def _print(unit: str, timings: list[Timing], as_json: bool) -> None:
    base = timings[0].rate
    if as_json:
        emit_json([{"name": t.name, "per_cpu_second": round(t.rate, 2), "ratio": t.rate / base} for t in timings])
        return
    rows: list[tuple[str, ...]] = [(t.name, f"{t.rate:,.0f}", f"{t.rate / base:.2f}") for t in timings]
    print_table(f"{unit} per CPU second, one core", ("way", "rate", "ratio"), rows)
