"""Where the numbers of a run go: log.jsonl and TensorBoard (which can be switched off), progress on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from fwtrain.train.checkpoint import write_synced

LOG = "log.jsonl"


class Sink(Protocol):
    """Takes the numbers of one step. `kind` is "train" or "val"."""

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """log.jsonl: one object per line, `{"kind", "step", ..numbers}`.

    A resumed run drops the lines after its first step.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        path = folder / LOG
        kept = [line for line in _lines(path) if _step(line) <= first_step]
        temporary = path.with_suffix(".tmp")
        write_synced(temporary, "".join(kept))
        temporary.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Append one line; it reaches the file at once."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return sys.maxsize  # a line torn by a kill: dropped


def read_log(folder: Path, kind: str = "train") -> list[dict[str, float]]:
    """The lines of one kind, oldest first."""
    return [line for line in map(json.loads, _lines(folder / LOG)) if line["kind"] == kind]


class TensorBoard:
    """TensorBoard events below `tensorboard/`. Importing the writer takes one to two seconds; nothing else needs it."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1, flush_secs=10)

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """One scalar per value, tagged `kind/name`."""
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class Terminal:
    """Progress on stderr: a bar with the latest losses on a terminal, nothing when stderr is piped."""

    def __init__(self, first_step: int, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._progress = Progress(
            *columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not sys.stderr.isatty()
        )
        self._task = self._progress.add_task("", total=total, completed=first_step)
        self._progress.start()

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Move the bar and show the losses."""
        if kind == "train":
            text = (
                f"loss {values['loss']:.4f}  video {values['video']:.4f}  action {values['action']:.4f}  "
                f"{values['steps_per_s']:.1f} steps/s  {values['samples_per_s']:.0f} samples/s  "
                f"data wait {values['data_wait']:.1%}"
            )
            self._progress.update(self._task, completed=step, description=text)
        else:
            self._progress.console.print(f"step {step}: validation action error {values['action_mae']:.4g}")

    def close(self) -> None:
        """Stop the bar."""
        self._progress.stop()


class Sinks:
    """Several sinks as one. Use as a context manager."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def __enter__(self) -> Sinks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Pass the numbers to every sink."""
        for sink in self._sinks:
            sink.write(kind, step, values)

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()


class Clock:
    """Speed between two log lines: steps/s, samples/s and the share of time spent waiting for data."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._steps = self._samples = 0
        self._waited = 0.0

    def count(self, samples: int) -> None:
        """One optimizer step over `samples` windows is done."""
        self._steps += 1
        self._samples += samples

    def pause(self, seconds: float) -> None:
        """Leave out time spent on validation and saving."""
        self._began += seconds

    def lap(self, waited: float) -> dict[str, float]:
        """Numbers since the last lap; `waited`: seconds waited for data since the start of the run."""
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        numbers = {
            "steps_per_s": self._steps / elapsed,
            "samples_per_s": self._samples / elapsed,
            "data_wait": min((waited - self._waited) / elapsed, 1.0),
        }
        self._began, self._steps, self._samples, self._waited = time.perf_counter(), 0, 0, waited
        return numbers
