"""Which tokens information reaches, found by gradients through the real training and sampling code.

For every group of tokens, the gradient of its output with respect to what goes into every group: exactly zero where
it must not see, not zero where it sees. The expected table is written out here from the paper (arXiv 2603.16666,
section 3; masks of src/fastwam/models/wan22/*.py) and shares nothing with the rules that the model runs on.

Inputs: `first` the first frame's latents; `future` and `copy` the noise of the noisy and of the conditioning video;
`action` the actions' noise; `text` and `state` the context. Outputs: predictions, and for the conditioning copy the
keys and values that it hands to the actions in the last layer, which are made of what it saw in the layers before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fwdata.manifest import validate_model
from fwtrain.batch import Batch
from fwtrain.model import Denoising, Draws, FastWAM, Mode, ModelConfig, Noise, Variant, draw, loss_terms
from fwtrain.model.sampling import sampled
from fwtrain.recipe import Recipe
from fwtrain.variants import MODE_SHARE

GROUPS = ("first", "future", "copy", "action", "text", "state")
_CONTEXT = frozenset({"text", "state"})
_VIDEO = {
    "first": frozenset({"first"}) | _CONTEXT,
    "future": frozenset({"first", "future"}) | _CONTEXT,
    "copy": frozenset({"first", "copy"}) | _CONTEXT,
}
_FIRST, _COPY = frozenset({"first", "action"}) | _CONTEXT, frozenset({"first", "copy", "action"}) | _CONTEXT
_WHOLE = frozenset({"first", "future", "action"}) | _CONTEXT
PUBLISHED = {
    ("fastwam", "first-frame"): (_FIRST, _FIRST),
    ("joint", "joint"): (_WHOLE, _WHOLE),
    ("idm", "idm"): (_COPY, _WHOLE),
    ("optional-idm", "idm"): (_COPY, _WHOLE),
    ("optional-idm", "first-frame"): (_FIRST, _FIRST),
    ("no-video", "first-frame"): (_FIRST, _FIRST),
}
"""What actions may see in (training, sampling) by the paper and upstream's masks, for (variant, mode). A variant of
somebody else is held to what it declares."""

MAX_WIDTH, MAX_HEAD_DIM, MAX_SIDE, MAX_ACTIONS = 48, 12, 2, 8


@dataclass(frozen=True)
class GroupPair:
    """One pair of token groups: whether one may see the other, and what the gradient says."""

    phase: str
    """"train" or "sample", followed by the mode where the variant has several."""
    query: str
    """Group whose output was differentiated."""
    key: str
    """Group that the gradient was taken for."""
    may_see: bool
    """Whether the rules let `query` see `key`."""
    largest: float
    """Largest absolute value of the gradient; 0 where `key` has no influence."""

    @property
    def ok(self) -> bool:
        return (self.largest > 0) == self.may_see


def _may_see(rules: Variant, mode: Mode) -> tuple[frozenset[str], frozenset[str]]:
    """Inputs that reach actions in (training, sampling): of the published table, else by the variant's own rules."""
    found = PUBLISHED.get((rules.name, mode.name))
    if found is not None:
        return found
    train, sampling = (
        frozenset(key for group in seen for key in _VIDEO[group]) | {"action"}
        for seen in (mode.sees, mode.sees_sampling)
    )
    return train, sampling


def recipe_structure(recipe: Recipe) -> ModelConfig:
    """The model of a recipe without a store: its own structure, LIBERO's shapes where the store would decide."""
    wanted = recipe.model
    common: dict[str, object] = {
        "variant": wanted.variant, "lambda_video": wanted.lambda_video, "action_idm_prob": wanted.action_idm_prob
    }  # fmt: skip
    actions, state = recipe.data.action_dim or 7, recipe.data.state_dim or 8
    if wanted.video is None or wanted.action is None:
        return ModelConfig.wan22_5b(actions, state, **common)
    shared = {"num_heads": wanted.heads, "head_dim": wanted.head_dim, "num_layers": wanted.layers}
    data = {
        **common,
        "video_expert": {"hidden_dim": wanted.video.hidden, "ffn_dim": wanted.video.ffn, **shared},
        "action_expert": {
            "action_dim": actions, "hidden_dim": wanted.action.hidden, "ffn_dim": wanted.action.ffn, **shared
        },
        "proprio_dim": state,
    }  # fmt: skip
    return validate_model(ModelConfig, data, f"recipe {recipe.name}")


