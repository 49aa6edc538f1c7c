"""What a part was made from, beside what its own metadata say: its files' times and place, and which converter.

    sources/p00000/zarr.json    attributes: the version of the converter, mtime_ns of every source file, its place

These are not part of a store's identity: a copy of the recordings has other times and converts to the same bytes. A
store of an earlier release has no such group; its parts were made by version 1, and its files are compared by size.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fwdata.api import EpisodeRef
from fwdata.errors import StoreDamaged
from fwdata.store.files import Files, ensure_groups, file_sha256
from fwdata.store.metadata import read_record, write_record
from fwdata.store.records import FIRST_VERSION, PartSources

SOURCES = "sources"
"""Group that holds one record for every part."""


@dataclass(frozen=True)
class SourceFile:
    """A file an episode was read from."""

    path: str
    """Path relative to the root, POSIX."""
    bytes: int
    """Size of the file in bytes."""
    sha256: str
    """Digest of its bytes, hex."""
    mtime_ns: int
    """Time of its last change, nanoseconds."""


def source_files(root: Path, ref: EpisodeRef, prefix: str = "") -> tuple[SourceFile, ...]:
    """Size and sha256 of every file of a recording; `prefix` is put before the paths that are recorded.

    Files that many episodes share are read once.
    """
    base = root.parent if root.is_file() else root
    found = []
    for name in ref.files:
        status = (base / name).stat()
        digest = _cached_sha256(base / name, status.st_mtime_ns, status.st_size)
        found.append(SourceFile(prefix + name, status.st_size, digest, status.st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=64)
def _cached_sha256(path: Path, mtime_ns: int, size: int) -> str:
    return file_sha256(path)


def place_of(root: Path) -> str:
    """A digest of where a folder of recordings lies: tells whether it is the same one, and nothing else about it."""
    return hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def write_sources(store: Path, record: PartSources) -> None:
    """Keep the record of a part, atomically."""
    folder = store / SOURCES
    ensure_groups(store, folder)
    write_record(folder / record.part, record)


def read_sources(files: Files, part: str) -> PartSources:
    """The record of a part; where there is none, one with no more than the version of the converter.

    StoreDamaged for one that is not a record.
    """
    record = read_record(files, f"{SOURCES}/{part}", PartSources)
    if record is None:
        return PartSources(part=part, version=_version_of_others(files))
    if record.part != part:
        where = f"{files.location}/{SOURCES}/{part}/zarr.json"
        raise StoreDamaged(f"{where} holds the record of {record.part}; the file is damaged")
    return record


def _version_of_others(files: Files) -> int:
    """The version that read a part without a record: that of the others, since a store grows by one version alone.

    The lowest, as next generations of parts that an update did not put in place yet may lie beside those in use.
    FIRST_VERSION where no part has a record.
    """
    found = list[int]()
    for name in files.names(SOURCES):
        with suppress(StoreDamaged):
            record = read_record(files, f"{SOURCES}/{name}", PartSources)
            found += [] if record is None else [record.version]
        if FIRST_VERSION in found:
            break
    return min(found, default=FIRST_VERSION)
