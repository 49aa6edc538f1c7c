"""The simulator's clock, column 0 of a demonstration's `states`: it shows the true rate, and rows that do not follow
each other. Nothing else in a regenerated file does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwdata.api import BadEpisode, Json

MIN_STEPS = 8
REGULAR, SAME = 0.8, 0.01
"""Share of the steps that are the usual one, or none, within so much of it: other columns are not a clock."""
REPEATED = 0.2
"""Share of steps without time above which rows are repeated: the rate is then that of all rows."""
HOLE_SECONDS = 0.5


@dataclass(frozen=True)
class SimulatorClock:
    """What the clock of one demonstration shows."""

    hz: float
    """Rows per second of simulated time."""
    warning: str | None = None
    """A sentence about rows that are missing; None where none are."""


def about(clock: SimulatorClock | None, hz: float) -> dict[str, Json]:
    """For the episode's metadata: the clock's rate, where it is another than that of the manifest."""
    agrees = clock is None or abs(clock.hz - hz) <= 2 * SAME * hz
    return {} if clock is None or agrees else {"fps_clock": round(clock.hz, 4)}


def clock_of(times: NDArray[np.float64] | None, where: str) -> SimulatorClock | None:
    """The clock of a demonstration by column 0 of its `states`, float64 [T]; None where that is no clock.

    where: the key of `states`, for messages. BadEpisode where its time goes back: rows are reversed, or of several
    recordings.
    """
    if times is None or len(times) <= MIN_STEPS:
        return None
    steps = np.diff(times)
    going = steps[np.abs(steps) > 1e-6]
    if not np.isfinite(times).all() or len(going) < MIN_STEPS:
        return None
    usual = float(np.median(np.abs(going)))
    regular = np.abs(np.abs(going) - usual) <= max(SAME * usual, float(np.spacing(np.float32(np.abs(times).max()))))
    if regular.mean() < REGULAR:
        return None
    back = np.flatnonzero(steps < -1e-6)
    time = f"{where}: the simulator's time (column 0)"
    if len(back) > len(going) / 2:
        raise BadEpisode(
            f"{time} runs backwards, from {times[0]:.2f} to {times[-1]:.2f} s: the rows are in reverse order, and no "
            "action leads to the row after it; turn them round, or leave the recording out (--exclude)"
        )
    if len(back):
        row = int(back[0]) + 1
        raise BadEpisode(
            f"{time} goes back from {times[row - 1]:.2f} to {times[row]:.2f} s at row {row}: several recordings are "
            "joined in one; split it there, or leave it out (--exclude)"
        )
    repeated = len(going) < (1 - REPEATED) * len(steps)
    rate = len(times) / float(times[-1] - times[0] + usual) if repeated else 1 / usual
    holes = np.flatnonzero(steps > HOLE_SECONDS + usual)
    holes = holes[holes > 0]  # row 0 may hold the benchmark's initial state, before the scene has settled
    if not len(holes):
        return SimulatorClock(rate)
    row, more = int(holes[0]) + 1, f" (and {len(holes) - 1} more such places)" if len(holes) > 1 else ""
    return SimulatorClock(
        rate,
        f"the simulator's time jumps by {steps[row - 1]:.2f} s to row {row}{more}: rows are missing there, and windows "
        "reach across",
    )
