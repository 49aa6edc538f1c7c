"""Writing a store behind a URL: commands work on a local copy of its metadata, and what they complete is sent.

A unit (a part, its stitched frames, a part of a cache) is sent as soon as it is complete, its data first, its mark
last, everything with If-None-Match: two processes cannot both write one object, and the second compares. What a
conversion measured in its parts goes with them (`HANDED_OVER`), until whoever completes the store has pooled it. Other
metadata follow when the command has ended, the store's own last, with If-Match where they were there before. The folder
stays when a command fails or is killed: the same command goes on with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fwdata.errors import FwdataError, StoreBusy, StoreDamaged, UsageError
from fwdata.io import folder_lock, write_atomic
from fwdata.store.files import LocalFiles
from fwdata.store.layout import may_be_sealed, sealed_above
from fwdata.store.leases import JOBS, STALE
from fwdata.store.locations import StoreUrl, parse_location
from fwdata.store.metadata import read_complete
from fwdata.store.mirror import MirrorFiles, MirrorState, mirror_root, mirror_state
from fwdata.store.records import SealedRecord
from fwdata.store.remote import Entry, RemoteFiles
from fwdata.store.scratch import cache_bytes
from fwdata.store.shown_jobs import ShownJobs, fetch_jobs

HANDED_OVER = re.compile(rf"{re.escape(JOBS)}/[^/.][^/]*/[^/.][^/]*\.npz")
"""Hidden files of a job that others need; see `fwdata.pipeline.shared_evidence`."""

PUSH_EVERY = 2.0
"""Seconds between two looks for complete units while a command runs."""


@contextlib.contextmanager
def working_copy(location: str | Path) -> Iterator[Path]:
    """A local folder to run a writing command on: the store itself where it is local, else a copy that is sent.

    Messages name the URL. UsageError for a URL that can only be read, and for a server that ignores conditional writes;
    StoreBusy while another command of this machine writes there, or when another machine changed the same metadata.
    """
    place = parse_location(location)
    if isinstance(place, Path):
        yield place
        return
    remote, root = RemoteFiles(place), mirror_root(place)
    if not place.writable:
        raise UsageError(f"{place} can only be read")
    root.mkdir(parents=True, exist_ok=True)
    with folder_lock(root.parent):
        try:
            with _naming(place, root):
                sync = Sync(remote, root, check_conditions(remote))
                sync.pull()
                try:
                    with sync.in_background():
                        yield root
                except FwdataError:
                    sync.withdraw()
                    raise
                sync.push()
        finally:
            if root.is_dir() and not any(path.is_dir() for path in root.iterdir()):
                shutil.rmtree(root.parent)  # nothing came of it
        shutil.rmtree(root.parent, ignore_errors=True)


@contextlib.contextmanager
def reading_copy(location: str | Path, watched: bool = False) -> Iterator[Path]:
    """A local folder to run a command on that writes nothing, such as a dry run; see `working_copy`.

    watched: to see how far it is and who works on it: with marks and jobs, as old as they are behind the URL.
    """
    place = parse_location(location)
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="fwdata-") as folder:
        root = Path(folder) / "store"
        root.mkdir()
        with _naming(place, root):
            Sync(RemoteFiles(place), root, datetime.now(UTC)).pull(watched=watched)
            yield root


@contextlib.contextmanager
def _naming(url: StoreUrl, root: Path) -> Iterator[None]:
    """Errors in the block name the URL in place of its copy."""
    try:
        yield
    except FwdataError as error:
        raise type(error)(str(error).replace(str(root), str(url))) from error


def check_conditions(remote: RemoteFiles) -> datetime:
    """The time by the storage's clock. UsageError where it ignores If-None-Match or If-Match."""
    key = f".fwdata-probe-{secrets.token_hex(4)}"
    try:
        remote.create(key, b"1")  # whatever it says: the answer of a first try may have been lost
        taken = remote.create(key, b"2") or remote.replace(key, b"3", '"0-none"')
        kept = not taken and remote.read(key) == b"1"
        probe = remote.entry(key)
    finally:
        with contextlib.suppress(FwdataError):
            remote.delete([key])
    if not kept or probe is None:
        raise UsageError(
            f"the server of {remote.location} ignores conditional writes (If-None-Match, If-Match), so that two "
            "processes could damage a store; write it to a local folder and `fwdata copy` it there"
        )
    return probe.modified


def _is_unit(folder: str) -> bool:
    """Whether a folder is sealed once and for all; statistics are replaced."""
    return may_be_sealed(folder) and folder != "stats"


