"""Files written whole or not at all, and reading on systems without POSIX locks and positioned reads."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fixtures import robotwin_store
from paths import ROOT

from fwdata.io import naming, sync, whole_file, write_atomic, write_json, write_synced
from fwdata.manifest import Split
from fwdata.store.records import CountRecord

READ = """
import sys, os, json
if len(sys.argv) > 2:  # as on Windows
    sys.modules["fcntl"] = sys.modules["resource"] = None
    del os.pread, os.preadv
import fwdata
store = fwdata.open(sys.argv[1])
episode = store.episodes[0]
from fwdata.cli import app
import fwtrain.cli
for command in ("inspect", "verify"):
    app([command, sys.argv[1]], standalone_mode=False)
app(["preview", sys.argv[1], "--episodes", "1", "--out", sys.argv[1] + "-preview"], standalone_mode=False)
print(json.dumps([episode.state().tolist(), episode.stitched([0, 3]).tolist(), store.embodiments == frozenset()]))
"""


@dataclass(frozen=True)
class TaskWords:
    words: str


def test_a_json_file_is_written_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", {"b": 1, "a": [2]})
    assert (tmp_path / "deep" / "a.json").read_text() == '{\n "b": 1,\n "a": [\n  2\n ]\n}\n'
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.json"]


def test_records_inside_a_document_are_written_as_they_are_stored(tmp_path: Path) -> None:
    count = CountRecord(reason="empty", count=1, examples=("a",))
    write_json(tmp_path / "a.json", {"left": [count], "split": Split(), "trial": TaskWords("x"), "at": Path("b/c")})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {
        "left": [{"reason": "empty", "count": 1, "examples": ["a"]}],  # `asked` was not set
        "split": {"val": 0.0, "seed": 42},
        "trial": {"words": "x"},
        "at": "b/c",
    }
    with pytest.raises(TypeError, match=r"set \{1\} has no form in JSON"):
        write_json(tmp_path / "b.json", {"a": {1}})
    assert not (tmp_path / "b.json").exists()


def test_a_refused_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "f", b"old")

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "f", b"new")
    with pytest.raises(OSError, match="No space"):
        sync(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"f": b"old"}


def test_a_file_that_a_block_writes_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "film.npz"
    with pytest.raises(KeyError), whole_file(target, suffix=".npz") as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert list(target.parent.iterdir()) == []
    with whole_file(target, suffix=".npz") as temporary:
        assert temporary.suffix == ".npz" and temporary.parent == target.parent and not target.exists()
        temporary.write_bytes(b"whole")
    assert {p.name: p.read_bytes() for p in target.parent.iterdir()} == {"film.npz": b"whole"}


@pytest.mark.slow
def test_a_store_is_read_without_posix_locks_and_positioned_reads(tmp_path: Path) -> None:
    store = robotwin_store(tmp_path, episodes=1)
    read = [
        subprocess.run(
            [sys.executable, "-c", READ, str(store), *more], capture_output=True, check=True, cwd=ROOT
        ).stdout
        for more in ([], ["windows"])
    ]
    assert read[0] == read[1]
    assert len(json.loads(read[0].splitlines()[-1])[0]) > 0


@pytest.mark.slow
def test_writing_on_windows_is_one_sentence(tmp_path: Path) -> None:
    store = robotwin_store(tmp_path)
    blocked = "import sys\nfor name in ('fcntl', 'resource'): sys.modules[name] = None\n"
    program = f"{blocked}from fwdata.cli import main\nmain()"
    new = tmp_path / "new.zarr"
    for line in (
        ("view", store, "--set", "split.val=0.2"),
        ("convert", "robotwin", tmp_path / "rt", "--out", new, "--manifest", "robotwin-sample"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, line)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 2, done.stderr
        assert "error: writing stores needs Linux or macOS; reading works on this system" in done.stderr
        assert "Traceback" not in done.stderr and not new.exists()


@pytest.mark.parametrize("write", [write_atomic, write_synced])
def test_a_full_disk_names_the_file(write: Callable[[Path, bytes], None], tmp_path: Path) -> None:
    """The system names no file when a write fails, only when opening does."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="No space left") as caught:
        patch.setattr(os, "fsync", full_disk)
        write(tmp_path / "x", b"1")
    assert caught.value.filename == str(tmp_path / "x")


def full_disk(descriptor: int) -> None:
    """As `os.fsync` on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_only_an_error_of_room_that_names_nothing_is_given_a_name() -> None:
    for error, name in (
        (OSError(errno.EIO, "Input/output error"), None),
        (OSError(errno.ENOSPC, "No space left", "/other"), "/other"),
        (OSError(errno.EFBIG, "File too large"), "s3://b/x"),
    ):
        with pytest.raises(OSError, match=str(error.strerror)), naming("s3://b/x"):
            raise error
        assert error.filename == name
