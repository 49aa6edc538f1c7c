"""Demonstrations of scripted experts: the raw layout, failures, and folders that continue."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import Command
from fake_simulator import FakeSimulator
from fixtures import tree
from libero_files import STATE_WIDTH
from libero_reading import pixels, read_one

from fwdata.envs import libero as simulators
from fwdata.envs import libero_record as recording
from fwdata.envs.benchmarks.contract import BenchmarkTask, checked_states
from fwdata.envs.benchmarks.libero import LiberoBenchmark
from fwdata.envs.libero_experts import PUSH_STEPS, PickAndPlace, _command, pushed
from fwdata.errors import UsageError

TASKS = tuple(
    BenchmarkTask(i, name, name.replace("_", " ")) for i, name in enumerate(["open_it", "put_it_there", "no"])
)
STEPS = 5
FILE = "libero_goal/put_it_there_demo.hdf5"


class FakeArm(FakeSimulator):
    """Solved after STEPS steps past the settling, unless the draw of the scene is in `fails`."""

    fails: tuple[int, ...] = ()
    looking = True

    def place(self, seed: int, draw: int) -> None:
        self.reset()
        self.draw, self.scene = draw, draw

    def model_xml(self) -> str:
        return f"<mujoco model='scene {self.draw}'/>" + " " * (1 << 17)

    def step(self, action):
        seen, _ = super().step(action)
        return seen, self.steps >= recording.SETTLING_STEPS + STEPS and self.draw not in self.fails


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeArm]:
    """Every simulator that was opened."""
    opened: list[FakeArm] = []

    def open_simulator(suite: str, task: str, resolution: int) -> FakeArm:
        opened.append(FakeArm())
        return opened[-1]

    monkeypatch.setattr(simulators, "open_simulator", open_simulator)
    monkeypatch.setattr(simulators, "versions", lambda: {"mujoco": "3.3.2"})
    monkeypatch.setattr(simulators, "choose_backend", lambda: "egl")
    monkeypatch.setattr(LiberoBenchmark, "tasks", lambda self, suite: TASKS)
    states = checked_states(np.zeros((4, STATE_WIDTH)), "memory")
    monkeypatch.setattr(LiberoBenchmark, "initial_states", lambda self, suite, task: states)
    monkeypatch.setattr(recording, "KNOWN", {"libero_goal": (1,)})
    monkeypatch.setattr(PickAndPlace, "of", classmethod(lambda cls, simulator: cls("it", "there")))
    monkeypatch.setattr(recording, "perturbed", lambda simulator, plan, state, random, most: state)
    monkeypatch.setattr(recording, "expert_actions", lambda *_: iter(np.full((9, 7), 0.1)))
    return opened


def record(run: Command, out: Path, *options: object):
    return run("sample", "libero", "--simulator", "--suite", "goal", "--episodes", 2, "--out", out, *options)


def test_recordings_have_the_raw_layout_and_convert(run: Command, made: list[FakeArm], tmp_path: Path):
    done = record(run, tmp_path / "out", "--json")
    assert (done.code, done.json["episodes"], done.json["frames"], done.json["failed"]) == (0, 2, 2 * STEPS, 0)
    with h5py.File(tmp_path / "out" / FILE) as file:
        about, demo = file["data"].attrs, file["data/demo_1"]
        assert (about["num_demos"], about["total"], about["macros_image_convention"]) == (2, 2 * STEPS, "opengl")
        assert json.loads(about["problem_info"])["language_instruction"] == "put it there"
        kwargs = json.loads(about["env_args"])["env_kwargs"]
        assert kwargs["bddl_file_name"] == about["bddl_file_name"]
        assert kwargs["controller_configs"]["output_max"] == [0.05, 0.05, 0.05, 0.5, 0.5, 0.5]
        assert demo.attrs["model_file"].startswith("<mujoco model='scene 1'/>")
        assert demo.attrs["num_samples"] == STEPS and np.array_equal(demo.attrs["init_state"], demo["states"][0])
        assert demo["states"][0, 0] == recording.SETTLING_STEPS, "before the action"
        assert demo["obs/ee_pos"][0, 0] == 0.01 * (recording.SETTLING_STEPS + 1), "after the action"
        assert demo["obs/agentview_rgb"][0, 0, 0].tolist() == [1, recording.SETTLING_STEPS + 1, 200]
        assert demo["dones"][()].tolist() == [0] * (STEPS - 1) + [1] and demo["actions"].shape == (STEPS, 7)
    episode = read_one(tmp_path / "out")
    assert episode.metadata["layout"] == "raw" and len(pixels(episode, "image")) == STEPS
    kept = json.loads((tmp_path / "out/libero_goal/sample.json").read_text())
    assert kept["settings"]["seed"] == 0 and kept["settings"]["mujoco"] == "3.3.2"


def test_failures_are_listed_and_others_tried(run: Command, made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FakeArm, "fails", (0, 2))
    done = record(run, tmp_path)
    assert done.code == 0 and "failed: put_it_there, attempt 0 from initial state 0" in done.err
    assert "2 attempts failed" in done.out
    monkeypatch.setattr(FakeArm, "fails", tuple(range(5)))
    done = record(run, tmp_path / "short")
    assert done.code == 3 and "put_it_there has fewer than 2 recordings" in done.err
    with h5py.File(tmp_path / "short" / FILE) as file:
        assert list(file["data"]) == ["demo_0"]


def test_a_killed_recording_continues_and_a_finished_one_stays(run: Command, made, tmp_path: Path, monkeypatch):
    record(run, tmp_path / "whole")
    attempts = recording.record_attempt

    def cut(simulator, request, task, states, number, path):
        if number == 1:
            raise KeyboardInterrupt
        return attempts(simulator, request, task, states, number, path)

    monkeypatch.setattr(recording, "record_attempt", cut)
    assert record(run, tmp_path / "cut").code == 130
    monkeypatch.setattr(recording, "record_attempt", attempts)
    opened = len(made)
    record(run, tmp_path / "cut")
    assert len(made) == opened + 1
    with h5py.File(tmp_path / "cut" / FILE) as one, h5py.File(tmp_path / "whole" / FILE) as other:
        for demo in ("demo_0", "demo_1"):
            assert np.array_equal(one[f"data/{demo}/states"], other[f"data/{demo}/states"])
    before = tree(tmp_path / "cut")
    assert record(run, tmp_path / "cut").code == 0 and tree(tmp_path / "cut") == before and len(made) == opened + 1
    record(run, tmp_path / "cut", "--seed", 1).refused(2, "was begun with seed 0, now it is 1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tasks", "0"), "no scripted expert solves task 0 of libero_goal (open_it); it solves 1"),
        (("--tasks", "9"), "has no task '9'"),
        (("--suite", "10"), "no scripted expert solves tasks of libero_10"),
        (("--seed", -1), "--seed must be 0 to 4294967295 in the simulator, found -1"),
        (("--seed", 1 << 32), "--seed must be 0 to 4294967295 in the simulator, found 4294967296"),
    ],
)
def test_what_no_expert_solves_is_refused(run: Command, made, tmp_path: Path, options, words):
    record(run, tmp_path / "out", *options).refused(2, words)
    assert not (tmp_path / "out").exists()


def test_a_task_that_is_named_twice_is_recorded_once(run: Command, made, tmp_path: Path):
    done = record(run, tmp_path, "--tasks", "1, put_it_there,1", "--json")
    assert (done.code, done.json["episodes"], len(made)) == (0, 2, 1)
    assert json.loads((tmp_path / "libero_goal/sample.json").read_text())["tasks"] == ["put_it_there"]


def test_options_that_do_not_fit_are_refused(run: Command, tmp_path: Path):
    run("sample", "robotwin", "--suite", "goal", "--out", tmp_path / "a").refused(2, "need --simulator")
    run("sample", "robotwin", "--simulator", "--suite", "goal").refused(2, "--simulator records libero")
    run("sample", "libero", "--simulator").refused(2, "--simulator needs --suite: libero_spatial")


def test_commands_are_bounded_and_quantised_like_published_ones():
    rest = np.eye(3)
    found = _command(np.array([1.0, -0.2, 0]), rest, rest, 1.0, 0.9375, np.random.default_rng(0))
    assert np.abs(found[:3]).max() <= 0.9375 and found[6] == 1.0
    steps = found[:3] / (0.9375 / 350)
    assert steps == pytest.approx(np.round(steps), abs=1e-6)
    with pytest.raises(UsageError):
        recording.tasks_to_record("libero_90", None)


def test_the_command_that_is_printed_can_be_copied(run: Command, tmp_path: Path):
    done = run("sample", "libero", "--episodes", 1, "--out", tmp_path / "a b")
    line = done.out.splitlines()[-1].partition("with: ")[2]
    words = shlex.split(line)
    assert words[:4] == ["fwdata", "convert", "libero", str(tmp_path / "a b")] and "a b.zarr" in words


def test_pushes_replace_the_arm_commands_of_some_steps_and_never_the_gripper(made: list[FakeArm]):
    wanted = np.tile([0.0] * 6 + [1.0], (150, 1))
    found = np.stack(list(pushed(iter(wanted), np.random.default_rng(3), 2)))
    moved = np.flatnonzero(found[:, :6].any(axis=1))
    assert PUSH_STEPS < len(moved) <= 2 * PUSH_STEPS and len(found) == 150 and (found[:, 6] == 1).all()
    assert (np.abs(found) <= [0.9375] * 3 + [0.375] * 3 + [1]).all() and len(np.unique(found[moved, 0])) == 2
    again = list(pushed(iter(wanted), np.random.default_rng(3), 0))
    assert np.array_equal(again, wanted)


def test_pushes_are_recorded_as_carried_out_and_belong_to_the_settings(
    run: Command, made: list[FakeArm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fwdata.envs.libero_experts.PUSH_WITHIN", 1)
    assert record(run, tmp_path / "pushed", "--pushes", 1).code == 0
    with h5py.File(tmp_path / "pushed" / FILE) as file:
        actions = file["data/demo_0/actions"][()]
    assert (actions[:PUSH_STEPS, :6] != 0.1).all() and np.allclose(actions[PUSH_STEPS:, :6], 0.1)
    record(run, tmp_path / "pushed").refused(2, "was begun with pushes 1, now it is 0")
    settings = tmp_path / "old/libero_goal/.sample/settings.json"
    assert record(run, tmp_path / "old").code == 0
    kept = json.loads(settings.read_text())
    settings.write_text(json.dumps({key: value for key, value in kept.items() if key != "pushes"}))
    assert record(run, tmp_path / "old").code == 0, "folders of earlier versions were recorded without pushes"
