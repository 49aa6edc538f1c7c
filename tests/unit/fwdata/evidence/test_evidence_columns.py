"""Columns that changed places or direction, stand still, jump by a turn, or hold one value far from all others."""

from __future__ import annotations

import numpy as np
import pytest
from evidence_episodes import HZ, changed, clean_set, pooled, smooth_motion, told, two_arms, with_claims

from fwdata.evidence.claims import GripperClaim
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement
from fwdata.evidence.registry import find_detector


def plain(episode: EpisodeInput, named: bool = False) -> EpisodeInput:
    """The episode of a mapping of one's own, with names for its columns or numbers alone."""
    names = episode.state_names if named else tuple(f"state_{i}" for i in range(8))
    actions = names if named else tuple(f"action_{i}" for i in range(8))
    bare = with_claims(episode, layout=None, action=None, grippers=(), arms=(), pairs=None)
    return changed(bare, state_names=names, action_names=actions)


@pytest.mark.parametrize("named", [True, False])
def test_columns_against_their_own_or_exchanged_are_found_without_names(named: bool) -> None:
    exchanged = []
    for seed in range(8):
        episode = plain(two_arms(seed, images=False), named)
        assert [v.verdict for v in told("column_names", episode).values()] in ([], ["confirmed"])
        against, crossed = episode.action.copy(), episode.action[:, [0, 1, 5, 3, 4, 2, 6, 7]]
        against[:, 1] *= -1
        found = told("column_names", changed(episode, action=against))[""]
        assert (found.verdict, found.measured) == ("contradicted", "in the opposite direction")
        exchanged += told("column_names", changed(episode, action=crossed)).values()
    wrong = [verdict for verdict in exchanged if verdict.verdict == "contradicted"]  # others move too much alike
    assert len(wrong) >= 4
    assert {verdict.measured for verdict in wrong} == {"by a column of another name"}
    assert all(" of " in verdict.detail for verdict in wrong)
    shuffled = changed(episode, action=np.random.default_rng(0).permuted(episode.action, axis=1))
    assert not told("column_names", plain(shuffled))  # positions pair nothing then


def test_an_action_that_is_the_state_of_the_same_row_warns() -> None:
    episodes = [changed(plain(e), action=e.state) for e in clean_set()[:4]]
    verdict = pooled("action_meaning", episodes)[""]
    assert (verdict.verdict, verdict.action) == ("contradicted", "warn")
    assert verdict.measured == "exactly the state of the same row"


@pytest.mark.parametrize(("kind", "first"), [("state", 60), ("action", 50)])
def test_a_stream_that_stands_still_while_the_other_moves_is_found(kind: str, first: int) -> None:
    for episode in clean_set():
        assert told("unwritten_rows", episode)[""].verdict == "confirmed"
        rows = getattr(episode, kind).copy()
        rows[first:] = rows[first]
        found = told("unwritten_rows", changed(episode, **{kind: rows}))[""]
        assert (found.verdict, found.action) == ("contradicted", "warn")
        assert found.measured == f"{'an' if kind == 'action' else 'a'} {kind} that stands still while the other moves"
        assert f"rows {first} to 119" in found.detail
    both = clean_set()[0]
    state, action = both.state.copy(), both.action.copy()
    state[60:], action[60:] = state[60], action[60]
    assert told("unwritten_rows", changed(both, state=state, action=action))[""].verdict == "confirmed"


def test_a_robot_that_rests_and_answers_a_quick_command_late_is_recorded() -> None:
    episode = clean_set()[0]
    targets = np.repeat(episode.action[:1], 120, axis=0)
    targets[90:] += np.minimum(np.arange(30), 3)[:, None] / 3 * np.float32(0.8)
    late = changed(episode, state=np.concatenate([targets[:1].repeat(6, axis=0), targets[:-6]]), action=targets)
    assert told("unwritten_rows", late)[""].verdict == "confirmed"
    targets[20:90] += 0.4
    stuck = changed(late, state=np.concatenate([late.state[:1].repeat(96, axis=0), late.state[96:]]), action=targets)
    assert told("unwritten_rows", stuck)[""].verdict == "contradicted"


