"""The array reader and writer, against zarr-python."""

from __future__ import annotations

import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from fixtures import (
    flip_bit,
    tree,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

import fwdata.store.array as array_module
import fwdata.store.files as files_module
from fwdata.errors import StoreDamaged, StoreError
from fwdata.store.array import ArrayWriter, ChunkedArray, write_documents, write_table
from fwdata.store.files import LocalFiles, file_sha256
from fwdata.store.layout import ArraySpec, Codec, frame_array, latent_array

QUICK = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
DTYPES = ("uint8", "float16", "float32", "int64", "bool")


@st.composite
def arrays(draw: st.DrawFn) -> tuple[ArraySpec, int, list[int], int]:
    """A spec, a row count, sizes of append calls, and a seed."""
    chunk = draw(st.integers(1, 5))
    shard = draw(st.one_of(st.none(), st.integers(1, 4).map(lambda n: n * chunk)))
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=3)))
    codec = draw(st.sampled_from(("crc32c", "zstd", "lines") if shape else ("crc32c", "zstd")))
    spec = ArraySpec(draw(st.sampled_from(DTYPES)), shape, chunk, shard, codec)
    pieces = draw(st.lists(st.integers(0, 9), max_size=5))
    return spec, sum(pieces), pieces, draw(st.integers(0, 2**32 - 1))


def random_rows(spec: ArraySpec, rows: int, seed: int) -> NDArray[Any]:
    data = np.random.default_rng(seed).integers(0, 200, (rows, *spec.row_shape))
    return data.astype(spec.dtype)


def write(folder: Path, spec: ArraySpec, values: NDArray[Any], pieces: list[int] | None = None) -> None:
    writer = ArrayWriter(folder, spec)
    start = 0
    for count in pieces or [len(values)]:
        writer.append(values[start : start + count])
        start += count
    writer.finish()


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3] ^= 16
    path.write_bytes(data)


def opened(folder: Path) -> ChunkedArray:
    return ChunkedArray(LocalFiles(folder.parent), folder.name, file_sha256(folder / "zarr.json"))


def folder_for(tmp_path: Path) -> Path:
    return tmp_path / f"a{len(list(tmp_path.iterdir()))}"


@QUICK
@given(arrays())
def test_zarr_python_reads_what_we_write(tmp_path: Path, case: tuple[ArraySpec, int, list[int], int]) -> None:
    spec, rows, pieces, seed = case
    values = random_rows(spec, rows, seed)
    folder = folder_for(tmp_path)
    write(folder, spec, values, pieces)
    found = zarr.open_array(str(folder), mode="r")
    assert found.shape == values.shape and found.dtype == values.dtype
    assert np.array_equal(np.asarray(found[:]), values)


@QUICK
@given(arrays(), st.data())
def test_reader_returns_the_rows_written(
    tmp_path: Path, case: tuple[ArraySpec, int, list[int], int], data: st.DataObject
) -> None:
    spec, rows, pieces, seed = case
    values = random_rows(spec, rows, seed)
    folder = folder_for(tmp_path)
    write(folder, spec, values, pieces)
    array = opened(folder)
    assert array.shape == values.shape and array.dtype == values.dtype and len(array) == rows
    low = data.draw(st.integers(0, rows))
    high = data.draw(st.integers(low, rows))
    assert np.array_equal(array.rows(low, high), values[low:high])
    wanted = data.draw(st.lists(st.integers(0, rows - 1), max_size=8)) if rows else []
    assert np.array_equal(array.take(wanted), values[np.array(wanted, np.int64)])


@QUICK
@given(arrays())
def test_reader_reads_what_zarr_python_writes(tmp_path: Path, case: tuple[ArraySpec, int, list[int], int]) -> None:
    spec, rows, _, seed = case
    rows += 1
    values = random_rows(spec, rows, seed)
    folder = folder_for(tmp_path)
    codecs = {
        "zstd": ZstdCodec(level=1, checksum=True),
        "crc32c": Crc32cCodec(),
        "lines": ZstdCodec(level=3, checksum=True),
    }
    made = zarr.create_array(
        str(folder),
        shape=values.shape,
        dtype=values.dtype,
        chunks=(spec.chunk_rows, *spec.row_shape),
        shards=None if spec.shard_rows is None else (spec.shard_rows, *spec.row_shape),
        filters=TransposeCodec(order=(1, 0, *range(2, values.ndim))) if spec.codec == "lines" else None,
        compressors=codecs[spec.codec],
        config={"write_empty_chunks": True},
    )
    made[:] = values
    array = opened(folder)
    assert np.array_equal(array.rows(0, rows), values)


