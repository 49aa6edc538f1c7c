"""Images of other episodes, and cameras that look otherwise in single episodes: planted beside their clean twins."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
import simplejpeg
from commands import Command
from evidence_episodes import changed, clean_set, glued, told
from moving_libero import COMMAND, write_libero
from numpy.typing import NDArray

from fwdata.evidence.detectors.one_look import odd_looks, two_groups
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.looks import CameraLook, tiles_of
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, Verdict
from fwdata.evidence.registry import find_detector
from fwdata.evidence.thumbnails import Collector

CHANGES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "red and blue exchanged": lambda image: image[..., ::-1],
    "mirrored": lambda image: image[..., :, ::-1, :],
    "upside down": lambda image: image[..., ::-1, :, :],
    "turned by 180 degrees": lambda image: image[..., ::-1, ::-1, :],
    "turned by 90 degrees": lambda image: np.rot90(image, 1, (-3, -2)),
}


def room(seed: int) -> NDArray[np.float64]:
    """float64 [48, 64, 3], a scene of coloured boxes."""
    rng = np.random.default_rng(seed)
    image = np.full((48, 64, 3), 110.0)
    for _ in range(14):
        y, x = rng.integers(0, 40), rng.integers(0, 54)
        image[y : y + rng.integers(6, 20), x : x + rng.integers(6, 24)] = rng.uniform(20, 235, 3)
    return image


def lit(image: NDArray[np.float64], rng: np.random.Generator, much: float) -> NDArray[np.uint8]:
    """The scene in other light, with something that lies elsewhere in every episode."""
    image = image.copy()
    y, x = rng.integers(0, 40), rng.integers(0, 54)
    image[y : y + 4, x : x + 5] = (200, 40, 40)
    gains = (1 + rng.uniform(-much, much)) * (1 + rng.uniform(-much / 2, much / 2, 3))
    return np.clip(image * gains + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def tiles(scenes: list[int], much: float = 0.1) -> NDArray[np.float64]:
    """float64 [n, 8, 8, 3] of one episode in each scene."""
    rng = np.random.default_rng(5)
    return np.stack([tiles_of(lit(room(scene), rng, much)) for scene in scenes]).astype(np.float64)


@pytest.mark.parametrize("change", CHANGES)
def test_an_episode_that_is_changed_against_the_others_is_found(change: str) -> None:
    for scenes in ([1] * 8, [2] * 6 + [3] * 12):
        looks = tiles(scenes)
        assert odd_looks(looks) == []
        for place in (0, len(scenes) - 1):
            planted = looks.copy()
            planted[place] = CHANGES[change](planted[place])
            assert [(odd.place, odd.change) for odd in odd_looks(planted)] == [(place, change)]


@pytest.mark.parametrize("change", ["mirrored", "upside down", "turned by 180 degrees", "turned by 90 degrees"])
def test_episodes_that_were_changed_together_are_found(change: str) -> None:
    for scenes, places in (([1] * 40, range(10, 20)), ([1] * 12, range(4)), ([2] * 12 + [3] * 12, range(9, 15))):
        looks = tiles(scenes)
        looks[list(places)] = CHANGES[change](looks[list(places)])
        found = odd_looks(looks)
        assert [(odd.place, odd.change, odd.halves) for odd in found] == [(place, change, False) for place in places]
    half = tiles([1] * 10)
    half[:5] = CHANGES[change](half[:5])
    found = odd_looks(half)
    assert [odd.halves for odd in found] == ([] if change == "mirrored" else [True] * 5)


def test_scenes_of_their_own_and_sets_of_both_kinds_are_no_exceptions() -> None:
    assert odd_looks(tiles(list(range(20)))) == []  # every episode in another room
    assert odd_looks(tiles([1] * 9 + [2])) == []  # one in another room
    half = tiles([1] * 8)
    half[::2] = half[::2, :, ::-1]
    assert odd_looks(half) == []  # as where a set was mirrored to have more of it
    grey = tiles([1] * 8).mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    assert odd_looks(grey) == []
    blue = tiles([1] * 8)
    blue[3] *= (0.6, 1.0, 1.5)  # the light of another lamp
    assert odd_looks(blue) == []


def test_the_verdict_names_camera_episode_and_change() -> None:
    looks = tiles([1] * 8).astype(np.uint8)
    episodes = [
        changed(e, looks={"head": CameraLook(look, np.array([number], np.uint32))})
        for number, (e, look) in enumerate(zip(clean_set(), looks, strict=True))
    ]
    assert looked("one_look", episodes)["head"].verdict == "confirmed"
    odd = episodes[5].looks["head"].tiles[..., ::-1]
    episodes[5] = changed(episodes[5], looks={"head": CameraLook(odd, np.array([5], np.uint32))})
    found = looked("one_look", episodes)["head"]
    assert (found.action, found.against, found.episodes) == ("warn", 1, ("episode_5",))
    assert (
        found.measured == "red and blue exchanged against the others" and "episode_5 correlates by -0." in found.detail
    )
    for few in range(2, 5):  # fewer than five tell red and blue by themselves, in one scene
        assert looked("one_look", episodes[:few]) == {}
        told = looked("one_look", [*episodes[: few - 1], episodes[5]])["head"]
        assert (told.action, told.against, told.episodes) == ("warn", 1, ("episode_5",))
        assert "nothing tells the right one" in told.measured
    for number in (1, 3, 7):
        other = CameraLook(episodes[number].looks["head"].tiles[..., ::-1], np.array([number], np.uint32))
        episodes[number] = changed(episodes[number], looks={"head": other})
    half = looked("one_look", episodes)["head"]
    assert (half.action, half.against, "between two groups" in half.measured) == ("warn", 4, True)


@pytest.mark.parametrize("much", [0.1, 0.3])
def test_half_a_set_with_red_and_blue_exchanged_makes_two_groups(much: float) -> None:
    for scenes in ([1] * 6, [1] * 16, [2] * 3 + [3] * 12):
        looks = tiles(scenes, much)
        assert two_groups(looks) == ([], [])
        odd = list(range(len(scenes)))[::2]
        looks[odd] = looks[odd][..., ::-1]
        found = two_groups(looks)
        room_of = [place for place in odd if scenes[place] == scenes[found[0][0]]]
        assert sorted(room_of) in (sorted(found[0]), sorted(found[1]))
    assert two_groups(tiles(list(range(20)))) == ([], [])


def looked(name: str, episodes: list[EpisodeInput]) -> dict[str, DatasetVerdict]:
    """Pooled verdicts of a detector by subject; both have the traces of one."""
    trace = find_detector("same_images").trace
    measured = [EpisodeMeasurement(e.id, e.group, (), trace(e)) for e in episodes]
    return {verdict.subject: verdict for verdict in find_detector(name).pool(measured)}


def with_images(episode: EpisodeInput, prints: Iterable[int]) -> EpisodeInput:
    return changed(
        episode, looks={"head": CameraLook(np.zeros((8, 8, 3), np.uint8), np.array(list(prints), np.uint32))}
    )


def test_images_of_another_episode_are_found_and_copies_of_whole_episodes_left_to_h1() -> None:
    episodes = [with_images(e, range(100 * number, 100 * number + 32)) for number, e in enumerate(clean_set())]
    assert looked("same_images", episodes)[""].verdict == "confirmed"
    planted = [*episodes[:6], with_images(episodes[6], range(110, 142)), episodes[7]]
    found = looked("same_images", planted)[""]
    assert (found.action, found.against, found.episodes) == ("warn", 2, ("episode_1", "episode_6"))
    assert found.detail == "episode_1 head is episode_6 head"
    copy = changed(episodes[1], id="copy")
    assert looked("same_images", [*episodes, copy])[""].verdict == "confirmed"


def test_still_and_black_images_are_not_those_of_another_episode() -> None:
    still = [with_images(e, range(3)) for e in clean_set()]
    assert looked("same_images", still)[""].verdict == "confirmed"
    begin_alike = [with_images(e, [*range(12), *range(100 * n, 100 * n + 20)]) for n, e in enumerate(clean_set(), 1)]
    assert looked("same_images", begin_alike)[""].verdict == "confirmed"


def test_a_look_is_the_same_however_the_frames_come() -> None:
    rng = np.random.default_rng(0)
    frames = np.stack([lit(room(4), rng, 0.0) for _ in range(40)])
    blocks, single = Collector(), Collector(light=True, every=3)
    blocks.add_rgb(frames)
    for frame in frames:
        single.add_rgb(frame[None])
    one, other = blocks.look(), single.look()
    assert one is not None and other is not None
    assert len(one.prints) == 32
    np.testing.assert_array_equal(one.prints, other.prints)
    np.testing.assert_array_equal(one.tiles, other.tiles)
    np.testing.assert_allclose(one.tiles, frames[0].reshape(8, 6, 8, 8, 3).mean(axis=(1, 3)), atol=1)
    assert Collector().look() is None


@pytest.mark.parametrize("side", [48, 480])
def test_images_that_differ_in_a_corner_have_prints_of_their_own(side: int) -> None:
    rng = np.random.default_rng(0)
    scene = np.repeat(np.repeat(rng.integers(0, 255, (24, 32, 3), np.uint8), side // 24, 0), side // 24, 1)
    frames = np.repeat(scene[None], 12, axis=0)
    size = side // 8  # a hand that turns, before what stands still
    corners = ((0, 0), (side - size, 0), (side // 2, len(scene[0]) - size))
    for number, frame in enumerate(frames):
        down, across = corners[number // 4]
        frame[down : down + size, across : across + size] = 20 * number
    raw, jpeg = Collector(), Collector()
    raw.add_rgb(frames)
    for frame in (*frames, *frames):
        jpeg.add_jpeg(simplejpeg.encode_jpeg(np.ascontiguousarray(frame)))
    for taken in (raw, jpeg):
        found = taken.look()
        assert found is not None and len(found.prints) == len(frames)


def test_colours_of_swapped_buffers_and_of_video_are_the_true_ones() -> None:
    image = lit(room(4), np.random.default_rng(0), 0.0)
    true = tiles_of(image).astype(float)
    for swapped in (False, True):
        taken = Collector()
        coded = np.ascontiguousarray(image[..., ::-1]) if swapped else image
        taken.add_jpeg(simplejpeg.encode_jpeg(coded, quality=95, colorsubsampling="444"), swapped=swapped)
        found = taken.look()
        assert found is not None
        np.testing.assert_allclose(found.tiles, true, atol=6)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as box:
        stream = box.add_stream("libx264", rate=Fraction(20), width=64, height=48, pix_fmt="yuv444p")
        for packet in (*stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")), *stream.encode()):
            box.mux(packet)
    taken = Collector()
    with av.open(io.BytesIO(file.getvalue())) as box:
        for frame in box.decode(video=0):
            taken.add_video(frame)
    found = taken.look()
    assert found is not None
    np.testing.assert_allclose(found.tiles, true, atol=12)


def paint(number: int, demo: h5py.Group) -> None:
    """Coloured images that move with the arm, of one room."""
    shift = (np.asarray(demo["robot_states"])[:, 2:5] * 60).round().astype(int)
    scene = np.tile(room(7)[:32, :32], (3, 3, 1)).astype(np.uint8)
    frames = np.repeat(room(9)[None, :32, :32].astype(np.uint8), len(shift), axis=0)
    for row, (_, right, down) in enumerate(shift):
        frames[row, 12:24, 8:24] = scene[32 + down : 44 + down, 32 + right : 48 + right]
    for camera in ("agentview_rgb", "eye_in_hand_rgb"):
        demo["obs"][camera][...] = frames[:, ::-1, ::-1]


def spoil(number: int, demo: h5py.Group) -> None:
    """Demonstration 1 has red and blue exchanged, 3 the images of 2, 4 positions rounded to centimetres."""
    paint(number, demo)
    images = demo["obs/agentview_rgb"]
    if number == 1:
        images[...] = np.asarray(images)[..., ::-1]
    elif number == 3:
        images[...] = demo.parent["demo_2/obs/agentview_rgb"]
    elif number == 4:
        for key in ("ee_pos", "ee_states"):
            demo["obs"][key][:, :3] = np.round(demo["obs"][key][:, :3], 2)


@pytest.mark.slow
def test_spoilt_demonstrations_of_a_file_are_named_by_convert_and_left_out_by_the_doctors_command(
    tmp_path: Path, run: Command
) -> None:
    clean = write_libero(tmp_path / "clean", 6, paint)
    told = run(*COMMAND[:2], clean, "--out", tmp_path / "c.zarr", *COMMAND[2:])
    names = ("one_look", "same_images", "coarse_values", "repeated_rows")
    questions = [find_detector(name).question for name in names]
    assert told.code == 0 and not [line for line in told.err.splitlines() if any(q in line for q in questions)]
    raw = write_libero(tmp_path / "raw", 6, spoil)
    told = run(*COMMAND[:2], raw, "--out", tmp_path / "o.zarr", *COMMAND[2:])
    lines = {q: line for q in questions for line in told.err.splitlines() if line.startswith(f"warning: {q}")}
    assert [q for q in questions if q in lines] == questions[:3] and told.code == 0
    assert "red and blue exchanged" in lines[questions[0]] and "demo_1" in lines[questions[0]]
    assert "demo_2" in lines[questions[1]] and "demo_3" in lines[questions[1]]
    for where in ((raw, "--source", "libero", "--set", "gripper=plus_closes"), (tmp_path / "o.zarr",)):
        found = {f["detector"]: f for f in json.loads(run("doctor", *where, "--json").out)["findings"]}
        assert [found[name]["count"] for name in names[:3]] == [1, 2, 1] and names[3] not in found
        assert "--exclude " in found["one_look"]["command"] and "demo_1" in found["one_look"]["command"]
        assert found["same_images"]["command"].count("--exclude") == 2


@pytest.mark.parametrize("every", [1, 3])
def test_two_takes_in_one_episode_are_found_at_their_row(every: int) -> None:
    def seen(episode: EpisodeInput) -> Verdict:
        images = {name: each[::every] for name, each in episode.thumbnails.items()}
        return told("scene_cut", changed(episode, thumbnails=images, every=every))[""]

    clean = clean_set()
    assert {seen(episode).verdict for episode in clean} == {"confirmed"}
    found = [seen(glued(one, other)) for one, other in pairwise(clean)]
    hits = [v for v in found if v.verdict == "contradicted"]
    assert len(hits) >= (4 if every == 1 else 1) and {(v.value, v.action) for v in hits} == {(70.0, "warn")}
    assert hits[0].detail.endswith("columns of the state and the images jump at row 70")


def test_a_jump_of_the_state_or_of_the_image_alone_is_no_cut() -> None:
    one, other = clean_set()[5], clean_set()[0]
    both = glued(one, other)
    assert told("scene_cut", both)[""].verdict == "contradicted"
    still = {name: np.repeat(each[:1], len(both.state), axis=0) for name, each in one.thumbnails.items()}
    flash = {name: each.copy() for name, each in one.thumbnails.items()}
    for images in flash.values():
        images[60] = 255 - images[60]
    for episode in (changed(both, thumbnails=still), changed(one, thumbnails=flash)):
        assert told("scene_cut", episode)[""].verdict == "confirmed"
    resting = {**both.thumbnails, "left": still["left"]}  # the camera of an arm that rests tells nothing
    assert told("scene_cut", changed(both, thumbnails=resting))[""].verdict == "contradicted"
    assert told("scene_cut", changed(both, thumbnails={})) == {}


@pytest.mark.parametrize("every", [1, 3])
def test_an_image_of_another_episode_at_an_end_is_found(every: int) -> None:
    """As where a video that several episodes share is a row off: rows go on, and the image does not."""

    def off(episode: EpisodeInput, other: EpisodeInput, camera: str, by: int) -> EpisodeInput:
        images = {name: each[::every].copy() for name, each in episode.thumbnails.items()}
        images[camera] = np.roll(images[camera], by, axis=0)
        images[camera][0 if by > 0 else -1] = other.thumbnails[camera][-1 if by > 0 else 0]
        return changed(episode, thumbnails=images, every=every)

    clean = clean_set()
    hits = []
    for number, (one, other) in enumerate(pairwise(clean)):
        camera, by = list(one.thumbnails)[number % len(one.thumbnails)], (1, -1)[number % 2]
        found = told("scene_cut", off(one, other, camera, by))[""]
        if found.verdict == "contradicted":
            hits.append(found)
            place = "first" if by > 0 else "last"
            assert found.detail.startswith(f"the {place} image of {camera} is unlike") and found.action == "warn"
            assert found.value == (0.0 if by > 0 else len(one.state) - 1)
    assert len(hits) >= (4 if every == 1 else 3)


def test_rows_left_out_of_a_short_episode_are_found() -> None:
    """Of fewer than a hundred steps the largest one is most of their 99th percentile."""
    hits = []
    for episode in clean_set():
        rows = np.arange(25, 85)
        for used in (rows, np.delete(rows, np.s_[25:37])):
            kept = {"state": episode.state[used], "action": episode.action[used]}
            images = {name: each[used] for name, each in episode.thumbnails.items()}
            short = changed(episode, **kept, thumbnails=images, timestamp_s=episode.timestamp_s[: len(used)])
            hits.append(told("scene_cut", short)[""].verdict == "contradicted")
    assert not any(hits[::2]) and sum(hits[1::2]) >= len(hits) // 8


def rooms_of(colours: Iterable[int], seed: int) -> NDArray[np.float64]:
    """float64 [n, 8, 8, 3]: first images of one grey room, with a red (0) or blue (2) thing of one size in it."""
    rng = np.random.default_rng(seed)
    room = rng.uniform(60, 180, (8, 8, 1)) + rng.normal(0, 3, (8, 8, 3))
    found = []
    for colour in colours:
        image, (down, across) = room + rng.normal(0, 0.5, (8, 8, 3)), rng.integers(3, 5, 2)
        image[down : down + 3, across : across + 2] = 40
        image[down : down + 3, across : across + 2, colour] = 220
        found.append(image)
    return np.stack(found)


def test_a_red_thing_in_the_place_of_a_blue_one_is_no_exchange() -> None:
    for seed in range(30):
        few, half = rooms_of([2, 0, 0, 0, 0, 0, 0, 0], seed), rooms_of([2, 0] * 6, seed)
        assert not [odd for each in (few, half) for odd in odd_looks(each) if "red" in odd.change]
        assert two_groups(half) == ([], [])


def both(first: list[int], second: list[int], odd: tuple[int, ...]) -> list[EpisodeInput]:
    """Episodes of two cameras in scenes of these numbers, the cameras exchanged in some."""
    pairs = zip(tiles(first).astype(np.uint8), tiles(second).astype(np.uint8), strict=True)
    episodes = []
    for number, (one, other) in enumerate(pairs):
        shown = (other, one) if number in odd else (one, other)
        looks = {
            name: CameraLook(look, np.array([2 * number + place], np.uint32))
            for place, (name, look) in enumerate(zip(("head", "hand"), shown, strict=True))
        }
        episodes.append(changed(clean_set()[number % 4], id=f"episode_{number}", looks=looks))
    return episodes


@pytest.mark.parametrize(
    ("first", "second", "odd"),
    [
        ([1] * 8, [2] * 8, (5,)),
        ([1] * 8, [2] * 8, (0, 3, 7)),
        ([1] * 6 + [3] * 6, [2] * 6 + [4] * 6, (2, 9)),  # two rooms
    ],
)
def test_cameras_that_are_exchanged_in_some_episodes_are_found(first, second, odd) -> None:
    assert set(looked("one_look", both(first, second, ()))) == {"head", "hand"}
    found = looked("one_look", both(first, second, odd))["head and hand"]
    assert (found.action, found.measured) == ("warn", "the cameras exchanged against the others")
    assert found.episodes == tuple(f"episode_{number}" for number in odd)


def test_cameras_that_are_exchanged_in_half_of_the_episodes_make_two_groups() -> None:
    found = looked("one_look", both([1] * 8, [2] * 8, (0, 2, 4, 6)))["head and hand"]
    assert "exchanged between two groups" in found.measured and found.against == 4


def test_cameras_that_look_alike_or_at_other_scenes_are_not_called_exchanged() -> None:
    for first, second in (([1] * 8, [1] * 8), (list(range(8)), list(range(8, 16))), ([1] * 7 + [3], [2] * 8)):
        assert set(looked("one_look", both(first, second, ()))) == {"head", "hand"}
    assert "head and hand" not in looked("one_look", both([1] * 4, [2] * 4, (1,)))
