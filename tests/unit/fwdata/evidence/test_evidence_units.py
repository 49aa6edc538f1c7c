"""One unit for every column: groups of episodes in rad and degrees, m and mm, of two openings, and clean twins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from evidence_episodes import changed, clean_set, pooled, smooth_motion, told, two_arms, with_claims

from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import DatasetVerdict

GRIPPERS, JOINTS = (3, 7), (0, 1, 2, 4, 5, 6)
DEGREES = 180 / np.pi
POSE = ("x", "y", "z", "roll", "pitch", "yaw", "speed", "gripper")


def times(episode: EpisodeInput, columns: Sequence[int], factor: float, **changes: object) -> EpisodeInput:
    """Columns of state and action in another unit, and no claims."""
    state, action = episode.state.copy(), episode.action.copy()
    state[:, columns] *= factor
    action[:, columns] *= factor
    return with_claims(changed(episode, state=state, action=action, **changes), grippers=(), layout=None, arms=())


def verdict(episodes: Sequence[EpisodeInput], subject: str = "") -> DatasetVerdict | None:
    """What the detector says of the columns, or of the grippers."""
    return pooled("column_units", episodes).get(subject)


@pytest.mark.parametrize("others", [(1, 3), (3, 3), (7, 1)])
@pytest.mark.parametrize(("factor", "units"), [(DEGREES, "degrees and rad"), (1000, "mm and m"), (1 / DEGREES, "rad")])
def test_two_units_stop_and_name_both_groups(others: tuple[int, int], factor: float, units: str) -> None:
    kept, odd = others
    episodes = [*clean_set()[:kept], *(times(two_arms(20 + i), JOINTS, factor) for i in range(odd))]
    if factor < 1:
        episodes = [times(e, JOINTS, 60) for e in episodes]
    found = verdict(episodes)
    assert found is not None and (found.verdict, found.action, found.against) == ("contradicted", "stop", min(others))
    assert units in found.measured and "in 6 of 6 columns" in found.measured
    assert all(name in found.detail for name in (episodes[0].id, episodes[-1].id))


@pytest.mark.parametrize("column", [(0, 1, 2), (3, 4, 5)])
def test_only_positions_or_only_angles_in_another_unit(column: tuple[int, ...]) -> None:
    factor = 1000 if column[0] == 0 else DEGREES
    named = [times(e, (), 1, state_names=POSE, action_names=POSE) for e in clean_set()]
    named = [changed(e, state=e.state[:, [*JOINTS, 3, 7]]) for e in named]
    found = verdict([*named[:4], *(times(e, column, factor) for e in named[4:])])
    assert found is not None and (found.verdict, found.action) == ("contradicted", "stop")
    clean = verdict(named)
    assert clean is not None and clean.verdict == "confirmed"


@pytest.mark.parametrize(("columns", "factor", "action"), [
    ((0, 1, 2), 1000, "stop"), ((1, 2, 3), 1000, "stop"), ((0, 1), 1000, None), ((0, 2, 4), 1000, None),
    ((0, 1, 2), DEGREES, None), ((0, 1, 2), 1, None),
])  # fmt: skip
def test_the_position_of_a_pose_without_names(columns: tuple[int, ...], factor: float, action: str | None) -> None:
    names = tuple(f"state_{i}" for i in range(7))
    poses = [changed(e, state=e.state[:, [*JOINTS, 3]], action=e.action[:, [*JOINTS, 3]]) for e in clean_set()]
    poses = [changed(e, state_names=names, action_names=names) for e in poses]
    found = verdict([*(times(e, (), 1) for e in poses[:4]), *(times(e, columns, factor) for e in poses[4:])])
    assert found is not None and (found.action if found.verdict == "contradicted" else None) == action
    if action:
        assert "mm and m differ" in found.measured and "in 3 of 6 columns" in found.measured


@pytest.mark.parametrize(("opening", "outcome"), [(0.6, "warn"), (1.7, "warn"), (0.9, None)])
def test_grippers_of_two_openings_warn(opening: float, outcome: str | None) -> None:
    found = verdict([*clean_set()[:4], *(times(e, GRIPPERS, opening) for e in clean_set()[4:])], "grippers")
    assert (found and found.action) == outcome
    if found is not None:
        assert "left_gripper opens to" in found.detail and "episode_4" in found.detail


def held(episode: EpisodeInput) -> EpisodeInput:
    """Grippers, 1 closed, that cannot close on what they hold."""
    state = episode.state.copy()
    state[:, GRIPPERS] *= 0.6
    return changed(episode, state=state)


def test_clean_episodes_agree() -> None:
    """Things held, arms at rest of either hand, and recordings in which hardly anything moves."""
    assert verdict([*clean_set()[:4], *map(held, clean_set()[4:])], "grippers") is None
    assert verdict(clean_set()[:1]) is None

    def rest(episode: EpisodeInput, arm: slice) -> EpisodeInput:
        drift = 1e-3 * smooth_motion(len(episode.state), 3, np.random.default_rng(1))
        state, action = episode.state.copy(), episode.action.copy()
        state[:, arm], action[:, arm] = drift, drift
        return changed(episode, state=state, action=action)

    one_arm = [rest(e, slice(4 * (i % 2), 4 * (i % 2) + 3)) for i, e in enumerate(clean_set())]
    found = verdict(one_arm)
    assert found is not None and found.verdict == "confirmed"
    still = [*clean_set()[:4], *(rest(rest(e, slice(0, 3)), slice(4, 7)) for e in clean_set()[4:])]
    found = verdict(still)
    assert found is not None and (found.verdict, found.action) == ("contradicted", "warn")
    assert "differ" not in found.measured, "a robot that hardly moves tells no unit"


def from_row(episode: EpisodeInput, row: int, columns: Sequence[int], factor: float, what: str) -> EpisodeInput:
    """Columns of state, action or both in another unit from a row on."""
    state, action = episode.state.copy(), episode.action.copy()
    for kind, rows in (("state", state), ("action", action)):
        if what in (kind, "both"):
            rows[row:, columns] *= factor
    return changed(episode, state=state, action=action)


@pytest.mark.parametrize("what", ["state", "action", "both"])
@pytest.mark.parametrize("factor", [DEGREES, 1 / DEGREES, 100, 1000])
def test_another_unit_from_a_row_on_is_found(what: str, factor: float) -> None:
    for episode in clean_set():
        assert told("unit_within", episode)[""].verdict == "confirmed"
        found = told("unit_within", from_row(episode, 71, JOINTS, factor, what))[""]
        assert (found.verdict, found.action) == ("contradicted", "warn")
        assert "columns of the" in found.detail and "row 71" in found.detail


@pytest.mark.parametrize("what", ["state", "action", "both"])
@pytest.mark.parametrize(("row", "factor"), [(31, 100), (75, 255), (75, 0.01)])
def test_a_gripper_whose_scale_changes_is_found(what: str, row: int, factor: float) -> None:
    for seed in range(6):
        grip = (np.arange(120) // 24 % 2 == 0).astype(np.float32)
        state, action = two_arms(seed).state.copy(), two_arms(seed).action.copy()
        action[:, 3], state[:, 3] = grip, np.convolve(np.pad(grip, (3, 0), mode="edge"), np.ones(4) / 4, "valid")
        episode = changed(two_arms(seed), state=state, action=action)
        assert told("unit_within", episode)[""].verdict == "confirmed"
        found = told("unit_within", from_row(episode, row, (3,), factor, what))[""]
        assert found.verdict == "contradicted" and "left_gripper" in found.detail


def test_grippers_that_hold_flicker_or_are_obeyed_at_once_are_of_one_scale() -> None:
    episode = two_arms(0)
    for state, action in (
        (np.where(np.arange(120) < 60, np.arange(120) % 2, 100.0), np.where(np.arange(120) < 60, 0.0, 100.0)),
        (np.where(np.arange(120) < 60, 1.0, 100.0), np.where(np.arange(120) < 60, 1.0, 100.0)),
    ):
        rows = episode.state.copy(), episode.action.copy()
        rows[0][:, 3], rows[1][:, 3] = state, action
        found = told("unit_within", changed(episode, state=rows[0], action=rows[1]))[""]
        assert found.verdict == "confirmed", found.detail


def test_a_gripper_that_is_infinite_in_a_row_is_no_other_unit() -> None:
    episode = two_arms(0)
    state = episode.state.copy()
    state[40, 3] = np.inf
    with np.errstate(invalid="ignore"):
        assert told("unit_within", changed(episode, state=state))[""].verdict == "confirmed"
