"""Refinements of a latent cache that were begun and not completed.

A cache is refined in a folder of its own, `latents/<name>-<fingerprint of the finer stride>/`, without metadata until
it is complete. What a killed one has encoded is kept, and read by every later encoding of that name at another stride.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fwdata.store.caches.identity import fingerprint
from fwdata.store.files import LocalFiles
from fwdata.store.metadata import has_record, read_complete
from fwdata.store.records import LatentCacheRecord, LatentPartRecord

_MOST = 4096
"""Largest stride that is looked for."""


@dataclass(frozen=True)
class BegunRefinement:
    """A refinement that was begun and not completed."""

    record: LatentCacheRecord
    """What it will be."""
    parts: int
    """Parts that are wholly encoded."""


def folders_of(latents: Path, name: str) -> Iterator[Path]:
    """Every folder of a cache called `name`: complete, begun or left over."""
    for path in sorted(latents.glob(f"{name}-*")):
        if re.fullmatch("[0-9a-f]{12}", path.name.removeprefix(f"{name}-")):
            yield path


def unfinished_of(files: LocalFiles, record: LatentCacheRecord) -> list[BegunRefinement]:
    """Refinements that differ from a cache in nothing but the stride and of which something is encoded, coarsest first.

    What lies below the cache's name and has another identity is none.
    """
    begun: dict[str, int] = {}
    for folder in folders_of(files.root / "latents", record.name):
        if folder.name != record.key() and not has_record(files, f"latents/{folder.name}"):
            whole = [
                _is_whole(files, f"latents/{folder.name}/{name}") for name in files.names(f"latents/{folder.name}")
            ]
            if any(whole) or any(folder.glob(".attempt-*")):
                begun[folder.name] = sum(whole)
    found: list[BegunRefinement] = []
    for stride in range(_MOST, 0, -1):
        if len(found) == len(begun):
            break
        identity = {**record.identity, "stride": stride}
        fields = {"identity": identity, "stride": stride, "fingerprint": fingerprint(identity)}
        other = record.model_copy(update=fields)
        if other.key() in begun:
            found.append(BegunRefinement(other, begun[other.key()]))
    return found


def _is_whole(files: LocalFiles, folder: str) -> bool:
    return read_complete(files, folder, LatentPartRecord) is not None
