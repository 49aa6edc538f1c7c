"""Options of the commands whose units can be spread over processes and machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from fwdata.console import say
from fwdata.io import refuse_url
from fwdata.store.locations import StoreUrl

if TYPE_CHECKING:
    from fwdata.pipeline.units import ShardJson, Spread, UnitsReport

ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", help="Share of the units to do here: i/n with i from 0, or slurm, or torchrun (docs/machines.md)."
    ),
]
EngineOption = Annotated[str, typer.Option("--engine", help="local: this machine; ray: a Ray cluster.")]
AddressOption = Annotated[str | None, typer.Option("--address", help="Address of the Ray cluster, HOST:PORT or auto.")]
GpusOption = Annotated[
    float | None, typer.Option("--gpus-per-worker", min=0, help="GPUs of a worker of the Ray cluster; default: 1 or 0.")
]


def spread_of(
    store: str | Path, shard: str | None, engine: str, address: str | None = None, gpus: float | None = None
) -> Spread:
    """What the options say. UsageError for values that do not go together, and for a Ray cluster with a URL, whose
    working copy only this machine sees."""
    from fwdata.pipeline.units import Spread, parse_shard

    if engine == "ray":
        refuse_url(Path(store), "--engine ray writes folders that all nodes see; use --shard, or copy the store")

    spread = Spread(None if shard is None else parse_shard(shard), engine, address, gpus)
    spread.check()
    return spread


class SharedJson(TypedDict, total=False):
    """What `--json` adds where other processes work on the same job."""

    shard: ShardJson
    """What this process did."""


def shard_json(units: UnitsReport | None) -> SharedJson:
    """What `--json` adds where other processes work on the same job."""
    return {} if units is None else {"shard": units.to_json()}


def finish(store: Path | StoreUrl, units: UnitsReport | None, as_json: bool) -> None:
    """Report a shard on stderr (`--json` has it too); FwdataError when units of it failed."""
    if units is None:
        return
    if not as_json:
        say(units.sentence())
    units.raise_failed(store)
