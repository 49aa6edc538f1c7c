"""Checkpoint files of several processes, each of which wrote its own rows (`fwtrain.train.shard_writer`).

    shard-00003.safetensors   the rows that process 3 wrote, under the tensors' whole names
    index.json                for every tensor its type, its whole shape, and which file holds which rows

Tensors are split by rows of the first axis and read back by rows, so that any number of processes continues them,
whether they split them or not.

Names are `model.<name>`, and what `Optimizer.parts` yields. A bf16 model's trained weights are its float32 masters
rounded: where these are saved the weights are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fwdata.encode.tensor_files import TensorFiles
from fwtrain.errors import CheckpointError
from fwtrain.train.tensors import DTYPES, checkpoint_tensors

INDEX = "index.json"
MODEL, MASTER = "model.", "master."
TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}


def shard_name(rank: int) -> str:
    """The file of a process."""
    return f"shard-{rank:05d}.safetensors"


@dataclass(frozen=True)
class ShardRows:
    """Rows of a tensor in one file."""

    file: str
    """Name beside the index."""
    start: int
    """First row, in the whole tensor."""
    rows: int
    """How many; 0 for a tensor without axes, which is whole."""


@dataclass(frozen=True)
class ShardedTensor:
    """A tensor that lies in one or several files."""

    dtype: torch.dtype
    """As it is stored."""
    shape: torch.Size
    """Of the whole."""
    pieces: tuple[ShardRows, ...]
    """In order of their rows."""


def read_index(folder: Path) -> dict[str, ShardedTensor]:
    """index.json of a checkpoint folder. CheckpointError when it is absent or not such a file."""
    path = folder / INDEX
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: ShardedTensor(
                TORCH_DTYPES[item["dtype"]], torch.Size(item["shape"]), tuple(ShardRows(*p) for p in item["pieces"])
            )
            for name, item in data["tensors"].items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint file {path} cannot be read: {type(error).__name__}: {error}") from None


class ShardedTensors(Mapping[str, Tensor]):
    """Tensors of a checkpoint in shards, as whole ones.

    names: the stored name of each; cast: a type to read some of them as.
    """

    def __init__(self, folder: Path, names: Mapping[str, str], cast: Mapping[str, torch.dtype] | None = None) -> None:
        self._folder, self._names, self._cast = folder, dict(names), dict(cast or {})
        self._index = read_index(folder)
        self._open: dict[str, TensorFiles] = {}

    @classmethod
    def of_model(cls, folder: Path) -> ShardedTensors:
        """The trained parameters under their own names, in the model's precision."""
        index = read_index(folder)
        names = {name.removeprefix(MODEL): name for name in index if name.startswith(MODEL)}
        masters = {name.removeprefix(MASTER): name for name in index if name.startswith(MASTER)}
        return cls(folder, {**names, **masters}, dict.fromkeys(masters, torch.bfloat16))

    @classmethod
    def of_optimizer(cls, folder: Path) -> ShardedTensors:
        """What `Optimizer.parts` yielded."""
        return cls(folder, {name: name for name in read_index(folder) if not name.startswith(MODEL)})

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the whole tensor, without reading it."""
        return self._index[self._names[name]].shape

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows start .. stop of a tensor's first axis; nothing else is read. Of a 0-d tensor, the tensor itself."""
        stored = self._names[name]
        found = self._index[stored]
        if not found.shape:
            return self._file(found.pieces[0])[stored]
        out = torch.empty((max(stop - start, 0), *found.shape[1:]), dtype=self._cast.get(name, found.dtype))
        for piece in found.pieces:
            low, high = max(start, piece.start), min(stop, piece.start + piece.rows)
            if low < high:
                rows = self._file(piece).rows(stored, low - piece.start, high - piece.start)
                out[low - start : high - start].copy_(rows)
        return out

    def _file(self, piece: ShardRows) -> TensorFiles:
        if piece.file not in self._open:
            self._open[piece.file] = checkpoint_tensors(self._folder / piece.file)
        return self._open[piece.file]

    def __getitem__(self, name: str) -> Tensor:
        return self.rows(name, 0, next(iter(self.shape(name)), 0))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


type SavedTensors = TensorFiles | ShardedTensors
"""Tensors of a checkpoint, on the CPU, read one at a time or in part, whoever wrote it."""
