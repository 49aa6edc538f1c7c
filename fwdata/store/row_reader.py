"""Random rows of latent arrays, read straight into the caller's memory.

A row that a process reads for the first time comes by one `preadv`, so that a file that is cut off or that the system
cannot read is an error with a name; from then on it is copied from the mapped file, in two thirds of the time. The
first time one CRC-32C of its bytes is compared with the array's own list of checksums (`fwdata.store.codec`), which
covers both the bytes and their position; from then on their XXH3 with that of the first time: it tells any change, too,
in a half to a third of the time. Without locks, so that a process may fork at any time.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from array import array as Numbers
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from fwdata.errors import StoreDamaged
from fwdata.store.array import ChunkedArray
from fwdata.store.codec import crc32c
from fwdata.store.mounts import on_own_disk
from fwdata.store.remote_rows import FarRow, RemoteRows

type Verify = Literal["always", "first-read"]

OPEN_SHARDS = (64, 1024)
"""Fewest and most shard files a reader keeps open; between them, those that a quarter of the process's limit allows."""

UNTRACKED: dict[str, bool] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""Lets a mapped file have no descriptor of its own. Before Python 3.13 it has one, beside that which is read from."""


def open_limit() -> int:
    """How many shard files a reader of this process keeps open."""
    low, high = OPEN_SHARDS
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
        return min(high, max(low, descriptors // (1 if UNTRACKED else 2)))
    return low


class OpenShard:
    """One shard file, and where its rows lie. The file is closed when the last user lets go of it.

    Only files of this machine's own disks are mapped. What is left of the danger of mapping: the process is ended by
    SIGBUS where a row that it has read before left the system's memory and the disk cannot read it again, or where the
    file is cut off while the row is copied (its length is asked for before every batch).
    """

    __slots__ = ("_may_map", "bytes", "checksums", "copy", "fd", "hashes", "mapped", "offsets", "unread")

    def __init__(self, array: ChunkedArray, shard: int, copy: Path | None = None) -> None:
        table = array.row_table(shard, copy)
        self.copy = copy
        self.fd = os.open(table.path, os.O_RDONLY)
        self.offsets, self.checksums = table.offsets, table.checksums
        self.unread = bytearray(b"\1" * len(table.offsets))
        self.hashes = Numbers("Q", bytes(8 * len(table.offsets)))
        self.bytes = os.fstat(self.fd).st_size
        self.mapped: memoryview | None = None
        self._may_map = on_own_disk(table.path)

    def map(self) -> memoryview | None:
        """The file's bytes, mapped into memory; None where they are to be read with `preadv` alone."""
        if self._may_map and os.fstat(self.fd).st_size == self.bytes:
            with contextlib.suppress(OSError, ValueError):  # no address space or descriptor is left, an empty file
                self.mapped = memoryview(mmap.mmap(self.fd, self.bytes, prot=mmap.PROT_READ, **UNTRACKED))
                return self.mapped
        self._may_map = False
        return None

    def unmap(self) -> None:
        """Let go of the mapping: the file is no longer as long as it was when it was opened."""
        self.mapped, self._may_map = None, False

    def __del__(self) -> None:
        try:  # modules may be gone when the interpreter ends: contextlib is one of them
            os.close(self.fd)
        except (AttributeError, OSError, TypeError):
            return


type _Found = tuple[OpenShard | None, int]
"""A shard and the row in it, for every row of the buffer. None for a row that is not read from a shard."""

SHARDS = 1 << 32
"""More shards than an array has: a shard of any array is one number."""


