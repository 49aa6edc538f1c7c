"""What a part was made from, beside what its own metadata say: its files' times and place, and which converter.

    sources/p00000/zarr.json    attributes: the version of the converter, mtime_ns of every source file, its place

These are not part of a store's identity: a copy of the recordings has other times and converts to the same bytes. A
store of an earlier release has no such group; its parts were made by version 1, and its files are compared by size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from fwdata.errors import StoreDamaged
from fwdata.store.files import Files, ensure_groups
from fwdata.store.metadata import read_record, write_record
from fwdata.store.records import Record

SOURCES = "sources"
"""Group that holds one record for every part."""

FIRST_VERSION = 1
"""Version of a converter that states none, and of the one that made a part without a record."""


class PartSources(Record):
    """The record of one part."""

    part: str
    """Name of the part."""
    version: int = FIRST_VERSION
    """Version of the converter that read the part's recordings."""
    mtime_ns: Mapping[str, int] = Field(default_factory=dict)
    """Time of last change of every source file in nanoseconds, by the path that the part's metadata record."""
    place: str = ""
    """Digest of where the folder of the recordings was; "" where an earlier release, or a repair, did not record it."""


def place_of(root: Path) -> str:
    """A digest of where a folder of recordings lies: tells whether it is the same one, and nothing else about it."""
    return hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def write_sources(store: Path, record: PartSources) -> None:
    """Keep the record of a part, atomically."""
    folder = store / SOURCES
    ensure_groups(store, folder)
    write_record(folder / record.part, record)


def read_sources(files: Files, part: str) -> PartSources:
    """The record of a part; an empty one where there is none. StoreDamaged for one that is not a record."""
    record = read_record(files, f"{SOURCES}/{part}", PartSources)
    if record is None:
        return PartSources(part=part)
    if record.part != part:
        where = f"{files.location}/{SOURCES}/{part}/zarr.json"
        raise StoreDamaged(f"{where} holds the record of {record.part}; the file is damaged")
    return record
