"""Sizes and settings of one Fast-WAM. A variant, its loss weights and its schedules are values here, not classes.

Source: Fast-WAM (arXiv 2603.16666), configs/model/fastwam.yaml of the official release; the video expert has the sizes
of Wan2.2-TI2V-5B.
"""

from __future__ import annotations

import json
from typing import Any, Literal, Self

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from fwdata.errors import ManifestError, did_you_mean
from fwdata.manifest import Model, validate_model
from fwtrain.variants import COND_NOISE, MODE_SHARE, VARIANTS, Mode, Variant
from fwtrain.weights.released import ACTION_SHIFT, OLDER_ACTION_SHIFT


class VideoExpertConfig(Model):
    """Wan2.2-TI2V-5B style video transformer; the defaults are the released size."""

    in_channels: int = Field(default=48, gt=0)
    """Channels of a latent frame that is read."""
    out_channels: int = Field(default=48, gt=0)
    """Channels of the predicted velocity."""
    hidden_dim: int = Field(default=3072, gt=0)
    """Width of a token."""
    ffn_dim: int = Field(default=14336, gt=0)
    """Width inside the feed-forward layers."""
    freq_dim: int = Field(default=256, gt=0, multiple_of=2)
    """Width of the time sinusoid."""
    text_dim: int = Field(default=4096, gt=0)
    """Width of the text embeddings."""
    num_heads: int = Field(default=24, gt=0)
    """Attention heads; the same in both experts, which meet in one attention per layer."""
    head_dim: int = Field(default=128, ge=6, multiple_of=2)
    """Width of a head; the same in both experts."""
    num_layers: int = Field(default=30, gt=0)
    """Layers; the same in both experts."""
    patch_size: tuple[int, int, int] = (1, 2, 2)
    """(frames, rows, columns) of latents per token; must keep one latent frame per token."""
    eps: float = Field(default=1e-6, gt=0)
    """Of every norm."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.patch_size[0] != 1 or min(self.patch_size) < 1:
            raise ValueError(f"patch_size must be (1, rows, columns), found {self.patch_size}")
        if self.in_channels != self.out_channels:
            raise ValueError(f"in_channels {self.in_channels} and out_channels {self.out_channels} must be equal")
        return self


class ActionExpertConfig(Model):
    """Action transformer; the defaults but action_dim are the released size."""

    action_dim: int = Field(gt=0)
    """Width a of an action; the store's."""
    hidden_dim: int = Field(default=1024, gt=0)
    """Width of a token."""
    ffn_dim: int = Field(default=4096, gt=0)
    """Width inside the feed-forward layers."""
    freq_dim: int = Field(default=256, gt=0, multiple_of=2)
    """Width of the time sinusoid."""
    text_dim: int = Field(default=4096, gt=0)
    """Width of the text embeddings."""
    num_heads: int = Field(default=24, gt=0)
    """Attention heads; the same in both experts, which meet in one attention per layer."""
    head_dim: int = Field(default=128, ge=6, multiple_of=2)
    """Width of a head; the same in both experts."""
    num_layers: int = Field(default=30, gt=0)
    """Layers; the same in both experts."""
    eps: float = Field(default=1e-6, gt=0)
    """Of every norm."""


class ScheduleConfig(Model):
    """Flow-matching schedule: sigma = s u / (1 + (s - 1) u), t = num_train_timesteps * sigma; shift s per stream.

    A model trained with one shift and sampled with another is sampled on another grid, without any error.
    """

    video_shift: float = Field(default=5.0, gt=0)
    """Shift s of the video stream."""
    action_shift: float = Field(default=ACTION_SHIFT, gt=0)
    """Shift s of the action stream."""
    num_train_timesteps: int = Field(default=1000, gt=0)
    """Scale of t."""
    rounding: Literal["float32", "bfloat16"] = "float32"
    """Type of t, sigma, noised values, targets, time embeddings, Euler grid and Euler state. The official run has
    bfloat16, which leaves steps of 4 in t above 512 and deltas that do not add up to -1."""

    @property
    def dtype(self) -> torch.dtype:
        """`rounding` as torch has it."""
        return torch.bfloat16 if self.rounding == "bfloat16" else torch.float32


