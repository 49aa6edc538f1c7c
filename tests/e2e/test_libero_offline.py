"""The short form of docs/examples/libero_offline: one task, one demonstration, from the simulator to success rates."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from fixtures import tree
from warm import WarmPrograms

from fwdata.envs.benchmarks.libero import BENCHMARK
from fwdata.errors import FwdataError

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "libero_offline" / "run.py"
SHORT = ("--tasks", "8", "--episodes", "1", "--steps", "6", "--trials", "1", "--limit", "12", "--workers", "1")


@pytest.mark.slow
def test_the_short_form_runs_to_its_report_and_does_nothing_twice(tmp_path: Path, warm: WarmPrograms):
    try:
        BENCHMARK.prepare()
    except FwdataError as error:
        pytest.skip(str(error))
    command = [*warm.launching(str(EXAMPLE), tmp_path), "--out", str(tmp_path), *SHORT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = (tmp_path / "report.md").read_text()
    assert "| task | fastwam | no-video | untrained |" in report and "put_the_bowl_on_the_plate | 0 of 1" in report
    assert "below 20 dB" not in done.stderr, "the VAE shows the simulator's images"
    kept = {name: tree(tmp_path / name) for name in ("demos", "runs/fastwam/checkpoints", "eval/fastwam/trials")}
    assert all(kept.values())
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert {name: tree(tmp_path / name) for name in kept} == kept
