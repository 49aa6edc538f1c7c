"""Processes that are really killed: SIGKILL between steps and in the middle of a save, SIGTERM in a step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_fwtrain import MOMENTS
from paths import SUPPORT
from training import SMALL, assert_same_run, losses, run
from warm import WarmPrograms

from fwtrain.train.checkpoint import latest

PROGRAM = SUPPORT / "fake_fwtrain.py"


def command(out: Path, *overrides: str) -> list[str]:
    flags = [part for override in (*SMALL, *overrides) for part in ("--set", override)]
    return [sys.executable, str(PROGRAM), "run", "s", "--recipe", "tiny", "--out", str(out), "--threads", "1", *flags]


type Ran = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fwtrain(warm: WarmPrograms) -> Ran:
    """The program to its end, with overrides and variables; it has imported torch before it starts."""

    def ran(out: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
        line = [*warm(str(PROGRAM)), *command(out, *overrides)[2:]]
        variables = {**os.environ, **environment}
        return subprocess.run(line, env=variables, capture_output=True, text=True, timeout=400, check=False)

    return ran


def logged(out: Path) -> int:
    """Steps in the log so far."""
    return len(losses(out)) if (out / "log.jsonl").exists() else 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_process_killed_in_a_save_continues_bit_for_bit(tmp_path: Path, whole: Path, moment: str, fwtrain: Ran):
    killed = fwtrain(tmp_path, FAKE_KILL=f"{moment},step-00000004")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    found = latest(tmp_path / "checkpoints")
    assert found is not None
    assert found.step == 2
    run(tmp_path)
    assert_same_run(whole, tmp_path)
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.slow
def test_a_process_killed_in_the_save_of_the_best_weights_continues_bit_for_bit(
    tmp_path: Path, whole: Path, fwtrain: Ran
):
    killed = fwtrain(tmp_path, FAKE_KILL="before marker,best-00000003")
    assert killed.returncode == -signal.SIGKILL
    run(tmp_path)
    assert_same_run(whole, tmp_path)


@pytest.mark.slow
def test_a_process_killed_between_steps_continues_bit_for_bit(tmp_path: Path, whole: Path):
    for step in (1, 3, 5):
        process = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and logged(tmp_path) < step:
            time.sleep(0.005)
        process.kill()
        process.wait()
    run(tmp_path)
    assert_same_run(whole, tmp_path)


@pytest.mark.slow
def test_sigterm_in_the_middle_of_a_long_step_saves_the_step_before_it(tmp_path: Path, fwtrain: Ran):
    extra = ("optim.accumulation=6", "optim.steps=3")
    run(tmp_path / "whole", *extra)
    stopped = fwtrain(tmp_path / "stopped", *extra, FAKE_STOP="1,0")
    assert stopped.returncode == 130
    assert "saved at step 1 of 3" in stopped.stderr
    run(tmp_path / "stopped", *extra)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
