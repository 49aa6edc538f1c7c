"""Whether commanded changes and the motion that answers them are rows of the same time (b8)."""

from __future__ import annotations

import numpy as np

from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.action import paired
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import lagged, middle, peaks

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

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict where the first row of an effect is known."""
        first = episode.claims.effect_row
        if first is None or episode.claims.action != "delta" or not episode.pairs:
            return ()
        action, state = paired(episode)
        scores = lagged(action, np.diff(state, axis=0, prepend=state[:1]), LAGS)
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
                f"{rows:+.1f} rows after the first possible one, median of {len(found)} columns",
                value=round(rows, 4),
                n=len(found),
                decided=DECIDED,
                measured=measured,
            ),
        )


DECIDED = "the arm answers a command within a row or so"

DETECTORS = (CommandTiming(),)
