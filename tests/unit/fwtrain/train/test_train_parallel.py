"""Several processes: the same windows, noise, losses and weights as one; stops and resumes between numbers of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fake_store import FakeStore
from paths import SUPPORT
from training import SMALL, losses, recipe, run, tensors
from warm import WarmPrograms

from fwdata.errors import UsageError
from fwtrain.data import open_source, training_order, training_reader
from fwtrain.train.checkpoint import checkpoints, latest
from fwtrain.train.passes import PassLoader, check_share, step_passes

MIXED = ("optim.accumulation=3", "data.video_fraction=0.5", "data.instruction=sample", "optim.eps=1e-3")
"""Action-only and co-training batches in one step. With a large eps a step is smooth in the gradient, so that weights
compare as closely as gradients do."""

PROGRAM = SUPPORT / "fake_fwtrain.py"


type Torchrun = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def torchrun(warm: WarmPrograms) -> Torchrun:
    """`torchrun` of the program, with overrides; its processes have imported torch before they start."""

    def launch(
        out: Path, *overrides: str, size: int = 2, flags: tuple[str, ...] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        sets = [part for override in (*SMALL, *overrides) for part in ("--set", override)]
        start = (*warm("torch.distributed.run"), "--standalone", "--nproc-per-node", str(size), "--no-python")
        command = (*warm(str(PROGRAM)), "run", "s", "--recipe", "tiny", "--out", str(out), "--threads", "1", "--json")
        return subprocess.run(
            [*start, *command, *flags, *sets],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    return launch


def assert_close_run(one: Path, other: Path, tolerance: float = 2e-5) -> None:
    """Logged losses, rates and gradient norms, and weights and moments, agree to float32 summation order."""
    left, right = ([{k: v for k, v in line.items() if k != "kind"} for line in losses(out)] for out in (one, other))
    assert [line["step"] for line in left] == [line["step"] for line in right]
    for a, b in zip(left, right, strict=True):
        assert b == pytest.approx(a, rel=tolerance), a["step"]
    before, after = tensors(one), tensors(other)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-3, atol=tolerance, msg=name)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("overrides", [MIXED, ("model.variant=idm", "model.cond_noise_prob=0.1")])
def test_shares_of_processes_make_the_windows_and_draws_of_one(size: int, overrides: tuple[str, ...]):
    chosen = recipe(*overrides)
    source = open_source(FakeStore(), chosen)
    reader = training_reader(source, chosen)
    order = training_order(reader.index, chosen)
    variant, prob = chosen.model.variant, chosen.model.cond_noise_prob
    alone = PassLoader(reader, 42, variant, prob)
    ranks = [PassLoader(reader, 42, variant, prob, rank, size) for rank in range(size)]
    for step in range(order.steps_per_epoch + 1):
        plans = order.step(step)
        single, shared = step_passes(step, plans, 1), step_passes(step, plans, size)
        assert [item.batches for item in single] == [((number, plan),) for number, plan in enumerate(plans)]
        assert sum(item.weight for item in shared) == pytest.approx(1)
        assert [item.last for item in shared] == [False] * (len(shared) - 1) + [True]
        for item in shared:
            whole = [alone.fetch(single[number]) for number, _ in item.batches]
            parts = [rank.fetch(item) for rank in ranks]
            rows = len(parts[0].batch) // len(item.batches)
            assert len(parts[0].batch) <= chosen.optim.batch_size
            for place, one in enumerate(whole):
                cut = slice(place * rows, (place + 1) * rows)
                for kind in ("batch", "draws"):
                    for name in set(vars(getattr(one, kind))) - {"text_rows"}:
                        value = getattr(getattr(one, kind), name)
                        if value is not None:
                            dealt = torch.cat([getattr(getattr(part, kind), name)[cut] for part in parts])
                            assert torch.equal(dealt, value), name


def test_a_batch_that_cannot_be_shared_equally_is_refused():
    check_share(16, 8)
    with pytest.raises(UsageError, match="batch_size 16 cannot be dealt equally to 3 processes; use --nproc-per-node"):
        check_share(16, 3)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_processes_train_like_one_and_one_continues_them(tmp_path: Path, mode: str, torchrun: Torchrun):
    run(tmp_path / "one", *MIXED)
    out = tmp_path / "two"
    stopped = torchrun(out, *MIXED, f"parallel={mode}", FAKE_STOP="3,1")
    assert "exitcode  : 130" in stopped.stderr, stopped.stderr  # torchrun ends the others when one has ended
    assert "saved at step 3 of 6" in stopped.stderr
    assert stopped.stdout == ""
    first = losses(out)
    assert [line["step"] for line in first] == [1, 2, 3]
    assert run(out, *MIXED).finished
    assert losses(out)[:3] == first
    assert_close_run(tmp_path / "one", out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("parallel=fsdp", "optim.moments=8bit", *MIXED),
        ("parallel=ddp", "model.variant=no-video", *MIXED),
        ("parallel=fsdp", "model.variant=optional-idm", *MIXED),  # processes with samples of one mode and of both
        ("parallel=ddp", "model.variant=optional-idm", *MIXED),
    ],
)
def test_two_processes_continue_one(tmp_path: Path, overrides: tuple[str, ...], torchrun: Torchrun):
    run(tmp_path / "one", *overrides)
    out = tmp_path / "two"
    run(out, *overrides, stop_after=3)
    done = torchrun(out, *overrides)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best_step") == 1  # one process prints
    if "optim.moments=8bit" in overrides:
        for a, b in zip(losses(tmp_path / "one"), losses(out), strict=True):
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)  # a code may fall to its neighbour
    else:
        assert_close_run(tmp_path / "one", out)


@pytest.mark.slow
def test_mistakes_on_two_processes_end_all_of_them(tmp_path: Path, torchrun: Torchrun):
    odd = torchrun(tmp_path / "odd", "optim.batch_size=5")
    assert "optim.batch_size 5 cannot be dealt equally to 2 processes" in odd.stderr
    assert "exitcode  : 2 " in odd.stderr
    assert not (tmp_path / "odd").exists()


@pytest.mark.slow
def test_two_processes_that_split_are_continued_by_four_that_do_not_and_by_one(tmp_path: Path, torchrun: Torchrun):
    bf16 = (*MIXED, "precision=bf16", "keep_last=null")
    run(tmp_path / "one", *bf16)
    out = tmp_path / "many"
    assert "exitcode  : 130" in torchrun(out, *bf16, "parallel=fsdp", FAKE_STOP="2,1").stderr
    found = latest(out / "checkpoints")
    assert found is not None
    assert sorted(path.name for path in found.path.glob("shard-*")) == [
        "shard-00000.safetensors",
        "shard-00001.safetensors",
    ]
    stopped = torchrun(out, *bf16, "parallel=ddp", size=4, FAKE_STOP="4,1")
    assert "exitcode  : 130" in stopped.stderr, stopped.stderr
    assert len(list(latest(out / "checkpoints").path.glob("shard-*"))) == 4
    assert run(out, *bf16).finished
    for a, b in zip(losses(tmp_path / "one"), losses(out), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=2e-2)


@pytest.mark.slow
def test_a_run_on_a_slow_disk_answers_sigterm_in_time_and_keeps_the_checkpoint_before(
    tmp_path: Path, torchrun: Torchrun
):
    """Every tensor takes a second: half a minute and more for the whole checkpoint, which is not waited for, since it
    would be complete then."""
    slow = ("parallel=fsdp", "optim.steps=40", "save_every=2", "eval_every=40", "validation.windows=0")
    stopped = torchrun(tmp_path, *slow, flags=("--stop-seconds", "4"), FAKE_SLOW="1,step-00000004", FAKE_STOP="5,0")
    assert "exitcode  : 130" in stopped.stderr, stopped.stderr
    assert "stopped at step 6 of 40, which could not be saved within 4 s (--stop-seconds)" in stopped.stderr
    assert "continues from step 2" in stopped.stderr
    assert [item.step for item in checkpoints(tmp_path / "checkpoints")] == [2]
    done = torchrun(tmp_path, *slow, "parallel=ddp")
    assert done.returncode == 0, done.stderr
    assert [item.step for item in checkpoints(tmp_path / "checkpoints")][-1] == 40


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["tensor half written", "files written", "before rename", "before marker"])
def test_processes_killed_in_a_save_continue_from_the_one_before(tmp_path: Path, moment: str, torchrun: Torchrun):
    killed = torchrun(tmp_path, "parallel=fsdp", FAKE_KILL=f"{moment},step-00000004")
    assert killed.returncode != 0
    assert "exitcode  : -9" in killed.stderr, killed.stderr
    assert [item.step for item in checkpoints(tmp_path / "checkpoints")] == [2]
    assert run(tmp_path).finished
    assert not list((tmp_path / "checkpoints").glob(".*"))
