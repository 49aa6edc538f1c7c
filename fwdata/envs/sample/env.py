"""The sample world in closed loop: a policy or the scripted expert acts, the world answers with images."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.base import Observation
from fwdata.envs.sample.draw import render_all
from fwdata.envs.sample.tasks import TASKS, Task
from fwdata.envs.sample.world import (
    TWO_ARMS,
    Layout,
    Scene,
    State,
    advance,
    expert_action,
    pressed_colours,
    sample_scene,
)
from fwdata.errors import UsageError

KINDS = ("robotwin",)
"""Robots the sample world can be: the formats `write_sample` writes."""
STEP_LIMIT = 96
HOLD_STEPS = 5
"""Steps in a row that the right button must be pressed. The wrong one ends the episode at once."""
_LAYOUTS: dict[str, Layout] = {"robotwin": TWO_ARMS}
_STREAMS = {"record": 0, "eval": 1}


def check_kind(kind: str) -> str:
    """The kind itself; UsageError listing the kinds there are when it is not one of them."""
    if kind not in KINDS:
        raise UsageError(
            f"the sample world has no kind {kind!r}; available: {', '.join(KINDS)}, for runs on what `fwdata sample "
            "robotwin` records; a run of another robot is compared with its recordings by fwtrain predict"
        )
    return kind


def episode_scene(kind: str, seed: int, episode: int, split: Literal["record", "eval"]) -> tuple[Task, Scene]:
    """Task and scene of an episode. Tasks alternate with the episode number; recordings and evaluations draw from
    different random streams of one distribution, so no evaluation scene is ever a recorded one."""
    if seed < 0 or episode < 0:
        raise UsageError(f"seed and episode of the sample world must not be negative, found {seed} and {episode}")
    rng = np.random.default_rng([seed, episode, _STREAMS[split]])
    return TASKS[episode % len(TASKS)], sample_scene(rng, _LAYOUTS[check_kind(kind)])


class SampleEnv:
    """One episode at a time of the sample world.

    success: the button that the instruction names was pressed for `HOLD_STEPS` steps in a row, and no other before.
    done: success, the wrong button was pressed, or `step_limit` steps are over; later steps still move the world.
    Each step costs about 2 ms (three 64x48 images). Not for use from several threads.
    """

    step_limit: int = STEP_LIMIT

    def __init__(self, kind: str = "robotwin", *, pixels: tuple[int, int] = (48, 64)) -> None:
        """kind: one of KINDS (UsageError otherwise); pixels: (height, width) of every camera."""
        self.kind = check_kind(kind)
        self._pixels = pixels
        self._episode: tuple[Task, Scene] | None = None

    def reset(
        self, seed: int, episode: int, split: Literal["record", "eval"] = "eval", instruction: str | None = None
    ) -> Observation:
        """Start an episode; (seed, episode, split) decide all; the instruction is the canonical one by default."""
        self._task, self._scene = self._episode = episode_scene(self.kind, seed, episode, split)
        self._instruction = self._task.seen[0] if instruction is None else instruction
        self._state = self._scene.start_state()
        self._steps = 0
        self._held = 0
        self._verdict: bool | None = None
        return self._observe()

    def step(self, action: NDArray[np.floating], look: bool = True) -> Observation:
        """Move towards absolute targets float32 [Da] (joints rad, grippers 0 closed .. 1 open), reached within the
        largest step of `world.MAX_JOINT_STEP`; numbers that are not finite move nothing. Images are always drawn.

        Raises ValueError for another shape or before `reset`.
        """
        self._check_started()
        if np.shape(action) != self._state.shape:
            raise ValueError(f"an action must have shape {self._state.shape}, found {np.shape(action)}")
        self._state = advance(self._scene.layout, self._state, np.asarray(action))
        self._steps += 1
        pressed = pressed_colours(self._scene, self._state)
        self._held = self._held + 1 if self._task.colour in pressed else 0
        if self._verdict is None:
            if pressed - {self._task.colour}:
                self._verdict = False
            elif self._held >= HOLD_STEPS:
                self._verdict = True
            elif self._steps >= self.step_limit:
                self._verdict = False
        return self._observe()

    def expert_action(self) -> State:
        """float32 [Da]: what the scripted expert does in the current state."""
        self._check_started()
        return expert_action(self._scene, self._task, self._state)

    @property
    def scene(self) -> Scene:
        """The scene of the running episode, for checks; a policy must not look at it."""
        self._check_started()
        return self._scene

    @property
    def task(self) -> Task:
        """The task of the running episode."""
        self._check_started()
        return self._task

    @property
    def steps(self) -> int:
        """Steps taken since `reset`."""
        return self._steps

    @property
    def success(self) -> bool:
        """Whether the episode was solved."""
        return self._verdict is True

    @property
    def done(self) -> bool:
        """Whether the episode is decided or out of steps."""
        return self._verdict is not None

    def _observe(self) -> Observation:
        cameras = render_all(self._scene, self._state, self._pixels)
        return Observation(cameras, self._state.copy(), self._instruction, self._task.name)

    def _check_started(self) -> None:
        if self._episode is None:
            raise ValueError("call reset(seed, episode) before anything else of a SampleEnv")


def expert_rollout(
    env: SampleEnv, seed: int, episode: int, split: Literal["record", "eval"], rest: int = 6
) -> list[Observation]:
    """Observations of a whole episode under the expert: up to success and `rest` more steps."""
    observations = [env.reset(seed, episode, split)]
    while rest > 0 and env.steps < env.step_limit:
        observations.append(env.step(env.expert_action()))
        rest -= env.success
    return observations
