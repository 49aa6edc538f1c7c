"""`fwtrain` on the store in memory, as a program: for tests that need processes of their own.

Environment: FAKE_POISON=episode,frame makes that frame's latents NaN; FAKE_KILL=moment,folder ends the process with
SIGKILL at a moment of that checkpoint folder's save; FAKE_STOP=step,rank sends SIGTERM to one process in that step;
FAKE_HOLD=step goes no further than that step until the process is asked to stop;
FAKE_SLOW=seconds,folder is a disk that takes so long for every tensor of that checkpoint folder.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from fake_store import FakeStore

import fwdata
from fwdata import io
from fwtrain import cli
from fwtrain.train import checkpoint, tensors
from fwtrain.train.loop import Trainer

MOMENTS = ("file half written", "files written", "before rename", "before marker", "marker half written")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(moment: str, name: str) -> None:
    """Arrange the end of this process in the save of checkpoint folder `name`."""
    write_tensors, rename, write_json, write_synced = (
        checkpoint.write_tensors,
        Path.rename,
        checkpoint.write_json,
        checkpoint.write_synced,
    )

    def patched_tensors(path, parts, team):
        written = write_tensors(path, parts, team)
        if name in str(path) and moment == "file half written":
            os.truncate(path, written["bytes"] // 2)
            die()
        return written

    def patched_synced(path, data):
        if name in str(path) and moment == "files written":
            die()
        write_synced(path, data)

    write_bytes = Path.write_bytes

    def patched_bytes(self, data):
        if name in str(self) and moment == "marker half written" and self.name.startswith(".complete"):
            write_bytes(self, data[: len(data) // 2])
            die()
        return write_bytes(self, data)

    def patched_rename(self, target):
        if name in str(target) and moment == "before rename":
            die()
        return rename(self, target)

    def patched_json(path, data):
        if path.parent.name == name and moment == "before marker":
            die()
        write_json(path, data)

    write_block = tensors.write_block

    def patched_block(file, data):
        if name in file.name and moment == "tensor half written":
            file.write(data[: len(data) // 2])
            file.flush()
            die()
        write_block(file, data)

    tensors.write_block = patched_block
    checkpoint.write_tensors = patched_tensors
    checkpoint.write_synced = io.write_synced = patched_synced
    checkpoint.write_json, Path.rename, Path.write_bytes = patched_json, patched_rename, patched_bytes


def stop_in(step: int, rank: int) -> None:
    """Send this process SIGTERM in the middle of a step, if it has that rank."""
    train_step = Trainer._train_step

    def patched(self, loaded, stop):
        if self.step == step and self.team.rank == rank:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(self, loaded, stop)

    Trainer._train_step = patched


def hold_at(step: int) -> None:
    """After so many steps, wait to be asked to stop."""
    train_step = Trainer._train_step

    def patched(self, loaded, stop):
        if self.step < step:
            return train_step(self, loaded, stop)
        while not stop():
            time.sleep(0.05)
        return False

    Trainer._train_step = patched


def slow_disk(seconds: float, folder: str) -> None:
    """Every tensor of that checkpoint takes so long to write."""
    write = tensors.write_block

    def slow(file, data):
        if folder in file.name:
            time.sleep(seconds)
        write(file, data)

    tensors.write_block = slow


if __name__ == "__main__":
    store = FakeStore()
    if "FAKE_POISON" in os.environ:
        store.cache.poison = tuple(map(int, os.environ["FAKE_POISON"].split(",")))
    if "FAKE_KILL" in os.environ:
        kill_at(*os.environ["FAKE_KILL"].split(","))
    if "FAKE_SLOW" in os.environ:
        slow_disk(float(os.environ["FAKE_SLOW"].split(",")[0]), os.environ["FAKE_SLOW"].split(",")[1])
    if "FAKE_HOLD" in os.environ:
        hold_at(int(os.environ["FAKE_HOLD"]))
    if "FAKE_STOP" in os.environ:
        stop_in(*map(int, os.environ["FAKE_STOP"].split(",")))
    fwdata.open = lambda location: store
    cli.main()
