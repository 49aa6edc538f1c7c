"""Closed loop in the sample world: how often a policy does what the instruction says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.base import Environment, Observation
from fwdata.envs.sample import SampleEnv
from fwdata.errors import UsageError
from fwdata.images.stitch import stitch
from fwdata.io import whole_file
from fwdata.normalise import Float32
from fwtrain.data import Stream, derived_seed
from fwtrain.infer.intervals import wilson
from fwtrain.train.folder import RunInfo

RECORDED = 4
"""Episodes whose images are kept with `record`."""

LOCKSTEP = 16
"""Episodes that run side by side, so that their observations are one batch."""


class Actor(Protocol):
    """What acts: a `Policy`, or a served one (`fwtrain.serve.remote`)."""

    @property
    def info(self) -> RunInfo:
        """The run it is of."""

    def act_batch(self, observations: Sequence[Observation], seeds: Sequence[int], *, steps: int = 10) -> Float32:
        """float32 [B, n, a], what the world takes; one seed per observation."""


@dataclass(frozen=True)
class EvalResult:
    """Successes among episodes of a closed loop."""

    successes: int
    """Episodes that were solved."""
    episodes: int
    """Episodes that were run."""
    mean_steps: float
    """Mean number of steps until an episode ended, by success or by the limit."""
    by_task: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Task -> (successes, episodes)."""
    outcomes: tuple[bool, ...] = ()
    """Success of episode 0, 1, .., in this order."""

    @property
    def rate(self) -> float:
        """Share of successful episodes."""
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the rate."""
        found = wilson(self.successes, self.episodes)
        return found.low, found.high


@dataclass
class _RunningEpisode:
    """One episode on the way: its world, its latest observation and the rest of its chunk."""

    number: int
    env: Environment
    observed: Observation
    steps: int = 0
    chunks: int = 0
    film: list[Mapping[str, NDArray[np.uint8]]] | None = None


def evaluate_sample(
    policy: Actor,
    episodes: int,
    seed: int = 0,
    *,
    execute: int = 24,
    steps: int = 10,
    done: Callable[[int], None] = lambda _: None,
    record: Path | None = None,
) -> EvalResult:
    """Run episodes 0..episodes-1 of the sample world.

    execute: actions of a chunk carried out before the next observation is encoded (24 of 32 as published for RoboTwin).
    steps: denoising steps. done: gets the count of newly ended episodes. Noise is a function of (seed, episode, chunk).
    record: a folder that gets the first `RECORDED` episodes as `episode_0.npz` (frames uint8 [n, H, W, 3] stitched,
    instruction, success). Raises UsageError for numbers out of range or a robot the sample world does not have.
    """
    horizon = policy.info.manifest.window.action_horizon
    if episodes < 1:
        raise UsageError(f"--episodes must be at least 1, found {episodes}")
    if not 1 <= execute <= horizon:
        raise UsageError(f"--execute must be between 1 and the chunk's {horizon} actions, found {execute}")
    finished: list[_RunningEpisode] = []
    for first in range(0, episodes, LOCKSTEP):
        active = [_start(policy, seed, number) for number in range(first, min(first + LOCKSTEP, episodes))]
        for item in active[: RECORDED if record is not None and not first else 0]:
            item.film = [item.observed.cameras]
        while active:
            _advance(policy, active, seed, execute, steps)
            ended = [item for item in active if item.env.done]
            active = [item for item in active if not item.env.done]
            finished += ended
            if record is not None:
                _save_films(record, policy, [item for item in ended if item.film is not None])
            done(len(ended))
    return _result(finished)


def _start(policy: Actor, seed: int, number: int) -> _RunningEpisode:
    env = SampleEnv(policy.info.source)
    seen = env.reset(seed, number)
    return _RunningEpisode(number, env, seen)


def _advance(policy: Actor, active: list[_RunningEpisode], seed: int, execute: int, steps: int) -> None:
    """One chunk for every running episode."""
    seeds = [derived_seed(seed, Stream.ROLLOUT, item.number, item.chunks) for item in active]
    chunks = policy.act_batch([item.observed for item in active], seeds, steps=steps)
    for item, chunk in zip(active, chunks, strict=True):
        item.chunks += 1
        _execute(item, chunk[:execute])


def _execute(item: _RunningEpisode, actions: Float32) -> None:
    for action in actions:
        seen = item.env.step(action)
        item.steps += 1
        if item.film is not None:
            item.film.append(seen.cameras)
        if item.env.done:
            return
    item.observed = seen


def _save_films(folder: Path, policy: Actor, items: list[_RunningEpisode]) -> None:
    """Write the images of finished episodes, stitched, as npz files without pickles."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        assert item.film is not None
        cameras = {name: np.stack([frame[name] for frame in item.film]) for name in item.film[0]}
        frames = stitch(cameras, policy.info.manifest.stitch)
        target = folder / f"episode_{item.number}.npz"
        instruction, success = item.observed.instruction, item.env.success
        with whole_file(target, suffix=".npz") as temporary:
            np.savez_compressed(temporary, frames=frames, instruction=instruction, success=success)


def _result(finished: list[_RunningEpisode]) -> EvalResult:
    by_task: dict[str, tuple[int, int]] = {}
    for item in finished:
        wins, count = by_task.get(item.observed.task, (0, 0))
        by_task[item.observed.task] = (wins + int(item.env.success), count + 1)
    successes = sum(item.env.success for item in finished)
    outcomes = tuple(item.env.success for item in sorted(finished, key=lambda item: item.number))
    return EvalResult(successes, len(finished), float(np.mean([item.steps for item in finished])), by_task, outcomes)
