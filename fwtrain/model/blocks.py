"""The transformer block both experts use: modulated self attention, text cross attention, feed-forward.

Tokens are held as [B, G, n, D]: G groups of n tokens that share a time (video: frames; action: one group), so that the
six modulation vectors are [B, G, 1, D] and never per token. Source: Wan2.2 wan/modules/model.py (WanAttentionBlock) and
src/fastwam/models/wan22/wan_video_dit.py of the official Fast-WAM release, whose parameter names are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from fwtrain.model.rope import rotate
from fwtrain.model.text import Text, TextKeys, repeated


class Modulation(NamedTuple):
    """Six [B or 1, G, 1, D] vectors of a layer; the scales already contain the + 1."""

    shift1: Tensor
    """Added before self-attention."""
    scale1: Tensor
    """Factor before self-attention."""
    gate1: Tensor
    """Factor of the self-attention's output."""
    shift2: Tensor
    """Added before the feed-forward layers."""
    scale2: Tensor
    """Factor before the feed-forward layers."""
    gate2: Tensor
    """Factor of the feed-forward layers' output."""


class KeyValue(NamedTuple):
    """What self-attention reads of S tokens."""

    k: Tensor
    """Keys [B, S, N, d], normalised, and rotated where positions apply."""
    v: Tensor
    """Values [B, S, N, d]."""

    def joined(self, more: KeyValue) -> KeyValue:
        """These keys, then more."""
        return KeyValue(torch.cat([self.k, more.k], 1), torch.cat([self.v, more.v], 1))


@dataclass(frozen=True)
class Prefix:
    """Cached keys and values with room behind them, so that every denoising step writes only its own."""

    k: Tensor
    """Keys [B, size + room, N, d]."""
    v: Tensor
    """Values [B, size + room, N, d]."""
    size: int
    """Tokens that are cached; what follows is written anew by every step."""

    @classmethod
    def of(cls, seen: KeyValue, room: int) -> Prefix:
        """A copy of `seen` followed by room for `room` tokens."""
        empty = seen.k.new_empty(seen.k.shape[0], room, *seen.k.shape[2:])
        return cls(torch.cat([seen.k, empty], 1), torch.cat([seen.v, empty], 1), seen.k.shape[1])

    def joined(self, more: KeyValue) -> KeyValue:
        """These keys, then more; overwrites what an earlier call appended, unless gradients are recorded."""
        if torch.is_grad_enabled():
            return KeyValue(
                torch.cat([self.k[:, : self.size], more.k], 1), torch.cat([self.v[:, : self.size], more.v], 1)
            )
        self.k[:, self.size :] = more.k
        self.v[:, self.size :] = more.v
        return KeyValue(self.k, self.v)