def test_other_codec_chains_are_refused(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.float32).reshape(20, 3)
    made = zarr.create_array(
        str(tmp_path / "a"), shape=values.shape, dtype="float32", chunks=(7, 2), compressors=GzipCodec()
    )
    made[:] = values
    for read in (lambda array: array.rows(3, 15), lambda array: array.take([19, 0]), lambda array: array.row_table(0)):
        with pytest.raises(StoreError, match=r"a/zarr\.json: .*\(bytes, gzip\) are not those that fwdata writes"):
            read(opened(tmp_path / "a"))


@pytest.mark.parametrize(("shape", "order"), [((4, 3, 2), (0, 2, 1)), ((4, 3, 2), (2, 1, 0)), ((4,), (0,))])
def test_other_orders_of_axes_are_refused(tmp_path: Path, shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    made = zarr.create_array(
        str(tmp_path / "a"), shape=shape, dtype="uint8", filters=TransposeCodec(order=order), compressors=ZstdCodec()
    )
    made[:] = np.arange(made.size, dtype="uint8").reshape(shape)
    with pytest.raises(StoreError, match=r"\(transpose, bytes, zstd\) are not those that fwdata writes"):
        opened(tmp_path / "a").rows(0, 4)


@pytest.mark.parametrize("encoding", [{"name": "v2", "separator": "."}, {"name": "default", "separator": "."}])
def test_other_chunk_names_are_refused(tmp_path: Path, encoding: Any) -> None:
    zarr.create_array(
        str(tmp_path / "a"),
        shape=(4, 2),
        dtype="int64",
        chunks=(2, 2),
        compressors=Crc32cCodec(),
        chunk_key_encoding=encoding,
    )
    with pytest.raises(StoreError, match="not those that fwdata writes"):
        opened(tmp_path / "a").rows(1, 4)


@QUICK
@given(arrays())
def test_bytes_do_not_depend_on_how_rows_are_appended(
    tmp_path: Path, case: tuple[ArraySpec, int, list[int], int]
) -> None:
    spec, rows, pieces, seed = case
    values = random_rows(spec, rows, seed)
    one, many = folder_for(tmp_path), tmp_path / f"{folder_for(tmp_path).name}m"
    write(one, spec, values)
    write(many, spec, values, pieces)
    names = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(many) for p in many.rglob("*") if p.is_file())
    assert all((one / n).read_bytes() == (many / n).read_bytes() for n in names)


