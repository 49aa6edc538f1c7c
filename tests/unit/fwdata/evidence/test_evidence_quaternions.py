"""Quaternions that are none, that change their sign, or whose numbers are in another order in some episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from evidence_episodes import changed, pooled, told, two_arms, with_claims
from numpy.typing import NDArray

from fwdata.evidence.detectors.quaternions import quaternions_of
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure, pool
from fwdata.evidence.records import DatasetVerdict

NAMES = ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper")


def turning(seed: int) -> EpisodeInput:
    """A pose of a plain mapping whose rotation turns about one axis."""
    episode = with_claims(two_arms(seed, images=False), layout=None, action=None, grippers=(), arms=(), pairs=None)
    angle = np.linspace(0.2 + 0.1 * seed, 2.0, len(episode.state))
    state = episode.state.copy()
    state[:, 3:7] = np.stack([np.sin(angle / 2), 0 * angle, 0 * angle, np.cos(angle / 2)], axis=1)
    return changed(episode, state=state, action=state, state_names=NAMES, action_names=NAMES)


def test_quaternions_that_are_none_warn_and_true_ones_agree() -> None:
    episodes = [turning(seed) for seed in range(6)]
    assert {v.verdict for v in pooled("quaternion_length", episodes).values()} == {"confirmed"}
    state = episodes[2].state.copy()
    state[40:, 3:7] = (0.4, 0.1, 0.0, 0.0)
    found = pooled("quaternion_length", [*episodes[:2], changed(episodes[2], state=state), *episodes[3:]])["state qx"]
    assert (found.action, found.against, found.episodes) == ("warn", 1, ("episode_2",))
    assert "80 of 120 rows, the first is 40: lengths 0.412 .. 1" in found.detail
    zeros = episodes[0].action.copy()
    zeros[:, 3:7] = 0
    assert told("quaternion_length", changed(episodes[0], action=zeros))["action qx"].verdict == "contradicted"


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (NAMES, (3, 4, 5, 6)),
        (("left_quat_w", "left_quat_x", "left_quat_y", "left_quat_z"), (1, 2, 3, 0)),
        (("eef.orientation.x", "eef.orientation.y", "eef.orientation.z", "eef.orientation.w"), (0, 1, 2, 3)),
        (("x", "y", "z", "w"), None),  # a width
        (("rot_x", "rot_y", "rot_z", "gripper"), None),
        (("vel_qx", "vel_qy", "vel_qz", "vel_qw"), None),
    ],
)
def test_which_names_are_a_quaternion(names: tuple[str, ...], columns: tuple[int, ...] | None) -> None:
    assert [each for _, each in quaternions_of(names)] == ([] if columns is None else [columns])


def test_a_sign_that_changes_on_the_way_warns_with_its_row() -> None:
    episodes = [turning(seed) for seed in range(6)]
    state = episodes[2].state.copy()
    state[40:, 3:7] *= -1
    found = pooled("quaternion_length", [*episodes[:2], changed(episodes[2], state=state), *episodes[3:]])["state qx"]
    assert (found.action, found.against, found.episodes) == ("warn", 1, ("episode_2",))
    assert "sign" in found.measured and found.detail == "before 1 of 120 rows, the first is 40"


def pose(seed: int, start: tuple[float, float, float, float], names: tuple[str, ...] = NAMES) -> EpisodeInput:
    """A pose that begins near a rotation and turns a little about changing axes."""
    episode = turning(seed)
    rng = np.random.default_rng(seed)
    small = np.cumsum(rng.normal(0, 0.01, (len(episode.state), 4)), axis=0)
    turned = np.asarray(start) / np.linalg.norm(start) + small
    state = episode.state.copy()
    state[:, 3:7] = turned / np.linalg.norm(turned, axis=1, keepdims=True)
    return changed(episode, state=state, action=state, state_names=names, action_names=names)


def compared(name: str, episodes: Sequence[EpisodeInput]) -> dict[str, DatasetVerdict]:
    """Verdicts of a detector that compares all episodes, by subject."""
    found = pool([measure(replace(episode, id=f"episode_{n}")) for n, episode in enumerate(episodes)])
    return {verdict.subject: verdict for verdict in found if verdict.detector == name}


DOWN = (1.0, 0.02, 0.0, 0.03)


def with_rotation(episode: EpisodeInput, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> EpisodeInput:
    """The episode with other numbers of its rotation, in state and action."""
    state = episode.state.copy()
    state[:, 3:7] = change(state[:, 3:7])
    return changed(episode, state=state, action=state)


@pytest.mark.parametrize("names", [NAMES, tuple(f"state_{i}" for i in range(8))])
@pytest.mark.parametrize("odd", [(5,), (2, 5, 8), (1, 3, 5, 7, 9)])
def test_quaternions_with_w_first_in_some_episodes_warn_named_or_not(
    names: tuple[str, ...], odd: Sequence[int]
) -> None:
    clean = [pose(seed, DOWN, names) for seed in range(10)]
    assert {v.verdict for v in compared("quaternion_order", clean).values()} == {"confirmed"}
    moved = [with_rotation(e, lambda q: np.roll(q, 1, axis=1)) if n in odd else e for n, e in enumerate(clean)]
    found = compared("quaternion_order", moved)
    assert set(found) == {f"state {names[3]}", f"action {names[3]}"}
    for verdict in found.values():
        assert (verdict.action, verdict.episodes) == ("warn", tuple(f"episode_{n}" for n in odd))
        assert "w, x, y, z beside x, y, z, w" in verdict.measured
    assert not [v for v in compared("exchanged_columns", moved).values() if v.against]  # said once
    signs = [with_rotation(e, np.negative) if n in odd else e for n, e in enumerate(clean)]
    for verdict in compared("quaternion_order", signs).values():
        assert (verdict.action, verdict.episodes) == ("warn", tuple(f"episode_{n}" for n in odd))
        assert "opposite sign" in verdict.measured


def test_rotation_vectors_that_were_read_from_w_first_warn() -> None:
    vectors = [np.array([3.1, 0.05, 0.02]), np.array([0.05, 3.1, 0.02])]  # about x, and the same with w taken for x
    names = ("x", "y", "z", "eef_axis_angle_x", "eef_axis_angle_y", "eef_axis_angle_z", "f", "g")
    episodes = []
    for seed in range(8):
        state = turning(seed).state.copy()
        state[:, 3:6] = vectors[seed == 3] + np.random.default_rng(seed).normal(0, 0.01, (len(state), 3))
        episodes.append(changed(turning(seed), state=state, action=state, state_names=names, action_names=names))
    found = compared("quaternion_order", episodes)["state eef_axis_angle_x"]
    assert (found.action, found.episodes) == ("warn", ("episode_3",))


def test_hands_that_begin_anywhere_and_one_of_four_columns_are_silent() -> None:
    rng = np.random.default_rng(0)
    yaws = [pose(seed, (np.cos(a), np.sin(a), 0.0, 0.02)) for seed, a in enumerate(rng.uniform(-3, 3, 12))]
    two = [pose(seed, (DOWN, (0.2, 0.7, -0.5, 0.4))[seed % 2]) for seed in range(12)]
    hot = [with_rotation(pose(seed, DOWN), lambda q, n=seed: 0 * q + np.eye(4)[n % 4]) for seed in range(12)]  # type: ignore[misc]
    for episodes in (yaws, two, hot, yaws[:4]):
        assert not [v for v in compared("quaternion_order", episodes).values() if v.against]
