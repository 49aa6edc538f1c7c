"""`fwtrain plan`: what is predicted against what is measured, at small size."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from fwtrain.model import FastWAM, training
from fwtrain.recipe import Recipe, load_recipe
from fwtrain.train.build import Sizes, prepare, sized_config
from fwtrain.train.memory import GIB, Memory, MemoryPlan, empty_inputs, step_peak, usable
from fwtrain.train.optim import Optimizer
from fwtrain.train.plan import plan_rows

BATCH = 8


def built(chosen: Recipe) -> FastWAM:
    model = FastWAM(sized_config(chosen, Sizes.usual(chosen)), seed=0)
    prepare(model, chosen)
    return model


def measured_peak(model: FastWAM) -> int:
    """Peak of the bytes torch's CPU allocator handed out in one forward and backward pass, as its profiler saw them."""
    batch, draws = empty_inputs(model.config, BATCH, "cpu")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        model(training.losses, batch, draws).total.backward()
    live = peak = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


@pytest.mark.filterwarnings("ignore")  # the profiler looks for a GPU
@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [(), ("gradient_checkpointing=true",), ("freeze=video",), ("model.variant=joint", "model.layers=5")],
)
def test_activations_are_predicted_within_five_percent_of_measured(overrides: tuple[str, ...]):
    chosen = load_recipe("tiny", overrides)
    model = built(chosen)
    batch, draws = empty_inputs(model.config, BATCH)
    data = sum(t.nbytes for t in (*batch.tensors().values(), *vars(draws).values()) if t is not None)
    predicted = step_peak(MemoryPlan(chosen, model.config).model, BATCH, "with gradients") - data
    assert predicted == pytest.approx(measured_peak(model), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [("precision=bf16",), ("optim.moments=8bit",), ("freeze=video", "precision=bf16")]
)
def test_state_is_what_the_optimizer_holds(overrides: tuple[str, ...]):
    chosen = load_recipe("tiny", overrides)
    config = sized_config(chosen, Sizes.usual(chosen))
    plan = MemoryPlan(chosen, config)
    model = plan.model.to_empty(device="cpu")
    optimizer = Optimizer(model, chosen.optim)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step(0.0)
    held = {part.name: part.tensor.nbytes for part in optimizer.parts() if not part.name.startswith("step.")}
    memory = MemoryPlan(chosen, config).at(1)
    assert sum(size for name, size in held.items() if name.startswith("master.")) == memory.masters
    assert sum(size for name, size in held.items() if name.startswith("exp_avg")) == memory.moments
    assert memory.weights == sum(p.nbytes for p in model.parameters())
    assert memory.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


def at(batch: int, *overrides: str, processes: int = 1) -> Memory:
    chosen = load_recipe("tiny", overrides)
    return MemoryPlan(chosen, sized_config(chosen, Sizes.usual(chosen)), processes).at(batch)


@pytest.mark.slow
def test_every_setting_saves_what_it_says():
    whole = at(8)
    assert at(8, "gradient_checkpointing=true").activations < 0.5 * whole.activations
    assert at(16).activations > 1.5 * whole.activations
    assert at(8, "optim.moments=8bit").moments < 0.3 * whole.moments
    assert at(8, "freeze=video").state < 0.7 * whole.state
    shared = at(8, "parallel=fsdp", processes=4)
    assert shared.state == pytest.approx(whole.state / 4, rel=1e-3)
    assert 0 < shared.gathered < whole.weights


@pytest.mark.slow
def test_the_largest_batch_fits_and_the_next_does_not():
    chosen = load_recipe("tiny")
    plan = MemoryPlan(chosen, sized_config(chosen, Sizes.usual(chosen)))
    gib = 2.0
    size = plan.largest_batch(gib)
    assert 2 < size < 256
    assert 0.97 * usable(gib) < plan.at(size).total < 1.01 * usable(gib)
    assert plan.largest_batch(1.0) == 0
    assert usable(80) < 80 * GIB


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), ("gradient_checkpointing=true",), ("freeze=video",)])
def test_two_shallow_models_stand_for_a_deep_one(overrides: tuple[str, ...]):
    chosen = load_recipe("tiny", ["model.layers=14", *overrides])
    plan = MemoryPlan(chosen, sized_config(chosen, Sizes.usual(chosen)))
    for batch in (1, 8):
        whole = step_peak(plan.model, batch, "with gradients")
        assert plan._deep_peak(batch, "with gradients") == pytest.approx(whole, rel=0.03)


@pytest.mark.slow
def test_validation_gathers_all_weights_under_fsdp():
    alone, shared = at(1), at(1, "parallel=fsdp", processes=8)
    assert alone.validation == 0
    assert shared.validation > alone.weights > 7 * shared.weights
    assert shared.total >= shared.state + shared.validation


@pytest.mark.slow
def test_rows_follow_what_the_recipe_chose():
    chosen = load_recipe("tiny")
    config = sized_config(chosen, Sizes.usual(chosen))
    rows = plan_rows("tiny", ["freeze=video"], config, [24])
    assert rows[0].setting.overrides == ()
    assert [row.setting.name for row in rows] == [
        "the action expert",
        "the action expert, checkpointing",
        "the action expert, 8-bit moments",
        "the action expert, checkpointing, 8-bit moments",
    ]
    assert all(row.memory.trained < row.memory.parameters for row in rows)