@pytest.mark.parametrize("codec", ["crc32c", "zstd", "lines"])
@pytest.mark.parametrize("shard", [None, 8])
def test_every_flipped_bit_is_noticed(tmp_path: Path, codec: Any, shard: int | None) -> None:
    spec = ArraySpec("float16", (3, 2), 2, shard, codec)
    values = random_rows(spec, 20, 1)
    write(tmp_path / "a", spec, values)
    digest = file_sha256(tmp_path / "a" / "zarr.json")
    rng = np.random.default_rng(2)
    files = sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file())
    for file in files * (60 // len(files)):
        before = file.read_bytes()
        flip_bit(file, rng)
        array = ChunkedArray(LocalFiles(tmp_path), "a", digest)
        try:
            found = array.rows(0, 20)
        except StoreDamaged as error:
            assert "\n" not in str(error) and str(tmp_path) in str(error)
        else:  # an unused bit of a zstd header changes nothing that is read
            assert codec != "crc32c" and np.array_equal(found, values)
        file.write_bytes(before)
    assert np.array_equal(opened(tmp_path / "a").rows(0, 20), values)


def test_deleted_shards_chunks_and_arrays_are_errors(tmp_path: Path) -> None:
    values = random_rows(latent_array((2, 1, 1)), 300, 0)
    write(tmp_path / "sharded", latent_array((2, 1, 1)), values)
    (tmp_path / "sharded" / "c" / "1" / "0" / "0" / "0").unlink()
    array = opened(tmp_path / "sharded")
    assert np.array_equal(array.rows(0, 256), values[:256])
    with pytest.raises(StoreDamaged, match="is missing"):
        array.rows(0, 257)
    with pytest.raises(StoreDamaged, match="is missing"):
        array.take([299])

    write_table(tmp_path / "table", values)
    (tmp_path / "table" / "c" / "0" / "0" / "0" / "0").unlink()
    with pytest.raises(StoreDamaged, match="is missing"):
        opened(tmp_path / "table").rows(0, 1)

    gone = opened(tmp_path / "table")
    (tmp_path / "table" / "zarr.json").unlink()
    with pytest.raises(StoreDamaged, match=r"zarr\.json is missing"):
        len(gone)


def test_a_hole_inside_a_shard_is_an_error_not_a_fill_value(tmp_path: Path) -> None:
    spec = ArraySpec("float32", (2,), 1, 4, "crc32c")
    values = random_rows(spec, 4, 3)
    made = zarr.create_array(
        str(tmp_path / "a"),
        shape=(4, 2),
        dtype="float32",
        chunks=(1, 2),
        shards=(4, 2),
        compressors=Crc32cCodec(),
    )
    made[0], made[3] = values[0], values[3]  # rows 1 and 2 are never written
    array = opened(tmp_path / "a")
    assert np.array_equal(array.take([3, 0]), values[[3, 0]])
    with pytest.raises(StoreDamaged, match="chunk 1 is missing"):
        array.rows(0, 4)


def test_truncated_shard_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a", latent_array((4,)), random_rows(latent_array((4,)), 10, 0))
    shard = tmp_path / "a" / "c" / "0" / "0"
    for size in (0, 3, 2000):
        data = shard.read_bytes()
        shard.write_bytes(data[:size])
        with pytest.raises(StoreDamaged):
            opened(tmp_path / "a").take([5])
        shard.write_bytes(data)


def test_rows_outside_the_array_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "a", np.arange(5))
    array = opened(tmp_path / "a")
    for low, high in ((-1, 2), (0, 6), (3, 2)):
        with pytest.raises(IndexError, match="outside"):
            array.rows(low, high)
    for index in (-1, 5):
        with pytest.raises(IndexError, match="outside"):
            array.take([0, index])


def test_writer_refuses_other_rows(tmp_path: Path) -> None:
    writer = ArrayWriter(tmp_path / "a", frame_array(4, 6))
    with pytest.raises(ValueError, match="uint8 rows of shape"):
        writer.append(np.zeros((2, 4, 6, 3), np.float32))
    with pytest.raises(ValueError, match="uint8 rows of shape"):
        writer.append(np.zeros((2, 6, 4, 3), np.uint8))


def test_an_array_that_is_not_continued_writes_every_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    before = array_module.write_atomic

    def noted(path: Path, data: bytes) -> None:
        written.append(path.relative_to(tmp_path).as_posix())
        before(path, data)

    monkeypatch.setattr(array_module, "write_atomic", noted)
    spec = ArraySpec("float32", (2,), 2, 4, "crc32c")
    write(tmp_path / "a", spec, random_rows(spec, 10, 5))
    assert written == ["a/c/0/0", "a/c/1/0", "a/c/2/0", "a/zarr.json"]


def test_interrupted_writer_leaves_whole_shards_only(tmp_path: Path) -> None:
    spec = ArraySpec("float32", (2,), 2, 4, "crc32c")
    values = random_rows(spec, 10, 5)
    writer = ArrayWriter(tmp_path / "a", spec)
    writer.append(values[:9])  # two shards of 4 and one row that is only buffered; never finished
    assert sorted(p.parent.name for p in (tmp_path / "a" / "c").rglob("0") if p.is_file()) == ["0", "1"]
    again = ArrayWriter(tmp_path / "a", spec, max_done=10)
    assert again.rows == 8
    again.append(values[8:])
    again.finish()
    assert np.array_equal(opened(tmp_path / "a").rows(0, 10), values)
    write(tmp_path / "b", spec, values)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize("codec", ["crc32c", "zstd", "lines"])
