"""Training windows from a store behind a URL: the same numbers, few requests, and a bounded folder of whole shards."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
from pathlib import Path

import numpy as np
import pytest
from commands import Command
from fault.stores import full_store
from s3_server import S3Server, wait_for

import fwdata
from fwdata.errors import StoreDamaged
from fwdata.store.copying import copy_store
from fwdata.store.opening import open_target
from fwdata.store.reader import Store
from fwdata.store.remote import RemoteFiles
from fwdata.store.remote_rows import ShardCopies
from fwdata.window_batches import RowsLike


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return full_store(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def url(local: Path, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FWDATA_CACHE", str(tmp_path / "scratch"))
    place = f"{s3.bucket()}/toy.zarr"
    copy_store(str(local), place)
    return place


READERS: dict[int, tuple[Store, RowsLike]] = {}


def windows(store: Store, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Every window that has future latents, in a random order, with one reader for every store."""
    cache, episodes = store.latents(), list(store.episodes)
    pairs = [(n, start) for n, episode in enumerate(episodes) for start in cache.starts(episode).tolist()]
    order = np.random.default_rng(seed).permutation(len(pairs))
    number, start = (np.asarray(column, np.int64)[order] for column in zip(*pairs, strict=True))
    first = np.empty((len(pairs), *cache.shape), np.float16)
    channels, height, width = cache.shape
    future = np.empty((len(pairs), channels, cache.window.latent_frames - 1, height, width), np.float16)
    _, rows = READERS.setdefault(id(store), (store, cache.windows(episodes)))
    rows.read(number, start, first, future)
    return first, future


def copies(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "scratch" / "shards").glob("[0-9a-f]*"))


def data_asked_for(s3: S3Server) -> list[str]:
    """Paths of the shards of latents that were asked for."""
    return [request.path for request in s3.seen if re.search("/(first|future)/c/", request.path)]


def touched(local: Path, s3: S3Server) -> int:
    """How many different shards that were."""
    keys = {path.partition("toy.zarr/")[2] for path in data_asked_for(s3)}
    return len({(local / key).read_bytes() for key in keys})


def same(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.slow
def test_windows_are_those_of_the_local_store_and_later_epochs_ask_for_nothing(
    local: Path, url: str, s3: S3Server, tmp_path: Path
) -> None:
    store, expected = fwdata.open(url), windows(fwdata.open(local))
    s3.seen.clear()
    assert same(windows(store), expected)
    wait_for(lambda: len(copies(tmp_path)) == touched(local, s3) > 5)
    s3.seen.clear()
    assert same(windows(store), expected) and not data_asked_for(s3)
    assert same(windows(fwdata.open(url)), expected)
    assert not data_asked_for(s3)


@pytest.mark.slow
def test_damaged_copies_are_fetched_again(local: Path, url: str, s3: S3Server, tmp_path: Path) -> None:
    store, expected = fwdata.open(url), windows(fwdata.open(local))
    s3.seen.clear()
    windows(store)
    wait_for(lambda: len(copies(tmp_path)) == touched(local, s3) > 5)
    count = touched(local, s3)
    for number, copy in enumerate(copies(tmp_path)):
        data = bytearray(copy.read_bytes())
        data[5] ^= 4
        copy.write_bytes(data if number % 2 else data[:40])
    again = fwdata.open(url)
    assert same(windows(again), expected)
    wait_for(lambda: len(copies(tmp_path)) == count)
    s3.seen.clear()
    assert same(windows(again), expected) and not data_asked_for(s3)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["0", "1kB", "8kB"])
def test_the_bound_holds_and_what_has_no_room_stays_remote(
    local: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    monkeypatch.setenv("FWDATA_CACHE_SIZE", size)
    store, expected = fwdata.open(url), windows(fwdata.open(local))
    for _ in range(3):
        assert same(windows(store), expected)
    assert sum(path.stat().st_size for path in copies(tmp_path)) <= {"0": 0, "1kB": 1000, "8kB": 8000}[size]


@pytest.mark.slow
def test_a_full_disk_leaves_shards_remote(
    local: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    store, expected = fwdata.open(url), windows(fwdata.open(local))
    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(2):
        assert same(windows(store), expected)
    assert copies(tmp_path) == []


def _add(folder: str, name: str) -> None:
    copies = ShardCopies(Path(folder), 10_000)
    for number in range(40):
        copies.add(Path(folder) / f"{name}{number}", bytes(1000))


@pytest.mark.slow
def test_two_processes_keep_the_bound_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_add, args=(str(tmp_path), name)) for name in "ab"]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [1000] * 10


@pytest.mark.slow
def test_rows_that_are_damaged_in_the_bucket_are_refused(url: str) -> None:
    files = open_target(url)
    assert isinstance(files, RemoteFiles)
    key = next(key for key in files.listing().keys if "/first/c/0" in key)
    data = bytearray(files.read(key) or b"")
    data[5] ^= 4
    files.write(key, bytes(data))
    with pytest.raises(StoreDamaged, match=r"s3://.*first/c/0/0/0/0, chunk 0: checksum does not hold"):
        windows(fwdata.open(url))
    files.write(key, bytes(data[: len(data) // 3]))
    with pytest.raises(StoreDamaged, match=r"s3://.*first/c/0/0/0/0"):
        windows(fwdata.open(url))
    files.delete([key])
    with pytest.raises(StoreDamaged, match=r"s3://.*first/c/0/0/0/0 is missing"):
        windows(fwdata.open(url))


def test_unused_copies_make_room_and_used_ones_do_not(tmp_path: Path) -> None:
    copies = ShardCopies(tmp_path, 250)
    for name in ("a", "b"):
        assert copies.add(tmp_path / name, bytes(100))
    assert not copies.has_room(100) and not copies.add(tmp_path / "c", bytes(100))
    os.utime(tmp_path / "a", (1, 1))
    assert copies.has_room(100) and copies.add(tmp_path / "c", bytes(100))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]


@pytest.mark.slow
def test_bench_storage_compares_with_the_bare_client(local: Path, url: str, run: Command) -> None:
    found = run("bench", "storage", url, "--rows", "8", "--json").json
    assert [row["units"] for row in found["rows"]][2:] == [8, 8]
    assert found["rows"][0]["bytes"] == found["rows"][1]["bytes"] > 0
    assert found["rows"][2]["bytes"] == found["rows"][3]["bytes"] > 0
    assert "of the client" in run("bench", "storage", url, "--rows", "8").out
    run("bench", "storage", local).refused(2, "is local; fwdata bench read measures that")
