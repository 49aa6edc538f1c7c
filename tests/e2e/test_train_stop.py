"""torchrun that is sent SIGTERM with hundreds of megabytes to save: it kills its processes 30 seconds later."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import SUPPORT
from training import SMALL, losses, tensors
from warm import WarmPrograms

from fwtrain.train.checkpoint import checkpoints, latest

LARGE = (
    *SMALL,
    "model.video={hidden: 512, ffn: 1536}",
    "model.action={hidden: 512, ffn: 1536}",
    "model.layers=2",
    "model.heads=8",
    "model.head_dim=64",
    "optim.batch_size=2",
    "optim.steps=8",
    "save_every=1000",
    "eval_every=1000",
    "validation.windows=0",
    "parallel=fsdp",
)
"""21 M parameters: 250 MB of weights and moments."""

KILLED = "forcefully exiting"
"""What torchrun says when it kills processes that live 30 seconds after SIGTERM."""


type Torchrun = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def torchrun(warm: WarmPrograms) -> Torchrun:
    """`torchrun` of the program; it and its processes have imported torch before they start."""

    def launch(out: Path, log: Path, **environment: str) -> subprocess.Popen[bytes]:
        sets = [part for override in LARGE for part in ("--set", override)]
        start = (*warm("torch.distributed.run"), "--standalone", "--nproc-per-node", "2", "--no-python")
        command = (*warm(str(SUPPORT / "fake_fwtrain.py")), "run", "s", "--recipe", "tiny", "--out", str(out))
        with log.open("wb") as file:
            return subprocess.Popen(
                [*start, *command, "--threads", "1", *sets], env=os.environ | environment, stdout=file, stderr=file
            )

    return launch


def at_step(out: Path, step: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a step is logged."""
    until = time.monotonic() + 300
    while not (out / "log.jsonl").is_file() or len(losses(out)) < step:
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.2)


@pytest.mark.slow
def test_hundreds_of_megabytes_are_saved_in_time_on_a_slow_disk_and_continue_as_if_never_stopped(
    tmp_path: Path, torchrun: Torchrun
):
    whole, out, log = tmp_path / "whole", tmp_path / "stopped", tmp_path / "log"
    assert torchrun(whole, log).wait(600) == 0, log.read_text()
    process = torchrun(out, log, FAKE_SLOW="0.02,step-", FAKE_HOLD="3")
    at_step(out, 3, process, log)
    process.send_signal(signal.SIGTERM)  # torchrun passes it on
    process.wait(120)
    assert KILLED not in log.read_text()
    found = latest(out / "checkpoints")
    assert found is not None, log.read_text()
    assert found.step == 3
    assert "saved at step 3 of 8" in log.read_text()
    assert sum(file.stat().st_size for file in found.path.glob("shard-*")) > 200e6
    assert torchrun(out, log).wait(600) == 0, log.read_text()
    assert losses(out) == losses(whole)
    left, right = tensors(out), tensors(whole)
    assert left.keys() == right.keys()
    assert all(left[name].equal(right[name]) for name in left)


@pytest.mark.slow
def test_what_a_disk_cannot_take_in_time_is_given_up_before_torchrun_kills(tmp_path: Path, torchrun: Torchrun):
    log = tmp_path / "log"
    process = torchrun(tmp_path / "run", log, FAKE_SLOW="2,step-", FAKE_HOLD="2")
    at_step(tmp_path / "run", 2, process, log)
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    assert KILLED not in log.read_text()
    assert "could not be saved within 25 s (--stop-seconds)" in log.read_text()
    assert "terminate called" not in log.read_text()
    assert not checkpoints(tmp_path / "run" / "checkpoints")
