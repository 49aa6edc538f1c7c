"""What only a GPU can show: `pytest -m gpu`. FWTRAIN_TEST_DEVICE=cpu runs the same code without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fake_store import FakeStore
from gpu_figures import FIGURES, MARKS, milliseconds
from gpu_figures import device as device
from model_case import lively, random_batch, small_config
from training import losses, recipe, run

from fwtrain.bench.cases import random_batch as full_batch
from fwtrain.model import Denoising, FastWAM, Graphs, ModelConfig, Noise, draw, sample
from fwtrain.model import losses as model_losses
from fwtrain.recipe import OptimRecipe, load_recipe
from fwtrain.train.build import prepare
from fwtrain.train.memory import MemoryPlan
from fwtrain.train.optim import Optimizer
from fwtrain.train.run import train

pytestmark = MARKS


def trained(config: ModelConfig, device: torch.device, *overrides: str, layers: int = 2) -> Callable[[], torch.Tensor]:
    """A whole step of a model of few layers."""
    chosen = load_recipe("libero", ["model.init=null", *overrides])
    model = FastWAM(shallow(config, layers), seed=0, device=device, dtype=torch.bfloat16)
    prepare(model, chosen)
    optimizer = Optimizer(model, chosen.optim)
    batch = full_batch(model.config, 4)
    draws = draw(batch, config.variant, torch.Generator().manual_seed(0))
    if device.type == "cuda":
        batch, draws = batch.pinned(), draws.pinned()

    def step() -> torch.Tensor:
        found = model(model_losses, batch.to(device), draws).total
        found.backward()
        optimizer.step(1e-4)
        return found.detach()

    return step


def shallow(config: ModelConfig, layers: int) -> ModelConfig:
    experts = {name: getattr(config, name) for name in ("video_expert", "action_expert")}
    return config.model_copy(update={k: e.model_copy(update={"num_layers": layers}) for k, e in experts.items()})


def width(device: torch.device) -> ModelConfig:
    """The published widths on a GPU, small ones elsewhere."""
    return ModelConfig.wan22_5b(7, 8) if device.type == "cuda" else small_config()


@pytest.mark.parametrize("overrides", [(), ("optim.moments=8bit", "gradient_checkpointing=true")])
def test_a_step_never_waits_and_its_loss_falls(device: torch.device, overrides: tuple[str, ...]) -> None:
    step = trained(width(device), device, *overrides)
    first = float(step())
    step()
    mode = torch.cuda.get_sync_debug_mode() if device.type == "cuda" else 0
    try:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")  # torch raises at anything that waits for the device
        for _ in range(5):
            last = step()
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode(mode)
    assert float(last) < first
    FIGURES.append((", ".join(("a step of 2 layers, 4 windows", *overrides)), f"{milliseconds(step, device):.1f} ms"))


@pytest.mark.parametrize("overrides", [(), ("optim.moments=8bit", "gradient_checkpointing=true"), ("freeze=video",)])
def test_the_planned_memory_is_what_a_step_takes(device: torch.device, overrides: tuple[str, ...]) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    step = trained(width(device), device, *overrides, layers=4)
    for _ in range(3):
        step()
    alone = ("model.init=null", "optim.accumulation=1", "validation.windows=0")
    chosen = load_recipe("libero", [*alone, *overrides])
    planned = MemoryPlan(chosen, shallow(width(device), 4)).at(4).total
    if device.type == "cuda":
        measured = torch.cuda.max_memory_allocated(device) - before
        what = ", ".join(("4 layers, 4 windows", *overrides))
        FIGURES.append((f"memory of a step, {what}", f"{measured / 2**30:.2f} GiB, planned {planned / 2**30:.2f}"))
        assert measured == pytest.approx(planned, rel=0.15)
    assert planned > 0


@pytest.mark.parametrize("shape", [(3072, 192), (1024, 14), (300, 16)])
def test_eight_bit_moments_step_as_on_a_cpu(device: torch.device, shape: tuple[int, int]) -> None:
    stepped = []
    for place in (torch.device("cpu"), device):
        generator = torch.Generator().manual_seed(0)
        model = torch.nn.Module()
        model.weight = torch.nn.Parameter(torch.randn(shape, generator=generator).to(place))
        optimizer = Optimizer(model, OptimRecipe(steps=1, moments="8bit"))
        for _ in range(10):
            model.weight.grad = torch.randn(shape, generator=generator).to(place)
            optimizer.step(1e-2)
        stepped.append(model.weight.detach().cpu())
    torch.testing.assert_close(stepped[1], stepped[0], rtol=0, atol=2e-3)


def test_losses_are_those_of_a_cpu(device: torch.device) -> None:
    model = lively(small_config())
    batch = random_batch(model.config, 3)
    draws = draw(batch, "fastwam", torch.Generator().manual_seed(0))
    expected = model(model_losses, batch, draws)
    found = model.to(device)(model_losses, batch.to(device), draws)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-3, atol=1e-4)


def test_weights_drawn_on_a_device_are_a_function_of_the_seed(device: torch.device) -> None:
    one, same, other = (FastWAM(small_config(), seed=seed, device=device).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_on_the_device_learns_and_resumes(device: torch.device, tmp_path: Path) -> None:
    name = "cpu" if device.type == "cpu" else f"cuda:{device.index}"
    train(FakeStore(), recipe("optim.steps=4"), tmp_path / "whole", device=name)
    run(tmp_path / "stopped", "optim.steps=4", stop_after=2, device=name)
    run(tmp_path / "stopped", "optim.steps=4", device=name)
    for a, b in zip(losses(tmp_path / "whole"), losses(tmp_path / "stopped"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)


@pytest.mark.parametrize("variant", ["fastwam", "idm"])
def test_a_chunk_of_actions_is_timed_with_and_without_a_graph(device: torch.device, variant: str) -> None:
    """All layers of the published size on a GPU; a replayed graph reads the inputs of its call."""
    gpu = device.type == "cuda"
    config = ModelConfig.wan22_5b(7, 8, variant=variant) if gpu else small_config(variant)
    model = FastWAM(config, seed=0, device=device, dtype=torch.bfloat16).eval()
    frames, height, width = config.latent_grid
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    text = torch.zeros(config.context_len, config.video_expert.text_dim)
    text[:5] = normal(5, text.shape[1])
    first = normal(1, config.video_expert.in_channels, height, width).to(device, torch.bfloat16)
    state = normal(1, config.proprio_dim or 1).to(device, torch.bfloat16)
    noises = [
        Noise(
            normal(1, config.action_horizon, config.action_expert.action_dim),
            normal(1, first.shape[1], frames, height, width),
        )
        for _ in range(2)
    ]
    with torch.inference_mode():
        instruction = [model.read_instruction(text)]

        def act(noise: Noise) -> torch.Tensor:
            return sample(model, first, instruction, state, noise, Denoising(10), video=False).action

        plain = [act(noise) for noise in noises]
        spent = {"eager": milliseconds(lambda: act(noises[0]), device)}
        if gpu:
            model.graphs = Graphs()
            for noise, expected in zip(noises, plain, strict=True):
                torch.testing.assert_close(act(noise), expected, rtol=1e-2, atol=1e-2)
            spent["graph"] = milliseconds(lambda: act(noises[0]), device)
    assert not torch.equal(*plain)
    for how, value in spent.items():
        FIGURES.append((f"ten steps of actions, {variant}, bfloat16, {how}", f"{value:.1f} ms"))


def test_samples_of_two_modes_train_without_waiting(device: torch.device) -> None:
    config = (
        ModelConfig.wan22_5b(7, 8, variant="optional-idm") if device.type == "cuda" else small_config("optional-idm")
    )
    step = trained(config, device)
    step()
    mode = torch.cuda.get_sync_debug_mode() if device.type == "cuda" else 0
    try:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        last = step()
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode(mode)
    assert bool(torch.isfinite(last))
