"""Two commands on one store: the second is refused, a dead one's lock is gone, readers see whole episodes only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fault.stores import said_by
from fixtures import PLUGINS, run_convert, toy_manifest, toy_store, tree, write_toy

import fwdata
from fwdata.errors import StoreDamaged, StoreError

HELD = """
import os, signal, sys
from pathlib import Path

mark = Path(sys.argv[1])

def hold(descriptor):  # the first write of the command lasts until it is killed
    mark.touch()
    signal.pause()

os.fsync = hold
from fwdata.cli import main
sys.argv = ["fwdata", *sys.argv[2:]]
main()
"""


@contextmanager
def held(tmp_path: Path, *command: object) -> Iterator[int]:
    """A process that stops in the middle of a command, and is killed in the end; its id."""
    (tmp_path / "command.py").write_text(HELD)
    arguments = map(str, [tmp_path / "command.py", tmp_path / "held", *command])
    process = subprocess.Popen([sys.executable, *arguments])
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "held").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        assert (tmp_path / "held").exists(), process.poll()
        yield process.pid
    finally:
        process.kill()
        process.wait()


def fwdata_command(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fwdata", *map(str, command)], capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["convert", "encode-latents"])
def test_a_second_command_is_refused_until_the_first_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("FWDATA_PLUGINS", str(PLUGINS))
    store, raw = tmp_path / "toy.zarr", tmp_path / "raw"
    if command == "convert":
        argv: list[object] = ["convert", "toy", write_toy(raw, {"a": [3]}), "--out", store, "--workers", 0]
    else:
        argv = ["encode-latents", toy_store(tmp_path, monkeypatch, {"a": [3]}), "--vae", "tiny", "--workers", 1]
    with held(tmp_path, *argv) as pid:
        before = tree(store)
        second = fwdata_command(*argv)
        assert second.returncode == 2 and second.stdout == ""
        assert second.stderr.count("\n") == 1, second.stderr
        assert f"{store} is being written by process {pid} (" in second.stderr
        assert tree(store) == before
    third = fwdata_command(*argv)  # the first was killed: its lock is gone
    assert third.returncode == 0, third.stderr
    assert [e.num_frames for e in fwdata.open(store).episodes] == [3]


@pytest.mark.slow
def test_a_reader_sees_whole_episodes_only_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = toy_manifest(monkeypatch)
    monkeypatch.setattr("fwdata.pipeline.plan.PART_EPISODES", 1)
    raw = write_toy(tmp_path / "raw", {"a": [3, 5, 4]})
    run_convert(raw, tmp_path / "whole.zarr", manifest)
    wanted = {e.id: said_by(tmp_path / "whole.zarr", e.id) for e in fwdata.open(tmp_path / "whole.zarr").episodes}
    store, seen = tmp_path / "s.zarr", list[int]()
    (ready, tell), (wait, go) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:  # converts, and waits at every write until the reader has looked
        try:
            os.close(ready), os.close(go)
            os.fsync = lambda descriptor: (os.write(tell, b"."), os.read(wait, 1))  # type: ignore[assignment]
            run_convert(raw, store, manifest)
            os._exit(0)
        finally:
            os._exit(1)
    try:
        os.close(tell), os.close(wait)
        while os.read(ready, 1):
            ids = _ids(store)
            assert all(said_by(store, episode) == wanted[episode] for episode in ids)
            seen.append(len(ids))
            os.write(go, b".")
    finally:
        os.close(go)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert set(seen) >= {0, 1, 2} and seen == sorted(seen) and len(seen) > 20
    assert _ids(store) == list(wanted)


def _ids(store: Path) -> list[str]:
    try:
        return [episode.id for episode in fwdata.open(store).episodes]
    except StoreDamaged:
        raise
    except StoreError:
        return []  # not a store yet
