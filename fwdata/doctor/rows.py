"""Idle stretches, jumps and outlying lengths: facts of one episode, and the findings of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fwdata.doctor.findings import DoctorFinding, listed
from fwdata.doctor.remedies import Patient
from fwdata.evidence.detectors.rows import IDLE_SECONDS, JUMP, Jump, largest_jump, longest_idle, outlying
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Severity
from fwdata.evidence.signals import Floats
from fwdata.wording import counted, verb

SHIFT, SWITCH = 6.0, 3.0
"""How far above every other step one is that a column keeps, and above all its other motion where it is a switch."""

IDLE_SHARE = 0.2
"""Share of all rows in long idle stretches above which they warn: a policy then learns to wait."""


@dataclass(frozen=True)
class RowFacts:
    """What is unusual about the rows of one episode."""

    id: str
    """Id of the episode."""
    rows: int
    """Its rows."""
    seconds: float
    """Its length at the rate of the rows."""
    idle_row: int = 0
    """First row of the longest stretch without motion."""
    idle_seconds: float = 0.0
    """Its length; 0 where nothing pauses for 3 s."""
    jump: Jump | None = None
    """The largest step of a state column, where it is far above the usual ones."""


def row_facts(episode: EpisodeInput) -> RowFacts:
    """The facts of one episode."""
    rows = len(episode.state)
    start, length = longest_idle(episode)
    pause = length / episode.hz
    kept = (start, pause) if pause >= IDLE_SECONDS else (0, 0.0)
    state, names = episode.state64, episode.state_names
    jump = largest_jump(episode) or largest_spike(state, names) or largest_shift(state, names)
    return RowFacts(episode.id, rows, rows / episode.hz, *kept, jump)


def largest_spike(state: Floats, names: Sequence[str]) -> Jump | None:
    """The largest value that one row alone has, against its noise; None where it is at most 20 times as large.

    Distance of a value from the median of itself and both neighbours: a gripper that closes in one row has none. What
    the steps beside it reach as well is no spike but a turn, as of a gripper that opens the moment it is closed. In
    short episodes both steps of a spike count as usual ones, so that `largest_jump` does not see it.
    """
    if len(state) < 20:
        return None
    around = np.stack([state[:-2], state[1:-1], state[2:]])
    off = np.abs(state[1:-1] - np.median(around, axis=0))
    steps = np.pad(np.abs(np.diff(state, axis=0)), ((1, 1), (0, 0)))
    off = np.maximum(off - np.minimum(steps[:-3], steps[3:]), 0)
    usual = np.percentile(off, 95, axis=0) + 0.01 * np.ptp(state, axis=0)
    ratio = np.divide(off.max(axis=0), usual, out=np.zeros(state.shape[1]), where=usual > 1e-9)
    worst = int(np.argmax(ratio))
    row = int(off[:, worst].argmax())
    return Jump(names[worst], row + 1, float(off[row, worst]), float(ratio[worst])) if ratio[worst] > JUMP else None


def largest_shift(state: Floats, names: Sequence[str]) -> Jump | None:
    """The largest step that a column does not take back, against its next largest one; None where it is at most 6 times
    as large.

    In short episodes the step itself counts among the usual ones, so that `largest_jump` does not see it. A column that
    hardly moves but for the step switches: a gripper, or a mode. Of 76 clean episodes of moving columns none has more
    than 5.
    """
    if len(state) < 20 or not np.isfinite(state).all():
        return None
    steps = np.abs(np.diff(state, axis=0))
    ordered = np.sort(steps, axis=0)
    rows, columns = steps.argmax(axis=0), np.arange(state.shape[1])
    moved = np.arange(len(state))[:, None] > rows
    without = state - moved * np.diff(state, axis=0)[rows, columns]  # as if it had not been
    reach = np.ptp(without, axis=0)
    usual = ordered[-2] + 0.01 * reach
    ratio = np.divide(
        ordered[-1], usual, out=np.zeros(state.shape[1]), where=(usual > 1e-9) & (ordered[-1] < SWITCH * reach)
    )
    worst = int(np.argmax(ratio))
    if ratio[worst] <= SHIFT:
        return None
    return Jump(names[worst], int(rows[worst]) + 1, float(ordered[-1, worst]), float(ratio[worst]))


def row_findings(facts: Sequence[RowFacts], patient: Patient) -> list[DoctorFinding]:
    """Findings on idle stretches, jumps and lengths, worst episodes first."""
    return [*_idle(facts, patient), *_jumps(facts, patient), *_lengths(facts, patient)]


def _idle(facts: Sequence[RowFacts], patient: Patient) -> list[DoctorFinding]:
    paused = sorted((f for f in facts if f.idle_seconds), key=lambda f: -f.idle_seconds)
    if not paused:
        return []
    seconds, worst = sum(f.idle_seconds for f in paused), paused[0]
    share = seconds / sum(f.seconds for f in facts)
    severity: Severity = "warn" if share > IDLE_SHARE else "note"
    names = [f.id for f in paused]
    sentence = (
        f"nothing moves for {IDLE_SECONDS:g} s or longer in {len(paused)} of "
        f"{counted(len(facts), 'episode')}, {share:.0%} of all "
        f"rows; the longest stretch is {worst.idle_seconds:.1f} s in {worst.id} from row {worst.idle_row}"
    )
    command = patient.convert("--filter-noops") if patient.source == "libero" else patient.without(names, len(facts))
    return [
        DoctorFinding(severity, "idle_stretch", sentence, "", share, listed(names), len(names), command, worst.idle_row)
    ]


def _jumps(facts: Sequence[RowFacts], patient: Patient) -> list[DoctorFinding]:
    found = [(f, f.jump) for f in facts if f.jump is not None]
    found.sort(key=lambda item: -item[1].ratio)
    if not found:
        return []
    first, jump = found[0]
    names = [f.id for f, _ in found]
    sentence = (
        f"the state jumps in {len(found)} of {counted(len(facts), 'episode')}; the largest: {jump.column} by "
        f"{jump.step:.4g} at "
        f"row {jump.row} of {first.id}, {jump.ratio:.0f} times what is usual"
    )
    command = patient.without(names, len(facts))
    return [
        DoctorFinding("note", "jump", sentence, jump.column, jump.ratio, listed(names), len(names), command, jump.row)
    ]


def _lengths(facts: Sequence[RowFacts], patient: Patient) -> list[DoctorFinding]:
    rows = [float(f.rows) for f in facts]
    odd = [facts[index] for index in outlying(rows)]
    if not odd:
        return []
    median = float(np.median(rows))
    odd.sort(key=lambda f: -abs(np.log(f.rows / median)))
    names = [f.id for f in odd]
    sentence = (
        f"{len(odd)} of {counted(len(facts), 'episode')} {verb(len(odd), 'is', 'are')} far shorter or longer "
        "than the others: "
        f"{odd[0].id} has {odd[0].rows} "
        f"rows, the median is {median:.0f}"
    )
    command = patient.without(names, len(facts))
    return [DoctorFinding("note", "episode_length", sentence, "", float(odd[0].rows), listed(names), len(odd), command)]
