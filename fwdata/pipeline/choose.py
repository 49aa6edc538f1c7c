"""Which manifest a conversion uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fwdata.errors import UsageError
from fwdata.manifest import Manifest, load_manifest
from fwdata.pipeline.discover import choose_manifest
from fwdata.pipeline.registry import chooser, default_manifest
from fwdata.pipeline.workers import WorkerPool


def manifest_for(
    source: str,
    manifest: str | None,
    options: Mapping[str, Any],
    roots: Sequence[Path] = (),
    pool: WorkerPool | None = None,
) -> Manifest:
    """The manifest of a conversion: by name or path, else the one that the converter chooses for these roots (function
    `choose_manifest`), else the one called like the source; options override its own.

    pool: where the converter looks at the roots, None: in this process. UsageError when the manifest belongs to another
    converter.
    """
    chooses = chooser(source) is not None
    if manifest is None and roots and chooses:
        found = choose_manifest(source, roots, options, pool or WorkerPool(0))
    else:
        found = load_manifest(manifest or default_manifest(source))
    if found.converter != source:
        raise UsageError(f"manifest {found.name!r} is for converter {found.converter!r}, not {source!r}")
    if not options:
        return found
    return found.model_copy(update={"options": {**found.options, **options}})
