"""The LIBERO benchmark: five suites, their protocols as data, and its simulator as an `Environment`."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fwdata.envs import libero as simulators
from fwdata.envs.base import Observation
from fwdata.envs.benchmarks.contract import BenchmarkTask, EvalProtocol, InitialStates, RobotSpec, checked_states
from fwdata.errors import BadEpisode, UsageError, did_you_mean, install_command

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
RESTING = np.array([0.0, 0, 0, 0, 0, 0, -1])
"""No motion, gripper open."""

_CAMERAS = {"image": "agentview_rgb", "wrist_image": "eye_in_hand_rgb"}


def _limits(spatial: int, objects: int, goal: int, ten: int, ninety: int) -> dict[str, int]:
    return dict(zip(SUITES, (spatial, objects, goal, ten, ninety), strict=True))


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        EvalProtocol(
            name="fastwam",
            source="FastWAM experiments/libero/eval_libero_single.py, libero_utils.py; sim_libero.yaml, train.yaml",
            limits=_limits(400, 400, 400, 700, 700),
            wait_steps=30,
            execute=10,
            denoising_steps=10,
            resolution=256,
            env_seed=42,
            env_seeding="task",
            noise_seed=42,
            noise="same",
            versions={"mujoco": "3.3.2"},
        ),
        EvalProtocol(
            name="lerobot",
            source="LeRobot src/lerobot/envs/libero.py, policies/fastwam/configuration_fastwam.py (n_action_steps 32)",
            limits=_limits(280, 280, 300, 520, 400),
            wait_steps=10,
            execute=32,
            denoising_steps=10,
            resolution=360,
            env_seed=0,
            env_seeding="trial",
            noise_seed=42,
            noise="same",
            trials=10,
            notes=(
                "seed 0 is that of the commands on LeRobot's page about Fast-WAM; lerobot-eval takes 1000 by default",
                "trial k begins with initial state k; LeRobot's index advances at every reset, also after a success",
                "LeRobot sends the gripper as the policy's own steps give it; here it is sent as -1 or +1",
            ),
        ),
        EvalProtocol(
            name="openvla",
            source="openvla-oft experiments/robot/libero/run_libero_eval.py, libero_utils.py",
            limits=_limits(220, 280, 300, 520, 400),
            wait_steps=10,
            execute=8,
            denoising_steps=10,
            resolution=256,
            env_seed=0,
            env_seeding="task",
            noise_seed=7,
            noise="running",
            notes=("openvla-oft crops the centre 0.9 of the image area for its own policy; no crop is made here",),
        ),
    )
}
"""Steps and seeds in the environment's own units; `fastwam` is the one of the published Fast-WAM numbers."""


ROBOT = RobotSpec(cameras=tuple(_CAMERAS), state=8, action=7, gripper=6, foreign=("joint", "quat", "target"), fps=20)
"""target: absolute poses, as `absolute_actions` of a conversion names them; the controller takes deltas."""


@dataclass(frozen=True)
class LiberoBenchmark:
    """See `fwdata.envs.benchmarks.contract.Benchmark`."""

    name: str = "libero"
    """Name for `--env`."""
    suites: tuple[str, ...] = SUITES
    """Suites of tasks, by LIBERO's names."""
    robot: RobotSpec = ROBOT
    """Cameras and widths of state and action."""

    @property
    def protocols(self) -> Mapping[str, EvalProtocol]:
        """Protocols by name; the first is the default."""
        return PROTOCOLS

    def prepare(self) -> dict[str, str]:
        """Versions and renderer. Costs 1 s: a renderer is tried."""
        return {**simulators.versions(), "renderer": simulators.choose_backend()}

    def tasks(self, suite: str) -> tuple[BenchmarkTask, ...]:
        """The suite's tasks in the benchmark's order, with the instruction of the file name."""
        if suite not in SUITES:
            raise UsageError(f"there is no LIBERO suite {suite!r}{did_you_mean(suite, SUITES)}")
        found = _benchmark(suite)
        return tuple(BenchmarkTask(i, task.name, task.language) for i, task in enumerate(found.tasks))

    def initial_states(self, suite: str, task: BenchmarkTask) -> InitialStates:
        """The 50 states that come with the benchmark."""
        simulators.versions()
        with simulators.quiet():
            folder = Path(importlib.import_module("libero.libero").get_libero_path("init_states")) / suite
        return read_initial_states(folder / f"{task.name}.pruned_init.npz")

    def open(
        self, suite: str, task: BenchmarkTask, protocol: EvalProtocol, states: NDArray[np.float64]
    ) -> LiberoEnvironment:
        """The task's simulator; 4 to 15 s and 2.2 GB of memory."""
        simulator = simulators.open_simulator(suite, task.name, protocol.resolution)
        return LiberoEnvironment(simulator, states, task, protocol, protocol.limits[suite])


