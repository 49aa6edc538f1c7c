"""One unit within an episode: rows from which on the same motion goes on in numbers many times as large (a6)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.columns import ColumnValues
from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.scales import switches, switching
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import Floats, middle

FACTORS = (("rad and degrees", 180 / math.pi), ("m and cm", 100.0), ("m and mm", 1000.0))
"""What the numbers of one motion differ by in two units."""

NEAR, COLUMNS = 0.15, 3
"""How far off a factor the ratio of two neighbouring rows is, as a joint moves meanwhile, and the columns that show it
in one row."""

BESIDE, CALM, AGREE = 4, 0.3, 0.05
"""Rows on both sides in which such a column stays within this share of its value next to the step, and how far off the
factor the median of the columns is."""

SMALL, LEAST = 1 / 50, 1 / 1200
"""Share of its reach within which a gripper goes from end to end, as one of 0 .. 1 does among rows of 0 .. 100."""

SCALES = (1 / 130, 1 / 80), (1 / 285, 1 / 230)
"""The same of 0 .. 1 among 0 .. 100, and among 0 .. 255, where nothing commands it on another scale."""

STEPS, STILL = (100.0, 255.0), 0.02
"""Factors by which a gripper at rest steps where its scale changes, and how far off it may be; it and, where it alone
steps, the column paired with it stay within this share for some rows on both sides."""

MOST = 130.0
"""A gripper of 0 .. 100 reads no more."""

PLATEAU, REACH, FEWEST = 6, 0.5, 20
"""Rows that it stays at either end for, the share of its own reach that the column paired with it goes meanwhile, and
the rows of one scale."""


class UnitWithin(Detector):
    """a6: no row from which on several columns, or a gripper, are of another unit."""

    name, code, question, action = "unit_within", "a6", "one unit within an episode", "warn"
    advice = "bring the rows to one unit in the recordings, or leave them out (--exclude)"
    word = "expected"
    min_episodes = 1

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict; contradicted with the row."""
        said = next(_changes(episode), "")
        return (
            self.verdict(
                "contradicted" if said else "confirmed",
                said,
                n=len(episode.state),
                decided="one unit",
                measured="another unit from a row on" if said else "one unit",
            ),
        )


def _changes(episode: EpisodeInput) -> Iterator[str]:
    kinds = ("state", episode.state64, episode.state_names), ("action", episode.action64, episode.action_names)
    for kind, rows, names in kinds if _steep(episode.columns.values).any() else ():
        for row, columns, factor, units in unit_steps(rows):
            side, times = ("from", factor) if factor > 1 else ("up to", 1 / factor)
            yield (
                f"{len(columns)} columns of the {kind} are {times:.3g} times as large {side} row {row}, as {units} "
                f"differ, such as {names[columns[0]]}"
            )
    grippers = _grippers(episode)
    suspicious = set(grippers[_suspicious(episode.columns.values[grippers].T)].tolist()) if len(grippers) else set()
    for kind, rows, other, names in (
        ("state", episode.state64, episode.action64, episode.state_names),
        ("action", episode.action64, episode.state64, episode.action_names),
    ):
        partners = {s: a for a, s in episode.pairs} if kind == "state" else dict(episode.pairs)
        first = 0 if kind == "state" else episode.state.shape[1]
        for column in range(len(names)) if suspicious else ():
            if first + column not in suspicious:
                continue
            partner = partners.get(column)
            paired = None if partner is None else other[:, partner]
            found, at = scale_step(rows[:, column], paired), lone_step(rows[:, column], paired)
            if found is not None:
                yield (
                    f"{kind} {names[column]} goes from end to end within {found[1]:.3g} in rows {found[0].start} to "
                    f"{found[0].stop - 1}, and within {np.ptp(rows[:, column]):.3g} in all"
                )
            if at is not None:
                yield (
                    f"{kind} {names[column]} is {rows[at - 1, column]:.3g} up to row {at - 1} and "
                    f"{rows[at, column]:.3g} from then on, at rest on both sides"
                )


def _grippers(episode: EpisodeInput) -> NDArray[np.int64]:
    """Columns of state and action that are grippers, as decided or as they go from end to end."""
    found, width = set(np.flatnonzero(switching(episode)).tolist()), episode.state.shape[1]
    for claim in episode.claims.grippers:
        found.update(claim.state if claim.action is None else (*claim.state, width + claim.action))
    return np.array(sorted(found), np.int64)


def _suspicious(values: Floats) -> NDArray[np.bool_]:
    """bool [D], grippers of [T, D] that move in a small share of their reach, or step far: all that is to be judged."""
    above = values - values.min(axis=0)
    reach = above.max(axis=0)
    little = (above > LEAST * reach) & (above <= SMALL * reach)
    steps = np.abs(values[1:]) > STEPS[0] / 2 * np.abs(values[:-1])
    back = np.abs(values[:-1]) > STEPS[0] / 2 * np.abs(values[1:])
    far = (steps | back) & (values[1:] != 0) & (values[:-1] != 0)
    found: NDArray[np.bool_] = (reach > 0) & np.isfinite(reach) & ((little.sum(axis=0) >= PLATEAU) | far.any(axis=0))
    return found


