"""What is asked of torch for a GPU, seen on a CPU: pinned batches, the right device, draws, deterministic kernels."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import torch
from fake_cuda import Waits
from fake_store import FakeStore
from model_case import random_batch, small_config
from torch._subclasses.fake_tensor import FakeTensorMode
from training import recipe

from fwdata.errors import UsageError
from fwtrain.data import open_source, training_order, training_reader
from fwtrain.model import VARIANTS, Denoising, FastWAM, Noise, graphs, sample
from fwtrain.train import parallel
from fwtrain.train.build import build_model
from fwtrain.train.parallel import Team
from fwtrain.train.passes import Loaded, PassLoader, step_passes
from fwtrain.train.run import be_deterministic, choose_device


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Addresses of the tensors that were pinned."""
    found: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.clone()
        found.append(copy.data_ptr())
        return copy

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    return found


def loaded(pin: bool) -> Loaded:
    chosen = recipe("optim.accumulation=2", "model.variant=optional-idm")
    source = open_source(FakeStore(), chosen)
    reader = training_reader(source, chosen)
    plans = training_order(reader.index, chosen).step(0)
    loader = PassLoader(reader, 42, chosen.model.variant, 0.5, 0, 2, pin=pin)
    return loader.fetch(step_passes(0, plans, 2)[0])


def test_every_tensor_of_a_pass_is_pinned_and_nothing_else_changes(pinned: list[int]) -> None:
    plain, locked = loaded(pin=False), loaded(pin=True)
    tensors = [*locked.batch.tensors().values(), *vars(locked.draws).values()]
    assert all(value.data_ptr() in pinned for value in tensors if value is not None)
    assert locked.batch.text_rows == plain.batch.text_rows
    assert locked.batch.context.shape[1] < plain.batch.context.shape[1]  # only rows in use cross to the GPU
    moved = locked.batch.to("cpu")
    for name, value in plain.batch.tensors().items():
        assert value is not None
        assert torch.equal(moved.tensors()[name], value), name
    for name, value in vars(plain.draws).items():
        assert (value is None) == (vars(locked.draws)[name] is None)
        assert value is None or torch.equal(vars(locked.draws)[name], value), name


def test_a_pinned_batch_crosses_without_waiting_and_is_whole_there(pinned: list[int]) -> None:
    batch, length = loaded(pin=True).batch, loaded(pin=False).batch.context.shape[1]
    with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits:
        moved = batch.to("cuda")
        assert moved.context.shape[1] == length
        assert moved.text_rows == batch.text_rows
    assert waits.found == []


def test_a_loop_is_captured_on_the_device_of_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[torch.device] = []
    current: list[torch.device] = []

    @contextmanager
    def device(chosen: torch.device) -> Any:
        current.append(chosen)
        yield
        current.pop()

    class Stream:
        def __init__(self) -> None:
            entered.extend(current)

        def wait_stream(self, other: object) -> None:
            pass

    @contextmanager
    def within(*_: object) -> Any:
        yield

    class Graph:
        def replay(self) -> None:
            pass

    for name, value in {
        "device": device, "Stream": Stream, "current_stream": Stream, "stream": within, "graph": within,
        "CUDAGraph": Graph,
    }.items():  # fmt: skip
        monkeypatch.setattr(graphs.torch.cuda, name, value)
    with FakeTensorMode(allow_non_fake_inputs=True):
        graphs.capture(lambda inputs: inputs[0] + 1, [torch.empty(3, device="cuda:1")])
    assert set(entered) == {torch.device("cuda", 1)}


def test_graphs_are_kept_for_every_batch_size_that_is_served() -> None:
    kept = graphs.Graphs(lambda loop, inputs: graphs.Captured(list(inputs), lambda: None, loop(inputs)))
    kept.most = 12
    for _ in range(2):
        for size in range(1, 13):
            kept.run(lambda inputs: inputs[0] + 1, [torch.zeros(size)], None)
    assert len(kept._kept) == 12


