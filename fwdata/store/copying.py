"""Copying a store to another place, path or URL, every file checked on the way; a killed copy goes on."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fwdata.errors import StaleCache, StoreDamaged, UsageError
from fwdata.store.files import LocalFiles, RemoteFiles, open_target, write_lock
from fwdata.store.metadata import read_complete
from fwdata.store.reader import open_store
from fwdata.store.records import SealedRecord


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
    store's own metadata last, so that a half copy does not open. Memory: one file. Attempts and jobs of running
    commands stay behind. StoreDamaged for a file that is missing or has other bytes than recorded, StaleCache for a
    target that is another store, UsageError for one that is something else.
    """
    here, there = open_target(source), open_target(target)
    if here.location == there.location:
        raise UsageError(f"{source} cannot be copied to itself")
    if not isinstance(there, LocalFiles) and "@" in there.location:
        raise UsageError(
            f"{there.location.partition('://')[0]}://..: give credentials in the environment, not in the URL"
        )
    open_store(source)
    keys = sorted(here.keys(), key=lambda key: (-key.count("/"), key))
    digests = _recorded(here, keys)
    _check_target(here, there, keys)
    report = CopyReport(files=len(keys))
    on_plan(len(keys))
    with _writing(there):
        done = _whole_folders(here, there, keys)
        for key in keys:
            if not any(key.startswith(f"{folder}/") for folder in done):
                _copy(here, there, key, digests, report)
            on_file(1)
    return report


@contextlib.contextmanager
def _writing(there: LocalFiles | RemoteFiles) -> Iterator[None]:
    if isinstance(there, LocalFiles):
        with write_lock(there.root):
            yield
    else:
        yield


def _folders(keys: list[str]) -> list[str]:
    return [key.removesuffix("/zarr.json") for key in keys if key.endswith("/zarr.json")]


def _recorded(here: LocalFiles | RemoteFiles, keys: list[str]) -> dict[str, str]:
    """sha256 of every file that a sealed folder lists, by key. StoreDamaged when one is missing."""
    found: dict[str, str] = {}
    present = set(keys)
    sealed = [f for f in _folders(keys) if _may_be_sealed(f)]
    for folder in sealed:
        record = read_complete(here, folder, SealedRecord)
        for name, digest in () if record is None else record.digests.items():
            key = f"{folder}/{name}"
            if key not in present:
                raise StoreDamaged(f"{here.location}/{key} is missing; run `fwdata verify {here.location}`")
            found[key] = digest
    return found


def _may_be_sealed(folder: str) -> bool:
    top, *rest = folder.split("/")
    if top == "parts":
        return len(rest) == 1 or (len(rest) == 2 and rest[1] == "frames")
    return (top == "stats" and not rest) or (top in {"latents", "text"} and len(rest) == 2)


def _check_target(here: LocalFiles | RemoteFiles, there: LocalFiles | RemoteFiles, keys: list[str]) -> None:
    """StaleCache or UsageError when the target holds something else than a copy of this store, or a part of one."""
    root = there.read("zarr.json")
    if root is not None and root != here.read("zarr.json"):
        raise StaleCache(f"{there.location} holds another store than {here.location}; choose another place")
    if isinstance(there, LocalFiles):
        path: Path = there.root
        for parent in (path, *path.parents):
            if parent.exists() and not parent.is_dir():
                raise UsageError(f"{path}: {parent} is a file; name a folder")
        if not path.is_dir():
            return
        have = {p.name for p in path.iterdir() if not p.name.startswith(".")}
    else:
        have = {key.partition("/")[0] for key in there.keys()}  # noqa: SIM118 - not a mapping
    foreign = sorted(have - {key.partition("/")[0] for key in keys})
    if foreign:
        raise UsageError(f"{there.location} holds {foreign[0]}, which is not of this store; choose another place")


def _whole_folders(here: LocalFiles | RemoteFiles, there: LocalFiles | RemoteFiles, keys: list[str]) -> set[str]:
    """Sealed folders whose mark is at the target already, and so everything that it covers."""
    sealed = [folder for folder in _folders(keys) if _may_be_sealed(folder)]
    marks = {folder: there.read(f"{folder}/zarr.json") for folder in sealed}
    done = {f for f, mark in marks.items() if mark is not None and mark == here.read(f"{f}/zarr.json")}
    half = {f.removesuffix("/frames") for f in sealed if f.endswith("/frames") and f not in done}
    return done - half  # a part's own mark does not cover its stitched frames


def _copy(
    here: LocalFiles | RemoteFiles,
    there: LocalFiles | RemoteFiles,
    key: str,
    digests: dict[str, str],
    report: CopyReport,
) -> None:
    data = here.read(key)
    if data is None:
        raise StoreDamaged(f"{here.location}/{key} is missing; run `fwdata verify {here.location}`")
    digest = hashlib.sha256(data).hexdigest()
    if digests.get(key, digest) != digest:
        raise StoreDamaged(f"{here.location}/{key} is damaged: its sha256 does not match; run `fwdata repair`")
    old = there.read(key)
    if old is not None and hashlib.sha256(old).hexdigest() == digest:
        return
    there.write(key, data)
    report.copied += 1
    report.bytes += len(data)
