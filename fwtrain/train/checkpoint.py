"""Checkpoints: one folder per step, whole or absent.

    checkpoints/step-00000200/
      model.safetensors      parameters that are trained (all, without freeze or lora), official names
      config.json            the model's sizes; with all weights a folder that `fwtrain.model.load_model` reads
      optimizer.safetensors  AdamW moments (and float32 masters of a bf16 model)
      state.json             step, identity of data and model
      complete.json          size and CRC-32 of the other files; written last: without it the folder does not count
    checkpoints/best-00000150/   the same without optimizer: the step with the lowest validation score so far

Files are written to a temporary folder beside it and synced, the folder is renamed, the marker follows. There is no
random state to save: every draw of a run is a function of (seed, epoch, step), see `fwtrain.data.order.derived_seed`.

Several processes write `shard-*.safetensors` and `index.json` in place of the two files of tensors, each its own rows,
while training goes on: see `fwtrain.train.shards` and `fwtrain.train.saver`. Any number of processes continues either.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from fwdata.io import sync, write_json, write_synced
from fwtrain.errors import CheckpointError
from fwtrain.train.parallel import Team
from fwtrain.train.shards import INDEX, SavedTensors, ShardedTensors
from fwtrain.train.tensors import TensorPart, checkpoint_tensors, digest, write_tensors

MARKER = "complete.json"
MODEL, CONFIG, OPTIMIZER, STATE = "model.safetensors", "config.json", "optimizer.safetensors", "state.json"
STEP, BEST = "step", "best"
CHECKPOINTS = "checkpoints"
"""The folder of a run that holds its checkpoints."""


class TrainingState(TypedDict):
    """What a run needs besides tensors to go on, and what its weights are of."""

    total: int
    """Optimizer steps of the whole run."""
    identity: dict[str, str]
    """What the run was made from; see `RunInfo.identity`."""
    meter: list[float]
    """Sums of the log interval that is under way."""
    owes_validation: bool
    """Whether a validation that was due has not been run."""
    frozen: dict[str, int] | None
    """Size and CRC-32 of the file of frozen weights; None: nothing is frozen."""
    recipe: dict[str, object]
    """The recipe, for readers of a checkpoint alone; JSON of `Recipe`."""


class CheckpointState(TrainingState):
    """state.json of a checkpoint."""

    step: int
    """Optimizer steps done."""
    score: NotRequired[float]
    """Validation score at this step, lower is better; absent in checkpoints that are not the best."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint folder."""

    path: Path
    """The folder."""
    step: int
    """Optimizer steps done."""

    def state(self) -> CheckpointState:
        """state.json."""
        state: CheckpointState = json.loads((self.path / STATE).read_text(encoding="utf-8"))
        return state

    @property
    def score(self) -> float | None:
        """Validation score at this step, lower is better; None where it was not validated."""
        return self.state().get("score")

    @property
    def sharded(self) -> bool:
        """Whether several processes wrote it, each its own rows."""
        return (self.path / INDEX).is_file()

    def verify(self, part: int = 0, parts: int = 1) -> None:
        """Read every file once; CheckpointError when one is not what was written. part of parts: only every so many-th
        file, where several processes share the work."""
        files = sorted(json.loads((self.path / MARKER).read_text(encoding="utf-8")).items())
        for name, expected in files[part::parts]:
            found = digest(self.path / name)
            if found != expected:
                raise CheckpointError(
                    f"checkpoint file {self.path / name} is damaged: {found}, written was {expected}; "
                    "delete its folder to fall back to the checkpoint before it"
                )

    def model_tensors(self) -> SavedTensors:
        """Trained parameters by official name."""
        return ShardedTensors.of_model(self.path) if self.sharded else checkpoint_tensors(self.path / MODEL)

    def optimizer_tensors(self) -> SavedTensors:
        """What `Optimizer.parts` yielded."""
        return ShardedTensors.of_optimizer(self.path) if self.sharded else checkpoint_tensors(self.path / OPTIMIZER)


@dataclass(frozen=True)
class Content:
    """What a checkpoint is written from."""

    model: list[TensorPart]
    """Parameters that this process holds."""
    optimizer: list[TensorPart]
    """Optimizer state that this process holds."""
    config: str
    """JSON text of the model's sizes."""
    state: TrainingState
    """What `state.json` holds besides the step."""


