"""Whether commanded changes and the motion that answers them are rows of the same time (b8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.action import paired
from fwdata.evidence.episode import EpisodeInput, Together
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import Floats, lagged_each, middle, peaks
from fwdata.wording import counted

LAGS = range(-12, 13)
FOLLOWS = 0.7
"""Correlation above which a state column answers its command."""

EARLIEST, LATEST = -0.08, 1.4
"""Rows after its first possible effect in which a command is answered: LIBERO's controller takes 0.6 to 0.95, one that
follows at once none. Below EARLIEST the arm would move before its command."""


class CommandTiming(Detector):
    """b8: lag of the state's changes behind commanded changes, against the row of their first possible effect."""

    name, code, question, action = "command_timing", "b8", "commands and motion in time", "warn"
    advice = "shift the actions against the observations in the recordings: no manifest can"
    word = "expected"
    min_rows = 24

    def prepare(self, episodes: Sequence[EpisodeInput]) -> None:
        """The correlations of commands and motion."""
        _answers.prepare([each for each in episodes if _is_known(each)])

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict where the first row of an effect is known."""
        first = episode.claims.effect_row
        if first is None or not _is_known(episode):
            return ()
        scores = _answers(episode)
        lags, interior = peaks(LAGS, scores.T)
        found = lags[interior & (scores.max(axis=0) > FOLLOWS)] - first
        if not len(found):
            return (self.abstain("no column of the state answers its command", decided=DECIDED),)
        rows = middle(found)
        measured = DECIDED
        if rows < EARLIEST:
            measured = "the arm moves before it is commanded: actions are late, or observations early"
        elif rows > LATEST:
            measured = "the arm answers late: actions are early, or observations late"
        return (
            self.verdict(
                "confirmed" if measured == DECIDED else "contradicted",
                f"{rows:+.1f} rows after the first possible one, median of {counted(len(found), 'column')}",
                value=round(rows, 4),
                n=len(found),
                decided=DECIDED,
                measured=measured,
            ),
        )


@Together
def _answers(episodes: Sequence[EpisodeInput]) -> list[Floats]:
    """float64 [lags, P] of each episode, correlations of every paired action with the step of its state."""
    pairs = [(action, np.diff(state, axis=0, prepend=state[:1])) for action, state in map(paired, episodes)]
    return lagged_each(pairs, [LAGS] * len(pairs))


def _is_known(episode: EpisodeInput) -> bool:
    """Whether the first row is known in which a command shows."""
    claims = episode.claims
    return claims.effect_row is not None and claims.action == "delta" and bool(episode.pairs)


DECIDED = "the arm answers a command within a row or so"

DETECTORS = (CommandTiming(),)
