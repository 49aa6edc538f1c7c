"""parity: official rounds what the official run rounds; the default stays float32."""

from __future__ import annotations

import json

import pytest
import torch
from fake_store import FakeStore
from model_case import lively, random_batch, small_config
from paths import DATA
from training import SMALL

from fwdata.errors import ManifestError
from fwtrain.data import open_source
from fwtrain.model import Denoising, Noise, draw, flow, sampling, training
from fwtrain.recipe import load_recipe
from fwtrain.train.build import model_config

GOLDEN = json.loads((DATA / "fastwam_golden/scheduler.json").read_text())
BF16 = torch.bfloat16
ROUNDED = {"rounding": "bfloat16"}


@pytest.mark.parametrize("case", [c for c in GOLDEN["schedules"] if "timesteps_bf16" in c], ids=lambda c: c["shift"])
def test_rounded_grids_are_the_official_ones(case):
    grid = flow.euler_grid(case["steps"], case["shift"], dtype=BF16)
    assert grid.timesteps.tolist() == case["timesteps_bf16"]
    assert grid.deltas.tolist() == case["deltas_bf16"]
    assert sum(grid.deltas.tolist()) == pytest.approx(case["sum_deltas_bf16"], abs=1e-9)


def test_the_published_grid_of_ten_steps():
    grid = flow.euler_grid(10, 5.0, dtype=BF16)
    assert grid.timesteps.tolist() == [1000, 980, 952, 920, 884, 832, 768, 680, 556, 358]
    assert sum(grid.deltas.tolist()) == pytest.approx(-0.99976, abs=5e-6)


def seen_times(model, batch, draws):
    """Timesteps that the two experts embed in one training pass."""
    found = {}
    for name in ("video", "action"):
        expert = getattr(model, name)
        plain = expert.times
        expert.times = lambda t, name=name, plain=plain: found.setdefault(name, t) is None or plain(t)
    training.loss_terms(model, batch, draws)
    return found


@pytest.mark.parametrize("variant", ["fastwam", "idm"])
def test_training_times_are_rounded_and_only_then(variant):
    batch = random_batch(small_config(), size=8)
    draws = draw(batch, variant, torch.Generator().manual_seed(3))
    exact = seen_times(lively(small_config(variant)), batch, draws)
    rounded = seen_times(lively(small_config(variant, schedule=ROUNDED)).to(BF16), batch, draws)
    for name in ("video", "action"):
        assert exact[name].dtype == torch.float32
        assert rounded[name].dtype == BF16
        assert torch.equal(rounded[name], exact[name].to(BF16))
        large = exact[name][exact[name] > 512]
        assert bool((rounded[name][rounded[name] > 512].float() % 4 == 0).all())
        assert not bool((large % 4 == 0).all())


def test_losses_of_both_settings_are_close_but_not_equal():
    batch = random_batch(small_config())
    draws = draw(batch, "fastwam", torch.Generator().manual_seed(3))
    one = training.losses(lively(small_config()).to(BF16), batch, draws).total
    other = training.losses(lively(small_config(schedule=ROUNDED)).to(BF16), batch, draws).total
    assert other.dtype == torch.float32
    assert float(one.detach()) == pytest.approx(float(other.detach()), rel=0.15)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("variant", ["fastwam", "joint", "idm"])
def test_the_euler_state_is_rounded_after_every_step(variant):
    def states(**changes):
        model = lively(small_config(variant, **changes)).to(BF16)
        batch, found = random_batch(model.config), []
        result = sampling.sample(
            model, batch.first, batch.context, batch.proprio,
            Noise(generator=torch.Generator().manual_seed(0)), Denoising(steps=3),
            observe=lambda name, step, value: found.append(value) if name in ("action", "video") else None,
        )  # fmt: skip
        assert result.action.dtype == result.latents.dtype == torch.float32
        return found, result

    rounded, result = states(schedule=ROUNDED)
    assert {value.dtype for value in rounded} == {BF16}
    assert torch.equal(result.action, result.action.to(BF16).float())
    exact, result = states()
    assert {value.dtype for value in exact} == {torch.float32}
    assert not torch.equal(result.action, result.action.to(BF16).float())


@pytest.mark.slow  # imports lerobot
@pytest.mark.filterwarnings("ignore")
def test_bits_of_lerobots_scheduler_in_bf16():
    from lerobot.policies.fastwam.wan.video_dit import WanContinuousFlowMatchScheduler

    theirs = WanContinuousFlowMatchScheduler()
    generator = torch.Generator().manual_seed(1)
    u, x, noise = (
        draw(shape, generator=generator) for draw, shape in ((torch.rand, (64,)), *[(torch.randn, (64, 9))] * 2)
    )
    t = (theirs._phi(u, 5.0) * 1000.0).to(BF16)
    sigma, ours = flow.training_times(u, 5.0, 1000, BF16)
    assert torch.equal(ours, t)
    noisy, target = flow.noised(x, noise, sigma)
    assert torch.equal(noisy, theirs.add_noise(x.to(BF16), noise.to(BF16), t))
    assert torch.equal(target, theirs.training_target(x.to(BF16), noise.to(BF16), t))
    assert torch.equal(flow.loss_weight(ours, 5.0), theirs.training_weight(t))
    times, deltas = theirs.build_inference_schedule(10, torch.device("cpu"), BF16)
    grid = flow.euler_grid(10, 5.0, dtype=BF16)
    assert torch.equal(grid.timesteps, times)
    assert torch.equal(grid.deltas, deltas)
    for delta in grid.deltas:
        assert torch.equal(flow.euler_step(noisy, target, float(delta)), theirs.step(target, delta, noisy))


def test_the_recipe_key_reaches_the_model_and_its_sampling():
    def config(*overrides):
        recipe = load_recipe("tiny", [*SMALL, *overrides])
        return model_config(recipe, open_source(FakeStore(), recipe))

    assert config().schedule.rounding == "float32"
    assert config("precision=bf16", "parity=official").schedule.rounding == "bfloat16"
    with pytest.raises(ManifestError, match="parity: official is a bf16 run, found precision fp32"):
        config("parity=official")
    with pytest.raises(ManifestError, match="parity"):
        config("precision=bf16", "parity=exact")
