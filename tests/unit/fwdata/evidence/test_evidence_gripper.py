"""Gripper polarity and scale: planted faults are found, clean twins stay silent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from evidence_episodes import changed, clean_set, grasping, libero_rows, one_motion, pooled, told, two_arms, with_claims

from fwdata.evidence.claims import Bound, GripperClaim
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure
from fwdata.evidence.records import DatasetVerdict
from fwdata.evidence.registry import find_detector
from fwdata.evidence.sentences import refusal


def inverted(episode):
    action = episode.action.copy()
    columns = [claim.action for claim in episode.claims.grippers]
    action[:, columns] = 1 - action[:, columns]
    return changed(episode, action=action)


@pytest.mark.parametrize("make", [lambda: two_arms(1, images=False), libero_rows])
def test_an_inverted_command_contradicts_and_a_true_one_agrees(make) -> None:
    episode = make()
    for subject, verdict in told("gripper_polarity", episode).items():
        assert verdict.verdict == "confirmed" and verdict.n > 0, subject
    for verdict in told("gripper_polarity", inverted(episode)).values():
        assert (verdict.verdict, verdict.value, verdict.action) == ("contradicted", -1.0, "stop")


def test_polarity_is_pooled_over_episodes() -> None:
    episodes = [two_arms(seed, images=False) for seed in range(4)]
    good = pooled("gripper_polarity", episodes)
    assert {v.verdict for v in good.values()} == {"confirmed"}
    bad = pooled("gripper_polarity", [inverted(e) for e in episodes])
    assert {(v.verdict, v.action) for v in bad.values()} == {("contradicted", "stop")}
    few = pooled("gripper_polarity", [inverted(e) for e in episodes[:2]])
    assert {(v.verdict, v.action) for v in few.values()} == {("contradicted", "warn")}
    half = pooled("gripper_polarity", [*episodes[:2], *(inverted(e) for e in episodes[2:])])
    assert {(v.verdict, v.action) for v in half.values()} == {("mixed", "stop")}
    why = refusal(list(half.values()), (), {"gripper_polarity": "--gripper closes"}) or ""
    assert (
        "agree with it: convert both kinds apart (--exclude, --only, as of episode_" in why
        and "--gripper closes" not in why
    )


def test_polarity_needs_a_switch_a_response_and_a_measured_opening() -> None:
    episode = two_arms(1, images=False)
    copy = changed(episode, state=episode.action)
    late = changed(episode, state=np.concatenate([episode.action[:1], episode.action[:-1]]))
    still = changed(episode, action=np.zeros_like(episode.action))
    for silent in (copy, late, still):
        assert {v.verdict for v in told("gripper_polarity", silent).values()} == {"no evidence"}
    undecided = with_claims(episode, grippers=tuple(replace(claim, polarity=None) for claim in episode.claims.grippers))
    for verdict in told("gripper_polarity", undecided).values():
        assert (verdict.verdict, verdict.measured) == ("no evidence", "larger command opens")


@pytest.mark.parametrize(("factor", "scale"), [(100.0, "0 .. 100"), (0.08, "a width in m")])
def test_a_gripper_on_another_scale_contradicts(factor: float, scale: str) -> None:
    episode = two_arms(2, images=False)
    assert {v.verdict for v in told("gripper_scale", episode).values()} == {"confirmed"}
    state = episode.state.copy()
    state[:, 3] *= factor
    verdict = told("gripper_scale", changed(episode, state=state))["left_gripper state"]
    assert (verdict.verdict, verdict.measured, verdict.action) == ("contradicted", scale, "stop")
    plain = with_claims(changed(episode, state=state), layout=None)
    assert told("gripper_scale", plain)["left_gripper state"].action == "warn"


def test_a_gripper_that_stays_closed_tells_no_scale() -> None:
    episode = two_arms(2, images=False)
    state = episode.state.copy()
    state[:, 3] = 0.01
    assert told("gripper_scale", changed(episode, state=state))["left_gripper state"].verdict == "no evidence"


def test_data_sets_of_two_scales_do_not_share_a_store_silently() -> None:
    claim = GripperClaim("left_gripper", 3, (3,))
    one = [with_claims(e, grippers=(claim,), layout=None) for e in clean_set()[:2]]
    other = [changed(e, action=e.action * 100, state=e.state * 100, group="other") for e in one]
    assert not [s for s in pooled("gripper_scale", one) if "across" in s]
    mixed = pooled("gripper_scale", [*one, *other])["left_gripper command across data sets"]
    assert mixed.verdict == "contradicted" and "set 0 .. 1" in mixed.measured and "other 0 .. 100" in mixed.measured


@pytest.mark.parametrize(("factor", "told_so"), [(100.0, True), (1.0, False), (0.08, False), (1.7, False)])
def test_a_command_on_another_of_both_scales_than_its_opening_is_found(factor: float, told_so: bool) -> None:
    """Of a gripper that nothing is decided of; a width in m beside a share, or an angle, is usual."""
    claim = GripperClaim("left_gripper", 3, (3,))
    plain = [with_claims(e, grippers=(claim,), layout=None) for e in clean_set()[:3]]
    for columns in ("state", "action"):
        scaled = [changed(e, **{columns: getattr(e, columns) * np.where(np.arange(8) == 3, factor, 1)}) for e in plain]
        found = pooled("gripper_scale", scaled).get("left_gripper command and state")
        assert (found is not None) == told_so
        if found is not None:
            assert (found.action, found.against) == ("warn", 3)
            assert ("state 0 .. 100" in found.measured) == (columns == "state")


def test_a_switch_beside_an_opening_in_mm_is_usual() -> None:
    claim, where = GripperClaim("left_gripper", 3, (3,)), np.arange(8) == 3
    plain = [with_claims(e, grippers=(claim,), layout=None) for e in clean_set()[:3]]
    for reach, share, told_so in ((85.0, 1.0, False), (100.0, 1.0, True), (85.0, 0.5, True)):
        scaled = []
        for episode in plain:
            action = np.where(where, np.maximum(episode.action, 1 - share), episode.action)
            action[::7, 3] *= share  # two values, or more
            scaled.append(changed(episode, action=action, state=episode.state * np.where(where, reach, 1)))
        assert ("left_gripper command and state" in pooled("gripper_scale", scaled)) == told_so, (reach, share)
        assert not [s for s in pooled("gripper_scale", scaled) if "across" in s]


@pytest.mark.parametrize("fingers", [(0.12, -0.12), (1.0, 0.0), (0.02, 0.02)])
def test_a_state_outside_the_domain_of_its_layout_contradicts(fingers: tuple[float, float]) -> None:
    bounds = (
        Bound("finger_1", (6,), -0.045, 0.045),
        Bound("finger_2", (7,), -0.045, 0.045),
        Bound("finger_1 + finger_2", (6, 7), -0.03, 0.03),
    )
    true = with_claims(libero_rows(), bounds=bounds)
    assert all(told("gripper_scale", true)[bound.name].verdict == "confirmed" for bound in bounds)
    state = true.state.copy()
    state[:, 6:] = fingers
    verdicts = told("gripper_scale", changed(true, state=state))
    assert any((verdicts[b.name].verdict, verdicts[b.name].action) == ("contradicted", "stop") for b in bounds)


def test_a_direction_that_nobody_decided_is_one_in_all_episodes() -> None:
    episodes = [
        with_claims(e, grippers=tuple(replace(claim, polarity=None) for claim in e.claims.grippers))
        for e in (two_arms(seed, images=False) for seed in range(6))
    ]
    for same in (episodes, [inverted(e) for e in episodes]):
        assert {(v.verdict, v.action) for v in pooled("gripper_polarity", same).values()} == {("no evidence", "note")}
    for count, outcome in ((1, "confirmed"), (3, "mixed")):
        planted = [*(inverted(e) for e in episodes[:count]), *episodes[count:]]
        for found in pooled("gripper_polarity", planted).values():
            assert (found.verdict, found.action, found.against) == (outcome, "warn", count)
        one = next(iter(pooled("gripper_polarity", planted).values()))
        assert one.decided.endswith(", as in most episodes") and one.decided[:20] != one.measured[:20]
        if count == 1:
            assert (one.measured, one.episodes) == ("larger command closes", ("episode_0",))


def sensed(episodes: Sequence[EpisodeInput]) -> dict[str, DatasetVerdict]:
    """What a8 says, whose traces are those of other detectors."""
    return {v.subject: v for v in find_detector("gripper_sense").pool([measure(e) for e in episodes])}


def test_grippers_of_a_part_that_count_the_other_way_round_are_found() -> None:
    """In command and opening alike, as in two sets that were merged: nothing within an episode tells it."""
    for reverse in ((1, 4, 6), (0, 1, 2), (4, 5, 6, 7)):
        found = sensed(one_motion(reverse=reverse))[""]
        assert (found.verdict, found.action, found.against) == ("mixed", "warn", len(reverse))
        assert found.episodes == tuple(f"episode_{number}" for number in reverse)
    few = sensed(one_motion(reverse=(1, 4)))[""]
    assert few.verdict == "confirmed"


def test_other_tasks_and_motions_are_no_reversed_grippers() -> None:
    for cycles in (("OCO",), ("OC", "CO"), ("OCO", "CO"), ("COC", "OCO")):  # each with a motion of its own
        assert sensed(one_motion(12, cycles=cycles))[""].verdict == "confirmed", cycles
    for count in (8, 9, 301):  # a task and its undoing, recorded in turns
        assert sensed(one_motion(count, range(1, count, 2)))[""].verdict == "confirmed", count
    assert sensed(one_motion(12, range(6, 12)))[""].verdict == "mixed"
    texts = [changed(e, instruction=f"put block {i % 2} away") for i, e in enumerate(one_motion(12, range(1, 12, 2)))]
    assert sensed(texts)[""].verdict == "confirmed"
    assert sensed([changed(e, instruction=str(e.id)) for e in one_motion()]) == {}
    arms = np.array([1, 1, 1, 1, 1, 1, 0], np.float32)
    assert sensed([changed(e, state=e.state * arms, action=e.action * arms) for e in one_motion()]) == {}, "no gripper"


def there_and_back(count: int, undo: Sequence[int] = (), reverse: Sequence[int] = (), stops: float = 0.0):
    """Episodes of `one_motion` whose arm goes to one place and back, where its gripper closes, or opens in those of
    `undo`. stops: about how far from its end a gripper stops at what it holds; the command does not."""
    found = []
    for number, episode in enumerate(one_motion(count, cycles=("OC",))):
        rng, rows = np.random.default_rng(number), len(episode.state)
        way = np.abs(np.linspace(-1, 1, rows) ** 2 - 1 + 0.05 * np.sin(np.linspace(0, 6, rows) + number))
        arm = np.outer(way, rng.uniform(0.9, 1.1, 6))
        at = int(rows * rng.uniform(0.45, 0.55))
        grip = (np.arange(rows) < at) == (number not in undo)
        opening = np.convolve(np.pad(grip * 1.0, (6, 0), mode="edge"), np.ones(7) / 7, "valid")
        held = stops * rng.uniform(0.7, 1.3)
        columns = [np.hstack([arm, v[:, None]]) for v in (held + (1 - held) * opening, grip * 1.0)]
        if number in reverse:
            columns = [np.hstack([arm, 1 - v[:, 6:]]) for v in columns]
        found.append(changed(episode, state=columns[0].astype(np.float32), action=columns[1].astype(np.float32)))
    return found


def test_a_task_and_its_undoing_in_blocks_are_named_as_what_they_may_be() -> None:
    later = range(6, 12)
    for plain in (there_and_back(12, undo=later), there_and_back(12, reverse=later)):  # the same numbers
        found = sensed(plain)[""]
        assert (found.action, found.against) == ("warn", 6)
        assert "or the task undone (picked, put back) under its own text" in found.measured
    other = sensed(one_motion(12, later))[""]  # opened, closed, opened: played backwards it is no other
    assert other.measured == "the reverse along the same way of the arm"


@pytest.mark.parametrize("scale", [1.0, 0.08, 100.0, -1.0])
def test_grippers_that_stop_at_what_they_hold_tell_a_task_undone(scale: float) -> None:
    """A closed gripper stops short of its end, in picking as in putting back: the same end is never reached."""
    later = range(6, 12)

    def scaled(episodes: Sequence[EpisodeInput]) -> dict[str, DatasetVerdict]:
        by = np.where(np.arange(7) == 6, 2 if scale < 0 else scale, 1).astype(np.float32)
        less = (np.arange(7) == 6).astype(np.float32) * (scale < 0)
        return sensed([changed(e, state=e.state * by - less, action=e.action * by - less) for e in episodes])

    assert scaled(there_and_back(12, undo=later, stops=0.25))[""].verdict == "confirmed"
    assert scaled(there_and_back(12, reverse=later, stops=0.25))[""].against == 6
    assert scaled(there_and_back(12, reverse=(1, 4, 6), stops=0.25))[""].against == 3


def test_grippers_that_are_turned_round_in_command_and_opening_are_found_by_what_they_hold() -> None:
    """Command and opening agree, which `gripper_polarity` confirms; a gripper that holds a thing is not closed."""
    for turned, verdict in ((False, "confirmed"), (True, "contradicted")):
        episodes = [grasping(seed, turned) for seed in range(4)]
        for found in pooled("gripper_open_end", episodes).values():
            assert (found.verdict, found.decided) == (verdict, "the larger value is open")
            assert found.action == ("warn" if turned else "note")
        assert {v.verdict for v in pooled("gripper_polarity", episodes).values()} == {"confirmed"}


def test_which_end_is_open_stays_unknown_where_nothing_shows_it() -> None:
    for turned in (False, True):  # closed on nothing
        for verdict in told("gripper_open_end", grasping(0, turned, held=0.0)).values():
            assert verdict.verdict == "no evidence" and "nothing stops it short of an end" in verdict.detail
    for verdict in told("gripper_open_end", grasping(0, held=0.0, one_start=True)).values():
        assert verdict.verdict == "confirmed" and verdict.detail == "begins open"
    for verdict in told("gripper_open_end", grasping(0, True, held=0.0, one_start=True)).values():
        assert verdict.verdict == "contradicted"
    begun_closed = changed(grasping(3), state=grasping(3).state[30:], action=grasping(3).action[30:])
    assert told("gripper_open_end", begun_closed)["left_gripper"].verdict == "confirmed"
    state, action = grasping(0).state.copy(), grasping(0).action.copy()
    state[:, 3], action[:, 3] = (1 - state[:, 3]) * 0.6, (1 - action[:, 3]) * 0.6  # begins closed, opened in part
    half = told("gripper_open_end", changed(grasping(0), state=state, action=action))["left_gripper"]
    assert half.verdict == "no evidence"
    assert told("gripper_open_end", two_arms(0, images=False)) == {}, "no scale is claimed"


def test_two_grippers_that_count_opposite_ways_warn() -> None:
    def one_turned(episode: EpisodeInput) -> EpisodeInput:
        action = episode.action.copy()
        action[:, 3] = 1 - action[:, 3]
        return changed(episode, action=action)

    free = [
        with_claims(e, grippers=tuple(replace(claim, polarity=None) for claim in e.claims.grippers))
        for e in (two_arms(seed, images=False) for seed in range(5))
    ]
    both = "left_gripper and right_gripper"
    assert both not in pooled("gripper_polarity", free)
    assert both not in pooled("gripper_polarity", [inverted(e) for e in free])
    assert both not in pooled("gripper_polarity", [*map(one_turned, free[:2]), *free[2:]])  # said of the two alone
    found = pooled("gripper_polarity", [one_turned(e) for e in free])[both]
    assert (found.verdict, found.action, found.against) == ("contradicted", "warn", 5)
    assert found.measured == "larger command closes in left_gripper, larger command opens in right_gripper"
