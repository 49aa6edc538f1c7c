"""The two experts. Video tokens never see action tokens, so the video stack runs first and hands its visible keys and
values, layer by layer, to the action stack: the same arithmetic as the interleaved mixture, in one simple order.

Sources: src/fastwam/models/wan22/{wan_video_dit,action_dit,mot}.py of the official Fast-WAM release.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fwtrain.model import flow
from fwtrain.model.blocks import Block, KeyValue, Linear, Modulation, Prefix, TensorPlacement, attend
from fwtrain.model.config import ActionExpertConfig, VideoExpertConfig
from fwtrain.model.text import Text, TextKeys
from fwtrain.variants import Call, Frames, video_calls


@dataclass(frozen=True)
class Times:
    """Embeddings of R timesteps."""

    embedded: Tensor
    """[R, D], what the head's modulation is made of."""
    projected: Tensor
    """[R, 6, D], shifts, scales and gates of a layer; the scale rows contain the + 1."""


class Expert(nn.Module):
    """What both experts have: text and time embeddings and the blocks."""

    one_for_scales: Tensor

    def __init__(self, config: VideoExpertConfig | ActionExpertConfig, place: TensorPlacement) -> None:
        super().__init__()
        width = config.hidden_dim
        self.freq_dim = config.freq_dim
        self.gradient_checkpointing = False
        self.compiled: dict[str, Callable[..., Any]] = {}
        self.text_embedding = nn.Sequential(
            Linear(config.text_dim, width, **place), nn.GELU(approximate="tanh"), Linear(width, width, **place)
        )
        self.time_embedding = nn.Sequential(
            Linear(config.freq_dim, width, **place), nn.SiLU(), Linear(width, width, **place)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), Linear(width, 6 * width, **place))
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, config.head_dim, config.ffn_dim, config.eps, place)
            for _ in range(config.num_layers)
        )
        ones = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0], device=place["device"])
        self.register_buffer("one_for_scales", ones.unsqueeze(1), persistent=False)

    @property
    def layers(self) -> Sequence[Block]:
        """The blocks, typed."""
        return cast(Sequence[Block], self.blocks)

    def times(self, timestep: Tensor) -> Times:
        """Embeddings of timesteps [R] (0..1000), in float32 unless the timesteps have the type of a bfloat16 model."""
        if timestep.dtype != torch.float32:
            dtype = cast(nn.Linear, self.time_embedding[0]).weight.dtype
            embedded = self.time_embedding(flow.sinusoid(timestep, self.freq_dim).to(dtype))
            projected = self.time_projection(embedded).view(len(timestep), 6, -1)
            return Times(embedded, projected + self.one_for_scales)
        device = "cpu" if timestep.is_meta else timestep.device.type
        with torch.autocast(device, enabled=False):
            first, _, second = self.time_embedding
            embedded = _linear32(second, F.silu(_linear32(first, flow.sinusoid(timestep, self.freq_dim))))
            projected = _linear32(self.time_projection[1], F.silu(embedded)).view(len(timestep), 6, -1)
            return Times(embedded, projected + self.one_for_scales)

    def text(self, context: Text) -> Text:
        """Rows [B, L', Dt] -> [B, L', D]."""
        return context._replace(rows=self.text_embedding(context.rows))

    def text_keys(self, context: Text) -> list[TextKeys]:
        """Every layer's cross-attention keys and values of a context, rows [B, L', Dt]."""
        embedded = self.text(context)
        return [block.text_keys(embedded) for block in self.layers]

    def modulations(self, time: Tensor, dtype: torch.dtype) -> list[Modulation]:
        """Every layer's modulation from [B or 1, G, 6, D]."""
        return [block.modulated(time, dtype) for block in self.layers]

    def _run(self, function: Callable[..., Any], block: Block, *args: object) -> Any:
        """Call one layer, recomputing it in the backward pass if gradient checkpointing is on."""
        function = self.compiled.get(function.__name__, function)
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, function, *args, use_reentrant=False, preserve_rng_state=False)
        return block(function, *args)


