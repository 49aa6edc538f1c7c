"""Writing a checkpoint from several processes through `torch.distributed.checkpoint`, each its own rows.

torch plans the save (who writes what, each row once) and tells every process of an error in any. The files are ours,
safetensors and JSON (`fwtrain.train.shards`) in place of torch's pickles: nothing in a checkpoint can run code.

Importing this module imports torch's distributed checkpoint, which takes seconds: only runs of several processes do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.distributed.tensor import DTensor, Shard
from torch.futures import Future

from fwtrain.train.parallel import Team
from fwtrain.train.shards import MODEL, ShardRows, shard_name
from fwtrain.train.tensors import DTYPES, TensorPart, write_tensors


class Snapshot:
    """Copies of tensors in host memory, made at once and kept for the next time.

    A process copies its share of rows, also of tensors that every process holds whole: host memory is the size of a
    checkpoint on all processes together. On a GPU the memory is pinned, so that copies run at the bus's speed.
    """

    def __init__(self, team: Team) -> None:
        self._team = team
        self._kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def take(self, parts: Sequence[TensorPart]) -> dict[str, Tensor]:
        """This process's rows of every tensor as DTensors on the processes' CPUs, valid until the next call. 0-d
        tensors are the first process's: it alone has rows of every parameter, and counts every step."""
        mesh, found = self._team.saving, {}
        assert mesh is not None
        for part in parts:
            if not part.shape and not self._team.first:
                continue
            whole = self._team.sharded or not part.shape
            rows = part.tensor if whole else part.tensor[self._team.share(part.shape[0])]
            copy = self._copy(part.name, rows.detach())
            strides = torch.empty(part.shape, device="meta").stride()
            found[part.name] = (
                DTensor.from_local(copy, mesh, [Shard(0)], run_check=False, shape=part.shape, stride=strides)
                if part.shape
                else copy
            )
        if self._team.device.type == "cuda":
            torch.cuda.current_stream(self._team.device).synchronize()
        return found

    def _copy(self, name: str, rows: Tensor) -> Tensor:
        kept = self._kept.get(name)
        if kept is None or kept.shape != rows.shape or kept.dtype != rows.dtype:
            kept = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=rows.device.type == "cuda")
            self._kept[name] = kept
        return kept.copy_(rows, non_blocking=True)


@dataclass(frozen=True)
class WrittenShard:
    """Where a row block went."""

    rows: ShardRows
    """The rows and their file."""
    digest: dict[str, int]
    """Size and CRC-32 of that whole file."""


@dataclass
class ShardWriter(StorageWriter):
    """Writes this process's rows to a folder that is there."""

    folder: Path
    """Temporary folder of the checkpoint."""
    rank: int
    """This process's number, part of its file's name."""
    publish: Callable[[dict[str, dict[str, int]], bytes], None]
    """Called in the first process when all have written: size and CRC-32 of every file, and the index."""
    check: Callable[[], None] = field(default=lambda: None)
    """Called before every tensor; what it raises ends the save in every process."""

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing is kept between saves."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """The folder is there."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """As torch made it."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """As torch made them."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """One file with all rows of this process, synced."""
        tensors = {item.index: cast(Tensor, planner.resolve_data(item)) for item in plan.items}
        parts = [TensorPart(index.fqn, tensor, tensor.shape) for index, tensor in tensors.items() if tensor.numel()]
        name = shard_name(self.rank)
        digest = write_tensors(self.folder / name, parts, Team(torch.device("cpu")), self.check)
        assert digest is not None
        results = []
        for index, tensor in tensors.items():
            start = index.offset[0] if index.offset else 0
            place = ShardRows(name, start, len(tensor) if tensor.ndim else 0)
            results.append(WriteResult(index, tensor.nbytes, WrittenShard(place, digest)))
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Called in the first process when all have written."""
        pieces: dict[str, list[ShardRows]] = {}
        digests: dict[str, dict[str, int]] = {}
        for result in (item for rank in results for item in rank):
            written: WrittenShard = result.storage_data
            digests[written.rows.file] = written.digest
            if result.size_in_bytes:
                pieces.setdefault(result.index.fqn, []).append(written.rows)
        tensors = {}
        for name, about in metadata.state_dict_metadata.items():
            assert isinstance(about, TensorStorageMetadata)
            held = sorted(pieces.get(name, []), key=lambda rows: rows.start)
            tensors[name] = {
                "dtype": DTYPES[about.properties.dtype],
                "shape": list(about.size),
                "pieces": [[rows.file, rows.start, rows.rows] for rows in held],
            }
        text = json.dumps({"version": 1, "tensors": tensors}, indent=None, separators=(",", ":"))
        self.publish(dict(sorted(digests.items())), f"{text}\n".encode())

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Folders are chosen by the run."""
        return False


class StepPlanner(DefaultSavePlanner):
    """torch's planner, which remembers the plans of this class: those of the next save of the same tensors need no
    exchange of 50,000 items."""


class WeightsPlanner(DefaultSavePlanner):
    """The same for weights alone, whose plans are others."""


def write_shards(state: dict[str, Tensor], writer: ShardWriter, team: Team) -> None:
    """Write what `Snapshot.take` gave, in every process; raises in all what went wrong in the first that failed."""
    assert team.saving is not None
    try:
        group = team.saving.get_group()
        kind = WeightsPlanner if all(name.startswith(MODEL) for name in state) else StepPlanner
        save(state, storage_writer=writer, planner=kind(enable_plan_caching=True), process_group=group)
    except CheckpointException as error:
        rank, (cause, _) = min(error.failures.items())
        cause.add_note(f"in process {rank}")
        raise cause from None
