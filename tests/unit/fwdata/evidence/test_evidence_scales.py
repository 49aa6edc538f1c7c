"""One scale for all episodes, columns under their own names, rows that were written: planted faults and clean twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from evidence_episodes import changed, clean_set, libero_rows, pooled, told, two_arms, with_claims

from fwdata.evidence.claims import GripperScale
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import pool
from fwdata.evidence.records import EpisodeMeasurement
from fwdata.evidence.registry import find_detector

GRIPPERS, JOINTS = (3, 7), (0, 1, 2, 4, 5, 6)


def scaled(episode: EpisodeInput, columns: tuple[int, ...], factor: float) -> EpisodeInput:
    """Columns of state and action in another unit."""
    state, action = episode.state.copy(), episode.action.copy()
    state[:, columns] *= factor
    action[:, columns] *= factor
    return changed(episode, state=state, action=action)


def unnamed(episode: EpisodeInput) -> EpisodeInput:
    """The same columns without names that tell anything, and without claims."""
    names = tuple(f"state_{i}" for i in range(8))
    return with_claims(changed(episode, state_names=names, action_names=names), grippers=(), layout=None, arms=())


@pytest.mark.parametrize("columns", [GRIPPERS, JOINTS], ids=["grippers", "joints"])
@pytest.mark.parametrize("same_set", [True, False])
def test_episodes_in_two_units_do_not_share_a_store_silently(columns: tuple[int, ...], same_set: bool) -> None:
    factor = 100 if columns == GRIPPERS else 180 / np.pi
    other = {} if same_set else {"group": "other"}
    mixed = [*clean_set()[:5], *(changed(scaled(e, columns, factor), **other) for e in clean_set()[5:])]
    found = [v for v in pooled("one_scale", mixed).values() if v.verdict == "contradicted"]
    assert {v.subject for v in found} == (
        {"state"} if columns == JOINTS else {f"{k} {s}_gripper" for k in ("state", "action") for s in ("left", "right")}
    )
    assert all(
        (v.action == "stop" and v.against == 3 and v.episodes == ("episode_5", "episode_6", "episode_7"))
        or v.against == 3
        for v in found
    )
    assert all(0.5 * factor < (v.value or 0) < 2 * factor for v in found)
    plain = pooled("one_scale", [unnamed(e) for e in mixed])
    assert {v.action for v in plain.values() if v.verdict == "contradicted"} == {"warn"}


def test_grippers_that_hardly_move_are_of_the_scale_that_was_decided() -> None:
    """Always open ones of 0 .. 100 beside always closed ones, and a recording of 0 .. 1 among them."""

    def percent(episode: EpisodeInput, opening: float, scale: GripperScale = "percent") -> EpisodeInput:
        state = episode.state.copy()
        state[:, list(GRIPPERS)] = opening + 0.1 * episode.state[:, [0]]
        claims = tuple(replace(claim, state_scale=scale) for claim in episode.claims.grippers)
        return with_claims(changed(episode, state=state), grippers=claims)

    episodes = [percent(e, opening) for e, opening in zip(clean_set(), (100, 2, 2, 100, 50, 2, 100, 100), strict=True)]
    assert {v.verdict for v in pooled("one_scale", episodes).values()} == {"confirmed"}
    mixed = [*episodes[:5], *(percent(e, 0.9, "unit") for e in clean_set()[5:])]
    (found,) = (v for v in pooled("one_scale", mixed).values() if v.verdict == "contradicted")
    assert (found.subject, found.value, found.against, found.action) == ("grippers", 100, 3, "stop")


def test_one_gripper_episode_on_the_other_scale_is_enough_where_names_say_gripper() -> None:
    alone = [*clean_set()[:7], scaled(clean_set()[7], GRIPPERS, 100)]
    found = {v.subject for v in pooled("one_scale", alone).values() if v.verdict == "contradicted"}
    assert found == {f"{k} {s}_gripper" for k in ("state", "action") for s in ("left", "right")}
    near = [*clean_set()[:7], scaled(clean_set()[7], GRIPPERS, 90)]
    assert all(v.verdict == "confirmed" for v in pooled("one_scale", [unnamed(e) for e in near]).values())


@pytest.mark.parametrize("full", [100, 255])
def test_one_episode_that_goes_to_another_full_scale_is_enough_without_names(full: float) -> None:
    alone = [unnamed(e) for e in (*clean_set()[:7], scaled(clean_set()[7], GRIPPERS, full))]
    found = [v for v in pooled("one_scale", alone).values() if v.verdict == "contradicted"]
    assert {v.episodes for v in found} == {("episode_7",)}
    assert {v.subject for v in found} >= {"action state_3", "action state_7"}


def switched(episode: EpisodeInput, low: float, high: float, *, rests: bool = False) -> EpisodeInput:
    """The left gripper's command goes from one value to the other and back; rests: by way of a third one."""
    action = episode.action.copy()
    third = len(action) // 3
    action[:, 3] = high
    action[third : 2 * third, 3] = low
    if rests:
        action[: third // 2, 3] = action[-(third // 2) :, 3] = (low + high) / 2
    return changed(episode, action=action)


@pytest.mark.parametrize(
    ("ends", "others", "measured"),
    [
        ((-1, 1), (0, 1), "-1 to 1 in {} of 8 episodes, 0 to 1 in the others"),
        ((-1, 0), (0, 1), "-1 to 0 in {} of 8 episodes, 0 to 1 in the others"),
        ((0, 100), (-100, 100), "0 to 100 in {} of 8 episodes, -100 to 100 in the others"),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_grippers_counted_between_other_ends_in_some_episodes_warn(
    ends: tuple[float, float], others: tuple[float, float], measured: str, count: int
) -> None:
    mixed = [switched(e, *(ends if i < count else others)) for i, e in enumerate(clean_set())]
    found = pooled("one_scale", mixed)["action left_gripper"]
    assert (found.verdict, found.action, found.against) == ("contradicted", "warn", count)
    assert found.measured == measured.format(count)
    assert found.episodes == tuple(f"episode_{i}" for i in range(count))
    plain = pooled("one_scale", [unnamed(e) for e in mixed])
    assert ("action state_3" in plain) == (count > 1)


def test_commands_between_the_same_ends_or_of_three_values_are_of_one_scale() -> None:
    """A hand that is opened half-way in some episodes, and a base that goes forwards and backwards, or one way only."""
    half = [switched(e, 0, 0.5 if i < 3 else 1) for i, e in enumerate(clean_set())]
    three = [switched(e, -1 if i < 3 else 0, 1, rests=i < 3) for i, e in enumerate(clean_set())]
    for episodes in (half, three):
        assert all(v.verdict == "confirmed" for v in pooled("one_scale", episodes).values())


def test_episodes_beside_others_in_a_larger_unit_are_no_duplicates() -> None:
    millimetres = [changed(scaled(e, (*JOINTS, *GRIPPERS), 1000), group="other") for e in clean_set()[4:]]
    assert pooled("duplicate_episodes", [*clean_set()[:4], *millimetres])[""].verdict == "confirmed"


def test_clean_episodes_are_of_one_scale_also_when_little_moves() -> None:
    idle = two_arms(20, images=False)
    idle = changed(idle, state=np.repeat(idle.state[:1], 120, axis=0), action=np.repeat(idle.action[:1], 120, axis=0))
    held = scaled(two_arms(21, images=False), (3,), 0.45)  # closes on a thing
    verdicts = pooled("one_scale", [*clean_set(), idle, held])
    assert {(v.subject, v.verdict) for v in verdicts.values()} == {("state", "confirmed")}
    assert {v.verdict for v in pooled("one_scale", [libero_rows(), libero_rows()]).values()} == {"confirmed"}


def test_what_a_store_keeps_is_enough_to_compare_episodes() -> None:
    mixed = [*clean_set()[:5], *(scaled(e, GRIPPERS, 100) for e in clean_set()[5:])]
    detector = find_detector("one_scale")
    kept = [
        EpisodeMeasurement.from_json(EpisodeMeasurement(e.id, e.group, detector.measure(e)).to_json()) for e in mixed
    ]
    assert {v.action for v in pool(kept) if v.detector == "one_scale" and v.verdict == "contradicted"} == {"warn"}


def rolled(episode: EpisodeInput) -> EpisodeInput:
    """Names of the action one place on, values as they are."""
    names = episode.action_names
    return changed(episode, action_names=(names[-1], *names[:-1]))


def exchanged(episode: EpisodeInput) -> EpisodeInput:
    """The left arm's targets under the right arm's names."""
    return changed(episode, action=episode.action[:, [4, 5, 6, 7, 0, 1, 2, 3]])


@pytest.mark.parametrize("change", [rolled, exchanged])
def test_columns_under_other_names_contradict(change: Callable[[EpisodeInput], EpisodeInput]) -> None:
    good = pooled("column_names", list(clean_set()))[""]
    assert (good.verdict, good.episodes_for) == ("confirmed", 8)
    bad = pooled("column_names", [change(e) for e in clean_set()])[""]
    assert (bad.verdict, bad.action, bad.episodes_for) == ("contradicted", "stop", 0) and bad.against >= 5
    assert "left_joint_1 by" in bad.detail or "left_joint_2 by" in bad.detail
    plain = told("column_names", with_claims(change(clean_set()[0]), layout=None))[""]
    assert (plain.verdict, plain.action) == ("contradicted", "warn")


def test_exchanged_axes_are_not_taken_for_reversed_ones() -> None:
    """Where an arm goes back as it goes right, a command for the other axis also goes against its own."""
    episode = libero_rows()
    action, state = episode.action.copy(), episode.state.copy()
    for values in (action, state):
        values[:, 1] = -0.8 * values[:, 0] - 0.4 * values[:, 1]
    for columns, measured in (([1, 0], "another name"), ([0, 1], "opposite")):
        turned = action.copy()
        turned[:, :2] = action[:, columns] * (1 if measured == "another name" else -1)
        verdict = told("column_names", changed(episode, action=turned, state=state))[""]
        assert verdict.verdict == "contradicted" and measured in verdict.measured


def test_columns_in_another_order_with_their_names_agree() -> None:
    order = [7, 6, 5, 4, 3, 2, 1, 0]
    for episode in clean_set():
        names = tuple(episode.action_names[i] for i in order)
        assert told("column_names", changed(episode, action=episode.action[:, order], action_names=names))[
            ""
        ].verdict == ("confirmed")
    assert told("column_names", libero_rows())[""].verdict == "confirmed"
    apart = changed(rolled(clean_set()[0]), state_names=tuple(f"state_{i}" for i in range(8)))
    assert told("column_names", apart) == {}, "columns without common names promise nothing"
    ramps = np.linspace(0, 1, 120)[:, None] * np.linspace(1, 2, 8) + 0.01 * np.sin(np.arange(120))[:, None]
    alike = changed(rolled(clean_set()[0]), state=ramps, action=ramps**2)
    assert told("column_names", alike)[""].verdict != "contradicted", "columns that all move alike"
    idle = changed(clean_set()[0], action=np.zeros_like(clean_set()[0].action))
    assert told("column_names", idle)[""].verdict == "no evidence"


@pytest.mark.parametrize("place", [slice(110, None), slice(30, 35), slice(60, 63)])
def test_rows_that_were_never_written_contradict(place: slice) -> None:
    episode = clean_set()[0]
    assert told("unwritten_rows", episode)[""].verdict == "confirmed"
    state, action = episode.state.copy(), episode.action.copy()
    state[place], action[place] = 0, 0
    verdict = told("unwritten_rows", changed(episode, state=state, action=action))[""]
    assert (verdict.verdict, verdict.action, verdict.value) == ("contradicted", "stop", float(len(state[place])))
    assert told("unwritten_rows", changed(episode, action=action))[""].verdict == "confirmed", "no command is a command"
    begins = episode.state - episode.state[0]
    begins[:5] = 0
    begins[5:] -= begins[5]
    slow = np.where(np.arange(120)[:, None] < 5, 0, action)
    at_zero = changed(episode, state=begins, action=slow)
    assert told("unwritten_rows", at_zero)[""].verdict == "confirmed", "an arm that begins at zero"
    dead = told("unwritten_rows", changed(episode, state=np.ones_like(state)))[""]
    assert (dead.verdict, dead.action, dead.measured) == ("contradicted", "warn", "a state that never changes")
    arm = episode.state.copy()
    arm[:, :3] = 0.3
    stuck = told("unwritten_rows", changed(episode, state=arm))[""]
    assert (stuck.verdict, stuck.action, stuck.measured) == ("contradicted", "warn", "a left arm that never changes")
    unsent = told("unwritten_rows", changed(episode, action=np.zeros_like(action)))[""]
    assert (unsent.verdict, unsent.action, unsent.measured) == ("contradicted", "warn", "an action that never changes")
    idle = episode.action.copy()
    idle[:, :3] = 0.3
    assert told("unwritten_rows", changed(episode, state=arm, action=idle))[""].verdict == "confirmed"
    parked = told("unwritten_rows", changed(episode, action=idle))[""]
    assert (parked.verdict, parked.measured) == ("contradicted", "an action of the left arm that never changes")
    arm[:, :3] = 0.3 - 0.4 * np.exp(-np.arange(len(arm)) / 8)[:, None]
    assert told("unwritten_rows", changed(episode, state=arm, action=idle))[""].verdict == "confirmed", "it is reached"
    still = changed(episode, state=np.zeros_like(state), action=np.zeros_like(action))
    assert told("unwritten_rows", still) == {}


def commanded(change: Callable[[np.ndarray], None]) -> EpisodeInput:
    """A true LIBERO demonstration with other commands."""
    action = libero_rows().action.copy()
    change(action)
    return changed(libero_rows(), action=action)


@pytest.mark.parametrize("axes", [[0, 1, 2], [0], [2]])
def test_commands_of_the_other_sign_contradict(axes: list[int]) -> None:
    def flip(action: np.ndarray) -> None:
        action[:, axes] *= -1

    verdict = told("column_names", commanded(flip))[""]
    assert (verdict.verdict, verdict.measured, verdict.value) == (
        "contradicted",
        "in the opposite direction",
        len(axes),
    )
    assert verdict.action == "stop"


def test_commands_of_exchanged_axes_contradict() -> None:
    def exchange(action: np.ndarray) -> None:
        action[:, :3] = action[:, [1, 2, 0]]

    verdict = told("column_names", commanded(exchange))[""]
    assert (verdict.verdict, verdict.measured) == ("contradicted", "by a column of another name")


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "confirmed"), (0.05, "contradicted"), (20.0, "contradicted")])
def test_commands_in_metres_contradict(factor: float, outcome: str) -> None:
    def scale(action: np.ndarray) -> None:
        action[:, :6] *= factor

    episode = with_claims(commanded(scale), step=(0.004, 0.04))
    verdict = told("action_unit", episode)[""]
    assert (verdict.verdict, verdict.action) == (outcome, "stop")
    assert verdict.value == pytest.approx(0.0126 / factor, rel=0.1)
    assert told("action_unit", commanded(scale)) == {}, "no layout claims what a command moves"