def test_continuing_writer_keeps_no_damaged_shard(tmp_path: Path, codec: Codec) -> None:
    spec = ArraySpec("float32", (2,), 2, 4, codec)
    values = random_rows(spec, 12, 5)
    write(tmp_path / "a", spec, values)
    before = tree(tmp_path / "a")
    damage(tmp_path / "a" / "c" / "1" / "0")
    again = ArrayWriter(tmp_path / "a", spec, max_done=12)
    assert again.rows == 4
    again.append(values[4:])
    again.finish()
    assert tree(tmp_path / "a") == before


@pytest.mark.parametrize("codec", ["crc32c", "zstd", "lines"])
@pytest.mark.parametrize("sharded", [False, True])
def test_swapped_chunks_raise(tmp_path: Path, codec: Codec, sharded: bool) -> None:
    spec = ArraySpec("float32", (2,), 1 if sharded else 4, 4 if sharded else None, codec)
    values = random_rows(spec, 12, 5)
    write(tmp_path / "a", spec, values)
    one, two = (tmp_path / "a" / "c" / str(i) / "0" for i in (0, 2))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    for read in (lambda a: a.rows(0, 1), lambda a: a.take([9]), lambda a: a.rows(8, 12)):
        with pytest.raises(StoreDamaged, match="was written for another position"):
            read(opened(tmp_path / "a"))
    assert np.array_equal(opened(tmp_path / "a").rows(4, 8), values[4:8])


def test_arrays_written_before_seals_are_read(tmp_path: Path) -> None:
    spec = latent_array((4,))
    values = random_rows(spec, 5, 5)
    write(tmp_path / "a", spec, values)
    meta = json.loads((tmp_path / "a" / "zarr.json").read_text())
    meta["attributes"] = {}
    (tmp_path / "a" / "zarr.json").write_text(json.dumps(meta))
    assert np.array_equal(opened(tmp_path / "a").take([4, 0]), values[[4, 0]])


def test_writer_keeps_what_it_was_given(tmp_path: Path) -> None:
    writer = ArrayWriter(tmp_path / "a", ArraySpec("int64", (), 2, 8, "crc32c"))
    buffer = np.arange(3)
    writer.append(buffer)
    buffer[:] = -1  # a caller may use its buffer again
    writer.append(buffer)
    writer.finish()
    assert opened(tmp_path / "a").rows(0, 6).tolist() == [0, 1, 2, -1, -1, -1]


def test_documents_are_json_with_offsets(tmp_path: Path) -> None:
    documents = [{"b": 1, "a": "ä"}, {}, {"long": "x" * 1000}]
    write_documents(tmp_path / "d", documents)
    offsets = opened(tmp_path / "d" / "offset").rows(0, 4)
    data = bytes(opened(tmp_path / "d" / "data").rows(0, int(offsets[-1])))
    assert data[: offsets[1]] == '{"a": "ä", "b": 1}'.encode()
    assert offsets.tolist() == [0, 19, 21, len(data)]


def test_pickled_array_reads_again(tmp_path: Path) -> None:
    write_table(tmp_path / "a", np.arange(5))
    array = opened(tmp_path / "a")
    array.rows(0, 5)
    copy = pickle.loads(pickle.dumps(array))  # noqa: S301 - made here
    assert copy.rows(2, 4).tolist() == [2, 3]


def test_threads_share_few_descriptors_without_mixing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAX_HANDLES", 1)
    spec = ArraySpec("int64", (4,), 1, 8, "crc32c")
    values = [np.arange(32).reshape(8, 4) + 100 * i for i in range(4)]
    for i, rows in enumerate(values):
        write(tmp_path / f"a{i}", spec, rows)
    files = LocalFiles(tmp_path)
    shared = [ChunkedArray(files, f"a{i}") for i in range(4)]
    barrier = threading.Barrier(4)

    def read(which: int) -> bool:
        barrier.wait()
        steps = [((which + n) % 4, [n % 8]) for n in range(200)]
        return all(np.array_equal(shared[i].take(row), values[i][row]) for i, row in steps)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))
    assert len(files._handles) == 1
