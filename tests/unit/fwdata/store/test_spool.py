"""Buffers of an episode in flight, and blocks of arrays that are not copied on their way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fwdata.api import BadEpisode, RawCamera
from fwdata.store.array import ArrayWriter, ChunkedArray
from fwdata.store.files import LocalFiles
from fwdata.store.layout import ArraySpec, byte_array, frame_array
from fwdata.store.spool import PIECE_BYTES, FrameMemory, HeldBuffers
from fwdata.store.writer import _Spool, _spool

SIZES = (3, 0, PIECE_BYTES, 10, PIECE_BYTES - 10, 1, 5)


@pytest.mark.parametrize("memory", [10 * PIECE_BYTES, PIECE_BYTES + 5, 0])
def test_buffers_come_back_whole_from_memory_and_from_a_file(tmp_path: Path, memory: int) -> None:
    rng = np.random.default_rng(0)
    buffers = [rng.bytes(size) for size in SIZES]
    held = HeldBuffers(tmp_path, memory)
    for data in buffers:
        held.add(data)
    for _ in range(2):
        pieces = list(held.pieces())
        assert b"".join(pieces) == b"".join(buffers) and held.lengths == list(SIZES)
        assert [len(piece) for piece in pieces] == [PIECE_BYTES + 3, PIECE_BYTES, 6]
    held.close()
    assert not list(tmp_path.iterdir())


def test_no_buffers_give_no_pieces(tmp_path: Path) -> None:
    assert list(HeldBuffers(tmp_path, 10).pieces()) == []


def test_rows_that_can_change_after_they_are_appended_are_copied(tmp_path: Path) -> None:
    spec = ArraySpec("uint8", (2,), 4, 8, "crc32c")
    writer = ArrayWriter(tmp_path / "data", spec)
    rows = np.arange(6, dtype=np.uint8).reshape(3, 2)
    writer.append(rows)
    rows[:] = 99
    writer.finish()
    assert ChunkedArray(LocalFiles(tmp_path), "data").rows(0, 3).tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("spec", [byte_array(), byte_array("zstd"), ArraySpec("int64", (), 7, 14, "crc32c")])
def test_bytes_on_disk_do_not_depend_on_how_rows_are_handed_over(tmp_path: Path, spec: ArraySpec) -> None:
    rows = np.random.default_rng(1).integers(0, 100, 150).astype(spec.dtype)
    kept = np.frombuffer(rows.tobytes(), spec.dtype)
    assert not kept.flags.writeable
    for name, cuts in (("a", (rows,)), ("b", (kept[:20], kept[20:20], kept[20:])), ("c", np.array_split(rows[::1], 9))):
        writer = ArrayWriter(tmp_path / name / "data", spec)
        for cut in cuts:
            writer.append(cut)
        writer.finish()
    files = [
        {p.relative_to(tmp_path / n).as_posix(): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in "abc"
    ]
    assert files[0] == files[1] == files[2] and len(files[0]) > 1


def test_an_iterator_that_runs_past_its_frames_is_one_sentence(tmp_path: Path) -> None:
    recorded = np.zeros((3, 8, 8, 3), np.uint8)
    camera = RawCamera(lambda: (recorded[row][None] for row in range(4)), 8, 8)  # as a converter that trusts its rows
    with pytest.raises(BadEpisode, match=r"camera wrist: has no frame for some of the 4 rows .* \(index 3 is out of"):
        _spool("wrist", camera, 4, tmp_path)
    assert not list(tmp_path.iterdir())


def test_blocks_that_a_converter_fills_again_are_copied_and_its_own_read_only_ones_are_not(tmp_path: Path) -> None:
    recorded = np.random.default_rng(2).integers(0, 256, (6, 8, 8, 3), np.uint8)
    given: list[np.ndarray] = []

    def frames(kind: str) -> Iterator[np.ndarray]:
        buffer = np.empty((2, 8, 8, 3), np.uint8)
        for low in (0, 2, 4):
            block = recorded[low : low + 2].copy() if kind == "own" else buffer
            block[:] = recorded[low : low + 2]
            if kind == "view":
                block = block[:]
            if kind != "writable":
                block.flags.writeable = False
            given.append(block)
            yield block

    for kind in ("writable", "view", "own"):
        given.clear()
        spool = _spool("wrist", RawCamera(partial(frames, kind), 8, 8), 6, tmp_path)
        pieces = list(spool.held._kept)
        assert b"".join(pieces) == recorded.tobytes()
        shared = [np.shares_memory(np.frombuffer(a, np.uint8), b) for a, b in zip(pieces, given, strict=True)]
        assert shared == [kind == "own"] * 3
        spool.close()


class _Filled:
    """Frames that are written into memory of the store's, in blocks of some, as a converter does it, or wrongly."""

    def __init__(self, recorded: np.ndarray, kind: str = "right") -> None:
        self.recorded, self.kind = recorded, kind
        self.given: list[np.ndarray] = []

    def __call__(self) -> Iterator[np.ndarray]:
        yield from (self.recorded[low : low + 4] for low in range(0, len(self.recorded), 4))

    def into(self, memory: np.ndarray) -> Iterator[np.ndarray]:
        self.given.append(memory)
        for low, block in zip(range(0, len(self.recorded), 4), self(), strict=True):
            at = 0 if self.kind == "all at the first place" else low
            target = memory[at : at + 4] if at + len(block) <= len(memory) else np.empty_like(block)
            target = target[: len(block)]
            target[:] = block
            yield target[::-1] if self.kind == "turned" else target


