"""Rows of an HDF5 dataset that lies in its file in one piece, read past HDF5 into memory that is used again.

HDF5 and fresh memory cost several times what copying the bytes takes: of 6 MB, most of the time goes into memory that
the system hands out page by page.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.shared.hdf5 import userblock_of
from fwdata.api import BadEpisode

if TYPE_CHECKING:
    from io import FileIO

    import h5py


@dataclass(frozen=True)
class RowsPlace:
    """Where the rows of a dataset lie in its file, one after another."""

    key: str
    """The dataset's name in the file."""
    offset: int
    """Its first byte in the file."""
    shape: tuple[int, ...]
    """Rows and row shape."""
    dtype: np.dtype[Any]
    """Element type, in this machine's order."""
    file_state: tuple[int, ...]
    """What the file was then: its number, size in bytes and time of its last change."""


class PlainRows:
    """Rows of a dataset of any form. `read` gives views of one buffer."""

    def __init__(self, file: FileIO, place: RowsPlace, most: int) -> None:
        """file: the HDF5 file. place: of the dataset in it. most: rows that are read at once."""
        self._file, self._place = file, place
        self._buffer = np.empty((most, *place.shape[1:]), place.dtype)
        self._row_bytes = self._buffer[:1].nbytes

    def read(self, low: int, high: int) -> NDArray[Any]:
        """Rows low..high, which the next call writes over. BadEpisode where the file ends before."""
        found = self._buffer[: high - low]
        self._file.seek(self._place.offset + low * self._row_bytes)
        view, have = memoryview(found).cast("B"), 0
        while have < found.nbytes:
            more = self._file.readinto(view[have:])
            if not more:
                raise BadEpisode(f"the file ends within {self._place.key}, row {low + have // self._row_bytes}")
            have += more
        return found


@contextmanager
def plain_rows(path: Path, node: h5py.Dataset, most: int) -> Iterator[PlainRows | None]:
    """A reader of a dataset's rows, `most` at once; None where HDF5 must read it: chunks, other files, other bytes."""
    place = place_of(path, node)
    if place is None:
        yield None
        return
    with path.open("rb", buffering=0) as file:
        yield PlainRows(file, place, most)


@contextmanager
def rows_at(path: Path, place: RowsPlace, most: int) -> Iterator[PlainRows | None]:
    """A reader of the rows at a place that was found before, without HDF5; None where the file has changed since."""
    try:
        file = path.open("rb", buffering=0)
    except OSError:
        yield None
        return
    with file:
        unchanged = _state(os.fstat(file.fileno())) == place.file_state
        yield PlainRows(file, place, most) if unchanged else None


def place_of(path: Path, node: h5py.Dataset, file: h5py.File | None = None) -> RowsPlace | None:
    """Where a dataset lies; None where it does not lie in its file in one piece, in this machine's order.

    file: the open file that holds it, which is asked for its head once.
    """
    offset: int | None = node.id.get_offset()
    if offset is None or node.ndim == 0:  # in chunks, in other files, or not written
        return None
    dtype = node.dtype
    if not dtype.isnative or dtype.hasobject or not node.nbytes or userblock_of(file or node.file):
        return None
    return RowsPlace(node.name, offset, node.shape, dtype, _state(path.stat()))


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
