"""The parameters of a run on disk: those that are trained, those that are not, and the model they make for prediction.

A run that trains every parameter keeps them all in each checkpoint. With freeze or lora the parameters that no step
changes are written once, into the run folder, and checkpoints hold the rest.
"""

from __future__ import annotations

from collections import ChainMap
from pathlib import Path
from typing import Any, cast

import torch

from fwtrain.errors import CheckpointError
from fwtrain.model import FastWAM
from fwtrain.model.saving import load_exactly
from fwtrain.train.build import DTYPES, prepare
from fwtrain.train.checkpoint import Checkpoint
from fwtrain.train.folder import FROZEN, RunFolder
from fwtrain.train.lora import merge_adapters
from fwtrain.train.parallel import Team, local
from fwtrain.train.shards import SavedTensors
from fwtrain.train.tensors import TensorPart, checkpoint_tensors, digest, write_tensors


def model_parts(model: FastWAM, *, trained: bool) -> list[TensorPart]:
    """The rows this process holds of all parameters that are (or are not) trained."""
    found = [(name, p) for name, p in model.named_parameters() if p.requires_grad == trained]
    return [TensorPart(name, local(parameter.detach()), parameter.shape) for name, parameter in found]


def write_frozen(path: Path, model: FastWAM, team: Team) -> dict[str, int]:
    """Write the parameters that are not trained, whole or not at all; returns size and CRC-32. All processes call."""
    temporary = path.with_name(f".{path.name}.tmp")
    written = write_tensors(temporary, model_parts(model, trained=False), team)
    if team.first:
        temporary.replace(path)
    found = team.on_first(lambda: written)
    assert found is not None
    return found


def check_file(path: Path, written: dict[str, int] | None) -> None:
    """CheckpointError when a file is not what was written."""
    found = digest(path) if path.is_file() else "none"
    if found != written:
        raise CheckpointError(f"{path} is damaged: {found}, written was {written}; restore it or use --fresh")


@torch.no_grad()
def load_parts(model: FastWAM, tensors: SavedTensors, team: Team, where: str, *, trained: bool) -> None:
    """Fill this process's rows of all parameters that are (or are not) trained from whole tensors.

    CheckpointError for names or shapes of another model.
    """
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad == trained}
    for name in sorted(wanted.keys() ^ tensors.keys()):
        verb = "lacks" if name in wanted else "has an unknown"
        raise CheckpointError(f"{where} is of another model: it {verb} tensor {name}")
    for name, parameter in wanted.items():
        shape = tensors.shape(name)
        if shape != parameter.shape:
            raise CheckpointError(
                f"{where} is of another model: {name} has shape {shape}, not {tuple(parameter.shape)}"
            )
        held = team.held(shape)
        local(parameter).copy_(tensors.rows(name, held.start, held.stop))


def load_trained(folder: RunFolder, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> FastWAM:
    """The model of one of a run's checkpoints, with frozen parameters and merged adapters, in the precision it trained
    in. Reads one tensor at a time.

    Raises CheckpointError for files that cannot be read, StoreDamaged for tensors that do not fit the run's model.
    """
    recipe, trained = folder.recipe(), checkpoint.model_tensors()
    model = FastWAM(folder.info().model, seed=None, device=device, dtype=DTYPES[recipe.precision])
    prepare(model, recipe)
    frozen = checkpoint_tensors(folder.path / FROZEN) if recipe.video_frozen or recipe.lora else {}
    load_exactly(model, ChainMap(cast(Any, trained), cast(Any, frozen)), str(checkpoint.path))
    if recipe.lora is not None:
        merge_adapters(model)
    return model.requires_grad_(True)
