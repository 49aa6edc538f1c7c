"""Encoders of an arm at rest are noisy: that is no motion of which a camera or a scale could tell anything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from evidence_episodes import changed, clean_set, told, two_arms
from numpy.typing import NDArray

from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure, pool

type Noise = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]

NOISES: dict[str, Noise] = {
    "white": lambda rng, shape: rng.normal(0, 1e-3, shape),
    "one step of the encoder": lambda rng, shape: 1e-3 * (rng.random(shape) < 0.15),
    "wander": lambda rng, shape: np.cumsum(rng.normal(0, 2e-4, shape), axis=0),
    "spikes": lambda rng, shape: rng.normal(0, 5e-4, shape) * np.where(rng.random(shape) < 0.03, 5, 1),
}


def right_arm_rests(episode: EpisodeInput, noise: Noise, seed: int) -> EpisodeInput:
    """The right arm holds a pose at 0, with noise; its camera shows one image."""
    state, action = episode.state.copy(), episode.action.copy()
    state[:, 4:7] = noise(np.random.default_rng(seed), (len(state), 3))
    state[:, 7], action[:, 4:] = 1, 0
    images = np.repeat(episode.thumbnails["right"][:1], len(state), axis=0)
    return changed(episode, state=state, action=action, thumbnails={**episode.thumbnails, "right": images})


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_noise_of_an_arm_at_rest_is_no_motion(noise: Noise) -> None:
    episodes = [right_arm_rests(episode, noise, seed) for seed, episode in enumerate(clean_set())]
    assert {told("camera_frozen", episode)["right"].verdict for episode in episodes} == {"no evidence"}
    alarms = [v for v in pool([measure(episode) for episode in episodes]) if v.against and v.action != "note"]
    assert not alarms


def test_an_arm_that_moves_a_little_still_tells_of_its_camera() -> None:
    episode = two_arms(1)
    state = episode.state.copy()
    state[:, 4:7] *= 0.05
    still = np.repeat(episode.thumbnails["right"][:1], len(state), axis=0)
    slow = changed(episode, state=state, thumbnails={**episode.thumbnails, "right": still})
    verdict = told("camera_frozen", slow)["right"]
    assert (verdict.verdict, verdict.action) == ("contradicted", "stop")


def test_joints_at_rest_that_switch_between_two_values_are_not_on_another_scale() -> None:
    def seen(seed: int) -> EpisodeInput:
        episode = two_arms(seed)
        if seed % 2:
            return right_arm_rests(episode, NOISES["one step of the encoder"], seed)
        state = episode.state.copy()
        state[:, 4] = 0.5 * (np.arange(len(state)) // 20 % 2)  # as a joint that goes between two poses
        return changed(episode, state=state)

    alarms = [v for v in pool([measure(seen(seed)) for seed in range(8)]) if v.detector == "one_scale" and v.against]
    assert not alarms
