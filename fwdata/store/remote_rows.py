"""Rows of latent arrays behind a URL: ranges at first, and whole shards on this machine from then on.

A shard that is asked for is fetched in the background, in the order of asking, into a folder of bounded size, and read
from there when it has come; until then its rows are read as ranges, those of one shard in one call. When the folder is
full of shards in use, further ones stay remote: with a random order, that serves as many rows from the disk as
replacing others would, without fetching shards over and over. A copy is named by the checksums of its rows and
checked by them when it is read, so that a changed or damaged one is never taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import secrets
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import FwdataError, StoreDamaged
from fwdata.io import waiting_lock, whole_file
from fwdata.store.array import ChunkedArray
from fwdata.store.codec import crc32c
from fwdata.store.remote import RemoteFiles, at_once
from fwdata.store.scratch import cache_bytes, scratch_folder

FETCHERS = 2
"""Threads that fetch whole shards beside the ranges."""
UNUSED = 600.0
"""Seconds before this process began in which a copy was used that it may not remove: another one may be reading it."""


class FarRow(NamedTuple):
    """A row to read."""

    array: ChunkedArray
    """Its array."""
    row: int
    """Its number."""
    out: NDArray[Any]
    """Where it goes, C-contiguous."""


class ShardCopies:
    """Copies of shards in a folder of at most `limit` bytes, shared by all processes of this machine."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._began = time.time()

    def path(self, array: ChunkedArray, shard: int) -> Path:
        """Where the copy of a shard lies, once it has come."""
        checksums = np.asarray(array.row_checksums(shard), "<u4").tobytes()
        return self.folder / hashlib.sha256(f"{array.dtype.str}{array.shape[1:]}".encode() + checksums).hexdigest()[:40]

    def add(self, path: Path, data: bytes) -> bool:
        """Keep a shard; False when there is no room, on the disk either."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with waiting_lock(self.folder):  # else two processes would take the same room
                if not self._make_room(len(data)):
                    return False
                with whole_file(path, f".{os.getpid()}-{secrets.token_hex(4)}") as temporary:
                    temporary.write_bytes(data)
        except OSError:
            return False
        return True

    def has_room(self, size: int) -> bool:
        """Whether a shard would be kept."""
        return self._free() >= size or bool(self._unused())

    def _files(self) -> list[tuple[float, int, Path]]:
        """Last use, size and path of everything in the folder, temporary files too."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self.folder):
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    found.append((stat.st_mtime, stat.st_size, Path(entry.path)))
        return sorted(found)

    def _free(self) -> int:
        return self.limit - sum(size for _, size, _ in self._files())

    def _unused(self) -> list[tuple[int, Path]]:
        return [(size, path) for used, size, path in self._files() if used < self._began - UNUSED]

    def _make_room(self, size: int) -> bool:
        free = self._free()
        for other, path in self._unused():
            if free >= size:
                break
            path.unlink(missing_ok=True)
            free += other
        return free >= size


class RemoteRows:
    """Reads rows of arrays behind URLs, and fetches their shards. Thread-safe; not picklable."""

    def __init__(self) -> None:
        self._copies = ShardCopies(scratch_folder() / "shards", cache_bytes())
        self._asked: set[Path] = set()
        self._queue: queue.SimpleQueue[tuple[ChunkedArray, int, Path]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def copy_of(self, array: ChunkedArray, shard: int) -> Path | None:
        """The copy of a shard, marked as used; None when there is none."""
        path = self._copies.path(array, shard)
        try:
            os.utime(path)
        except OSError:
            return None
        return path

    def forget(self, copy: Path) -> None:
        """Remove a damaged copy; it is fetched again when its shard is asked for."""
        copy.unlink(missing_ok=True)
        with self._lock:
            self._asked.discard(copy)

    def read(self, rows: list[FarRow]) -> None:
        """Fill rows, and have their shards fetched. StoreDamaged for bytes whose checksum does not hold."""
        for array, shard in read_far(rows):
            self._ask(array, shard)

    def _ask(self, array: ChunkedArray, shard: int) -> None:
        """Have a shard fetched, once."""
        path = self._copies.path(array, shard)
        with self._lock:
            if path in self._asked or self._copies.limit <= 0:
                return
            self._asked.add(path)
            self._queue.put((array, shard, path))
            if len(self._threads) < FETCHERS:
                self._threads.append(threading.Thread(target=self._fetch, name="shards", daemon=True))
                self._threads[-1].start()

    def _fetch(self) -> None:
        while True:
            array, shard, path = self._queue.get()
            row_bytes = int(np.prod(array.shape[1:])) * array.dtype.itemsize + 4
            if path.exists() or not self._copies.has_room(len(array.row_checksums(shard)) * row_bytes):
                continue
            with contextlib.suppress(FwdataError):  # the row that needs it says what is wrong
                data = array.files.read(array.shard_key(shard))
                if data is not None:
                    self._copies.add(path, data)


def read_far(rows: list[FarRow]) -> list[tuple[ChunkedArray, int]]:
    """Fill rows, those of one shard in one call, several shards at once; returns array and number of those shards."""
    groups: dict[tuple[int, int], list[FarRow]] = {}
    for item in rows:
        groups.setdefault((id(item.array), item.row // item.array.rows_per_shard), []).append(item)
    for _ in at_once(_read_group, groups.values()):
        pass
    return [(items[0].array, shard) for (_, shard), items in groups.items()]


def _read_group(items: list[FarRow]) -> None:
    """Rows of one shard, taken from where a whole shard without gaps has them, else from where its index says."""
    array = items[0].array
    assert isinstance(array.files, RemoteFiles)
    shard, size = items[0].row // array.rows_per_shard, items[0].out.nbytes
    checksums, slots = array.row_checksums(shard), [item.row % array.rows_per_shard for item in items]
    found: list[bytes] = [b""] * len(items)
    with contextlib.suppress(StoreDamaged):  # said below, where it is not only that the shard has gaps
        found = array.files.read_ranges(array.shard_key(shard), [slot * (size + 4) for slot in slots], size)
    for item, slot, data in zip(items, slots, found, strict=True):
        if data and crc32c(data) == checksums[slot]:
            memoryview(item.out).cast("B")[:] = data
        else:
            item.out[...] = array.take([item.row])[0]
