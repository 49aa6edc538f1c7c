"""`fwtrain plan` against a simulated GPU: every storage of whole steps and validations at full size is counted, without
data, and an allocation beyond the memory there is fails as on a GPU."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp._fully_shard import _fsdp_collectives, _fsdp_param, _fsdp_param_group, _fsdp_state
from torch.distributed.fsdp._fully_shard import _fully_shard as fully_shard_module
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fwdata.errors import UsageError
from fwtrain.batch import Batch
from fwtrain.model import VARIANTS, Denoising, Draws, FastWAM, ModelConfig, Noise, losses, sample
from fwtrain.model.training import loss_terms
from fwtrain.recipe import Recipe, load_recipe
from fwtrain.train.build import DTYPES, prepare
from fwtrain.train.memory import GIB, MemoryPlan
from fwtrain.train.optim import Optimizer
from fwtrain.train.parallel import Team
from fwtrain.train.peaks import empty_inputs
from fwtrain.train.preflight import check_memory, explain_out_of_memory
from fwtrain.train.validate import ROWS_ON_GPU

CHECKPOINTING, EIGHT_BIT, FROZEN = "gradient_checkpointing=true", "optim.moments=8bit", "freeze=video"
WINDOWS = 16
CUDA = torch.device("cuda", 0)


class Gpu(TorchDispatchMode):
    """Memory that storages without data take from birth to death. limit: bytes there are; None: no end of them."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit, self.held = limit, dict[int, int]()
        self.live = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.is_meta and not isinstance(leaf, DTensor):
                self.take(leaf.untyped_storage())  # that of a DTensor stands for no memory; its local tensor has one
        return out

    def take(self, storage: torch.UntypedStorage) -> None:
        """Count a storage that is new, or that was resized."""
        key, size = storage._cdata, storage.nbytes()
        if key not in self.held:
            weakref.finalize(storage, self.free, key)
        self.live += size - self.held.get(key, 0)
        self.held[key] = size
        self.peak = max(self.peak, self.live)
        if self.limit is not None and self.live > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ..")

    def free(self, key: int) -> None:
        self.live -= self.held.pop(key, 0)


@dataclass(frozen=True)
class Case:
    """A recipe at the published size, or at fewer layers."""

    recipe: Recipe
    config: ModelConfig

    @classmethod
    def of(cls, variant: str, *overrides: str, layers: int = 30) -> Case:
        recipe = load_recipe("libero", ["model.init=null", f"model.variant={variant}", *overrides])
        config = ModelConfig.wan22_5b(7, 8, variant=variant)
        experts = {name: getattr(config, name) for name in ("video_expert", "action_expert")}
        fewer = {name: expert.model_copy(update={"num_layers": layers}) for name, expert in experts.items()}
        return cls(recipe, config.model_copy(update=fewer))

    def model(self) -> FastWAM:
        model = FastWAM(self.config, seed=None, device="meta", dtype=DTYPES[self.recipe.precision])
        prepare(model, self.recipe, counted=True)
        return model

    def inputs(self, windows: int) -> tuple[Batch, Draws]:
        """A batch in which one sample is in another mode than the others, where the variant has two: autograd holds the
        gradients of the one until those of the others come."""
        batch, draws = empty_inputs(self.config, windows)
        if draws.mode_uniform is None:
            return batch, draws
        modes = draws.mode_uniform.clone()
        modes[0] = 1 - modes[0]
        return batch, replace(draws, mode_uniform=modes)

    def train(self, gpu: Gpu) -> None:
        """A whole step on a GPU that holds the optimizer's state already, from nothing on."""
        batch, draws = self.inputs(WINDOWS)
        with gpu:
            model = self.model()
            optimizer = Optimizer(model, self.recipe.optim)
            for parameter in model.parameters():
                parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
            optimizer.step(1e-4)  # makes the moments
            for _ in range(self.recipe.optim.accumulation):
                moved = batch.mapped(lambda value: value.clone())
                found = model(losses, moved, draws.mapped(lambda value: value.clone()))
                del moved
                (found.total * 0.5).backward()
            optimizer.step(1e-4)

    def train_shared(self, gpu: Gpu, windows: int, team: Team) -> None:
        """Two whole steps of the first of several processes: the second has the optimizer's state from the start."""
        batch, draws = self.inputs(windows)
        with gpu:
            model = self.model()
            wrapped = team.distribute(model)
            optimizer = Optimizer(model, self.recipe.optim, team)
            gpu.peak = gpu.live  # the whole model, of which each process keeps its share
            for _ in range(2):
                moved = batch.mapped(lambda value: value.clone())
                found = wrapped(losses, moved, draws.mapped(lambda value: value.clone()))
                del moved
                found.total.backward()
                del found
                optimizer.step(1e-4)

    def validate(self, windows: int) -> int:
        """The peak of sampling and of the losses, without the weights."""
        model, gpu = self.model().eval(), Gpu()
        for tensor in (*model.parameters(), *model.buffers()):
            gpu.take(tensor.untyped_storage())
        weights = gpu.live
        with gpu, torch.no_grad():
            batch, draws = empty_inputs(self.config, windows)
            noise, how = Noise(draws.noise_action, draws.noise_video), Denoising(self.recipe.validation.steps)
            model(sample, batch.first, batch.context, batch.proprio, noise, how, video=False)
            model(loss_terms, batch, draws)
        return gpu.peak - weights


