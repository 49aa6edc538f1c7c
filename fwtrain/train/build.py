"""A recipe and a store's sizes as a model."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Any

import torch

from fwdata import Store
from fwdata.errors import UsageError
from fwdata.manifest import Manifest, load_manifest, validate_model
from fwdata.window import Window
from fwtrain.data import StoreSource, Stream, derived_seed, open_source
from fwtrain.data.stores import command_word
from fwtrain.model import FastWAM, ModelConfig
from fwtrain.recipe import Recipe
from fwtrain.train.lora import add_adapters, add_counted_adapters
from fwtrain.weights.released import ACTION_SHIFT

WAN_TEXT_WIDTH, WAN_TEXT_TOKENS, TINY_TEXT_WIDTH = 4096, 128, 64
"""Text of the published model (umt5-xxl), and the width of the tiny encoder's."""

WAN_CHANNELS, WAN_STRIDE = 48, 16
"""Latent channels and pixels per latent of the Wan2.2 VAE."""


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Sizes:
    """What a store decides of a model."""

    state: int
    """Width of the state."""
    action: int
    """Width of the action."""
    window: Window
    """Frames and actions of one training window."""
    latent_shape: tuple[int, int, int]
    """(C, h, w) of one latent frame."""
    text_shape: tuple[int, int]
    """(L, Dt): text tokens, width of an embedding."""
    store: str = "STORE"
    """The word that names the store in a command."""

    @classmethod
    def of(cls, source: StoreSource) -> Sizes:
        """Sizes of an opened store."""
        names = source.store.state_names, source.store.action_names
        return cls(
            len(names[0]),
            len(names[1]),
            source.window,
            source.latent_shape,
            source.text_shape,
            command_word(source.store),
        )

    @classmethod
    def planned(cls, store: Store, recipe: Recipe) -> Sizes:
        """Sizes of a store that may have no caches yet: then those of Wan2.2 latents and of the recipe's text."""
        if store.files.names("latents") and store.files.names("text"):
            return cls.of(open_source(store, recipe))
        return cls._cached_later(store.manifest, recipe, len(store.state_names), len(store.action_names))

    @classmethod
    def usual(cls, recipe: Recipe) -> Sizes:
        """Sizes of the dataset a recipe was written for: the manifest of its name (the sample world's without one),
        Wan2.2 latents, and umt5-xxl or tiny text. UsageError for a recipe of the published size for any robot."""
        try:
            manifest = load_manifest(recipe.name)
        except UsageError:
            if recipe.model.preset:
                raise UsageError(
                    f"recipe {recipe.name} takes its sizes from the recordings: name their store with --store "
                    "(it needs no caches yet)"
                ) from None
            manifest = load_manifest("robotwin-sample")
        state, action = (width or 14 for width in (recipe.data.state_dim, recipe.data.action_dim))
        return cls._cached_later(manifest, recipe, state, action)

    @classmethod
    def _cached_later(cls, manifest: Manifest, recipe: Recipe, state: int, action: int) -> Sizes:
        height, width = manifest.stitch.size
        text_dim = WAN_TEXT_WIDTH if recipe.model.preset else TINY_TEXT_WIDTH
        latents = (WAN_CHANNELS, height // WAN_STRIDE, width // WAN_STRIDE)
        return cls(state, action, manifest.window, latents, (WAN_TEXT_TOKENS, text_dim))


def model_config(recipe: Recipe, source: StoreSource) -> ModelConfig:
    """`sized_config` with the sizes of an opened store."""
    return sized_config(recipe, Sizes.of(source))


def sized_config(recipe: Recipe, sizes: Sizes) -> ModelConfig:
    """The model's configuration: widths from the recipe; action, state, text and latent sizes from the store.

    Raises UsageError when the published model is asked for on text of another width, ManifestError for sizes that do
    not fit together.
    """
    length, text_dim = sizes.text_shape
    channels, height, width = sizes.latent_shape
    window, wanted = sizes.window, recipe.settled(ACTION_SHIFT).model
    common: dict[str, object] = {
        "variant": wanted.variant,
        "action_horizon": window.action_horizon,
        "context_len": length,
        "latent_grid": (window.latent_frames, height, width),
        "schedule": {
            "video_shift": wanted.video_shift,
            "action_shift": wanted.action_shift,
            "rounding": "bfloat16" if recipe.parity else "float32",
        },
        "lambda_video": wanted.lambda_video,
        "lambda_action": wanted.lambda_action,
        "cond_noise_prob": wanted.cond_noise_prob,
        "action_idm_prob": wanted.action_idm_prob,
    }
    action_dim = sizes.action
    if wanted.preset is not None:
        if text_dim != WAN_TEXT_WIDTH:
            raise UsageError(
                f"preset {wanted.preset} reads text of width {WAN_TEXT_WIDTH}, the store's text cache has {text_dim}; "
                f"replace it with `fwdata encode-text {sizes.store} --encoder umt5-xxl --replace`, or train recipe "
                "tiny on it"
            )
        return ModelConfig.wan22_5b(action_dim, sizes.state, **common)
    shared = {
        "text_dim": text_dim,
        "freq_dim": wanted.freq_dim,
        "num_heads": wanted.heads,
        "head_dim": wanted.head_dim,
        "num_layers": wanted.layers,
    }
    video = {"in_channels": channels, "out_channels": channels, **shared, **_size(wanted.video)}
    action = {"action_dim": action_dim, **shared, **_size(wanted.action)}
    data = {**common, "proprio_dim": sizes.state, "video_expert": video, "action_expert": action}
    return validate_model(ModelConfig, data, f"recipe {recipe.name}")


def prepare(model: FastWAM, recipe: Recipe, *, counted: bool = False) -> None:
    """Decide what is trained and how, as the recipe says: freeze, adapters, gradient checkpointing.

    counted: the model has no data and is there for its memory to be counted.
    """
    if recipe.lora is not None and counted:
        add_counted_adapters(model, recipe.lora)
    elif recipe.lora is not None:
        add_adapters(model, recipe.lora, recipe.seed)
    if recipe.video_frozen:
        model.freeze_video()
    model.gradient_checkpointing = recipe.gradient_checkpointing


def compile_model(model: FastWAM) -> None:
    """Run a model's layers through `torch.compile`. UsageError on a CPU without the C++ compiler that this takes."""
    compilers = [os.environ.get("CXX") or "g++", "clang++"]
    if model.device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise UsageError("torch.compile needs a C++ compiler on the CPU: install g++, or leave compile off")
    model.compile_layers()


def _size(size: Any) -> dict[str, int]:
    return {"hidden_dim": size.hidden, "ffn_dim": size.ffn}


def build_model(
    config: ModelConfig, seed: int | None, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> FastWAM:
    """A freshly initialised model; the weights are a function of (config, seed), on GPUs of one model and torch version
    too. seed: None leaves them uninitialised, for loading."""
    chosen = None if seed is None else derived_seed(seed, Stream.INIT)
    return FastWAM(config, seed=chosen, device=device, dtype=dtype)