def test_an_arm_without_commands_that_travels_is_found() -> None:
    """Of changes, beside a gripper that is commanded; commands that go on, or an arm that stays, are as they should."""
    episode = clean_set()[0]
    episode = with_claims(episode, action="delta", arms=(), grippers=(GripperClaim("gripper", 3, (3,)),))
    action = np.zeros_like(episode.action)
    action[60:, 3] = 1
    silent = changed(episode, action=action)
    found = told("unwritten_rows", silent)[""]
    assert (found.verdict, found.action) == ("contradicted", "warn")
    assert found.measured == "an action of the arm that never changes"
    moved, still = action.copy(), episode.state.copy()
    moved[:, 0] = np.linspace(-1, 1, len(moved))
    still[:, :] = still[0]
    for same in (changed(silent, action=moved), changed(silent, state=still)):
        assert told("unwritten_rows", same)[""].verdict == "confirmed"


def test_a_value_far_from_all_others_is_found_in_the_middle_of_an_episode() -> None:
    episode = clean_set()[0]
    for kind, column in (("state", 1), ("action", 4)):
        rows = getattr(episode, kind).copy()
        rows[40, column] = 99
        found = told("unwritten_rows", changed(episode, **{kind: rows}))[""]
        assert (found.verdict, found.action, found.measured) == (
            "contradicted",
            "warn",
            "one value that no other comes near",
        )
        assert f"{kind} " in found.detail and "is 99 in row 40" in found.detail
    for row, column, value in ((0, 1, 99.0), (40, 3, 1.0)):  # a start-up, a gripper that is shut for a row
        action = episode.action.copy()
        action[:, 3] = 0
        action[row, column] = value
        assert told("unwritten_rows", changed(episode, action=action))[""].verdict == "confirmed"


def test_an_arm_that_stands_still_beside_a_gripper_that_moves_is_found() -> None:
    for episode in clean_set():
        assert told("unwritten_rows", episode)[""].verdict == "confirmed"
    episode = clean_set()[0]
    state = episode.state.copy()
    arm = list(episode.claims.arms[0].state)
    state[40:, arm] = state[40, arm]
    found = told("unwritten_rows", changed(episode, state=state))[""]
    assert (found.verdict, found.action) == ("contradicted", "warn")
    assert "a state of the left arm that stands still" in found.measured and "rows 40 to 119" in found.detail


@pytest.mark.parametrize(("turn", "scale"), [(2 * np.pi, 1.0), (360.0, 180 / np.pi)])
def test_a_column_that_jumps_by_a_full_turn_is_found(turn: float, scale: float) -> None:
    for episode in clean_set():
        own = changed(plain(episode), state=episode.state * np.float32(scale))
        assert not told("wrapped_angles", own)
        state = own.state.copy()
        state[40:80, 2] -= turn
        found = told("wrapped_angles", changed(own, state=state))["columns"]
        assert (found.verdict, found.action, found.n) == ("contradicted", "warn", 2)
    whole = changed(own, state=np.round(own.state * 10) * 6)
    assert not told("wrapped_angles", whole)


@pytest.mark.parametrize("named", [True, False])
def test_columns_that_have_nothing_to_do_with_each_other_tell_nothing(named: bool) -> None:
    def told_of(kind: str, seed: int) -> set[str]:
        rng, rows = np.random.default_rng(seed), 40 + seed
        seconds = np.arange(rows)[:, None] / HZ
        state, action = (np.sin(rng.uniform(0.8, 3.0, 8) * seconds + rng.uniform(0, 6.28, 8)) for _ in range(2))
        if kind == "ramps":
            state, action = (np.linspace(0, 1, rows)[:, None] * rng.uniform(-1, 1, 8) for _ in range(2))
        episode = changed(two_arms(0, images=False), state=state, action=action, timestamp_s=seconds[:, 0])
        verdicts = told("column_names", plain(episode, named)).values()
        if kind == "waves":
            verdicts = [*verdicts, *told("state_delay", plain(episode, named)).values()]
        return {verdict.detector for verdict in verdicts if verdict.verdict == "contradicted"}

    assert [told_of(kind, seed) for kind in ("waves", "ramps") for seed in range(20)] == [set()] * 40


