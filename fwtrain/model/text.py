"""Text context without the work on its padding.

Rows past every prompt's length are zero and, as in Wan, ordinary keys: after the text embedding they all have the same
key and value, which are computed once. Attention then either adds log(count) to that key's logits, which gives the same
sum, or repeats the finished key and value, where a biased attention kernel is slower than an unbiased one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Text(NamedTuple):
    """rows [B, L', D]: text rows in use, one zero row that stands for `repeats`, and the proprioception row.

    merged: index of that zero row. bias: float32 [1, 1, 1, L'] to add to attention logits, or None where keys are to be
    repeated instead (or repeats is 1).
    """

    rows: Tensor
    merged: int = 0
    repeats: int = 1
    bias: Tensor | None = None


class TextKeys(NamedTuple):
    """Cross-attention keys and values [B, L', N, d], and the bias of their logits."""

    k: Tensor
    v: Tensor
    bias: Tensor | None


def merged_text(context: Tensor, token: Tensor | None) -> Text:
    """Text [B, L, Dt] and a last token [B, 1, Dt], with the zero rows that all samples end with merged into one.

    Only a context on the CPU is searched for zero rows: on another device that would wait for it.
    """
    last = [] if token is None else [token]
    length = context.shape[1]
    used = used_rows(context) if context.device.type == "cpu" else length
    if length - used < 2:
        return Text(torch.cat([context, *last], 1))
    rows = torch.cat([context[:, : used + 1], *last], 1)
    bias = torch.zeros(rows.shape[1])
    bias[used] = math.log(length - used)
    return Text(rows, used, length - used, bias.view(1, 1, 1, -1))


def used_rows(context: Tensor) -> int:
    """How many of the L rows of [B, L, Dt] come before the zero rows that all samples end with."""
    used = context.any(dim=2).any(dim=0).nonzero()
    return int(used[-1]) + 1 if len(used) else 0


def repeated(keys: Tensor, text: Text) -> Tensor:
    """Keys or values [B, L', N, d] with the merged row repeated as often as it stands for."""
    if text.repeats == 1 or text.bias is not None:
        return keys
    cut = keys[:, text.merged : text.merged + 1]
    return torch.cat([keys[:, : text.merged], cut.expand(-1, text.repeats, -1, -1), keys[:, text.merged + 1 :]], 1)
