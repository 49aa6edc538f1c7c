"""Rows of HDF5 datasets in one piece, read past HDF5: equal to what HDF5 gives, or left to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from converters.shared.plain_rows import RowsPlace, place_of, plain_rows, rows_at
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


def placed(path: Path) -> RowsPlace:
    """The place of a dataset of a new file."""
    with h5py.File(path, "w") as file:
        file["x"] = VALUES
    with h5py.File(path) as file:
        found = place_of(path, file["x"])
    assert found is not None
    return found


def test_rows_are_read_at_a_place_without_hdf5(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = placed(path)
    monkeypatch.setattr(h5py, "File", None)
    with rows_at(path, place, 10) as plain:
        assert plain is not None
        assert np.array_equal(plain.read(30, 37), VALUES[30:])


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def later(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def another(path: Path) -> None:
    status, data = path.stat(), path.read_bytes()
    path.rename(path.with_name("old.hdf5"))
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [longer, later, another, gone])
def test_a_place_in_a_file_that_changed_is_left_to_hdf5(path: Path, change: Callable[[Path], None]) -> None:
    place = placed(path)
    change(path)
    with rows_at(path, place, 10) as plain:
        assert plain is None
