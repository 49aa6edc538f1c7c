"""Checkpoints: one folder per step, whole or absent.

    checkpoints/step-00000200/
      model.safetensors      parameters, official names
      config.json            the model's sizes; with the weights a folder that `fwtrain.model.load_model` reads
      optimizer.safetensors  AdamW moments (and float32 masters of a bf16 model)
      state.json             step, identity of data and model
      complete.json          size and CRC-32 of the other files; written last: without it the folder does not count

Files are written to a temporary folder beside it and synced, the folder is renamed, the marker follows. There is no
random
state to save: every draw of a run is a function of (seed, epoch, step), see `fwtrain.data.order.derived_seed`.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fwtrain.errors import CheckpointError
from fwtrain.model import FastWAM, save_model

MARKER = "complete.json"
MODEL, CONFIG, OPTIMIZER, STATE = "model.safetensors", "config.json", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint folder. step: optimizer steps done."""

    path: Path
    step: int

    def state(self) -> dict[str, Any]:
        """state.json."""
        state: dict[str, Any] = json.loads((self.path / STATE).read_text(encoding="utf-8"))
        return state

    def verify(self) -> None:
        """Read every file once; CheckpointError when one is not what was written."""
        for name, expected in json.loads((self.path / MARKER).read_text(encoding="utf-8")).items():
            found = _digest(self.path / name)
            if found != expected:
                raise CheckpointError(
                    f"checkpoint file {self.path / name} is damaged: {found}, written was {expected}; "
                    "delete its folder to fall back to the checkpoint before it"
                )

    def model_tensors(self) -> dict[str, torch.Tensor]:
        """Parameters by official name, on the CPU."""
        return _load(self.path / MODEL)

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """What `Optimizer.tensors` yielded, on the CPU."""
        return _load(self.path / OPTIMIZER)


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint file {path} cannot be read: {error}") from None


def checkpoints(folder: Path) -> list[Checkpoint]:
    """The complete checkpoints of a folder, oldest first. Folders without a marker that fits do not count."""
    found = []
    for path in folder.glob("step-*"):
        number = path.name.removeprefix("step-")
        if number.isdigit() and _complete(path):
            found.append(Checkpoint(path, int(number)))
    return sorted(found, key=lambda item: item.step)


def latest(folder: Path) -> Checkpoint | None:
    """The newest complete checkpoint."""
    found = checkpoints(folder)
    return found[-1] if found else None


def _complete(path: Path) -> bool:
    try:
        marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
        return all((path / name).stat().st_size == item["bytes"] for name, item in marker.items())
    except (OSError, ValueError):
        return False


def save_checkpoint(
    folder: Path,
    step: int,
    model: FastWAM,
    optimizer: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
    keep_last: int | None = None,
) -> Checkpoint:
    """Write one checkpoint and drop those older than the newest `keep_last`. A step already there is left as it is."""
    path = folder / f"step-{step:08d}"
    if not _complete(path):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{path.name}.tmp-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save_model(model, temporary)
        save_file(_plain(optimizer), temporary / OPTIMIZER)
        write_json(temporary / STATE, {"step": step, **state})
        marker = {}
        for name in (MODEL, CONFIG, OPTIMIZER, STATE):
            _sync(temporary / name)
            marker[name] = _digest(temporary / name)
        shutil.rmtree(path, ignore_errors=True)  # the remains of a save that was killed
        temporary.rename(path)
        write_json(path / MARKER, marker)
        _sync(path)
        _sync(folder)
    _clean(folder, keep_last)
    return Checkpoint(path, step)


def _clean(folder: Path, keep_last: int | None) -> None:
    for path in folder.glob(".step-*.tmp-*"):
        shutil.rmtree(path, ignore_errors=True)
    if keep_last is not None:
        for old in checkpoints(folder)[:-keep_last]:
            (old.path / MARKER).unlink()  # from here on it does not count, even if the rest survives
            shutil.rmtree(old.path, ignore_errors=True)


def _plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON under a temporary name, sync, rename."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    write_synced(temporary, json.dumps(data, indent=1) + "\n")
    temporary.replace(path)


def write_synced(path: Path, text: str) -> None:
    """Write text and sync it to disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> dict[str, int]:
    crc, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return {"bytes": size, "crc32": crc}
