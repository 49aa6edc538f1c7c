"""Whether action columns are followed by the state columns of their names, or by others (b7)."""

from __future__ import annotations

import numpy as np

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import CONSTANT, Floats, active_columns, shifted

LATEST_SECONDS, STEPS = 0.75, 8
OWN, OTHER = 0.6, 0.9
"""A column's own state follows it at least so well; another one that it is mistaken for, this well."""

ONE_TO_ONE = 0.8
"""Columns under wrong names follow one each; several that follow the same one are alike, and tell nothing."""

MIN_PAIRS, MIN_ROWS = 3, 20


class ColumnNames(Detector):
    """b7: absolute targets are followed by the state column of the same name, not by one of another name."""

    name, code, question, action = "column_names", "b7", "columns of action and state", "stop"
    advice = "correct `names` in the recordings' metadata, or give the columns in their order (--manifest)"
    word = "expected"

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict for all pairs; none where the action is a change, or nothing but positions pairs its columns."""
        named = episode.claims.pairs or set(episode.action_names) & set(episode.state_names)
        if not episode.pairs or not named or episode.claims.action == "delta":
            return ()
        grippers = {claim.action for claim in episode.claims.grippers}
        moving = set(active_columns(episode.state64).tolist())
        pairs = [(a, s) for a, s in episode.pairs if a not in grippers and np.ptp(episode.action64[:, a]) > CONSTANT]
        if len(pairs) < MIN_PAIRS or len(moving) < MIN_PAIRS or len(episode.state) < MIN_ROWS:
            return (self.abstain("fewer than 3 paired columns move", decided=""),)
        scores = follows(episode, [a for a, _ in pairs])
        own = np.array([scores[row, s] for row, (_, s) in enumerate(pairs)])
        best = scores.argmax(axis=1)
        wrong = [
            (episode.action_names[a], episode.state_names[int(best[row])])
            for row, (a, _) in enumerate(pairs)
            if own[row] < OWN and scores[row, best[row]] > OTHER and int(best[row]) in moving
        ]
        action = self.action if episode.claims.layout else "warn"
        if 2 * len(wrong) > len(pairs) and len({state for _, state in wrong}) >= ONE_TO_ONE * len(wrong):
            shown = ", ".join(f"{one} by {other}" for one, other in wrong[:2])
            return (
                self.verdict(
                    "contradicted",
                    f"{len(wrong)} of {len(pairs)} columns: {shown}, ..",
                    value=float(len(wrong)),
                    n=len(pairs),
                    decided="an action column is followed by the state column of its name",
                    measured="by a column of another name",
                    action=action,
                ),
            )
        if 2 * int((own > OTHER).sum()) > len(pairs):
            return (
                self.verdict(
                    "confirmed",
                    f"{int((own > OTHER).sum())} of {len(pairs)} columns",
                    value=float((own > OTHER).sum()),
                    n=len(pairs),
                    decided="an action column is followed by the state column of its name",
                    measured="by the column of its name",
                    action=action,
                ),
            )
        return (self.abstain("the state does not follow the action closely enough"),)


def follows(episode: EpisodeInput, columns: list[int]) -> Floats:
    """float64 [len(columns), Ds], how well each state column follows these action columns, at the best of some lags."""
    action, state = episode.action64[:, columns], episode.state64
    latest = min(round(LATEST_SECONDS * episode.hz), len(state) // 4)
    lags = np.unique(np.linspace(0, max(latest, 1), STEPS).round().astype(int))
    found: Floats = np.stack([_cross(*shifted(action, state, int(lag))) for lag in lags]).max(axis=0)
    return found


def _cross(left: Floats, right: Floats) -> Floats:
    """Correlation of every column of [T, A] with every one of [T, B]; 0 where one is constant."""
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    scale = np.sqrt((left**2).sum(axis=0))[:, None] * np.sqrt((right**2).sum(axis=0))[None]
    products = left.T @ right
    found: Floats = np.divide(products, scale, out=np.zeros_like(products), where=scale > 1e-12)
    return found


DETECTORS = (ColumnNames(),)
