"""The closed loop, of every world: environments play, their observations are batches, chunks go back to them.

    fill ──> environments ──observation──> batch ──policy──> chunks ──> environments ──> finished | lost

What is played, in which order, in which rows of a batch and with which noise is the world's: a subclass each for the
sample world (`fwtrain.infer.evaluate`) and for benchmarks (`fwtrain.infer.trials.loop`).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fwdata.envs.base import Observation
from fwdata.envs.play import EnvLost, Played, Player
from fwdata.normalise import Float32
from fwtrain.train.folder import RunInfo


class Actor(Protocol):
    """What acts: a `Policy`, or a served one (`fwtrain.serve.remote`)."""

    @property
    def info(self) -> RunInfo:
        """The run it is of."""

    def act_batch(self, observations: Sequence[Observation], seeds: Sequence[int], *, steps: int = 10) -> Float32:
        """float32 [B, n, a], what the world takes; one seed per observation."""


@dataclass(kw_only=True)
class Seat:
    """An environment and the episode that it is at."""

    player: Player
    """The environment."""
    episode: int
    """Number of the episode; -1 between episodes."""
    filmed: bool = False
    """Whether the images of every step are kept."""
    playing: bool = False
    """Whether it carries out a chunk now."""
    steps: int = 0
    """Actions carried out in this episode."""
    chunks: int = 0
    """Chunks that it was sent in this episode."""
    cpu: float = 0.0
    """CPU seconds of the environment in this episode."""
    seen: Observation | None = None
    """The latest observation; None until the episode has begun."""
    actions: list[Float32] = field(default_factory=list)
    """Carried out in this episode, float32 [n, a] per chunk, as they were sent."""
    frames: list[Mapping[str, NDArray[np.uint8]]] = field(default_factory=list)
    """Images of this episode by camera, where it is filmed."""
    sent: Float32 | None = None
    """The chunk that is carried out."""

    def begin(self, seed: int, episode: int) -> None:
        """Start an episode."""
        self.episode, self.steps, self.chunks, self.cpu, self.seen, self.sent = episode, 0, 0, 0.0, None, None
        self.actions, self.frames = [], []
        self.player.reset(seed, episode)


class ClosedLoop[S: Seat](ABC):
    """Plays episodes until none is left. Use `run` once.

    policy: who acts. steps: denoising steps of a chunk. rows: observations per batch of the policy, None for as many as
    there are; unless it is 1, environments that play are waited for, so that their observations are in the same batch.
    done: callback after every round, with the number of episodes that it ended.
    """

    def __init__(self, policy: Actor, steps: int, rows: int | None, done: Callable[[int], None]) -> None:
        self._actor, self._steps, self._rows, self._count = policy, steps, rows, done
        self._seats: list[S] = []

    @abstractmethod
    def _fill(self) -> None:
        """Begin episodes: seats that are done with theirs get another one or leave, new ones come."""

    @abstractmethod
    def _row(self, seat: S, place: int) -> int:
        """The row of a batch that a seat's observation belongs in. place: its place among those that wait."""

    @abstractmethod
    def _seed(self, seat: S) -> int:
        """Seed of the noise of a seat's next chunk."""

    @abstractmethod
    def _commands(self, chunks: Float32) -> Float32:
        """float32 [B, n, a] as the environment takes them, from what the policy answers."""

    @abstractmethod
    def _room(self, seat: S) -> int:
        """Most actions of the next chunk that are carried out."""

    @abstractmethod
    def _finish(self, seat: S, played: Played) -> None:
        """An episode has ended."""

    @abstractmethod
    def _lose(self, seat: S, reason: str) -> None:
        """The environment of a seat, which has left, is gone. reason: continues `its environment ..`."""

    def _play(self) -> None:
        """Play to the end."""
        try:
            while self._filled():
                ready = self._answers()
                while self._rows != 1 and any(seat.playing for seat in self._seats):  # they will look soon too
                    ready += self._answers()
                rows = [self._row(seat, place) for place, seat in enumerate(ready)]
                for batch in in_rows(ready, rows):
                    self._act(batch)
        finally:
            for seat in self._seats:
                seat.player.close()

    def _filled(self) -> bool:
        self._fill()
        return bool(self._seats)

    def _answers(self) -> list[S]:
        """Wait until somebody has something to look at, or an environment is overdue; those that wait for a chunk."""
        asked = [seat for seat in self._seats if seat.episode >= 0 and (seat.playing or seat.seen is None)]
        first = min((seat.player.deadline for seat in asked), default=0.0)
        remote = [seat.player.connection for seat in asked if seat.player.connection is not None]
        spoke = wait(remote, max(0.0, first - time.monotonic())) if remote else []
        ready, ended = [], 0
        for seat in asked:
            connection = seat.player.connection
            if connection is not None and connection not in spoke and time.monotonic() < seat.player.deadline:
                continue
            try:
                played = seat.player.receive()
            except EnvLost as error:
                self._seats.remove(seat)
                self._lose(seat, str(error))
                continue
            if played is None:
                continue
            self._note(seat, played)
            if played.done:
                self._finish(seat, played)
                seat.episode, ended = -1, ended + 1
            else:
                ready.append(seat)
        self._count(ended)
        return ready

    def _note(self, seat: S, played: Played) -> None:
        """Take up an answer."""
        seat.playing = False
        if seat.sent is not None:
            seat.actions.append(seat.sent[: played.steps])
        if seat.filmed:
            seat.frames += played.frames
        seat.steps, seat.cpu, seat.seen = seat.steps + played.steps, seat.cpu + played.cpu, played.seen

    def _act(self, batch: Mapping[int, S]) -> None:
        """One batch: the next chunk of every seat in its row; other rows hold copies of the first seat's."""
        spare = next(iter(batch.values()))
        seats = [batch.get(row, spare) for row in range(self._rows or len(batch))]
        observed = [seat.seen for seat in seats if seat.seen is not None]
        chunks = self._actor.act_batch(observed, [self._seed(seat) for seat in seats], steps=self._steps)
        sent = self._commands(chunks)
        for row, seat in batch.items():
            seat.chunks += 1
            seat.sent = sent[row][: self._room(seat)]
            seat.player.run(seat.sent, film=seat.filmed)
            seat.playing = True


def in_rows[S: Seat](seats: Sequence[S], rows: Sequence[int]) -> list[dict[int, S]]:
    """Row -> seat, batch by batch: as few batches as the rows of the seats allow. rows: of each seat."""
    batches: list[dict[int, S]] = []
    for seat, row in zip(seats, rows, strict=True):
        batch = next((batch for batch in batches if row not in batch), None)
        if batch is None:
            batches.append(batch := {})
        batch[row] = seat
    return batches
