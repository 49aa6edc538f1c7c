"""Training recipes: the only definition of their format, and how one is found and overridden.

Built-in recipes live in `manifests/recipes/*.yaml`; `--recipe` also takes a path. Every key has a default below, so a
recipe holds what it decides. `--set optim.lr=3e-4` overrides one key; values are read as YAML and checked like a file.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, Field, field_validator, model_validator

from fwdata.errors import UsageError, did_you_mean
from fwdata.manifest import Model, validate_model
from fwdata.plugins import TRACKERS
from fwtrain.recipe_keys import read_mapping, set_key
from fwtrain.variants import COND_NOISE, MODE_SHARE, VARIANTS

LORA_LAYERS = (*(f"{a}_attn.{x}" for a in ("self", "cross") for x in "qkvo"), "ffn.0", "ffn.2")
"""Linear layers of a block."""

TRACKER_MODULES = ("wandb", "trackio")
"""Trackers that are built in, named as their packages are."""


def _known_tracker(name: str) -> str:
    known = [*TRACKER_MODULES, *TRACKERS.names()]
    if name not in known:
        *others, last = map(repr, known)
        raise ValueError(f"must be {', '.join(others)} or {last}, found {name!r}")
    return name


Tracker = Annotated[str, AfterValidator(_known_tracker), Field(examples=list(TRACKER_MODULES))]
"""The name of an experiment tracker: wandb, trackio, or one of FWDATA_PLUGINS or of an installed package."""


class ExpertSize(Model):
    """Widths of one expert."""

    hidden: int = Field(gt=0)
    """Width of a token."""
    ffn: int = Field(gt=0)
    """Width inside the feed-forward layers."""


class ModelRecipe(Model):
    """The network. State, action, text and latent sizes come from the store."""

    preset: Literal["wan2.2-5b"] | None = None
    """"wan2.2-5b" is the published 5 B video + 1 B action model; explicit sizes are then refused. null: `video`,
    `action`, `layers`, `heads` and `head_dim` are all needed."""
    video: ExpertSize | None = None
    """Widths of the video expert; null with a preset."""
    action: ExpertSize | None = None
    """Widths of the action expert; null with a preset."""
    layers: int | None = Field(default=None, gt=0)
    """Layers of each expert, which meet in one attention per layer; null with a preset."""
    heads: int | None = Field(default=None, gt=0)
    """Attention heads of each expert; null with a preset."""
    head_dim: int | None = Field(default=None, gt=0)
    """Width of a head, in both experts; null with a preset."""
    variant: str = "fastwam"
    """A name in `fwtrain.variants.VARIANTS`: "fastwam", "joint", "idm", "optional-idm" (each sample is trained as idm
    or as fastwam, and so it samples), "no-video" (fastwam without the video loss), or a registered one."""
    lambda_video: float = Field(default=1.0, ge=0)
    """Weight of the video loss."""
    lambda_action: float = Field(default=1.0, ge=0)
    """Weight of the action loss."""
    video_shift: float = Field(default=5.0, gt=0)
    """Time shift of the video stream's flow-matching schedule, in training and sampling."""
    action_shift: float | None = Field(default=None, gt=0)
    """Time shift of the action stream's schedule. null: that of the weights the run starts from (init fastwam) or of
    the run that is continued, else 1.0 as upstream trains since August 2026; before it was 5.0. A run records the
    number."""
    cond_noise_prob: float | None = Field(default=None, ge=0, le=1)
    """For idm and optional-idm: share of conditioning videos that are noised; null: the variant's (0.5 and 0.0)."""
    action_idm_prob: float | None = Field(default=None, ge=0, le=1)
    """For optional-idm: share of samples that see the whole conditioning video; null: 0.5."""
    freq_dim: int = Field(default=256, gt=0, multiple_of=2)
    """Width of the time sinusoid."""
    init: str | None = None
    """Weights to start from, see `fwtrain.weights.initialise`: "wan2.2:PATH", "fastwam:PATH"; null: random by seed."""
    init_action: str | None = None
    """With init wan2.2, a file of the official preprocess_action_dit_backbone.py; null: the action expert is
    interpolated from the video expert."""

    @field_validator("variant")
    @classmethod
    def _known_variant(cls, value: str) -> str:
        if value not in VARIANTS:
            raise ValueError(f"unknown variant {value!r}{did_you_mean(value, VARIANTS)}; known: {', '.join(VARIANTS)}")
        return value

    @model_validator(mode="after")
    def _prob_is_read(self) -> ModelRecipe:
        if self.action_idm_prob is not None and MODE_SHARE not in VARIANTS[self.variant].probabilities:
            raise ValueError(f"variant {self.variant!r} has one mode and does not read {MODE_SHARE}")
        return self

    @field_validator("init")
    @classmethod
    def _known_init(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"wan2\.2(:.+)?|fastwam:.+", value):
            raise ValueError(f"must be wan2.2, wan2.2:SOURCE or fastwam:SOURCE, found {value!r}")
        return value

    @model_validator(mode="after")
    def _backbone_needs_video(self) -> ModelRecipe:
        if self.init_action and not (self.init or "").startswith("wan2.2"):
            raise ValueError(f"init_action needs init: wan2.2 for the video expert, found init {self.init!r}")
        return self

    @model_validator(mode="after")
    def _preset_or_sizes(self) -> ModelRecipe:
        sizes = {name: getattr(self, name) for name in ("video", "action", "layers", "heads", "head_dim")}
        given = [name for name, value in sizes.items() if value is not None]
        if self.preset and given:
            raise ValueError(f"preset {self.preset!r} fixes the sizes, remove {', '.join(given)}")
        if not self.preset and len(given) < len(sizes):
            raise ValueError(
                f"without a preset all of {', '.join(sizes)} are needed, found {', '.join(given) or 'none'}"
            )
        return self


