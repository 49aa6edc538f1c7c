"""Camera detectors: frozen, black, alike, exchanged, slow, turned; planted faults and clean twins."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from evidence_episodes import changed, clean_set, pooled, scene, told, two_arms, with_camera, with_claims
from paths import DATA

from fwdata.evidence.claims import ArmClaim, ColourClaim
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure, pool
from fwdata.evidence.records import DatasetVerdict
from fwdata.evidence.sentences import beside_refusal, contradiction, line, not_verified, refusal, warnings
from fwdata.evidence.thumbnails import Collector, from_rgb
from fwdata.images.small import small_grey
from fwdata.manifest import load_manifest

ROBOTWIN = DATA / "robotwin"


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
    beside = beside_refusal([other, *verdicts], ())
    assert any(text.startswith("camera against joints in time") for text in beside)
    assert not any(text.startswith("wrist cameras:") for text in beside)


def test_all_that_are_late_are_named_with_what_was_measured() -> None:
    late = DatasetVerdict("camera_delay", "contradicted", "head", against=9, action="stop", decided="in step")
    camera = [replace(late, subject=name, measured=f"{rows} rows") for name, rows in (("head", 6), ("left", 5))]
    state = replace(late, detector="state_delay", subject="", action="warn", measured="0.40 s")
    why = refusal([*camera, state], (), {})
    assert why is not None and "head: expected 'in step', but 9 of 9" in why and "; also left '5 rows'; shift" in why
    assert beside_refusal([*camera, state], ()) == [
        "state against action in time: expected 'in step', but 9 of 9 episodes with evidence measure '0.40 s'"
    ]
    same = [replace(each, measured="6 rows", action="warn") for each in camera]
    assert [text.partition("; ")[2] for text in warnings(same, {})] == ["also left"]


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
    assert not_verified([said]) == ("red/blue order (4 of 5 episodes): shown by the episode's video, others: no video",)
    (said,) = pooled("colour_order", [unknown] * 4).values()
    assert not_verified([said]) == ("red/blue order (4 of 4 episodes): no video",)


@pytest.mark.parametrize("light", [False, True])
def test_true_robotwin_images_are_content_and_move(light: bool) -> None:
    from converters.robotwin import Converter

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
