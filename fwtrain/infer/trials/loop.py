"""The closed loop over many environments: worker processes play, their observations are one batch, trials are kept.

queue of trials ──> worker (one environment) ──observation──> batch ──policy──> chunks ──> workers ──> TrialRecord

A trial depends on (settings, suite, task, trial) alone: the environment restores its draw of the fixtures by itself,
noise is seeded per chunk. So its outcome is the same whatever ran before it, in which process, or beside it, in every
bit. Arithmetic rounds differently in a batch of another size and in another row of a batch, so batches have a fixed
number of rows, trial n of task t is always in row (t + n) modulo that number, and rows without a trial hold copies.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.base import Observation
from fwdata.envs.benchmarks.child import EnvOrder, Played
from fwdata.envs.benchmarks.process import EnvLost, EnvProcess
from fwdata.normalise import Float32
from fwtrain.data import Stream, derived_seed
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


@dataclass
class _Seat:
    """One worker: its environment and the trial that it is at. playing: it carries out a chunk now."""

    env: EnvProcess
    task: TaskPlan
    trial: int = -1
    playing: bool = False
    steps: int = 0
    chunks: int = 0
    cpu: float = 0.0
    seen: Observation | None = None
    actions: list[Float32] = field(default_factory=list)
    sent: Float32 | None = None


class TrialLoop:
    """Runs the trials of a plan that are not finished. Use `run` once.

    workers: environments side by side. rows: observations per batch of the policy; with more than one, environments
    that play are waited for, so that their observations are in the same batch. hang: seconds after which an
    environment that does not answer is ended, None for the limits of `process`. done: callback, one per finished trial.
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
        done: Callable[[TrialRecord], None] = lambda _: None,
    ) -> None:
        self._plan, self._policy, self._folder = plan, policy, folder
        self._workers, self._rows, self._hang, self._done = workers, rows, hang, done
        self._seats: list[_Seat] = []
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
        try:
            while self._fill():
                ready = self._answers()
                while self._rows > 1 and any(seat.playing for seat in self._seats):  # they will look soon too
                    ready += self._answers()
                for batch in in_rows(ready, self._rows):
                    self._act(batch)
        finally:
            for seat in self._seats:
                seat.env.close()
        return self._unfinished

    def _fill(self) -> bool:
        """Give idle workers their next trial; False when nothing is left to do."""
        for seat in [seat for seat in self._seats if seat.trial < 0]:
            if not self._pending[_key(seat.task)]:
                seat.env.close()  # another task is another scene: a fresh process leaks nothing into it
                self._seats.remove(seat)
            else:
                self._start(seat)
        while len(self._seats) < self._workers and (task := self._neediest()) is not None:
            order = EnvOrder(self._plan.env, task.suite, task.task, self._plan.protocol, task.states.states)
            self._seats.append(_Seat(EnvProcess(order, self._hang), task))
            self._start(self._seats[-1])
        return bool(self._seats)

    def _neediest(self) -> TaskPlan | None:
        """The task with the most trials per worker that is at it; the plan's order where equal."""
        at = Counter(_key(seat.task) for seat in self._seats)
        waiting = [task for task in self._plan.tasks if self._pending[_key(task)]]
        return max(waiting, key=lambda task: len(self._pending[_key(task)]) / (1 + 10 * at[_key(task)]), default=None)

    def _start(self, seat: _Seat) -> None:
        seat.trial = self._pending[_key(seat.task)].pop(0)
        seat.steps, seat.chunks, seat.cpu, seat.actions, seat.sent = 0, 0, 0.0, [], None
        seat.seen = None
        seat.env.reset(self._plan.protocol.env_seed, seat.trial)

    def _answers(self) -> list[_Seat]:
        """Wait until somebody has something to look at, or an environment is overdue; finished trials are kept."""
        asked = [seat for seat in self._seats if seat.trial >= 0 and (seat.playing or seat.seen is None)]
        first = min((seat.env.deadline for seat in asked), default=0.0)
        spoke = wait([seat.env.connection for seat in asked], max(0.0, first - time.monotonic()))
        ready = []
        for seat in asked:
            if seat.env.connection not in spoke and time.monotonic() < seat.env.deadline:
                continue
            try:
                played = seat.env.receive()
            except EnvLost as error:
                self._lose(seat, str(error))
                continue
            if played is not None and self._note(seat, played):
                ready.append(seat)
        return ready

    def _note(self, seat: _Seat, played: Played) -> bool:
        """Take up an answer; whether the policy is to look."""
        seat.playing = False
        if seat.sent is not None:
            seat.actions.append(seat.sent[: played.steps])
        seat.steps, seat.cpu, seat.seen = seat.steps + played.steps, seat.cpu + played.cpu, played.seen
        if not played.done:
            return True
        record = TrialRecord(
            suite=seat.task.suite,
            task=seat.task.task.name,
            trial=seat.trial,
            success=played.success,
            steps=seat.steps,
            chunks=seat.chunks,
            instruction=played.seen.instruction,
            initial_states=seat.task.states.sha256,
            env_cpu_seconds=round(seat.cpu, 2),
            actions=encode_actions(np.concatenate(seat.actions) if seat.actions else np.zeros((0, 0))),
        )
        self._folder.keep(record)
        seat.trial = -1
        self._done(record)
        return False

    def _lose(self, seat: _Seat, reason: str) -> None:
        self._seats.remove(seat)
        suite, name = _key(seat.task)
        self._attempts[suite, name, seat.trial] += 1
        if self._attempts[suite, name, seat.trial] < ATTEMPTS:
            self._pending[suite, name].insert(0, seat.trial)
        else:
            self._unfinished.append(Unfinished(suite, name, seat.trial, f"its environment {reason}"))

    def _act(self, batch: Mapping[int, _Seat]) -> None:
        """One batch: the next chunk of every seat in its row; other rows hold copies of the first seat's."""
        spare = next(iter(batch.values()))
        seats = [batch.get(row, spare) for row in range(self._rows)]
        observed = [seat.seen for seat in seats if seat.seen is not None]
        chunks = self._policy.act_batch(
            observed, [self._noise_seed(seat) for seat in seats], steps=self._plan.protocol.denoising_steps
        )
        sent = environment_actions(self._policy, chunks, self._plan.robot.gripper)
        for row, seat in batch.items():
            chunk = sent[row]
            seat.chunks += 1
            left = seat.env.order.protocol.limits[seat.task.suite] - seat.steps
            seat.sent = chunk[: min(self._plan.protocol.execute, left)]
            seat.env.run(seat.sent)
            seat.playing = True

    def _noise_seed(self, seat: _Seat) -> int:
        protocol = self._plan.protocol
        if protocol.noise == "same":
            return protocol.noise_seed
        return derived_seed(protocol.noise_seed, Stream.ROLLOUT, seat.task.task.number, seat.trial, seat.chunks)


def in_rows(seats: Sequence[_Seat], rows: int) -> list[dict[int, _Seat]]:
    """Row -> seat, batch by batch: as few batches as the rows of the seats' trials allow."""
    batches: list[dict[int, _Seat]] = []
    for seat in seats:
        row = (seat.task.task.number + seat.trial) % rows  # so that workers at different tasks do not meet
        batch = next((batch for batch in batches if row not in batch), None)
        if batch is None:
            batches.append(batch := {})
        batch[row] = seat
    return batches


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
