"""Images that move with the joints of the next episode, or the one before, from an episode on; planted and clean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fwdata.evidence.neighbours import next_door
from fwdata.evidence.records import EpisodeMeasurement, MotionTrace
from fwdata.evidence.registry import find_detector


def traces(count: int, noise: float = 0.4, seed: int = 0) -> list[MotionTrace]:
    """Episodes of five joints, of which three move the image."""
    found = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        speeds = np.abs(np.cumsum(rng.normal(size=(70 + 3 * (number % 3), 5)), axis=0) % 4 - 2)
        energy = speeds @ np.array([1.0, 0.6, 0.0, 0.3, 0.0]) + noise * rng.normal(size=len(speeds))
        found.append(MotionTrace("front", 30.0, energy, speeds, simulated=False))
    return found


def names(count: int, group: str = "set") -> list[tuple[str, str]]:
    return [(group, f"episode_{number:06d}") for number in range(count)]


def shifted(own: list[MotionTrace], step: int, first: int = 0) -> list[MotionTrace]:
    """Images of the episode `step` further on, from one on."""
    found = list(own)
    for place in range(first, len(own)):
        other = own[(place + step) % len(own)]
        rows = min(len(own[place].energy), len(other.energy))
        found[place] = replace(own[place], energy=other.energy[:rows], speeds=own[place].speeds[:rows])
    return found


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize(("count", "first"), [(8, 0), (14, 0), (14, 5)])
def test_images_of_the_neighbour_are_found_from_their_first_on(count: int, first: int, step: int) -> None:
    found = next_door(names(count), shifted(traces(count), step, first))
    assert found is not None and found.step == step
    assert first <= min(found.places) <= first + 1 and len(found.places) >= count - first - 2
    assert found.other > 0.5 > found.own


def test_episodes_of_their_own_in_any_order_are_not_called_their_neighbours() -> None:
    for seed in range(20):
        own = traces(12, seed=seed)
        order = np.random.default_rng(seed).permutation(12)
        assert next_door(names(12), own) is None
        assert next_door(names(12), [own[place] for place in order]) is None
    still = [replace(t, energy=np.random.default_rng(i).normal(size=len(t.energy))) for i, t in enumerate(traces(12))]
    assert next_door(names(12), still) is None


def test_neighbours_are_of_one_group_and_numbered() -> None:
    odd = shifted(traces(8), 1)
    assert next_door([(f"set{place % 2}", name) for place, (_, name) in enumerate(names(8))], odd) is None
    assert next_door([("set", f"take {chr(97 + place)}") for place in range(8)], odd) is None
    assert next_door([("set", f"episode_{2 * place}") for place in range(8)], odd) is None


def test_the_verdict_names_whose_joints_they_are() -> None:
    episodes = [
        EpisodeMeasurement(name, "set", (), (trace,))
        for (_, name), trace in zip(names(9), shifted(traces(9), -1), strict=True)
    ]
    (found,) = find_detector("camera_motion").pool(episodes)
    assert (found.verdict, found.action, found.subject) == ("contradicted", "warn", "front")
    assert found.measured == "images that move with the joints of the episode before"
    assert "from episode_000001 on" in found.detail
