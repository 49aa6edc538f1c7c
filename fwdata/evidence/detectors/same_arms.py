"""One arm's numbers under the names of both (b10)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.columns import Mask
from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import Verdict
from fwdata.evidence.sides import is_left, opposite
from fwdata.evidence.signals import Floats
from fwdata.wording import counted

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
        width = episode.state.shape[1]
        kinds = (
            ("state", episode.columns.values[:width], episode.columns.active[:width], episode.state_names),
            ("action", episode.columns.values[width:], episode.columns.active[width:], episode.action_names),
        )
        return tuple(verdict for kind in kinds if (verdict := self._one(*kind)) is not None)

    def _one(self, kind: str, columns: Floats, active: Mask, names: tuple[str, ...]) -> Verdict | None:
        sides = _sides(names)
        pairs = sides[:, active[sides].any(axis=0)]
        if pairs.shape[1] < FEWEST:
            return None
        same = bool((columns[pairs[0]] == columns[pairs[1]]).all())
        return self.verdict(
            "contradicted" if same else "confirmed",
            f"{counted(pairs.shape[1], 'column')}, such as {names[pairs[0, 0]]} and {names[pairs[1, 0]]}"
            if same
            else "",
            subject=kind,
            value=float(pairs.shape[1]) if same else 0.0,
            n=columns.shape[1],
            decided=OWN,
            measured="the same numbers for both" if same else OWN,
        )


@lru_cache(maxsize=8)
def _sides(names: tuple[str, ...]) -> NDArray[np.int64]:
    """int64 [2, n], columns of the left arm, and those of the same names of the right one."""
    where = {name: column for column, name in enumerate(names)}
    left = [(column, opposite(name)) for column, name in enumerate(names) if is_left(name)]
    pairs = [(column, where[other]) for column, other in left if other in where]
    return np.array(pairs, np.int64).reshape(-1, 2).T


DETECTORS = (SameArms(),)
