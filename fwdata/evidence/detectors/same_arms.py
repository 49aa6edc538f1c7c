"""One arm's numbers under the names of both (b10)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.sides import is_left, opposite
from fwdata.evidence.signals import Floats, active_columns

FEWEST = 3
"""Columns of an arm that must move, all of them exactly as those of the other: fingers of a hand may be coupled."""

OWN = "two arms"


class SameArms(Detector):
    """b10: the left arm's columns are not exactly the right arm's, as where a writer stored one of them twice."""

    name, code, question, action = "same_arms", "b10", "left and right arm", "warn"
    advice = "record the episodes again with both arms, or leave them out (--exclude)"
    word = "expected"
    min_rows = 20

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """One verdict each for state and action, where several columns of two arms move."""
        kinds = (
            ("state", episode.state64, episode.state_names),
            ("action", episode.action64, episode.action_names),
        )
        return tuple(verdict for kind in kinds if (verdict := self._one(*kind)) is not None)

    def _one(self, kind: str, rows: Floats, names: Sequence[str]) -> Verdict | None:
        where = {name: column for column, name in enumerate(names)}
        pairs = [
            (column, where[other])
            for column, name in enumerate(names)
            if is_left(name) and (other := opposite(name)) in where
        ]
        moving = set(active_columns(rows).tolist())
        pairs = [pair for pair in pairs if moving & set(pair)]
        if len(pairs) < FEWEST:
            return None
        left, right = (rows[:, list(columns)] for columns in zip(*pairs, strict=True))
        same = bool(np.array_equal(left, right))
        return self.verdict(
            "contradicted" if same else "confirmed",
            f"{len(pairs)} columns, such as {names[pairs[0][0]]} and {names[pairs[0][1]]}" if same else "",
            subject=kind,
            value=float(len(pairs)) if same else 0.0,
            n=len(rows),
            decided=OWN,
            measured="the same numbers for both" if same else OWN,
        )


DETECTORS = (SameArms(),)