def checkpoints(folder: Path, kind: str = STEP) -> list[Checkpoint]:
    """The complete checkpoints of a folder, oldest first. Folders without a marker that fits do not count."""
    found = []
    for path in folder.glob(f"{kind}-*"):
        number = path.name.removeprefix(f"{kind}-")
        if number.isdigit() and _complete(path):
            found.append(Checkpoint(path, int(number)))
    return sorted(found, key=lambda item: item.step)


def latest(folder: Path) -> Checkpoint | None:
    """The newest complete checkpoint."""
    found = checkpoints(folder)
    return found[-1] if found else None


def best(folder: Path) -> Checkpoint | None:
    """The step with the lowest validation score, weights only; None before the first validation."""
    found = checkpoints(folder, BEST)
    return found[-1] if found else None


def _complete(path: Path) -> bool:
    try:
        marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
        return all((path / name).stat().st_size == item["bytes"] for name, item in marker.items())
    except (OSError, ValueError):
        return False


def save_checkpoint(folder: Path, step: int, content: Content, team: Team, keep_last: int | None = None) -> None:
    """Write one checkpoint and drop those older than the newest `keep_last`. A step already there is left as it is.

    Every process of `team` has to call, and all return when the files are on disk.
    """
    files = {MODEL: content.model, OPTIMIZER: content.optimizer}
    _save(folder, f"{STEP}-{step:08d}", files, content.config, {"step": step, **content.state}, team)
    team.on_first(lambda: drop_outdated(folder, keep_last))


def drop_outdated(folder: Path, keep_last: int | None) -> None:
    """Remove the checkpoints that are older than the newest `keep_last`."""
    _drop(_outdated(folder, keep_last))


def save_best(folder: Path, step: int, score: float, content: Content, team: Team) -> None:
    """Write the weights of one step as the best so far and drop the best before it."""
    state = {"step": step, **content.state, "score": score}
    _save(folder, f"{BEST}-{step:08d}", {MODEL: content.model}, content.config, state, team)
    team.on_first(lambda: drop_other_best(folder, step))


def drop_other_best(folder: Path, step: int) -> None:
    """Remove the weights that were the best before those of `step`."""
    _drop(item for item in checkpoints(folder, BEST) if item.step != step)


def tidy(folder: Path, keep_last: int | None) -> None:
    """Remove what a killed save or removal left behind. Before a run continues; nothing else may write the folder."""
    for kind in (STEP, BEST):
        unmarked = (path for path in folder.glob(f"{kind}-*") if not (path / MARKER).exists())
        for path in [*folder.glob(f".{kind}-*.tmp-*"), *unmarked]:
            shutil.rmtree(path)
    _drop([*_outdated(folder, keep_last), *checkpoints(folder, BEST)[:-1]])


def _outdated(folder: Path, keep_last: int | None) -> list[Checkpoint]:
    return checkpoints(folder)[: -keep_last if keep_last is not None else 0]


def _save(
    folder: Path, name: str, files: Mapping[str, list[TensorPart]], config: str, state: Mapping[str, object], team: Team
) -> None:
    temporary = begin(folder, name, team)
    if temporary is None:
        return
    marker = {file: write_tensors(temporary / file, parts, team) for file, parts in files.items()}
    if team.first:
        publish(temporary, folder / name, marker, config, state)


def begin(folder: Path, name: str, team: Team) -> Path | None:
    """Make the temporary folder of a checkpoint; None where it is complete already. Every process has to call."""

    def make() -> Path | None:
        if _complete(folder / name):
            return None
        temporary = folder / f".{name}.tmp-{os.getpid()}"
        folder.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        return temporary

    return team.on_first(make)


def publish(
    temporary: Path, path: Path, marker: Mapping[str, object], config: str, state: Mapping[str, object]
) -> None:
    """Give a written folder its name and then its marker: from then on it counts. marker: the digests of its tensors'
    files."""
    write_synced(temporary / CONFIG, f"{config}\n".encode())
    write_synced(temporary / STATE, f"{json.dumps(state, indent=1)}\n".encode())
    digests = {**marker, **{file: digest(temporary / file) for file in (CONFIG, STATE)}}
    shutil.rmtree(path, ignore_errors=True)  # the remains of a save that was killed
    temporary.rename(path)
    write_json(path / MARKER, digests)
    sync(path)
    sync(path.parent)


def _drop(old: Iterable[Checkpoint]) -> None:
    for item in old:
        (item.path / MARKER).unlink()  # from here on it does not count, even if the rest survives
        shutil.rmtree(item.path, ignore_errors=True)
