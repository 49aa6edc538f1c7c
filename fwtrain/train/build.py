"""A recipe and a store's sizes as a model."""

from __future__ import annotations

from typing import Any

import torch

from fwdata.errors import UsageError
from fwdata.manifest import validate_model
from fwtrain.data import Source, Stream, derived_seed
from fwtrain.model import FastWAM, ModelConfig
from fwtrain.recipe import Recipe
from fwtrain.train.lora import add_adapters

WAN_TEXT_WIDTH = 4096
"""Text width of the published model (umt5-xxl)."""


def model_config(recipe: Recipe, source: Source) -> ModelConfig:
    """The model's configuration: widths from the recipe; action, state, text and latent sizes from the store.

    Raises UsageError when the published model is asked for on text of another width, ManifestError for sizes that do
    not fit together.
    """
    length, text_dim = source.text_shape
    channels, height, width = source.latent_shape
    window, wanted = source.window, recipe.model
    common: dict[str, Any] = {
        "variant": wanted.variant,
        "proprio_dim": len(source.store.state_names),
        "action_horizon": window.action_horizon,
        "context_len": length,
        "latent_grid": (window.latent_frames, height, width),
        "schedule": {"video_shift": wanted.video_shift, "action_shift": wanted.action_shift},
        "lambda_video": wanted.lambda_video,
        "lambda_action": wanted.lambda_action,
        "cond_noise_prob": wanted.cond_noise_prob,
    }
    action_dim = len(source.store.action_names)
    if wanted.preset is not None:
        if text_dim != WAN_TEXT_WIDTH:
            raise UsageError(
                f"preset {wanted.preset} reads text of width {WAN_TEXT_WIDTH}, the store's text cache has {text_dim}; "
                "encode it with fwdata encode-text --encoder umt5-xxl"
            )
        return ModelConfig.wan22_5b(action_dim, **common)
    shared = {
        "text_dim": text_dim,
        "freq_dim": wanted.freq_dim,
        "num_heads": wanted.heads,
        "head_dim": wanted.head_dim,
        "num_layers": wanted.layers,
    }
    video = {"in_channels": channels, "out_channels": channels, **shared, **_size(wanted.video)}
    action = {"action_dim": action_dim, **shared, **_size(wanted.action)}
    data = {**common, "video_expert": video, "action_expert": action}
    return validate_model(ModelConfig, data, f"recipe {recipe.name}")


def prepare(model: FastWAM, recipe: Recipe) -> None:
    """Decide what is trained and how, as the recipe says: freeze, adapters, gradient checkpointing."""
    if recipe.lora is not None:
        add_adapters(model, recipe.lora, recipe.seed)
    if recipe.video_frozen:
        model.freeze_video()
    model.gradient_checkpointing = recipe.gradient_checkpointing


def _size(size: Any) -> dict[str, int]:
    return {"hidden_dim": size.hidden, "ffn_dim": size.ffn}


def build_model(
    config: ModelConfig, seed: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> FastWAM:
    """A freshly initialised model; the weights are a function of (config, seed)."""
    return FastWAM(config, seed=derived_seed(seed, Stream.INIT), device=device, dtype=dtype)
