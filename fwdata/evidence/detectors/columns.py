"""Whether action columns are followed by the state columns of their names, or by others (b7)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.action import change_scores, follow_scores, moving_pairs, searched
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import CONSTANT, Floats, cross_lagged, middle, slope, smooth
from fwdata.wording import counted

LATEST_SECONDS, STEPS = 0.75, 8
OWN, OTHER = 0.6, 0.9
"""A column's own state follows it at least so well; another one that it is mistaken for, this well."""

DELTA_OWN, DELTA_OTHER = 0.3, 0.6
"""The same of changes, which are noisier."""

ONE_TO_ONE = 0.8
"""Columns under wrong names follow one each; several that follow the same one are alike, and tell nothing."""

RELATED, FOLLOW, TOGETHER_SECONDS, DEPENDS = 0.8, 2, 0.1, 0.1
"""Without a layout: the share of moving columns that must follow a column or move against their own, all within so many
seconds (or 2 rows) of one delay; how many must follow for each that moves against, unless all do; and by how much a
correlation must depend on the delay. Columns that have nothing to do with each other correlate by chance."""

MIN_PAIRS, MIN_ROWS = 3, 20


class ColumnNames(Detector):
    """b7: an action column is followed by the state column of its name, and in its direction."""

    name, code, question, action = "column_names", "b7", "columns of action and state", "stop"
    advice = "correct `names` in the recordings' metadata, or give the columns in their order (--manifest)"
    word = "expected"

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict for all pairs; of columns that positions alone pair, only where most of them follow their own."""
        if not episode.pairs:
            return ()
        grippers, width = {claim.action for claim in episode.claims.grippers}, len(episode.state_names)
        moving, commanded = episode.columns.active[:width], (episode.columns.reach[width:] > CONSTANT).tolist()
        pairs = [(a, s) for a, s in episode.pairs if a not in grippers and commanded[a]]
        if len(pairs) < MIN_PAIRS or moving.sum() < MIN_PAIRS or len(episode.state) < MIN_ROWS:
            return (self.abstain("fewer than 3 paired columns move"),)
        named = episode.claims.pairs or set(episode.action_names) & set(episode.state_names)
        found = self._one(episode, pairs, moving)
        return (found,) if named or (found.value is not None and 2 * found.value < len(pairs)) else ()

    def _one(self, episode: EpisodeInput, pairs: list[tuple[int, int]], moving: NDArray[np.bool_]) -> Verdict:
        enough, other = (DELTA_OWN, DELTA_OTHER) if episode.claims.action == "delta" else (OWN, OTHER)
        columns, own = np.array([s for _, s in pairs]), own_scores(episode, pairs)
        first, wrong, against = columns.copy(), np.zeros(len(pairs), np.bool_), np.zeros(len(pairs), np.bool_)
        delays, clear = np.zeros(len(pairs)), np.zeros((2, len(pairs)))
        lost = np.flatnonzero(~(own >= enough))
        if len(lost):  # few, in most episodes: only these are compared with all columns of the state
            best, least, lags = follows(episode, [pairs[row][0] for row in lost])
            rows, columns_lost = np.arange(len(lost)), columns[lost]
            own[lost], first[lost] = best[rows, columns_lost], best.argmax(axis=1)
            delays[lost] = lags[rows, first[lost]]
            still = own[lost] < enough
            wrong[lost] = still & (best.max(axis=1) > other) & moving[first[lost]]
            against[lost] = still & (least[rows, columns_lost] < -other) & moving[columns_lost]
            clear[:, lost] = best.max(axis=1), -least[rows, columns_lost]
        crossed = wrong & _crossed(first, columns)
        decided = "an action column is followed by the state column of its name"
        action = self.action if episode.claims.layout else "warn"
        one_to_one = len(set(first[wrong].tolist())) >= ONE_TO_ONE * wrong.sum()
        each = [
            (int(rows.sum()), float(score[rows].sum())) for rows, score in zip((wrong, against), clear, strict=True)
        ]
        opposite = bool(against.any()) and each[1] >= each[0]  # of exchanged axes, each may go against its own as well
        others = bool((wrong & ~crossed).any())
        if opposite or (2 * wrong.sum() > len(pairs) and one_to_one) or (crossed.any() and not others):
            chosen, followers = (against, columns) if opposite else (wrong, first)
            if episode.claims.layout is None and not _related(episode, pairs, own > other, chosen, opposite, delays):
                return self.abstain("the state does not follow the action closely enough")
            shown = ", ".join(
                f"{episode.action_names[pairs[row][0]]} by {episode.state_names[int(followers[row])]}"
                for row in np.flatnonzero(chosen)[:2]
            )
            return self.verdict(
                "contradicted",
                f"{int(chosen.sum())} of {counted(len(pairs), 'column')}: {shown}",
                value=float(chosen.sum()),
                n=len(pairs),
                decided=decided,
                measured="in the opposite direction" if opposite else "by a column of another name",
                action=action,
            )
        good = int((own > other).sum())
        if 2 * good <= len(pairs):
            return self.abstain("the state does not follow the action closely enough")
        return self.verdict(
            "confirmed",
            f"{good} of {counted(len(pairs), 'column')}",
            value=float(good),
            n=len(pairs),
            decided=decided,
            measured=decided,
            action=action,
        )


def _related(
    episode: EpisodeInput,
    pairs: list[tuple[int, int]],
    followed: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
    opposite: bool,
    delays: Floats,
) -> bool:
    """Whether action and state of the pairs have to do with each other, so that the chosen ones can be wrong.

    opposite: these move against their own; else they follow others, so many rows later.
    """
    place = {(int(a), int(s)): column for column, (a, s) in enumerate(moving_pairs(episode))}
    moving = np.array([pair in place for pair in pairs], np.bool_)
    odd, good = chosen[moving], followed[moving] & ~chosen[moving]
    known = np.array([place[pair] for pair in pairs if pair in place], np.int64)
    every = change_scores(episode) if episode.claims.action == "delta" else follow_scores(episode)
    scores = every[:, known] * np.where(odd, -1.0, 1.0)
    lags = scores.argmax(axis=0) + float(searched(len(episode.state), episode.hz).start)
    counted = (odd | good) & (np.ptp(scores, axis=0) >= DEPENDS)
    if not opposite:
        lags[odd], counted = delays[moving][odd], odd | good
    if not counted.any():
        return False
    counted &= np.abs(lags - middle(lags[counted])) <= max(2.0, TOGETHER_SECONDS * episode.hz)
    against, agree, enough = int((odd & counted).sum()), int((good & counted).sum()), RELATED * len(known)
    return (
        against > 0 and against + agree >= enough and (against >= enough or not opposite or agree >= FOLLOW * against)
    )


def own_scores(episode: EpisodeInput, pairs: list[tuple[int, int]]) -> Floats:
    """float64 [len(pairs)]: the highest correlation of each action column with its own state column over some lags, as
    of `follows`; NaN where it is not among the pairs that both move."""
    scores = change_scores(episode) if episode.claims.action == "delta" else follow_scores(episode)
    best = scores[_lags(episode) - searched(len(episode.state), episode.hz).start].max(axis=0).tolist()
    known = dict(zip(map(tuple, moving_pairs(episode).tolist()), best, strict=True))
    return np.array([known.get(pair, np.nan) for pair in pairs])


def _lags(episode: EpisodeInput) -> NDArray[np.int64]:
    return _up_to(min(round(LATEST_SECONDS * episode.hz), len(episode.state) // 4))


@lru_cache(maxsize=64)
def _up_to(latest: int) -> NDArray[np.int64]:
    """int64 [lags], at most `STEPS`, evenly spread."""
    return np.unique(np.linspace(0, max(latest, 1), STEPS).round().astype(np.int64))


def _crossed(first: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool [pairs], those of two action columns of which each is followed by the other's state column."""
    place = {int(column): row for row, column in enumerate(columns)}
    other = [place.get(int(column), row) for row, column in enumerate(first)]
    return np.array([other[back] == row and back != row for row, back in enumerate(other)], np.bool_)


def follows(episode: EpisodeInput, columns: list[int]) -> tuple[Floats, Floats, Floats]:
    """Three float64 [len(columns), Ds]: the highest and the lowest correlation of each state column with these action
    columns, over some lags, and the rows by which it follows at the highest; of its change, where the action is one."""
    action, state = episode.action64[:, columns], episode.state64
    if episode.claims.action == "delta":
        action, state = smooth(action), slope(smooth(state))
    lags = _lags(episode)
    scores = cross_lagged(action, state, lags)
    best: Floats = scores.max(axis=0)
    least: Floats = scores.min(axis=0)
    return best, least, lags[scores.argmax(axis=0)].astype(np.float64)


DETECTORS = (ColumnNames(),)
