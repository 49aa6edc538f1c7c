"""A benchmark with two suites of two tasks, whose environments can be made to crash or hang.

FAKE_BENCHMARK=kind,task,trial,times,folder: that trial's environment ends in this way so many times (kind: crash, exit,
hang, refuse); folder counts them. A trial ends well after 3 + scene % 30 steps, if the limit allows.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from fwdata.envs.base import Observation
from fwdata.envs.benchmarks.contract import BenchmarkTask, EvalProtocol, RobotSpec, checked_states
from fwdata.errors import FwdataError, UsageError

LIMIT = 20
CAMERAS = ("head_camera", "left_camera", "right_camera")


def protocol(name: str, **changes) -> EvalProtocol:
    usual = {
        "limits": {"fake_one": LIMIT, "fake_two": LIMIT}, "wait_steps": 2, "execute": 4, "denoising_steps": 2,
        "resolution": 48, "env_seed": 42, "env_seeding": "task", "noise_seed": 42, "noise": "running", "trials": 4,
    }  # fmt: skip
    return EvalProtocol(name=name, source=f"{name} script", **{**usual, **changes})


class FakeEnvironment:
    step_limit = LIMIT

    def __init__(self, suite, task, protocol, states) -> None:
        self.task, self.protocol, self.states = task, protocol, states
        self.step_limit = protocol.limits[suite]
        self.done = True

    def reset(self, seed, episode, split="eval", instruction=None) -> Observation:
        fail(self.task.name, episode)
        if "FAKE_STARTED" in os.environ:
            (Path(os.environ["FAKE_STARTED"]) / str(os.getpid())).touch()
        self.scene = int(np.random.default_rng([seed, episode, self.task.number]).integers(0, 1000))
        self.trial, self.steps, self.place, self.looks = episode, 0, float(self.states[episode][0]), 0
        self.done = self.success = False
        return self.observe(True)

    def step(self, action, look=True) -> Observation:
        assert np.shape(action) == (14,) and action[6] in (-1, 0, 1), action
        time.sleep(float(os.environ.get("FAKE_PACE", "0")))
        self.place += float(action[0]) + 0.01 * float(action[6])
        self.steps += 1
        self.success = self.steps == 3 + self.scene % 30
        self.done = self.success or self.steps >= self.step_limit
        return self.observe(look)

    def observe(self, look) -> Observation:
        if look:
            self.looks += 1
            self.image = np.full((48, 64, 3), (self.scene % 256, self.steps, self.looks), np.uint8)
        state = np.linspace(-0.5, 0.5, 14, dtype=np.float32)
        state[0] = self.place
        return Observation(dict.fromkeys(CAMERAS, self.image), state, self.task.instruction, self.task.name)


def fail(task: str, trial: int) -> None:
    kind, name, number, times, folder = os.environ.get("FAKE_BENCHMARK", ",,-1,0,").split(",")
    if (name, int(number)) != (task, trial) or len(list(Path(folder).iterdir())) >= int(times):
        return
    (Path(folder) / str(time.time_ns())).touch()
    if kind == "crash":
        os.abort()
    if kind == "exit":
        print("the renderer is gone")
        os._exit(3)
    if kind == "hang":
        time.sleep(60)
    if kind == "raise":
        raise RuntimeError("a shader\nfailed")
    raise UsageError("this task cannot be built")


class FakeBenchmark:
    name = "fake"
    suites = ("fake_one", "fake_two")
    protocols = {  # noqa: RUF012
        "usual": protocol("usual"),
        "other": protocol("other", execute=8, noise="same", env_seeding="trial", notes=("no crop is made",)),
    }
    robot = RobotSpec(cameras=CAMERAS, state=14, action=14, gripper=6)

    def prepare(self) -> dict[str, str]:
        if "FAKE_ABSENT" in os.environ:
            raise FwdataError("no OpenGL library can render without a screen: apt-get install it")
        return {"fakesim": "1.0"}

    def tasks(self, suite):
        return tuple(BenchmarkTask(i, name, f"{name} it") for i, name in enumerate(("lift", "drop")))

    def initial_states(self, suite, task):
        return checked_states(np.arange(18.0).reshape(6, 3) / 100, "memory")

    def open(self, suite, task, protocol, states):
        return FakeEnvironment(suite, task, protocol, states)


BENCHMARK = FakeBenchmark()
