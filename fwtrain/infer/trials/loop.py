"""The trials of a benchmark in closed loop: worker processes play, finished trials are kept.

A trial depends on (settings, suite, task, trial) alone: the environment restores its draw of the fixtures by itself,
noise is seeded per chunk. So its outcome is the same whatever ran before it, in which process, or beside it, in every
bit. Arithmetic rounds differently in a batch of another size and in another row of a batch, so batches have a fixed
number of rows, trial n of task t is always in row (t + n) modulo that number, and rows without a trial hold copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.benchmarks.child import EnvOrder
from fwdata.envs.benchmarks.process import EnvProcess
from fwdata.envs.play import Played
from fwdata.normalise import Float32
from fwtrain.data import Stream, derived_seed
from fwtrain.infer.closed_loop import ClosedLoop, Seat
from fwtrain.infer.trials.plan import Deployed, EvalPlan, TaskPlan
from fwtrain.infer.trials.records import EvalFolder, TrialRecord, encode_actions

ATTEMPTS = 2
"""Environments that one trial may cost before it is left out of this run."""


@dataclass(frozen=True)
class Unfinished:
    """A trial that could not be run to its end. A rerun tries it again."""

    suite: str
    """Its suite."""
    task: str
    """Its task."""
    trial: int
    """Its number."""
    reason: str
    """What happened to its environment."""


def unfinished_text(lost: Sequence[Unfinished]) -> list[str]:
    """A sentence per trial that was not finished."""
    return [
        f"trial {item.trial} of {item.suite}/{item.task} is not finished: {item.reason}; run again to try it again"
        for item in lost
    ]


@dataclass(kw_only=True)
class TrialSeat(Seat):
    """A worker at a task; its episodes are trials."""

    task: TaskPlan
    """The task that its environment was opened for."""


class TrialLoop(ClosedLoop[TrialSeat]):
    """Runs the trials of a plan that are not finished. Use `run` once.

    workers: environments side by side. rows: observations per batch of the policy; with more than one, environments
    that play are waited for, so that their observations are in the same batch. hang: seconds after which an
    environment that does not answer is ended, None for the limits of `process`. done: callback with the number of newly
    finished trials.
    """

    def __init__(
        self,
        plan: EvalPlan,
        policy: Deployed,
        folder: EvalFolder,
        *,
        workers: int = 1,
        rows: int = 1,
        hang: float | None = None,
        done: Callable[[int], None] = lambda _: None,
    ) -> None:
        super().__init__(policy, plan.protocol.denoising_steps, rows, done)
        self._plan, self._policy, self._folder = plan, policy, folder
        self._workers, self._fixed_rows, self._hang = workers, rows, hang
        self._attempts: Counter[tuple[str, str, int]] = Counter()
        self._unfinished: list[Unfinished] = []
        self._pending = {
            (task.suite, task.task.name): [n for n in plan.trials if not folder.trial(task.suite, task.task.name, n)]
            for task in plan.tasks
        }

    @property
    def tasks(self) -> set[tuple[str, str]]:
        """(suite, task) of the plan."""
        return set(self._pending)

    @property
    def remaining(self) -> int:
        """Trials still to run."""
        return sum(map(len, self._pending.values()))

    def run(self) -> list[Unfinished]:
        """Run to the end; the trials whose environment was lost twice. Raises what the policy or a server raises."""
        self._play()
        return self._unfinished

    def _fill(self) -> None:
        for seat in [seat for seat in self._seats if seat.episode < 0]:
            if not self._pending[_key(seat.task)]:
                seat.player.close()  # another task is another scene: a fresh process leaks nothing into it
                self._seats.remove(seat)
            else:
                self._start(seat)
        while len(self._seats) < self._workers and (task := self._neediest()) is not None:
            order = EnvOrder(self._plan.env, task.suite, task.task, self._plan.protocol, task.states.states)
            self._seats.append(TrialSeat(player=EnvProcess(order, self._hang), episode=-1, task=task))
            self._start(self._seats[-1])

    def _neediest(self) -> TaskPlan | None:
        """The task with the most trials per worker that is at it; the plan's order where equal."""
        at = Counter(_key(seat.task) for seat in self._seats)
        waiting = [task for task in self._plan.tasks if self._pending[_key(task)]]
        return max(waiting, key=lambda task: len(self._pending[_key(task)]) / (1 + 10 * at[_key(task)]), default=None)

    def _start(self, seat: TrialSeat) -> None:
        seat.begin(self._plan.protocol.env_seed, self._pending[_key(seat.task)].pop(0))

    def _row(self, seat: TrialSeat, place: int) -> int:
        return trial_row(seat, self._fixed_rows)

    def _seed(self, seat: TrialSeat) -> int:
        protocol = self._plan.protocol
        if protocol.noise == "same":
            return protocol.noise_seed
        return derived_seed(protocol.noise_seed, Stream.ROLLOUT, seat.task.task.number, seat.episode, seat.chunks)

    def _commands(self, chunks: Float32) -> Float32:
        return environment_actions(self._policy, chunks, self._plan.robot.gripper)

    def _room(self, seat: TrialSeat) -> int:
        return min(self._plan.protocol.execute, self._plan.protocol.limits[seat.task.suite] - seat.steps)

    def _finish(self, seat: TrialSeat, played: Played) -> None:
        record = TrialRecord(
            suite=seat.task.suite,
            task=seat.task.task.name,
            trial=seat.episode,
            success=played.success,
            steps=seat.steps,
            chunks=seat.chunks,
            instruction=played.seen.instruction,
            initial_states=seat.task.states.sha256,
            env_cpu_seconds=round(seat.cpu, 2),
            actions=encode_actions(np.concatenate(seat.actions) if seat.actions else np.zeros((0, 0))),
        )
        self._folder.keep(record)

    def _lose(self, seat: TrialSeat, reason: str) -> None:
        suite, name = _key(seat.task)
        self._attempts[suite, name, seat.episode] += 1
        if self._attempts[suite, name, seat.episode] < ATTEMPTS:
            self._pending[suite, name].insert(0, seat.episode)
        else:
            self._unfinished.append(Unfinished(suite, name, seat.episode, f"its environment {reason}"))


def trial_row(seat: TrialSeat, rows: int) -> int:
    """The row of a trial in every batch of `rows`: workers at different tasks do not meet in it."""
    return (seat.task.task.number + seat.episode) % rows


def _key(task: TaskPlan) -> tuple[str, str]:
    return task.suite, task.task.name


def environment_actions(policy: Deployed, chunk: Float32, gripper: int) -> NDArray[np.float32]:
    """float32 [.., a] in the environment's units: after the policy's rules, -1 open / +1 closed where it has none.

    The rule is the official sign(1 - 2 g), so a gripper at exactly 0.5 holds.
    """
    sent = policy.commands(chunk)
    if gripper not in policy.gripper_sign:
        sent = sent.copy()
        sent[..., gripper] = np.sign(1 - 2 * sent[..., gripper])
    return sent
