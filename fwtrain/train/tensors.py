"""safetensors files written one tensor at a time: a checkpoint never has to fit in memory beside the model.

Format: u64 length of a JSON header, the header {name: {dtype, shape, data_offsets}}, the data.
Source: the safetensors format description (huggingface/safetensors, README).
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fwtrain.errors import CheckpointError
from fwtrain.train.parallel import Team

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint8: "U8", torch.int64: "I64"}


@dataclass(frozen=True)
class TensorPart:
    """A tensor to write."""

    name: str
    """Its key in the file."""
    tensor: Tensor
    """The rows this process holds."""
    shape: torch.Size
    """Shape of the whole."""


def write_tensors(path: Path, parts: Sequence[TensorPart], team: Team) -> dict[str, int] | None:
    """Write whole tensors gathered from the processes of `team`, in order, and sync the file.

    Every process has to call; the first one writes and gets the size and CRC-32 of the file, the others None. Holds one
    whole tensor at a time.
    """
    if not team.first:
        if team.sharded:
            for part in parts:
                team.whole(part.tensor, part.shape)
        return None
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for part in parts:
        size = part.shape.numel() * part.tensor.element_size()
        header[part.name] = {
            "dtype": DTYPES[part.tensor.dtype],
            "shape": list(part.shape),
            "data_offsets": [end, end + size],
        }
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        start = len(text).to_bytes(8, "little") + text
        file.write(start)
        crc, size = zlib.crc32(start), len(start)
        for part in parts:
            whole = team.whole(part.tensor.detach(), part.shape).cpu().contiguous()
            data = whole.reshape(-1).view(torch.uint8).numpy().data
            file.write(data)
            crc, size = zlib.crc32(data, crc), size + len(data)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": size, "crc32": crc}


class TensorFile(Mapping[str, Tensor]):
    """The tensors of a safetensors file on the CPU, read one at a time. CheckpointError for a file that is not one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = safe_open(path, framework="pt").__enter__()  # type: ignore[no-untyped-call]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"checkpoint file {path} cannot be read: {error}") from None
        self._names = dict.fromkeys(self._file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def digest(path: Path) -> dict[str, int]:
    """Size and CRC-32 of a file, as `write_tensors` returns them."""
    crc, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return {"bytes": size, "crc32": crc}
