"""Changes beside targets where motion fits both, told by the size of the actions."""

from __future__ import annotations

import numpy as np
import pytest
from evidence_episodes import changed, clean_set, pooled, with_claims

from fwdata.evidence.action_size import two_sizes
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import DatasetVerdict

JOINTS = (0, 1, 2, 4, 5, 6)


def short(episode: EpisodeInput, *, changes: bool = False) -> EpisodeInput:
    """One smooth way of 24 rows, which fits targets and changes, without a layout."""
    rows = np.linspace(0, 1, 24)
    way = rows**3 * (10 - 15 * rows + 6 * rows**2)
    state, action = episode.state[:24].copy(), episode.action[:24].copy()
    for place, column in enumerate(JOINTS):
        state[:, column] = 0.5 + 0.1 * place + 0.4 * way
    action[:, JOINTS] = state[:, JOINTS]
    action[:-1, JOINTS] = state[1:, JOINTS] + 0.002
    if changes:
        action[:-1, JOINTS], action[-1, JOINTS] = np.diff(state[:, JOINTS], axis=0), 0
    times = episode.timestamp_s[:24]
    whole = changed(episode, state=state, action=action, timestamp_s=times, thumbnails={})
    return with_claims(whole, action=None, layout=None, grippers=(), arms=())


def verdict(changes: int, targets: int) -> DatasetVerdict:
    plain = clean_set()
    episodes = [short(e, changes=i < changes) for i, e in enumerate(plain[: changes + targets])]
    return pooled("action_meaning", episodes)[""]


@pytest.mark.parametrize(("changes", "targets"), [(1, 4), (1, 7), (4, 4), (6, 2)])
def test_episodes_of_changes_beside_targets_are_told_by_their_size(changes: int, targets: int) -> None:
    found = verdict(changes, targets)
    assert (found.verdict, found.action, found.against) == ("mixed", "warn", min(changes, targets))
    assert found.measured == ("changes (delta)" if changes <= targets else "absolute targets")
    assert "times as large as the state" in found.detail or "correlation as target" in found.detail


@pytest.mark.parametrize(("changes", "targets"), [(8, 0), (0, 8), (1, 3), (7, 1)])
def test_sets_of_one_kind_and_few_episodes_are_silent(changes: int, targets: int) -> None:
    assert verdict(changes, targets).verdict != "mixed"


def test_actions_of_other_sizes_tell_nothing() -> None:
    """Velocities are as large as the state in some episodes, and hardly anything in those that rest."""
    assert two_sizes([(f"e{i}", size) for i, size in enumerate((1.0, 0.9, 1.1, 1.0, 0.4, 0.05))]) is None