STEPS = [
    *((variant, ()) for variant in sorted(VARIANTS)),
    *((variant, (CHECKPOINTING,)) for variant in sorted(VARIANTS)),
    ("fastwam", (CHECKPOINTING, EIGHT_BIT)),
    ("fastwam", (FROZEN, CHECKPOINTING, EIGHT_BIT)),
    ("fastwam", (FROZEN, "optim.accumulation=2")),
    ("fastwam", ("lora.rank=16", CHECKPOINTING)),
]
WHOLE = (("fastwam", ()), ("fastwam", (FROZEN, CHECKPOINTING, EIGHT_BIT)))
"""Counted at all 30 layers among the slow tests; the others at 10, and at 30 under -m fault: every layer adds the same.
Of a frozen expert so little is left that only all layers outweigh what the plan rounds up."""


@pytest.mark.parametrize(
    ("variant", "overrides", "layers"),
    [
        *(pytest.param(*step, 30 if step in WHOLE else 10, marks=pytest.mark.slow) for step in STEPS),
        *(pytest.param(*step, 30, marks=pytest.mark.fault) for step in STEPS if step not in WHOLE),
    ],
)
def test_the_plan_of_a_full_size_step_is_what_it_takes(variant: str, overrides: tuple[str, ...], layers: int) -> None:
    asked = ("optim.accumulation=1", "validation.windows=0", *overrides)
    case, gpu = Case.of(variant, *asked, layers=layers), Gpu()
    case.train(gpu)
    planned = MemoryPlan(case.recipe, case.config).at(WINDOWS)
    assert 0.999 * gpu.peak <= planned.total <= 1.05 * gpu.peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "overrides"),
    [("fastwam", (FROZEN, CHECKPOINTING)), ("joint", (FROZEN,)), ("idm", ()), ("fastwam", ("lora.rank=16",))],
)
def test_the_plan_of_a_validation_is_what_it_takes(variant: str, overrides: tuple[str, ...]) -> None:
    case = Case.of(variant, *overrides, layers=6)
    counted = case.validate(ROWS_ON_GPU)
    planned = MemoryPlan(case.recipe, case.config).at(1, WINDOWS).validation
    assert planned == pytest.approx(counted, rel=0.01)  # of two denoising steps


PROCESSES = 8


@pytest.fixture
def shared() -> Iterator[DeviceMesh]:
    """The first of eight processes, whose messages reach nobody."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=PROCESSES)
    try:
        yield init_device_mesh("cpu", (PROCESSES,))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "overrides", "above"),
    [
        ("fastwam", (CHECKPOINTING,), 1.03),
        ("fastwam", (CHECKPOINTING, EIGHT_BIT), 1.03),
        ("fastwam", ("precision=fp32", CHECKPOINTING), 1.03),
        ("fastwam", ("lora.rank=16", CHECKPOINTING), 1.12),  # of little state, so that what is gathered weighs
        ("fastwam", (FROZEN,), 1.15),
        ("idm", (), 1.06),
        ("optional-idm", (CHECKPOINTING,), 1.2),  # gradients of two modes are summed layer by layer, from the last on
    ],
)
def test_the_plan_of_a_step_of_eight_processes_is_what_it_takes(
    variant: str, overrides: tuple[str, ...], above: float, shared: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fully_shard on tensors without data, in fewer layers: what it gathers and sums is of one or two of them."""
    case = Case.of(variant, "parallel=fsdp", "optim.accumulation=1", "validation.windows=0", *overrides, layers=5)
    gpu, meta = Gpu(), torch.device("meta")
    monkeypatch.setattr(fully_shard_module, "_get_device_from_mesh", lambda mesh: meta)
    for module in (_fsdp_collectives, _fsdp_param_group, _fsdp_state):
        monkeypatch.setattr(module, "_get_device_handle", lambda kind: torch.cpu)
    monkeypatch.setattr(_fsdp_param_group.FSDPParamGroup, "_validate_no_meta_params", lambda self: None)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: None)
    for name in ("alloc_storage", "free_storage"):
        change = getattr(_fsdp_param, name)

        def counted(tensor: torch.Tensor, change: Any = change) -> None:
            change(tensor)
            gpu.take(tensor.untyped_storage())

        monkeypatch.setattr(_fsdp_param, name, counted)
        monkeypatch.setattr(_fsdp_param_group, name, counted, raising=False)
    case.train_shared(gpu, 2, Team(meta, 0, PROCESSES, "fsdp", shared))
    planned = MemoryPlan(case.recipe, case.config, PROCESSES).at(2)
    assert gpu.peak <= planned.total <= above * gpu.peak


@pytest.mark.slow
def test_a_validation_that_needs_more_than_a_step_is_refused_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes share the windows of a step, not those of validation."""
    case = Case.of("joint", "lora.rank=16", CHECKPOINTING, "optim.batch_size=8", layers=6)
    plan = MemoryPlan(case.recipe, case.config)
    step, both = plan.at(1, 0).total, plan.at(1, 8).total
    assert step < both
    monkeypatch.setattr("fwtrain.train.preflight.CONTEXT_BYTES", 0)
    for room in (step, both - GIB // 64):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, room=room: (room, 20))
        with pytest.raises(UsageError, match="this run is computed to need"):
            check_memory(case.recipe, case.config, 8, CUDA)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (both + 20, 20))
    check_memory(case.recipe, case.config, 8, CUDA)


@pytest.mark.slow
def test_a_step_runs_in_what_is_planned_and_not_in_less() -> None:
    case = Case.of("fastwam", "optim.accumulation=1", "validation.windows=0", layers=2)
    planned = MemoryPlan(case.recipe, case.config).at(WINDOWS).total
    with explain_out_of_memory(case.recipe, case.config, 1, CUDA):
        case.train(Gpu(planned))
    with (
        pytest.raises(UsageError, match=r"^out of GPU memory on cuda:0 \(CUDA out of memory\)"),
        explain_out_of_memory(case.recipe, case.config, 1, CUDA),
    ):
        case.train(Gpu(planned - GIB // 16))
