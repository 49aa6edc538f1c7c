"""Rounded values, repeated rows, exchanged columns: planted beside their clean twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from evidence_episodes import NAMES, begun, changed, clean_set, pooled, told, two_arms

from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement
from fwdata.evidence.registry import find_detector
from fwdata.evidence.sides import is_left, opposite

ALL = slice(None)
LEFT = slice(0, 3)


def rounded(episode: EpisodeInput, step: float, columns: slice = ALL) -> EpisodeInput:
    state = episode.state.copy()
    state[:, columns] = np.round(state[:, columns] / step) * step
    return changed(episode, state=state)


def test_a_rounded_episode_among_fine_ones_is_found_with_its_values() -> None:
    assert pooled("coarse_values", clean_set())[""].verdict == "confirmed"
    for step in (0.1, np.pi / 180):
        planted = [*clean_set()[:5], rounded(clean_set()[5], step), *clean_set()[6:]]
        found = pooled("coarse_values", planted)[""]
        assert (found.action, found.episodes) == ("warn", ("episode_5",))
        assert found.measured == "steps far wider than in the other episodes"
        assert "values over a range of" in found.detail and "in the others)" in found.detail


def test_a_rounded_arm_and_a_rounded_set_are_found_without_other_episodes() -> None:
    alone = pooled("coarse_values", [rounded(two_arms(1, images=False), 0.02, LEFT)])[""]
    assert alone.measured == "steps far wider than those of the other arm"
    names = tuple(f"joint_{i}" for i in range(8))
    whole = [replace(e, state_names=names, action_names=names) for e in clean_set()[:3]]
    assert pooled("coarse_values", whole)[""].verdict == "confirmed"
    every = pooled("coarse_values", [rounded(e, 0.05) for e in whole])[""]
    assert (every.measured, every.against) == ("hardly any distinct values", 3)
    degrees = [changed(e, state=np.round(e.state * 180)) for e in whole]
    assert pooled("coarse_values", degrees)[""].measured in ("whole numbers alone", "hardly any distinct values")


def test_grippers_encoders_and_resting_arms_are_not_coarse() -> None:
    binary = []
    for episode in clean_set():
        state = episode.state.copy()
        state[:, (3, 7)] = np.round(state[:, (3, 7)])
        state[:, ALL] = np.where(np.arange(8) % 4 == 3, state, np.round(state * 4096 / 6.28) * 6.28 / 4096)
        binary.append(changed(episode, state=state))
    assert pooled("coarse_values", binary)[""].verdict == "confirmed"
    ticks = [changed(e, state=np.round(e.state * 2000)) for e in clean_set()]
    assert pooled("coarse_values", ticks)[""].verdict == "confirmed"
    still = clean_set()[2].state.copy()
    still[:, LEFT] = still[:1, LEFT]
    still[60:, 0] += 0.2
    resting = [*clean_set()[:2], changed(clean_set()[2], state=still), *clean_set()[3:]]
    assert pooled("coarse_values", resting)[""].verdict == "confirmed"
    assert NAMES[3] == "left_gripper"


def test_commands_of_a_coarse_device_are_as_in_every_episode() -> None:
    stepped = [changed(e, action=np.round(e.action * 20) / 20) for e in clean_set()]
    assert pooled("coarse_values", stepped)[""].verdict == "confirmed"


def repeated(episode: EpisodeInput, first: int, rows: int, at: int) -> EpisodeInput:
    """With `rows` rows from `first` on again at row `at`."""
    order = np.insert(np.arange(len(episode.state)), at, np.arange(first, first + rows))
    return changed(
        episode, state=episode.state[order], action=episode.action[order], timestamp_s=np.arange(len(order)) / 20
    )


def test_rows_that_are_there_twice_are_found_with_their_place() -> None:
    for episode in clean_set():
        assert told("repeated_rows", episode)[""].verdict == "confirmed"
    found = told("repeated_rows", repeated(clean_set()[0], 0, 20, 20))[""]
    assert (found.verdict, found.action, found.value) == ("contradicted", "warn", 20)
    assert found.detail == "rows 20 to 39 are rows 0 to 19 again"
    later = told("repeated_rows", repeated(clean_set()[1], 30, 12, 90))[""]
    assert later.detail == "rows 90 to 101 are rows 30 to 41 again"
    whole = told("repeated_rows", repeated(clean_set()[2], 0, 120, 120))[""]
    assert whole.detail == "rows 120 to 239 are rows 0 to 119 again"


def test_a_robot_that_waits_or_is_read_twice_as_often_repeats_nothing() -> None:
    episode = clean_set()[0]
    for order in (np.repeat(np.arange(120), 2), np.concatenate([np.full(40, 0), np.arange(120), np.full(60, 119)])):
        waits = changed(episode, state=episode.state[order], action=episode.action[order])
        assert told("repeated_rows", waits)[""].verdict == "confirmed"
    blinks = np.tile(episode.state[:2], (60, 1))
    assert told("repeated_rows", changed(episode, state=blinks, action=blinks))[""].verdict == "confirmed"


def mixed(exchanged: int | None, rows: tuple[str, ...] = ("state", "action")) -> list[EpisodeInput]:
    """Episodes of one start pose; in one of them two columns of the state, the action or both have changed places."""
    order = [0, 1, 2, 3, 5, 4, 6, 7]
    found = [begun(seed, 0.02, home=True) for seed in range(10)]
    if exchanged is not None:
        episode = found[exchanged]
        found[exchanged] = changed(episode, **{key: getattr(episode, key)[:, order] for key in rows})
    return found


def both(name: str, episodes: list[EpisodeInput]) -> DatasetVerdict | None:
    """The pooled verdict of a detector whose traces are those of others."""
    traced = [find_detector(other) for other in ("duplicate_episodes", "column_units")]
    measured = [EpisodeMeasurement(e.id, e.group, (), tuple(t for d in traced for t in d.trace(e))) for e in episodes]
    return next(iter(find_detector(name).pool(measured)), None)


def test_columns_that_changed_places_in_one_episode_are_named() -> None:
    clean = both("exchanged_columns", mixed(None))
    assert clean is not None and clean.verdict == "confirmed"
    for rows in (("state", "action"), ("state",), ("action",)):
        found = both("exchanged_columns", mixed(3, rows))
        assert found is not None and (found.action, found.episodes) == ("warn", ("episode_3",)), rows
        assert found.detail == f"episode_3: {rows[0]} right_joint_1 and {rows[0]} right_joint_2"
    assert both("exchanged_columns", mixed(3)[:7]) is None


def test_the_other_arm_at_work_and_another_start_are_no_exchange() -> None:
    episodes = [begun(seed, 0.02) for seed in range(10)]
    order = [*range(4, 8), *range(4)]
    for state in (episodes[2].state[:, order], episodes[2].state + 1.5):
        found = both("exchanged_columns", [*episodes[:2], changed(episodes[2], state=state), *episodes[3:]])
        assert found is not None and found.verdict == "confirmed"


def test_one_arm_under_both_names_is_found() -> None:
    for episode in clean_set():
        assert {v.verdict for v in told("same_arms", episode).values()} == {"confirmed"}
    both = [0, 1, 2, 3, 0, 1, 2, 3]
    found = told("same_arms", changed(clean_set()[0], state=clean_set()[0].state[:, both]))
    assert {kind: (v.verdict, v.action) for kind, v in found.items()} == {
        "state": ("contradicted", "warn"),
        "action": ("confirmed", "warn"),
    }
    assert found["state"].detail == "4 columns, such as left_joint_1 and right_joint_1"


def test_arms_that_rest_and_columns_without_sides_tell_nothing_of_both_arms() -> None:
    episode = clean_set()[0]
    still = np.repeat(episode.state[:1], len(episode.state), axis=0)
    assert "state" not in told("same_arms", changed(episode, state=still))
    names = tuple(f"joint_{i}" for i in range(8))
    assert told("same_arms", replace(episode, state_names=names, action_names=names)) == {}


def test_names_of_the_other_side_keep_their_case() -> None:
    assert [opposite(name) for name in ("left_joint", "kLeftElbow", "RIGHT_ARM", "waist")] == [
        "right_joint",
        "kRightElbow",
        "LEFT_ARM",
        "waist",
    ]
    assert [is_left(name) for name in ("kLeftElbow", "right", "left_to_right", "waist")] == [True, False, False, False]


def test_a_state_that_is_held_for_two_rows_each_is_found_in_some_episodes_and_all() -> None:
    def held(episode: EpisodeInput) -> EpisodeInput:
        return changed(episode, state=episode.state[np.arange(120) // 2 * 2])

    clean = clean_set()
    assert not pooled("held_rows", clean)[""].against
    found = pooled("held_rows", [held(e) if n in (2, 5) else e for n, e in enumerate(clean)])[""]
    assert (found.action, found.episodes) == ("warn", ("episode_2", "episode_5"))
    assert found.detail == "60 of 119 rows are the one before"
    all_of_them = pooled("held_rows", [held(e) for e in clean])[""]
    assert (all_of_them.action, all_of_them.against) == ("warn", len(clean))
    still = changed(clean[0], state=np.repeat(clean[0].state[:1], 120, axis=0))
    assert told("held_rows", still)[""].verdict == "confirmed"
