"""LIBERO as an `Environment`: what a policy sees, when images are rendered, limits, and initial states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fwdata.envs.benchmarks import benchmark_names, load_benchmark
from fwdata.envs.benchmarks.contract import BenchmarkTask
from fwdata.envs.benchmarks.libero import PROTOCOLS, RESTING, LiberoEnvironment, read_initial_states
from fwdata.envs.libero import SimulatorState
from fwdata.errors import BadEpisode, UsageError

TASK = BenchmarkTask(3, "open_it", "open it")
STATES = np.arange(12.0).reshape(4, 3)
FASTWAM = replace(PROTOCOLS["fastwam"], wait_steps=3, limits={"suite": 5})


class FakePlaced:
    """Logs what is asked; images number their rendering, the quaternion is a turn of 3 pi / 2 about z."""

    def __init__(self, solved_at: int = 99) -> None:
        self.looking, self.log, self.looks, self.steps, self.solved_at = True, [], 0, 0, solved_at
        self.image = np.zeros((4, 4, 3), np.uint8)

    def place(self, seed: int, draw: int) -> None:
        self.log.append(("place", seed, draw))
        self.steps = 0

    def set_state(self, state: np.ndarray) -> None:
        self.log.append(("state", state[0]))

    def step(self, action: np.ndarray) -> tuple[SimulatorState, bool]:
        self.steps += 1
        self.log.append(action.tolist())
        if self.looking:
            self.looks += 1
            self.image = np.zeros((4, 4, 3), np.uint8)
            self.image[0, 0] = self.looks
        return self.observe(), self.steps == self.solved_at

    def observe(self) -> SimulatorState:
        half = np.sqrt(0.5)
        pictures = {"agentview_rgb": self.image, "eye_in_hand_rgb": 100 + self.image}
        turn = np.array([0, 0, half, -half])
        return SimulatorState(np.zeros(7), np.array([0.04, -0.04]), np.array([1.0, 2, 3]), turn, pictures)


def opened(**options) -> tuple[LiberoEnvironment, FakePlaced]:
    simulator = FakePlaced(**options)
    return LiberoEnvironment(simulator, STATES, TASK, FASTWAM, 5), simulator


def test_a_trial_begins_with_its_draw_its_state_and_the_wait():
    env, simulator = opened()
    seen = env.reset(42, 2)
    assert simulator.log == [("place", 42, 2), ("state", 6.0), *[RESTING.tolist()] * 3]
    assert simulator.looks == 1 and not env.done and not env.success
    assert (seen.instruction, seen.task) == ("open it", "open_it")
    assert seen.state == pytest.approx([1, 2, 3, 0, 0, 1.5 * np.pi, 0.04, -0.04]), "the angle is not folded"
    assert seen.cameras["image"][-1, -1, 0] == 1 and seen.cameras["image"][0, 0, 0] == 0, "rotated by 180 degrees"
    assert seen.cameras["wrist_image"][-1, -1, 0] == 101


def test_trials_may_be_seeded_one_by_one():
    env, simulator = opened()
    env._protocol = replace(FASTWAM, env_seeding="trial")
    env.reset(7, 3)
    assert simulator.log[0] == ("place", 10, 0)


def test_images_are_rendered_only_when_somebody_looks():
    env, simulator = opened()
    env.reset(42, 0)
    looks = [env.step(RESTING, look=look).cameras["image"][-1, -1, 0] for look in (False, False, True)]
    assert looks == [1, 1, 2] and simulator.looks == 2


def test_a_trial_ends_at_the_limit_or_with_success_and_not_during_the_wait():
    env, _ = opened(solved_at=2)  # inside the wait
    env.reset(42, 0)
    assert not env.success
    for step in range(5):
        assert not env.done, step
        env.step(RESTING)
    assert env.done and not env.success
    env, _ = opened(solved_at=3 + 2)
    env.reset(42, 0)
    env.step(RESTING)
    assert not env.done
    env.step(RESTING)
    assert env.done and env.success


@pytest.mark.parametrize("action", [np.zeros(6), np.array([0, 0, np.nan, 0, 0, 0, 1])])
def test_an_action_that_is_none_is_refused(action):
    env, _ = opened()
    env.reset(42, 0)
    with pytest.raises(ValueError, match="7 finite numbers"):
        env.step(action)


def test_a_trial_without_a_state_is_refused():
    env, _ = opened()
    with pytest.raises(UsageError, match="trial 4 of open_it has no initial state, there are 4"):
        env.reset(42, 4)


def test_a_state_of_another_task_is_refused_by_name(monkeypatch: pytest.MonkeyPatch):
    def other(self, state):
        raise BadEpisode("its states have 3 values, the simulator of this task has 4")

    monkeypatch.setattr(FakePlaced, "set_state", other)
    with pytest.raises(UsageError, match="initial state 1 of open_it does not fit: its states have 3 values, the sim"):
        opened()[0].reset(42, 1)


def test_initial_states_are_read_without_pickles(tmp_path: Path):
    path = tmp_path / "a.npz"
    with pytest.raises(UsageError, match="absent"):
        read_initial_states(path)
    np.savez(path, states=STATES)
    found = read_initial_states(path)
    assert np.array_equal(found.states, STATES) and len(found.sha256) == 64
    for values in ({"states": np.array([{}])}, {"other": STATES}, {"states": STATES * np.nan}, {"states": STATES[0]}):
        np.savez(path, **values)
        with pytest.raises(UsageError, match=r"a.npz holds no initial states"):
            read_initial_states(path)
    path.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(UsageError, match="holds no initial states"):
        read_initial_states(path)


def test_the_published_protocol():
    """Line by line of experiments/libero/eval_libero_single.py, configs/sim_libero.yaml and configs/train.yaml."""
    protocol = PROTOCOLS["fastwam"]
    assert next(iter(PROTOCOLS)) == "fastwam"
    assert [protocol.limits[f"libero_{s}"] for s in ("spatial", "object", "goal", "10", "90")] == [400] * 3 + [700] * 2
    assert (protocol.wait_steps, protocol.execute, protocol.denoising_steps, protocol.resolution) == (30, 10, 10, 256)
    assert (protocol.env_seed, protocol.env_seeding, protocol.noise_seed, protocol.noise) == (42, "task", 42, "same")
    assert protocol.trials == 50 and RESTING.tolist() == [0, 0, 0, 0, 0, 0, -1]


def test_benchmarks_are_found_by_name_or_as_module_and_object():
    assert benchmark_names() == ["libero"]
    assert load_benchmark("libero").name == "libero"
    assert load_benchmark("fake_benchmark:BENCHMARK").name == "fake"
    for name, words in (("libro", "did you mean 'libero'"), ("absent:X", "No module"), ("fake_benchmark:Y", "Y")):
        with pytest.raises(UsageError, match=words):
            load_benchmark(name)