class RowReader:
    """Reads rows of several arrays of one row shape. Thread-safe, also while other threads read; not picklable.

    verify: "always" checks every row on every read. "first-read" checks a row when it is read first, and trusts it from
    then on while its file stays open: later damage to the disk goes unnoticed.
    """

    def __init__(self, verify: Verify = "always") -> None:
        self._always = verify == "always"
        self._arrays: dict[int, ChunkedArray] = {}
        self._blocks = np.ones(0, np.int64)
        self._block: int | NDArray[np.int64] = self._blocks
        self._shards: dict[int, OpenShard] = {}
        self._limit = open_limit()
        self._remote: RemoteRows | None = None

    def add(self, number: int, array: ChunkedArray) -> None:
        """Make an array readable as `number`."""
        self._arrays[number] = array
        if not array.is_local and array.has_row_tables and self._remote is None:
            self._remote = RemoteRows()
        blocks = np.ones(max(len(self._blocks), number + 1), np.int64)
        blocks[: len(self._blocks)] = self._blocks
        blocks[number] = array.rows_per_shard if array.has_row_tables else 1
        used = np.unique(blocks[list(self._arrays)])
        self._blocks, self._block = blocks, int(used[0]) if len(used) == 1 else blocks

    def read(self, numbers: NDArray[np.int64], rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Fill out[i] with row rows[i] of array numbers[i]. out: C-contiguous [n, *row_shape] of the arrays' dtype.

        Raises StoreDamaged for a missing row or one whose checksum does not hold, IndexError outside an array.
        """
        if not len(out):
            return
        block = self._block
        shard, slot = np.divmod(rows, block if isinstance(block, int) else block[numbers])
        opened = list(map(self._shards.get, (numbers * SHARDS + shard).tolist()))
        far = self._open_missing(opened, numbers, rows, out) if None in opened else []
        length, end = os.lseek, os.SEEK_END  # a quarter of the time of fstat
        for each in set(opened):
            if each is not None and each.mapped is not None and length(each.fd, 0, end) != each.bytes:
                each.unmap()
        for position in self._fill(zip(opened, slot.tolist(), strict=True), out):
            array, row, damaged = self._arrays[int(numbers[position])], int(rows[position]), opened[position]
            assert damaged is not None
            if damaged.copy is None:
                _damaged(array, row)
            self._drop(damaged)
            far.append(FarRow(array, row, out[position]))
        if far and self._remote is not None:
            self._remote.read(far)

    def _open_missing(
        self, opened: list[OpenShard | None], numbers: NDArray[np.int64], rows: NDArray[np.int64], out: NDArray[Any]
    ) -> list[FarRow]:
        """Open the shards that are None in `opened`, and read rows that are not chunks of their own. The rows of shards
        that lie elsewhere and have no copy here yet."""
        far: list[FarRow] = []
        for position, (number, row) in enumerate(zip(numbers.tolist(), rows.tolist(), strict=True)):
            array = self._arrays[number]
            if opened[position] is not None:
                continue
            if not array.has_row_tables:
                out[position] = array.take([row])[0]
                continue
            shard = row // array.rows_per_shard
            key = number * SHARDS + shard
            opened[position] = self._shards.get(key) or self._open(key, array, shard)
            if opened[position] is None:
                far.append(FarRow(array, row, out[position]))
        return far

    def _fill(self, found: Iterable[_Found], out: NDArray[Any]) -> list[int]:
        """Copy rows into out, one after the other; the positions of those whose checksum does not hold. Apart from the
        search for them, which the copies push out of the processor's cache."""
        known, always = xxh3_64_intdigest, self._always
        flat = memoryview(out.reshape(-1).view(np.uint8))
        size, wrong, end = len(flat) // len(out), [], 0
        for opened, slot in found:
            begin, end = end, end + size
            if opened is None:
                continue
            mapped = opened.mapped
            if mapped is None or opened.unread[slot]:
                if not self._fill_one(opened, slot, flat[begin:end]):
                    wrong.append(begin // size)
                continue
            offset = opened.offsets[slot]
            if not always:
                flat[begin:end] = mapped[offset : offset + size]
                continue
            body = flat[begin:end]
            body[:] = mapped[offset : offset + size]
            if known(body) != opened.hashes[slot]:
                wrong.append(begin // size)
        return wrong

    def _fill_one(self, opened: OpenShard, slot: int, body: memoryview) -> bool:
        """Read a row that was not read before, or whose file is not mapped. False when its checksum does not hold."""
        offset, unread = opened.offsets[slot], opened.unread[slot]
        mapped = None if unread else opened.map()
        if mapped is not None:
            body[:] = mapped[offset : offset + len(body)]
        elif os.preadv(opened.fd, (body,), offset) != len(body):
            return False
        if not unread:
            return not self._always or xxh3_64_intdigest(body) == opened.hashes[slot]
        if crc32c(np.frombuffer(body, np.uint8)) != opened.checksums[slot]:
            return False
        opened.hashes[slot] = xxh3_64_intdigest(body) if self._always else 0
        opened.unread[slot] = 0
        return True

    def _open(self, key: int, array: ChunkedArray, shard: int) -> OpenShard | None:
        """A shard, from its copy on this machine where it lies elsewhere; None when there is no copy yet."""
        copy = None
        if not array.is_local:
            assert self._remote is not None
            copy = self._remote.copy_of(array, shard)
            if copy is None:
                return None
        try:
            opened = OpenShard(array, shard, copy)
        except (OSError, StoreDamaged):
            if copy is None:
                raise
            assert self._remote is not None
            self._remote.forget(copy)  # cut off, or removed meanwhile
            return None
        self._shards[key] = opened
        for key in list(self._shards)[: max(0, len(self._shards) - self._limit)]:
            self._shards.pop(key, None)  # another thread may still read from it and closes it then
        return opened

    def _drop(self, opened: OpenShard) -> None:
        """Forget a copy that is damaged, so that it is fetched again."""
        assert opened.copy is not None and self._remote is not None
        self._remote.forget(opened.copy)
        for key in [key for key, value in self._shards.items() if value is opened]:
            self._shards.pop(key, None)


def _damaged(array: ChunkedArray, row: int) -> None:
    """Raise StoreDamaged in the words of the array's own reader."""
    array.take([row])
    raise StoreDamaged(f"{array.files.location}/{array.key}, row {row}: read once with a checksum that does not hold")
