"""Camera detectors: frozen, black, alike, exchanged, slow, turned; planted faults and clean twins."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from evidence_episodes import changed, clean_set, fixed_camera, pooled, scene, told, two_arms, with_claims
from paths import DATA

from converters.libero.options import LiberoOptions
from converters.libero.stored import agreeing
from fwdata.doctor.conventions import convention_findings
from fwdata.doctor.remedies import Patient
from fwdata.evidence.claims import ArmClaim, CameraClaim, ColourClaim
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.image_motion import apparent_motion
from fwdata.evidence.measure import in_step, measure, pool
from fwdata.evidence.records import DatasetVerdict
from fwdata.evidence.sentences import contradiction, line, not_verified, refusal
from fwdata.evidence.thumbnails import Collector, from_rgb
from fwdata.images.small import small_grey
from fwdata.manifest import load_manifest

ROBOTWIN = DATA / "robotwin"


def with_camera(episode, name: str, images):
    return changed(episode, thumbnails={**episode.thumbnails, name: images})


def test_a_frozen_camera_is_found() -> None:
    episode = clean_set()[0]
    assert {v.verdict for v in told("camera_frozen", episode).values()} == {"confirmed"}
    images = episode.thumbnails["left"].copy()
    images[60:] = images[60]
    half = told("camera_frozen", with_camera(episode, "left", images))["left"]
    assert (half.verdict, half.action) == ("contradicted", "warn")
    images[20:] = images[20]
    assert told("camera_frozen", with_camera(episode, "left", images))["left"].action == "stop"


def test_a_frozen_camera_is_neither_late_nor_of_other_joints() -> None:
    def stuck(episode: EpisodeInput) -> EpisodeInput:
        images = episode.thumbnails["head"].copy()
        images[30:] = images[30]
        return with_camera(episode, "head", images)

    episodes = [stuck(e) if number == 5 else e for number, e in enumerate(clean_set())]
    told_of = {v.detector for v in pool([measure(e) for e in episodes]) if v.against and v.action != "note"}
    assert told_of == {"camera_frozen"}


def test_a_camera_that_ends_on_the_way_is_found_in_a_short_episode() -> None:
    episode = two_arms(3, rows=40)
    assert {v.verdict for v in told("camera_frozen", episode).values()} == {"confirmed"}
    images = episode.thumbnails["head"].copy()
    images[22:] = images[22]
    verdict = told("camera_frozen", with_camera(episode, "head", images))["head"]
    assert (verdict.verdict, verdict.action) == ("contradicted", "warn") and verdict.value < 20
    back = episode.thumbnails["head"].copy()
    back[14:26] = back[14]
    assert told("camera_frozen", with_camera(episode, "head", back))["head"].verdict == "confirmed"


def test_a_slow_arm_in_a_dark_room_does_not_freeze_its_camera() -> None:
    episode = two_arms(2, rows=900)
    dark = {name: (images * 0.12).astype(np.uint8) for name, images in episode.thumbnails.items()}
    for every in (1, 3):
        shown = changed(episode, thumbnails={n: images[::every] for n, images in dark.items()}, every=every)
        assert {v.verdict for v in told("camera_frozen", shown).values()} == {"confirmed"}
        held = dark["head"].copy()
        held[500:] = held[500]
        stuck = changed(shown, thumbnails={**shown.thumbnails, "head": held[::every]})
        assert told("camera_frozen", stuck)["head"].verdict == "contradicted"


@pytest.mark.parametrize(("value", "words"), [(0, "black in some rows"), (255, "saturated in some rows")])
@pytest.mark.parametrize("every", [1, 2])
def test_images_that_show_nothing_in_some_rows_are_found(value: int, words: str, every: int) -> None:
    episode = clean_set()[0]
    images = episode.thumbnails["head"].copy()
    images[31:37] = value
    shown = {name: kept[::every] for name, kept in {**episode.thumbnails, "head": images}.items()}
    verdict = told("camera_content", changed(episode, thumbnails=shown, every=every))["head"]
    assert (verdict.verdict, verdict.action, verdict.measured) == ("contradicted", "warn", words)
    assert verdict.detail == f"6 of 120 rows, the first is {31 if every == 1 else 32}"
    images[32:37] = images[31] = episode.thumbnails["head"][30]
    images[30:32] = value
    assert told("camera_content", with_camera(episode, "head", images))["head"].verdict == "confirmed"


def test_one_frozen_camera_among_many_is_told_by_what_it_shows() -> None:
    images = clean_set()[0].thumbnails["left"].copy()
    images[20:] = images[20]
    verdict = pooled("camera_frozen", [with_camera(clean_set()[0], "left", images), *clean_set()[1:] * 2])["left"]
    assert (verdict.verdict, verdict.against, verdict.action, verdict.measured) == ("confirmed", 1, "warn", "frozen")
    assert "1 of 15 episodes with evidence measure 'frozen' (longest run of" in contradiction(verdict)
    assert line(verdict).endswith("confirmed by 14 of 15 episodes")


def test_a_wrist_camera_of_an_arm_at_rest_is_not_called_frozen() -> None:
    episode = clean_set()[0]
    state = episode.state.copy()
    state[:, :3] = 0
    still = np.repeat(episode.thumbnails["left"][:1], len(state), axis=0)
    verdict = told("camera_frozen", with_camera(changed(episode, state=state), "left", still))["left"]
    assert verdict.verdict == "no evidence"


def test_black_saturated_and_equal_cameras_are_found() -> None:
    episode = clean_set()[0]
    assert {v.verdict for v in told("camera_content", episode).values()} == {"confirmed"}
    head = episode.thumbnails["head"]
    for images, action, words in (
        (head // 200, "stop", "black"),
        (head // 20, "warn", "nearly black"),
        (np.full_like(head, 255), "warn", "saturated"),
    ):
        verdict = told("camera_content", with_camera(episode, "head", images))["head"]
        assert (verdict.verdict, verdict.action, verdict.measured) == ("contradicted", action, words)
    twice = told("camera_content", with_camera(episode, "right", episode.thumbnails["left"]))
    assert twice["left and right"].verdict == "contradicted"


@pytest.mark.parametrize("moving", ["both", "left", "right"])
def test_exchanged_wrist_cameras_are_found(moving: str) -> None:
    true, swapped = [], []
    for seed in range(4):
        episode = two_arms(seed)
        state, images = episode.state.copy(), dict(episode.thumbnails)
        for side, columns in (("left", slice(0, 3)), ("right", slice(4, 7))):
            if moving not in ("both", side):
                state[:, columns] = state[:1, columns]
                images[side] = np.repeat(images[side][:1], len(state), axis=0)
        true.append(changed(episode, state=state, thumbnails=images))
        exchanged = {**images, "left": images["right"], "right": images["left"]}
        swapped.append(changed(episode, state=state, thumbnails=exchanged))
    assert pooled("wrists_exchanged", true)[""].verdict == "confirmed"
    found = pooled("wrists_exchanged", swapped)[""]
    assert (found.verdict, found.action) == ("contradicted", "stop")


@pytest.mark.parametrize("seed", [2, 11])
def test_wrist_images_that_follow_neither_arm_are_not_called_exchanged(seed: int) -> None:
    """Images of another episode; an exchange shows on both arms, chance on one."""
    episode, other = two_arms(seed), two_arms(seed + 1000)
    images = {**episode.thumbnails, "left": other.thumbnails["left"], "right": other.thumbnails["right"]}
    found = told("wrists_exchanged", changed(episode, thumbnails=images))[""]
    assert found.verdict == "no evidence" and found.value is not None and found.value < -0.2


def test_arms_of_even_speed_tell_nothing_of_their_cameras() -> None:
    """Steady sines and images of chance, as a benchmark makes them: correlations of up to 0.4 by chance."""
    rng = np.random.default_rng(0)
    for seed in range(6):
        episode = two_arms(seed)
        steady = np.arange(len(episode.state))[:, None] * 0.01 + rng.normal(0, 1e-5, episode.state.shape)
        chance = {n: rng.integers(90, 110 + 20 * seed, i.shape, np.uint8) for n, i in episode.thumbnails.items()}
        found = told("wrists_exchanged", changed(episode, state=steady.astype(np.float32), thumbnails=chance))[""]
        assert (found.verdict, found.detail) == ("no evidence", "no arm moves at more than one speed")


def test_a_dead_wrist_camera_is_not_called_exchanged() -> None:
    """One arm moves, its camera is dead, and the other camera shows a little of that arm from afar."""
    episodes = []
    for seed in range(6):
        episode = two_arms(seed)
        state = episode.state.copy()
        state[:, 4:] = 0
        rng = np.random.default_rng(seed)
        seen = scene(state[:, [0, 1]] * 2 + rng.normal(0, 0.6, (len(state), 2)), 3)
        shown = {"left": np.repeat(episode.thumbnails["left"][:1], len(state), axis=0), "right": seen}
        episodes.append(changed(episode, state=state, thumbnails=shown))
    verdicts = [told("wrists_exchanged", episode)[""] for episode in episodes]
    assert {v.verdict for v in verdicts} == {"no evidence"} and any(v.value and v.value < -0.2 for v in verdicts)
    assert all(told("camera_frozen", episode)["left"].verdict == "contradicted" for episode in episodes)


def test_exchanged_cameras_are_named_before_what_follows_from_them() -> None:
    swapped = [
        changed(e, thumbnails={**e.thumbnails, "left": e.thumbnails["right"], "right": e.thumbnails["left"]})
        for e in clean_set()
    ]
    verdicts = pool([measure(episode) for episode in swapped])
    other = replace(next(v for v in verdicts if v.detector == "wrists_exchanged"), detector="camera_delay")
    why = refusal([other, *verdicts], (), {})
    assert why is not None and why.startswith("wrist cameras: expected") and "also contradicted: camera_delay" in why


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


def test_a_fixed_and_a_wrist_camera_that_are_exchanged_are_found() -> None:
    true, swapped = [], []
    for seed in range(4):
        episode = two_arms(seed)
        still = np.repeat(episode.thumbnails["head"][:1], 120, axis=0)
        still[:, 4:12, 4:12] = scene(episode.state[:, [0, 4]] * 12, 9, 8)  # a part of the image moves
        images = {**episode.thumbnails, "head": still}
        true.append(changed(episode, thumbnails=images))
        swapped.append(changed(episode, thumbnails={"head": images["left"], "left": still, "right": still}))
    assert {v.verdict for v in pooled("mounts_exchanged", true).values()} == {"confirmed"}
    found = pooled("mounts_exchanged", swapped).values()
    assert {(v.verdict, v.against > 0) for v in found} == {("contradicted", True)}
    frozen = with_camera(true[0], "left", true[0].thumbnails["left"][:1].repeat(120, axis=0))
    other = {v.verdict for v in told("mounts_exchanged", frozen).values()}
    assert "contradicted" not in other, "a frozen camera is another fault"


def test_a_camera_slower_than_the_rows_is_noted() -> None:
    episode = clean_set()[1]
    assert {v.verdict for v in told("camera_rate", episode).values()} == {"confirmed"}
    held = episode.thumbnails["head"][np.arange(120) // 2 * 2]
    slow = told("camera_rate", with_camera(episode, "head", held))["head"]
    assert (slow.verdict, slow.action) == ("contradicted", "note")
    assert slow.value == pytest.approx(0.5, abs=0.15)


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


def test_the_order_of_red_and_blue_is_never_guessed() -> None:
    episode = clean_set()[0]
    assert told("colour_order", episode) == {}
    unknown = with_claims(episode, colour=ColourClaim(reason="no video"))
    assert (told("colour_order", unknown)[""].verdict, told("colour_order", unknown)[""].detail) == (
        "no evidence",
        "no video",
    )
    shown = with_claims(episode, colour=ColourClaim("the episode's video"))
    assert told("colour_order", shown)[""].verdict == "confirmed"
    (said,) = pooled("colour_order", [shown, *[unknown] * 4]).values()
    assert not_verified([said]) == (
        "not verified: red/blue order (4 of 5 episodes, shown by the episode's video, others: no video)"
    )
    (said,) = pooled("colour_order", [unknown] * 4).values()
    assert not_verified([said]) == "not verified: red/blue order (4 of 4 episodes, no video)"


@pytest.mark.parametrize("light", [False, True])
def test_true_robotwin_images_are_content_and_move(light: bool) -> None:
    from converters.robotwin import Converter
    from fwdata.manifest import load_manifest

    converter = Converter(load_manifest("robotwin"))
    for ref in converter.discover(ROBOTWIN).episodes:
        source = converter.read(ROBOTWIN, ref)
        shown = {}
        for name, camera in source.cameras.items():
            taken = Collector(light, 1 + light)
            for frame in camera.frames():
                taken.add_jpeg(frame.data)
            shown[name] = taken.take()
        names = tuple(source.state_names)
        base = clean_set()[0]
        episode = changed(
            base,
            state=source.state,
            action=source.action,
            state_names=names,
            action_names=names,
            thumbnails=shown,
            every=1 + light,
        )
        arms = tuple(
            ArmClaim(side, tuple(i for i, n in enumerate(names) if n.startswith(f"{side}_joint")), f"{side}_camera")
            for side in ("left", "right")
        )
        episode = with_claims(episode, arms=arms, action="next_state")
        for detector in ("camera_content", "camera_frozen", "action_meaning"):
            assert "contradicted" not in {v.verdict for v in told(detector, episode).values()}
        black = {name: images // 40 for name, images in shown.items()}
        assert {v.measured for v in told("camera_content", changed(episode, thumbnails=black)).values()} == {"black"}


@pytest.mark.parametrize("size", [(480, 640), (240, 320), (128, 128), (64, 64), (37, 51)])
def test_thumbnails_of_pixels_and_of_jpeg_show_the_same(size: tuple[int, int]) -> None:
    from PIL import Image

    down, across = np.mgrid[: size[0], : size[1]]
    grey = (127 + 100 * np.sin(down / size[0] * 7) * np.cos(across / size[1] * 5)).astype(np.uint8)
    frame = np.repeat(grey[..., None], 3, axis=2)
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "jpeg", quality=95)
    small, decoded = from_rgb(frame[None])[0], small_grey(buffer.getvalue())
    assert 24 <= small.shape[0] <= size[0] and small.shape[1] <= 2 * 64
    assert small.mean() == pytest.approx(decoded.mean(), abs=3) and small.std() == pytest.approx(decoded.std(), abs=3)


def test_a_wrist_camera_of_an_arm_that_nobody_named_may_rest() -> None:
    """It does not stop a conversion; a camera that no arm carries by its name does."""
    episode = clean_set()[0]
    still = np.repeat(episode.thumbnails["left"][:1], len(episode.state), axis=0)
    for camera, action in (("left_wrist", "warn"), ("left", "stop")):
        shown = {"head": episode.thumbnails["head"], camera: still}
        plain = with_claims(changed(episode, thumbnails=shown), arms=(), layout=None)
        assert told("camera_frozen", plain)[camera].action == action


def unnamed(episode: EpisodeInput) -> EpisodeInput:
    """Two arms of seven columns each whose names do not tell them, and whose wrist cameras' names do."""
    still = np.zeros((len(episode.state), 3), np.float32)
    state = np.concatenate([episode.state[:, :4], still, episode.state[:, 4:], still], axis=1)
    images = {"head": "head", "left": "cam_left_wrist", "right": "cam_right_wrist"}
    shown = {images[name]: thumbnails for name, thumbnails in episode.thumbnails.items()}
    names = tuple(f"joint_{i}" for i in range(14))
    plain = with_claims(episode, arms=(), layout=None, grippers=(), pairs=None)
    return changed(plain, state=state, action=state, state_names=names, action_names=names, thumbnails=shown)


