"""The model against a literal one in float64, over sizes that the recorded references do not have."""

from __future__ import annotations

import random
from dataclasses import fields, replace

import pytest
import torch
from literal_fastwam import Literal, literal_losses, literal_sample
from model_case import lively, random_batch

from fwtrain.model import VARIANTS, Denoising, ModelConfig, Noise, draw, sampling, training

ALL = tuple(VARIANTS)


def config_of(seed: int) -> ModelConfig:
    """Sizes by a seed: odd head counts, any frames, patches, channels, widths, shifts; with a state or without."""
    pick = random.Random(seed).choice
    heads, head_dim, channels = pick([1, 2, 3, 5]), pick([6, 8, 10, 12, 32, 64]), pick([4, 16, 48])
    common = {
        "freq_dim": pick([8, 32]), "text_dim": pick([5, 10, 40]), "num_heads": heads, "head_dim": head_dim,
        "num_layers": pick([1, 2, 3]), "eps": pick([1e-6, 1e-5]),
    }  # fmt: skip
    video = {
        **common, "in_channels": channels, "out_channels": channels, "hidden_dim": pick([heads * head_dim, 20, 24]),
        "ffn_dim": pick([33, 64]), "patch_size": pick([(1, 2, 2), (1, 2, 2), (1, 1, 2), (1, 2, 1)]),
    }  # fmt: skip
    action = {**common, "action_dim": pick([1, 7, 14]), "hidden_dim": pick([8, 18, 36]), "ffn_dim": pick([17, 50])}
    schedule = {
        "video_shift": pick([5.0, 3.0, 1.0]), "action_shift": pick([5.0, 2.0]),
        "num_train_timesteps": pick([1000, 1000, 500]),
    }  # fmt: skip
    return ModelConfig(
        video_expert=video, action_expert=action, proprio_dim=pick([None, 1, 8]), action_horizon=pick([4, 8, 16]),
        context_len=pick([1, 2, 7, 12]), latent_grid=(pick([1, 2, 3, 5]), *pick([(2, 4), (4, 4), (6, 4)])),
        schedule=schedule, lambda_video=pick([1.0, 0.3]), lambda_action=pick([1.0, 2.0]),
        cond_noise_prob=pick([0.0, 0.5, 1.0]),
    )  # fmt: skip


def doubled(item):
    """A Batch or Draws in float64."""
    values = {field.name: getattr(item, field.name) for field in fields(item) if field.init}
    return replace(item, **{k: v.double() for k, v in values.items() if torch.is_tensor(v) and v.is_floating_point()})


def compare(variant: str, seed: int) -> None:
    """Losses, every gradient, and samples on the configured and on another grid, to float32 round-off."""
    model = lively(config_of(seed).replace(variant=variant), seed)
    config = model.config
    batch = random_batch(config, size=1 + seed % 3, seed=seed)
    draws = draw(batch, "optional-idm", torch.Generator().manual_seed(seed), cond_noise_prob=config.cond_noise_prob)
    tensors = {name: p.detach().double().requires_grad_() for name, p in model.named_parameters()}
    literal = Literal(tensors, config)
    losses, (video, action) = (
        training.losses(model, batch, draws),
        literal_losses(literal, doubled(batch), doubled(draws)),
    )
    for found, expected in ((losses.video, video), (losses.action, action)):
        assert apart(found, expected) < 5e-4
    losses.total.backward()
    (video + action).backward()
    norms = {name: float(t.grad.norm()) if t.grad is not None else 0.0 for name, t in tensors.items()}
    largest = max(norms.values())
    for name, parameter in model.named_parameters():
        zero = torch.zeros_like(tensors[name])
        found, expected = (zero if grad is None else grad for grad in (parameter.grad, tensors[name].grad))
        assert float((found - expected).norm()) <= 2e-3 * max(norms[name], 1e-3 * largest), name
    generator = torch.Generator().manual_seed(3)
    noise, noise_video = (
        torch.randn(shape, generator=generator) for shape in (batch.action.shape, (len(batch), *video_shape(config)))
    )
    for steps, shift in ((10, None), (3, 2.0)):
        result = sampling.sample(
            model,
            batch.first,
            batch.context,
            batch.proprio,
            Noise(action=noise, video=noise_video),
            Denoising(steps=steps, video_shift=shift, action_shift=shift),
        )
        given = (batch.first, batch.context, batch.proprio, noise, noise_video)
        expected = literal_sample(literal, *(value.double() for value in given), steps, shift)
        assert result.latents is not None
        assert max(apart(result.action, expected[0]), apart(result.latents, expected[1])) < 5e-4


def apart(found, expected):
    """Largest difference over largest expected value."""
    scale = float(expected.detach().abs().max())
    return float((found.double() - expected).detach().abs().max()) / (scale or 1.0)


def video_shape(config):
    return (config.video_expert.in_channels, *config.latent_grid)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ALL)
@pytest.mark.parametrize("seed", [0, 7, 13, 14])
def test_losses_gradients_and_samples_equal_a_literal_model(variant, seed):
    compare(variant, seed)


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=pytest.mark.slow if n < 28 else pytest.mark.fault) for n in range(20, 44)]
)
def test_more_sizes(seed):
    """24 sizes; 16 of them under -m fault."""
    for variant in ALL:
        compare(variant, seed)
