"""When a run's checkpoints are written: at once by one process, in the background by several.

Several processes copy what is to be saved into host memory and train on while a thread of each writes its rows; at
most one save is in flight, a second waits for the first. A save that fails ends the run at the next step. A run that is
asked to stop has until a deadline: torchrun kills processes 30 seconds after SIGTERM, Slurm by default too. What is not
complete by then is given up: its folder has no marker, and the checkpoint before it continues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from fwdata.errors import FwdataError
from fwtrain.ending import SAVING
from fwtrain.errors import CheckpointError
from fwtrain.train.checkpoint import (
    BEST,
    STEP,
    Content,
    begin,
    drop_other_best,
    drop_outdated,
    latest,
    publish,
    save_best,
    save_checkpoint,
)
from fwtrain.train.parallel import Team
from fwtrain.train.shards import INDEX, MASTER, MODEL
from fwtrain.train.tensors import TensorPart, digest

if TYPE_CHECKING:
    from fwtrain.train.shard_writer import Snapshot

STOP_SECONDS = 25.0
"""From a signal to the end of several processes' last save: torchrun kills after 30."""


class SaveExpiredError(Exception):
    """A save was given up because its deadline passed."""


@dataclass
class BackgroundSave:
    """A save in flight, or one that ended and was not waited for."""

    name: str
    """Folder of the checkpoint."""
    began: float
    """`time.monotonic()`."""
    thread: Thread | None = None
    """What writes it; None until it is started."""
    error: Exception | None = None
    """What ended it; None while it runs or when it is complete."""


class Saver:
    """Writes the checkpoints of one run in `folder`. Every process of `team` makes the same calls."""

    def __init__(self, folder: Path, team: Team, keep_last: int | None) -> None:
        self._folder, self._team, self._keep_last = folder, team, keep_last
        self._running: BackgroundSave | None = None
        self._snapshot: Snapshot | None = None
        self._deadline: float | None = None
        self.seconds: float | None = None
        """How long the last complete save took in the background; None before one."""
        self._background = team.saving is not None
        if self._background:
            import fwtrain.train.shard_writer  # noqa: F401 - its import takes seconds, which a last save has not

    @property
    def failed(self) -> bool:
        """Whether this process knows of a save that failed and has not raised it yet."""
        return self._running is not None and self._running.error is not None

    def save(self, step: int, content: Content) -> None:
        """Save a step; several processes return when it is copied. Raises what an earlier save failed with."""
        if not self._background:
            save_checkpoint(self._folder, step, content, self._team, self._keep_last)
            return
        masters = {part.name.removeprefix(MASTER) for part in content.optimizer if part.name.startswith(MASTER)}
        weights = [_prefixed(part) for part in content.model if part.name not in masters]
        state = {"step": step, **content.state}
        self._start(
            f"{STEP}-{step:08d}",
            [*weights, *content.optimizer],
            content.config,
            state,
            lambda: drop_outdated(self._folder, self._keep_last),
        )

    def save_best(self, step: int, score: float, content: Content) -> None:
        """Save the weights of a step as the best so far; as `save`."""
        if not self._background:
            save_best(self._folder, step, score, content, self._team)
            return
        state = {"step": step, **content.state, "score": score}
        weights = [_prefixed(part) for part in content.model]
        self._start(f"{BEST}-{step:08d}", weights, content.config, state, lambda: drop_other_best(self._folder, step))

    def wait(self, deadline: float | None = None) -> bool:
        """Wait for the save in flight. deadline: of `time.monotonic()`; False when it was given up there."""
        running = self._running
        if running is None or running.thread is None:
            return True
        self._deadline = deadline
        running.thread.join(None if deadline is None else max(deadline - time.monotonic(), 0) + 1)
        if running.thread.is_alive():  # waiting for its disk: left behind, the process ends without it
            return False
        self._running = None
        if running.error is None:
            return True
        if isinstance(running.error, SaveExpiredError):
            return False
        raise _explained(running)

    def stop(self, step: int, content: Callable[[], Content], deadline: float) -> int | None:
        """The last save of a run that was asked to stop; the step that the run continues from, None without one.

        A save in flight ends first. The step itself is saved when the time left is what a save took before.
        """
        if self._background:
            late = not self.wait(deadline) or deadline - time.monotonic() < (self.seconds or 0)
            if self._team.agree(late):
                return self._last()
        self.save(step, content())
        self.wait(deadline)
        return self._last()

    def _last(self) -> int | None:
        found = self._team.on_first(lambda: latest(self._folder))
        return found.step if found else None

    def _start(
        self, name: str, parts: list[TensorPart], config: str, state: Mapping[str, Any], after: Callable[[], None]
    ) -> None:
        from fwtrain.train.shard_writer import Snapshot, write_shards

        self.wait()
        temporary = begin(self._folder, name, self._team)
        if temporary is None:
            return
        self._team.everywhere(lambda: _check_shared(temporary))
        self._snapshot = self._snapshot or Snapshot(self._team)
        tensors = self._snapshot.take(parts)
        running = BackgroundSave(name, time.monotonic())
        writer = self._writer(temporary, name, config, state, after)

        def write() -> None:
            try:
                write_shards(tensors, writer, self._team)
                self.seconds = time.monotonic() - running.began
            except Exception as error:  # noqa: BLE001 - raised in the training thread by `wait`
                running.error = error

        running.thread = Thread(target=write, name=SAVING, daemon=True)
        self._running = running
        running.thread.start()

    def _writer(
        self, temporary: Path, name: str, config: str, state: Mapping[str, Any], after: Callable[[], None]
    ) -> Any:
        from fwdata.io import write_synced
        from fwtrain.train.shard_writer import ShardWriter

        def check() -> None:
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise SaveExpiredError(name)

        def finish(digests: dict[str, dict[str, int]], index: bytes) -> None:
            write_synced(temporary / INDEX, index)
            marker = {**digests, INDEX: digest(temporary / INDEX)}
            publish(temporary, self._folder / name, marker, config, state)
            after()

        return ShardWriter(temporary, self._team.rank, finish, check)


def _prefixed(part: TensorPart) -> TensorPart:
    return TensorPart(f"{MODEL}{part.name}", part.tensor, part.shape)


def _check_shared(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder.parent} is not the same folder in every process; several machines need --out on storage that "
            "all of them share"
        )


def _explained(save: BackgroundSave) -> Exception:
    """The error of a save that failed, as one sentence where it is the disk's."""
    error = save.error
    assert error is not None
    if isinstance(error, FwdataError) or not isinstance(error, OSError):
        return error
    where = " ".join(getattr(error, "__notes__", ()))
    return CheckpointError(f"checkpoint {save.name} could not be written{' ' if where else ''}{where}: {error}")