def lone_step(values: Floats, partner: Floats | None) -> int | None:
    """Row from which on a gripper [T] at rest reads another scale; None where there is none, or nothing tells it from
    a command that is obeyed at once.

    partner: as of `scale_step`. It stays where it is, or steps alike where the smaller reading is not the closed end.
    """
    if partner is None:
        return None
    for row in _at_rest(values):
        still = partner[max(0, row - BESIDE) : row + BESIDE]
        small, large = sorted(values[row - 1 : row + 1].tolist())
        alike = any(abs(row - step) <= 1 for step in _at_rest(partner))
        if np.ptp(still) <= STILL * np.ptp(partner) or (alike and (large > MOST or values.min() < small / 2)):
            return row
    return None


def _at_rest(values: Floats) -> list[int]:
    """Rows that are one of STEPS times the row before, or the other way round, where both sides are at rest."""
    small, large = np.minimum(values[1:], values[:-1]), np.maximum(values[1:], values[:-1])
    found = np.zeros(len(small), np.bool_)
    for factor in STEPS:
        found |= (small > 0) & (np.abs(large - factor * small) <= STILL * large)
    rows = []
    for row in (np.flatnonzero(found) + 1).tolist():
        before, after = values[max(0, row - BESIDE) : row], values[row : row + BESIDE]
        if all(np.ptp(side) <= STILL * abs(float(side[-1])) for side in (before, after)):
            rows.append(row)
    return rows


def scale_step(values: Floats, partner: Floats | None) -> tuple[range, float] | None:
    """(rows of the small scale, reach there) of a gripper [T] that begins, or ends, on another scale; else None.

    partner: the command of an opening, or the other way round; None where none is known.
    """
    low, reach = float(values.min()), float(np.ptp(values))
    wide = np.flatnonzero(values - low > SMALL * reach)
    for rows in (range(int(wide[0])), range(int(wide[-1]) + 1, len(values))):
        some = values[rows.start : rows.stop]
        own = float(np.ptp(some)) if len(some) >= FEWEST else 0.0
        if own < LEAST * reach or not switches(ColumnValues(some[None]))[0]:
            continue
        ends = (some - some.min() < 0.05 * own, some.max() - some < 0.05 * own)
        if min(map(_longest, ends)) < PLATEAU:
            continue
        moves = partner is not None and np.ptp(partner[rows.start : rows.stop]) >= REACH * np.ptp(partner) > 0
        if moves or any(least <= own / reach <= most for least, most in SCALES):
            return rows, own
    return None


def _longest(true: NDArray[np.bool_]) -> int:
    """The longest run of a condition, in rows."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def unit_steps(rows: Floats) -> Iterator[tuple[int, NDArray[np.int64], float, str]]:
    """(row, columns, factor, units) of every row of [T, D] from which on several columns are in another unit.

    Cost: 60 us for 120 rows of 14 columns.
    """
    if len(rows) < 2 * BESIDE:
        return
    for before in np.flatnonzero(_steep(rows.T)).tolist():
        found = _unit_step(rows, before + 1)
        if found is not None:
            yield (before + 1, *found)


def _steep(columns: Floats) -> NDArray[np.bool_]:
    """bool [T - 1], of columns [D, T]: the steps in which several are so many times as large as before, or after."""
    sizes = np.abs(columns)
    small = np.minimum(sizes[:, 1:], sizes[:, :-1]) * ((1 - NEAR) * FACTORS[0][1])
    far = (np.abs(sizes[:, 1:] - sizes[:, :-1]) > small) & (small > 0)
    found: NDArray[np.bool_] = np.count_nonzero(far, axis=0) >= COLUMNS
    return found


def _unit_step(rows: Floats, row: int) -> tuple[NDArray[np.int64], float, str] | None:
    """The columns that are in another unit from this row on, with the factor, and its name."""
    first, last = rows[row - 1], rows[row]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = last / first
    for units, factor in FACTORS:
        for up in (factor, 1 / factor):
            near = np.abs(ratios / up - 1) < NEAR
            before, after = rows[max(0, row - BESIDE) : row], rows[row : row + BESIDE]
            calm = (np.abs(before - first) <= CALM * np.abs(first)).all(axis=0)
            calm &= (np.abs(after - last) <= CALM * np.abs(last)).all(axis=0)
            columns = np.flatnonzero(near & calm)
            if len(columns) >= COLUMNS and abs(middle(ratios[columns]) / up - 1) < AGREE:
                return columns, up, units
    return None


DETECTORS = (UnitWithin(),)