class _RmsNorm(torch.autograd.Function):
    """RMS norm for CPU: one saved tensor, a third of the passes over memory that autograd's own formula takes."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        rate = size.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        unit = wide * rate
        ctx.save_for_backward(unit, rate, weight)
        return torch.mul(unit, weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, rate, weight = cast(tuple[Tensor, Tensor, Tensor], ctx.saved_tensors)  # type: ignore[attr-defined]
        grad = grads[0].float()
        along = grad * unit
        weight_grad = along.flatten(0, -2).sum(0).type_as(weight)
        wide = weight.float()
        drop = (along @ wide).div_(-unit.shape[-1]).unsqueeze(-1)
        return torch.addcmul(grad * wide, unit, drop).mul_(rate).type_as(grads[0]), weight_grad, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis, statistics in float32, in x's type.

    Here and in `attend` tensors without data take an operation that keeps what the GPU's fused kernel keeps (rms_norm
    has none for them), so that memory is counted as on a GPU.
    """
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        return cast(Tensor, _RmsNorm.apply(x, weight, eps))  # type: ignore[no-untyped-call]
    if x.is_meta:
        return F.layer_norm(x, (x.shape[-1],), weight.to(x.dtype), None, eps)
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Dense attention without a mask; [B, S, N, d] in and out, scale 1 / sqrt(d). bias: of the logits, or None."""
    if bias is not None:
        bias = bias.to(q.dtype)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if q.is_meta and bias is None:
        return cast(Tensor, torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)


class Linear(nn.Linear):
    """A linear layer that leaves its memory uninitialised; `fastwam.initialise` or a checkpoint fills it."""

    def reset_parameters(self) -> None:
        """Nothing."""


class TensorPlacement(TypedDict):
    """Where and as what parameters are made."""

    device: torch.device | str
    """Where they are made; "meta" makes shapes alone."""
    dtype: torch.dtype
    """Type of the numbers."""


class RmsWeight(nn.Module):
    """The weight of an RMS norm, under the name `weight`."""

    def __init__(self, width: int, place: TensorPlacement) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, **place))


class Attention(nn.Module):
    """Projections of one attention: hidden D -> inner N d and back, RMS norms over all heads together."""

    def __init__(self, hidden: int, inner: int, place: TensorPlacement) -> None:
        super().__init__()
        self.q = Linear(hidden, inner, **place)
        self.k = Linear(hidden, inner, **place)
        self.v = Linear(hidden, inner, **place)
        self.o = Linear(inner, hidden, **place)
        self.norm_q = RmsWeight(inner, place)
        self.norm_k = RmsWeight(inner, place)


class Block(nn.Module):
    """One layer of one expert. hidden D, inner N * d."""

    def __init__(self, hidden: int, heads: int, head_dim: int, ffn: int, eps: float, place: TensorPlacement) -> None:
        super().__init__()
        self.heads, self.head_dim, self.eps = heads, head_dim, eps
        self.modulation = nn.Parameter(torch.empty(1, 6, hidden, **place))
        self.self_attn = Attention(hidden, heads * head_dim, place)
        self.cross_attn = Attention(hidden, heads * head_dim, place)
        self.norm3 = nn.LayerNorm(hidden, eps=eps, **place)
        self.ffn = nn.Sequential(
            Linear(hidden, ffn, **place), nn.GELU(approximate="tanh"), Linear(ffn, hidden, **place)
        )

    def forward(self, layer: Callable[..., Any], *args: object) -> Any:
        """`layer(self, *args)`: how the experts run a layer, so that wrappers around modules (FSDP) see it."""
        return layer(self, *args)

    def modulated(self, time: Tensor, dtype: torch.dtype) -> Modulation:
        """This layer's vectors from a projected time [B or 1, G, 6, D] float32 whose scale rows contain the + 1."""
        return Modulation(*(time + self.modulation).to(dtype).unsqueeze(-2).unbind(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], -1, self.heads, self.head_dim)

    def normed(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """LayerNorm without affine parameters, then scale and shift."""
        return torch.addcmul(shift, F.layer_norm(x, (x.shape[-1],), eps=self.eps), scale)

    def keys(self, h: Tensor, table: Tensor) -> KeyValue:
        """Rotated keys, and values, of modulated tokens h [B, G, n, D]."""
        attn = self.self_attn
        k = rotate(self._heads(rms_norm(attn.k(h), attn.norm_k.weight, self.eps)), table)
        return KeyValue(k, self._heads(attn.v(h)))

    def queries(self, h: Tensor, table: Tensor) -> Tensor:
        """Rotated queries [B, S, N, d] of modulated tokens."""
        attn = self.self_attn
        return rotate(self._heads(rms_norm(attn.q(h), attn.norm_q.weight, self.eps)), table)

    def text_keys(self, text: Text) -> TextKeys:
        """Cross-attention keys and values of this expert's embedded text, rows [B, L', D]."""
        attn = self.cross_attn
        k = self._heads(rms_norm(attn.k(text.rows), attn.norm_k.weight, self.eps))
        return TextKeys(repeated(k, text), repeated(self._heads(attn.v(text.rows)), text), text.bias)

    def finish(self, x: Tensor, attended: Tensor, mod: Modulation, text: TextKeys) -> Tensor:
        """The rest of the layer after self attention; x [B, G, n, D], attended [B, S, N, d]."""
        x = torch.addcmul(x, self.self_attn.o(attended.reshape(*x.shape[:-1], -1)), mod.gate1)
        cross = self.cross_attn
        h = F.layer_norm(x, (x.shape[-1],), self.norm3.weight, self.norm3.bias, self.eps)
        q = self._heads(rms_norm(cross.q(h), cross.norm_q.weight, self.eps))
        x = x + cross.o(attend(q, *text).reshape(*x.shape[:-1], -1))
        return torch.addcmul(x, self.ffn(self.normed(x, mod.shift2, mod.scale2)), mod.gate2)
