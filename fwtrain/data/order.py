"""Which windows train at which step: a pure function of (seed, epoch, step), never of workers or ranks.

Every frame of every training episode is a window start. Windows whose future latents are cached may train the video
expert ("video windows"); the others are action-only. A batch holds one kind, so an action-only batch never computes
future tokens.

What co-training on a share f of the windows does: the action loss is unchanged in expectation; the video loss
appears in a share f of the batches (f = video_fraction / cache stride), so its effective weight is lambda_video * f.
Tensors that only the video loss reaches (the video head) take no step in action-only batches. Set
lambda_video = 1/f to keep the published balance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fwdata.window import WindowIndex

type Indices = NDArray[np.int64]


class Stream(IntEnum):
    """Independent random streams of one run."""

    ORDER = 1
    INSTRUCTION = 2
    NOISE = 3
    INIT = 4
    VALIDATION = 5
    ROLLOUT = 6
    SHARES = 7


def derived_seed(seed: int, stream: Stream, *position: int) -> int:
    """A 63-bit seed for one place of one random stream; every draw of a run comes from here, so nothing is carried."""
    state = np.random.SeedSequence([seed, int(stream), *position]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


@dataclass(frozen=True)
class BatchPlan:
    """One forward pass."""

    windows: Indices
    """int64 [B], positions in the WindowIndex."""
    video: bool
    """Whether future latents are read."""
    epoch: int
    """Epoch it belongs to, from 0."""
    number: int
    """Its place among the batches of the epoch, from 0."""


@dataclass(frozen=True)
class Shares:
    """How often an epoch draws the windows of each store.

    With weight w, round(w * n) of a store's n windows are drawn: all of them as often as that goes, and others anew in
    every epoch for the rest.
    """

    store: Indices
    """int64 [n], position in `weights` of every window of the index."""
    weights: tuple[float, ...]
    """Weight of every store."""

    def count(self, windows: Indices) -> int:
        """How many are drawn of these windows; the same in every epoch."""
        return sum(round(weight * len(own)) for own, weight in self._by_store(windows))

    def draw(self, windows: Indices, random: np.random.Generator) -> Indices:
        """int64 [count]: the windows that an epoch deals."""
        drawn: list[Indices] = [np.zeros(0, np.int64)]
        for own, weight in self._by_store(windows):
            times, rest = divmod(round(weight * len(own)), max(len(own), 1))
            drawn += [np.tile(own, times), random.permutation(own)[:rest]]
        return np.concatenate(drawn)

    def _by_store(self, windows: Indices) -> list[tuple[Indices, float]]:
        return [(windows[self.store[windows] == number], weight) for number, weight in enumerate(self.weights)]


@dataclass(frozen=True)
class EpochOrder:
    """The batches of one epoch, in training order."""

    plans: tuple[BatchPlan, ...]
    """Its batches, in training order."""


class DataOrder:
    """Deals windows into batches.

    needs_video: the variant's action loss reads future latents (joint, idm): windows without them are left out.
    never_video: the video loss is off (no-video): future latents are never read.
    shares: windows of several stores drawn by weight; None = every window once.
    Each epoch permutes the windows of each kind, cuts them into batches (the last one is filled from the beginning of
    the same permutation, so every batch has the same size), and shuffles the batches.
    """

    def __init__(
        self,
        index: WindowIndex,
        *,
        batch_size: int,
        accumulation: int = 1,
        seed: int,
        video_fraction: float = 1.0,
        needs_video: bool = False,
        never_video: bool = False,
        shares: Shares | None = None,
    ) -> None:
        self._index = index
        self._batch_size = batch_size
        self._accumulation = accumulation
        self._seed = seed
        with_future = np.flatnonzero(index.video)
        without = np.flatnonzero(~index.video)
        self._video = np.zeros(0, np.int64) if never_video else with_future
        self._action = np.arange(len(index)) if never_video else np.zeros(0, np.int64) if needs_video else without
        self._shares = shares
        count = self._count(self._video)
        self._num_video = count if needs_video else round(count * video_fraction)
        self._cached: dict[int, EpochOrder] = {}

    @property
    def num_windows(self) -> int:
        """Windows used per epoch."""
        return self._count(self._video) + self._count(self._action)

    def _count(self, windows: Indices) -> int:
        return len(windows) if self._shares is None else self._shares.count(windows)

    @property
    def video_share(self) -> float:
        """Share of windows that train the video expert in an epoch."""
        return self._num_video / max(self.num_windows, 1)

    @property
    def batches_per_epoch(self) -> int:
        """Forward passes per epoch."""
        video, action = self._num_video, self.num_windows - self._num_video
        return -(-video // self._batch_size) + -(-action // self._batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch; the last one may hold fewer than `accumulation` batches."""
        return -(-self.batches_per_epoch // self._accumulation)

    def epoch(self, epoch: int) -> EpochOrder:
        """All batches of an epoch. Costs one permutation of all windows; the two latest epochs are kept."""
        found = self._cached.get(epoch)
        if found is None:
            found = self._build(epoch)
            self._cached = {**dict(list(self._cached.items())[-1:]), epoch: found}
        return found

    def step(self, step: int) -> Sequence[BatchPlan]:
        """The batches of one optimizer step (0-based)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        first = place * self._accumulation
        return self.epoch(epoch).plans[first : first + self._accumulation]

    def _build(self, epoch: int) -> EpochOrder:
        random = np.random.default_rng(derived_seed(self._seed, Stream.ORDER, epoch))
        with_future, without = self._video, self._action
        if self._shares is not None:
            choice = np.random.default_rng(derived_seed(self._seed, Stream.SHARES, epoch))
            with_future, without = self._shares.draw(with_future, choice), self._shares.draw(without, choice)
        chosen = random.permutation(with_future)
        video, rest = chosen[: self._num_video], chosen[self._num_video :]
        action = random.permutation(np.concatenate([without, rest]))
        batches = [(batch, True) for batch in self._cut(video)] + [(batch, False) for batch in self._cut(action)]
        turn = random.permutation(len(batches))
        return EpochOrder(
            tuple(BatchPlan(batches[i][0], batches[i][1], epoch, number) for number, i in enumerate(turn))
        )

    def _cut(self, windows: Indices) -> list[Indices]:
        if not len(windows):
            return []
        count = -(-len(windows) // self._batch_size)
        filled = np.resize(windows, count * self._batch_size)
        return list(filled.reshape(count, self._batch_size))
