"""FLOPs of Fast-WAM, counted from its configuration: those of every matrix product (2 per multiply-add)."""

from __future__ import annotations

from dataclasses import dataclass

from fwtrain.model.config import ModelConfig
from fwtrain.variants import Mode

PROMPT_ROWS = 32
"""Rows of a usual prompt."""


@dataclass(frozen=True)
class ExpertFlops:
    """FLOPs of one layer of an expert."""

    token: float
    """Per query token: projections and feed-forward."""
    keys: float
    """Per token that only gives keys and values."""
    text: float
    """Per text row: its keys and values."""
    attention: float
    """Per (query, key) pair."""
    layers: int
    """Number of layers."""

    @classmethod
    def of(cls, hidden: int, ffn: int, inner: int, layers: int) -> ExpertFlops:
        return cls(
            2 * (6 * hidden * inner + 2 * hidden * ffn), 4 * hidden * inner, 4 * hidden * inner, 4 * inner, layers
        )


def _experts(config: ModelConfig) -> tuple[ExpertFlops, ExpertFlops]:
    v, a = config.video_expert, config.action_expert
    inner = v.num_heads * v.head_dim
    return (
        ExpertFlops.of(v.hidden_dim, v.ffn_dim, inner, v.num_layers),
        ExpertFlops.of(a.hidden_dim, a.ffn_dim, inner, a.num_layers),
    )


def _stack(expert: ExpertFlops, queries: float, pairs: float, rows: int) -> float:
    """All layers: query tokens, (query, key) pairs of self and cross attention, text rows."""
    return expert.layers * (expert.token * queries + expert.attention * pairs + expert.text * rows)


def forward_flops(config: ModelConfig, rows: int = PROMPT_ROWS + 2, video: bool = True) -> float:
    """One training forward pass of one sample; see `forward_parts`."""
    return sum(forward_parts(config, rows, video))


def forward_parts(config: ModelConfig, rows: int = PROMPT_ROWS + 2, video: bool = True) -> tuple[float, float]:
    """FLOPs of the video and of the action expert in one training forward pass of one sample.

    rows: text rows with a key of their own, the merged zero row and the state among them. video: whether the sample has
    future latents that the variant trains on.
    """
    rules, (frames, _, _), n = config.rules, config.latent_grid, config.tokens_per_frame
    later, actions = (frames - 1) * n, config.action_horizon
    video_expert, action_expert = _experts(config)
    tokens, pairs = float(n), float(n * n)
    if rules.video_loss and video:
        tokens, pairs = tokens + later, pairs + later * (later + n)
    copied = sum(share for mode, share in config.mode_shares if mode.copy)
    tokens, pairs = tokens + copied * later, pairs + copied * later * (later + n)
    seen = n + later * sum(share for mode, share in config.mode_shares if mode.sees != ("first",))
    return (
        _stack(video_expert, tokens, pairs + tokens * rows, rows),
        _stack(action_expert, actions, actions * (seen + actions + rows), rows),
    )


def chunk_flops(config: ModelConfig, steps: int = 10, rows: int = PROMPT_ROWS + 2, mode: str | None = None) -> float:
    """Sampling one chunk; text keys are cached, the state's row is not worth counting."""
    sampler, (frames, _, _), n = config.rules.mode(mode).sampler, config.latent_grid, config.tokens_per_frame
    later, actions = (frames - 1) * n, config.action_horizon
    video, action = _experts(config)
    whole = _stack(video, later + n, n * n + later * (later + n) + (later + n) * rows, 0)
    first = _stack(video, n, n * n + n * rows, 0)
    seen = n + (later if sampler != "first-frame" else 0)
    chunk = steps * _stack(action, actions, actions * (seen + actions + rows), 0)
    passes = {"first-frame": first, "joint": steps * whole, "video-first": (steps + 1) * whole}
    return passes[sampler] + chunk


def weight_reads(mode: Mode, steps: int) -> tuple[int, int]:
    """How often sampling reads all weights of (video expert, action expert)."""
    return {"first-frame": 1, "joint": steps, "video-first": steps + 1}[mode.sampler], steps
