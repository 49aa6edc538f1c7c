"""Random rows of latent arrays, read straight into the caller's memory.

One `preadv` of a row's bytes into its place, and one CRC-32C of them, compared with the array's own list of checksums
(`fwdata.store.codec`), which covers both the bytes and their position. Mapping the files instead saves a fifth of the
time and ends the process where a file is truncated, so only rows that the caller wants trusted are read that way.
Without locks, so that a process may fork at any time.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import google_crc32c
from numpy.typing import NDArray

from fwdata.errors import StoreDamaged
from fwdata.store.array import ChunkedArray
from fwdata.store.remote_rows import FarRow, RemoteRows

type Verify = Literal["always", "first-read"]

OPEN_SHARDS = (64, 1024)
"""Fewest and most shard files a reader keeps open; between them, a quarter of the process's limit."""


def open_limit() -> int:
    """How many shard files a reader of this process keeps open."""
    low, high = OPEN_SHARDS
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        return min(high, max(low, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
    return low


class OpenShard:
    """One shard file, and where its rows lie. The file is closed when the last user lets go of it."""

    def __init__(self, array: ChunkedArray, shard: int, copy: Path | None = None) -> None:
        table = array.row_table(shard, copy)
        self.copy = copy
        self.fd = os.open(table.path, os.O_RDONLY)
        self.offsets, self.checksums = table.offsets, table.checksums
        self.unverified = bytearray(b"\1" * len(table.offsets))
        self._mapped: memoryview | None = None

    def mapped(self) -> memoryview:
        """The file's bytes, mapped into memory at the first call. A file that is truncated afterwards, or that the
        system cannot read any more, ends the process (SIGBUS)."""
        if self._mapped is None:
            self._mapped = memoryview(mmap.mmap(self.fd, 0, prot=mmap.PROT_READ))
        return self._mapped

    def __del__(self) -> None:
        try:  # modules may be gone when the interpreter ends: contextlib is one of them
            os.close(self.fd)
        except (AttributeError, OSError, TypeError):
            return


class RowReader:
    """Reads rows of several arrays of one row shape. Thread-safe, also while other threads read; not picklable.

    verify: "always" checks every row on every read. "first-read" checks a row when it is read first, and copies it from
    the mapped file from then on while that stays open: later damage to the disk goes unnoticed, and see
    `OpenShard.mapped`.
    """

    def __init__(self, verify: Verify = "always") -> None:
        self._always = verify == "always"
        self._arrays: dict[int, ChunkedArray] = {}
        self._blocks: dict[int, int] = {}
        self._shards: dict[tuple[int, int], OpenShard] = {}
        self._limit = open_limit()
        self._remote: RemoteRows | None = None

    def add(self, number: int, array: ChunkedArray) -> None:
        """Make an array readable as `number`."""
        self._arrays[number] = array
        if not array.is_local and array.has_row_tables and self._remote is None:
            self._remote = RemoteRows()
        self._blocks[number] = array.rows_per_shard if array.has_row_tables else 0

    def read(self, numbers: Sequence[int], rows: Sequence[int], out: NDArray[Any]) -> None:
        """Fill out[i] with row rows[i] of array numbers[i]. out: C-contiguous [n, *row_shape] of the arrays' dtype.

        Raises StoreDamaged for a missing row or one whose checksum does not hold, IndexError outside an array.
        """
        shards, blocks, always = self._shards, self._blocks, self._always
        found: list[tuple[OpenShard, int, NDArray[Any], int, int]] = []
        far: list[FarRow] = []
        for body, number, row in zip(out, numbers, rows, strict=True):
            block = blocks[number]
            if not block:
                body[...] = self._arrays[number].take([row])[0]
                continue
            shard, slot = divmod(row, block)
            opened = shards.get((number, shard)) or self._open(number, shard)
            if opened is None:
                far.append(FarRow(self._arrays[number], row, body))
            else:
                found.append((opened, slot, body, number, row))
        crc32c, preadv, size = google_crc32c.value, os.preadv, out[:1].nbytes
        for opened, slot, body, number, row in found:  # apart from the search, which the copies push out of the cache
            offset = opened.offsets[slot]
            if always or opened.unverified[slot]:
                if preadv(opened.fd, (body,), offset) != size or crc32c(body) != opened.checksums[slot]:
                    if opened.copy is None:
                        _damaged(self._arrays[number], row)
                    self._drop(opened)
                    far.append(FarRow(self._arrays[number], row, body))
                    continue
                opened.unverified[slot] = 0
            else:
                memoryview(body).cast("B")[:] = opened.mapped()[offset : offset + size]

        if far and self._remote is not None:
            self._remote.read(far)

    def _open(self, number: int, shard: int) -> OpenShard | None:
        """A shard, from its copy on this machine where it lies elsewhere; None when there is no copy yet."""
        array, copy = self._arrays[number], None
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
        self._shards[number, shard] = opened
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
