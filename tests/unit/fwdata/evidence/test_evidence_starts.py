"""Recordings that begin in one start pose: reversed and cut ones beside clean ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from evidence_episodes import backwards, begun, changed, driven, with_claims
from evidence_episodes import pooled as pooled_by

from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure, pool
from fwdata.evidence.records import DatasetVerdict


def pooled(episodes: Sequence[EpisodeInput]) -> dict[str, DatasetVerdict]:
    """The pooled verdict of the detector by subject; its traces are those of duplicates."""
    return {v.subject: v for v in pool([measure(episode) for episode in episodes]) if v.detector == "start_pose"}


def cut(episode: EpisodeInput) -> EpisodeInput:
    return changed(episode, state=episode.state[90:], action=episode.action[90:], timestamp_s=episode.timestamp_s[90:])


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("wobble", [0.0, 0.1])
def test_recordings_from_one_start_pose_are_confirmed(count: int, wobble: float) -> None:
    verdict = pooled([begun(seed, wobble) for seed in range(count)])[""]
    assert (verdict.verdict, verdict.episodes_for, verdict.against) == ("confirmed", count, 0)


@pytest.mark.parametrize(("count", "action"), [(2, "warn"), (3, "stop"), (8, "stop")])
@pytest.mark.parametrize("every", [True, False])
def test_recordings_in_reverse_are_found(count: int, action: str, every: bool) -> None:
    episodes = [begun(seed) for seed in range(count)]
    verdict = pooled([backwards(e) if every or e is episodes[-1] else e for e in episodes])[""]
    assert (verdict.verdict, verdict.action) == ("contradicted", action)
    assert "reverse order" in verdict.detail
    assert verdict.episodes == tuple(e.id for e in (episodes if every else episodes[-1:]))


def test_a_recording_that_lacks_its_start_is_reported() -> None:
    verdict = pooled([*(begun(seed) for seed in range(3)), cut(begun(3))])[""]
    assert (verdict.verdict, verdict.action, verdict.episodes) == ("contradicted", "warn", ("episode_3",))
    assert "rows are missing at their start" in verdict.detail


def test_nothing_is_said_of_one_recording_or_of_other_layouts() -> None:
    assert pooled([backwards(begun(0))])[""].verdict == "no evidence"
    others = [with_claims(backwards(begun(seed)), one_start=False) for seed in range(3)]
    assert pooled(others) == {}


@pytest.mark.parametrize("every", [2, 3])
def test_recordings_with_every_second_row_left_out_are_found_by_their_top_speed(every: int) -> None:
    clean = [driven(seed) for seed in range(12)]
    assert pooled_by("step_size", clean)[""].verdict == "confirmed"
    found = pooled_by("step_size", [driven(seed, every if seed in (3, 7) else 1) for seed in range(12)])[""]
    assert (found.action, found.against) == ("warn", 2)
    assert sorted(found.episodes) == ["episode_3", "episode_7"] and " times as large in episode_" in found.detail


def test_speeds_of_real_robots_and_of_few_recordings_tell_nothing() -> None:
    real = [with_claims(driven(seed, 1 + (seed == 3)), simulated=False) for seed in range(12)]
    uneven = [changed(driven(seed), state=driven(seed).state * (1 + seed / 12)) for seed in range(12)]
    few = [driven(seed, 1 + (seed == 3)) for seed in range(6)]
    half = [driven(seed, 1 + seed % 2) for seed in range(12)]
    for episodes in (real, uneven, few, half):
        assert not pooled_by("step_size", episodes)