def test_halves_of_unnamed_columns_are_the_arms_that_wrist_cameras_name() -> None:
    rested, exchanged, frozen = [], [], []
    for seed in range(4):
        episode = unnamed(two_arms(seed))
        images, state = dict(episode.thumbnails), episode.state.copy()
        still = np.repeat(images["cam_left_wrist"][:1], len(state), axis=0)
        frozen.append(with_camera(episode, "cam_left_wrist", still))
        left, right = images["cam_left_wrist"], images["cam_right_wrist"]
        exchanged.append(changed(episode, thumbnails={**images, "cam_left_wrist": right, "cam_right_wrist": left}))
        state[:, :7] = state[:1, :7]
        rested.append(changed(frozen[-1], state=state))
    assert pooled("camera_frozen", rested)["cam_left_wrist"].verdict == "no evidence"
    assert pooled("wrists_exchanged", rested)[""].verdict == "confirmed"
    found = pooled("wrists_exchanged", exchanged)[""]
    assert (found.verdict, found.action) == ("contradicted", "warn")
    dead = pooled("camera_frozen", frozen)["cam_left_wrist"]
    assert (dead.verdict, dead.action) == ("contradicted", "warn")
    named = [changed(e, state_names=tuple(f"left_{i}" for i in range(14))) for e in exchanged]
    assert "" not in pooled("wrists_exchanged", named)


def test_an_exchange_is_told_by_more_than_what_arms_that_move_together_show() -> None:
    exchanged = [
        told("wrists_exchanged", changed(e, thumbnails={"left": e.thumbnails["right"], "right": e.thumbnails["left"]}))
        for e in clean_set()
    ]
    verdicts = {verdict.value: verdict.verdict for found in exchanged for verdict in found.values()}
    assert sorted(verdicts.values()) == ["contradicted"] * 7 + ["no evidence"]
    assert all((value <= -0.4) == (verdict == "contradicted") for value, verdict in verdicts.items())
    assert max(verdicts) < -0.2  # what tells a clean episode's cameras
