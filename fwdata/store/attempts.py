"""Folders written beside the place they will have, and put there by one rename: the first of several attempts wins.

    parts/.attempt-1a2b3c4d-p00003             an attempt at parts/p00003
    parts/.attempt-1a2b3c4d-p00003.frames      an attempt at parts/p00003/frames

So any number of processes and machines may write the same unit at once without harm, on every file system whose renames
are atomic; no lock is needed. An attempt that comes second compares what it made with what is there: the same bytes
make it done, others are an error. Nothing that another attempt may be writing is ever removed here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fwdata.errors import StoreDamaged, StoreError
from fwdata.io import writer_token
from fwdata.store.files import LocalFiles, tree_digests
from fwdata.store.leases import JOBS
from fwdata.store.metadata import read_complete, read_document
from fwdata.store.records import JsonObject, SealedRecord
from fwdata.store.records.arrays import ArrayRecord

_NAME = re.compile(r"\.attempt-(?P<token>[0-9a-f]{8})-(?P<place>.+)")


def _own_token() -> str:
    """The token of this process's attempts: that of its block of `among_writers`, else one that a rerun on the same
    machine has too, so that it finds what a killed run left."""
    return writer_token() or hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


@dataclass(frozen=True)
class FoundAttempt:
    """An attempt that lies in a store."""

    folder: Path
    """What it has written so far."""
    final: Path
    """Where it belongs."""
    token: str
    """8 hex digits."""


def find_attempts(store: Path) -> Iterator[FoundAttempt]:
    """Every attempt in a store, those in use and those that a kill left."""
    for pattern in ("parts/.attempt-*", "latents/*/.attempt-*", "text/*/.attempt-*"):
        for folder in sorted(store.glob(pattern)):
            name = _NAME.fullmatch(folder.name)
            if name and folder.is_dir():
                yield FoundAttempt(folder, folder.parent / _place(name), name["token"])


def attempted(folder: str) -> str | None:
    """Key of the folder that the folder of this key is an attempt at; None when it is none."""
    parent, _, last = folder.rpartition("/")
    name = _NAME.fullmatch(last)
    return f"{parent}/{_place(name)}" if name and re.fullmatch(r"parts|(?:latents|text)/[^/]+", parent) else None


def _place(name: re.Match[str]) -> str:
    return name["place"].replace(".", "/")


@dataclass(frozen=True)
class UnitAttempt:
    """One attempt at a folder that is sealed by its own zarr.json, written last."""

    folder: Path
    """Where it is written."""
    final: Path
    """Where `commit` puts it."""
    made_from: JsonObject
    """Fields of the record of `final` that say what it is made from: with others it is out of date."""

    @classmethod
    def begin(cls, final: Path, group: Path, made_from: JsonObject, *, resume: bool = False) -> UnitAttempt:
        """An attempt at `final`, which lies below `group`.

        resume: keep what a killed run of this machine has written of it, else its folder is empty. What is out of date
        or was never finished at `final` is removed; within `among_writers` it is a StoreError instead, since nothing
        tells whether another process is looking at it.
        """
        place = final.relative_to(group).as_posix().replace("/", ".")
        attempt = cls(group / f".attempt-{_own_token()}-{place}", final, made_from)
        if attempt.folder.exists() and not resume:
            shutil.rmtree(attempt.folder)
        if final.exists() and attempt._taken() is None:
            attempt._make_way(resume)
        if not resume:
            attempt.folder.mkdir(parents=True, exist_ok=True)
        return attempt

    def _make_way(self, resume: bool) -> None:
        if writer_token():
            raise StoreError(
                f"{self.final} is out of date or was never finished; run the same command without --shard and "
                "--engine, or `fwdata clean` first"
            )
        if resume and not self.folder.exists():
            self.final.rename(self.folder)  # an earlier version wrote it there: go on with it
            return
        (self.final / "zarr.json").unlink(missing_ok=True)  # first: what is half removed must not look complete
        shutil.rmtree(self.final)

    def _taken(self) -> JsonObject | None:
        """The record at `final` when it is complete and made from the same; None otherwise."""
        found = _complete(self.final)
        if found is None or any(found.get(key) != value for key, value in self.made_from.items()):
            return None
        return found

    def commit(self) -> bool:
        """Put the sealed folder in its place; False when another attempt with the same bytes was first.

        StoreDamaged when the other has other bytes.
        """
        try:
            self.folder.rename(self.final)
            return True
        except OSError as error:
            there = self._taken()
            if there is None:
                raise
            ours = _complete(self.folder)
            if ours is None:  # a network file system may report the failure of a rename that it has done
                return True
            if ours != there:
                raise StoreDamaged(_unlike(self, ours, there)) from error
        self.drop()
        return False

    def drop(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _complete(folder: Path) -> JsonObject | None:
    found = read_complete(LocalFiles(folder.parent), folder.name, SealedRecord)
    return None if found is None else found.to_json()


def _unlike(attempt: UnitAttempt, ours: JsonObject, there: JsonObject) -> str:
    a, b = ours.get("digests", {}), there.get("digests", {})
    files = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    what = f"{files[0]}, and {len(files) - 1} more files" if files else "their records"
    return (
        f"two processes made different bytes for {attempt.final}: {what}; the first is kept, the second lies in "
        f"{attempt.folder}: compare the machines (devices, library versions, sources), then `fwdata clean` removes it"
    )


def remove_folder(store: Path, folder: Path) -> None:
    """Remove a folder of a store. It is moved away first, to where a later run removes what a killed one left, so that
    nobody finds half of it and takes it for whole."""
    jobs = store / JOBS
    jobs.mkdir(exist_ok=True)
    away = jobs / f".new-{secrets.token_hex(4)}"
    folder.rename(away)
    shutil.rmtree(away)
    with contextlib.suppress(OSError):
        jobs.rmdir()


def whole_digests(folder: Path) -> dict[str, str]:
    """`tree_digests` of a folder that is about to be sealed. StoreDamaged when an array in it lacks a file."""
    digests = tree_digests(folder)
    for name in digests:
        if Path(name).name != "zarr.json":
            continue
        missing = next((key for key in _files_of_array(folder, name) if key not in digests), None)
        if missing is not None:
            raise StoreDamaged(
                f"{folder / missing} is gone although it was written: something removed it meanwhile; run the same "
                "command again"
            )
    return digests


def _files_of_array(folder: Path, name: str) -> Iterator[str]:
    """Keys of the files that an array's metadata promise; none for a group."""
    data = (folder / name).read_bytes()
    if json.loads(data).get("node_type") != "array":
        return
    record = read_document(ArrayRecord, data, f"{folder}/{name}")
    base, block = name.removesuffix("zarr.json"), record.chunk_grid.configuration.chunk_shape[0]
    for number in range(-(-record.shape[0] // block)):
        yield base + "/".join(["c", str(number), *("0" for _ in record.shape[1:])])
