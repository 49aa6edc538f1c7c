"""How large the actions of an episode are beside its state: targets are as large, changes many times smaller (b1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fwdata.evidence.detectors.scales import switching
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.signals import CONSTANT

AS_TARGETS, AS_CHANGES = 1.25, 1 / 8
"""Within what ratio targets are as large as the state, and below what share of it changes are."""

MOST, EACH = 4, 2
"""Episodes of targets beside which one of changes is told, and of changes beside which two of targets are."""

type Size = tuple[str, float]
"""(episode id, size of its actions for that of its state)."""


def size_beside_state(episode: EpisodeInput) -> float:
    """Root mean square of the paired action columns for that of their state columns, without those that switch; 0
    where there are none."""
    width, switched = episode.state.shape[1], switching(episode)
    grippers = {claim.action for claim in episode.claims.grippers}
    free = [(a, s) for a, s in episode.pairs if not switched[a + width] and not switched[s] and a not in grippers]
    if not free:
        return 0.0
    actions, states = np.array(free).T
    squares = (episode.columns.values**2).mean(axis=1)
    action, state = (float(np.sqrt(squares[columns].mean())) for columns in (actions + width, states))
    return action / state if state > CONSTANT else 0.0


def two_sizes(found: Sequence[Size]) -> tuple[list[Size], list[Size]] | None:
    """(episodes of changes, episodes of targets) where all are one or the other by their size; None: they are not, or
    too few are targets to tell."""
    targets = [each for each in found if 1 / AS_TARGETS <= each[1] <= AS_TARGETS]
    changes = [each for each in found if each[1] <= AS_CHANGES]
    few = len(targets) < MOST and (len(targets) < EACH or len(changes) < MOST)
    return None if few or not changes or len(targets) + len(changes) < len(found) else (changes, targets)