def _stored(folder: Path, spools: Iterable[_Spool]) -> np.ndarray:
    """The frames of some episodes as an array holds them, each spool closed before the next one is filled."""
    writer = ArrayWriter(folder / "frames", frame_array(8, 8))
    for spool in spools:
        for data in spool.read():
            writer.append(np.frombuffer(data, np.uint8).reshape(-1, 8, 8, 3))
        spool.close()
    writer.finish()
    return ChunkedArray(LocalFiles(folder), "frames").rows(0, writer.rows)


def test_frames_of_episodes_that_share_their_memory_are_stored_as_recorded(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    episodes = [rng.integers(0, 256, (length, 8, 8, 3), np.uint8) for length in (21, 40, 7)]
    memory, cameras = FrameMemory(1 << 20), [_Filled(episode) for episode in episodes]
    spools = (_spool("wrist", RawCamera(c, 8, 8), len(c.recorded), tmp_path, memory=memory) for c in cameras)
    assert np.array_equal(_stored(tmp_path, spools), np.concatenate(episodes))
    assert np.shares_memory(cameras[1].given[0], cameras[2].given[0])


@pytest.mark.parametrize(("kind", "frame"), [("all at the first place", 4), ("turned", 0)])
def test_frames_that_do_not_lie_where_they_belong_are_refused(tmp_path: Path, kind: str, frame: int) -> None:
    camera = RawCamera(_Filled(np.ones((12, 8, 8, 3), np.uint8), kind), 8, 8)
    with pytest.raises(BadEpisode, match=f"camera wrist, frame {frame}: the converter did not write it where"):
        _spool("wrist", camera, 12, tmp_path, memory=FrameMemory(1 << 20))


@pytest.mark.parametrize(("rows", "message"), [(9, "more frames than the 9 rows"), (13, "holds 12 frames, state")])
def test_frames_in_memory_are_counted(tmp_path: Path, rows: int, message: str) -> None:
    camera = RawCamera(_Filled(np.zeros((12, 8, 8, 3), np.uint8)), 8, 8)
    with pytest.raises(BadEpisode, match=message):
        _spool("wrist", camera, rows, tmp_path, memory=FrameMemory(1 << 20))


def test_an_episode_that_is_larger_than_the_memory_is_held_without_it(tmp_path: Path) -> None:
    recorded = np.random.default_rng(4).integers(0, 256, (12, 8, 8, 3), np.uint8)
    frames = _Filled(recorded)
    spool = _spool("wrist", RawCamera(frames, 8, 8), 12, tmp_path, memory=FrameMemory(recorded.nbytes - 1))
    assert np.array_equal(_stored(tmp_path, [spool]), recorded) and not frames.given
