"""What the benchmarks compare is the same work: equal losses, gradients and actions; no time is asserted."""

from __future__ import annotations

import pytest
import torch
from fake_store import FakeStore
from model_case import lively, random_batch, small_config

from fwtrain.bench.cases import SIZES, Size, size_config
from fwtrain.bench.lerobot import core_actions, core_losses, lerobot_core
from fwtrain.bench.timing import interleaved
from fwtrain.bench.unshared import unshared_idm_losses
from fwtrain.model import FastWAM, Noise, allowed, draw, sampling, training
from fwtrain.weights.names import lerobot_from_ours

LITTLE = Size((24, 48), (16, 32), 2, 2, 12, 10, 2)


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("cond_noise_prob", [0.0, 0.5, 1.0])
def test_idm_shares_frame_0_without_changing_losses_or_gradients(cond_noise_prob):
    model = lively(small_config("idm", cond_noise_prob=cond_noise_prob))
    batch = random_batch(model.config, size=3)
    draws = draw(batch, "idm", torch.Generator().manual_seed(2), cond_noise_prob=cond_noise_prob)
    shared = training.losses(model, batch, draws)
    shared.total.backward()
    one = gradients(model)
    model.zero_grad()
    twice = unshared_idm_losses(model, batch, draws)
    twice.total.backward()
    torch.testing.assert_close(shared.video, twice.video, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shared.action, twice.action, rtol=1e-5, atol=1e-6)
    for name, value in gradients(model).items():
        torch.testing.assert_close(one[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow  # imports lerobot
@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("variant", ["fastwam", "joint", "idm"])
def test_lerobots_blocks_give_the_same_predictions_losses_and_gradients(variant):
    model = lively(small_config(variant), seed=4)
    core = lerobot_core(model)
    batch = random_batch(model.config, size=3)
    draws = draw(batch, "idm", torch.Generator().manual_seed(1))
    theirs = core_losses(core, batch, draws, variant)
    terms = training.loss_terms(model, batch, draws, all_frames=True)
    pred_video = model.video.unpatchify(terms.pred_video, *batch.first.shape[2:])
    torch.testing.assert_close(pred_video, theirs.pred_video, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(terms.pred_action, theirs.pred_action, rtol=1e-4, atol=1e-4)
    ours = training.losses(model, batch, draws)
    torch.testing.assert_close(ours.video, theirs.video, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.action, theirs.action, rtol=1e-5, atol=1e-6)
    ours.total.backward()
    theirs.total.backward()
    found = {f"model.{name}": p.grad for name, p in core.named_parameters()}
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, found[lerobot_from_ours(name)], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow  # imports lerobot
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_no_video_equals_the_core_with_lambda_video_0_and_samples_the_same_actions():
    model = lively(small_config("no-video"), seed=4)
    core = lerobot_core(model)
    batch = random_batch(model.config, size=2)
    draws = draw(batch, "fastwam", torch.Generator().manual_seed(1))
    theirs, ours = core_losses(core, batch, draws, video_weight=0.0), training.losses(model, batch, draws)
    torch.testing.assert_close(ours.total, theirs.total, rtol=1e-5, atol=1e-6)
    ours.total.backward()
    theirs.total.backward()
    found = {f"model.{name}": p.grad for name, p in core.named_parameters()}
    for name, value in gradients(model).items():
        expected = found[lerobot_from_ours(name)]
        if value is None:
            assert not bool(expected.any()), name
        else:
            torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-4, msg=name)
    noise = torch.randn(1, 8, 5, generator=torch.Generator().manual_seed(2))
    actions = sampling.sample(
        model, batch.first[:1], batch.context[:1], batch.proprio[:1], Noise(action=noise), video=False
    ).action
    torch.testing.assert_close(actions[0], core_actions(core, batch, 0, noise, 10), rtol=0, atol=1e-4)


@pytest.mark.slow  # imports lerobot
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_the_core_builds_the_mask_of_our_table():
    core = lerobot_core(lively(small_config()))
    mask = core._build_mot_attention_mask(12, 8, 4, torch.device("cpu"))
    assert torch.equal(mask, torch.from_numpy(allowed("fastwam", "train", 3, 4, 8)))


@pytest.mark.slow  # imports lerobot
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_the_bench_compares_equal_work():
    from fwtrain.bench.train import AGREE, Bench, bench_data_wait, bench_steps

    done = []
    ratios = bench_steps(Bench(LITTLE), 1, done.append)
    assert len(ratios) == 8
    assert all(r.difference is None or r.difference < AGREE for r in ratios), ratios
    assert all(r.ours.best > 0 and r.best > 0 and r.median > 0 for r in ratios)
    assert sum(done) == 2 * 12
    assert 0 <= bench_data_wait(FakeStore(), LITTLE, steps=3) <= 1


def test_sizes_are_what_they_are_called():
    assert FastWAM(size_config(SIZES["50m"]), seed=None, device="meta").num_parameters() == pytest.approx(50e6, rel=0.1)
    assert FastWAM(size_config(SIZES["tiny"]), seed=None, device="meta").num_parameters() < 2e6


def test_repetitions_take_turns_after_one_warm_up():
    order = []
    times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 4
    assert all(t.repeats == 3 and t.best <= t.median for t in times.values())
