"""Buffers of an episode in flight, and blocks of arrays that are not copied on their way."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fwdata.api import BadEpisode, RawCamera
from fwdata.store.array import ArrayWriter, ChunkedArray
from fwdata.store.files import LocalFiles
from fwdata.store.layout import ArraySpec, byte_array
from fwdata.store.spool import PIECE_BYTES, HeldBuffers
from fwdata.store.writer import _spool

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
