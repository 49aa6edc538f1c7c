"""AdamW's state of one tensor, in float32 or in 8 bits.

8 bits: blockwise dynamic quantisation (Dettmers et al., arXiv 2110.02861; the map is that of bitsandbytes). Every 256
neighbours of a row share a float32 scale, their largest magnitude; each value is the nearest of 256 code values. Plain
torch operations, so it runs and resumes bit for bit wherever the model does, without a compiler. Blocks lie within rows
of the first axis, so that rows can be split between processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 256
SMALLEST = 4096
"""Tensors with fewer elements, and vectors, keep float32 moments: they weigh nothing."""


class Moments(Protocol):
    """What the optimizer asks of a tensor's state. step: 0-d float32, steps it took."""

    step: Tensor

    def unpacked(self) -> tuple[Tensor, Tensor]:
        """First and second moment, float32 in the tensor's shape and contiguous."""
        ...

    def store(self, first: Tensor, second: Tensor) -> None:
        """Keep what `unpacked` gave, after the step changed it."""
        ...

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What a checkpoint keeps, by name."""
        ...


@dataclass
class Float32Moments:
    """Two float32 moments of one parameter."""

    exp_avg: Tensor
    """First moment, in the parameter's shape."""
    exp_avg_sq: Tensor
    """Second moment, in the parameter's shape."""
    step: Tensor
    """Scalar, optimizer steps done."""

    def unpacked(self) -> tuple[Tensor, Tensor]:
        return self.exp_avg, self.exp_avg_sq

    def store(self, first: Tensor, second: Tensor) -> None:
        """They were changed in place."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from (("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq), ("step", self.step))


@dataclass
class Packed:
    """One quantised moment."""

    codes: Tensor
    """uint8, in the tensor's shape."""
    scale: Tensor
    """float32 [rows, blocks per row]."""


@dataclass
class EightBitMoments:
    """Two quantised moments of one parameter, 2.03 bytes per element."""

    exp_avg: Packed
    """First moment."""
    exp_avg_sq: Packed
    """Second moment."""
    step: Tensor
    """Scalar, optimizer steps done."""

    def unpacked(self) -> tuple[Tensor, Tensor]:
        return unpack(self.exp_avg, signed=True), unpack(self.exp_avg_sq, signed=False)

    def store(self, first: Tensor, second: Tensor) -> None:
        self.exp_avg, self.exp_avg_sq = pack(first, signed=True), pack(second, signed=False)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, packed in (("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq)):
            yield name, packed.codes
            yield f"{name}_scale", packed.scale
        yield "step", self.step


def zeros(like: Tensor, shape: torch.Size, *, eight_bit: bool) -> Moments:
    """State before the first step of the part `like` (float32) of a tensor of `shape`."""
    step = torch.zeros((), device=like.device)
    if not fits_eight_bit(shape) or not eight_bit:
        return Float32Moments(torch.zeros_like(like), torch.zeros_like(like), step)
    return EightBitMoments(pack(torch.zeros_like(like), signed=True), pack(torch.zeros_like(like), signed=False), step)


def fits_eight_bit(shape: torch.Size) -> bool:
    """Whether a tensor of this shape is large enough to be quantised."""
    return len(shape) > 1 and shape.numel() >= SMALLEST


def restored(state: Mapping[str, Tensor]) -> Moments:
    """The inverse of `tensors`. KeyError names what is missing."""
    if "exp_avg_scale" not in state:
        return Float32Moments(state["exp_avg"], state["exp_avg_sq"], state["step"])
    first, second = (Packed(state[name], state[f"{name}_scale"]) for name in ("exp_avg", "exp_avg_sq"))
    return EightBitMoments(first, second, state["step"])


def whole_shape(key: str, shape: torch.Size) -> torch.Size:
    """Shape of what `tensors` names `key` (or of the float32 master) for a parameter of `shape`."""
    if key == "step":
        return torch.Size(())
    return torch.Size((shape[0], -(-shape[1:].numel() // BLOCK))) if key.endswith("_scale") else shape


@lru_cache(maxsize=2)
def code_list(signed: bool) -> tuple[float, ...]:
    """256 numbers, ascending: dense near zero, 0 and 1 among them.

    Seven decades, each with twice as many values as the one below it; the mean of a value and its neighbour separates
    them. Nearest rounding is off by at most 1.4 % (signed) and 0.7 % (unsigned) of the block's largest magnitude.
    """
    values = [0.0, 1.0]
    for decade in range(7):
        count = 2**decade if signed else 2 ** (decade + 1)
        edges = torch.linspace(0.1, 1, count + 1, dtype=torch.float64)
        means = ((edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)).tolist()
        values += [*means, *(-value for value in means)] if signed else means
    return tuple(sorted(values))


@lru_cache(maxsize=8)
def code_values(signed: bool, device: torch.device | str = "cpu") -> Tensor:
    """float32 [256]: `code_list` on a device, copied there once."""
    return torch.tensor(code_list(signed), dtype=torch.float32, device=device)


def pack(values: Tensor, *, signed: bool) -> Packed:
    """Quantise float32 [rows, ...]. A positive second moment never becomes 0: its step would be unbounded."""
    blocks = _blocks(values)
    scale = blocks.abs().amax(2)
    table = code_values(signed, values.device)
    unit = blocks / torch.where(scale > 0, scale, 1).unsqueeze(2)
    codes = torch.bucketize(unit, (table[1:] + table[:-1]) / 2, out_int32=True)
    if not signed:
        codes = codes.clamp_(min=1).mul_(unit > 0)
    flat = codes.to(torch.uint8).flatten(1)[:, : _row(values)]
    return Packed(flat.reshape(values.shape), scale)


def unpack(packed: Packed, *, signed: bool) -> Tensor:
    """float32 in the shape of the codes, contiguous: the fused optimizer kernel reads it as flat memory."""
    table = code_values(signed, packed.codes.device)
    values = table[_blocks(packed.codes).int()] * packed.scale.unsqueeze(2)
    return values.flatten(1)[:, : _row(packed.codes)].reshape(packed.codes.shape).contiguous()


def _row(values: Tensor) -> int:
    return values[:1].numel() if len(values) else 0


def _blocks(values: Tensor) -> Tensor:
    """[rows, ...] -> [rows, blocks, BLOCK], each row padded with zeros (of codes: with the code 0)."""
    rows = values.reshape(len(values), values.shape[1:].numel())
    return F.pad(rows, (0, -rows.shape[1] % BLOCK)).view(len(rows), -(-rows.shape[1] // BLOCK), BLOCK)
