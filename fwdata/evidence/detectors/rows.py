"""Rows: idle stretches, jumps, constant columns, values that are not finite, odd lengths (h4), unwritten rows (h5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.columns import titles
from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, Verdict
from fwdata.evidence.signals import CONSTANT, Floats, medians, middle
from fwdata.wording import counted, verb

JUMP = 20.0
IDLE_SECONDS = 3.0
UNWRITTEN_ROWS, DEAD_ROWS, FALL = 3, 20, 3.0
DEAD_REACH = 0.1
"""Range (rad, or a command) of an action column which a working arm would have followed."""
STILL_SECONDS, SETTLE_SECONDS, ANSWER_SECONDS, TRAVEL = 1.5, 1.0, 0.5, 0.1
"""How long all of a state, or all of an action, is exactly the same in every row, without the time that a robot settles
for, or takes to answer, and the share of their range that two columns of the other travel meanwhile."""
SPIKE = 3.0
"""How far one value is off all others of its column, in their range or that of the usual column."""
LENGTH_LIMIT, MIN_LENGTHS = 4.0, 8


class RowQuality(Detector):
    """h4: what is unusual about the rows; notes only, as real recordings do pause and jump."""

    name, code, question, action = "row_quality", "h4", "rows", "note"
    word = "expected"

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict; contradicted means: worth a look."""
        columns, rows = episode.columns, len(episode.state)
        found = [*not_finite(episode), *jumps(episode), *idle(episode)]
        constant = int((columns.reach <= CONSTANT).sum()) if columns.finite else 0
        about = f"{constant} of {counted(len(columns.values), 'column')} {verb(constant, 'is', 'are')} constant"
        return (
            self.verdict(
                "contradicted" if found else "confirmed",
                "; ".join([*found, about]),
                value=float(rows),
                n=rows,
                decided="usual rows",
                measured=found[0] if found else "usual rows",
            ),
        )

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """By agreement, and one verdict on lengths far from the median."""
        lengths = [(m.episode, v.value) for m in episodes for v in m.of(self.name) if v.value]
        odd = outlying([length for _, length in lengths])
        if not odd:
            return super().pool(episodes)
        names = tuple(lengths[index][0] for index in odd[:MAX_LISTED])
        return (
            *super().pool(episodes),
            DatasetVerdict(
                self.name,
                "contradicted",
                "length",
                value=float(len(odd)),
                episodes_for=len(lengths) - len(odd),
                against=len(odd),
                action="note",
                decided="usual lengths",
                measured=f"{len(odd)} of {counted(len(lengths), 'episode')} {verb(len(odd), 'is', 'are')} far "
                "shorter or longer than the others",
                episodes=names,
            ),
        )


def not_finite(episode: EpisodeInput) -> list[str]:
    """The first value that is not finite."""
    if episode.columns.finite:
        return []
    row, column = np.argwhere(~np.isfinite(episode.columns.values.T))[0].tolist()
    return [f"{episode.names[column]} is not finite at row {row}"]


class Jump(NamedTuple):
    """The largest step of a state column, far above its usual ones."""

    column: str
    """Name of the column."""
    row: int
    """Row that it leads to."""
    step: float
    """Its size, in the column's unit."""
    ratio: float
    """Its size against the usual largest step (p99 + 1 % of the range)."""


def largest_jump(episode: EpisodeInput) -> Jump | None:
    """The largest step of a state column against its usual ones; None where it is at most 20 times as large."""
    columns, width = episode.columns, episode.state.shape[1]
    if len(episode.state) < 20 or not (columns.finite or np.isfinite(episode.state).all()):
        return None
    usual = columns.step_percentile(99)[:width] + 0.01 * columns.reach[:width]
    ratio = np.divide(columns.ordered_steps[:width, -1], usual, out=np.zeros(width), where=usual > 1e-9)
    worst = int(ratio.argmax())
    if ratio[worst] <= JUMP:
        return None
    row = int(columns.steps[worst].argmax())
    return Jump(episode.state_names[worst], row + 1, float(columns.steps[worst, row]), float(ratio[worst]))


def jumps(episode: EpisodeInput) -> list[str]:
    """The largest jump in words."""
    found = largest_jump(episode)
    return [f"state {found.column} jumps at row {found.row}"] if found else []


def longest_idle(episode: EpisodeInput) -> tuple[int, int]:
    """(first row, rows) of the longest stretch without any motion; (0, 0) in an episode of fewer than 20 rows."""
    if len(episode.state) < 20:
        return 0, 0
    moves = np.ones(len(episode.speed) + 1, np.bool_)
    np.greater(episode.speed[1:], 0.01, out=moves[1:-1])
    moving = np.flatnonzero(moves)
    gaps = moving[1:] - moving[:-1]
    where = int(gaps.argmax())
    return int(moving[where]) + 1, int(gaps[where]) - 1


