"""What exports share: the checkpoint, the target, and safetensors files copied under other names."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fwdata.errors import UsageError
from fwdata.io import sync
from fwtrain.infer.policy import check_deploy
from fwtrain.model import FastWAM, ModelConfig, save_model
from fwtrain.recipe import Recipe
from fwtrain.train.checkpoint import MODEL, Checkpoint
from fwtrain.train.folder import RunFolder, RunInfo
from fwtrain.train.weights import load_trained


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    out: Path
    """File or folder that was written."""
    run: Path
    """The run it was made from."""
    step: int
    """Step of the checkpoint."""
    notes: tuple[str, ...] = ()
    """Sentences on how the result differs from this toolkit's policy; empty: it does not."""


@dataclass(frozen=True)
class Trained:
    """A run with one of its checkpoints, every file of it verified."""

    path: Path
    """The run's folder."""
    recipe: Recipe
    """What it was trained with."""
    info: RunInfo
    """What it was made from."""
    checkpoint: Checkpoint
    """The checkpoint that was chosen."""

    @classmethod
    def open(cls, run: Path, which: str) -> Trained:
        """which: "last", "best" or the step of a checkpoint that is still there. Raises UsageError, CheckpointError."""
        folder = RunFolder(run)
        recipe, info = folder.recipe(), folder.info()
        checkpoint = folder.need_checkpoint(which)
        checkpoint.verify()
        check_deploy(recipe.deploy, info)
        trained = cls(run, recipe, info, checkpoint)
        if trained.partial:
            return trained
        names = {name for name, _ in FastWAM(info.model, seed=None, device="meta").named_parameters()}
        held = set(checkpoint.model_tensors())
        if held != names:
            odd = sorted(held ^ names)
            raise UsageError(
                f"{checkpoint.path} holds other tensors than its model ({odd[0]}, {len(odd)} differ); "
                "only checkpoints of whole weights can be exported"
            )
        return trained

    @property
    def partial(self) -> bool:
        """Whether the checkpoint holds only what was trained of the model."""
        return self.recipe.lora is not None or self.recipe.video_frozen

    @contextmanager
    def weights(self) -> Iterator[Path]:
        """A safetensors file of all weights: the checkpoint's, or one that is there until the block ends, where frozen
        parameters and adapters, or what several processes wrote, have to be joined."""
        if not self.partial and not self.checkpoint.sharded:
            yield self.checkpoint.path / MODEL
            return
        with tempfile.TemporaryDirectory(prefix=".export-", dir=self.path) as folder:
            save_model(load_trained(RunFolder(self.path), self.checkpoint), folder)
            yield Path(folder) / MODEL

    @property
    def config(self) -> ModelConfig:
        """Sizes of the model."""
        return self.info.model


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A temporary path beside `out` that takes its name when the block ends well. UsageError if `out` is there."""
    if out.exists():
        raise UsageError(f"{out} exists already; name a new one")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")) if temporary.is_dir() else [temporary]:
            sync(path)
        temporary.replace(out)
        sync(out.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
