"""`fwtrain plan`: what is predicted against what is measured, at small size."""

from __future__ import annotations

import sys
import weakref

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fwdata.errors import UsageError
from fwtrain.model import FastWAM, training
from fwtrain.recipe import Recipe, load_recipe
from fwtrain.train import memory
from fwtrain.train.build import DTYPES, Sizes, prepare, sized_config
from fwtrain.train.memory import GIB, Memory, MemoryPlan, usable
from fwtrain.train.optim import Optimizer
from fwtrain.train.peaks import SHORT, count_pass, deep_peaks, empty_inputs, pass_peaks
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
    counted = pass_peaks(count_pass(MemoryPlan(chosen, model.config).model, backward=True))
    predicted = counted.with_gradients.at(BATCH) - data
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
@pytest.mark.parametrize("overrides", [(), ("freeze=video", "optim.moments=8bit", "gradient_checkpointing=true")])
def test_the_largest_batch_fits_and_the_next_does_not(overrides: tuple[str, ...]):
    """Also where small batches need no more than the optimizer's step, which does not grow."""
    chosen = load_recipe("tiny", overrides)
    plan = MemoryPlan(chosen, sized_config(chosen, Sizes.usual(chosen)))
    for size in (1, 11, 40):
        room = plan.at(size).total
        most = plan.most_windows(room / GIB)
        assert most >= size and plan.at(most).total <= room < plan.at(most + 1).total
        assert plan.most_windows((room - 1) / GIB) < size
    assert plan.largest_batch(1000.0) == 256
    assert plan.largest_batch(1.0) == 0
    assert usable(80) < 80 * GIB


class EveryStorage(TorchDispatchMode):
    """The peak of a run as it is: the bytes of storages from birth to death, with nothing remembered or continued."""

    def __init__(self, model: FastWAM) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        self.live = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for storage in (leaf.untyped_storage() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)):
            if storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self.end, storage._cdata, storage.nbytes())
        return out

    def end(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def run_peak(model: FastWAM, batch_size: int, drop: bool) -> int:
    """Peak of a forward and backward pass of `batch_size` windows; `drop`: without the parameters' gradients."""
    hooks = []
    for parameter in model.parameters():
        if parameter.requires_grad and drop:
            hooks.append(parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None)))
    with EveryStorage(model) as tracker:
        batch, draws = empty_inputs(model.config, batch_size)
        model(training.losses, batch, draws).total.backward()
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    return tracker.peak


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("gradient_checkpointing=true",),
        ("freeze=video", "precision=bf16"),
        ("model.variant=joint",),
        ("model.variant=optional-idm",),
        ("lora.rank=4", "precision=bf16"),
    ],
)
def test_one_run_tells_the_peak_at_every_batch_size(overrides: tuple[str, ...]):
    """Against runs of those sizes, of the model that is trained: also of peft's adapters."""
    chosen = load_recipe("tiny", ["model.layers=2", *overrides])
    plan = MemoryPlan(chosen, sized_config(chosen, Sizes.usual(chosen)))
    trained = FastWAM(plan.config, seed=None, device="meta", dtype=DTYPES[chosen.precision])
    prepare(trained, chosen)
    count_pass(plan.model, backward=False)  # what the process keeps is made before
    counted = pass_peaks(count_pass(plan.model, backward=True))
    for batch_size in (1, 8):
        exact = 0 if batch_size > 1 else 0.01  # sums over one window are not computed
        assert counted.with_gradients.at(batch_size) == pytest.approx(run_peak(trained, batch_size, False), rel=exact)
        assert counted.without_gradients.at(batch_size) == pytest.approx(run_peak(trained, batch_size, True), rel=exact)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [(), ("gradient_checkpointing=true",), ("freeze=video",), ("lora.rank=4", "gradient_checkpointing=true")],
)
def test_two_shallow_models_stand_for_a_deep_one(overrides: tuple[str, ...]):
    chosen = load_recipe("tiny", ["model.layers=14", *overrides])
    plan = MemoryPlan(chosen, sized_config(chosen, Sizes.usual(chosen)))
    count_pass(plan.model, backward=False)  # what the process keeps is made before
    for backward in (True, False):
        low, high = (count_pass(plan._model(plan._shallow(count)), backward=backward) for count in SHORT)
        found, whole = deep_peaks(low, high, 14), pass_peaks(count_pass(plan.model, backward=backward))
        assert found is not None
        for size in (1, 8, 100):
            assert found.with_gradients.at(size) == whole.with_gradients.at(size)
            assert found.without_gradients.at(size) == whole.without_gradients.at(size)


@pytest.mark.slow
def test_layers_that_differ_are_counted_one_by_one(monkeypatch: pytest.MonkeyPatch):
    chosen = load_recipe("tiny", ["model.layers=6"])
    config = sized_config(chosen, Sizes.usual(chosen))
    whole = MemoryPlan(chosen, config).at(8)
    monkeypatch.setattr(memory, "deep_peaks", lambda low, high, layers: None)
    assert MemoryPlan(chosen, config).at(8) == whole


@pytest.mark.slow
def test_adapters_are_counted_without_peft(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    chosen = load_recipe("tiny", ["lora.rank=4"])
    assert MemoryPlan(chosen, sized_config(chosen, Sizes.usual(chosen))).at(8).trained > 0
    wrong = load_recipe("tiny", ["lora.rank=4", 'lora.full=["heads"]'])
    with pytest.raises(UsageError, match=r"no parameter of the model begins with 'heads'"):
        MemoryPlan(wrong, sized_config(wrong, Sizes.usual(wrong)))


@pytest.mark.slow
def test_validation_gathers_all_weights_under_fsdp():
    alone, shared = at(1), at(1, "parallel=fsdp", processes=8)
    assert shared.validation == alone.validation + alone.weights
    assert alone.weights > 7 * shared.weights
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
