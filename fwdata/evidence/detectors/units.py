"""Units of state and targets, where a layout promises them and the size of the numbers shows another (a3)."""

from __future__ import annotations

import math

import numpy as np

from fwdata.evidence.claims import UnitClaim
from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict

OTHERS = {"m": ("cm or mm", 1000.0), "rad": ("degrees", 180 / math.pi)}
"""Unit -> what the same quantity is recorded in otherwise, with the largest number of those in the unit."""


class StateUnit(Detector):
    """a3: positions in m and angles in rad stay within what the layout's robot can reach."""

    name, code, question, action = "state_unit", "a3", "unit of the", "stop"
    advice = (
        "convert the columns to the layout's unit in the recordings, or name a manifest of another layout (--manifest)"
    )
    min_episodes, min_rows = 1, 1

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict per unit that the layout promises, of the state and of absolute targets of the same columns."""
        found = [self._one(episode, claim, "state", claim.columns) for claim in episode.claims.units]
        if episode.claims.action in ("absolute", "next_state"):
            first = episode.state.shape[1]
            for claim in episode.claims.units:
                targets = tuple(first + action for action, state in episode.pairs if state in claim.columns)
                found += [self._one(episode, claim, "action", targets)] if targets else []
        return tuple(found)

    def _one(self, episode: EpisodeInput, claim: UnitClaim, kind: str, which: tuple[int, ...]) -> Verdict:
        columns = episode.columns
        size = float(np.abs([columns.low[list(which)], columns.high[list(which)]]).max(initial=0))
        fits = size <= claim.limit
        other, most = OTHERS[claim.unit]
        likely = other if size <= claim.limit * most else "another unit"
        return self.verdict(
            "confirmed" if fits else "contradicted",
            f"values up to {size:.4g}, at most {claim.limit:g} {claim.unit} can be reached",
            subject=f"{kind} {claim.name}",
            value=size,
            n=len(episode.state),
            decided=claim.unit,
            measured=claim.unit if fits else f"{likely}, by their size",
            action="stop" if episode.claims.layout else "warn",
        )


DETECTORS = (StateUnit(),)
