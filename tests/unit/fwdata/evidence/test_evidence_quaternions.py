"""Columns that are named as a quaternion's and hold something else."""

from __future__ import annotations

import numpy as np
import pytest
from evidence_episodes import changed, pooled, told, two_arms, with_claims

from fwdata.evidence.detectors.quaternions import quaternions_of
from fwdata.evidence.episode import EpisodeInput

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
