"""The step that is compared with published rates, at a tiny size on a CPU."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from fwdata.errors import UsageError
from fwtrain.bench import peers
from fwtrain.bench.cases import SIZES, size_config
from fwtrain.bench.peers import PUBLISHED, WINDOWS, PeerStep, bench_peers, fitting
from fwtrain.train.memory import CONTEXT_BYTES, MemoryPlan
from fwtrain.train.parallel import Team

STEP = PeerStep("NVIDIA H100 80GB HBM3", 1, 6_000_000_000, "as published", 16, 0.8, 0.7, 0.1, 0, 0.3)


def test_rates_and_ratios_by_card() -> None:
    easy, loong = PUBLISHED
    assert (easy.name, easy.samples, loong.name, loong.samples) == ("EasyWAM", 17.3, "LoongForge", 12.8)
    assert STEP.samples == pytest.approx(20)
    assert STEP.online == pytest.approx(16 / 0.9)
    assert STEP.ratio(easy) == pytest.approx(20 / 17.3)
    assert STEP.ratio(loong) is None
    assert replace(STEP, card="NVIDIA A800-SXM4-80GB").ratio(loong) == pytest.approx(20 / 12.8)


@pytest.mark.slow
def test_the_whole_step_runs_and_trains_every_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    stepped: list[float] = []
    made = peers.Optimizer

    class Recorded(made):  # type: ignore[misc, valid-type]
        def step(self, lr: float) -> torch.Tensor:
            assert all(parameter.grad is not None for parameter in self._params.values())
            stepped.append(lr)
            norm: torch.Tensor = super().step(lr)
            return norm

    monkeypatch.setattr(peers, "Optimizer", Recorded)
    done: list[int] = []
    found = bench_peers(Team(torch.device("cpu")), full=False, steps=2, done=done.append)
    assert len(stepped) == peers.WARM_UP + 2
    assert done == [1, 1]
    assert found.windows == 16
    assert found.seconds >= found.fastest > 0
    assert found.vae > 0
    assert found.mfu is None
    assert found.setting == "as published"


@pytest.mark.slow
def test_the_setting_is_the_first_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    config = size_config(SIZES["tiny"])
    team = Team(torch.device("cuda", 0))

    def gpu_of(size: int) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (size, size))

    gpu_of(80 << 30)
    plain = fitting(config, team)
    assert (plain.optim.moments, plain.gradient_checkpointing, plain.optim.batch_size) == ("fp32", False, WINDOWS)
    need = MemoryPlan(plain, config, 1).at(WINDOWS).total
    gpu_of(int((need - 1000 + CONTEXT_BYTES) / 0.95))
    assert fitting(config, team).optim.moments == "8bit"
    gpu_of(CONTEXT_BYTES)
    with pytest.raises(UsageError, match=r"a step of 16 windows is computed to need .* torchrun --nproc-per-node N"):
        fitting(config, team)


@pytest.mark.slow
@pytest.mark.usefixtures("memory_store")
def test_the_command(call: Any) -> None:
    code, _, err = call("bench", "train", "--peers", "--device", "cpu")
    assert code == 2
    assert "none is here; --size tiny tries it on a CPU" in err
    small = ("bench", "train", "--peers", "--device", "cpu", "--size", "tiny", "--steps", 1)
    code, out, _ = call(*small)
    assert code == 0
    assert "EasyWAM" in out
    assert "published; another card" in out
    code, out, _ = call(*small, "--json")
    found = json.loads(out)
    assert found["ratios"] == {"EasyWAM": None, "LoongForge": None}
    assert min(found["samples_per_second_per_gpu"], found["samples_per_second_per_gpu_with_vae"]) > 0