class Sync:
    """Keeps a working copy and its URL in step. began: when the command began, by the storage's clock."""

    def __init__(self, remote: RemoteFiles, root: Path, began: datetime) -> None:
        self._remote, self._root, self._began = remote, root, began
        self._files = LocalFiles(root)
        self._synced: dict[str, tuple[bytes, str]] = {}
        self._failure: FwdataError | None = None
        self._new = False
        self._sent: list[str] = []
        self._handed: set[str] = set()
        self._jobs = ShownJobs(remote, root, ())

    def pull(self, *, watched: bool = False) -> None:
        """Fetch all metadata. What is here and not there was not sent yet, unless it was in step before.

        Nothing is fetched of a store that another machine began and that has no metadata of its own yet: it is made
        here too, and what is there already is compared.

        watched: to see how far it is, whoever began it, and who works on it.
        """
        entries = self._remote.entries()
        before = mirror_state(self._root)
        marks = [key for key in entries if _is_metadata(key)]
        self._new = "zarr.json" not in entries
        self._jobs = ShownJobs(self._remote, self._root, entries)
        if self._new and before is None and not watched:
            self._synced = {key: (b"", entries[key].tag) for key in marks if not _is_unit(_folder(key))}
            marks = []
        self._remote.read_ahead(marks)
        for key in marks:
            data = self._remote.read(key)
            if data is None:
                continue
            self._synced[key] = (data, entries[key].tag)
            if self._files.read(key) != data:
                write_atomic(self._root / key, data)
            if watched:
                os.utime(self._root / key, (entries[key].modified.timestamp(),) * 2)
        if watched:
            fetch_jobs(self._remote, self._root, entries)
            return
        for key in before.synced if before is not None else ():
            if key not in self._synced:
                self._drop(key)
        if self._remote.url.scheme == "memory" and marks:  # which other processes, that decode and encode, do not see
            for key in filter(sealed_above, entries):
                MirrorFiles(self._root, self._remote.url).read(key)
        for key in filter(HANDED_OVER.fullmatch, entries):
            data = self._remote.read(key)
            if data is not None:
                write_atomic(self._root / key, data)
                self._handed.add(key)
        self._save()

    def _drop(self, key: str) -> None:
        folder = key.removesuffix("/zarr.json")
        if _is_unit(folder):
            shutil.rmtree(self._root / folder, ignore_errors=True)
        else:
            (self._root / key).unlink(missing_ok=True)

    def _save(self) -> None:
        MirrorState(self._remote.url, frozenset(self._synced)).save(self._root)

    @contextlib.contextmanager
    def in_background(self) -> Iterator[None]:
        """Send units while the block runs; a failure to do so is raised when it ends."""
        ended = threading.Event()

        def send() -> None:
            while not ended.wait(PUSH_EVERY):
                try:
                    self._push_units()
                    self._jobs.send()
                    self._trim()
                except FileNotFoundError:
                    continue  # the command replaced a unit meanwhile
                except FwdataError as error:
                    self._failure = error
                    return

        thread = threading.Thread(target=send, name="send", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with contextlib.suppress(FwdataError):  # of the command, or of sending what it made
                self._jobs.send()
        if self._failure is not None:
            raise self._failure

    def push(self) -> None:
        """Send everything that is not there yet, and remove there what is gone here.

        StoreBusy where the copy itself is gone: no command removes the metadata of a whole store.
        """
        lost = [
            key for key in ("zarr.json", "parts/zarr.json") if key in self._synced and self._files.read(key) is None
        ]
        if lost:
            raise StoreBusy(
                f"{self._root / lost[0]} was removed while the command ran; nothing was removed behind the URL, run "
                "the same command again"
            )
        self._push_units()
        listing = self._files.listing()
        loose = [key for key in listing.keys if sealed_above(key) is None and not _is_unit(_folder(key))]
        for key in sorted(loose, key=lambda key: (-key.count("/"), key)):
            self._push_loose(key, (self._root / key).read_bytes())
        gone = [key for key in self._synced if not (self._root / key).is_file()]
        for key in gone:
            self._remove(key)
        self._remote.delete([key for key in sorted(self._handed) if not (self._root / key).is_file()])
        self._jobs.end(lambda folder: f"{folder}/zarr.json" in self._synced)
        self._save()

    def withdraw(self) -> None:
        """Remove the units that were sent of a new store that its command has refused and removed again."""
        if self._new and not (self._root / "zarr.json").is_file():
            for mark in self._sent:
                self._remove(mark)
            self._remote.delete(sorted(self._handed))

    def _push_units(self) -> None:
        for key in filter(HANDED_OVER.fullmatch, self._files.listing().sizes):
            if key not in self._handed and (data := self._files.read(key)) is not None:
                self._remote.write(key, data)
                self._handed.add(key)
        for folder in sorted(filter(_is_unit, self._files.listing().folders)):
            mark = f"{folder}/zarr.json"
            data, known = self._files.read(mark), self._synced.get(mark)
            if data is None or (known is not None and known[0] == data):
                continue
            record = read_complete(self._files, folder, SealedRecord)
            if record is not None:
                self._push_unit(folder, data, record.digests)
                self._save()

    def _push_unit(self, folder: str, data: bytes, digests: dict[str, str]) -> None:
        mark = f"{folder}/zarr.json"
        if mark in self._synced:
            self._remove(mark)  # made anew: readers see none until it is whole
        there = {key: e for key, e in self._remote.entries(folder).items() if sealed_above(key) in (folder, None)}
        if mark in there:
            self._compare(mark, data)
        else:
            keys = {f"{folder}/{name}": digest for name, digest in digests.items()}
            for _ in self._remote.each(lambda key: self._push_file(key, keys[key], there.get(key)), keys):
                pass
            strange = [key for key in there if key not in keys and self._is_old(there[key])]
            self._remote.delete(strange)
            if self._remote.create(mark, data):
                self._sent.append(mark)
            else:
                self._compare(mark, data)
        self._synced[mark] = (data, self._tag(mark))

    def _compare(self, mark: str, data: bytes) -> None:
        """StoreDamaged when the mark that is there is of other bytes than ours."""
        if self._remote.read(mark) != data:
            where = f"{self._remote.location}/{mark.removesuffix('/zarr.json')}"
            raise StoreDamaged(
                f"two processes made different bytes for {where}: the first is kept, the second lies in {self._root}; "
                "compare the machines (devices, library versions, sources), then remove that folder"
            )

    def _push_file(self, key: str, digest: str, there: Entry | None) -> None:
        data = (self._root / key).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise StoreDamaged(f"{self._root / key} was changed before it was sent; run the same command again")
        if there is None and self._remote.create(key, data):
            return
        tag = there.tag if there is not None else ""
        if tag.strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest():
            return
        found = self._remote.sha256(key)
        if found is not None and found[0] == digest:
            return
        if there is None or not self._is_old(there) or not self._remote.replace(key, data, tag):
            raise StoreBusy(
                f"{self._remote.location}/{key} is being written by another process with other bytes; wait for it to "
                "end, then run the same command again"
            )

    def _is_old(self, entry: Entry) -> bool:
        """Whether nobody can be at work on an object any more."""
        return entry.modified < self._began - timedelta(seconds=STALE)

    def _tag(self, key: str) -> str:
        entry = self._remote.entry(key)
        return "" if entry is None else entry.tag

    def _push_loose(self, key: str, data: bytes) -> None:
        known = self._synced.get(key)
        if known is not None and known[0] == data:
            return
        done = self._remote.create(key, data) if known is None else self._remote.replace(key, data, known[1])
        if not done and self._remote.read(key) != data:
            raise StoreBusy(
                f"{self._remote.location}/{key} was changed by another process meanwhile; run the same command again"
            )
        self._synced[key] = (data, self._tag(key))

    def _remove(self, key: str) -> None:
        """Remove metadata and then, of a unit, what it covers: what is half removed must not look whole."""
        if self._tag(key) not in ("", self._synced[key][1]):
            raise StoreBusy(
                f"{self._remote.location}/{key} was changed by another process meanwhile; run the same command again"
            )
        self._remote.delete([key])
        folder = _folder(key)
        if _is_unit(folder):
            self._remote.delete([k for k in self._remote.entries(folder) if sealed_above(k) == folder])
        del self._synced[key]

    def _trim(self) -> None:
        """Remove data of units that were sent, the longest unused first, until the bound on the cache holds."""
        listing, bound = self._files.listing(), cache_bytes()
        size = sum(listing.sizes.values())
        sent = [k for k in listing.keys if "/c/" in k and f"{sealed_above(k)}/zarr.json" in self._synced]
        if size <= bound:
            return
        for key in sorted(sent, key=lambda key: (self._root / key).stat().st_atime):
            (self._root / key).unlink(missing_ok=True)
            size -= listing.sizes[key]
            if size <= bound // 2:
                return


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _is_metadata(key: str) -> bool:
    """Whether a file is fetched before a command begins: marks, and what no unit covers."""
    hidden = any(part.startswith(".") for part in key.split("/"))
    return not hidden and sealed_above(key) is None
