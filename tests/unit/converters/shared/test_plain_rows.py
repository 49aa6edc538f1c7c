"""Rows of HDF5 datasets in one piece, read past HDF5: equal to what HDF5 gives, or left to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from converters.shared.plain_rows import plain_rows
from fwdata.api import BadEpisode

VALUES = np.random.default_rng(0).integers(0, 256, (37, 5, 4, 3), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.hdf5"


@pytest.mark.parametrize("dtype", ["u1", "<i2", "<f8"])
def test_rows_are_those_of_hdf5(path: Path, dtype: str) -> None:
    values = VALUES.astype(dtype)
    with h5py.File(path, "w") as file:
        file["before"], file["x"], file["after"] = values[:3], values, values[3:]
    with h5py.File(path) as file, plain_rows(path, file["x"], 10) as plain:
        assert plain is not None
        for low, high in ((0, 10), (30, 37), (5, 6), (0, 10)):
            found = plain.read(low, high)
            assert found.dtype == values.dtype and np.array_equal(found, file["x"][low:high])


def chunked(file: h5py.File) -> None:
    file.create_dataset("x", data=VALUES, chunks=(8, 5, 4, 3))


def compressed(file: h5py.File) -> None:
    file.create_dataset("x", data=VALUES, compression="gzip")


def other_order(file: h5py.File) -> None:
    file["x"] = VALUES.astype(">u2")


def compact(file: h5py.File) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(VALUES.shape)
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, space, properties)


def never_written(file: h5py.File) -> None:
    file.create_dataset("x", VALUES.shape, np.uint8)


def virtual(file: h5py.File) -> None:
    file["y"] = VALUES
    layout = h5py.VirtualLayout(VALUES.shape, np.uint8)
    layout[:] = h5py.VirtualSource(".", "y", VALUES.shape)
    file.create_virtual_dataset("x", layout)


def other_file(file: h5py.File) -> None:
    Path(file.filename).with_name("a.bin").write_bytes(VALUES.tobytes())
    file.create_dataset("x", VALUES.shape, np.uint8, external=[("a.bin", 0, VALUES.nbytes)])


@pytest.mark.parametrize("write", [chunked, compressed, other_order, compact, never_written, virtual, other_file])
def test_what_is_not_in_one_piece_is_left_to_hdf5(path: Path, write: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "w") as file:
        write(file)
    with h5py.File(path) as file, plain_rows(path, file["x"], 10) as plain:
        assert plain is None


def test_a_file_behind_a_user_block_is_left_to_hdf5(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["x"] = VALUES
    with h5py.File(path) as file, plain_rows(path, file["x"], 10) as plain:
        assert plain is None


def test_a_file_that_is_cut_off_meanwhile_is_named_with_the_row(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = VALUES
        end = file["x"].id.get_offset() + 20 * VALUES[0].nbytes + 7
    with h5py.File(path) as file, plain_rows(path, file["x"], 10) as plain:
        assert plain is not None
        os.truncate(path, end)
        plain.read(10, 20)
        with pytest.raises(BadEpisode, match="the file ends within /x, row 20"):
            plain.read(15, 25)
        os.truncate(path, end + VALUES[0].nbytes * 50)