def test_a_gpu_draws_its_own_weights_and_weights_that_are_read_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.device] = []
    generator = torch.Generator

    def recorded(device: torch.device | str = "cpu") -> torch.Generator:
        made.append(torch.device(device))
        return generator()

    monkeypatch.setattr("fwtrain.model.fastwam.torch.Generator", recorded)
    with FakeTensorMode(allow_non_fake_inputs=True):
        FastWAM(small_config(), seed=0, device="cuda:1")
        assert made == [torch.device("cuda", 1)]
        build_model(small_config(), None, "cuda")
    assert len(made) == 1
    FastWAM(small_config(), seed=0)
    assert made[1:] == [torch.device("cpu")]


def test_a_device_by_number_is_made_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr("fwtrain.train.run.gpu_usable", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert chosen == [torch.device("cuda", 1)]
    with pytest.raises(UsageError, match=r"--device cuda:2: torch sees 2 GPUs, numbered from 0"):
        choose_device("cuda:2")


def test_deterministic_kernels_are_a_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        be_deterministic()
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)


class Numbers(list[float]):
    """Stands for a tensor on the host."""

    def tolist(self) -> list[float]:
        return list(self)


class KnownGrid:
    """A grid of Euler steps whose numbers are known, as the host knows them outside of fake tensors."""

    def __init__(self, deltas: list[float]) -> None:
        self.timesteps, self.deltas = torch.empty(len(deltas)), Numbers(deltas)

    def __len__(self) -> int:
        return len(self.timesteps)


@pytest.mark.slow
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "joint"])
def test_nothing_inside_a_captured_loop_waits(monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    """A capture forbids what waits for the device: a copy from the host inside it would fail, or replay one value."""
    config = small_config(variant)
    batch = random_batch(config, 2)
    noise = Noise(
        torch.zeros(2, config.action_horizon, config.action_expert.action_dim), torch.zeros_like(batch.latents)
    )
    waits: list[str] = []

    def capture(loop: graphs.Loop, inputs: Any) -> graphs.Captured:
        kept = [value.clone() for value in inputs]
        with Waits() as seen:
            output = loop(kept)
        waits.extend(seen.found)
        return graphs.Captured(kept, lambda: None, output)

    monkeypatch.setattr("fwtrain.model.fastwam.used_rows", lambda context: 5)
    monkeypatch.setattr("fwtrain.model.flow.euler_grid", lambda *_: KnownGrid([-0.5, -0.5]))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model = FastWAM(config, seed=None, device="cuda", dtype=torch.bfloat16).eval()
        model.graphs = graphs.Graphs(capture)
        first = torch.empty(batch.first.shape, device="cuda", dtype=torch.bfloat16)
        state = torch.empty(batch.proprio.shape, device="cuda", dtype=torch.bfloat16)
        instructions = [model.read_instruction(torch.empty(config.context_len, config.video_expert.text_dim))] * 2
        found = sample(model, first, instructions, state, noise, Denoising(steps=2), video=False)
        assert found.action.device.type == "cuda"
        assert len(model.graphs._kept) == 1
    assert waits == []


def test_gradients_are_summed_over_processes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    sharded: list[torch.dtype | None] = []
    monkeypatch.setattr(
        "torch.distributed.fsdp.fully_shard", lambda module, mesh, mp_policy: sharded.append(mp_policy.reduce_dtype)
    )
    model = FastWAM(small_config(), seed=None, device="meta", dtype=torch.bfloat16)
    Team(torch.device("cpu"), size=2, mode="fsdp").distribute(model)
    layers = len(model.video.layers) + len(model.action.layers)
    assert sharded == [torch.float32] * (layers + 1)


def test_processes_wait_long_enough_for_a_slow_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Mesh:
        from_group = staticmethod(lambda group, kind: "saving")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(parallel, "DeviceMesh", Mesh)
    for name in ("init_process_group", "new_group", "destroy_process_group", "get_rank"):
        monkeypatch.setattr(parallel.dist, name, lambda *a, _name=name, **k: asked.update({_name: (a, k)}) or 0)
    with parallel.join("ddp", torch.device("cuda")) as team:
        assert team.saving == "saving"
    backends, options = asked["init_process_group"]
    assert backends == ("cpu:gloo,cuda:nccl",)
    assert options["timeout"] >= timedelta(minutes=30)
    assert int(os.environ["TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC"]) >= 1800
    assert asked["new_group"][1] == {"backend": "gloo", "timeout": parallel.SAVE_PATIENCE}
    monkeypatch.delenv("TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC")
