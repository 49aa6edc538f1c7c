"""The sample world as a LeRobot dataset: the converter gives back every state, action, instruction and image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import Command
from fixtures import tree

import fwdata
from fwdata.envs.sample import SampleEnv, write_sample
from fwdata.envs.sample.env import check_kind, expert_rollout
from fwdata.errors import UsageError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sample") / "lerobot"
    report = write_sample("lerobot", out, episodes=3, seed=5)
    assert (report.kind, report.episodes, report.written) == ("lerobot", 3, 3) and report.frames > 60
    return out


@pytest.mark.slow
def test_conversion_gives_back_what_was_recorded(dataset: Path, tmp_path: Path, monkeypatch, capsys):
    run = Command(monkeypatch, capsys)
    done = run(
        "convert", "lerobot", dataset, "--out", tmp_path / "s.zarr", "--manifest", "lerobot-robotwin", "--workers", 1
    )
    assert done.code == 0, done.err
    store = fwdata.open(str(tmp_path / "s.zarr"))
    assert len(store.episodes) == 3
    for number, episode in enumerate(store.episodes):
        seen = expert_rollout(SampleEnv("robotwin"), 5, number, "record")
        states = np.stack([item.state for item in seen]).astype(np.float32)
        np.testing.assert_array_equal(episode.state(), states[:-1])
        np.testing.assert_array_equal(episode.action(), states[1:])
        assert episode.instructions[0] == seen[0].instruction
        frame = episode.frames("head_camera", [4])[0].astype(np.float64)
        assert np.abs(frame - seen[4].cameras["head_camera"]).mean() < 6, "JPEG of quality 95"


def test_a_rerun_keeps_what_is_there_and_grows(dataset: Path, tmp_path: Path):
    before = tree(dataset)
    assert write_sample("lerobot", dataset, episodes=3, seed=5).written == 0 and tree(dataset) == before
    assert write_sample("lerobot", tmp_path / "more", episodes=1, seed=5).written == 1
    assert write_sample("lerobot", tmp_path / "more", episodes=3, seed=5).written == 2
    assert tree(tmp_path / "more") == before
    with pytest.raises(UsageError, match="another seed or image size"):
        write_sample("lerobot", dataset, episodes=3, seed=6)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(UsageError, match="holds other files"):
        write_sample("lerobot", tmp_path / "other", episodes=1)
    with pytest.raises(UsageError, match="the sample world has no kind 'hdf'; available: robotwin, lerobot"):
        write_sample("hdf", tmp_path / "x", episodes=1)


def test_a_run_of_another_robot_is_sent_to_predict():
    with pytest.raises(UsageError, match=r"no kind 'lerobot'; available: robotwin, for runs .* by fwtrain predict"):
        check_kind("lerobot")
