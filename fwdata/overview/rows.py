"""Lengths, values and times of a store's episodes, measured on their rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwdata.store.reader import Store

SAMPLED = 2000
"""Most episodes whose rows are read; of a larger store, so many evenly spaced ones."""
FAR = 3.0
"""An episode is an outlier where its length, or a value, lies so many interquartile (1 % to 99 %) ranges away."""
GAP = 1.5
"""A step in time that is so many times the usual one is a gap."""


@dataclass(frozen=True)
class ColumnSpread:
    """How one column of the states or actions is distributed over all rows."""

    name: str
    """Name of the column."""
    least: float
    """Smallest value."""
    low: float
    """Quantile 0.01."""
    median: float
    """Quantile 0.5."""
    high: float
    """Quantile 0.99."""
    greatest: float
    """Largest value."""
    outlier: str
    """Episode whose value lies more than `FAR` times the range from 1 % to 99 % beyond it, the farthest; or empty."""


@dataclass(frozen=True)
class Measured:
    """What the rows of a store say."""

    episodes: int
    """Episodes whose rows were read."""
    lengths: NDArray[np.int64]
    """int64 [episodes of the store]: frames of each."""
    odd_lengths: tuple[tuple[str, int], ...]
    """(episode, frames) of those much shorter or longer than most."""
    state: tuple[ColumnSpread, ...]
    """Columns of the state."""
    action: tuple[ColumnSpread, ...]
    """Columns of the action."""
    rate: float
    """Frames per second by the median step of the time stamps."""
    jitter: float
    """Standard deviation of the steps, in milliseconds."""
    gaps: tuple[tuple[str, float], ...]
    """(episode, longest step in seconds) of those with a step above `GAP` times the median, the longest first."""


def measure(store: Store) -> Measured:
    """Read the rows of at most `SAMPLED` episodes, one part of an episode at a time: state, action and time stamps.

    Memory: all rows read, in float32.
    """
    step = max(1, -(-len(store.episodes) // SAMPLED))
    chosen = [store.episodes[index] for index in range(0, len(store.episodes), step)]
    names = [episode.id for episode in chosen]
    states, actions = [e.state() for e in chosen], [e.action() for e in chosen]
    steps = [np.diff(e.timestamps()) for e in chosen]
    every = np.concatenate([*steps, np.empty(0)])
    usual = float(np.median(every)) if every.size else 0.0
    longest = [(name, float(s.max())) for name, s in zip(names, steps, strict=True) if s.size]
    gaps = sorted(((n, s) for n, s in longest if s > GAP * usual), key=lambda item: -item[1])
    lengths = np.array([e.num_frames for e in store.episodes], np.int64)
    return Measured(
        episodes=len(chosen),
        lengths=lengths,
        odd_lengths=_odd_lengths(store, lengths),
        state=_spreads(store.state_names, states, names),
        action=_spreads(store.action_names, actions, names),
        rate=1 / usual if usual else store.fps,
        jitter=float(every.std()) * 1000 if every.size else 0.0,
        gaps=tuple(gaps),
    )


def _odd_lengths(store: Store, lengths: NDArray[np.int64]) -> tuple[tuple[str, int], ...]:
    low, high = np.quantile(lengths, (0.25, 0.75))
    room = FAR * max(high - low, 0.05 * high)
    odd = np.flatnonzero((lengths < low - room) | (lengths > high + room))
    return tuple((store.episodes[int(i)].id, int(lengths[i])) for i in odd[np.argsort(lengths[odd])])


def _spreads(
    columns: tuple[str, ...], rows: list[NDArray[np.float32]], episodes: list[str]
) -> tuple[ColumnSpread, ...]:
    whole = np.concatenate(rows)
    low, median, high = np.quantile(whole, (0.01, 0.5, 0.99), axis=0)
    least = np.stack([part.min(axis=0) for part in rows])
    greatest = np.stack([part.max(axis=0) for part in rows])
    beyond = np.maximum(low - least, greatest - high)
    found = []
    for i, name in enumerate(columns):
        farthest = int(beyond[:, i].argmax())
        far = beyond[farthest, i] > FAR * max(float(high[i] - low[i]), 1e-6)
        found.append(
            ColumnSpread(
                name,
                float(least[:, i].min()),
                float(low[i]),
                float(median[i]),
                float(high[i]),
                float(greatest[:, i].max()),
                episodes[farthest] if far else "",
            )
        )
    return tuple(found)
