"""The quickstart end to end: every command really runs, and training pays off in closed loop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from warm import WarmPrograms

import fwdata


@pytest.mark.slow
def test_quickstart_trains_a_policy_that_beats_an_untrained_one(tmp_path: Path, warm: WarmPrograms) -> None:
    out = tmp_path / "quickstart"
    words = ["quickstart", "--out", str(out), "--json"]
    command = [sys.executable, "-m", "fwdata", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["success_trained"] >= result["success_untrained"] + 0.3
    assert result["peak_rss_bytes"] < 3e9
    page = Path(result["report"]).read_text(encoding="utf-8")
    assert "closed-loop success" in page and "<img" in page and "<svg" in page

    store = fwdata.open(out / "sample.zarr")
    assert (len(store.episodes), store.num_frames) == (result["episodes"], result["frames"])
    assert store.latents().complete and store.stats().num_episodes < len(store.episodes)

    command = [*warm.launching("fwdata", tmp_path), *words]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    rerun = json.loads(again.stdout)
    assert rerun["steps"]["convert"]["new_episodes"] == 0
    assert rerun["steps"]["latents"]["first"] == 0
    assert rerun["success_trained"] == result["success_trained"]
