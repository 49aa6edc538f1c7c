"""Rows of arrays with shards of different sizes, and of one whose chunks hold several rows, in one batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fwdata.errors import StoreDamaged
from fwdata.store.array import ArrayWriter, ChunkedArray
from fwdata.store.files import LocalFiles
from fwdata.store.layout import ArraySpec
from fwdata.store.row_reader import RowReader

ROWS = np.random.default_rng(0).integers(0, 256, (3, 23, 5), dtype=np.uint8)
SPECS = {
    4: ArraySpec("uint8", (5,), 1, 4, "crc32c"),
    1: ArraySpec("uint8", (5,), 1, 7, "crc32c"),
    2: ArraySpec("uint8", (5,), 3, 6, "crc32c"),
}


def write(folder: Path, spec: ArraySpec, rows: np.ndarray) -> ChunkedArray:
    writer = ArrayWriter(folder, spec)
    writer.append(rows)
    writer.finish()
    return ChunkedArray(LocalFiles(folder.parent), folder.name)


@pytest.mark.parametrize("numbers", [[4], [4, 1], [4, 1, 2], [2]])
def test_rows_of_arrays_of_any_form_come_in_the_order_asked_for(tmp_path: Path, numbers: list[int]) -> None:
    reader, stored = RowReader(), dict(zip(SPECS, ROWS, strict=True))
    for number in numbers:
        reader.add(number, write(tmp_path / f"a{number}", SPECS[number], stored[number]))
    random = np.random.default_rng(1)
    for count in (0, 1, 40):
        number, row = random.choice(numbers, count), random.integers(0, 23, count)
        for _ in range(2):
            out = np.empty((count, 5), np.uint8)
            reader.read(number, row, out)
            assert np.array_equal(out, [stored[n][r] for n, r in zip(number, row, strict=True)] or out)


def test_a_row_whose_checksum_does_not_hold_is_named(tmp_path: Path) -> None:
    array = write(tmp_path / "a", SPECS[1], ROWS[0])
    reader = RowReader()
    reader.add(0, array)
    table = array.row_table(1)
    with table.path.open("r+b") as file:
        file.seek(table.offsets[3])
        file.write(bytes([ROWS[0, 10, 0] ^ 1]))
    out = np.empty((2, 5), np.uint8)
    with pytest.raises(StoreDamaged, match="chunk 3: checksum"):
        reader.read(np.array([0, 0]), np.array([2, 10]), out)
