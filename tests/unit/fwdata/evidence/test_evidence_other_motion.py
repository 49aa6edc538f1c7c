"""Images that do not move with the joints in single episodes: planted beside their clean twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evidence_episodes import delayed, two_arms

from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, MotionTrace
from fwdata.evidence.registry import find_detector
from fwdata.evidence.signals import smooth


def traces(count: int, simulated: bool = False) -> list[MotionTrace]:
    """What the left camera of some episodes of 240 rows shows of their motion."""
    episodes = [two_arms(seed, 240, delay=1) for seed in range(count)]
    found = [t for e in episodes for t in find_detector("camera_delay").trace(e) if t.camera == "left"]
    return [replace(trace, simulated=simulated) for trace in found]


def judged(found: list[MotionTrace]) -> DatasetVerdict | None:
    measured = [EpisodeMeasurement(f"episode_{n}", "set", (), (trace,)) for n, trace in enumerate(found)]
    return next(iter(find_detector("camera_motion").pool(measured)), None)


@pytest.mark.slow
def test_images_of_another_episode_in_reverse_or_late_are_found() -> None:
    good = traces(8)
    clean = judged(good)
    assert clean is not None and (clean.verdict, clean.episodes_for) == ("confirmed", 8)
    energies = {
        "they fit the rows of episode_2": good[2].energy,
        "in reverse order they do": good[5].energy[::-1].copy(),
        "": delayed(good[5].energy, 30),
    }
    for words, energy in energies.items():
        found = judged([*good[:5], replace(good[5], energy=energy), *good[6:]])
        assert found is not None and (found.action, found.episodes) == ("warn", ("episode_5",)), words
        assert found.detail.startswith("r ") and words in found.detail


@pytest.mark.slow
def test_few_episodes_noise_and_sets_of_several_kinds_tell_nothing() -> None:
    good = traces(8)
    assert judged(good[:4]) is None
    noise = [replace(t, energy=np.random.default_rng(n).random(len(t.energy))) for n, t in enumerate(good)]
    assert judged(noise) is None
    half = [replace(t, energy=t.energy[::-1].copy()) if n % 2 else t for n, t in enumerate(good)]
    found = judged(half)
    assert found is None or not found.against
    late = [*traces(7, True), replace(traces(8, True)[7], energy=delayed(traces(8, True)[7].energy, 4))]
    found = judged(late)
    assert found is not None and not found.against  # d1 names its lag


def made(seed: int, near: int, rows: int = 120) -> MotionTrace:
    """A trace of six joints, of which three in a row from `near` on move its images."""
    rng = np.random.default_rng(seed)
    speeds = smooth(rng.random((rows, 6)), 5)
    energy = speeds[:, near : near + 3].sum(axis=1) + rng.normal(0, 0.05, rows)
    return MotionTrace("head", 20.0, energy, speeds, False)


def test_joints_that_explain_images_by_other_weights_are_their_own() -> None:
    good = [made(seed, 0) for seed in range(8)]
    near_another = made(8, 3)
    found = judged([*good, near_another])
    assert found is not None and (found.verdict, found.episodes_for) == ("confirmed", 9)
    for energy in (near_another.energy[::-1].copy(), good[2].energy):
        found = judged([*good, replace(near_another, energy=energy)])
        assert found is not None and found.episodes == ("episode_8",)


def test_an_episode_of_few_rows_is_not_reported() -> None:
    good = [made(seed, 0, 40) for seed in range(8)]
    for rows, verdict in ((26, "confirmed"), (40, "contradicted")):
        reverse = replace(good[5], energy=good[5].energy[:rows][::-1].copy(), speeds=good[5].speeds[:rows])
        found = judged([*good[:5], reverse, *good[6:]])
        assert found is not None and found.verdict == verdict


def scripted(seed: int, rows: int = 120) -> MotionTrace:
    """A trace of twelve joints that start and stop together three times; what a camera sees of them adds or cancels."""
    rng = np.random.default_rng(seed)
    steps = np.repeat(rng.uniform(-1, 1, (3, 12)), rows // 3, axis=0)
    velocities = steps * np.sin(np.linspace(0, 3 * np.pi, rows))[:, None] ** 2
    seen = np.sqrt(np.abs(velocities @ np.random.default_rng(99).normal(0, 1, (2, 12)).T).sum(axis=1))
    energy = seen + rng.normal(0, 0.02 * seen.max(), rows)
    return MotionTrace("head", 30.0, energy, np.sqrt(np.abs(velocities)), False)


def test_joints_that_start_and_stop_together_are_seldom_taken_for_those_of_another_episode() -> None:
    found = [judged([scripted(seed) for seed in range(first, first + 10)]) for first in range(0, 300, 10)]
    assert all(found)
    assert sum(verdict.against > 0 for verdict in found if verdict) <= 1  # of 30


def many_joints(seed: int, rows: int = 90) -> MotionTrace:
    """A trace of 14 joints, of which the first three move its images: with weights of their own all 14 explain any."""
    rng = np.random.default_rng(seed)
    speeds = smooth(smooth(rng.random((rows, 14)), 7), 7)
    energy = speeds[:, :3].sum(axis=1)
    return MotionTrace("head", 20.0, energy + rng.normal(0, 0.1 * energy.std(), rows), speeds, False)


def test_two_episodes_with_each_others_images_are_found() -> None:
    found = []
    for first in range(0, 80, 10):
        good = [many_joints(seed) for seed in range(first, first + 10)]
        clean = judged(good)
        assert clean is not None and clean.verdict == "confirmed"
        planted = list(good)
        planted[2], planted[6] = (replace(good[a], energy=good[b].energy) for a, b in ((2, 6), (6, 2)))
        verdict = judged(planted)
        assert verdict is not None
        found += [verdict] if "episode_2 and episode_6 have each other's images" in verdict.detail else []
    assert len(found) >= 6
    assert all(verdict.episodes == ("episode_2", "episode_6") for verdict in found)
