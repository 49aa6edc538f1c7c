"""Windows read into buffers of the caller: equal to single reads, every row checked, safe after a fork."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures import toy_store
from latent_caches import SHAPE, random_latents

import fwdata
from fwdata.errors import StoreDamaged, StoreError
from fwdata.store import mounts as mounts_module
from fwdata.store import row_reader
from fwdata.store.caches.window_rows import WindowRows
from fwdata.store.row_reader import Verify

TASKS = {"push": [40, 7, 1], "pull": [33, 12]}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    store = toy_store(tmp_path, monkeypatch, TASKS)
    random_latents(store)
    return store


def buffers(count: int, future: int = 2) -> tuple[np.ndarray, np.ndarray]:
    return np.empty((count, *SHAPE), np.float16), np.empty((count, SHAPE[0], future, *SHAPE[1:]), np.float16)


def all_windows(store: fwdata.Store, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(i, s) for i, e in enumerate(store.episodes) for s in range(0, e.num_frames, stride)]
    order = np.random.default_rng(1).permutation(len(pairs))
    return np.array([pairs[i][0] for i in order]), np.array([pairs[i][1] for i in order])


def read_all(rows: WindowRows, episode: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, future = buffers(len(episode))
    rows.read(episode, start, first, future)
    return first, future


@pytest.mark.parametrize("verify", ["always", "first-read"])
def test_equals_single_reads(path: Path, verify: Verify) -> None:
    store = fwdata.open(path)
    cache, episodes = store.latents(), list(store.episodes)
    rows = cache.windows(episodes, verify=verify)
    episode, start = all_windows(store)
    for _ in range(2):
        first, future = read_all(rows, episode, start)
        for i, (number, frame) in enumerate(zip(episode, start, strict=True)):
            assert np.array_equal(first[i], cache.first(episodes[number], [frame])[0])
            assert np.array_equal(future[i], cache.future(episodes[number], [frame])[0])


def test_few_open_files_and_a_pickled_reader_give_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fwdata.open(path)
    episode, start = all_windows(store)
    whole = read_all(store.latents().windows(list(store.episodes)), episode, start)
    monkeypatch.setattr(row_reader, "OPEN_SHARDS", (1, 1))
    rows = store.latents().windows(list(store.episodes))
    for reader in (rows, pickle.loads(pickle.dumps(rows))):  # noqa: S301 - our own
        assert all(np.array_equal(a, b) for a, b in zip(read_all(reader, episode, start), whole, strict=True))
    assert len(rows._first._shards) == 1


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every `preadv`."""
    found: list[int] = []
    preadv = os.preadv

    def counted(*arguments: Any) -> int:
        found.append(preadv(*arguments))
        return found[-1]

    monkeypatch.setattr(os, "preadv", counted)
    return found


@pytest.mark.parametrize(("own_disk", "expected"), [(True, 2), (False, 4)])
@pytest.mark.parametrize("verify", ["always", "first-read"])
def test_rows_of_ones_own_disk_are_read_once_and_then_mapped(
    path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[int], verify: Verify, own_disk: bool, expected: int
) -> None:
    monkeypatch.setattr(row_reader, "on_own_disk", lambda path: own_disk)
    store = fwdata.open(path)
    episode, start = all_windows(store)
    rows = store.latents().windows(list(store.episodes), verify=verify)
    reads.clear()
    one, other = read_all(rows, episode, start), read_all(rows, episode, start)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert len(reads) == expected * len(episode)


def test_two_readers_take_half_of_the_descriptors_at_most(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(row_reader, "on_own_disk", lambda path: True)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 1024))
    store = fwdata.open(path)
    rows = store.latents().windows(list(store.episodes))
    read_all(rows, *all_windows(store))
    shard = next(iter(rows._first._shards.values()))
    assert shard.mapped is None  # nothing was read again
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert shard.map() is not None
    each = 1 + len(list(Path("/proc/self/fd").iterdir())) - before  # with that of the file itself
    assert 2 * row_reader.open_limit() * each <= 512


@pytest.mark.parametrize("own_disk", [True, False])
def test_a_bit_that_flips_after_the_first_read_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch, own_disk: bool
) -> None:
    monkeypatch.setattr(row_reader, "on_own_disk", lambda path: own_disk)
    store = fwdata.open(path)
    windows = all_windows(store)
    always, once = (store.latents().windows(list(store.episodes), verify=v) for v in ("always", "first-read"))
    read_all(always, *windows)
    read_all(once, *windows)
    file = next(f for f in path.glob("latents/*/p*/future/c/0/**/0") if f.is_file())
    with file.open("r+b") as opened:  # in place: the reader's mapping shows it
        byte = opened.read(101)[-1]
        opened.seek(100)
        opened.write(bytes([byte ^ 1]))
    read_all(once, *windows)
    with pytest.raises(StoreDamaged, match=r"future.*fwdata verify"):
        read_all(always, *windows)


