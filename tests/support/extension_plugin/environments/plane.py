"""A point on a plane that is moved by actions; solved when it has moved at all."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.base import Environment, Observation
from fwdata.envs.benchmarks.contract import BenchmarkTask, EvalProtocol, InitialStates, RobotSpec, checked_states

PROTOCOL = EvalProtocol(
    name="plain",
    source="this file",
    limits={"plane_one": 4},
    wait_steps=0,
    execute=4,
    denoising_steps=1,
    resolution=32,
    env_seed=0,
    env_seeding="trial",
    noise_seed=0,
    noise="same",
    trials=2,
)


class Plane:
    step_limit = 4

    def __init__(self, states: NDArray[np.float64], instruction: str) -> None:
        self._states, self._instruction = states, instruction

    def reset(
        self, seed: int, episode: int, split: Literal["record", "eval"] = "eval", instruction: str | None = None
    ) -> Observation:
        self._start, self._place, self._steps = self._states[episode], self._states[episode].copy(), 0
        return self._observe()

    def step(self, action: NDArray[np.floating], look: bool = True) -> Observation:
        self._place += action
        self._steps += 1
        return self._observe()

    @property
    def success(self) -> bool:
        return not np.array_equal(self._place, self._start)

    @property
    def done(self) -> bool:
        return self.success or self._steps == self.step_limit

    def _observe(self) -> Observation:
        image = np.full((32, 32, 3), 40 * self._steps, np.uint8)
        return Observation({"overhead": image, "wrist": image}, self._place.astype(np.float32), self._instruction)


class PlaneBenchmark:
    name, suites = "plane", ("plane_one",)
    protocols: Mapping[str, EvalProtocol] = {"plain": PROTOCOL}
    robot = RobotSpec(cameras=("overhead", "wrist"), state=2, action=2, gripper=0)

    def prepare(self) -> dict[str, str]:
        return {}

    def tasks(self, suite: str) -> tuple[BenchmarkTask, ...]:
        return (BenchmarkTask(0, "move", "move to spot 1"),)

    def initial_states(self, suite: str, task: BenchmarkTask) -> InitialStates:
        return checked_states(np.zeros((2, 2)), "plane")

    def open(self, suite: str, task: BenchmarkTask, protocol: EvalProtocol, states: NDArray[np.float64]) -> Environment:
        return Plane(states, task.instruction)


BENCHMARK = PlaneBenchmark()