class OptimRecipe(Model):
    """AdamW and its schedule."""

    lr: float = Field(default=1e-4, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of both moments, for every trainable tensor."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's weight decay, for every trainable tensor."""
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps that warm up linearly."""
    min_lr_ratio: float = Field(default=0.01, ge=0, le=1)
    """The cosine ends at lr * min_lr_ratio."""
    clip: float | None = Field(default=None, gt=0)
    """Largest gradient norm; null: no clipping."""
    batch_size: int = Field(default=16, gt=0)
    """Windows per forward pass."""
    accumulation: int = Field(default=1, gt=0)
    """Forward passes per optimizer step. batch_size * accumulation is one step's windows on any number of processes,
    which share them (see `fwtrain.train.passes`)."""
    steps: int | None = Field(default=None, gt=0)
    """Length of the run in optimizer steps; exactly one of steps and epochs is given."""
    epochs: int | None = Field(default=None, gt=0)
    """Length of the run in passes over the training windows; exactly one of steps and epochs is given."""
    moments: Literal["fp32", "8bit"] = "fp32"
    """"8bit" keeps AdamW's two moments in 8 bits: 2 in place of 8 bytes a parameter, see `fwtrain.train.moments`."""

    @model_validator(mode="after")
    def _one_length(self) -> OptimRecipe:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        return self


class LoraRecipe(Model):
    """Low-rank adapters through `peft` on a frozen base; needs the extra `lora`."""

    rank: int = Field(default=16, gt=0)
    """Rank of an adapter, which adds alpha / rank * B A to its layer."""
    alpha: int = Field(default=16, gt=0)
    """Scale of an adapter, see `rank`."""
    experts: tuple[Literal["video", "action"], ...] = Field(default=("video", "action"), min_length=1)
    """Experts whose layers get adapters."""
    targets: tuple[str, ...] = Field(default=tuple(LORA_LAYERS), min_length=1)
    """Linear layers of a block that get adapters."""
    full: tuple[str, ...] = ("proprio_encoder", "mixtures.action.action_encoder", "mixtures.action.head")
    """Parameters trained whole besides, by the beginning of their name: those of the robot's own sizes."""

    @model_validator(mode="after")
    def _known_targets(self) -> LoraRecipe:
        for name in self.targets:
            if name not in LORA_LAYERS:
                raise ValueError(f"targets has no layer {name!r}{did_you_mean(name, LORA_LAYERS)}")
        return self


class DataRecipe(Model):
    """What is read from the store."""

    latents: str | None = None
    """Name of the latent cache; null: the store's only or default one."""
    text: str | None = None
    """Name of the text cache; null: the store's only or default one."""
    windows: Literal["all", "future"] = "all"
    """"all" trains on every window start; "future" only on those with future latents, so that all variants train on the
    same windows in the same order."""
    video_fraction: float = Field(default=1.0, ge=0, le=1)
    """Share of the windows with future latents that are used for video co-training in an epoch; the others are
    action-only and never touch future tokens. The weight of the video loss falls in proportion (see fwtrain.data)."""
    instruction: Literal["canonical", "sample"] = "canonical"
    """"canonical" takes an episode's first instruction, "sample" one of them anew for every window and epoch."""
    weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """With several stores, how often an epoch draws the windows of each: 1 = all of them once, 0.5 = another half of
    them in every epoch, 2 = all of them twice; null: 1 for every store."""
    workers: int = Field(default=1, ge=0)
    """Threads that fetch batches ahead, 0: fetch in the training thread. Order does not depend on it."""
    state_dim: int | None = None
    """Width of the state the recipe was written for; another store is refused. null: any."""
    action_dim: int | None = None
    """Width of the action the recipe was written for; another store is refused. null: any."""
    guard_constant: bool = True
    """Whether dimensions that never move are treated apart from the official arithmetic (see `fwdata.normalise`)."""


class ValidationRecipe(Model):
    """Open-loop check on held-out episodes."""

    windows: int = Field(default=64, ge=0)
    """Windows that are sampled, spread over the held-out episodes; 0: no validation."""
    steps: int = Field(default=10, gt=0)
    """Denoising steps."""
    pictures: int = Field(default=0, ge=0)
    """Number of the windows for which the predicted future is decoded by the VAE of the latents and shown beside the
    true one; 0: none, and no VAE is loaded."""


class DeployRecipe(Model):
    """From a predicted chunk to what the robot is sent; alters no weight. Applied by `fwtrain serve` and export."""

    execute: int | None = Field(default=None, gt=0)
    """Actions carried out before the next observation; null: the whole chunk."""
    gripper_sign: tuple[int, ...] = ()
    """Dimensions stored as 1 open / 0 closed that the robot takes as -1 open / +1 closed: sign(1 - 2 g)."""
    gripper_clip: tuple[int, ...] = ()
    """Dimensions clipped to 0 .. 1."""


class Recipe(Model):
    """One training run. Raises ManifestError (through `load_recipe`) for unknown keys and values that do not fit."""

    name: str
    """What messages and reports call it."""
    description: str = ""
    """The recipe in a sentence; "": none."""
    model: ModelRecipe
    """The network."""
    optim: OptimRecipe
    """Optimizer, schedule and length."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Type of the weights and of the arithmetic; with "bf16" the optimizer keeps float32 weights besides."""
    parity: Literal["official"] | None = None
    """"official" rounds to bfloat16 what the official run rounds (timesteps, sigma, noised values, targets, time
    embeddings, Euler grid and state; see `ScheduleConfig.rounding`), also when the trained model samples; needs
    precision bf16. null keeps them in float32: no more work, compatible with released weights, and t is not a multiple
    of 4. The arithmetic inside a layer (attention, norms, rotations) is ours in both."""
    data: DataRecipe = DataRecipe()
    """What is read from the store."""
    validation: ValidationRecipe = ValidationRecipe()
    """Open-loop check on held-out episodes."""
    deploy: DeployRecipe = DeployRecipe()
    """How predicted actions are sent to the robot."""
    freeze: Literal["video"] | None = None
    """"video" makes the video expert a fixed feature extractor: it runs without gradients and keeps no activations and
    no optimizer state; there is no video loss, and the proprioception token learns through the action expert alone."""
    lora: LoraRecipe | None = None
    """Low-rank adapters on a frozen base; null: every weight is trained."""
    gradient_checkpointing: bool = False
    """Layers are computed again in the backward pass instead of kept: same losses and gradients, less memory, about a
    third more time."""
    compile: bool = False
    """Layers through `torch.compile`; the first step of every kind waits for the compiler. Losses differ from the same
    run without it by round-off, so a run is resumed with what it began with."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the work, see `fwtrain.train.parallel`."""
    seed: int = Field(default=42, ge=0)
    """Seed of weights, order and noise."""
    save_every: int = Field(default=1000, gt=0)
    """Optimizer steps between checkpoints."""
    eval_every: int = Field(default=1000, gt=0)
    """Optimizer steps between validations."""
    log_every: int = Field(default=10, gt=0)
    """Optimizer steps between lines of the log."""
    keep_last: int | None = Field(default=3, gt=0)
    """Complete checkpoints kept; null: all."""
    tensorboard: bool = True
    """Whether the log also goes to TensorBoard files in the run's folder."""
    trackers: tuple[Tracker, ...] = ()
    """Experiment trackers that the log also goes to: wandb and trackio (extra `track`), or plugins by name."""

    @model_validator(mode="after")
    def _official_is_bf16(self) -> Recipe:
        if self.parity and self.precision != "bf16":
            raise ValueError(f"parity: official is a bf16 run, found precision {self.precision}")
        return self

    @model_validator(mode="after")
    def _one_way_to_freeze(self) -> Recipe:
        if self.freeze and self.lora:
            raise ValueError("lora freezes the base already: remove freeze, or choose lora.experts")
        return self

    def settled(self, action_shift: float) -> Recipe:
        """The recipe with a number for every null that stands for one: what a run records and trains with.

        action_shift: used where the recipe leaves it open. Probabilities that the variant does not read keep what
        recipes without them were recorded with.
        """
        model, defaults = self.model, VARIANTS[self.model.variant].probabilities
        chosen = {
            "action_shift": action_shift if model.action_shift is None else model.action_shift,
            COND_NOISE: defaults.get(COND_NOISE, 0.5) if model.cond_noise_prob is None else model.cond_noise_prob,
            MODE_SHARE: defaults.get(MODE_SHARE) if model.action_idm_prob is None else model.action_idm_prob,
        }
        return self.model_copy(update={"model": model.model_copy(update=chosen)})

    @property
    def video_frozen(self) -> bool:
        """Whether no weight of the video expert is trained."""
        return self.freeze == "video" or (self.lora is not None and "video" not in self.lora.experts)

    def to_yaml(self) -> str:
        """The whole recipe, defaults included, as YAML that `load_recipe` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def recipe_names() -> list[str]:
    """Names that `--recipe` takes besides paths."""
    folder = importlib.resources.files("manifests") / "recipes"
    return sorted(p.name[:-5] for p in folder.iterdir() if p.name.endswith(".yaml"))


def load_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by built-in name or path and apply `key.path=value` overrides.

    Raises ManifestError naming the wrong key and the closest known one; UsageError when there is no such recipe.
    """
    where = f"recipe {name_or_path}"
    data = read_mapping(recipe_text(name_or_path), where)
    for change in overrides:
        set_key(data, change)
    return validate_model(Recipe, data, where)


def override(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """The recipe with `key.path=value` overrides. Raises as `load_recipe`."""
    data = recipe.model_dump(mode="json")
    for change in overrides:
        set_key(data, change)
    return validate_model(Recipe, data, f"recipe {recipe.name}")


def parse_recipe(text: str, where: str) -> Recipe:
    """A recipe from YAML text; ManifestError with one sentence that names the first wrong key."""
    return validate_model(Recipe, read_mapping(text, where), where)


def recipe_text(name_or_path: str) -> str:
    """The YAML of a built-in recipe or a file, with its comments. UsageError when there is no such recipe."""
    builtin = importlib.resources.files("manifests") / "recipes" / f"{name_or_path}.yaml"
    if "/" not in name_or_path and builtin.is_file():
        return builtin.read_text(encoding="utf-8")
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path.read_text(encoding="utf-8")
    raise UsageError(f"no recipe {name_or_path!r}{did_you_mean(name_or_path, recipe_names())}")
