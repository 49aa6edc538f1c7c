"""Copying a store to another place, path or URL, every file checked on the way; a killed copy goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from fwdata.errors import StoreDamaged, UsageError, quoted
from fwdata.store.copy_target import CopiedStore, Place, Target
from fwdata.store.files import LocalFiles
from fwdata.store.layout import may_be_sealed
from fwdata.store.metadata import read_complete
from fwdata.store.opening import open_target
from fwdata.store.reader import open_store
from fwdata.store.records import SealedRecord
from fwdata.store.remote import RemoteFiles


@dataclass
class CopyReport:
    """What a copy did."""

    files: int = 0
    """Files of the store."""
    copied: int = 0
    """Files written in this run; the others were there."""
    bytes: int = 0
    """Bytes written in this run."""


def copy_store(
    source: str,
    target: str,
    on_plan: Callable[[int], None] = lambda _: None,
    on_file: Callable[[int], None] = lambda _: None,
) -> CopyReport:
    """Copy a store, byte for byte; running it again continues, and writes nothing when all is there.

    Every file that a digest covers is checked before it is written; marks of completion come after what they cover, the
    store's own metadata last, so that a half copy does not open. Memory: one file, 16 with a URL, where so many are
    moved at once. Attempts and jobs of running commands stay behind. What the store has replaced since an earlier copy
    is removed. StoreDamaged for a file that is missing or has other bytes than recorded; for targets: `Target.held`.
    """
    here, there = open_target(source), open_target(target)
    if here.location == there.location:
        raise UsageError(f"{source} cannot be copied to itself")
    if isinstance(there, RemoteFiles) and not there.url.writable:
        raise UsageError(f"{there.location} can only be read")
    open_store(source)
    keys = sorted(here.listing().keys, key=_depth_first)
    digests = _recorded(here, keys)
    place = Target(there, CopiedStore.read(here, keys))
    with place.held():
        report = CopyReport(files=len(keys))
        on_plan(len(keys))
        done = tuple(f"{folder}/" for folder in _whole_folders(here, there, keys, place))
        on_file(sum(key.startswith(done) for key in keys))
        for _, level in groupby((key for key in keys if not key.startswith(done)), lambda key: -_depth_first(key)[0]):
            for size in _every(here, there, lambda key: _copy(here, there, key, digests, place), list(level)):
                report.copied += size is not None
                report.bytes += size or 0
                on_file(1)
        place.finish()
    return report


def _depth_first(key: str) -> tuple[int, str]:
    return -key.count("/"), key


def _every[V](here: Place, there: Place, call: Callable[[str], V], keys: Sequence[str]) -> Iterator[V]:
    """call(key) for every key, several at once when a side is remote."""
    return here.each(call, keys) if isinstance(there, LocalFiles) else there.each(call, keys)


def _sealed_folders(keys: list[str]) -> list[str]:
    folders = (key.removesuffix("/zarr.json") for key in keys if key.endswith("/zarr.json"))
    return [folder for folder in folders if may_be_sealed(folder)]


def _recorded(here: Place, keys: list[str]) -> dict[str, str]:
    """sha256 of every file that a sealed folder lists, by key. StoreDamaged when one is missing."""
    found: dict[str, str] = {}
    present = set(keys)
    sealed = _sealed_folders(keys)
    here.read_ahead(f"{folder}/zarr.json" for folder in sealed)
    for folder in sealed:
        record = read_complete(here, folder, SealedRecord)
        for name, digest in () if record is None else record.digests.items():
            key = f"{folder}/{name}"
            if key not in present:
                raise StoreDamaged(f"{here.location}/{key} is missing; run `fwdata verify {quoted(here.location)}`")
            found[key] = digest
    return found


def _whole_folders(here: Place, there: Place, keys: list[str], place: Target) -> set[str]:
    """Sealed folders whose mark is at the target already, and so everything that it covers; other marks go."""
    sealed = _sealed_folders(keys)
    marks = [f"{folder}/zarr.json" for folder in sealed if f"{folder}/zarr.json" in place.have.sizes]
    here.read_ahead(marks)
    there.read_ahead(marks)
    done = {mark.removesuffix("/zarr.json") for mark in marks if there.read(mark) == here.read(mark)}
    for mark in marks:
        if mark.removesuffix("/zarr.json") not in done:
            place.drop_mark(mark.removesuffix("/zarr.json"))
    half = {f.removesuffix("/frames") for f in sealed if f.endswith("/frames") and f not in done}
    return done - half  # a part's own mark does not cover its stitched frames


def _mending(here: Place) -> str:
    """The command for a damaged file; a repair is made in folders alone."""
    return f"`fwdata {'repair' if isinstance(here, LocalFiles) else 'verify'} {quoted(here.location)}`"


def _copy(here: Place, there: Place, key: str, digests: dict[str, str], place: Target) -> int | None:
    """Bytes that were written; None for a file that is there already."""
    data = here.read(key)
    if data is None:
        raise StoreDamaged(f"{here.location}/{key} is missing; run `fwdata verify {quoted(here.location)}`")
    digest = hashlib.sha256(data).hexdigest()
    if digests.get(key, digest) != digest:
        raise StoreDamaged(f"{here.location}/{key} is damaged: its sha256 does not match; run {_mending(here)}")
    if place.have.sizes.get(key) == len(data) and there.sha256(key) == (digest, len(data)):
        return None
    place.write(key, data)
    return len(data)
