"""Checking the command that `fwdata slurm` puts into a script, before anything waits in a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fwdata.cli.converter_options import chosen_options, parse_options
from fwdata.console import warn
from fwdata.errors import UsageError
from fwdata.pipeline.units import Shard, Spread
from fwdata.wording import counted

USUAL_ARRAY = 1001
"""Tasks of an array that Slurm takes unless a site says otherwise (MaxArraySize)."""


def check_wrapped(command: Sequence[str], shards: int) -> None:
    """Parse a command as it will be parsed in the job, and look for what it reads.

    Raises click's error for an option that the command does not have or a value that it does not take, UsageError for
    one that goes with no shard, StoreError for a store that is not there. Warns of tasks without work.
    """
    from fwdata.cli import command_named

    name, arguments = command[0], list(command[1:])
    context = command_named(name).make_context(f"fwdata {name}", arguments)
    given: Mapping[str, Any] = context.params
    if given.get("engine") != "local":
        raise UsageError("fwdata slurm: leave --engine out, the tasks of the array are the workers")
    if given.get("dry_run"):
        raise UsageError(f"fwdata slurm: leave --dry-run out, or run `fwdata {name}` with it here")
    spread = Spread(Shard(0, shards))
    for option in ("replace", "update", "retry"):
        spread.refuse("--retry-quarantined" if option == "retry" else f"--{option}", bool(given.get(option)))
    if name == "convert":
        _check_conversion(given, parse_options(given["options"] or []) | chosen_options(context))
        return
    _check_names(given)
    _check_store(given["store"], name, shards)
    if shards > USUAL_ARRAY:
        warn(f"{shards} tasks: Slurm takes arrays of at most {USUAL_ARRAY} tasks unless the site allows more")


def _check_conversion(given: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """UsageError for a source format, recordings, a manifest or converter options that are not there."""
    from fwdata.cli.convert import check_on_error
    from fwdata.pipeline.choose import manifest_for
    from fwdata.pipeline.registry import converter_module, load_converter

    check_on_error(given["on_error"])
    source = given["source"]
    fetches = hasattr(converter_module(source), "fetch")
    for raw in given["raw"]:
        if not Path(raw).exists() and not fetches:
            raise UsageError(f"{raw} does not exist")
    load_converter(manifest_for(source, given["manifest"], options))


def _check_names(given: Mapping[str, Any]) -> None:
    """UsageError for a VAE, a text encoder, a dtype or GPU numbers that nothing is called."""
    from fwdata.encode.hub import is_hub_id, unknown
    from fwdata.plugins import TEXT_ENCODERS, VAES

    vae, encoder = given.get("vae"), given.get("encoder")
    known_vaes = ["tiny", "tiny-libero", "wan2.2", *VAES.names()]
    known_encoders = ["tiny", "umt5-xxl", *TEXT_ENCODERS.names()]
    for what, spec, known in (("VAE", vae, known_vaes), ("text encoder", encoder, known_encoders)):
        if spec is None or spec in known or spec.startswith("fastwam-text:"):
            continue
        if not Path(spec).exists() and not is_hub_id(spec):
            raise unknown(what, spec, known)
    if given.get("dtype", "auto") not in ("auto", "float32", "bfloat16"):
        raise UsageError(f"--dtype must be auto, float32 or bfloat16, found {given['dtype']!r}")
    if given.get("instructions", "all") not in ("canonical", "all"):
        raise UsageError(f"--instructions must be canonical or all, found {given['instructions']!r}")


def _check_store(location: str, name: str, shards: int) -> None:
    """StoreError if the store does not exist; a warning if it has fewer units than the array has tasks."""
    from fwdata.store.reader import open_store

    store = open_store(location)
    units = sum(bool(part.record.episodes) for part in store.parts)
    if name != "encode-text" and store.complete and units < shards:
        warn(
            f"{location} has {counted(units, 'unit')} for {counted(shards, 'task')}: {shards - units} of them "
            "will find nothing to do"
        )
