"""Stretches of rows that an episode holds twice (h9), and a state that is held for two rows each (h15)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict

LEAST = 8
"""Distinct rows in a row that must be there again, exactly and at one distance: no robot moves so twice."""

ONCE = "every row once"


class RepeatedRows(Detector):
    """h9: no stretch of moving rows is there again later on, as where a writer appended a block twice."""

    name, code, question, action = "repeated_rows", "h9", "rows in the episode", "warn"
    advice = "take the repeated rows out of the recordings, or leave these out (--exclude)"
    word = "expected"
    min_rows = 2 * LEAST

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict: the longest such stretch."""
        first, back, rows = 0, 0, 0
        if len(episode.row_prints) - len(episode.distinct_prints) >= LEAST:  # else too few rows are there twice
            values = np.concatenate([episode.state, episode.action], axis=1)
            first, back, rows = longest_repeat(values, episode.row_prints)
        return (
            self.verdict(
                "contradicted" if rows else "confirmed",
                f"rows {first} to {first + rows - 1} are rows {first - back} to {first - back + rows - 1} again"
                if rows
                else "",
                value=float(rows),
                n=len(episode.state),
                decided=ONCE,
                measured="a stretch of rows twice" if rows else ONCE,
            ),
        )


def longest_repeat(values: NDArray[np.float32], prints: NDArray[np.uint32]) -> tuple[int, int, int]:
    """(first row, rows back, how many) of the longest stretch of [T, D] that is there before; (0, 0, 0) for none.

    prints: checksums of the rows. Rows like the one before are passed over, so that a robot that waits repeats nothing.
    """
    changed = np.flatnonzero(np.concatenate([[True], (values[1:] != values[:-1]).any(axis=1)]))
    latest: dict[int, int] = {}
    best, run, lag = (0, 0, 0), 0, 0
    for place, print_of in enumerate(prints[changed].tolist()):
        before = latest.get(print_of)
        latest[print_of] = place
        back = place - before if before is not None else 0
        run = run + 1 if back and back == lag and run else int(back > 0)
        lag = back
        if run >= LEAST and run > best[2] and back >= LEAST:
            best = (place - run + 1, back, run)
    if not best[2]:
        return 0, 0, 0
    first, back, rows = best
    start, end = int(changed[first]), int(changed[first + rows - 1])
    return start, start - int(changed[first - back]), end - start + 1


HELD, NEW = 0.9, 0.3
"""Share of every second row that is the one before, and share of the rows between that are not (the robot rests in the
others)."""

OWN_ROWS = "a new state in every row of a moving robot"


class HeldRows(Detector):
    """h15: the state is not that of the row before in every second row, in some episodes or all."""

    name, code, question, action = "held_rows", "h15", "every row is its own", "warn"
    advice = (
        "the robot answers at half the rate, or rows were doubled: take every second row out of the recordings, "
        "or leave these out (--exclude)"
    )
    word = "expected"
    min_rows = 20

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict."""
        same = ~np.asarray(episode.columns.steps[: episode.state.shape[1]].any(axis=0))
        shares = [float(same[first::2].mean()) for first in (0, 1)]
        held = max(shares) >= HELD and min(shares) <= 1 - NEW
        return (
            self.verdict(
                "contradicted" if held else "confirmed",
                f"{int(same.sum())} of {len(same)} rows are the one before" if held else "",
                value=round(max(shares), 4),
                n=len(same),
                decided=OWN_ROWS,
                measured="every second row of the state is the one before" if held else OWN_ROWS,
            ),
        )


DETECTORS = (RepeatedRows(), HeldRows())