BENCHMARK = LiberoBenchmark()


def _benchmark(suite: str) -> Any:
    simulators.versions()
    with simulators.quiet():
        return importlib.import_module("libero.libero.benchmark").get_benchmark(suite)()


def read_initial_states(path: Path) -> InitialStates:
    """Initial states of an NPZ file (key `states`), read without pickles. UsageError when absent or unfit."""
    if not path.is_file():
        raise UsageError(
            f"the initial states {path} are absent; install the benchmark again: {install_command('libero-sim')}"
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            states = np.asarray(loaded["states"])
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} holds no initial states: {error}") from None
    return checked_states(states, str(path))


class Placed(Protocol):
    """What the environment asks of `fwdata.envs.libero.LiberoSimulator`."""

    looking: bool

    def place(self, seed: int, draw: int) -> None: ...

    def set_state(self, state: NDArray[np.float64]) -> None: ...

    def step(self, action: NDArray[np.float64]) -> tuple[simulators.SimulatorState, bool]: ...

    def observe(self) -> simulators.SimulatorState: ...


class LiberoEnvironment:
    """One task as an `Environment`: images rotated by 180 degrees and the state as Fast-WAM trains on them.

    Actions are the simulator's own: deltas of the end effector in units of the controller, gripper -1 open, +1 closed.
    The success of a step is LIBERO's goal predicate at its end.
    """

    def __init__(
        self, simulator: Placed, states: NDArray[np.float64], task: BenchmarkTask, protocol: EvalProtocol, limit: int
    ) -> None:
        self.step_limit = limit
        self._simulator, self._states, self._task, self._protocol = simulator, states, task, protocol
        self._steps, self._success = limit, False

    def reset(
        self, seed: int, episode: int, split: Literal["record", "eval"] = "eval", instruction: str | None = None
    ) -> Observation:
        """Trial `episode`: its initial state, its draw of the fixtures, and the steps of waiting.

        split: not used, both begin with the benchmark's states. Raises UsageError for a trial without a state, or with
        one that is not of this task.
        """
        if not 0 <= episode < len(self._states):
            raise UsageError(
                f"trial {episode} of {self._task.name} has no initial state, there are {len(self._states)}"
            )
        self._instruction = self._task.instruction if instruction is None else instruction
        simulator, wait = self._simulator, self._protocol.wait_steps
        simulator.looking = wait == 0
        if self._protocol.env_seeding == "task":
            simulator.place(seed, episode)
        else:
            simulator.place(seed + episode, 0)
        try:
            simulator.set_state(self._states[episode])
        except BadEpisode as error:
            raise UsageError(f"initial state {episode} of {self._task.name} does not fit: {error}") from None
        seen = simulator.observe()
        for step in range(wait):
            simulator.looking = step == wait - 1
            seen, _ = simulator.step(RESTING)
        self._steps, self._success = 0, False
        return self._observation(seen)

    def step(self, action: NDArray[np.floating], look: bool = True) -> Observation:
        """Act for 50 ms. Raises ValueError for another shape or numbers that are not finite."""
        if np.shape(action) != RESTING.shape or not np.isfinite(action).all():
            raise ValueError(f"an action must be 7 finite numbers, found {np.asarray(action).tolist()}")
        self._simulator.looking = look
        seen, self._success = self._simulator.step(np.asarray(action, np.float64))
        self._steps += 1
        return self._observation(seen)

    @property
    def success(self) -> bool:
        """Whether the goal held at the end of the last step."""
        return self._success

    @property
    def done(self) -> bool:
        """Whether the goal was reached or the steps are over."""
        return self._success or self._steps >= self.step_limit

    def _observation(self, seen: simulators.SimulatorState) -> Observation:
        cameras = {name: np.ascontiguousarray(seen.images[key][::-1, ::-1]) for name, key in _CAMERAS.items()}
        state = np.concatenate([seen.position, simulators.axis_angle(seen.quaternion), seen.fingers])
        return Observation(cameras, state.astype(np.float32), self._instruction, self._task.name)