@pytest.mark.parametrize("length", [0, 5000])
def test_a_file_that_is_cut_off_while_it_is_mapped_ends_no_process(
    path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(row_reader, "on_own_disk", lambda path: True)
    store = fwdata.open(path)
    windows = all_windows(store)
    rows = store.latents().windows(list(store.episodes))
    read_all(rows, *windows)
    file = next(f for f in path.glob("latents/*/p*/future/c/0/**/0") if f.is_file())
    os.truncate(file, length)
    with pytest.raises(StoreDamaged, match=r"future.*fwdata verify"):
        read_all(rows, *windows)


def test_own_disks_are_told_by_the_innermost_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        ("/", "ext4"), ("/data", "nfs4"), ("/data/fast\\040disk", "xfs"), ("/database", "fuse.sshfs"), ("/mnt", "ext4"),
        ("/mnt", "cifs"),
    )  # fmt: skip
    mounts = tmp_path / "mountinfo"
    mounts.write_text("".join(f"22 27 0:21 / {place} rw shared:1 - {kind} dev rw\n" for place, kind in lines))
    monkeypatch.setattr(mounts_module, "MOUNTS", mounts)
    for name in ("_mounts", "_on_own_disk"):
        monkeypatch.setattr(mounts_module, name, getattr(mounts_module, name).__wrapped__)
    for folder, expected in (
        ("/home", True), ("/data", False), ("/data/x", False), ("/data/fast disk/x", True), ("/database/x", False),
        ("/datab", True), ("/mnt/x", False),
    ):  # fmt: skip
        assert mounts_module.on_own_disk(Path(folder) / "file") == expected, folder
    mounts.unlink()
    assert not mounts_module.on_own_disk(Path("/home/file"))


def test_a_forked_process_reads_on(path: Path) -> None:
    store = fwdata.open(path)
    rows = store.latents().windows(list(store.episodes))
    episode, start = all_windows(store)
    whole = read_all(rows, episode, start)
    child = os.fork()
    if not child:
        again = read_all(rows, episode, start)
        os._exit(0 if all(np.array_equal(a, b) for a, b in zip(again, whole, strict=True)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("name", ["first", "future"])
def test_every_flipped_bit_is_noticed(path: Path, name: str) -> None:
    store = fwdata.open(path)
    episode, start = all_windows(store)
    files = sorted(f for f in path.glob(f"latents/*/p*/{name}/c/0/**/0") if f.is_file())
    size = int(np.prod(SHAPE)) * 2 * (1 if name == "first" else 2)
    random = np.random.default_rng(2)
    for _ in range(20):
        file = files[random.integers(len(files))]
        whole = file.read_bytes()
        data = bytearray(whole)
        row = random.integers((len(whole) - 4 - 16 * 256) // (size + 4))
        data[row * (size + 4) + random.integers(size)] ^= 1 << random.integers(8)  # in a row, not in its stored CRC
        file.write_bytes(bytes(data))
        with pytest.raises(StoreDamaged, match=f"{name}.*fwdata verify"):
            read_all(fwdata.open(path).latents().windows(list(store.episodes)), episode, start)
        file.write_bytes(whole)


def test_two_exchanged_shards_are_noticed(path: Path) -> None:
    store = fwdata.open(path)
    one, other = sorted(f for f in path.glob("latents/*/p*/first/c/0/**/0") if f.is_file())[:2]
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)
    with pytest.raises(StoreDamaged):
        read_all(store.latents().windows(list(store.episodes)), *all_windows(store))


def test_a_truncated_shard_is_noticed(path: Path) -> None:
    file = next(f for f in path.glob("latents/*/p*/future/c/0/**/0") if f.is_file())
    file.write_bytes(file.read_bytes()[:-100])
    store = fwdata.open(path)
    with pytest.raises(StoreDamaged):
        read_all(store.latents().windows(list(store.episodes)), *all_windows(store))


def test_wrong_requests_are_refused(path: Path, tmp_path: Path) -> None:
    random_latents(path, stride=4, name="coarse")
    store = fwdata.open(path)
    rows = store.latents("coarse").windows(list(store.episodes))
    first, future = buffers(1)
    zero = np.array([0])
    rows.read(zero, np.array([8]), first, future)
    rows.read(zero, np.array([9]), first)
    with pytest.raises(StoreError, match="no future latents at frame 9"):
        rows.read(zero, np.array([9]), first, future)
    length = store.episodes[0].num_frames
    for frame in (-1, length):
        with pytest.raises(IndexError, match=f"asked for {frame}"):
            rows.read(zero, np.array([frame]), first)
    for wrong in (
        first.astype(np.float32),
        np.empty((2, *SHAPE), np.float16),
        np.empty((1, *SHAPE[::-1]), np.float16).T,
    ):
        with pytest.raises(ValueError, match="C-contiguous float16 with 1 rows"):
            rows.read(zero, zero, wrong)


@pytest.mark.parametrize(
    ("episode", "start", "error"),
    [
        ([-1], [0], (IndexError, r"numbered 0\.\.\d+, asked for -1")),
        ([99], [0], (IndexError, r"numbered 0\.\.\d+, asked for 99")),
        ([0], [0, 1], (ValueError, r"of one length, found int64 \[1\] and int64 \[2\]")),
        ([0], [1.0], (ValueError, r"must be int64 \[n\] of one length, found int64 \[1\] and float64 \[1\]")),
        ([[0]], [[0]], (ValueError, "must be int64")),
    ],
)
def test_wrong_numbers_are_refused(
    path: Path, episode: list[Any], start: list[Any], error: tuple[type[Exception], str]
) -> None:
    """Negative numbers counted from the end, and gave windows of another episode."""
    store = fwdata.open(path)
    with pytest.raises(error[0], match=error[1]):
        store.latents().windows(list(store.episodes)).read(np.array(episode), np.array(start), buffers(1)[0])


def test_buffers_of_another_shape_are_not_called_damage(path: Path) -> None:
    store, zero = fwdata.open(path), np.array([0])
    rows = store.latents().windows(list(store.episodes))
    for wrong in (np.empty((1, *SHAPE[::-1]), np.float16), np.empty((1, *SHAPE[:2], SHAPE[2] + 1), np.float16)):
        with pytest.raises(ValueError, match=r"must have the shape .* of latents, found"):
            rows.read(zero, zero, wrong)