class ModelConfig(Model):
    """One Fast-WAM.

    variant: a name in `fwtrain.model.VARIANTS`.
    proprio_dim: width p of the state that becomes one more text token; None for none.
    action_horizon: A, action steps per chunk. context_len: L, text tokens.
    latent_grid: (F, h, w), latent frames, rows and columns of one window.
    lambda_video, lambda_action: loss weights.
    cond_noise_prob: share of conditioning videos that are noised, for variants with a copy. action_idm_prob: share of
    samples trained in the first mode, for variants with two; None for the others, and then not written. Where they are
    absent they are the variant's defaults.
    """

    variant: str = "fastwam"
    """A name in `fwtrain.model.VARIANTS`."""
    video_expert: VideoExpertConfig
    """The video transformer."""
    action_expert: ActionExpertConfig
    """The action transformer."""
    proprio_dim: int | None = Field(default=None, gt=0)
    """Width p of the state that becomes one more text token; None: no such token."""
    action_horizon: int = Field(default=32, gt=0)
    """A, action steps per chunk."""
    context_len: int = Field(default=128, gt=0)
    """L, text tokens."""
    latent_grid: tuple[int, int, int] = (3, 14, 28)
    """(F, h, w), latent frames, rows and columns of one window."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Noise schedule of both streams."""
    lambda_video: float = Field(default=1.0, ge=0)
    """Weight of the video loss."""
    lambda_action: float = Field(default=1.0, ge=0)
    """Weight of the action loss."""
    cond_noise_prob: float = Field(default=0.5, ge=0, le=1)
    """Share of conditioning videos that are noised, for variants with a copy; absent: the variant's default."""
    action_idm_prob: float | None = Field(default=None, ge=0, le=1)
    """Share of samples trained in the first mode, for variants with two; None for the others, and then not written;
    absent: the variant's default."""

    @model_validator(mode="before")
    @classmethod
    def _variant_defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        rules = VARIANTS.get(data.get("variant", "fastwam"))
        if rules is None:
            return data
        absent = {key: value for key, value in rules.probabilities.items() if data.get(key) is None}
        return {**data, **absent}

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Configurations of variants without modes to choose from look as they did before there were such variants."""
        data: dict[str, object] = handler(self)
        if data.get(MODE_SHARE, 0) is None:
            del data[MODE_SHARE]
        return data

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.variant not in VARIANTS:
            raise ValueError(f"unknown variant {self.variant!r}{did_you_mean(self.variant, VARIANTS)}")
        if self.action_idm_prob is not None and MODE_SHARE not in self.rules.probabilities:
            raise ValueError(f"variant {self.variant!r} has one mode and does not read {MODE_SHARE}")
        for name in ("num_layers", "num_heads", "head_dim", "text_dim"):
            video, action = getattr(self.video_expert, name), getattr(self.action_expert, name)
            if video != action:
                raise ValueError(f"both experts need the same {name}, found {video} (video) and {action} (action)")
        (frames, height, width), (_, rows, columns) = self.latent_grid, self.video_expert.patch_size
        if frames < 1 or height % rows or width % columns:
            raise ValueError(
                f"latent_grid {self.latent_grid} must have at least one frame, and rows and columns that divide into "
                f"patches of {rows} x {columns}"
            )
        return self

    @property
    def rules(self) -> Variant:
        """What the variant's name stands for."""
        return VARIANTS[self.variant]

    @property
    def mode_shares(self) -> tuple[tuple[Mode, float], ...]:
        """The variant's modes, each with the share of samples that is trained in it."""
        first, *other = self.rules.modes
        share = 1.0 if self.action_idm_prob is None else self.action_idm_prob
        return ((first, share), *((mode, 1.0 - share) for mode in other))

    @property
    def tokens_per_frame(self) -> int:
        """n, video tokens per latent frame."""
        (_, height, width), (_, rows, columns) = self.latent_grid, self.video_expert.patch_size
        return (height // rows) * (width // columns)

    def replace(self, **changes: object) -> ModelConfig:
        """A checked copy with some fields changed; ManifestError for a wrong one.

        Another variant brings its own defaults of the probabilities.
        """
        kept = self.model_dump()
        if changes.get("variant", self.variant) != self.variant:
            kept = {key: value for key, value in kept.items() if key not in (COND_NOISE, MODE_SHARE)}
        return validate_model(ModelConfig, {**kept, **changes}, "the model configuration")

    def to_json(self) -> str:
        """Indented JSON, read back by `from_json`."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str, where: str = "the model configuration") -> ModelConfig:
        """The configuration in a JSON text; ManifestError names `where` and the first wrong key."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ManifestError(f"{where} is not valid JSON: {error}") from None
        return validate_model(cls, recorded(data), where)

    @classmethod
    def wan22_5b(cls, action_dim: int, proprio_dim: int | None, **changes: object) -> ModelConfig:
        """The released size: 5.0 G video and 1.0 G action parameters. `changes` replaces other top-level fields."""
        data = {"video_expert": {}, "action_expert": {"action_dim": action_dim}, "proprio_dim": proprio_dim, **changes}
        return validate_model(cls, data, "the model configuration")

    @classmethod
    def tiny(
        cls,
        action_dim: int,
        proprio_dim: int | None,
        *,
        text_dim: int = 64,
        width: int = 96,
        layers: int = 3,
        heads: int = 3,
        head_dim: int = 32,
        **changes: object,
    ) -> ModelConfig:
        """A model that trains on a CPU in minutes: both experts `width` wide, FFN 4x as wide.

        `changes` replaces other top-level fields, for instance latent_grid or action_horizon.
        """
        common = {
            "hidden_dim": width, "ffn_dim": 4 * width, "freq_dim": 64, "text_dim": text_dim,
            "num_heads": heads, "head_dim": head_dim, "num_layers": layers,
        }  # fmt: skip
        data = {
            "video_expert": common,
            "action_expert": {**common, "action_dim": action_dim},
            "proprio_dim": proprio_dim,
            "latent_grid": (3, 4, 6),
            **changes,
        }
        return validate_model(cls, data, "the model configuration")


def recorded(data: Any) -> Any:
    """The plain data of a recorded configuration; one without an action shift was trained with the older one."""
    if not isinstance(data, dict) or not isinstance(data.get("schedule", {}), dict):
        return data
    return {**data, "schedule": {"action_shift": OLDER_ACTION_SHIFT, **data.get("schedule", {})}}


__all__ = [
    "ActionExpertConfig",
    "ModelConfig",
    "ScheduleConfig",
    "VideoExpertConfig",
    "recorded",
]
