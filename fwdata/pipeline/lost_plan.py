"""The plan of a store that lost it, from what its parts record: also where the folder of recordings has grown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fwdata.errors import StoreDamaged
from fwdata.pipeline.plan import PlannedPart
from fwdata.pipeline.roots import CombinedDiscovery
from fwdata.store.files import LocalFiles
from fwdata.store.layout import part_base
from fwdata.store.metadata import read_record
from fwdata.store.records import PartRecord


def parts_by_records(store: Path, found: CombinedDiscovery) -> tuple[PlannedPart, ...] | None:
    """The parts of a store as they were planned, with the recordings found for them; those that it does not hold are
    left out. None where a part's own metadata are lost, too, or several generations of it lie there."""
    names = part_folders(store)
    records = {name: _record(store, name) for name in names}
    if not names or len({part_base(name) for name in names}) < len(names):
        return None
    return None if None in records.values() else tuple(_planned(n, r, found) for n, r in records.items() if r)


def part_folders(store: Path) -> list[str]:
    """Names of the folders of parts, in order."""
    return sorted(path.name for path in (store / "parts").glob("p*") if path.is_dir())


def _record(store: Path, name: str) -> PartRecord | None:
    try:
        return read_record(LocalFiles(store), f"parts/{name}", PartRecord)
    except StoreDamaged:
        return None


def _planned(name: str, record: PartRecord, found: CombinedDiscovery) -> PlannedPart:
    ids, left_out = {e.id for e in record.episodes}, {item.source for item in record.quarantined}
    recordings = tuple(r for r in found.recordings if r.id in ids or r.source in left_out)
    there = {recording.source for recording in recordings}
    missing = _absent([*(e.source for e in record.episodes), *sorted(left_out)], there)
    return PlannedPart(name, record.group, recordings, missing, record.plan)


def _absent(sources: Iterable[str], there: set[str]) -> tuple[str, ...]:
    return tuple(source for source in sources if source not in there)