def idle(episode: EpisodeInput) -> list[str]:
    """The longest stretch without any motion of at least 3 s."""
    _, longest = longest_idle(episode)
    limit = max(IDLE_SECONDS * episode.hz, 1)
    return [f"nothing moves for {longest / episode.hz:.1f} s"] if longest >= limit else []


def outlying(lengths: Sequence[float]) -> list[int]:
    """Indices of lengths whose logarithm is more than 4 robust standard deviations from the median."""
    if len(lengths) < MIN_LENGTHS:
        return []
    logs = np.log(np.asarray(lengths))
    distance = np.abs(logs - middle(logs))
    spread = 1.4826 * middle(distance)
    return [int(i) for i in np.flatnonzero(distance > LENGTH_LIMIT * max(spread, 0.05))]


class UnwrittenRows(Detector):
    """h5: no run of rows in which state and action are all zero, as in a file that was grown and never filled; no state
    and no arm that never changes while the action does, and no such action, or that of an arm."""

    name, code, question, action = "unwritten_rows", "h5", "rows are recorded", "stop"
    advice = "record the episodes again, or leave them out (--exclude)"
    word = "expected"
    min_episodes = 1

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict; an episode that is zero everywhere tells nothing."""
        columns, rows = episode.columns, len(episode.state)
        if episode.state.shape[1] < 2:
            return ()
        longest, last = 0, -1
        told = np.ones(len(columns.values), np.bool_)
        first, grippers = episode.state.shape[1], (claim.action for claim in episode.claims.grippers)
        told[[first + column for column in grippers if column is not None]] = False  # 0 may mean half open
        if not (told & ((columns.low > 0) | (columns.high < 0))).any():  # else no row is 0 in every column
            empty = np.asarray(columns.values[told].any(axis=0)) == 0
            if empty.all():
                return ()
            longest, last = longest_run(empty)
        bad = longest >= UNWRITTEN_ROWS and _falls(episode.state64, last - longest + 1, last)
        dead = _dead(episode) if not bad and rows >= DEAD_ROWS else None
        if dead is not None:
            return (self._dead_verdict(*dead, rows),)
        odd = next(_odd_rows(episode), None) if not bad and rows >= DEAD_ROWS else None
        if odd is not None:
            measured, detail, value = odd
            words = {"decided": "recorded rows", "measured": measured}
            return (self.verdict("contradicted", detail, value=value, n=rows, action="warn", **words),)
        return (
            self.verdict(
                "contradicted" if bad else "confirmed",
                f"{counted(longest, 'row')}, up to row {last}" if bad else "",
                value=float(longest),
                n=rows,
                decided="recorded rows",
                measured="rows in which all of state and action is 0" if bad else "recorded rows",
            ),
        )

    def _dead_verdict(self, what: str, columns: int, rows: int) -> Verdict:
        other = "state" if what.startswith("an action") else "action"
        return self.verdict(
            "contradicted",
            f"all {counted(columns, 'column')} in {counted(rows, 'row')}, while the {other} moves",
            value=0.0,
            n=rows,
            decided="recorded rows",
            measured=f"{what} that never changes",
            action="warn",
        )


def _odd_rows(episode: EpisodeInput) -> Iterator[tuple[str, str, float]]:
    """(what, where, rows) of a state that stands still while its commands move on, of an action that does while the
    robot travels, and of one value that no other comes near."""
    first = episode.state.shape[1]
    limit = max(DEAD_ROWS, round(STILL_SECONDS * episode.hz))
    settled = round(SETTLE_SECONDS * episode.hz)
    steps, sides = episode.columns.steps, (slice(0, first), slice(first, None))
    answered = round(ANSWER_SECONDS * episode.hz)
    looked_at: list[tuple[str, slice | list[int], slice | list[int], int, int]] = [
        ("a state", *sides, 0, answered),
        ("an action", *sides[::-1], settled, 0),
        *((f"a state of the {name}", *columns, 0, answered) for name, columns in _arms(episode)),
    ]
    for what, own, other, wait, left in looked_at:
        longest, last = longest_run(np.asarray(steps[own].any(axis=0)) == 0)
        if longest < limit + wait:
            continue
        rows = slice(last + 2 - longest + wait, last + 2 - left)
        values, reach = episode.columns.values[other], episode.columns.reach[other]
        travel = np.ptp(values[:, rows], axis=1)
        if ((travel > TRAVEL * reach) & (reach > CONSTANT)).sum() > 1:
            where = f"rows {last + 1 - longest} to {last + 1}"
            yield f"{what} that stands still while the other moves", where, float(longest)
    yield from _spikes(episode)


def _arms(episode: EpisodeInput) -> list[tuple[str, tuple[list[int], list[int]]]]:
    """(name, (its state columns, those of its commands)) of every arm; grippers are none of either."""
    first = episode.state.shape[1]
    found = []
    for arm in episode.claims.arms:
        commands = [first + action for action, column in episode.pairs if column in arm.state]
        found.append((arm.name if arm.name == "arm" else f"{arm.name} arm", (list(arm.state), commands)))
    return [each for each in found if len(each[1][0]) > 1 and len(each[1][1]) > 1]


def _spikes(episode: EpisodeInput) -> Iterator[tuple[str, str, float]]:
    """The value of one row, neither the first nor the last, that is far from all others of its column."""
    ordered, values = episode.columns.ordered, episode.columns.values
    ends = ordered[:, [0, 1, -2, -1]].T
    rest, gaps = ends[2:] - ends[:2], ends[[3, 1]] - ends[[2, 0]]
    if not (gaps > SPIKE * rest).any():
        return
    usual = middle(episode.columns.reach[episode.columns.active]) if episode.columns.active.any() else 0.0
    moves = (rest > CONSTANT) | (np.arange(len(values)) < episode.state.shape[1])  # a command may be given for one row
    far = (gaps > SPIKE * np.maximum(rest, usual)) & moves & (usual > 0)
    for side, column in np.argwhere(far).tolist():
        row = int(values[column].argmin() if side else values[column].argmax())
        if 0 < row < values.shape[1] - 1:
            name = titles(episode.state_names, episode.action_names)[column]
            detail = f"{name} is {values[column, row]:.4g} in row {row}, {values[column, row - 1]:.4g} before"
            yield "one value that no other comes near", detail, 1.0


def _falls(state: Floats, first: int, last: int) -> bool:
    """Whether the state jumps to the zeros of a run of rows, or from them; an arm that begins at zero does not."""
    edges = [state[row] for row in (first - 1, last + 1) if 0 <= row < len(state)]
    steps = np.sqrt((np.diff(state, axis=0) ** 2).sum(axis=1))
    inner = np.delete(steps, [row for row in (first - 1, last) if 0 <= row < len(steps)])
    usual = float(np.percentile(inner[inner > 0], 95)) if (inner > 0).any() else 0.0
    return any(float(np.sqrt((edge**2).sum())) > FALL * usual for edge in edges)


def _dead(episode: EpisodeInput) -> tuple[str, int] | None:
    """(what, its columns) of the state, or of an arm, that never changes though several of its action columns do; of
    an action, or that of an arm, that never changes though several state columns do, and not towards it."""
    reach, width = episode.columns.reach, episode.state.shape[1]
    if not (reach <= CONSTANT).any():
        return None
    moving, still = reach[width:], reach[:width] <= CONSTANT
    if (moving <= CONSTANT).all() and len(moving) > 1:
        return ("an action", len(moving)) if (reach[:width] > DEAD_REACH / 2).sum() > 1 else None
    if still.all():
        return ("a state", len(still)) if (moving > CONSTANT).sum() > 1 else None
    if silent := _silent(episode):
        return "an action of the arm", silent
    for arm in episode.claims.arms:
        commands = [action for action, column in episode.pairs if column in arm.state]
        if still[list(arm.state)].all() and (moving[commands] > DEAD_REACH).sum() > 1:
            return f"a {arm.name} arm", len(arm.state)
        if len(commands) > 1 and (moving[commands] <= CONSTANT).all() and _leaves(episode, arm.state):
            return f"an action of the {arm.name} arm", len(commands)
    return None


def _silent(episode: EpisodeInput) -> int:
    """How many columns beside those of grippers the action has, if all are 0 in every row while the robot travels
    (targets: away from them); else 0."""
    width, grippers = episode.state.shape[1], episode.claims.grippers
    commands = np.setdiff1d(np.arange(episode.action.shape[1]), [g.action for g in grippers if g.action is not None])
    if len(commands) < 2 or episode.action[:, commands].any():
        return 0
    fingers = [column for gripper in grippers for column in gripper.state]
    arm: list[int] = np.setdiff1d(np.arange(width), fingers).tolist()
    if episode.claims.action == "delta":
        return len(commands) if (episode.columns.reach[arm] > DEAD_REACH / 2).sum() > 1 else 0
    return len(commands) if _leaves(episode, arm) else 0


def _leaves(episode: EpisodeInput, columns: Sequence[int]) -> bool:
    """Whether several state columns of an arm move, and are away from what is commanded most of the time."""
    command_of = {column: action for action, column in episode.pairs}
    paired = [column for column in columns if column in command_of]
    state, action = episode.state64[:, paired], episode.action64[:, [command_of[column] for column in paired]]
    away = medians(np.abs(state - action)) > DEAD_REACH / 2
    return int((away & (np.ptp(state, axis=0) > DEAD_REACH)).sum()) > 1


def longest_run(flags: NDArray[np.bool_]) -> tuple[int, int]:
    """(length of the longest run of True, its last index); (0, -1) for none."""
    longest, last, run = 0, -1, 0
    for index in np.flatnonzero(flags):
        run = run + 1 if index and flags[index - 1] else 1
        if run > longest:
            longest, last = run, int(index)
    return longest, last


DETECTORS = (RowQuality(), UnwrittenRows())
