"""Duplicates, rows, pooling, records and the registry."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from evidence_episodes import changed, clean_set, pooled, told, two_arms

from fwdata.errors import UsageError
from fwdata.evidence import shared_values
from fwdata.evidence.detectors.duplicates import digests_of, exact_pairs, near_pairs, path_of
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure, pool
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, Verdict
from fwdata.evidence.registry import all_detectors, find_detector
from fwdata.evidence.signals import non_negative_fit, smooth


@pytest.mark.parametrize("kind", ["copy", "noise", "half rate"])
def test_duplicated_episodes_are_found(kind: str) -> None:
    clean = list(clean_set())
    assert pooled("duplicate_episodes", clean)[""].verdict == "confirmed"
    first = clean[0]
    noise = np.random.default_rng(0).normal(0, 0.01, first.state.shape).astype(np.float32)
    twin = {
        "copy": changed(first, id="twin"),
        "noise": changed(first, id="twin", state=first.state + noise),
        "half rate": changed(first, id="twin", state=first.state[::2], action=first.action[::2], thumbnails={}),
    }[kind]
    verdict = pooled("duplicate_episodes", [*clean, twin])[""]
    assert (verdict.verdict, verdict.action, verdict.episodes) == ("contradicted", "warn", ("twin",))


@pytest.mark.parametrize("kind", ["take", "cut", "noise"])
def test_two_takes_of_one_motion_are_no_copies(kind: str) -> None:
    """Both differ as much as a copy with noise, or one cut in time, may."""
    rows = np.linspace(0, 1, 200)[:, None]
    rng = np.random.default_rng(0)
    paths = [np.sin(rows * rng.uniform(2, 6, 6) + rng.uniform(0, 6, 6)) for _ in range(6)]
    other = {
        "take": paths[2] + 0.06 * np.sin(rows * rng.uniform(3, 9, 6) + rng.uniform(0, 6, 6)),
        "cut": paths[2][3:],
        "noise": paths[2] + rng.normal(0, 0.045, (200, 6)),
    }[kind]
    seen = [path_of(each.T) for each in (*paths, other)]
    none, same = np.empty((0, 2), np.int64), np.array([[2, 6]])
    found = near_pairs(seen, ["one"] * 7, none)
    assert found.tolist() == ([] if kind == "take" else [[2, 6]])
    assert near_pairs(seen, ["one"] * 7, same).tolist() == []  # what is known is not looked at again


def test_replays_of_one_motion_are_no_copies_and_copies_among_them_are() -> None:
    """Each differs by an offset and by noise, some by as little as noise on a copy."""
    rng, rows = np.random.default_rng(0), np.linspace(0, 1, 200)[:, None]
    motion = np.sin(rows * rng.uniform(2, 6, 6) + rng.uniform(0, 6, 6))
    takes = [motion + rng.normal(0, 0.012, 6) + rng.normal(0, 0.004, (200, 6)) for _ in range(12)]
    seen, none = [path_of(each.T) for each in takes], np.empty((0, 2), np.int64)
    assert near_pairs(seen, ["one"] * 12, none).tolist() == []
    copied = [*seen, path_of((takes[3] + rng.normal(0, 0.002, (200, 6))).T)]
    assert near_pairs(copied, ["one"] * 13, none).tolist() == [[3, 12]]
    assert near_pairs(seen[:3], ["one"] * 3, none).tolist() != []  # three alone may be one take


def test_episodes_that_share_most_rows_are_pairs_and_those_that_share_some_are_not() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 3))
    fresh = np.random.default_rng(1).normal(size=(100, 3))
    mostly, partly = np.concatenate([rows[:70], fresh[:30]]), np.concatenate([rows[:30], fresh[:70]])
    digests = [digests_of(each.T) for each in (rows, mostly, partly)]
    assert exact_pairs(digests[:2]).tolist() == [[0, 1]]
    assert exact_pairs([digests[0], digests[2]]).tolist() == []


def test_shared_values_are_counted_for_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_values, "AT_ONCE", 7)
    rng = np.random.default_rng(0)
    held = [rng.choice(40, rng.integers(0, 20), replace=False) for _ in range(9)]
    held += [held[3], held[3][:5], np.empty(0, np.int64)]  # copies, which share the same owners
    owners = [{n for n, each in enumerate(held) if value in each} for value in range(40)]
    for most in (3, 12):
        wanted = Counter(p for own in owners if len(own) <= most for p in combinations(sorted(own), 2))
        pairs, counts = shared_values.shared_values(held, most)
        assert {(a, b): n for (a, b), n in zip(pairs.tolist(), counts.tolist(), strict=True)} == wanted


def test_a_copy_is_found_where_groups_move_one_arm_each() -> None:
    def with_one_arm(episode: EpisodeInput, left: bool) -> EpisodeInput:
        scale = np.where((np.arange(8) < 4) == left, 1.0, 0.02).astype(np.float32)
        return changed(episode, state=episode.state * scale, action=episode.action * scale, group=f"task {left}")

    episodes = [with_one_arm(e, i < 4) for i, e in enumerate(clean_set())]
    assert pooled("duplicate_episodes", episodes)[""].verdict == "confirmed"
    noise = np.random.default_rng(0).normal(0, 2e-3, episodes[1].state.shape).astype(np.float32)
    copied = changed(episodes[1], id="copy", state=episodes[1].state + noise)
    assert pooled("duplicate_episodes", [*episodes, copied])[""].episodes == ("copy",)


def test_unusual_rows_are_noted() -> None:
    episode = two_arms(0, images=False)
    assert told("row_quality", episode)[""].verdict == "confirmed"
    jump, pause, broken = episode.state.copy(), episode.state.copy(), episode.state.copy()
    pause[20:95] = pause[20]
    broken[7, 2] = np.nan
    jump[:, 0] = np.linspace(0, 0.1, len(jump))
    jump[60:, 0] += 2
    for state, words in ((jump, "jumps at row 60"), (pause, "nothing moves"), (broken, "not finite at row 7")):
        verdict = told("row_quality", changed(episode, state=state))[""]
        assert (verdict.verdict, verdict.action) == ("contradicted", "note") and words in verdict.detail


def test_an_outlying_length_is_noted() -> None:
    episodes = [two_arms(seed, rows=90 + 3 * seed, images=False) for seed in range(10)]
    assert list(pooled("row_quality", episodes)) == [""]
    long = changed(two_arms(99, rows=900, images=False), id="long")
    assert pooled("row_quality", [*episodes, long])["length"].episodes == ("long",)


def test_clean_episodes_raise_no_alarm() -> None:
    for verdict in pool([measure(episode) for episode in clean_set()]):
        assert verdict.verdict != "contradicted" and verdict.action == "note", verdict


def test_one_contradicting_episode_among_many_is_an_exception() -> None:
    episodes = [two_arms(seed, images=False) for seed in range(10)]
    action = episodes[3].action.copy()
    action[:, [3, 7]] = 1 - action[:, [3, 7]]
    episodes[3] = changed(episodes[3], action=action)
    for verdict in pooled("gripper_polarity", episodes).values():
        assert (verdict.verdict, verdict.against, verdict.episodes) == ("confirmed", 1, ("episode_3",))
        assert verdict.action == "warn"


def test_records_survive_json() -> None:
    measurement = measure(clean_set()[0])
    for verdict in measurement.verdicts:
        data = json.loads(json.dumps(verdict.to_json()))
        assert Verdict.from_json(data).to_json() == data
    kept = EpisodeMeasurement.from_json(json.loads(json.dumps(measurement.to_json())))
    assert {(v.detector, v.subject, v.verdict) for v in kept.verdicts} == {
        (v.detector, v.subject, v.verdict) for v in measurement.verdicts
    }
    for pooled_verdict in pool([measurement]):
        data = json.loads(json.dumps(pooled_verdict.to_json()))
        assert DatasetVerdict.from_json({**data, "newer": 1}).to_json() == data


def test_every_detector_has_a_name_a_code_and_a_question() -> None:
    detectors = all_detectors()
    assert len({d.code for d in detectors}) == len({d.name for d in detectors}) == len(detectors)
    assert all(d.question and d.action in ("stop", "warn", "note") for d in detectors)
    assert find_detector("a1") is find_detector("gripper_polarity")
    with pytest.raises(UsageError, match="did you mean 'gripper_polarity'"):
        find_detector("gripper_polarty")


def test_a_verdict_of_a_detector_is_whole() -> None:
    found = find_detector("row_rate").verdict("confirmed", "as labelled", value=1.0, decided="20 Hz")
    same = Verdict("row_rate", "confirmed", value=1.0, detail="as labelled", action="stop", decided="20 Hz")
    assert found == same and list(vars(found)) == list(vars(same))


def test_every_detector_is_documented() -> None:
    from pathlib import Path

    text = (Path(__file__).parents[4] / "docs" / "evidence.md").read_text()
    assert not [d.name for d in all_detectors() if f"| {d.code} | `{d.name}` |" not in text]


def test_short_episodes_tell_only_what_needs_no_motion() -> None:
    told_by = {v.detector for v in measure(two_arms(0, rows=7, images=False)).verdicts}
    assert told_by == {"row_rate", "instruction_ending", "instruction_placeholder", "instruction_garbled"}
    for rows in (8, 9, 13, 21):
        assert not [
            v for v in measure(two_arms(1, rows=rows)).verdicts if v.action == "stop" and v.verdict == "contradicted"
        ]


def test_smoothing_pads_with_the_edge() -> None:
    np.testing.assert_allclose(smooth(np.full(6, 3.0)), 3.0)
    np.testing.assert_allclose(smooth(np.arange(5.0)), [1 / 3, 1, 2, 3, 11 / 3])


def test_the_non_negative_fit_is_optimal() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        x, y = rng.normal(size=(40, 6)), rng.normal(size=40)
        weights = non_negative_fit(x.T @ x, x.T @ y)
        slopes = x.T @ (y - x @ weights)
        assert (weights >= 0).all() and (slopes < 1e-5).all() and abs(slopes @ weights) < 1e-5


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_every_detector_takes_an_episode_of_few_rows(rows: int) -> None:
    """The end of a conversion traces every episode, however short, for the detectors that compare them."""
    short = [
        changed(
            episode,
            state=episode.state[:rows],
            action=episode.action[:rows],
            timestamp_s=episode.timestamp_s[:rows],
            thumbnails={name: images[:rows] for name, images in episode.thumbnails.items()},
        )
        for episode in clean_set()[:3]
    ]
    comparing = [detector for detector in all_detectors() if detector.compares]
    traces = [tuple(trace for detector in comparing for trace in detector.trace(each)) for each in short]
    found = pool([EpisodeMeasurement(e.id, "", (), t) for e, t in zip(short, traces, strict=True)])
    assert not [v for v in (*found, *pool([measure(each) for each in short])) if v.action == "stop"]