def test_changes_in_some_episodes_beside_targets_in_others_warn() -> None:
    def verdict_of(changes: int) -> DatasetVerdict:
        episodes = [plain(two_arms(seed, images=False, delay=1)) for seed in range(6)]
        planted = [changed(e, action=np.gradient(e.action, axis=0)) for e in episodes[:changes]]
        return pooled("action_meaning", [*planted, *episodes[changes:]])[""]

    assert [verdict_of(changes).verdict for changes in (0, 6)] == ["no evidence"] * 2
    for count in (1, 2):
        found = verdict_of(count)
        assert (found.verdict, found.action, found.measured) == ("mixed", "warn", "changes (delta)")
        assert (found.episodes, found.episodes_for) == (("episode_0", "episode_1")[:count], 6 - count)
        assert found.decided == f"absolute targets, as in the other {6 - count}"


def test_changes_in_some_episodes_warn_where_the_motion_is_smooth_and_verdicts_were_kept() -> None:
    episodes = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        at, coarse = np.linspace(0, 59, 120), smooth_motion(60, 8, rng)
        targets = np.stack([np.interp(at, range(60), column) for column in coarse.T], axis=1)
        state = np.concatenate([targets[:1], targets[:-1]])
        action = np.gradient(targets, axis=0) if seed < 2 else targets
        noise = rng.normal(0, 1e-3, action.shape)
        episodes.append(plain(changed(two_arms(seed, images=False), state=state, action=action + noise)))
    kept = [EpisodeMeasurement.from_json(measure(episode).to_json()) for episode in episodes]
    for found in (pooled("action_meaning", episodes)[""], find_detector("action_meaning").pool(kept)[0]):
        assert (found.verdict, found.action, found.measured) == ("mixed", "warn", "changes (delta)")
        assert (found.against, found.episodes) == (2, ("episode_0", "episode_1"))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", ["state", "action"])
def test_a_column_that_stands_still_while_its_other_half_moves_is_found(kind: str, named: bool) -> None:
    clean = [plain(two_arms(seed, images=False), named) for seed in range(8)]
    assert not pooled("still_columns", clean)[""].against

    def held(episode: EpisodeInput, column: int = 1) -> EpisodeInput:
        rows = getattr(episode, kind).copy()
        rows[:, column] = rows[0, column]
        return changed(episode, **{kind: rows})

    odd = [held(e) if n in (2, 5) else e for n, e in enumerate(clean)]
    found = pooled("still_columns", odd)[""]
    assert (found.action, found.against) == ("warn", 2)
    assert found.detail.startswith(f"{kind} {getattr(clean[0], f'{kind}_names')[1]} is ")
    assert " in every row, " in found.detail and found.detail.endswith(" far")
    assert pooled("still_columns", [held(e) for e in clean])[""].action == "note"  # so the robot is
    resting = [held(e) for e in clean]
    for number, episode in enumerate(resting):
        other = episode.state.copy() if kind == "action" else episode.action.copy()
        other[:, 1] = other[0, 1]
        resting[number] = changed(episode, **{"state" if kind == "action" else "action": other})
    assert not any(v.against for v in pooled("still_columns", resting).values())


def test_an_open_gripper_that_wanders_beside_its_resting_command_is_no_still_column() -> None:
    episode = two_arms(0, images=False)
    state, action = episode.state.copy(), episode.action.copy()
    state[:, 3], action[:, 3] = 98 + np.random.default_rng(0).random(len(state)), 100
    assert told("still_columns", changed(episode, state=state, action=action))[""].verdict == "confirmed"
