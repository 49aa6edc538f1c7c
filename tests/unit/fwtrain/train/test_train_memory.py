"""Ways to need less memory: gradient checkpointing, a frozen expert, adapters, 8-bit moments. All train and resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_store import FakeStore
from hypothesis import given, settings
from hypothesis import strategies as st
from model_case import lively, random_batch, small_config
from training import assert_same_run, losses, recipe, run, small_model, tensors

from fwdata.errors import ManifestError, StoreDamaged, UsageError
from fwtrain.export import export_official
from fwtrain.infer.predict import predict
from fwtrain.model import Draws, draw, load_model, training
from fwtrain.recipe import LoraRecipe, OptimRecipe, load_recipe
from fwtrain.train.checkpoint import latest
from fwtrain.train.folder import FROZEN, RunFolder
from fwtrain.train.lora import add_adapters, merge_adapters
from fwtrain.train.moments import BLOCK, code_values, pack, unpack
from fwtrain.train.optim import Optimizer
from fwtrain.train.weights import load_trained
from fwtrain.weights.names import official_tensors

LORA = ("lora.rank=4", "lora.alpha=8")


def case(variant: str = "fastwam"):
    """A model, a batch and its draws."""
    config = small_config(variant)
    model, batch = lively(config), random_batch(config, 3)
    return model, batch, draw(batch, variant, torch.Generator().manual_seed(0))


def gradients(model, batch, draws: Draws) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(training.losses, batch, draws).total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "overrides",
    [
        ("freeze=video",),
        ("optim.moments=8bit",),
        pytest.param(LORA, marks=pytest.mark.slow),
        pytest.param(("lora.experts=[action]",), marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_equals_an_uninterrupted_one_and_the_loss_falls(tmp_path: Path, overrides: tuple[str, ...]):
    extra = (*overrides, "optim.steps=30", "optim.lr=2e-2", "save_every=30", "eval_every=30", "optim.batch_size=8")
    run(tmp_path / "whole", *extra)
    assert run(tmp_path / "stopped", *extra, stop_after=13).step == 13
    run(tmp_path / "stopped", *extra)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    action = [line["action"] for line in losses(tmp_path / "whole")]
    assert np.mean(action[-8:]) < 0.9 * np.mean(action[:8])


def test_gradient_checkpointing_changes_no_bit_and_may_be_switched_on_resume(tmp_path: Path):
    run(tmp_path / "kept", "model.variant=idm")
    run(tmp_path / "again", "model.variant=idm", "gradient_checkpointing=true", stop_after=2)
    assert run(tmp_path / "again", "model.variant=idm").finished
    assert_same_run(tmp_path / "kept", tmp_path / "again")
    model, batch, draws = case("joint")
    kept = gradients(model, batch, draws)
    model.gradient_checkpointing = True
    again = gradients(model, batch, draws)
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[name], again[name]) for name in kept)


@pytest.mark.parametrize("variant", ["fastwam", "idm"])
def test_a_frozen_video_expert_gets_no_gradient_and_keeps_no_activation(variant: str):
    model, batch, draws = case(variant)
    whole = gradients(model, batch, draws)
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        model(training.losses, batch, draws)
    before = sum(t.nbytes for t in saved)
    model.freeze_video()
    saved.clear()
    seen: list[torch.Tensor] = []
    model.video.register_forward_hook(lambda module, inputs, output: seen.extend(pair.k for pair in output[1]))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        losses = model(training.losses, batch, draws)
    assert sum(t.nbytes for t in saved) < 0.6 * before
    assert float(losses.video) == 0
    assert seen
    assert not any(keys.requires_grad for keys in seen)  # nothing flows back through the video expert
    frozen = gradients(model, batch, draws)
    assert set(frozen) == {name for name in whole if not name.startswith("mixtures.video.")}
    for name in frozen:  # the proprioception token reaches the loss through the action expert alone
        if name.startswith("mixtures.action."):
            torch.testing.assert_close(frozen[name], whole[name], rtol=1e-4, atol=1e-5)


def test_frozen_parameters_are_written_once_and_have_no_optimizer_state(tmp_path: Path):
    run(tmp_path, "freeze=video")
    saved = tensors(tmp_path)
    assert not [name for name in saved if "mixtures.video." in name]
    folder = RunFolder(tmp_path)
    model = load_trained(folder, folder.need_checkpoint())
    start = dict(small_run_model(tmp_path).named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, start[name]) == name.startswith("mixtures.video."), name


def small_run_model(out: Path):
    """The freshly initialised model of a run."""
    from fwtrain.train.build import build_model

    return build_model(RunFolder(out).info().model, recipe().seed)


def test_freeze_video_reads_no_future_latents(tmp_path: Path):
    store = FakeStore(val=0)
    run(tmp_path, "freeze=video", store=store)
    assert store.cache.future_calls == 0


def test_a_damaged_file_of_frozen_parameters_is_refused(tmp_path: Path):
    run(tmp_path, "freeze=video", stop_after=2)
    data = bytearray((tmp_path / FROZEN).read_bytes())
    data[-1] ^= 1
    (tmp_path / FROZEN).write_bytes(data)
    with pytest.raises(UsageError, match=r"frozen\.safetensors is damaged"):
        run(tmp_path, "freeze=video")


@pytest.mark.slow  # importing peft takes seconds
def test_adapters_start_as_nothing_and_merge_into_official_names():
    model, batch, draws = case()
    names, before = set(model.state_dict()), model(training.losses, batch, draws).total
    add_adapters(model, LoraRecipe(rank=3, alpha=6), seed=0)
    assert torch.equal(model(training.losses, batch, draws).total, before)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert {name for name in trained if "lora_" not in name} == {
        f"{module}.{leaf}"
        for module in ("proprio_encoder", "mixtures.action.action_encoder", "mixtures.action.head")
        for leaf in ("weight", "bias")
    }
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    adapted = model(training.losses, batch, draws).total
    assert not torch.allclose(adapted, before)
    with pytest.raises(UsageError, match=r"lora\.full: no parameter of the model begins with 'heads'"):
        add_adapters(small_model(), LoraRecipe(full=("heads",)), seed=0)
    merge_adapters(model)
    assert set(model.state_dict()) == names
    torch.testing.assert_close(model(training.losses, batch, draws).total, adapted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_run_with_adapters_predicts_and_exports_whole_weights(tmp_path: Path):
    run(tmp_path / "run", *LORA)
    held = latest(tmp_path / "run" / "checkpoints").model_tensors()
    assert all("lora_" in name or name.startswith(recipe(*LORA).lora.full) for name in held)
    folder = RunFolder(tmp_path / "run")
    model = load_trained(folder, folder.need_checkpoint("best"))
    assert set(model.state_dict()) == set(small_run_model(tmp_path / "run").state_dict())
    assert predict(tmp_path / "run", FakeStore(), 0, 3, checkpoint="best", device="cpu").action.shape == (32, 14)
    export_official(tmp_path / "run", tmp_path / "merged.pt", "last")
    merged = load_trained(folder, folder.need_checkpoint()).state_dict()
    exported = official_tensors(tmp_path / "merged.pt")
    assert all(torch.equal(exported[name], merged[name]) for name in merged)
    with pytest.raises(StoreDamaged, match="misses 79 tensors"):
        load_model(latest(tmp_path / "run" / "checkpoints").path)


def test_lora_needs_a_layer_that_exists_and_excludes_freeze():
    with pytest.raises(ManifestError, match=r"no layer 'self_attn.qq'; did you mean 'self_attn.q'"):
        load_recipe("tiny", ["lora.targets=[self_attn.qq]"])
    with pytest.raises(ManifestError, match="lora freezes the base already"):
        load_recipe("tiny", ["lora.rank=4", "freeze=video"])


@given(st.integers(1, 6), st.integers(1, 3 * BLOCK), st.integers(-30, 30), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_quantised_values_are_near_and_positive_ones_quantise_to_themselves(rows, width, power, signed, seed):
    values = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 2.0**power
    values = values if signed else values.square()
    packed = pack(values, signed=signed)
    near = unpack(packed, signed=signed)
    largest = packed.scale.repeat_interleave(BLOCK, 1)[:, :width]
    assert ((near - values).abs() <= (0.0142 if signed else 0.0071) * largest * 1.001).all()
    assert ((near == 0) == (values == 0)).all() or signed
    if not signed:  # the signed map ends at -0.993: there a block whose largest value is negative shrinks
        again = pack(near, signed=signed)
        assert torch.equal(again.codes, packed.codes)
        assert torch.equal(again.scale, packed.scale)


def test_code_values_are_the_published_map():
    signed, unsigned = code_values(True), code_values(False)
    assert len(signed) == len(unsigned) == 256
    assert len(signed.unique()) == len(unsigned.unique()) == 256
    assert (signed.min(), signed.max(), unsigned.min(), unsigned.max()) == (pytest.approx(-0.9929688), 1, 0, 1)
    # decade by decade, twice as many values as in the one below (arXiv 2110.02861)
    assert [int(((unsigned > 10.0**-k) & (unsigned < 10.0 ** (1 - k))).sum()) for k in (1, 2, 7)] == [128, 64, 2]


def test_eight_bit_moments_take_two_bytes_and_step_like_float32():
    weights = []
    for moments in ("fp32", "8bit"):
        model = torch.nn.Linear(256, 64)
        optimizer = Optimizer(model, OptimRecipe(steps=1, moments=moments, weight_decay=0))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            model.weight.zero_()
        for _ in range(50):
            model.weight.grad = torch.randn(64, 256, generator=generator) + 0.5
            optimizer.step(1e-2)
        weights.append(model.weight.detach().clone())
        held = sum(p.tensor.nbytes for p in optimizer.parts() if p.name.startswith("exp_avg"))
        assert held == model.weight.numel() * 8 if moments == "fp32" else held < model.weight.numel() * 2.05
    error = (weights[0] - weights[1]).abs() / weights[0].abs().mean()
    assert error.mean() < 0.03
    assert error.max() < 0.3


def reference_adamw(weight: torch.Tensor, grads: list[torch.Tensor], recipe: OptimRecipe, lr: float) -> torch.Tensor:
    """`weight` after one step of AdamW per gradient, by its formula (Loshchilov and Hutter, arXiv 1711.05101)."""
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    (b1, b2), weight = recipe.betas, weight.clone()
    for t, grad in enumerate(grads, 1):
        weight *= 1 - lr * recipe.weight_decay
        first = b1 * first + (1 - b1) * grad
        second = b2 * second + (1 - b2) * grad**2
        weight -= lr * (first / (1 - b1**t)) / ((second / (1 - b2**t)).sqrt() + recipe.eps)
    return weight


@pytest.mark.slow
@pytest.mark.parametrize("moments", ["fp32", "8bit"])
@pytest.mark.parametrize("shape", [(3072, 192), (1024, 14), (256, 16), (300, 16), (512, 3, 5), (17, 257), (64, 256)])
def test_moments_step_like_the_formula_whatever_the_shape(shape: tuple[int, ...], moments: str):
    """Rows of 14, 16, 192 or 257 values do not fill their blocks of 256: the padding must not shift the rest."""
    recipe = OptimRecipe(steps=1, moments=moments, weight_decay=0.1, clip=None)
    generator = torch.Generator().manual_seed(0)
    row_means = torch.linspace(-1, 1, shape[0]).reshape(-1, *(1 for _ in shape[1:]))
    grads = [torch.randn(shape, generator=generator) * 0.3 + row_means for _ in range(10)]
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.randn(shape, generator=generator))
    expected = reference_adamw(model.weight.detach(), grads, recipe, 1e-2)
    optimizer = Optimizer(model, recipe)
    for grad in grads:
        model.weight.grad = grad.clone()
        optimizer.step(1e-2)
    error = (model.weight.detach() - expected).abs() / (10 * 1e-2)  # of the longest way ten steps go
    assert error.max() < (1e-5 if moments == "fp32" else 0.35)
    assert error.mean() < (1e-6 if moments == "fp32" else 0.01)


@pytest.mark.parametrize("shape", [(3072, 192), (1024, 14), (256, 16)])
@pytest.mark.parametrize("signed", [True, False])
def test_unpacked_moments_are_flat_memory(shape: tuple[int, ...], signed: bool):
    """The fused kernel reads its tensors as flat memory and ignores strides."""
    values = torch.rand(shape)
    unpacked = unpack(pack(values, signed=signed), signed=signed)
    assert unpacked.is_contiguous()
    assert (unpacked - values).abs().max() < 0.015


def test_gradients_of_other_strides_are_read_as_they_are():
    grad = torch.arange(12.0).reshape(4, 3) - 5.5
    stepped = []
    for given_grad in (grad, grad.T.contiguous().T):
        model = torch.nn.Linear(3, 4, bias=False)
        torch.nn.init.zeros_(model.weight)
        model.weight.grad = given_grad.clone()
        Optimizer(model, OptimRecipe(steps=1, eps=1.0)).step(1e-2)
        stepped.append(model.weight.detach().clone())
    assert torch.equal(*stepped)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3072, 192), (1024, 14), (256, 16)])
def test_training_with_eight_bit_moments_does_not_diverge(shape: tuple[int, int]):
    """A least-squares layer is fitted as closely as with float32 moments."""
    distances = {}
    for moments in ("fp32", "8bit"):
        generator = torch.Generator().manual_seed(1)
        model = torch.nn.Linear(shape[1], shape[0], bias=False)
        torch.nn.init.zeros_(model.weight)
        target = torch.randn(shape, generator=generator)
        optimizer = Optimizer(model, OptimRecipe(steps=1, moments=moments, weight_decay=0))
        for step in range(60):
            inputs = torch.randn(32, shape[1], generator=generator)
            (inputs @ (model.weight - target).T).square().mean().backward()
            optimizer.step(0.1 * (1 - step / 60))
        distances[moments] = float((model.weight.detach() - target).square().mean())
    assert distances["fp32"] < 0.1
    assert distances["8bit"] < 1.2 * distances["fp32"] + 1e-3
