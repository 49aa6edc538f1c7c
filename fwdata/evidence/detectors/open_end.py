"""Which end of a gripper's scale is open: command and opening that are both turned round agree with each other (a9)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from fwdata.evidence.claims import GripperClaim
from fwdata.evidence.detector import Detector
from fwdata.evidence.detectors.gripper import opening
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.signals import Floats, correlation

AT_END, SHORT = 0.1, 0.15
"""How near the end of its scale a command is at it, and how far off a gripper at rest is stopped short of it; as shares
of the scale."""

REST_SECONDS, STILL = 0.3, 0.02
"""How long a gripper rests that is stopped, and how far it moves meanwhile at most."""

FOLLOWS = 0.3
"""Least correlation of command and opening, in size, of a gripper whose rests mean something."""

LARGER, SMALLER = "the larger value is open", "the smaller value is open"

ENDS = {"unit": (0.0, 1.0), "percent": (0.0, 100.0), "signed": (-1.0, 1.0)}
"""Scale -> what a command of it reads at both ends."""


class OpenEnd(Detector):
    """a9: a gripper that closes on a thing stops short of its end, and does not where it opens; RoboTwin's begin open.

    Warns only where a gripper begins at the end called closed as well: one that is opened half reads like it.
    """

    name, code, question, action = "gripper_open_end", "a9", "open end of the gripper", "warn"
    advice = (
        "look at the films of `fwdata report`: where the gripper is open while it reads 0, turn commands and openings "
        "round in the recordings"
    )

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per gripper whose direction was decided and whose scales are known."""
        return tuple(
            self._one(episode, claim)
            for claim in episode.claims.grippers
            if claim.polarity is not None
            and claim.action is not None
            and claim.state
            and claim.full is not None
            and claim.action_scale in ENDS
        )

    def _one(self, episode: EpisodeInput, claim: GripperClaim) -> Verdict:
        assert claim.action is not None and claim.full is not None and claim.polarity is not None
        low, high = ENDS[claim.action_scale or "unit"]
        command = (episode.action64[:, claim.action] - low) / (high - low)
        command = command if claim.polarity == 1 else 1 - command
        opened = opening(episode, claim) / claim.full
        begins = _end_of(command[0])
        stopped = stops(command, opened, episode.hz)
        known = f"begins {begins or 'between both ends'}"
        if stopped:
            known += f", is stopped {stopped[1]:.2f} of its scale off the end that is called {stopped[0]}"
        elif not episode.claims.one_start:
            return self._unknown(claim, f"{known}, nothing stops it short of an end")
        if (stopped and stopped[0] == "closed") or (not stopped and begins == "open"):
            return self._told(claim, LARGER, known, len(command))
        if begins == "closed":
            return self._told(claim, SMALLER, known, len(command))
        return self._unknown(claim, known)

    def _told(self, claim: GripperClaim, measured: str, detail: str, rows: int) -> Verdict:
        right = measured == LARGER
        return self.verdict(
            "confirmed" if right else "contradicted",
            detail,
            subject=claim.name,
            n=rows,
            decided=LARGER,
            measured=measured,
        )

    def _unknown(self, claim: GripperClaim, detail: str) -> Verdict:
        return self.abstain(detail, subject=claim.name, decided=LARGER)


type End = Literal["open", "closed"]


def _end_of(share: float) -> End | None:
    """The end that a share of the scale is at."""
    return "open" if share >= 1 - 2 * AT_END else "closed" if share <= 2 * AT_END else None


def stops(command: Floats, opened: Floats, hz: float) -> tuple[End, float] | None:
    """(the end that a gripper is stopped short of, how far) of shares [T] of the scale, 1 open: of the end that it is
    further off, where its command is at that end and it rests; None where it goes to both, or does not move."""
    if _reach(opened) < SHORT or _reach(command) < SHORT or abs(correlation(command, opened)) < FOLLOWS:
        return None
    rows = max(2, round(REST_SECONDS * hz))
    held = [_held(at_end, rows) for at_end in (command <= AT_END, command >= 1 - AT_END)]
    if len(opened) < rows or not (held[0].any() and held[1].any()):
        return None
    rests = _rests(opened, rows)
    closed, opens = (shown[each & rests] for shown, each in zip((opened, 1 - opened), held, strict=True))
    if not (len(closed) and len(opens)):
        return None
    off = {"closed": float(closed.min()), "open": float(opens.min())}
    if min(off.values()) >= SHORT:
        return None
    end: End = "closed" if off["closed"] > off["open"] else "open"
    return (end, off[end]) if off[end] >= SHORT else None


def _reach(values: Floats) -> float:
    return float(values.max() - values.min())


def _held(flags: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    """bool [T], rows that end a run of so many at least in which a flag is set."""
    places = np.arange(len(flags))
    found: NDArray[np.bool_] = places - np.maximum.accumulate(np.where(flags, -1, places)) >= rows
    return found


def _rests(opened: Floats, rows: int) -> NDArray[np.bool_]:
    """bool [T], rows that end so many, at most T, in which a gripper stands still."""
    found, step = np.zeros(len(opened), np.bool_), opened.strides[0]
    windows = as_strided(opened, (len(opened) - rows + 1, rows), (step, step))
    found[rows - 1 :] = windows.max(axis=1) - windows.min(axis=1) <= STILL
    return found


DETECTORS = (OpenEnd(),)
