"""A run that cannot fit its GPU is refused before its first step, and told what fits."""

from __future__ import annotations

import pytest
import torch

from fwdata.errors import UsageError
from fwtrain.recipe import load_recipe, override
from fwtrain.train.build import Sizes, sized_config
from fwtrain.train.memory import CONTEXT_BYTES, GIB, MemoryPlan
from fwtrain.train.plan import LOADER_BYTES, pass_size, plan_rows, recommend
from fwtrain.train.preflight import check_memory, explain_out_of_memory, windows_per_pass

CUDA = torch.device("cuda", 0)


def gpu_with(monkeypatch: pytest.MonkeyPatch, free: int, total: int | None = None) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, total or free))


@pytest.mark.slow
def test_a_run_that_fits_starts_and_one_that_does_not_is_told_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("tiny")
    config = sized_config(recipe, Sizes.usual(recipe))
    need = MemoryPlan(recipe, config).at(windows_per_pass(recipe, 1)).total
    gpu_with(monkeypatch, 2 * (need + CONTEXT_BYTES))
    check_memory(recipe, config, 1, CUDA)
    gpu_with(monkeypatch, int((need * 0.5 + CONTEXT_BYTES) / 0.95))
    with pytest.raises(
        UsageError, match=r"needs? [0-9.]+ GiB on each GPU, cuda:0 has .* GiB free; use --set"
    ) as refused:
        check_memory(recipe, config, 1, CUDA)
    sets = [word for word in str(refused.value).split("; use ")[1].split() if word != "--set"]
    better = override(recipe, sets)
    check_memory(better, config, 1, CUDA)
    assert better.optim.batch_size * better.optim.accumulation == recipe.optim.batch_size * recipe.optim.accumulation


@pytest.mark.slow
def test_where_nothing_fits_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("tiny")
    gpu_with(monkeypatch, CONTEXT_BYTES)
    with pytest.raises(UsageError, match="no setting of this model fits"):
        check_memory(recipe, sized_config(recipe, Sizes.usual(recipe)), 1, CUDA)


def test_a_cpu_is_never_refused() -> None:
    recipe = load_recipe("tiny")
    check_memory(recipe, sized_config(recipe, Sizes.usual(recipe)), 1, torch.device("cpu"))


def test_out_of_memory_is_one_sentence() -> None:
    recipe = load_recipe("tiny")
    config = sized_config(recipe, Sizes.usual(recipe))
    with (
        pytest.raises(UsageError, match=r"^out of GPU memory on cuda:0 \(CUDA out of memory\); the run is computed"),
        explain_out_of_memory(recipe, config, 1, CUDA),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB. GPU 0 has ..")


@pytest.mark.parametrize(
    ("total", "limit", "processes", "size"),
    [(128, 16, 8, 16), (128, 15, 8, 8), (128, 7, 8, 0), (128, 256, 1, 128), (30, 7, 1, 6), (128, 0, 1, 0)],
)
def test_a_pass_divides_the_step_and_is_shared_by_the_processes(
    total: int, limit: int, processes: int, size: int
) -> None:
    assert pass_size(total, limit, processes) == size


@pytest.mark.slow
def test_every_command_that_is_recommended_fits_and_makes_the_same_steps() -> None:
    recipe = load_recipe("tiny")
    config = sized_config(recipe, Sizes.usual(recipe))
    rows = plan_rows("tiny", [], config, [2, 24], processes=2)
    for gib in (2, 24):
        for processes in (1, 2):
            found = recommend(rows, "tiny", [], gib, processes)
            assert found.setting is not None
            words = found.command.split()
            sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
            chosen = override(recipe, sets)
            assert chosen.optim.batch_size == found.batch
            assert found.batch * found.accumulation == recipe.optim.batch_size * recipe.optim.accumulation
            memory = MemoryPlan(chosen, config, processes).at(windows_per_pass(chosen, processes))
            assert memory.total <= gib * GIB
            assert (processes == 1) == (words[0] == "fwtrain")
            assert found.hours > 0 and found.disk > 0
            copied = MemoryPlan(chosen, config, processes).checkpoint_bytes() if processes > 1 else 0
            assert found.host >= processes * LOADER_BYTES + copied
    assert recommend(rows, "tiny", [], 24, 2).hours == pytest.approx(recommend(rows, "tiny", [], 24, 1).hours / 2)
