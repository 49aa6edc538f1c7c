"""Rows of an HDF5 dataset that lies in its file in one piece, read past HDF5 into memory that is used again.

HDF5 and fresh memory cost several times what copying the bytes takes: of 6 MB, most of the time goes into memory that
the system hands out page by page.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fwdata.api import BadEpisode

if TYPE_CHECKING:
    from io import FileIO

    import h5py


class PlainRows:
    """Rows of a dataset of any form. `read` gives views of one buffer."""

    def __init__(self, file: FileIO, offset: int, node: h5py.Dataset, most: int) -> None:
        """file: the HDF5 file. offset: the dataset's first byte in it. most: rows that are read at once."""
        self._file, self._offset, self._key = file, offset, node.name
        self._buffer = np.empty((most, *node.shape[1:]), node.dtype)
        self._row_bytes = self._buffer[:1].nbytes

    def read(self, low: int, high: int) -> NDArray[Any]:
        """Rows low..high, which the next call writes over. BadEpisode where the file ends before."""
        found = self._buffer[: high - low]
        self._file.seek(self._offset + low * self._row_bytes)
        view, have = memoryview(found).cast("B"), 0
        while have < found.nbytes:
            more = self._file.readinto(view[have:])
            if not more:
                raise BadEpisode(f"the file ends within {self._key}, row {low + have // self._row_bytes}")
            have += more
        return found


@contextmanager
def plain_rows(path: Path, node: h5py.Dataset, most: int) -> Iterator[PlainRows | None]:
    """A reader of a dataset's rows, `most` at once; None where HDF5 must read it: chunks, other files, other bytes."""
    offset = _place(node)
    if offset is None:
        yield None
        return
    with path.open("rb", buffering=0) as file:
        yield PlainRows(file, offset, node, most)


def _place(node: h5py.Dataset) -> int | None:
    """The dataset's first byte in its file; None where it does not lie there in one piece, in this machine's order."""
    import h5py

    if node.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS or node.external or node.ndim == 0:
        return None
    if not node.dtype.isnative or node.dtype.hasobject or node.file.userblock_size or not node.nbytes:
        return None
    offset: int | None = node.id.get_offset()
    return offset
