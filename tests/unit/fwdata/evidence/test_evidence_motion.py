"""Action meaning, units, delays, rotation and rate: planted faults are found, clean twins stay silent."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from evidence_episodes import (
    HZ,
    changed,
    clean_set,
    delayed,
    euler_angles,
    libero_rows,
    pooled,
    scene,
    told,
    turning,
    two_arms,
    with_claims,
)

from fwdata.evidence.claims import RateClaim
from fwdata.evidence.detectors import delay
from fwdata.evidence.detectors.rotation import from_axis_angle, from_euler, to_axis_angle
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.own_lags import two_parts
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, MotionTrace
from fwdata.evidence.registry import find_detector
from fwdata.evidence.sentences import agreement, not_verified

OTHERS = {"absolute": "next_state", "next_state": "delta", "delta": "absolute"}


def as_meaning(episode, meaning: str):
    """The episode with its action rewritten as another meaning."""
    state, action = episode.state, episode.action
    if meaning == "next_state":
        action = np.concatenate([state[1:], state[-1:]])
    if meaning == "delta":
        action = np.diff(action, axis=0, append=action[-1:])
    return with_claims(changed(episode, action=action.astype(np.float32)), action=meaning)


def test_targets_that_are_the_state_of_the_row_before_are_found() -> None:
    episodes = [changed(e, action=delayed(e.state, 1)) for e in clean_set()[:4]]
    verdict = pooled("action_meaning", episodes)[""]
    assert (verdict.verdict, verdict.action) == ("contradicted", "stop")
    assert verdict.measured == "exactly the state of the row before"
    unclaimed = pooled("action_meaning", [with_claims(e, action=None) for e in episodes])[""]
    assert (unclaimed.verdict, unclaimed.action) == ("contradicted", "warn")


def test_targets_that_are_late_for_the_next_row_are_no_other_kind_of_action() -> None:
    """No option corrects them, though one is known for targets."""
    options = {"action_meaning": "--actions recorded"}
    claimed = [with_claims(e, action="next_state", options=options) for e in clean_set()]
    late = [changed(e, action=delayed(e.state, 4)) for e in claimed]
    verdict = pooled("action_meaning", late)[""]
    assert verdict.verdict == "contradicted" and verdict.measured == "absolute targets, 5 rows late"
    assert agreement(verdict, options) == find_detector("state_delay").advice
    other = pooled("action_meaning", claimed)[""]  # which the state follows after two rows
    assert other.measured == "absolute targets" and agreement(other, options) == "--actions recorded would agree"


@pytest.mark.parametrize("rows", [-1, 1, 2])
def test_an_action_behind_the_state_warns(rows: int) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 0.003, e.state.shape).astype(np.float32) for e in clean_set()]
    shifted = [changed(e, action=delayed(e.state, rows) + n) for e, n in zip(clean_set(), noise, strict=True)]
    verdict = pooled("state_delay", shifted)[""]
    assert (verdict.verdict, verdict.action) == (("contradicted", "warn") if rows > 0 else ("confirmed", "note"))
    if rows > 0:
        assert f"the state is {rows}." in verdict.measured or f"{rows - 1}.9 rows" in verdict.measured


@pytest.mark.parametrize(
    ("rows", "measured"), [(4, "4.0 rows (0.20 s) before"), (-7, "follows the action after 0.35 s")]
)
def test_a_state_that_copies_a_shifted_action_is_found(rows: int, measured: str) -> None:
    copied = [changed(e, state=e.action) for e in clean_set()]
    assert pooled("state_delay", copied)[""].verdict == "no evidence"
    verdict = pooled("state_delay", [changed(e, action=delayed(e.state, rows)) for e in copied])[""]
    assert (verdict.verdict, verdict.action) == ("contradicted", "warn")
    assert measured in verdict.measured


def test_a_slow_rate_makes_no_late_state() -> None:
    episodes = [changed(e, hz=3.0, state=delayed(e.action, 1)) for e in clean_set()]
    noisy = [changed(e, state=e.state + np.float32(0.003) * np.sin(np.arange(120))[:, None]) for e in episodes]
    assert pooled("state_delay", noisy)[""].verdict != "contradicted"


@pytest.mark.parametrize("meaning", ["absolute", "next_state", "delta"])
@pytest.mark.parametrize("seed", range(3))
def test_the_meaning_of_the_action_is_recognised(meaning: str, seed: int) -> None:
    episode = as_meaning(two_arms(seed, images=False), meaning)
    [verdict] = told("action_meaning", episode).values()
    assert verdict.verdict == "confirmed", verdict
    [other] = told("action_meaning", with_claims(episode, action=OTHERS[meaning])).values()
    assert (other.verdict, other.action) == ("contradicted", "stop")


def test_a_true_libero_demonstration_is_delta() -> None:
    episode = libero_rows()
    assert told("action_meaning", episode)[""].verdict == "confirmed"
    assert told("action_meaning", with_claims(episode, action="absolute"))[""].verdict == "contradicted"
    action = episode.action.copy()
    action[:, :3] = delayed(episode.state, -1)[:, :3] + np.float32(1e-3) * np.sin(np.arange(len(action)))[:, None]
    assert told("action_meaning", changed(episode, action=action))[""].verdict == "contradicted"


def test_arms_at_rest_tell_nothing_of_the_action() -> None:
    episode = two_arms(0, images=False)
    still = changed(episode, state=np.zeros_like(episode.state), action=np.zeros_like(episode.action))
    assert told("action_meaning", still)[""].verdict == "no evidence"
    assert told("action_unit", still)[""].verdict == "no evidence"
    undecided = told("action_meaning", with_claims(episode, action=None))[""]
    assert (undecided.verdict, undecided.measured) == ("no evidence", "absolute targets")


@pytest.mark.parametrize("factor", [180 / np.pi, np.pi / 180])
def test_degrees_beside_radians_contradict(factor: float) -> None:
    episode = two_arms(3, images=False)
    assert told("action_unit", episode)[""].verdict == "confirmed"
    joints = np.array([True] * 3 + [False] + [True] * 3 + [False])
    action = np.where(joints, episode.action * factor, episode.action).astype(np.float32)
    verdict = told("action_unit", changed(episode, action=action))[""]
    assert (verdict.verdict, verdict.action) == ("contradicted", "stop")


@pytest.mark.parametrize(("rows", "action"), [(2, "note"), (8, "warn"), (14, "stop")])
def test_a_late_state_stream_is_found_and_measured(rows: int, action: str) -> None:
    verdict = pooled("state_delay", [two_arms(seed, delay=rows, images=False) for seed in range(4)])[""]
    assert verdict.action == action
    assert verdict.value == pytest.approx(rows / HZ, abs=0.03)
    assert verdict.verdict == ("confirmed" if action == "note" else "contradicted")


def test_a_late_state_of_smooth_motion_is_found() -> None:
    """Swings correlate with their own change; the state reaches the values of targets alone."""

    def swings(number: int, rows: int) -> EpisodeInput:
        time = np.arange(HZ * 8)[:, None] / HZ
        joints = np.sin(2 * np.pi * 0.2 * time * np.array([1, 1.1, 0.9, 1.2]) + number + np.arange(4)) + np.arange(4)
        action = np.hstack([joints, joints + 0.1]).astype(np.float32)
        base = two_arms(number, images=False, rows=len(time))
        return changed(base, action=action, state=delayed(action, rows))

    assert pooled("state_delay", [swings(number, 14) for number in range(4)])[""].action == "stop"
    assert pooled("state_delay", [swings(number, 2) for number in range(4)])[""].verdict != "contradicted"


def test_motion_that_comes_back_makes_no_late_state() -> None:
    """Wiping fits its targets as well a period later."""

    def wiping(number: int) -> EpisodeInput:
        time, rng = np.arange(120)[:, None] / HZ, np.random.default_rng(number)
        turns = 2 * np.pi * rng.uniform(1.1, 1.6) * time + np.arange(8)
        action = (0.3 * np.sin(turns) + np.arange(8)).astype(np.float32)
        state = action.copy()
        for row in range(1, len(state)):
            state[row] = state[row - 1] + 0.6 * (action[row - 1] - state[row - 1])
        state += rng.normal(0, 3e-3, state.shape).astype(np.float32)
        return changed(two_arms(number, images=False), action=action, state=state)

    for claimed in ("absolute", None):
        verdict = pooled("state_delay", [with_claims(wiping(number), action=claimed) for number in range(8)])[""]
        assert (verdict.verdict, verdict.episodes) == ("confirmed", ())
        assert verdict.value is not None and verdict.value < 0.15


def test_an_action_that_is_an_earlier_state_is_found() -> None:
    episodes = [changed(e, action=delayed(e.state, 5)) for e in clean_set()]
    found = pooled("state_delay", episodes)[""]
    assert (found.verdict, found.against) == ("contradicted", 8), found
    assert "rows (0.25 s) before the action" in found.measured


@pytest.mark.parametrize("rows", [0, 1, 3, 6, -4])
def test_a_camera_out_of_step_is_found_and_measured(rows: int) -> None:
    episodes = [
        changed(e, thumbnails={name: delayed(images, rows) for name, images in e.thumbnails.items()})
        for e in clean_set()
    ]
    for camera, verdict in pooled("camera_delay", episodes).items():
        assert verdict.value == pytest.approx(rows, abs=0.6), camera
        assert verdict.verdict == ("contradicted" if rows else "confirmed"), verdict
        assert verdict.action == ("note" if not rows else "stop" if abs(rows) >= 4 else verdict.action)


def test_half_of_the_images_of_a_real_camera_tell_its_lag() -> None:
    for rows in (0, 3):
        shown = [changed(e, thumbnails={n: delayed(i, rows) for n, i in e.thumbnails.items()}) for e in clean_set()]
        half = [changed(e, thumbnails={n: i[::2] for n, i in e.thumbnails.items()}, every=2) for e in shown]
        real = [with_claims(e, simulated=False) for e in [*half, *half]]
        for camera, verdict in pooled("camera_delay", real).items():
            assert verdict.value == pytest.approx(rows, abs=0.6), camera
            assert verdict.verdict == ("contradicted" if rows else "confirmed"), verdict


@pytest.mark.parametrize("rows", [5, -6])
def test_single_episodes_whose_camera_is_out_of_step_are_found(rows: int) -> None:
    late = ("episode_1", "episode_5")
    episodes = [
        changed(e, thumbnails={"head": delayed(e.thumbnails["head"], rows if e.id in late else 0)}) for e in clean_set()
    ]
    verdict = pooled("camera_delay", episodes)["head"]
    assert (verdict.verdict, verdict.action, verdict.episodes) == ("contradicted", "warn", late)
    assert (verdict.episodes_for, verdict.against) == (6, 2) and verdict.value == pytest.approx(rows, abs=1)
    real = [with_claims(e, simulated=False) for e in episodes]
    assert pooled("camera_delay", real)["head"].verdict == "no evidence"


@pytest.mark.parametrize("rows", [3, -4, 6])
def test_half_of_the_episodes_with_a_camera_out_of_step_are_found(rows: int) -> None:
    late = tuple(e.id for e in clean_set()[1::2])
    for arms in ((slice(0, 8), slice(0, 8)), (slice(0, 4), slice(4, 8))):  # both arms, or one in either half
        episodes = []
        for number, e in enumerate(clean_set()):
            moving = np.zeros(8, np.bool_)
            moving[arms[number % 2]] = True
            state, action = (np.where(moving, each, each[:1]) for each in (e.state, e.action))
            seen = delayed(scene(state[:, [0, 4]] * 12 + state[:, [1, 5]] * 9, 1), rows if e.id in late else 0)
            episodes.append(changed(e, state=state, action=action, thumbnails={"head": seen}))
        verdict = pooled("camera_delay", episodes)["head"]
        assert (verdict.verdict, verdict.episodes) == ("mixed", late), verdict
        assert verdict.episodes_for >= 3
        assert verdict.value == pytest.approx(rows, abs=1)
        assert verdict.action == "stop" or abs(rows) == 3


@pytest.mark.parametrize(("gain", "told_by"), [(0.011, (8,)), (0.03, (6, 8))])
def test_few_episodes_tell_a_small_lag_only_where_it_explains_much(gain: float, told_by: tuple[int, ...]) -> None:
    lags = range(-6, 7)
    shape = 0.9 - 0.25 * gain * (np.asarray(lags) - 2.0) ** 2  # the best one 2 rows late
    traces = [t for e in clean_set() for t in find_detector("camera_delay").trace(e) if isinstance(t, MotionTrace)]
    for count in (6, 8):
        found = delay.LagEstimate(lags, np.tile(shape, (count, 1)))
        used = [replace(t, commands=None) for t in traces if t.camera == "head"][:count]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(delay, "estimate_lag", lambda traces, reach, found=found: found)
            measured = [EpisodeMeasurement(f"e{n}", "", (), (t,)) for n, t in enumerate(used)]
            [verdict] = find_detector("camera_delay").pool(measured)
        assert verdict.verdict == ("contradicted" if count in told_by else "no evidence")
        assert count in told_by or "6 episodes hardly tell from none" in verdict.detail


def test_a_lag_that_is_neither_told_nor_excluded_counts_all_episodes_as_not_verified() -> None:
    traces = [t for e in clean_set() for t in find_detector("camera_delay").trace(e) if isinstance(t, MotionTrace)]
    used = [replace(t, commands=None) for t in traces if t.camera == "head"]
    found = SimpleNamespace(lag=0.4, interval=(-0.3, 1.2), score=0.9, interior=True, gain=0.01, near=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delay, "estimate_lag", lambda traces, reach: found)
        [verdict] = find_detector("camera_delay").pool(
            [EpisodeMeasurement(f"e{n}", "", (), (t,)) for n, t in enumerate(used)]
        )
    why = "the lag is +0.4 rows, -0.3 .. +1.2: hardly distinguishable from zero"
    assert verdict.abstained == 8
    assert not_verified([verdict]) == (f"camera against joints in time head (8 of 8 episodes): {why}",)


def test_an_episode_a_little_beyond_the_limit_is_none_of_a_usual_set() -> None:
    def found(*seconds: float) -> DatasetVerdict:
        detector, measured = find_detector("state_delay"), []
        for n, value in enumerate(seconds):
            outcome = "contradicted" if value > delay.LATE_WARN else "confirmed"
            told = detector.verdict(outcome, "", value=value, decided="one", measured=f"after {value:.2f} s")
            measured.append(EpisodeMeasurement(f"e{n}", "", (told,), ()))
        return detector.pool(measured)[0]

    near = found(0.28, 0.29, 0.29, 0.31, 0.29)
    assert (near.verdict, near.episodes_for, near.against, near.episodes) == ("confirmed", 5, 0, ())
    assert near.measured == "the state follows the action after 0.29 s (0.28 .. 0.31)"
    far = found(0.1, 0.1, 0.12, 0.6)
    assert (far.action, far.episodes_for, far.episodes, far.measured) == ("note", 3, ("e3",), "after 0.60 s")


def test_few_episodes_or_images_without_motion_tell_no_lag() -> None:
    clean = clean_set()
    assert {v.verdict for v in pooled("camera_delay", clean[:4]).values()} == {"no evidence"}
    rng = np.random.default_rng(0)
    noise = [changed(e, thumbnails={"head": rng.integers(0, 255, (120, 32, 32), np.uint8)}) for e in clean]
    assert pooled("camera_delay", noise)["head"].verdict == "no evidence"
    real = [with_claims(e, simulated=False) for e in clean]
    assert {v.verdict for v in pooled("camera_delay", real).values()} == {"no evidence"}


def test_rotation_is_compared_with_the_quaternion_of_the_file() -> None:
    episode = libero_rows()
    assert told("rotation_form", episode)["eef_rx"].verdict == "confirmed"
    [claim] = episode.claims.rotations
    assert claim.reference is not None
    written = episode.state.copy()
    written[:, 3:6] = euler_angles(claim.reference.astype(np.float64))
    wrong = told("rotation_form", changed(episode, state=written))["eef_rx"]
    assert (wrong.verdict, wrong.action, wrong.measured) == ("contradicted", "stop", "euler_xyz")
    [alone] = pooled("rotation_form", [changed(episode, state=written)]).values()
    assert alone.action == "stop"  # two numbers of one file need no statistics
    without = with_claims(episode, rotations=(replace(claim, reference=None),))
    assert told("rotation_form", without)["eef_rx"].verdict == "no evidence"
    part = episode.state.copy()
    part[:, 3:6] = claim.reference[:, :3]
    short = told("rotation_form", changed(without, state=part))["eef_rx"]
    assert (short.verdict, short.action) == ("contradicted", "warn") and "quaternion" in short.measured


def test_quaternion_conventions_agree_with_each_other() -> None:
    vectors = np.random.default_rng(0).normal(0, 0.8, (50, 3))
    quaternions = from_axis_angle(vectors)
    np.testing.assert_allclose(to_axis_angle(quaternions), vectors, atol=1e-9)
    both = from_euler(euler_angles(quaternions))
    np.testing.assert_allclose(np.abs((both * quaternions).sum(1)), 1, atol=1e-9)


def test_of_several_readings_the_one_that_turns_as_commanded_is_right() -> None:
    true = [told("rotation_command", turning(seed, "axis_angle"))["eef_rx"].verdict for seed in range(6)]
    wrong = [told("rotation_command", turning(seed, "euler"))["eef_rx"].verdict for seed in range(6)]
    assert "contradicted" not in true and true.count("confirmed") >= 4
    assert "confirmed" not in wrong and wrong.count("contradicted") >= 4
    assert told("rotation_command", libero_rows())["eef_rx"].verdict != "contradicted"


def test_wrapped_angles_are_found() -> None:
    episode = libero_rows()
    assert told("wrapped_angles", episode)["eef_rx"].verdict == "confirmed"
    state = episode.state.copy()
    angle = np.linalg.norm(state[:, 3:6], axis=1, keepdims=True)
    state[::2, 3:6] *= ((angle - 2 * np.pi) / angle)[::2]
    wrapped = told("wrapped_angles", changed(episode, state=state))["eef_rx"]
    assert (wrapped.verdict, wrapped.action) == ("contradicted", "stop")
    assert told("rotation_form", changed(episode, state=state))["eef_rx"].verdict == "confirmed"


def test_a_rate_that_differs_from_the_label_contradicts() -> None:
    episode = two_arms(0, images=False)
    assert told("row_rate", episode)[""].verdict == "confirmed"
    wrong = told("row_rate", with_claims(episode, rate=RateClaim(HZ, label=30.0)))[""]
    assert (wrong.verdict, wrong.action, wrong.measured) == ("contradicted", "stop", "label 30 Hz")
    known = with_claims(episode, rate=RateClaim(HZ, label=15.0, known_labels=(15.0,)))
    assert told("row_rate", known)[""].verdict == "confirmed"
    assert told("row_rate", with_claims(episode, rate=RateClaim(HZ)))[""].verdict == "no evidence"
    slow = with_claims(changed(episode, timestamp_s=episode.timestamp_s * 2), rate=RateClaim(HZ, measured_times=True))
    assert told("row_rate", slow)[""].verdict == "contradicted"


def test_a_lag_that_the_action_contradicts_is_no_verdict() -> None:
    late = [changed(e, thumbnails={"head": delayed(e.thumbnails["head"], 3)}) for e in clean_set()]
    found = pooled("camera_delay", late)["head"]
    assert found.verdict == "contradicted" and found.detail.endswith(" agree") and "not agree" not in found.detail
    traces = [trace for e in late for trace in find_detector("camera_delay").trace(e)]
    stale = [replace(t, state_lag=t.state_lag + 12) for t in traces if isinstance(t, MotionTrace)]
    measured = [EpisodeMeasurement(f"e{n}", "", (), (trace,)) for n, trace in enumerate(stale)]
    [verdict] = find_detector("camera_delay").pool(measured)
    assert verdict.verdict == "no evidence" and "do not agree" in verdict.detail


def test_columns_that_copy_the_command_do_not_hide_a_late_state() -> None:
    episode = two_arms(1, delay=14)
    state = episode.state.copy()
    state[:, :4] = delayed(episode.action[:, :4], 1)
    mixed = changed(episode, state=state.astype(np.float32))
    late = told("state_delay", mixed)[""]
    assert late.verdict == "contradicted" and late.value == pytest.approx(14 / HZ, abs=0.05)
    [trace, *_] = find_detector("camera_delay").trace(mixed)
    assert isinstance(trace, MotionTrace) and trace.state_lag == pytest.approx(14, abs=1)


@pytest.mark.parametrize("delay", [0, 2])
def test_rows_of_action_that_are_shifted_in_one_episode_are_found(delay: int) -> None:
    episodes = [two_arms(seed, delay=delay, images=False) for seed in range(8)]
    if not delay:  # the state is a copy of the command of the row before
        episodes = [changed(e, state=np.concatenate([e.action[:1], e.action[:-1]])) for e in episodes]
    assert "in single episodes" not in pooled("state_delay", episodes)
    for rows in (3, -4):
        planted = [*episodes[:3], changed(episodes[3], action=delayed(episodes[3].action, rows)), *episodes[4:]]
        found = pooled("state_delay", planted)["in single episodes"]
        assert (found.action, found.against, found.episodes) == ("warn", 1, ("episode_3",))
        assert found.decided.endswith("as in most episodes")
    assert "in single episodes" not in pooled("state_delay", episodes[:4])


@pytest.mark.parametrize(("one", "other"), [(1, 4), (2, 5), (0, 2)])
def test_a_part_of_a_set_with_another_lag_is_found(one: int, other: int) -> None:
    """Half of 8, and 3 of 8 episodes; each lag alone is usual."""
    sets = {rows: [two_arms(seed, delay=rows, images=False) for seed in range(8)] for rows in (one, other)}
    for episodes in sets.values():
        assert list(pooled("state_delay", episodes)) == [""]
    for odd in ({1, 3, 5, 7}, {0, 1, 2}):
        planted = [sets[other if number in odd else one][number] for number in range(8)]
        found = pooled("state_delay", planted)["in a part of the episodes"]
        assert (found.verdict, found.action, found.against) == ("mixed", "warn", len(odd))
        assert found.episodes == tuple(f"episode_{number}" for number in sorted(odd))
        assert found.value == pytest.approx(other / HZ, abs=0.02)


REAL_LAGS = {
    "G1": (30, [8.31, 8.58, 8.6, 8.71, 8.91, 9.68]),
    "two-arm robot": (30, [25.4, 25.53, 26.3, 26.54, 26.76, 27.16, 28.04, 28.13, 28.34, 28.47]),
    "GR-1": (20, [4.02, 4.11, 4.13, 4.26, 4.29]),
}
"""Rate and lags in rows of single episodes, measured on public sets."""


@pytest.mark.parametrize("robot", REAL_LAGS)
def test_the_lags_of_real_episodes_are_of_one_part(robot: str) -> None:
    hz, rows = REAL_LAGS[robot]
    assert not len(two_parts(np.array(rows) / hz))
    rng = np.random.default_rng(0)
    assert not sum(len(two_parts(rng.normal(0.15, 0.04, 8))) for _ in range(2000))


@pytest.mark.parametrize(("share", "other", "action"), [(9, 3.5, "warn"), (6, 1.2, "note")])
def test_a_camera_that_is_late_in_most_draws_warns(share: int, other: float, action: str) -> None:
    """Scores of ten episodes by lag: a few, of a motion that comes back, also fit without one."""
    lags = range(-8, 9)
    late, none = (np.exp(-((np.arange(-8, 9) - lag) ** 2) / 4.0) for lag in (5, 0))
    scores = np.stack([late * 0.95] * share + [none * other] * (10 - share))
    found = delay.LagEstimate(lags, scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delay, "estimate_lag", lambda traces, reach: found)
        verdict = pooled("camera_delay", clean_set())["head"]
    assert verdict.action == action
    assert verdict.verdict == ("no evidence" if action == "note" else "contradicted")


def test_one_camera_that_seems_a_row_early_beside_one_in_step_is_not_judged() -> None:
    def early(*cameras: str) -> dict[str, DatasetVerdict]:
        shown = [
            {name: delayed(images, -1) if name in cameras else images for name, images in e.thumbnails.items()}
            for e in clean_set()
        ]
        return pooled("camera_delay", [changed(e, thumbnails=s) for e, s in zip(clean_set(), shown, strict=True)])

    assert early("head")["head"].verdict == "no evidence" and "left is in step" in early("head")["head"].detail
    assert {v.verdict for v in early("head", "left", "right").values()} == {"contradicted"}
