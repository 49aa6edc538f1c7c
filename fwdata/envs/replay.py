"""What a source offers so that its recordings can be replayed in their simulator.

`converters/_<source>_replay.py` has a class `Replayer`; everything else (workers, resume, reports) is done here for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fwdata.api import Skipped


@dataclass(frozen=True)
class ReplayTask:
    """One file of recordings of one task. Picklable; sent to worker processes."""

    source: str
    """Its path relative to the root's folder, POSIX."""
    name: str
    """The task, as its benchmark calls it."""
    key: str
    """What the metainfo calls it."""
    file: str
    """Name of the regenerated file."""
    demos: tuple[str, ...]
    """Recordings, in their order."""
    recorded: int
    """Steps of all recordings."""
    rows: int
    """Steps that will be kept."""
    num_bytes: int
    """Size of the source file in bytes."""


@dataclass(frozen=True)
class Replayed:
    """Result of one replay."""

    demo: str
    """Name of the recording."""
    reason: str | None
    """Why nothing was written; None after a success."""
    damaged: bool
    """Whether the recording itself cannot be used."""
    recorded: int
    """Steps as recorded."""
    rows: int
    """Steps that were kept."""
    initial_state: tuple[float, ...]
    """The simulator state it began with."""

    @property
    def success(self) -> bool:
        """Whether it was written."""
        return self.reason is None


class Session(Protocol):
    """One task in the simulator."""

    def replay(self, demo: str, path: Path) -> Replayed:
        """Replay one recording and write it to `path` when it solves the task; `path` is absent otherwise."""
        ...

    def random_state(self) -> list[Any]:
        """What the next replay's scene is drawn from, as JSON."""
        ...

    def restore_random_state(self, state: list[Any]) -> None:
        """Continue where a session with this state stopped."""
        ...

    def close(self) -> None:
        """Free the simulator."""
        ...


class Replayer(Protocol):
    """One source whose recordings can be replayed."""

    def find(
        self, raw: Path, suite: str, tasks: Sequence[str] | None, max_demos: int | None
    ) -> tuple[tuple[ReplayTask, ...], tuple[Skipped, ...]]:
        """The suite's files below `raw`, and those that cannot be read. UsageError when there are none."""
        ...

    def prepare(self, suite: str, tasks: Sequence[ReplayTask]) -> dict[str, str]:
        """Versions of the simulator, once it is sure that it can run these tasks here.

        UsageError, saying what to install, when it is absent; FwdataError when it cannot render.
        """
        ...

    def open(self, raw: Path, suite: str, task: ReplayTask, resolution: int) -> Session:
        """Start the simulator with one task."""
        ...

    def assemble(self, demos: Sequence[tuple[str, Path]], path: Path) -> None:
        """Write one file of the recordings that were kept, each from the file that `Session.replay` wrote."""
        ...
