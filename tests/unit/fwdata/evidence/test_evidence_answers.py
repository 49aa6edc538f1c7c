"""Grippers that do not answer their own command, and images under rows of others; planted faults and clean twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evidence_episodes import changed, clean_set, delayed, pooled, scene, told, two_arms, with_claims

from fwdata.evidence.claims import UnitClaim
from fwdata.evidence.episode import EpisodeInput

LEFT, RIGHT = 3, 7
"""Columns of the grippers, in state and action."""


def with_columns(episode: EpisodeInput, **columns: dict[int, np.ndarray]) -> EpisodeInput:
    """The episode with other columns of `state` or `action`."""
    found = {"state": episode.state.copy(), "action": episode.action.copy()}
    for kind, own in columns.items():
        for column, values in own.items():
            found[kind][:, column] = values
    return changed(episode, **found)


def test_grippers_that_answer_are_never_called_otherwise() -> None:
    found = [told("gripper_answers", two_arms(seed, images=False)) for seed in range(60)]
    assert {v.verdict for verdicts in found for v in verdicts.values()} <= {"confirmed", "no evidence"}
    assert sum(v.verdict == "confirmed" for verdicts in found for v in verdicts.values()) > 100


def test_grippers_whose_openings_are_exchanged_are_found() -> None:
    wrong = 0
    for seed in range(20):
        episode, rng = two_arms(seed, images=False), np.random.default_rng(seed)
        rows = np.arange(120)
        commands = [((rows > start) & (rows < start + 35)).astype(float) for start in rng.choice(80, 2, replace=False)]
        opened = [delayed(command, 3) for command in commands]
        numbers = {
            "action": dict(zip((LEFT, RIGHT), commands, strict=True)),
            "state": dict(zip((LEFT, RIGHT), opened, strict=True)),
        }
        episode = with_columns(episode, **numbers)
        assert {v.verdict for v in told("gripper_answers", episode).values()} == {"confirmed"}
        turned = with_columns(episode, state={LEFT: episode.state[:, RIGHT], RIGHT: episode.state[:, LEFT]})
        verdict = told("gripper_answers", turned).get("left_gripper and right_gripper")
        if verdict is not None:
            wrong += (verdict.verdict, verdict.action) == ("contradicted", "stop")
        polarity = told("gripper_polarity", turned).values()
        assert not any(v.verdict == "contradicted" and abs(v.value or 0) < 0.5 for v in polarity)
    assert wrong >= 8  # where both switch alike, each follows the other's command as well as its own


def test_a_gripper_of_the_other_arm_that_answers_alone_is_found() -> None:
    episode = two_arms(2, images=False)
    noise = np.random.default_rng(0).normal(0, 1e-3, 120)
    still = {"state": {LEFT: noise, RIGHT: episode.state[:, LEFT]}, "action": {RIGHT: np.zeros(120)}}
    found = told("gripper_answers", with_columns(episode, **still))
    assert found["left_gripper and right_gripper"].verdict == "contradicted"


def test_an_opening_before_its_command_is_found() -> None:
    episode = two_arms(1, images=False)
    late = with_columns(episode, action={LEFT: delayed(episode.action[:, LEFT], 9)})
    verdict = told("gripper_answers", late)["left_gripper"]
    assert verdict.verdict == "contradicted" and "before its command" in verdict.measured
    behind = with_columns(episode, state={LEFT: delayed(episode.state[:, LEFT], 5)})
    assert told("gripper_answers", behind)["left_gripper"].verdict != "contradicted"


@pytest.mark.parametrize("from_row", [0, 30, 60])
def test_an_opening_that_stands_still_while_it_is_commanded_is_found(from_row: int) -> None:
    episode = two_arms(4, rows=160, images=False)
    values = episode.state[:, LEFT].copy()
    values[from_row:] = values[from_row]
    verdict = told("gripper_answers", with_columns(episode, state={LEFT: values}))["left_gripper"]
    assert verdict.verdict == "contradicted" and "stands still" in verdict.measured


@pytest.mark.parametrize(("still", "told_so"), [(True, True), (False, False)])
def test_an_opening_that_never_moves_is_found_where_nothing_tells_which_way_is_open(still: bool, told_so: bool) -> None:
    """A set that names its grippers alone: commanded both ways, one of them would have moved it."""
    episode = two_arms(4, rows=160, images=False)
    grippers = tuple(replace(claim, polarity=None) for claim in episode.claims.grippers)
    values = np.full(160, 0.7) if still else episode.state[:, LEFT]
    episode = with_claims(with_columns(episode, state={LEFT: values}), grippers=grippers)
    verdict = told("gripper_answers", episode)["left_gripper"]
    assert (verdict.verdict == "contradicted") == told_so
    once = np.where(np.arange(160) < 60, 1.0, 0.0)  # it may hold a thing, whichever way this is
    verdict = told("gripper_answers", with_columns(episode, action={LEFT: once}))["left_gripper"]
    assert verdict.verdict != "contradicted"


@pytest.mark.parametrize("at", [1.0, 0.0])
def test_an_opening_that_moves_while_its_command_rests_is_found(at: float) -> None:
    episode = two_arms(4, rows=160, images=False)
    grippers = tuple(replace(claim, full=1.0) for claim in episode.claims.grippers)
    episode = with_claims(episode, grippers=grippers)
    rests = {"action": {LEFT: np.full(160, at)}}
    moves = told("gripper_answers", with_columns(episode, **rests))["left_gripper"]
    assert moves.verdict == "contradicted" and "without a command" in moves.measured
    opening = np.linspace(1 - at, at, 160) + np.random.default_rng(0).normal(0, 0.02, 160)
    goes = told("gripper_answers", with_columns(episode, state={LEFT: opening}, **rests))["left_gripper"]
    assert goes.verdict == "no evidence"  # as it is commanded


def test_a_command_that_is_noisy_at_rest_is_none() -> None:
    episode = two_arms(4, rows=160, images=False)
    noise = 1 + np.random.default_rng(0).normal(0, 4e-3, 160)
    resting = with_columns(episode, state={LEFT: np.ones(160)}, action={LEFT: noise})
    assert told("gripper_answers", resting)["left_gripper"].verdict == "no evidence"


def test_a_gripper_that_holds_a_thing_or_is_not_commanded_stands_still_rightly() -> None:
    episode = two_arms(4, rows=160, images=False)
    command = np.where(np.arange(160) < 40, 1.0, 0.0)
    opened = np.where(np.arange(160) < 44, 1.0, 0.4)  # closes on a thing of 0.4, and stays
    held = with_columns(episode, action={LEFT: command}, state={LEFT: opened})
    assert told("gripper_answers", held)["left_gripper"].verdict != "contradicted"
    rests = with_columns(episode, action={LEFT: np.ones(160)}, state={LEFT: np.ones(160)})
    assert told("gripper_answers", rests)["left_gripper"].verdict == "no evidence"


def test_a_switch_at_the_end_of_an_episode_is_not_answered_by_the_one_before() -> None:
    episode = two_arms(4, rows=60, images=False)
    command = np.where((np.arange(60) > 46) & (np.arange(60) < 56), 1.0, 0.0)
    opened = delayed(np.convolve(np.pad(command, (7, 0), mode="edge"), np.ones(8) / 8, "valid"), 2)
    short = with_columns(episode, action={LEFT: command}, state={LEFT: opened})
    assert told("gripper_polarity", short)["left_gripper"].verdict != "contradicted"


def test_images_of_neighbouring_rows_that_are_exchanged_are_found() -> None:
    found = 0
    for seed, episode in enumerate(clean_set()):
        assert {v.verdict for v in told("image_order", episode).values()} == {"confirmed"}
        images, rng = episode.thumbnails["head"].copy(), np.random.default_rng(seed)
        for row in rng.choice(np.arange(4, 116, 4), 8, replace=False):
            images[[row, row + 1]] = images[[row + 1, row]]
        shown = changed(episode, thumbnails={**episode.thumbnails, "head": images})
        verdict = told("image_order", shown)["head"]
        found += verdict.verdict == "contradicted" and "first in rows" in verdict.detail
    assert found >= 7


def test_images_that_come_and_go_by_themselves_are_not_called_exchanged() -> None:
    episode = clean_set()[0]
    rows = np.arange(120)
    flicker = np.clip(episode.thumbnails["head"] * np.where(rows % 2, 0.8, 1.0)[:, None, None], 0, 255)
    counted = np.zeros((120, 32, 32), np.uint8)  # the number of the row in bits, as test images have it
    for bit in range(7):
        counted[:, :16, 4 * bit : 4 * bit + 4] = (255 * (rows >> bit & 1))[:, None, None]
    for images in (flicker.astype(np.uint8), counted):
        shown = changed(episode, thumbnails={"head": images})
        assert told("image_order", shown)["head"].verdict != "contradicted"


def test_coarse_steps_and_a_trembling_hand_are_not_called_exchanged() -> None:
    clean = clean_set()[0]
    short = named = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        steps = np.cumsum(rng.normal(0, 9, (9, 2)), axis=0)  # at 2 images a second: farther than the texture is alike
        few = changed(clean, state=clean.state[:9], action=clean.action[:9], timestamp_s=clean.timestamp_s[:9])
        verdict = told("image_order", changed(few, thumbnails={"head": scene(steps, seed)}))["head"]
        short += verdict.verdict == "contradicted"
        way = np.cumsum(np.full((120, 2), 0.8), axis=0) + rng.normal(0, 0.35, (120, 2))
        shown = changed(clean, thumbnails={"head": scene(way, seed)})
        named += told("image_order", shown)["head"].verdict == "contradicted"
    assert (short, named) == (0, 0), (short, named)
    stripes = np.sin((np.arange(64) - np.cumsum(np.tile([2.0, 3, 6, 7, 7, 6, 3, 2, 1, 1], 12))[:, None]) * np.pi / 7)
    passing = np.repeat((120 + 60 * stripes).astype(np.uint8)[:, None], 32, axis=1)
    assert told("image_order", changed(clean, thumbnails={"head": passing}))["head"].verdict != "contradicted"


def test_cameras_that_change_places_on_the_way_are_found() -> None:
    for row, episode in zip((20, 50, 90), clean_set(), strict=False):
        assert {v.verdict for v in told("cameras_change_places", episode).values()} == {"confirmed"}
        left, right = (episode.thumbnails[name].copy() for name in ("left", "right"))
        left[row:], right[row:] = episode.thumbnails["right"][row:], episode.thumbnails["left"][row:]
        for every in (1, 2):
            shown = {**episode.thumbnails, "left": left, "right": right}
            seen = changed(episode, thumbnails={n: kept[::every] for n, kept in shown.items()}, every=every)
            verdict = told("cameras_change_places", seen)[""]
            assert verdict.verdict == "contradicted" and f"left and right from row {row} on" in verdict.detail
    cut = changed(clean_set()[0], thumbnails={n: np.roll(i, 40, 0) for n, i in clean_set()[0].thumbnails.items()})
    assert told("cameras_change_places", cut)[""].verdict == "confirmed"


def test_targets_in_degrees_beside_a_state_in_rad_are_found() -> None:
    unit = UnitClaim("left arm", (0, 1, 2), "rad", 12.6)
    episode = with_claims(two_arms(1, images=False), units=(unit,))
    assert {v.verdict for v in told("state_unit", episode).values()} == {"confirmed"}
    action = episode.action.copy()
    action[:, :3] = np.degrees(action[:, :3])
    found = told("state_unit", changed(episode, action=action))
    assert (found["action left arm"].verdict, found["state left arm"].verdict) == ("contradicted", "confirmed")
    assert "action left arm" not in told("state_unit", with_claims(episode, action="delta"))


def test_targets_that_rest_for_half_an_episode_are_not_in_another_unit() -> None:
    for seed in range(8):
        episode = two_arms(seed, images=False)
        action = episode.action.copy()
        action[:80] = action[80]
        found = told("action_unit", changed(episode, action=action))[""]
        assert found.verdict != "contradicted"
        action = episode.action.copy()
        action[:, [0, 1, 2, 4, 5, 6]] = np.degrees(action[:, [0, 1, 2, 4, 5, 6]])
        assert told("action_unit", changed(episode, action=action))[""].verdict == "contradicted"


def test_a_state_before_its_action_in_the_episodes_of_one_arm_is_not_averaged_away() -> None:
    episodes = [two_arms(seed, images=False, delay=2) for seed in range(8)]
    late = [changed(each, action=delayed(each.action, 4)) for each in episodes[:3]]
    assert pooled("state_delay", [*late, *episodes[3:]])[""].verdict == "mixed"
    assert pooled("state_delay", [*late, *episodes[3:]])[""].action == "warn"
    assert pooled("state_delay", episodes)[""].action == "note"


@pytest.mark.parametrize(("rows", "verdict"), [(14, "contradicted"), (2, "confirmed")])
def test_a_column_in_step_does_not_hide_others_that_copy_the_command_late(rows: int, verdict: str) -> None:
    """A hand that moves as it can, beside joints whose recorded state is the command, exactly, of some rows before."""
    episodes = []
    for seed in range(4):
        episode, rng = two_arms(seed, delay=2, images=False), np.random.default_rng(seed)
        joint = episode.state[:, 2]
        state = delayed(episode.action, rows)
        state[:, 2] = joint + rng.normal(size=len(joint)) * 0.03 * joint.std()
        episodes.append(changed(episode, state=state.astype(np.float32)))
    found = pooled("state_delay", episodes)[""]
    assert found.verdict == verdict
    assert rows < 14 or (found.action == "stop" and found.value == pytest.approx(rows / episodes[0].hz, abs=0.05))
