"""Model sizes to measure, and one training batch of LIBERO's shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fwdata.errors import UsageError, did_you_mean
from fwdata.manifest import validate_model
from fwtrain.batch import Batch
from fwtrain.model import ModelConfig

ACTION_DIM, PROPRIO_DIM, ACTIONS, TEXT_ROWS = 7, 8, 32, 128
GRID = (3, 14, 28)
PROMPT_ROWS = 32
"""Text rows in use. The prompt's template alone is about 17 tokens; the other of the 128 rows are zero."""


@dataclass(frozen=True)
class Size:
    """Sizes of a benchmark's model and batch."""

    video: tuple[int, int]
    """Hidden and feed-forward width of the video expert."""
    action: tuple[int, int]
    """Hidden and feed-forward width of the action expert."""
    layers: int
    """Layers of each expert."""
    heads: int
    """Attention heads of each expert."""
    head_dim: int
    """Width of a head."""
    text_dim: int
    """Width of the text embeddings."""
    batch: int
    """Samples per batch."""


SIZES = {
    "tiny": Size((96, 384), (96, 384), 3, 3, 32, 64, 4),
    "50m": Size((512, 2304), (176, 704), 8, 4, 128, 1024, 2),
}
"""50m keeps the released ratios: feed-forward 4.5 times the width, action expert a third as wide, heads 128 wide."""


def find_size(name: str) -> Size:
    """A size by name; UsageError for an unknown one."""
    if name not in SIZES:
        raise UsageError(f"--size {name!r} is unknown{did_you_mean(name, SIZES)}")
    return SIZES[name]


def size_config(size: Size, variant: str = "fastwam", **changes: object) -> ModelConfig:
    """The model of a size with LIBERO's latents, actions and state."""
    shared = {
        "freq_dim": 256, "text_dim": size.text_dim, "num_heads": size.heads, "head_dim": size.head_dim,
        "num_layers": size.layers,
    }  # fmt: skip
    data = {
        "variant": variant,
        "video_expert": {"hidden_dim": size.video[0], "ffn_dim": size.video[1], **shared},
        "action_expert": {
            "action_dim": ACTION_DIM, "hidden_dim": size.action[0], "ffn_dim": size.action[1], **shared
        },
        "proprio_dim": PROPRIO_DIM,
        "action_horizon": ACTIONS,
        "context_len": TEXT_ROWS,
        "latent_grid": GRID,
        **changes,
    }  # fmt: skip
    return validate_model(ModelConfig, data, "the benchmark's model")


def random_batch(config: ModelConfig, size: int, seed: int = 0) -> Batch:
    """Normal values; prompts of `PROMPT_ROWS` rows; nothing padded."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    (frames, height, width), channels = config.latent_grid, config.video_expert.in_channels
    context = normal(size, config.context_len, config.video_expert.text_dim)
    context[:, min(PROMPT_ROWS, config.context_len) :] = 0
    return Batch(
        first=normal(size, channels, height, width),
        future=normal(size, channels, frames - 1, height, width),
        future_is_pad=torch.zeros(size, frames - 1, dtype=torch.bool),
        context=context,
        proprio=normal(size, config.proprio_dim or 1),
        action=normal(size, config.action_horizon, config.action_expert.action_dim),
        action_is_pad=torch.zeros(size, config.action_horizon, dtype=torch.bool),
    )
