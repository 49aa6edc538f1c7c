"""CPU time of several ways of doing the same work, their repetitions interleaved so that a busy machine hits all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

type Work = Callable[[], object]


@dataclass(frozen=True)
class RepeatedTiming:
    """CPU time of this process for one run of the work, measured several times."""

    name: str
    """What was run."""
    best: float
    """Seconds of the fastest run."""
    median: float
    """Seconds of the median run."""
    repeats: int
    """Number of runs."""


def interleaved(
    works: Mapping[str, Work], repeats: int, done: Callable[[int], None] = lambda _: None
) -> dict[str, RepeatedTiming]:
    """Run every work once to warm up, then all in turn `repeats` times. done: called with 1 after every run."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            began = time.process_time()
            work()
            if turn:
                seconds[name].append(time.process_time() - began)
            done(1)
    return {
        name: RepeatedTiming(name, min(found), statistics.median(found), len(found)) for name, found in seconds.items()
    }