def shrunk(config: ModelConfig) -> ModelConfig:
    """The same structure (variant, layers, heads, frames) at small widths, image and text, for a check in seconds.

    At least two layers: what a token saw in one layer shows in the keys and values of the next.
    """
    video, action = config.video_expert, config.action_expert
    head = min(video.head_dim, MAX_HEAD_DIM)

    def narrow(expert: Any) -> dict[str, object]:
        return {
            **expert.model_dump(), "head_dim": head, "text_dim": min(expert.text_dim, MAX_WIDTH),
            "hidden_dim": min(expert.hidden_dim, MAX_WIDTH), "ffn_dim": min(expert.ffn_dim, 2 * MAX_WIDTH),
            "freq_dim": min(expert.freq_dim, 32), "num_layers": max(expert.num_layers, 2),
        }  # fmt: skip

    frames, height, width = config.latent_grid
    _, rows, columns = video.patch_size
    return config.replace(
        video_expert=narrow(video),
        action_expert=narrow(action),
        latent_grid=(frames, min(height, MAX_SIDE * rows), min(width, MAX_SIDE * columns)),
        action_horizon=min(config.action_horizon, MAX_ACTIONS),
        context_len=min(config.context_len, 6),
        cond_noise_prob=1.0,  # the copy's noise must be in the pass for its gradient to tell
        **({MODE_SHARE: 0.5} if len(config.rules.modes) > 1 else {}),
    )


def check_reach(config: ModelConfig, seed: int = 0) -> list[GroupPair]:
    """Every pair of groups of a training pass and of sampling, on random weights of the `shrunk` configuration.

    Seconds on one CPU thread, also for 30 layers with 24 heads.
    """
    small = shrunk(config)
    model = FastWAM(small, seed=seed)
    model.requires_grad_(False)
    batch, draws = _inputs(small, seed)
    cells: list[GroupPair] = []
    for mode in small.rules.modes:
        cells += _training(model, mode, batch, draws)
    for mode in small.rules.modes:
        cells += _sampling(model, mode, batch, draws)
    return cells


def _inputs(config: ModelConfig, seed: int) -> tuple[Batch, Draws]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    (frames, height, width), channels = config.latent_grid, config.video_expert.in_channels
    batch = Batch(
        first=normal(1, channels, height, width),
        future=normal(1, channels, frames - 1, height, width),
        future_is_pad=torch.zeros(1, frames - 1, dtype=torch.bool),
        context=normal(1, config.context_len, config.video_expert.text_dim),
        proprio=normal(1, config.proprio_dim or 1),
        action=normal(1, config.action_horizon, config.action_expert.action_dim),
        action_is_pad=torch.zeros(1, config.action_horizon, dtype=torch.bool),
    )
    shape = (1, channels, frames, height, width)
    drawn = draw(batch, config.variant, generator, cond_noise_prob=1.0)
    return batch, replace(
        drawn,
        noise_video=normal(*shape) if drawn.noise_video is None else drawn.noise_video,
        noise_cond=normal(*shape) if drawn.noise_cond is None else drawn.noise_cond,
        u_video=torch.full((1,), 0.4),
        u_action=torch.full((1,), 0.6),
    )


