"""A run's weights as a folder of two files: `config.json` and `model.safetensors`, which `fwtrain.load_model` reads."""

from __future__ import annotations

from pathlib import Path

from fwtrain.export.files import Exported, Trained, whole
from fwtrain.model import save_model
from fwtrain.train.folder import RunFolder
from fwtrain.train.weights import load_trained


def export_model(run: Path, out: Path, which: str = "last") -> Exported:
    """Write the folder `out`: one file of all weights, whatever number of processes wrote the checkpoint, with frozen
    parameters and adapters merged. Weights keep their type. Holds the model in memory.

    Raises UsageError for a target that exists, CheckpointError for a checkpoint that is not there or damaged.
    """
    trained = Trained.open(run, which)
    with whole(out) as temporary:
        save_model(load_trained(RunFolder(run), trained.checkpoint), temporary)
    return Exported(out, run, trained.checkpoint.step)
