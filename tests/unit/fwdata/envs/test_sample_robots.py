"""The sample world as R1 Lite and as LIBERO recordings: the converters give back what was recorded, and verify it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import Command
from fixtures import tree

import fwdata
from fwdata.envs.sample import SampleEnv, write_sample
from fwdata.envs.sample.env import expert_rollout
from fwdata.envs.sample.record_libero import STEP
from fwdata.envs.sample.record_r1lite import REST
from fwdata.errors import UsageError


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("sample")
    for kind in ("r1lite", "libero"):
        report = write_sample(kind, out / kind, episodes=3, seed=5)
        assert (report.kind, report.episodes, report.written) == (kind, 3, 3) and report.frames > 90
    return {kind: out / kind for kind in ("r1lite", "libero")}


def converted(kind: str, raw: Path, store: Path, monkeypatch, capsys) -> fwdata.Store:
    done = Command(monkeypatch, capsys)("convert", kind, raw, "--out", store, "--workers", 0)
    assert done.code == 0 and "contradicted" not in done.out + done.err, done.err
    return fwdata.open(str(store))


@pytest.mark.slow
def test_r1lite_conversion_gives_back_what_was_recorded(recorded, tmp_path: Path, monkeypatch, capsys):
    store = converted("r1lite", recorded["r1lite"], tmp_path / "s.zarr", monkeypatch, capsys)
    unit = np.array(([1.0] * 6 + [100.0]) * 2)
    for number, episode in enumerate(store.episodes):
        seen = expert_rollout(SampleEnv("robotwin"), 5, number, "record", REST)
        states = np.stack([item.state for item in seen])
        assert episode.instructions[0] == seen[0].instruction
        np.testing.assert_allclose(episode.state() / unit, states, atol=0.01)  # messages lie between images
        np.testing.assert_allclose(episode.action()[:-1] / unit, states[1:], atol=0.03)
        frame = episode.frames("head_rgb", [4])[0].astype(np.float64)
        assert np.abs(frame - seen[4].cameras["head_camera"]).mean() < 6, "JPEG of quality 95"


@pytest.mark.slow
def test_libero_conversion_gives_back_what_was_recorded(recorded, tmp_path: Path, monkeypatch, capsys):
    store = converted("libero", recorded["libero"], tmp_path / "s.zarr", monkeypatch, capsys)
    assert {episode.instructions[0] for episode in store.episodes} == {"press the red button", "press the blue button"}
    for episode in store.episodes:
        task = episode.task
        with h5py.File(recorded["libero"] / "sample_suite" / f"{task}_demo.hdf5") as file:
            demo = file["data"][episode.id.rpartition("/")[2]]
            np.testing.assert_allclose(episode.state()[:, :3], demo["obs/ee_pos"], atol=1e-6)
            np.testing.assert_array_equal(episode.action()[:, :6], demo["actions"][:, :6].astype(np.float32))
            moved = np.diff(demo["obs/ee_pos"][:], axis=0)
            np.testing.assert_allclose(moved, demo["actions"][1:, :3] * STEP, atol=1e-9)
            stored = demo["obs/agentview_rgb"][0]
        np.testing.assert_array_equal(episode.frames("image", [0])[0], stored[::-1, ::-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["r1lite", "libero"])
def test_a_rerun_keeps_what_is_there(recorded, tmp_path: Path, kind: str):
    raw = recorded[kind]
    before = tree(raw)
    assert write_sample(kind, raw, episodes=3, seed=5).written == 0 and tree(raw) == before
    with pytest.raises(UsageError, match=r"holds (other recordings|recordings of another seed)"):
        write_sample(kind, raw, episodes=3, seed=6)
    assert tree(raw) == before
    assert write_sample(kind, tmp_path / "again", episodes=3, seed=5).written == 3
    assert tree(tmp_path / "again") == before