def _leaf(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("the check draws every noise")
    return value.detach().requires_grad_()


def _training(model: FastWAM, mode: Mode, batch: Batch, draws: Draws) -> Iterator[GroupPair]:
    """Cells of one training pass of a mode."""
    rules = model.config.rules
    inputs = {
        "first": _leaf(batch.first), "future": _leaf(draws.noise_video), "action": _leaf(draws.noise_action),
        "text": _leaf(batch.context), "state": _leaf(batch.proprio),
    }  # fmt: skip
    may_see = _may_see(rules, mode)[0]
    if rules.copy or "copy" in may_see:
        inputs["copy"] = _leaf(draws.noise_cond)
    held = replace(batch, first=inputs["first"], context=inputs["text"], proprio=inputs["state"])
    drawn = replace(
        draws,
        noise_video=inputs["future"],
        noise_cond=inputs.get("copy"),
        noise_action=inputs["action"],
        mode_uniform=torch.full((1,), 0.0 if mode == rules.modes[0] else 1.0),
    )
    handed: list[Tensor] = []

    def keep(module: object, args: object, result: tuple[Tensor, list[Any]]) -> None:
        handed.extend(part for part in result[1][-1])

    hook = model.video.register_forward_hook(keep)
    try:
        terms = loss_terms(model, held, drawn, all_frames=True)
    finally:
        hook.remove()
    outputs = {"action": (terms.pred_action, may_see)}
    if terms.pred_video is not None:
        outputs["first"] = (terms.pred_video[:, :1], _VIDEO["first"])
        outputs["future"] = (terms.pred_video[:, 1:], _VIDEO["future"])
    tokens = model.config.tokens_per_frame
    if mode.copy:
        outputs["copy"] = (torch.cat([part[:, tokens:] for part in handed]), _VIDEO["copy"])
    elif terms.pred_video is None:
        outputs["first"] = (torch.cat([part[:, -tokens:] for part in handed]), _VIDEO["first"])
    yield from _cells(_phase("train", rules, mode), outputs, _held(model, inputs))


def _held(model: FastWAM, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs that this model reads."""
    return {group: value for group, value in inputs.items() if group != "state" or model.proprio_encoder is not None}


def _phase(phase: str, rules: Variant, mode: Mode) -> str:
    """`train`; `train first-frame` where a variant has several modes."""
    return phase if len(rules.modes) == 1 else f"{phase} {mode.name}"


def _sampling(model: FastWAM, mode: Mode, batch: Batch, draws: Draws) -> Iterator[GroupPair]:
    """Cells of two Euler steps of a mode's sampler."""
    rules = model.config.rules
    inputs = {
        "first": _leaf(batch.first), "future": _leaf(draws.noise_video), "action": _leaf(draws.noise_action),
        "text": _leaf(batch.context), "state": _leaf(batch.proprio),
    }  # fmt: skip
    result = sampled(
        model, inputs["first"], inputs["text"], inputs["state"],
        Noise(action=inputs["action"], video=inputs["future"]), Denoising(steps=2, mode=mode.name),
    )  # fmt: skip
    outputs = {"action": (result.action, _may_see(rules, mode)[1])}
    if result.latents is not None:
        outputs["first"] = (result.latents[:, :, :1], frozenset({"first"}))
        outputs["future"] = (result.latents[:, :, 1:], _VIDEO["future"])
    yield from _cells(_phase("sample", rules, mode), outputs, _held(model, inputs))


def _cells(
    phase: str, outputs: dict[str, tuple[Tensor, frozenset[str]]], inputs: dict[str, Tensor]
) -> Iterator[GroupPair]:
    """One backward pass per output group. A random direction, so that no symmetry hides a path."""
    generator = torch.Generator().manual_seed(7)
    for query in (group for group in GROUPS if group in outputs):
        value, expected = outputs[query]
        along = torch.randn(value.shape, generator=generator)
        found = torch.autograd.grad(
            value, list(inputs.values()), along, allow_unused=True, retain_graph=True
        ) if value.requires_grad else [None] * len(inputs)  # fmt: skip
        for key, gradient in zip(inputs, found, strict=True):
            largest = 0.0 if gradient is None else float(gradient.abs().max())
            yield GroupPair(phase, query, key, key in expected, largest)
