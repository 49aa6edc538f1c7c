"""Text context without the work on its padding.

Rows past every prompt's length are zero and, as in Wan, ordinary keys: after the text embedding they all have the same
key and value, which are computed once. Attention then either adds log(count) to that key's logits, which gives the same
sum, or repeats the finished key and value, where a bias rules out the flash kernels (any device but the CPU).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fwtrain.batch import used_rows


class Text(NamedTuple):
    """Text rows as attention reads them, equal zero rows merged into one."""

    rows: Tensor
    """[B, L', D], rows in use, one zero row that stands for `repeats`, and the proprioception row."""
    merged: int = 0
    """Index of the zero row."""
    repeats: int = 1
    """Zero rows that it stands for."""
    bias: Tensor | None = None
    """float32 [1, 1, 1, L'] to add to attention logits; None: keys are repeated instead, or repeats is 1."""


class TextKeys(NamedTuple):
    """What cross-attention reads of the text."""

    k: Tensor
    """Keys [B, L', N, d]."""
    v: Tensor
    """Values [B, L', N, d]."""
    bias: Tensor | None
    """As of `Text`."""


@dataclass(frozen=True)
class Instruction:
    """One instruction as all layers read it, for any number of sampling calls; see `FastWAM.read_instruction`.

    About 22 MB at the released size for 30 rows in bf16.
    """

    video: list[TextKeys]
    """Keys and values [1, used + 1, N, d] of every layer of the video expert: rows in use and, last, a zero row."""
    action: list[TextKeys]
    """The same of the action expert."""
    used: int
    """Text rows in use."""
    length: int
    """L, text rows with the zero ones."""


def gathered(
    read: Sequence[list[TextKeys]], used: Sequence[int], length: int, state: list[TextKeys] | None
) -> list[TextKeys]:
    """Every layer's keys of a batch, from one expert's keys of every sample's instruction and of the state's row.

    Shorter instructions are filled with their zero row. The zero rows that all samples have are one key with a
    log(count) bias on the CPU; elsewhere that key is repeated, because a bias rules out the flash kernels.
    """
    rows = max(used)
    rest = length - rows
    biased = rest > 1 and read[0][0].k.device.type == "cpu"
    count = min(rest, 1) if biased else rest
    bias = None
    if biased:
        bias = torch.zeros(rows + 1 + (state is not None))
        bias[rows] = math.log(rest)
        bias = bias.view(1, 1, 1, -1)

    def joined(parts: list[Tensor], last: Tensor | None) -> Tensor:
        whole = [_filled(keys, n, rows + count) for keys, n in zip(parts, used, strict=True)]
        batch = whole[0] if len(whole) == 1 else torch.cat(whole)
        return batch if last is None else torch.cat([batch, last], 1)

    return [
        TextKeys(
            joined([keys[i].k for keys in read], None if state is None else state[i].k),
            joined([keys[i].v for keys in read], None if state is None else state[i].v),
            bias,
        )
        for i in range(len(read[0]))
    ]


def _filled(keys: Tensor, used: int, rows: int) -> Tensor:
    """[1, used + 1, N, d] to [1, rows, N, d]: the last row as often as needed."""
    return torch.cat([keys[:, :used], keys[:, used:].expand(-1, rows - used, -1, -1)], 1)


def merged_text(context: Tensor, token: Tensor | None, used: int | None = None) -> Text:
    """Text [B, L, Dt] and a last token [B, 1, Dt], with the zero rows that all samples end with merged into one.

    used: rows before them. Without it a context on the CPU is searched; on another device that would wait for it, and
    all rows are computed. Off the CPU the merged row's finished key and value are repeated (see above): the embedding
    and every layer's projections of the other zero rows are saved, their share of cross attention is not.
    """
    last = [] if token is None else [token]
    length, on_cpu = context.shape[1], context.device.type == "cpu"
    if used is None:
        used = used_rows(context) if on_cpu else length
    if length - used < 2:
        return Text(torch.cat([context, *last], 1))
    rows = torch.cat([context[:, : used + 1], *last], 1)
    if not on_cpu:
        return Text(rows, used, length - used)
    bias = torch.zeros(rows.shape[1])
    bias[used] = math.log(length - used)
    return Text(rows, used, length - used, bias.view(1, 1, 1, -1))


def repeated(keys: Tensor, text: Text) -> Tensor:
    """Keys or values [B, L', N, d] with the merged row repeated as often as it stands for."""
    if text.repeats == 1 or text.bias is not None:
        return keys
    cut = keys[:, text.merged : text.merged + 1]
    return torch.cat([keys[:, : text.merged], cut.expand(-1, text.repeats, -1, -1), keys[:, text.merged + 1 :]], 1)
