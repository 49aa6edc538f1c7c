"""Whether action columns are followed by the state columns of their names, or by others (b7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.action import change_scores, follow_scores, moving_pairs, searched
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import CONSTANT, Floats, cross_lagged, slope, smooth

LATEST_SECONDS, STEPS = 0.75, 8
OWN, OTHER = 0.6, 0.9
"""A column's own state follows it at least so well; another one that it is mistaken for, this well."""

DELTA_OWN, DELTA_OTHER = 0.3, 0.6
"""The same of changes, which are noisier."""

ONE_TO_ONE = 0.8
"""Columns under wrong names follow one each; several that follow the same one are alike, and tell nothing."""

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
        lost = np.flatnonzero(~(own >= enough))
        if len(lost):  # few, in most episodes: only these are compared with all columns of the state
            best, least = follows(episode, [pairs[row][0] for row in lost])
            rows, columns_lost = np.arange(len(lost)), columns[lost]
            own[lost], first[lost] = best[rows, columns_lost], best.argmax(axis=1)
            still = own[lost] < enough
            wrong[lost] = still & (best.max(axis=1) > other) & moving[first[lost]]
            against[lost] = still & (least[rows, columns_lost] < -other) & moving[columns_lost]
        crossed = wrong & _crossed(first, columns)
        decided = "an action column is followed by the state column of its name"
        action = self.action if episode.claims.layout else "warn"
        one_to_one = len(set(first[wrong].tolist())) >= ONE_TO_ONE * wrong.sum()
        opposite = bool(against.any() and against.sum() >= wrong.sum())
        others = bool((wrong & ~crossed).any())
        if opposite or (2 * wrong.sum() > len(pairs) and one_to_one) or (crossed.any() and not others):
            chosen, followers = (against, columns) if opposite else (wrong, first)
            shown = ", ".join(
                f"{episode.action_names[pairs[row][0]]} by {episode.state_names[int(followers[row])]}"
                for row in np.flatnonzero(chosen)[:2]
            )
            return self.verdict(
                "contradicted",
                f"{int(chosen.sum())} of {len(pairs)} columns: {shown}",
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
            f"{good} of {len(pairs)} columns",
            value=float(good),
            n=len(pairs),
            decided=decided,
            measured=decided,
            action=action,
        )


def own_scores(episode: EpisodeInput, pairs: list[tuple[int, int]]) -> Floats:
    """float64 [len(pairs)]: the highest correlation of each action column with its own state column over some lags, as
    of `follows`; NaN where it is not among the pairs that both move."""
    scores = change_scores(episode) if episode.claims.action == "delta" else follow_scores(episode)
    best = scores[_lags(episode) - searched(len(episode.state), episode.hz).start].max(axis=0).tolist()
    known = dict(zip(map(tuple, moving_pairs(episode).tolist()), best, strict=True))
    return np.array([known.get(pair, np.nan) for pair in pairs])


def _lags(episode: EpisodeInput) -> NDArray[np.int64]:
    latest = min(round(LATEST_SECONDS * episode.hz), len(episode.state) // 4)
    return np.unique(np.linspace(0, max(latest, 1), STEPS).round().astype(np.int64))


def _crossed(first: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool [pairs], those of two action columns of which each is followed by the other's state column."""
    place = {int(column): row for row, column in enumerate(columns)}
    other = [place.get(int(column), row) for row, column in enumerate(first)]
    return np.array([other[back] == row and back != row for row, back in enumerate(other)], np.bool_)


def follows(episode: EpisodeInput, columns: list[int]) -> tuple[Floats, Floats]:
    """Two float64 [len(columns), Ds]: the highest and the lowest correlation of each state column with these action
    columns, over some lags; of its change, where the action is a change."""
    action, state = episode.action64[:, columns], episode.state64
    if episode.claims.action == "delta":
        action, state = smooth(action), slope(smooth(state))
    scores = cross_lagged(action, state, _lags(episode))
    best: Floats = scores.max(axis=0)
    least: Floats = scores.min(axis=0)
    return best, least


DETECTORS = (ColumnNames(),)