def _linear32(linear: nn.Module, x: Tensor) -> Tensor:
    layer = cast(nn.Linear, linear)
    return F.linear(x, layer.weight.float(), layer.bias.float())


class Head(nn.Module):
    """Output layer of the video expert; `head` projects to the pixels of a patch, (row, column, channel) order."""

    def __init__(self, width: int, out: int, place: TensorPlacement) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.empty(1, 2, width, **place))
        self.head = Linear(width, out, **place)


class PatchEmbedding(nn.Module):
    """The parameters of the official Conv3d whose kernel is its stride; used as a linear layer over patches."""

    def __init__(self, config: VideoExpertConfig, place: TensorPlacement) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.hidden_dim, config.in_channels, *config.patch_size, **place))
        self.bias = nn.Parameter(torch.empty(config.hidden_dim, **place))


class VideoExpert(Expert):
    """The video transformer."""

    def __init__(self, config: VideoExpertConfig, place: TensorPlacement) -> None:
        super().__init__(config, place)
        self.eps, self.patch_size, self.channels = config.eps, config.patch_size, config.in_channels
        self.patch_embedding = PatchEmbedding(config, place)
        area = config.patch_size[1] * config.patch_size[2]
        self.head = Head(config.hidden_dim, config.out_channels * area, place)

    def patchify(self, latents: Tensor) -> Tensor:
        """[B, C, f, h, w] -> [B, f, n, C * rows * columns], features in (channel, row, column) order."""
        _, rows, columns = self.patch_size
        b, c, f, h, w = latents.shape
        cut = latents.view(b, c, f, h // rows, rows, w // columns, columns).permute(0, 2, 3, 5, 1, 4, 6)
        return cut.reshape(b, f, (h // rows) * (w // columns), c * rows * columns)

    def unpatchify(self, patches: Tensor, height: int, width: int) -> Tensor:
        """Patches as the head makes them, [B, f, n, rows * columns * C], to [B, C, f, height, width]."""
        _, rows, columns = self.patch_size
        b, f = patches.shape[:2]
        cut = patches.view(b, f, height // rows, width // columns, rows, columns, self.channels)
        return cut.permute(0, 6, 1, 2, 4, 3, 5).reshape(b, self.channels, f, height, width)

    def head_order(self, patches: Tensor) -> Tensor:
        """A view of `patchify`'s [B, f, n, C * P] as [B, f, n, P, C], comparable with the head's output."""
        width = patches.shape[-1]
        return patches.view(*patches.shape[:-1], self.channels, width // self.channels).transpose(-1, -2)

    def embed(self, patches: Tensor) -> Tensor:
        """[B, f, n, C * rows * columns] -> tokens [B, f, n, D]."""
        weight = self.patch_embedding.weight
        return F.linear(patches.to(weight.dtype), weight.flatten(1), self.patch_embedding.bias)

    def forward(
        self,
        x: Tensor,
        time: Tensor | Sequence[Modulation],
        text: Text | Sequence[TextKeys],
        table: Tensor,
        frames: Frames,
        shared: tuple[int, int],
        keep: int,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Run all layers over tokens [B, G, n, D] in the group order of `variants`.

        time: projected times [B or 1, G, 6, D], or every layer's modulation. text: embedded text, or every
        layer's keys. shared: [start, stop) frames whose keys and values are returned per layer. keep: the last layer is
        computed past its keys and values for the first `keep` frames only (0: not at all).
        Returns hidden tokens [B, keep, n, D] of the last layer, and the shared keys and values.
        """
        cache: list[KeyValue] = []
        last = len(self.layers) - 1
        inner, final = video_calls(frames, frames.total), video_calls(frames, keep)
        for i, block in enumerate(self.layers):
            mod = time if isinstance(time, Tensor) else time[i]
            context = text if isinstance(text, Text) else text[i]
            x, keys = self._run(video_layer, block, x, mod, context, table, final if i == last else inner, shared)
            cache.append(keys)
        return x, cache

    def velocity(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Output patches [B, f, n, rows * columns * C] of hidden tokens; embedded times [B or 1, 1 or f, D]."""
        mod = (self.head.modulation + embedded.unsqueeze(2)).unsqueeze(-2)
        shift, scale = mod.to(x.dtype).unbind(2)
        return cast(
            Tensor, self.head.head(torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=self.eps), scale + 1))
        )


def video_layer(
    block: Block,
    x: Tensor,
    time: Tensor | Modulation,
    text: Text | TextKeys,
    table: Tensor,
    calls: tuple[Call, ...],
    shared: tuple[int, int],
) -> tuple[Tensor, KeyValue]:
    """One video layer: (tokens of the frames the calls compute, keys and values of the shared frames)."""
    mod = block.modulated(time, x.dtype) if isinstance(time, Tensor) else time
    h = block.normed(x, mod.shift1, mod.scale1)
    k, v = block.keys(h, table)
    n, keep = x.shape[2], calls[-1].q1 if calls else 0
    visible = KeyValue(_cut(k, *shared, n), _cut(v, *shared, n))
    if keep == 0:
        return x[:, :0], visible
    if keep < x.shape[1]:
        x, h, table = x[:, :keep], h[:, :keep], table[: keep * n]
        mod = Modulation(*(part[:, :keep] for part in mod))
    q = block.queries(h, table)
    outs = [attend(_cut(q, c.q0, c.q1, n), _cut(k, c.k0, c.k1, n), _cut(v, c.k0, c.k1, n)) for c in calls]
    keys = block.text_keys(text) if isinstance(text, Text) else text
    return block.finish(x, outs[0] if len(outs) == 1 else torch.cat(outs, 1), mod, keys), visible


def _cut(x: Tensor, start: int, stop: int, n: int) -> Tensor:
    """Tokens of frames [start, stop) of [B, S, N, d]."""
    if start == 0 and stop * n == x.shape[1]:
        return x
    return x[:, start * n : stop * n]


class ActionExpert(Expert):
    """The action transformer."""

    def __init__(self, config: ActionExpertConfig, place: TensorPlacement) -> None:
        super().__init__(config, place)
        self.action_encoder = Linear(config.action_dim, config.hidden_dim, **place)
        self.head = Linear(config.hidden_dim, config.action_dim, **place)

    def forward(
        self,
        action: Tensor,
        time: Tensor | Sequence[Modulation],
        text: Text | Sequence[TextKeys],
        table: Tensor,
        cache: Sequence[KeyValue | Prefix],
    ) -> Tensor:
        """Velocity [B, A, a] of noised actions [B, A, a], which see each other and the cached video keys and values.

        time: projected times [B or 1, 1, 6, D], or every layer's modulation. text: embedded text, or every layer's
        keys.
        """
        x = self.action_encoder(action.to(self.action_encoder.weight.dtype)).unsqueeze(1)
        for i, block in enumerate(self.layers):
            mod = time if isinstance(time, Tensor) else time[i]
            context = text if isinstance(text, Text) else text[i]
            x = self._run(action_layer, block, x, mod, context, table, cache[i])
        return cast(Tensor, self.head(x.squeeze(1)))


def action_layer(
    block: Block, x: Tensor, time: Tensor | Modulation, text: Text | TextKeys, table: Tensor, seen: KeyValue | Prefix
) -> Tensor:
    """One action layer against the video keys and values it may see."""
    mod = block.modulated(time, x.dtype) if isinstance(time, Tensor) else time
    h = block.normed(x, mod.shift1, mod.scale1)
    k, v = seen.joined(block.keys(h, table))
    attended = attend(block.queries(h, table), k, v)
    keys = block.text_keys(text) if isinstance(text, Text) else text
    return block.finish(x, attended, mod, keys)
