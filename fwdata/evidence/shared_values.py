"""Which of many episodes hold the same values, and how many of them: every pair that shares any, counted at once."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Pairs = NDArray[np.int64]
type Integers = list[NDArray[np.int64]]

AT_ONCE = 1_000_000
"""Pairs that are held before those that are the same are added up."""


def shared_values(held: Sequence[NDArray[Any]], most: int) -> tuple[Pairs, NDArray[np.int64]]:
    """(int64 [m, 2], int64 [m]): the pairs that share values, and how many, of the distinct values of n owners.

    most: owners that may hold a value before it tells nothing. Values that the same owners hold, as those of copies,
    are taken together. Cost: 0.1 us per value, and as much for each pair that shares some.
    """
    keys: Integers = [np.empty(0, np.int64)]
    counts: Integers = [np.empty(0, np.int64)]
    waiting = 0
    for owners, times in _owners(held, most):
        first, second = np.triu_indices(owners.shape[1], 1)
        size = max(1, AT_ONCE // len(first))
        for low in range(0, len(owners), size):
            block = owners[low : low + size]
            keys.append((block[:, first] * len(held) + block[:, second]).reshape(-1))
            counts.append(np.repeat(times[low : low + size], len(first)))
            waiting += len(keys[-1])
            if waiting > AT_ONCE:
                keys, counts, waiting = *_added(keys, counts), 0
    keys, counts = _added(keys, counts)
    return np.stack([keys[0] // len(held), keys[0] % len(held)], axis=1), counts[0]


def _owners(held: Sequence[NDArray[Any]], most: int) -> Iterator[tuple[Pairs, NDArray[np.int64]]]:
    """(int64 [k, c], int64 [k]): different sets of c owners in order, and how many values all of a set hold."""
    values, owners = np.concatenate(held), np.repeat(np.arange(len(held)), [len(each) for each in held])
    order = np.argsort(values, kind="stable")  # owners of one value stay in order
    values, owners = values[order], owners[order]
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])
    lengths = np.diff(starts, append=len(values))
    for count in np.unique(lengths[(lengths > 1) & (lengths <= most)]).tolist():
        sets = owners[starts[lengths == count][:, None] + np.arange(count)]
        different, times = np.unique(sets, axis=0, return_counts=True)
        yield different, times


def _added(keys: Integers, counts: Integers) -> tuple[Integers, Integers]:
    """The distinct keys, and the sums of their counts, one array each."""
    different, places = np.unique(np.concatenate(keys), return_inverse=True)
    return [different], [np.bincount(places, np.concatenate(counts), len(different)).astype(np.int64)]


def drawn(count: int, shape: tuple[int, int], seed: int = 0) -> NDArray[np.int64]:
    """int64 [a, b], random numbers from 0 to `count` - 1, the same for a seed; without `numpy.random`."""
    words = np.frombuffer(random.Random(seed).randbytes(4 * shape[0] * shape[1]), "<u4").astype(np.uint64)
    return (words * np.uint64(count) >> np.uint64(32)).astype(np.int64).reshape(shape)


@lru_cache(maxsize=8)
def odd_factors(width: int) -> NDArray[np.uint64]:
    """uint64 [width], random odd numbers, always the same; without `numpy.random`, which takes 11 ms to import."""
    draw = random.Random(0)
    return np.array([draw.getrandbits(64) | 1 for _ in range(width)], np.uint64)
