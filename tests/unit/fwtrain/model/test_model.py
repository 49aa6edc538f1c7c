"""Variants, masks, losses and what may flow where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_case import lively, random_batch, small_config
from paths import DATA

from fwdata.errors import ManifestError
from fwtrain.model import VARIANTS, FastWAM, ModelConfig, allowed, draw, training
from fwtrain.recipe import OptimRecipe
from fwtrain.train.optim import Optimizer
from fwtrain.variants import Frames, video_calls

MASKS = np.load(DATA / "fastwam_golden/attention_masks.npz")
KINDS = {
    "video_only": ("fastwam", "video"),
    "fastwam": ("no-video", "train"),
    "joint": ("joint", "train"),
    "idm_infer": ("idm", "infer"),
    "idm_train": ("idm", "train"),
}
ALL = tuple(VARIANTS)


def drawn(batch, variant, seed=3):
    return draw(batch, variant, torch.Generator().manual_seed(seed))


def gradients(model, batch, draws):
    model.zero_grad()
    losses = training.losses(model, batch, draws)
    losses.total.backward()
    return losses, {name: p.grad for name, p in model.named_parameters()}


def no_future(batch):
    return replace(batch, future=None, future_is_pad=None)


# --- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MASKS.files))
def test_masks_equal_the_official_ones(name):
    kind, tag = name.split(".")
    frames, tokens, actions = (int(part[1:]) for part in tag.split("_"))
    mask = allowed(*KINDS[kind], frames, tokens, actions)
    np.testing.assert_array_equal(mask, MASKS[name].astype(bool))


@pytest.mark.parametrize(("variant", "mode"), [(name, mode.name) for name in ALL for mode in VARIANTS[name].modes])
@pytest.mark.parametrize("frames", [2, 3, 5])
def test_block_calls_cover_exactly_the_mask(variant, mode, frames):
    rules, tokens, actions = VARIANTS[variant], 2, 3
    later = frames - 1
    held = Frames(later, 1, later if rules.copy else 0)
    video = held.total * tokens
    blocks = np.zeros((video + actions, video + actions), bool)
    for call in video_calls(held, held.total):
        blocks[call.q0 * tokens : call.q1 * tokens, call.k0 * tokens : call.k1 * tokens] = True
    start, stop = held.span(rules.mode(mode).sees)
    blocks[video:, start * tokens : stop * tokens] = True
    blocks[video:, video:] = True
    future, first = np.arange(later * tokens), np.arange(later * tokens, frames * tokens)
    order = [first, future]
    if rules.copy:
        order += [first, np.arange(frames * tokens, video)]
    ours = np.concatenate([*order, np.arange(video, video + actions)])
    official = allowed(variant, "train", frames, tokens, actions, mode)
    for row, query in enumerate(ours):
        assert set(ours[official[row]]) == set(np.flatnonzero(blocks[query]))


# --- where information flows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["fastwam", "joint", "idm"])
def test_actions_depend_on_future_latents_only_where_the_variant_says(variant):
    model = lively(small_config(variant))
    batch = random_batch(model.config)
    assert batch.future is not None
    batch.future.requires_grad_()
    terms = training.loss_terms(model, batch, drawn(batch, variant))
    (leak,) = torch.autograd.grad(terms.pred_action.square().sum(), batch.future, allow_unused=True)
    reached = leak is not None and bool(leak.ne(0).any())
    assert reached == VARIANTS[variant].needs_future


@pytest.mark.parametrize("variant", ["fastwam", "joint", "idm"])
def test_first_frame_and_video_see_no_more_than_they_may(variant):
    model = lively(small_config(variant))
    batch = random_batch(model.config)
    assert batch.future is not None
    for value in (batch.future, batch.first, batch.action):
        value.requires_grad_()
    terms = training.loss_terms(model, batch, drawn(batch, variant), all_frames=True)
    assert terms.pred_video is not None
    inputs = (batch.future, batch.first, batch.action)

    def reach(output):
        found = torch.autograd.grad(output.square().sum(), inputs, allow_unused=True, retain_graph=True)
        return [value is not None and bool(value.ne(0).any()) for value in found]

    assert reach(terms.pred_video[:, :1]) == [False, True, False]
    assert reach(terms.pred_video[:, 1:]) == [True, True, False]


def test_video_prediction_is_the_same_function_in_every_variant():
    batch = random_batch(small_config())
    draws = drawn(batch, "idm")
    found = [
        training.loss_terms(lively(small_config(name)), batch, draws).pred_video for name in ("fastwam", "joint", "idm")
    ]
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], found[2], rtol=1e-5, atol=1e-5)


# --- losses ----------------------------------------------------------------------------------------------------------


def test_without_video_loss_future_tokens_change_nothing():
    batch = random_batch(small_config())
    draws = drawn(batch, "fastwam")
    off = lively(small_config(lambda_video=0.0))
    with_future, grads = gradients(off, batch, draws)
    without, same = gradients(off, no_future(batch), draws)
    assert float(with_future.video) == 0
    assert torch.equal(with_future.total, without.total)
    for name, value in grads.items():
        assert (value is None and same[name] is None) or torch.equal(value, same[name]), name
    full = training.losses(lively(small_config()), batch, draws)
    torch.testing.assert_close(full.action, without.total, rtol=1e-5, atol=1e-6)
    assert torch.equal(training.losses(lively(small_config("no-video")), batch, draws).total, without.total)


def test_lambdas_scale_the_components():
    batch = random_batch(small_config())
    draws = drawn(batch, "fastwam")
    plain = training.losses(lively(small_config()), batch, draws)
    scaled = training.losses(lively(small_config(lambda_video=0.5, lambda_action=3.0)), batch, draws)
    torch.testing.assert_close(scaled.video, 0.5 * plain.video)
    torch.testing.assert_close(scaled.action, 3.0 * plain.action)
    torch.testing.assert_close(scaled.total, scaled.video + scaled.action)


@pytest.mark.parametrize("variant", ALL)
def test_targets_at_padded_steps_change_neither_loss_nor_gradients(variant):
    """Noise and data move together so that the inputs stay equal while targets change."""
    model = lively(small_config(variant, schedule={"action_shift": 5.0}))
    batch = random_batch(model.config)
    draws = drawn(batch, variant)
    before, grads = gradients(model, batch, draws)
    sigma = 5 * draws.u_action / (1 + 4 * draws.u_action)
    move = 0.3 * batch.action_is_pad.unsqueeze(-1).float()
    shifted = replace(batch, action=batch.action + move)
    noise = draws.noise_action - move * ((1 - sigma) / sigma).view(-1, 1, 1)
    after, same = gradients(model, shifted, replace(draws, noise_action=noise))
    torch.testing.assert_close(after.total, before.total, rtol=1e-4, atol=1e-5)
    for name, value in grads.items():
        if value is not None:
            torch.testing.assert_close(same[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_fully_padded_sample_adds_zero_and_counts_in_the_mean():
    model = lively(small_config())
    batch = random_batch(model.config)
    pad = torch.tensor([[False], [True]])
    padded = replace(
        batch,
        action_is_pad=pad.expand(2, model.config.action_horizon),
        future_is_pad=pad.expand(2, model.config.latent_grid[0] - 1),
    )
    terms = training.loss_terms(model, padded, drawn(batch, "fastwam"))
    losses = training.losses(model, padded, drawn(batch, "fastwam"))
    assert terms.action_per_sample[1].item() == 0
    torch.testing.assert_close(losses.action, terms.action_per_sample[0] * terms.action_weight[0] / 2)


@pytest.mark.parametrize("variant", ["joint", "idm"])
def test_variants_that_need_future_latents_say_so(variant):
    batch = random_batch(small_config())
    with pytest.raises(ValueError, match=f"variant '{variant}' needs future latents"):
        training.losses(lively(small_config(variant)), no_future(batch), drawn(batch, variant))


def test_a_batch_of_other_widths_is_refused():
    batch = random_batch(small_config())
    wrong = replace(batch, action=torch.zeros(2, 8, 6))
    with pytest.raises(ValueError, match="the model has action width 5, this batch has 6"):
        training.losses(lively(small_config()), wrong, drawn(wrong, "fastwam"))


def test_draws_are_a_function_of_the_generator_in_the_official_order():
    batch = random_batch(small_config())
    first, again = drawn(batch, "idm"), drawn(batch, "idm")
    assert torch.equal(first.noise_video, again.noise_video)
    assert torch.equal(first.noise_cond, again.noise_cond)
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(first.noise_video, torch.randn(2, 48, 3, 4, 4, generator=generator))
    assert torch.equal(first.u_video, torch.rand(2, generator=generator))
    assert torch.equal(first.noise_action, torch.randn(2, 8, 5, generator=generator))
    assert torch.equal(first.u_action, torch.rand(2, generator=generator))
    assert torch.equal(first.cond_uniform, torch.rand(2, generator=generator))
    nothing = draw(batch, "idm", torch.Generator().manual_seed(3), cond_noise_prob=0.0)
    assert nothing.u_cond is None
    assert draw(no_future(batch), "fastwam", torch.Generator()).noise_video is None


# --- settings that must not change the result ------------------------------------------------------------------------


@pytest.mark.slow  # the first checkpointed pass imports torch's compiler
@pytest.mark.parametrize("variant", ALL)
def test_gradient_checkpointing_changes_nothing(variant):
    model = lively(small_config(variant))
    batch = random_batch(model.config)
    draws = drawn(batch, variant)
    plain, grads = gradients(model, batch, draws)
    model.gradient_checkpointing = True
    again, same = gradients(model, batch, draws)
    assert torch.equal(plain.total, again.total)
    for name, value in grads.items():
        assert (value is None and same[name] is None) or torch.equal(value, same[name]), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_compiled_layers_change_nothing():
    model = lively(small_config())
    batch = random_batch(model.config)
    draws = drawn(batch, "fastwam")
    plain, grads = gradients(model, batch, draws)
    model.compile_layers(backend="aot_eager")
    again, same = gradients(model, batch, draws)
    torch.testing.assert_close(plain.total, again.total)
    for name, value in grads.items():
        torch.testing.assert_close(value, same[name], rtol=1e-4, atol=1e-5, msg=name)


def test_merged_zero_text_rows_equal_ordinary_ones(monkeypatch):
    model = lively(small_config("joint"))
    batch = random_batch(model.config)
    draws = drawn(batch, "joint")
    merged, grads = gradients(model, batch, draws)
    monkeypatch.setattr("fwtrain.batch.used_rows", lambda context: context.shape[1])
    batch = random_batch(model.config)
    plain, same = gradients(model, batch, draws)
    torch.testing.assert_close(merged.total, plain.total, rtol=1e-6, atol=1e-6)
    for name, value in grads.items():
        torch.testing.assert_close(value, same[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("variant", ALL)
def test_bf16_parameters_and_autocast_stay_close_to_float32(variant):
    config = small_config(variant)
    batch = random_batch(config)
    draws = drawn(batch, variant)
    exact = training.losses(lively(config), batch, draws)
    half = training.losses(lively(config).to(torch.bfloat16), batch, draws)
    assert half.total.dtype == torch.float32
    assert float(half.total.detach()) == pytest.approx(float(exact.total.detach()), rel=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = training.losses(lively(config), batch, draws)
    assert mixed.total.dtype == torch.float32
    assert float(mixed.total.detach()) == pytest.approx(float(exact.total.detach()), rel=0.05)


def test_initial_weights_are_a_function_of_the_seed():
    one, same, other = (FastWAM(small_config(), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["mixtures.action.head.weight"], other["mixtures.action.head.weight"])
    assert all(bool(torch.isfinite(value).all()) for value in one.values())


@pytest.mark.slow
def test_a_tiny_model_learns():
    config = small_config()
    model, batch = FastWAM(config), random_batch(config, size=4)
    draws = drawn(batch, "fastwam")
    optimizer = Optimizer(model, OptimRecipe(steps=30))
    losses = []
    for _ in range(30):
        loss = training.losses(model, batch, draws).total
        loss.backward()
        optimizer.step(3e-3)
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


# --- configuration ---------------------------------------------------------------------------------------------------


def test_released_size_has_the_published_parameter_count():
    config = ModelConfig.wan22_5b(7, 8)
    with torch.device("meta"):
        model = FastWAM(config, seed=None, device="meta")
    assert sum(p.numel() for p in model.video.parameters()) == 4_999_787_712
    assert sum(p.numel() for p in model.action.parameters()) == 1_020_886_023
    assert len(dict(model.video.named_parameters())) == 825
    assert len(dict(model.action.named_parameters())) == 824
    assert model.num_parameters() == 4_999_787_712 + 1_020_886_023 + 9 * 4096


def test_configuration_survives_json():
    config = small_config("idm", lambda_video=0.25)
    assert ModelConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "jiont"}, "unknown variant 'jiont'; did you mean 'joint'"),
        ({"latent_grid": (3, 5, 4)}, "divide into patches of 2 x 2"),
        ({"lambda_video": -1.0}, "lambda_video"),
        ({"lambda_vidoe": 1.0}, "did you mean 'lambda_video'"),
    ],
)
def test_wrong_configurations_are_refused_in_one_sentence(change, message):
    with pytest.raises(ManifestError, match=message):
        small_config().replace(**change)


def test_experts_must_agree():
    data = small_config().model_dump()
    data["action_expert"]["num_layers"] = 5
    with pytest.raises(ManifestError, match=r"same num_layers, found 2 \(video\) and 5 \(action\)"):
        small_config().replace(action_expert=data["action_expert"])
