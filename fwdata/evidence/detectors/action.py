"""Action: what its numbers mean, and whether they share the state's unit (b1, b2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.action_size import Size, size_beside_state, two_sizes
from fwdata.evidence.claims import ActionMeaning
from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput, Together, once
from fwdata.evidence.periods import nearest_tops
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, Outcome, Verdict
from fwdata.evidence.signals import Floats, lagged, lagged_each, middle, peak, peaks, shifted, slope, smooth
from fwdata.wording import counted

COPY, NEXT_STATE = 1e-5, 1e-4
EARLIEST, EARLIEST_SECONDS, LATEST_SECONDS = 3, 0.5, 1.5
ABSOLUTE, DELTA, MARGIN = 0.9, 0.55, 0.1
UNIT_RATIO = (0.4, 2.5)
FOLLOWS, COPIED = 0.9, 0.9999
"""Correlation above which a state column follows its action, and above which it is a copy of the command."""
MIN_ROWS = 20
VERY_VALUES = 0.2
"""Distance of targets from what is reached, in standard deviations of the state, up to which both are the same."""
CLEARLY, CLOSELY, FEWEST, SURE = 0.15, 0.97, 2, 0.8
"""Where nothing was decided: by how much one meaning must fit an episode better than the other, or how well (a smooth
motion fits the other one by 0.9 too), the episodes of either that make a data set mixed, and the share that must tell:
columns that have nothing to do with each other rarely do."""

ALONE, BESIDE = 0.3, 4
"""By how much one meaning must fit a single episode better than that of the others, at least so many."""

SIZE = "size"
"""Subject of `size_beside_state`."""

type Meaning = ActionMeaning | Literal["copy", "past"]

EXACT: tuple[Meaning, ...] = ("copy", "next_state", "past")
"""Meanings that differences show, without any correlation."""


type _Told = tuple[str, Verdict, str]
"""(episode id, its verdict, the meaning in words)."""


class ActionFit(NamedTuple):
    """How action and state of one episode go together."""

    meaning: Meaning | None
    """What the action is; None: nothing fits well enough. "copy": the state of the same row, "past": of the one
    before, which nothing can be told to reach."""
    absolute: float
    """Best mean correlation of a[t] with s[t + lag], over the better half of the columns."""
    delta: float
    """The same of the smoothed action with the smoothed change of the state."""
    ratio: float
    """Median of std(action) / std(state) of a target; NaN for what is none."""
    lag: float
    """Rows by which the state follows the action, for the meaning found; NaN without one."""
    columns: int
    """Paired columns that move."""
    interior: bool
    """Whether the best lag lies inside the range that was searched."""


@once
def fit_action(episode: EpisodeInput) -> ActionFit:
    """Compare the paired columns of action and state; three detectors ask for it.

    Cost: 0.1 ms per row for 34 columns.
    """
    known = _without_scores(episode)
    if known is not None:
        return known
    action, state = paired(episode)
    columns, lags, scores = action.shape[1], searched(len(action), episode.hz), _scores(episode)
    direct, derived = _better_half(scores[:, :columns]), _better_half(scores[:, columns:])
    absolute, delta = float(direct.max()), float(derived.max())
    meaning: Meaning | None = None
    if absolute > ABSOLUTE and absolute > delta + MARGIN:
        meaning = "absolute"
    elif delta > DELTA and delta > absolute + MARGIN:
        meaning = "delta"
    elif absolute > CLOSELY and _reaches(action, state, lags[int(direct.argmax())]):
        meaning = "absolute"
    lag, interior = peak(lags, derived if meaning == "delta" else direct)
    ratio = middle(action.std(axis=0) / state.std(axis=0)) if meaning == "absolute" else float("nan")
    return ActionFit(meaning, absolute, delta, ratio, lag if meaning else float("nan"), columns, interior)


def _reaches(action: Floats, state: Floats, lag: int) -> bool:
    """Whether the state has the very values of the action so many rows later, as only a target's are: a smooth motion
    correlates with its own change, but is not as large and not around the same value."""
    commanded, reached = shifted(action, state, lag)
    off = np.sqrt(np.square(commanded - reached).mean(axis=0)) / state.std(axis=0)
    return float(np.median(off)) < VERY_VALUES


@once
def _without_scores(episode: EpisodeInput) -> ActionFit | None:
    """The fit of an episode that is too short, or of an action that differences show; None where scores tell."""
    action, state = paired(episode)
    columns = action.shape[1]
    if not columns or len(action) < MIN_ROWS:
        return ActionFit(None, 0.0, 0.0, float("nan"), float("nan"), columns, False)
    if np.abs(action - state).max() < COPY:
        return ActionFit("copy", 1.0, 0.0, 1.0, 0.0, columns, True)
    if np.abs(action[:-1] - state[1:]).max() < NEXT_STATE:
        return ActionFit("next_state", 1.0, 0.0, 1.0, 1.0, columns, True)
    if np.abs(action[1:] - state[:-1]).max() < NEXT_STATE:
        return ActionFit("past", 1.0, 0.0, 1.0, -1.0, columns, True)
    return None


def searched(rows: int, hz: float) -> range:
    """Rows by which a state may follow its action: from 0.5 s, or 3 rows, before it to 1.5 s behind, and at most a
    quarter of the episode."""
    earliest, latest = (min(round(s * hz), rows // 4) for s in (EARLIEST_SECONDS, LATEST_SECONDS))
    return range(-max(earliest, EARLIEST), max(latest, 1) + 1)


@once
def follow_scores(episode: EpisodeInput) -> Floats:
    """float64 [lags, P], correlation of every action of `paired` with its state, over the lags of `searched`."""
    action, state = paired(episode)
    if fit_action(episode).meaning in EXACT:  # of which nothing else is known
        return lagged(action, state, searched(len(action), episode.hz))
    return _scores(episode)[:, : action.shape[1]]


def change_scores(episode: EpisodeInput) -> Floats:
    """float64 [lags, P], the same of `smoothed`."""
    scores = _scores(episode)
    return scores[:, scores.shape[1] // 2 :]


@Together
def _scores(episodes: Sequence[EpisodeInput]) -> list[Floats]:
    """float64 [lags, 2 P] of each episode, those of both."""
    both = [zip(paired(episode), smoothed(episode), strict=True) for episode in episodes]
    pairs = [(np.concatenate(left, axis=1), np.concatenate(right, axis=1)) for left, right in both]
    return lagged_each(pairs, [searched(len(episode.state), episode.hz) for episode in episodes])


@once
def moving_pairs(episode: EpisodeInput) -> NDArray[np.int64]:
    """int64 [P, 2], (action, state) of the pairs whose columns both move; grippers only where nothing else is."""
    grippers = {claim.action for claim in episode.claims.grippers}
    pairs = [pair for pair in episode.pairs if pair[0] not in grippers] or list(episode.pairs)
    found, width = np.array(pairs, np.int64).reshape(-1, 2), episode.state.shape[1]
    active = episode.columns.active
    follows, commanded = active[found[:, 1]], active[found[:, 0] + width]
    if not (follows & commanded).any():  # noisy actions may still be targets of columns that move
        commanded = episode.columns.reach[found[:, 0] + width] > 0
    return found[follows & commanded]


@once
def paired(episode: EpisodeInput) -> tuple[Floats, Floats]:
    """(action, state) [T, P] of `moving_pairs`."""
    pairs, width = moving_pairs(episode), episode.state.shape[1]
    return episode.columns.values[pairs[:, 0] + width].T, episode.columns.values[pairs[:, 1]].T


def column_lags(episode: EpisodeInput, copies: bool = False) -> Floats:
    """Lags in rows of every paired column that follows its action closely, copies of the command left out."""
    lags, scores = _followed(episode)
    return lags if copies else lags[scores < COPIED]


@once
def _followed(episode: EpisodeInput) -> tuple[Floats, Floats]:
    """(lags, scores) of every paired column that follows its action closely."""
    scores, lags = follow_scores(episode), searched(len(episode.state), episode.hz)
    found, interior = peaks(lags, scores.T, nearest_tops(lags, scores.T))
    best = scores.max(axis=0)
    used = interior & (best > FOLLOWS)
    return found[used], best[used]


@once
def smoothed(episode: EpisodeInput) -> tuple[Floats, Floats]:
    """(smoothed action, smoothed change of the state) [T, P] of the same."""
    action, state = paired(episode)
    return smooth(action), slope(smooth(state))


def _better_half(scores: Floats) -> NDArray[np.float64]:
    """float64 [lags]: at each lag the mean of the better half of the columns."""
    count = (scores.shape[1] + 1) // 2
    found: NDArray[np.float64] = np.sort(scores, axis=1)[:, -count:].mean(axis=1)
    return found


WORDS = {
    "absolute": "absolute targets",
    "delta": "changes (delta)",
    "next_state": "exactly the next row's state",
    "copy": "exactly the state of the same row",
    "past": "exactly the state of the row before",
}


LATE = "rows late"
"""What `measured` ends with where targets come after the rows that they are for; no manifest corrects that."""

BEFORE_ROWS = -0.75
"""Rows of delay below which the state moves before it is commanded."""


def _measured(found: ActionFit, claimed: ActionMeaning | None) -> str:
    """What the action is; of targets in the place of the next row's state, by how many rows they are late."""
    assert found.meaning is not None
    late = claimed == "next_state" and found.meaning == "absolute" and found.interior and found.lag < BEFORE_ROWS
    return f"{WORDS[found.meaning]}, {1 - found.lag:.0f} {LATE}" if late else WORDS[found.meaning]


