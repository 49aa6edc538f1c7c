"""Grippers that do not answer their command: the other one does, they did before, or nothing does (a7)."""

from __future__ import annotations

import numpy as np

from fwdata.evidence.claims import GripperClaim
from fwdata.evidence.columns import RESTING
from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.gripper import GripperMotion, answer_rows, gripper_motions, switches
from fwdata.evidence.detectors.rows import longest_run
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import CONSTANT, Floats, lagged, peak

FOLLOWS, IGNORES = 0.9, 0.6
"""Correlation with a command above which an opening follows it, and below which it does not."""

EARLY_ROWS, EARLY_SECONDS, BETTER = 1.5, 0.1, 0.03
"""Rows and seconds by which no gripper moves before its command, and by how much that fits better than any time after
it."""

STANDING_SECONDS = 1.0
"""So long after its command a gripper has begun to move, unless it holds something."""

RESTING_COMMAND = {"signed": 0.1, "unit": 0.05, "percent": 5.0}
"""Scale of a command -> the range below which it rests, noisy as it may be."""

OPEN_COMMAND = {"signed": (-1.0, 1.0), "unit": (0.0, 1.0), "percent": (0.0, 100.0)}
"""Scale of a command -> its two ends."""

AT_END, MOVES = 0.1, 0.2
"""Share of the scale within which a command is at an end, and of the opening that nothing but the gripper moves."""

OPEN, WIDER = 0.9, 0.2
"""Share of its range from which a gripper is open, so that nothing holds it when it is to close; share of the range of
its command by which this must be more than what is open, so that nothing else does when it is to open."""

BOTH_WAYS = (1, -1)
"""Directions of a command."""

ANSWERS = "the opening follows its own command"


class GripperAnswers(Detector):
    """a7: every gripper's opening follows its own command, and not before it."""

    name, code, question, action = "gripper_answers", "a7", "command and opening of", "warn"
    advice = "correct the recordings, or leave them out (--exclude)"
    word = "expected"
    min_rows = 20

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per gripper with a command and a measured opening, and one where two are exchanged."""
        known = gripper_motions(episode)
        if not all(np.isfinite(each).all() for motion in known for each in (motion.command, motion.opened)):
            return ()
        if len(known) == 2 and exchanged(episode, *known):
            both = f"{known[0].claim.name} and {known[1].claim.name}"
            detail = "each opening follows the other's command, and not its own"
            return (self._contradicted(both, "exchanged", detail, "stop" if episode.claims.layout else "warn"),)
        return tuple(self._one(episode, motion) for motion in known)

    def _one(self, episode: EpisodeInput, motion: GripperMotion) -> Verdict:
        claim, command, opened = motion.claim, motion.command, motion.opened
        if np.ptp(command) <= RESTING_COMMAND.get(claim.action_scale or "", CONSTANT):
            if row := uncommanded(claim, command, opened, round(STANDING_SECONDS * episode.hz)):
                return self._contradicted(claim.name, "an opening that moves without a command", f"by row {row}")
            return self.abstain("the command rests", subject=claim.name)
        if rows := standing(episode, claim, command, opened):
            return self._contradicted(claim.name, "an opening that stands still", f"rows {rows[0]} to {rows[1]}")
        lags = answer_rows(episode)
        scores = _own(episode, motion) * (claim.polarity or 1)
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


def _own(episode: EpisodeInput, motion: GripperMotion) -> Floats:
    """float64 [lags], as `answers` of a gripper's own command and opening, from what is known of them."""
    rests = min(np.ptp(motion.command), np.ptp(motion.opened)) <= CONSTANT
    return np.zeros(len(answer_rows(episode))) if rests else motion.at(answer_rows(episode))


def answers(episode: EpisodeInput, command: Floats, opened: Floats) -> Floats:
    """float64 [lags], correlation of the command with the opening so many rows later; 0 where one of them rests."""
    if np.ptp(command) <= CONSTANT or np.ptp(opened) <= CONSTANT:
        return np.zeros(len(answer_rows(episode)))
    return lagged(command[:, None], opened[:, None], answer_rows(episode))[:, 0]


def exchanged(episode: EpisodeInput, left: GripperMotion, right: GripperMotion) -> bool:
    """Whether each opening follows the other command alone; of a command that rests, one that rests as well. The left
    one's polarity is that of both."""
    after, polarity = slice(-answer_rows(episode).start, None), left.claim.polarity or 1
    if any((polarity * _own(episode, motion)[after]).max() >= IGNORES for motion in (left, right)):
        return False
    crossed = ((left.command, right.opened), (right.command, left.opened))
    found = [float((polarity * answers(episode, *pair)[after]).max()) for pair in crossed]
    limit = RESTING * max(float(np.ptp(left.opened)), float(np.ptp(right.opened)))  # the opening at rest is noisy
    rest = [np.ptp(command) <= CONSTANT and np.ptp(opened) <= limit for command, opened in crossed]
    return max(found) > FOLLOWS and all(score > FOLLOWS or idle for score, idle in zip(found, rest, strict=True))


def uncommanded(claim: GripperClaim, command: Floats, opened: Floats, wait: int) -> int | None:
    """Row by which an opening has gone MOVES of all it can, away from the end at which its command rests throughout,
    or back from there after it had gone that way; None where it does not, or the scale of either is not known."""
    scale, open_end = OPEN_COMMAND.get(claim.action_scale or ""), claim.polarity
    if scale is None or open_end is None or claim.full is None or len(command) <= wait:
        return None
    wanted = (float(command.mean()) - scale[0]) / (scale[1] - scale[0])
    wanted = wanted if open_end == 1 else 1 - wanted
    if AT_END < wanted < 1 - AT_END:
        return None
    way = opened if wanted > 0.5 else -opened  # it grows towards the end, and is to stay there
    back = np.maximum.accumulate(way) - way
    row = int(back.argmax())
    return row if back[row] > MOVES * claim.full else None


def standing(episode: EpisodeInput, claim: GripperClaim, command: Floats, opened: Floats) -> tuple[int, int] | None:
    """(first, last) of a stretch without any change of the opening, in which it was commanded to open further, or to
    close while it was open: nothing that it holds explains that."""
    steps = np.diff(opened) == 0
    longest, last = longest_run(steps)
    wait = max(2, round(STANDING_SECONDS * episode.hz))
    first, last = last + 1 - longest, last + 1
    reach, span = float(np.ptp(opened)), float(np.ptp(command))
    if longest <= wait:
        return None
    if claim.polarity is None:  # one of both ways would have moved it
        ways = {direction for row, direction in switches(command) if first <= row <= last - wait // 2}
        return (first, last) if reach <= CONSTANT and len(ways) == len(BOTH_WAYS) else None
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
