"""Closed loops in the real LIBERO simulator: gated rendering, and trials that can be repeated alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fwdata.envs import libero as simulators
from fwdata.envs.base import Observation
from fwdata.envs.benchmarks.libero import BENCHMARK, PROTOCOLS
from fwdata.errors import FwdataError
from fwtrain.infer.trials.plan import PolicyAbout, ProtocolChanges, plan_evaluation
from fwtrain.infer.trials.records import EvalFolder
from fwtrain.infer.trials.run import FilmRequest, evaluate_benchmark
from fwtrain.model import Denoising

CAMERAS = ("image", "wrist_image")


@pytest.fixture(scope="module", autouse=True)
def simulator_is_here() -> None:
    try:
        BENCHMARK.prepare()
    except FwdataError as error:
        pytest.skip(str(error))


def copied(seen: Observation) -> list[np.ndarray]:
    return [seen.state, *(seen.cameras[name].copy() for name in CAMERAS)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the simulator's own, in this process
def test_gated_rendering_and_scenes_are_exact():
    """libero_goal: cabinet, stove and rack are drawn at reset. 18 random steps, trial 2 after another and alone."""
    task = BENCHMARK.tasks("libero_goal")[8]
    protocol = replace(PROTOCOLS["fastwam"], resolution=64, wait_steps=4)
    states = BENCHMARK.initial_states("libero_goal", task).states
    env = BENCHMARK.open("libero_goal", task, protocol, states)
    world = env._simulator.world

    def play(trial: int, look_always: bool) -> list[list[np.ndarray]]:
        random = np.random.default_rng(5)
        found = [copied(env.reset(42, trial))]
        for step in range(18):
            look = step % 6 == 5
            seen = env.step(random.uniform(-1, 1, 7), look or look_always)
            found += [[*copied(seen), env._simulator.state()]] if look else []
        return found

    def equal(one: list[list[np.ndarray]], other: list[list[np.ndarray]]) -> bool:
        return all(np.array_equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))

    rendered = play(2, look_always=True)
    placed = world.sim.model.body_pos.copy()
    assert equal(play(2, look_always=False), rendered)
    other = play(0, look_always=False)
    assert not equal(other, rendered)
    assert np.abs(world.sim.model.body_pos - placed).max() > 0.001, "another draw of the fixtures"
    assert equal(play(2, look_always=False), rendered)

    world.seed(42)  # as the official script does it: seeded once, a full reset before every trial
    for _ in range(3):
        env._simulator.reset()
    assert np.array_equal(world.sim.model.body_pos, placed)


ABOUT: PolicyAbout = {
    "checkpoint": "none",
    "variant": "fastwam",
    "sampling": Denoising(),
    "gripper_sign": [],
    "scaling": "0" * 16,
}


class Wave:
    """A policy whose actions follow from what it sees."""

    gripper_sign: tuple[int, ...] = ()
    info = SimpleNamespace(
        manifest=SimpleNamespace(stitch=SimpleNamespace(cameras=CAMERAS)),
        recorded_sizes=((64, 64), (128, 128), (256, 256)),
        student_warning=lambda steps: None,
        state=SimpleNamespace(names=["s"] * 8),
        action=SimpleNamespace(names=["a"] * 7),
        fps=20.0,
        model=SimpleNamespace(action_horizon=32, schedule=SimpleNamespace(video_shift=5.0, action_shift=1.0)),
    )

    def act_batch(self, observations, seeds, *, steps):
        pace = [0.5 * np.sin(o.cameras["image"].mean() + o.state[:7]) for o in observations]
        return np.stack([np.repeat(row[None], 32, axis=0) for row in pace]).astype(np.float32)

    def commands(self, chunk):
        return chunk


@pytest.mark.slow
def test_a_killed_evaluation_ends_like_one_that_was_not(tmp_path):
    asked = {"tasks": "3", "trials": "2", "changes": ProtocolChanges(limit=12, wait_steps=2, resolution=64)}
    plan = plan_evaluation("libero", BENCHMARK, ["object"], **asked)
    whole = evaluate_benchmark(plan, Wave(), ABOUT, tmp_path / "whole", films=FilmRequest((1,)))
    assert not whole.warnings and whole.films[0].path.stat().st_size > 1000
    for trials in ("1-1", "2"):
        part = plan_evaluation("libero", BENCHMARK, ["object"], **{**asked, "trials": trials})
        evaluate_benchmark(part, Wave(), ABOUT, tmp_path / "parts")
    records = [
        [record.model_copy(update={"env_cpu_seconds": 0.0}) for record in EvalFolder(tmp_path / name).finished()]
        for name in ("whole", "parts")
    ]
    assert len(records[0]) == 2 and records[0] == records[1]
    assert simulators.versions()["mujoco"] == whole.plan.facts["mujoco"]