class ActionMeaningDetector(Detector):
    """b1: next state, absolute target or delta."""

    name, code, question, action = "action_meaning", "b1", "action", "stop"
    advice = (
        "name the manifest whose action means that (--manifest), or give it as `action` of the converter's Conventions"
    )

    def prepare(self, episodes: Sequence[EpisodeInput]) -> None:
        """The correlations of action and state."""
        _scores.prepare([each for each in episodes if each.pairs and _without_scores(each) is None])

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict for the paired columns together."""
        if not episode.pairs:
            return ()
        claimed = episode.claims.action
        return (self._meaning(episode, claimed), *(self._size(episode) if claimed is None else ()))

    def _size(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """What `pool` compares, as the value of a verdict that agrees."""
        size = size_beside_state(episode)
        return (self.verdict("confirmed", "", subject=SIZE, value=size, n=len(episode.state)),) if size > 0 else ()

    def _meaning(self, episode: EpisodeInput, claimed: ActionMeaning | None) -> Verdict:
        found = fit_action(episode)
        decided = WORDS[claimed] if claimed else ""
        detail = (
            f"correlation as target {found.absolute:.2f}, as change {found.delta:.2f}, "
            f"{counted(found.columns, 'column')}"
        )
        if found.meaning is None:
            return self.abstain(detail if found.columns else "no paired column moves", decided=decided)
        if claimed is None and not _is_sure(found):
            return self.abstain(detail, value=round(found.absolute - found.delta, 4))
        unclaimed = claimed is None and found.meaning in ("past", "copy")  # none can be told to be where it is, or was
        return self.verdict(
            "contradicted" if unclaimed else _agrees(claimed, found.meaning),
            detail,
            value=round(found.absolute - found.delta, 4),
            n=found.columns,
            decided="a command for a later row" if unclaimed else decided,
            measured=_measured(found, claimed),
            action="warn" if unclaimed else self.action,
        )

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """By agreement; where nothing was decided, changes in some episodes beside targets in others warn."""
        found = tuple(verdict for verdict in super().pool(episodes) if verdict.subject != SIZE)
        verdicts = [(m.episode, v) for m in episodes for v in m.of(self.name)]
        told = [(name, v, v.measured or v.detail) for name, v in verdicts if not v.decided and v.subject != SIZE]
        sure = [each for each in told if each[2] in WORDS.values()]  # kept verdicts have these words as their detail
        changes = [each for each in sure if each[2] == WORDS["delta"]]
        targets = [each for each in sure if each[2] != WORDS["delta"]]
        fewer, more = sorted((changes, targets), key=len)
        if len(sure) < SURE * len(episodes) or (len(fewer) < FEWEST and not _is_alone(fewer, more)):
            return self._by_size([(name, v.value or 0.0) for name, v in verdicts if v.subject == SIZE]) or found
        return (
            DatasetVerdict(
                self.name,
                "mixed",
                episodes_for=len(more),
                against=len(fewer),
                abstained=len(episodes) - len(sure),
                action="warn",
                decided=f"{more[0][2]}, as in the other {len(more)}",
                measured=fewer[0][2],
                detail=f"{fewer[0][1].detail} in {fewer[0][0]}" if fewer[0][1].measured else "",
                episodes=tuple(each[0] for each in fewer[:MAX_LISTED]),
            ),
        )

    def _by_size(self, sizes: Sequence[Size]) -> tuple[DatasetVerdict, ...]:
        """Changes beside targets where motion does not tell them, as it is smooth or short; () where sizes do not."""
        parts = two_sizes(sizes)
        if parts is None:
            return ()
        words = {id(side): WORDS[kind] for side, kind in zip(parts, ("delta", "absolute"), strict=True)}
        fewer, more = sorted(parts, key=len)
        (name, size), (other, usual) = fewer[0], more[0]
        return (
            DatasetVerdict(
                self.name,
                "mixed",
                episodes_for=len(more),
                against=len(fewer),
                action="warn",
                decided=f"{words[id(more)]}, as in the other {len(more)}",
                measured=words[id(fewer)],
                detail=f"actions are {size:.2g} times as large as the state in {name}, {usual:.2g} times in {other}",
                episodes=tuple(each[0] for each in fewer[:MAX_LISTED]),
            ),
        )


def _is_alone(fewer: Sequence[_Told], more: Sequence[_Told]) -> bool:
    """Whether one episode fits another meaning than all others do by far."""
    odd = [abs(verdict.value or 0.0) for _, verdict, _ in fewer]
    return len(odd) == 1 and odd[0] >= ALONE and len(more) >= BESIDE


def _is_sure(found: ActionFit) -> bool:
    """Whether one meaning fits clearly better than the other, or as closely as only the right one does."""
    best = max(found.absolute, found.delta)
    return found.meaning in EXACT or abs(found.absolute - found.delta) >= CLEARLY or best >= CLOSELY


def _agrees(claimed: ActionMeaning | None, measured: Meaning) -> Outcome:
    if claimed is None:
        return "no evidence"
    absolute = claimed == "absolute" and measured in ("next_state", "copy")
    return "confirmed" if claimed == measured or absolute else "contradicted"


class ActionUnit(Detector):
    """b2: absolute targets in the unit of the state (rad against degrees), changes in the layout's own unit."""

    name, code, question, action = "action_unit", "b2", "unit of action and state", "stop"
    advice = (
        "bring action and state to one unit in the recordings (rad: degrees times pi / 180), or name another manifest"
    )
    word = "expected"

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict for the paired columns together; a delta is compared with what its layout's commands move."""
        if not episode.pairs or (episode.claims.action == "delta" and episode.claims.step is None):
            return ()
        found = fit_action(episode)
        if episode.claims.action == "delta":
            return (self._step(episode, found),)
        if found.meaning not in ("absolute", "next_state", "copy", "past"):
            return (self.abstain("the action is not an absolute target", decided="one unit"),)
        same = UNIT_RATIO[0] < found.ratio < UNIT_RATIO[1]
        if not same and not _apart(found.ratio, step_ratio(episode)):
            reason = f"spread of the action is {found.ratio:.3g} times that of the state, their steps are of one size"
            return (self.abstain(reason, decided="one unit"),)
        return (
            self.verdict(
                "confirmed" if same else "contradicted",
                f"spread of the action is {found.ratio:.3g} times that of the state",
                value=found.ratio,
                n=found.columns,
                decided="one unit",
                measured="one unit" if same else "different units, as of rad and degrees",
            ),
        )

    def _step(self, episode: EpisodeInput, found: ActionFit) -> Verdict:
        """A change of another size per unit than the layout's commands make."""
        decided = "the layout's command units"
        if found.meaning != "delta" or episode.claims.step is None:
            return self.abstain("the state does not follow the action as a change", decided=decided)
        low, high = episode.claims.step
        size = step_per_unit(episode, round(found.lag))
        fits = low <= size <= high
        return self.verdict(
            "confirmed" if fits else "contradicted",
            f"the state changes by {size:.3g} in a row per unit of the action, {low:g} .. {high:g} is usual",
            value=size,
            n=found.columns,
            decided=decided,
            measured=decided if fits else "another unit of the action or the state, as of m instead of commands",
        )


def step_ratio(episode: EpisodeInput) -> float:
    """Median of the largest usual steps (95th percentile) of the paired action columns, against those of the state."""
    pairs, width = moving_pairs(episode), episode.state.shape[1]
    steps = episode.columns.step_percentile(95)
    of_action, of_state = steps[pairs[:, 0] + width], steps[pairs[:, 1]]
    known = (of_action > 0) & (of_state > 0)
    return middle(of_action[known] / of_state[known])


def _apart(spread: float, steps: float) -> bool:
    """Whether the steps are out of proportion as the spread is, or tell nothing: a command that rests for part of an
    episode has less spread, and steps of the same size."""
    return not steps >= UNIT_RATIO[0] if spread < 1 else not steps <= UNIT_RATIO[1]


def step_per_unit(episode: EpisodeInput, lag: int) -> float:
    """How far the paired state columns move in a row per unit of the action, by least squares; median over columns."""
    left, right = shifted(*smoothed(episode), lag)
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    return middle((left * right).sum(axis=0) / (left**2).sum(axis=0))


DETECTORS = (ActionMeaningDetector(), ActionUnit())
