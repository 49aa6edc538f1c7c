"""safetensors files written one tensor at a time: a checkpoint never has to fit in memory beside the model."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from fwdata.encode.tensor_files import TensorFiles, TensorHeader, header_bytes
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


SYNC_BYTES = 256 << 20
"""A file is synced whenever so much was written, so that a slow disk slows the writing and not its very end."""


def write_tensors(
    path: Path, parts: Sequence[TensorPart], team: Team, check: Callable[[], None] = lambda: None
) -> dict[str, int] | None:
    """Write whole tensors gathered from the processes of `team`, in order, and sync the file.

    Every process has to call; the first one writes and gets the size and CRC-32 of the file, the others None. Holds one
    whole tensor at a time. check: called before every tensor; what it raises ends the writing.
    """
    if not team.first:
        if team.sharded:
            for part in parts:
                team.whole(part.tensor, part.shape)
        return None
    header: TensorHeader = {}
    end = 0
    for part in parts:
        size = part.shape.numel() * part.tensor.element_size()
        header[part.name] = {
            "dtype": DTYPES[part.tensor.dtype],
            "shape": list(part.shape),
            "data_offsets": [end, end + size],
        }
        end += size
    with path.open("wb") as file:
        start = header_bytes(header)
        file.write(start)
        crc, size, synced = zlib.crc32(start), len(start), 0
        for part in parts:
            check()
            whole = team.whole(part.tensor.detach(), part.shape).cpu().contiguous()
            data = whole.reshape(-1).view(torch.uint8).numpy().data
            write_block(file, data)
            crc, size = zlib.crc32(data, crc), size + len(data)
            if size - synced > SYNC_BYTES:
                file.flush()
                os.fsync(file.fileno())
                synced = size
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": size, "crc32": crc}


def write_block(file: BinaryIO, data: memoryview) -> None:
    """Write one tensor's bytes. A function of its own, so that a test can stand for a slow disk."""
    file.write(data)


def checkpoint_tensors(path: Path) -> TensorFiles:
    """The tensors of a checkpoint's file, read one at a time. CheckpointError for a file that is not one."""
    return TensorFiles.open(path, refusal=_unreadable)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"checkpoint file {path} cannot be read: {error}")


def digest(path: Path) -> dict[str, int]:
    """Size and CRC-32 of a file, as `write_tensors` returns them."""
    crc, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return {"bytes": size, "crc32": crc}
