"""Grippers that do not answer their command: the other one does, they did before, or nothing does (a7)."""

from __future__ import annotations

import numpy as np

from fwdata.evidence.claims import GripperClaim
from fwdata.evidence.columns import RESTING
from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.gripper import opening, switches
from fwdata.evidence.detectors.rows import longest_run
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import CONSTANT, Floats, lagged, peak

FOLLOWS, IGNORES = 0.9, 0.6
"""Correlation with a command above which an opening follows it, and below which it does not."""

SEARCHED_SECONDS, EARLY_ROWS, EARLY_SECONDS, BETTER = 0.8, 1.5, 0.1, 0.03
"""How far around a command its answer is looked for; rows and seconds by which no gripper moves before its command, and
by how much that fits better than any time after it."""

STANDING_SECONDS = 1.0
"""So long after its command a gripper has begun to move, unless it holds something."""

OPEN, WIDER = 0.9, 0.2
"""Share of its range from which a gripper is open, so that nothing holds it when it is to close; share of the range of
its command by which this must be more than what is open, so that nothing else does when it is to open."""

ANSWERS = "the opening follows its own command"


class GripperAnswers(Detector):
    """a7: every gripper's opening follows its own command, and not before it."""

    name, code, question, action = "gripper_answers", "a7", "command and opening of", "warn"
    advice = "correct the recordings, or leave them out (--exclude)"
    word = "expected"
    min_rows = 20

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per gripper with a command and a measured opening, and one where two are exchanged."""
        known = [claim for claim in episode.claims.grippers if claim.action is not None and claim.state]
        numbers = [(episode.action64[:, claim.action or 0], opening(episode, claim)) for claim in known]
        if not all(np.isfinite(each).all() for pair in numbers for each in pair):
            return ()
        if len(known) == 2 and exchanged(episode, known[0].polarity or 1, *numbers):
            both = f"{known[0].name} and {known[1].name}"
            detail = "each opening follows the other's command, and not its own"
            return (self._contradicted(both, "exchanged", detail, "stop" if episode.claims.layout else "warn"),)
        return tuple(self._one(episode, claim, *pair) for claim, pair in zip(known, numbers, strict=True))

    def _one(self, episode: EpisodeInput, claim: GripperClaim, command: Floats, opened: Floats) -> Verdict:
        if np.ptp(command) <= CONSTANT:
            return self.abstain("the command rests", subject=claim.name)
        if rows := standing(episode, claim, command, opened):
            return self._contradicted(claim.name, "an opening that stands still", f"rows {rows[0]} to {rows[1]}")
        lags = searched(episode)
        scores = answers(episode, command, opened) * (claim.polarity or 1)
        lag, interior = peak(lags, scores)
        behind = float(scores[-lags.start :].max())
        early = lag <= -max(EARLY_ROWS, EARLY_SECONDS * episode.hz) and scores.max() > behind + BETTER
        if scores.max() < FOLLOWS or not interior:
            reason = f"correlation {float(scores.max()):.2f}, {FOLLOWS:g} is needed"
            return self.abstain(reason, subject=claim.name)
        if early:
            detail = f"{-lag:.1f} rows ({-lag / episode.hz:.2f} s), correlation {float(scores.max()):.2f}"
            return self._contradicted(claim.name, "the opening moves before its command", detail)
        return self.verdict(
            "confirmed", "", subject=claim.name, value=round(lag, 2), n=len(opened), decided=ANSWERS, measured=ANSWERS
        )

    def _contradicted(self, subject: str, measured: str, detail: str, action: str = "warn") -> Verdict:
        return self.verdict(
            "contradicted",
            detail,
            subject=subject,
            decided=ANSWERS,
            measured=measured,
            action="stop" if action == "stop" else "warn",
        )


def answers(episode: EpisodeInput, command: Floats, opened: Floats) -> Floats:
    """float64 [lags], correlation of the command with the opening so many rows later; 0 where one of them rests."""
    if np.ptp(command) <= CONSTANT or np.ptp(opened) <= CONSTANT:
        return np.zeros(len(searched(episode)))
    return lagged(command[:, None], opened[:, None], searched(episode))[:, 0]


def exchanged(episode: EpisodeInput, polarity: int, left: tuple[Floats, Floats], right: tuple[Floats, Floats]) -> bool:
    """Whether each opening follows the other command alone; of a command that rests, one that rests as well.

    polarity: of both; left, right: command and opening [T] of each.
    """
    after = slice(-searched(episode).start, None)
    if any((polarity * answers(episode, *pair)[after]).max() >= IGNORES for pair in (left, right)):
        return False
    crossed = ((left[0], right[1]), (right[0], left[1]))
    found = [float((polarity * answers(episode, *pair)[after]).max()) for pair in crossed]
    limit = RESTING * max(float(np.ptp(left[1])), float(np.ptp(right[1])))  # the opening at rest is noisy
    rest = [np.ptp(command) <= CONSTANT and np.ptp(opened) <= limit for command, opened in crossed]
    return max(found) > FOLLOWS and all(score > FOLLOWS or idle for score, idle in zip(found, rest, strict=True))


def searched(episode: EpisodeInput) -> range:
    """Rows around a command in which its answer is looked for."""
    reach = max(2, min(round(SEARCHED_SECONDS * episode.hz), len(episode.state) // 4))
    return range(-reach, reach + 1)


def standing(episode: EpisodeInput, claim: GripperClaim, command: Floats, opened: Floats) -> tuple[int, int] | None:
    """(first, last) of a stretch without any change of the opening, in which it was commanded to open further, or to
    close while it was open: nothing that it holds explains that."""
    steps = np.diff(opened) == 0
    longest, last = longest_run(steps)
    wait = max(2, round(STANDING_SECONDS * episode.hz))
    first, last = last + 1 - longest, last + 1
    reach, span = float(np.ptp(opened)), float(np.ptp(command))
    if longest <= wait or claim.polarity is None:
        return None
    share = (opened[first] - opened.min()) / reach if reach > CONSTANT else None
    for row, direction in switches(command):
        if not first <= row <= last - wait:
            continue
        after = (float(command[row : row + wait].mean()) - float(command.min())) / span
        opens = direction == claim.polarity
        wanted = after if claim.polarity == 1 else 1 - after
        if (
            share is None
            or (opens and wanted > share + WIDER)
            or (not opens and share > OPEN and wanted < OPEN - WIDER)
        ):
            return first, last
    return None


DETECTORS = (GripperAnswers(),)
