"""Orientation of cameras: turned by 90 and 180 degrees, mirrored, and what is advised; faults and clean twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evidence_episodes import changed, fixed_camera, scene, told, with_camera, with_claims

from converters.libero.options import LiberoOptions
from converters.libero.stored import agreeing
from fwdata.doctor.conventions import convention_findings
from fwdata.doctor.remedies import Patient
from fwdata.evidence.claims import CameraClaim
from fwdata.evidence.image_motion import apparent_motion
from fwdata.evidence.measure import in_step, measure, pool
from fwdata.evidence.records import DatasetVerdict
from fwdata.evidence.sentences import refusal
from fwdata.manifest import load_manifest


def test_a_camera_that_is_turned_by_180_degrees_is_answered_with_one_rotation() -> None:
    told = {"rotation": "rot180"}
    claim = CameraClaim("image", mounted=False, up="z+", right="y-")
    options = agreeing(load_manifest("libero"), LiberoOptions(), told)
    for fault, wanted in (("rot180", "none"), ("mirror", "flip_vertical"), ("flip", "mirror")):
        turns = {"rot180": (-1, -1), "mirror": (1, -1), "flip": (-1, 1)}[fault]
        episodes = [with_claims(fixed_camera(seed), cameras=(claim,), options=options) for seed in range(4)]
        episodes = [
            changed(e, thumbnails={"image": e.thumbnails["image"][:, :: turns[0], :: turns[1]]}) for e in episodes
        ]
        verdicts = [v for v in pool([measure(e) for e in episodes]) if v.subject == "image"]
        why = refusal(verdicts, {}, options)
        assert why is not None and f"--rotation image={wanted} would agree" in why


def test_advice_to_turn_a_camera_says_which_direction_was_not_measured() -> None:
    told = {"rotation": "rot180"}
    options = agreeing(load_manifest("libero"), LiberoOptions(), told)
    claim = CameraClaim("image", up="z+", right="y-")
    episodes = [with_claims(fixed_camera(seed), cameras=(claim,), options=options) for seed in range(4)]
    whole = [changed(e, thumbnails={"image": e.thumbnails["image"][:, :, ::-1]}) for e in episodes]
    level = np.array([1, 1, 0.01], np.float32)  # the arm neither rises nor sinks
    turned = [changed(e, thumbnails={"image": e.thumbnails["image"][:, ::-1, ::-1]}) for e in episodes]
    flat = [changed(e, state=np.hstack([e.state[:, :3] * level, e.state[:, 3:]])) for e in turned]
    open_words = "up/down of image is not measured and may be wrong too: look at it in `fwdata preview`"
    for data, is_open in ((whole, False), (flat, True)):
        verdicts = [v for v in pool([measure(e) for e in data]) if v.detector.startswith("camera_") and v.against]
        silent = [v for v in pool([measure(e) for e in data]) if v.detector == "camera_up_down"]
        why = refusal([*verdicts, *silent], {}, options)
        assert why is not None and "--rotation image=flip_vertical would agree" in why
        assert (f"would agree ({open_words}" in why) == is_open
        findings = convention_findings([*verdicts, *silent], Patient("raw", "libero", False), 4, options, {})
        assert any(open_words in f.sentence for f in findings if f.detector == "camera_left_right") == is_open


def test_a_quarter_turn_that_looks_mirrored_by_chance_is_not_to_be_converted_in_two_kinds() -> None:
    """The arm goes right and up, or left and up, so that a turned image shows either direction in the other."""
    claim, episodes = CameraClaim("image", up="z+", right="y-"), []
    for seed in range(8):
        episode = with_claims(fixed_camera(seed), cameras=(claim,))
        state = episode.state.copy()
        state[:, 2] = state[:, 1] * (1 if seed % 2 else -1) * 0.05  # too little to be measured
        images = scene(np.stack([-state[:, 1], -20 * state[:, 2]], axis=1) * 60, seed)
        episodes.append(changed(episode, state=state, thumbnails={"image": np.rot90(images, 1, (1, 2)).copy()}))
    verdicts = [v for v in pool([measure(e) for e in episodes]) if v.subject == "image"]
    torn = next(v for v in verdicts if v.detector == "camera_left_right")
    assert torn.verdict == "mixed"
    verdicts = [v for v in verdicts if v.detector in ("camera_left_right", "camera_up_down", "camera_quarter_turn")]
    why = refusal(verdicts, {}, {})
    wanted = "chance: camera image may be turned by 90 degrees; look at its images, and turn them back"
    assert why is not None and wanted in why and why.index(wanted) < why.index("else convert both kinds apart")
    for is_store, command in ((True, "fwdata preview 'my raw'"), (False, "&& fwdata preview NEW.zarr")):
        patient = Patient("my raw", "libero", is_store)
        found = [f for f in convention_findings(verdicts, patient, 8, {}, {}) if f.detector == "camera_left_right"]
        assert wanted in found[0].sentence and found[0].command.endswith(command)
    upright = replace(torn, detector="camera_up_down", verdict="confirmed", against=0, action="note")
    plain = refusal([torn, upright], {}, {})
    assert plain is not None and "the other 4 agree with it: convert both kinds apart" in plain
    turned = DatasetVerdict("camera_quarter_turn", "contradicted", "image", against=2, action="warn", measured="turned")
    first = refusal([torn, turned], {}, {})
    assert first is not None and first.startswith("camera upright image") and "apart" not in first
    assert '--accept camera_left_right="why"' in first and "--accept camera_quarter_turn" not in first


TURNS = {
    "upside down": (lambda images: images[:, ::-1], "camera_up_down"),
    "mirrored": (lambda images: images[:, :, ::-1], "camera_left_right"),
}


@pytest.mark.parametrize("fault", TURNS)
@pytest.mark.parametrize("seed", range(4))
def test_a_turned_camera_is_found_by_the_axis_that_it_turns(fault: str, seed: int) -> None:
    episode = fixed_camera(seed)
    turn, detector = TURNS[fault]
    for name in ("camera_up_down", "camera_left_right"):
        assert told(name, episode)["image"].verdict == "confirmed"
        turned = told(name, with_camera(episode, "image", turn(episode.thumbnails["image"])))["image"]
        assert turned.verdict == ("contradicted" if name == detector else "confirmed")
        if name == detector:
            assert (turned.measured, turned.action) == (fault, "stop")


def test_a_camera_that_is_late_is_not_called_turned() -> None:
    turned = DatasetVerdict("camera_up_down", "contradicted", "image", against=4, action="stop", measured="upside down")
    other = replace(turned, subject="side")
    late = DatasetVerdict("camera_delay", "contradicted", "image", against=9, action="stop", measured="5.6 rows behind")
    found = in_step((late, turned, other))
    assert found[0] is late and found[2] is other
    assert (found[1].verdict, found[1].against, found[1].abstained) == ("no evidence", 0, 4)
    assert found[1].detail.startswith("5.6 rows behind")
    assert in_step((replace(late, action="warn"), turned))[1] is turned


QUARTERS = {
    "turned by 90 degrees counterclockwise": lambda images: np.rot90(images, 1, (1, 2)),
    "turned by 90 degrees clockwise": lambda images: np.rot90(images, 3, (1, 2)),
    "turned by 90 degrees and mirrored": lambda images: images.transpose(0, 2, 1),
}


@pytest.mark.parametrize("fault", QUARTERS)
@pytest.mark.parametrize("seed", range(4))
def test_a_camera_that_is_turned_by_90_degrees_is_found(fault: str, seed: int) -> None:
    episode = fixed_camera(seed)
    images = episode.thumbnails["image"]
    for turn in (lambda i: i, lambda i: i[:, ::-1], lambda i: i[:, :, ::-1], lambda i: i[:, ::-1, ::-1]):
        assert told("camera_quarter_turn", with_camera(episode, "image", turn(images)))["image"].verdict == "confirmed"
    turned = with_camera(episode, "image", np.ascontiguousarray(QUARTERS[fault](images)))
    found = told("camera_quarter_turn", turned)["image"]
    assert (found.verdict, found.measured, found.action) == ("contradicted", fault, "stop")
    assert {told(name, turned)["image"].verdict for name in ("camera_up_down", "camera_left_right")} == {"no evidence"}
    still = changed(turned, state=turned.state * np.float32(0.05))
    assert told("camera_quarter_turn", still)["image"].verdict == "no evidence"
    wrist = with_claims(turned, cameras=(CameraClaim("image", right="y-", mounted=True),))
    assert told("camera_quarter_turn", wrist) == {}, "left to wrist_left_right"
    unknown = told("camera_quarter_turn", with_claims(turned, cameras=()))["image"]
    assert (unknown.verdict, unknown.detail) == ("no evidence", "no layout or camera pose tells it")


def test_orientation_needs_travel_motion_and_a_claim() -> None:
    episode = fixed_camera(0)
    state = episode.state.copy()
    state[:, :3] *= 0.01
    assert told("camera_up_down", changed(episode, state=state))["image"].verdict == "no evidence"
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 255, (len(state), 32, 32), np.uint8)
    assert told("camera_up_down", with_camera(episode, "image", noise))["image"].verdict == "no evidence"
    assert told("camera_up_down", with_claims(episode, cameras=())) == {}
    assert told("camera_up_down", with_claims(episode, cameras=(CameraClaim("image"),))) == {}


def test_a_wrist_camera_tells_left_and_right_but_never_up_and_down() -> None:
    episode = fixed_camera(2)
    wrist = with_claims(episode, cameras=(CameraClaim("image", "z+", "y-", mounted=True),))
    assert told("wrist_left_right", wrist)["image"].verdict == "confirmed"
    mirrored = with_camera(wrist, "image", episode.thumbnails["image"][:, :, ::-1])
    verdict = told("wrist_left_right", mirrored)["image"]
    assert (verdict.verdict, verdict.action) == ("contradicted", "warn")
    assert told("camera_up_down", wrist) == {}


def test_apparent_motion_has_the_right_sign_and_size() -> None:
    offsets = np.cumsum(np.tile([[0.4, -0.3]], (10, 1)), axis=0)
    np.testing.assert_allclose(apparent_motion(scene(offsets, 0))[1:].mean(axis=0), [0.4, -0.3], atol=0.08)
