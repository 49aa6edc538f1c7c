"""Several writers of one unit at once: the first commit wins, the second compares, and nobody loses a byte silently."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from fwdata.errors import StoreBusy, StoreDamaged, StoreError
from fwdata.io import among_writers, write_atomic
from fwdata.store.array import ArrayWriter
from fwdata.store.attempts import UnitAttempt, find_attempts, whole_digests
from fwdata.store.files import LocalFiles, write_lock
from fwdata.store.layout import ArraySpec
from fwdata.store.leases import STALE, hold_lease, live_leases, seen_leases
from fwdata.store.metadata import COMPLETE, read_complete, write_record
from fwdata.store.records import StitchedRecord

SPEC = ArraySpec("uint8", (2,), 1, 4, "crc32c")


class Writer:
    """Another machine's attempt at the unit p00003, in steps."""

    def __init__(self, store: Path, fill: int = 7, source: str = "part") -> None:
        self.source, self.fill = source, fill
        with among_writers():
            self.attempt = UnitAttempt.begin(store / "parts/p00003", store / "parts", {"source": source})
        self.array = ArrayWriter(self.attempt.folder / "first", SPEC)

    def write(self, rows: int = 3) -> None:
        self.array.append(np.full((rows, 2), self.fill, np.uint8))

    def end(self) -> bool:
        self.array.finish()
        digests = whole_digests(self.attempt.folder)
        record = StitchedRecord(state=COMPLETE, digests=digests, source=self.source, stitch_hash="")
        write_record(self.attempt.folder, record)
        return self.attempt.commit()


def names(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "parts").iterdir())


def test_the_first_of_two_attempts_wins_and_the_second_is_dropped(tmp_path: Path) -> None:
    first, second = Writer(tmp_path), Writer(tmp_path)
    for writer in (first, second, first, second):
        writer.write()
    assert {found.final for found in find_attempts(tmp_path)} == {tmp_path / "parts/p00003"}
    assert second.end() is True
    assert first.end() is False
    assert names(tmp_path) == ["p00003"]
    assert read_complete(LocalFiles(tmp_path), "parts/p00003", StitchedRecord) is not None


def test_an_attempt_that_made_other_bytes_is_an_error_and_the_first_stays(tmp_path: Path) -> None:
    first, second = Writer(tmp_path), Writer(tmp_path, fill=8)
    first.write()
    second.write()
    assert first.end()
    kept = (tmp_path / "parts/p00003/first/c/0/0").read_bytes()
    with pytest.raises(StoreDamaged, match=r"different bytes for .*p00003: first/c/0/0, and 1 more files") as caught:
        second.end()
    assert str(second.attempt.folder) in str(caught.value)
    assert (tmp_path / "parts/p00003/first/c/0/0").read_bytes() == kept


def test_an_attempt_whose_folder_was_removed_meanwhile_does_not_commit_what_is_left(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(4)  # a shard is on disk
    shutil.rmtree(writer.attempt.folder)
    writer.write(2)
    with pytest.raises(StoreDamaged, match="first/c/0/0 is gone although it was written"):
        writer.end()
    assert not (tmp_path / "parts/p00003").exists()


def test_a_second_attempt_leaves_the_files_of_the_first_alone(tmp_path: Path) -> None:
    first = Writer(tmp_path)
    first.write(4)
    Writer(tmp_path).write(4)
    first.write(2)
    assert first.end()
    record = read_complete(LocalFiles(tmp_path), "parts/p00003", StitchedRecord)
    assert record is not None and {"first/c/0/0", "first/c/1/0"} <= record.digests.keys()


def test_what_is_out_of_date_is_replaced_by_one_process_and_refused_by_many(tmp_path: Path) -> None:
    old = Writer(tmp_path, source="before")
    assert old.end()
    with pytest.raises(StoreError, match="out of date or was never finished"):
        Writer(tmp_path, source="now")
    attempt = UnitAttempt.begin(tmp_path / "parts/p00003", tmp_path / "parts", {"source": "now"})
    assert not (tmp_path / "parts/p00003").exists() and attempt.folder.is_dir()


def test_one_process_continues_what_an_earlier_version_left_in_place(tmp_path: Path) -> None:
    write_atomic(tmp_path / "parts/p00003/first/c/0/0", b"rows")
    attempt = UnitAttempt.begin(tmp_path / "parts/p00003", tmp_path / "parts", {}, resume=True)
    assert (attempt.folder / "first/c/0/0").read_bytes() == b"rows"
    assert UnitAttempt.begin(tmp_path / "parts/p00003", tmp_path / "parts", {}, resume=True) == attempt
    assert list(UnitAttempt.begin(tmp_path / "parts/p00003", tmp_path / "parts", {}).folder.iterdir()) == []


def test_writers_of_one_file_have_temporary_names_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.extend(p.name for p in tmp_path.iterdir()))
    write_atomic(tmp_path / "f", b"1")
    with among_writers() as token:
        write_atomic(tmp_path / "f", b"2")
    assert seen == [".f.tmp", "f", f".f.{token}.tmp"] or seen == [".f.tmp", f".f.{token}.tmp", "f"]
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_lease_keeps_others_out_while_its_holder_lives(tmp_path: Path) -> None:
    with hold_lease(tmp_path, "stitch", "p00003", "1a2b3c4d") as lease:
        assert live_leases(tmp_path) == [lease] and lease.pid == os.getpid()
        with pytest.raises(StoreBusy, match=rf"process {os.getpid()} on .* \(stitch, p00003\)"), write_lock(tmp_path):
            pass
        path = lease.path(tmp_path)
        os.utime(path, (0, path.stat().st_mtime - STALE - 1))
        assert live_leases(tmp_path) == [] and len(seen_leases(tmp_path)) == 1
    assert seen_leases(tmp_path) == []
    with write_lock(tmp_path):
        pass


@pytest.mark.parametrize("reaped", [True, False])
def test_a_dead_process_is_noticed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reaped: bool) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    if reaped:
        os.waitpid(child, 0)
    else:  # ended, and still in the table of processes
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    monkeypatch.setattr("fwdata.store.leases.os.getpid", lambda: child)
    with hold_lease(tmp_path, "stitch", "p00003", "1a2b3c4d"):
        assert live_leases(tmp_path) == []
        monkeypatch.setattr(socket, "gethostname", lambda: "another")
        assert len(live_leases(tmp_path)) == 1  # of another machine: until it is stale
    if not reaped:
        os.waitpid(child, 0)
