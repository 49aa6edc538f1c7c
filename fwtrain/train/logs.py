"""Where the numbers and images of a run go.

log.jsonl and pictures/ always, TensorBoard unless switched off, trackers (see `fwtrain.train.trackers`) where asked
for, progress on a terminal.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fwdata.console import Bar
from fwdata.io import write_atomic

LOG, PICTURES, TRACKERS = "log.jsonl", "pictures", "trackers.json"


@dataclass(frozen=True)
class Picture:
    """An image for people."""

    name: str
    """A plain file name without its ending."""
    caption: str
    """One line that says what it shows."""
    png: bytes
    """The image, encoded as PNG."""

    def pixels(self) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] RGB."""
        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(self.png)).convert("RGB"))


class Sink(Protocol):
    """Takes the numbers and images of one step. `kind` is "train" or "val"; images come from validation."""

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None: ...
    def pictures(self, step: int, pictures: Sequence[Picture]) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """log.jsonl and pictures/: one object per line, `{"kind", "step", ..numbers}`.

    An image is a file `pictures/step-00000320/NAME.png` and a line `{"kind": "picture", "step", "file", "caption"}`.
    A resumed run drops the lines and images after its first step.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        path = folder / LOG
        kept = [line for line in _lines(path) if _step(line) <= first_step]
        write_atomic(path, "".join(kept).encode())
        self._file = path.open("a", encoding="utf-8")
        self._folder = folder
        for old in (folder / PICTURES).glob("step-*"):
            if int(old.name.removeprefix("step-")) > first_step:
                shutil.rmtree(old)

    def write(self, kind: str, step: int, values: Mapping[str, object]) -> None:
        """Append one line; it reaches the file at once."""
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._file.flush()

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """Write the files, each whole or not at all, then their lines."""
        for image in pictures:
            path = self._folder / PICTURES / f"step-{step:08d}" / f"{image.name}.png"
            write_atomic(path, image.png)
            file = path.relative_to(self._folder).as_posix()
            self.write("picture", step, {"file": file, "caption": image.caption})

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


def read_images(folder: Path) -> list[tuple[int, Path, str]]:
    """(step, file, caption) of the images of a run, oldest first."""
    lines = [line for line in map(json.loads, _lines(folder / LOG)) if line["kind"] == "picture"]
    return [(line["step"], folder / line["file"], line["caption"]) for line in lines]


class TensorBoard:
    """TensorBoard events below `tensorboard/`. Importing the writer takes one to two seconds; nothing else needs it."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1, flush_secs=10)

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """One scalar per value, tagged `kind/name`."""
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """Add each image under the tag `val/name`."""
        for image in pictures:
            self._writer.add_image(f"val/{image.name}", image.pixels(), step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class Terminal:
    """Progress on stderr with the latest losses; see `fwdata.console.Bar`."""

    def __init__(self, first_step: int, total: int) -> None:
        self._bar = Bar("training", "steps")
        self._bar.start(total, first_step)

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Move the bar and show the losses."""
        if kind == "train":
            details = (
                f"loss {values['loss']:.4f}",
                f"{values['steps_per_s']:.1f} steps/s",
                f"data wait {values['data_wait']:.1%}",
                f"video {values['video']:.4f}",
                f"action {values['action']:.4f}",
                f"{values['samples_per_s']:.0f} samples/s",
            )
            self._bar.show(step, details)
        else:
            self._bar.note(f"step {step}: validation action error {values['action_mae']:.4g}")

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """A terminal shows none."""

    def close(self) -> None:
        """Stop the bar."""
        self._bar.stop()


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

    def pictures(self, step: int, pictures: Sequence[Picture]) -> None:
        """Pass the images to every sink."""
        for sink in self._sinks:
            sink.pictures(step, pictures)

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
