"""Carrying out chunks of actions in an environment: in this process, or in one of its own (`benchmarks.process`)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.base import Environment, Observation
from fwdata.errors import FwdataError


class EnvLost(FwdataError):
    """The environment's process crashed or was ended because it hung. The message continues `the environment ..`."""


@dataclass(frozen=True)
class Played:
    """What an environment answers to a reset or to the actions of a chunk."""

    seen: Observation
    """The latest observation, rendered unless the trial is over."""
    steps: int
    """Actions carried out; fewer than were sent when the trial ended."""
    success: bool
    """Whether the task is solved."""
    done: bool
    """Whether the trial is over."""
    cpu: float
    """CPU seconds it took."""
    frames: tuple[Mapping[str, NDArray[np.uint8]], ...] = ()
    """Images after a reset, and after every step where they were asked for."""


def play_reset(env: Environment, seed: int, trial: int) -> Played:
    """Start a trial."""
    began = time.process_time()
    seen = env.reset(seed, trial)
    return Played(seen, 0, env.success, env.done, time.process_time() - began, (seen.cameras,))


def play_actions(env: Environment, actions: NDArray[np.floating], film: bool = False) -> Played:
    """Carry out actions [n, a], n at least 1, until they or the trial are over. film: keep the images of every step."""
    began = time.process_time()
    frames = []
    for steps, action in enumerate(actions, 1):
        seen = env.step(action, look=film or steps == len(actions))
        if film:
            frames.append(seen.cameras)
        if env.done:
            break
    return Played(seen, steps, env.success, env.done, time.process_time() - began, tuple(frames))


class Player(Protocol):
    """An environment to play in. Ask (`reset`, `run`), then `receive`; one question at a time."""

    @property
    def connection(self) -> Connection | None:
        """Readable when there is something to receive; None where every question is answered at once."""

    @property
    def deadline(self) -> float:
        """`time.monotonic()` at which an unanswered question counts as a hang."""

    def reset(self, seed: int, trial: int) -> None:
        """Start a trial; answered by what the policy sees first."""

    def run(self, actions: NDArray[np.floating], film: bool = False) -> None:
        """Carry out actions [n, a] until they or the trial are over."""

    def receive(self) -> Played | None:
        """The answer, None when it is too early. Raises EnvLost when the environment is gone."""

    def close(self) -> None:
        """End the environment at once."""


class LocalPlayer:
    """A `Player` whose environment lives in this process: it answers at once, and what it raises is raised here."""

    connection = None
    deadline = 0.0

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._answer: Played | None = None

    def reset(self, seed: int, trial: int) -> None:
        """See Player."""
        self._answer = play_reset(self._env, seed, trial)

    def run(self, actions: NDArray[np.floating], film: bool = False) -> None:
        """See Player."""
        self._answer = play_actions(self._env, actions, film)

    def receive(self) -> Played | None:
        """See Player."""
        answer, self._answer = self._answer, None
        return answer

    def close(self) -> None:
        """Nothing to end."""
