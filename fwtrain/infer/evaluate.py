"""Closed loop in the sample world: how often a policy does what the instruction says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fwdata.envs.play import LocalPlayer, Played
from fwdata.envs.sample import SampleEnv
from fwdata.envs.sample.env import check_kind
from fwdata.errors import UsageError
from fwdata.images.stitch import stitch
from fwdata.io import whole_file
from fwdata.manifest import StitchSpec
from fwdata.normalise import Float32
from fwtrain.data import Stream, derived_seed
from fwtrain.infer.closed_loop import Actor, ClosedLoop, Seat
from fwtrain.infer.intervals import wilson
from fwtrain.train.folder import RunInfo

type OnEpisodes = Callable[[int], None]
"""Called after every round with the number of episodes that it ended."""

RECORDED = 4
"""Episodes whose images are kept with `record`."""

LOCKSTEP = 16
"""Episodes that run side by side, so that their observations are one batch."""


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
    """Success of episode 0, 1, .., in this order; of a benchmark task after task, () where some are not finished."""

    @property
    def rate(self) -> float:
        """Share of successful episodes."""
        return self.successes / self.episodes

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the rate."""
        found = wilson(self.successes, self.episodes)
        return found.low, found.high


@dataclass(frozen=True)
class EndedEpisode:
    """An episode that is over."""

    number: int
    """Which one."""
    task: str
    """Name of its task."""
    steps: int
    """Actions carried out."""
    success: bool
    """Whether it was solved."""


class _SampleLoop(ClosedLoop[Seat]):
    """Episodes in groups of `LOCKSTEP`, whose next chunks are one batch of those that still run."""

    def __init__(
        self, policy: Actor, episodes: int, seed: int, execute: int, steps: int, record: Path | None, done: OnEpisodes
    ) -> None:
        super().__init__(policy, steps, None, done)
        self._policy, self._left, self._noise, self._execute = policy, deque(range(episodes)), seed, execute
        self._record = record
        self.finished: list[EndedEpisode] = []

    def run(self) -> list[EndedEpisode]:
        """Play all episodes; in the order in which they ended."""
        self._play()
        return self.finished

    def _fill(self) -> None:
        self._seats = [seat for seat in self._seats if seat.episode >= 0]
        if self._seats:
            return
        for number in [self._left.popleft() for _ in range(min(LOCKSTEP, len(self._left)))]:
            filmed = self._record is not None and number < RECORDED
            env = SampleEnv(self._policy.info.source)
            self._seats.append(Seat(player=LocalPlayer(env), episode=-1, filmed=filmed))
            self._seats[-1].begin(self._noise, number)

    def _row(self, seat: Seat, place: int) -> int:
        return place

    def _seed(self, seat: Seat) -> int:
        return derived_seed(self._noise, Stream.ROLLOUT, seat.episode, seat.chunks)

    def _commands(self, chunks: Float32) -> Float32:
        return chunks

    def _room(self, seat: Seat) -> int:
        return self._execute

    def _finish(self, seat: Seat, played: Played) -> None:
        self.finished.append(EndedEpisode(seat.episode, played.seen.task, seat.steps, played.success))
        if self._record is not None and seat.filmed:
            _save_film(self._record, self._policy.info.manifest.stitch, seat, played)

    def _lose(self, seat: Seat, reason: str) -> None:
        raise AssertionError(f"an environment of this process cannot be lost: {reason}")


def evaluate_sample(
    policy: Actor,
    episodes: int,
    seed: int = 0,
    *,
    execute: int = 24,
    steps: int = 10,
    done: OnEpisodes = lambda _: None,
    record: Path | None = None,
) -> EvalResult:
    """Run episodes 0..episodes-1 of the sample world.

    execute: actions of a chunk carried out before the next observation is encoded (24 of 32 as published for RoboTwin).
    steps: denoising steps. done: gets the count of newly ended episodes. Noise is a function of (seed, episode, chunk).
    record: a folder that gets the first `RECORDED` episodes as `episode_0.npz` (frames uint8 [n, H, W, 3] stitched,
    instruction, success). Raises UsageError for numbers out of range or a robot the sample world does not have.
    """
    check_request(policy.info, episodes, execute)
    return _result(_SampleLoop(policy, episodes, seed, execute, steps, record, done).run())


def check_request(info: RunInfo, episodes: int, execute: int) -> None:
    """UsageError for numbers out of range, or a robot that the sample world does not have."""
    horizon = info.manifest.window.action_horizon
    if episodes < 1:
        raise UsageError(f"--episodes must be at least 1, found {episodes}")
    if not 1 <= execute <= horizon:
        raise UsageError(f"--execute must be between 1 and the chunk's {horizon} actions, found {execute}")
    check_kind(info.source)


def _save_film(folder: Path, spec: StitchSpec, seat: Seat, played: Played) -> None:
    """Write the images of an episode, stitched, as an npz file without pickles."""
    cameras = {name: np.stack([frame[name] for frame in seat.frames]) for name in seat.frames[0]}
    frames, instruction = stitch(cameras, spec), played.seen.instruction
    with whole_file(folder / f"episode_{seat.episode}.npz", suffix=".npz") as temporary:
        np.savez_compressed(temporary, frames=frames, instruction=instruction, success=played.success)


def _result(finished: Sequence[EndedEpisode]) -> EvalResult:
    by_task: dict[str, tuple[int, int]] = {}
    for item in finished:
        wins, count = by_task.get(item.task, (0, 0))
        by_task[item.task] = (wins + int(item.success), count + 1)
    outcomes = tuple(item.success for item in sorted(finished, key=lambda item: item.number))
    return EvalResult(
        sum(outcomes), len(finished), float(np.mean([item.steps for item in finished])), by_task, outcomes
    )
