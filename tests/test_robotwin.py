"""The RoboTwin converter: every variant, every folder order, and everything that goes wrong in real downloads."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robotwin_files import (
    LAYOUTS,
    SEEN,
    UNSEEN,
    VARIANTS,
    encode,
    picture,
    task_folder,
    write_episode,
    write_task,
    write_video,
)

from converters._robotwin_paths import ARM_JOINTS, TASKS, canonical_embodiment, episode_index, parse_folder
from converters.robotwin import Converter
from fwdata.api import BadEpisode, EncodedCamera, Episode, RawCamera, UsageError
from fwdata.api import Converter as Contract
from fwdata.jpeg import decode_rgb
from fwdata.manifest import load_manifest

SAMPLE = Path(__file__).parent / "data" / "robotwin"
TASK = "beat_block_hammer"
EXPECTED = json.loads((SAMPLE / "expected.json").read_text())["episodes"]


def converter(**options: object) -> Converter:
    return Converter(load_manifest("robotwin").model_copy(update={"options": options}))


def read_all(root: Path, **options: object) -> list[Episode]:
    made = converter(**options)
    return [made.read(root, ref) for ref in made.discover(root).episodes]


def read_one(root: Path, **options: object) -> Episode:
    (episode,) = read_all(root, **options)
    return episode


def colours(camera: EncodedCamera | RawCamera) -> np.ndarray:
    """True RGB [T, H, W, 3] of a camera, as the store writer decodes it."""
    if isinstance(camera, RawCamera):
        return np.concatenate(list(camera.frames()))
    return np.stack([decode_rgb(frame.data, frame.red_blue_swapped) for frame in camera.frames()])


def recording(folder: Path) -> h5py.File:
    """The only recording of a folder, opened to damage it."""
    (path,) = (folder / "data").iterdir()
    return h5py.File(path, "r+")


def replace(file: h5py.File, key: str, value: object) -> None:
    del file[key]
    file[key] = value


def reason(root: Path, **options: object) -> str:
    with pytest.raises(BadEpisode) as caught:
        read_one(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The official sample


@pytest.mark.parametrize("about", EXPECTED.values(), ids=EXPECTED)
def test_official_sample(about):
    made = converter()
    assert isinstance(made, Contract)
    refs = {ref.source: ref for ref in made.discover(SAMPLE).episodes}
    episode = made.read(SAMPLE, pickle.loads(pickle.dumps(refs[about["path"]])))  # noqa: S301 (workers get it so)
    assert len(episode.state) == len(episode.action) == about["num_transitions"] == about["num_frames"] - 1
    for name, rows in (("state", episode.state), ("action", episode.action)):
        for probe in about[name].values():
            assert np.array_equal(rows[probe["index"]], np.float32(probe["values"]))
    assert list(episode.instructions) == list(dict.fromkeys(about["instructions"]["seen"]))
    assert episode.metadata["instructions_unseen"] == list(dict.fromkeys(about["instructions"]["unseen"]))
    for name, camera in episode.cameras.items():
        assert (camera.height, camera.width) == (about["cameras"][name]["height"], about["cameras"][name]["width"])
        pictures = colours(camera)
        assert len(pictures) == about["num_transitions"]
        for probe in about["cameras"][name]["first_frame_true_rgb_probes"]:
            assert np.abs(pictures[0, probe["y"], probe["x"]].astype(int) - probe["rgb"]).max() <= 8
    assert list(episode.cameras) == ["head_camera", "left_camera", "right_camera"]
    assert episode.metadata["cameras_not_used"] == ["front_camera"]
    assert episode.metadata["colour_check"]["verdict"] == "agrees"
    assert episode.metadata["embodiment"] == about["embodiment"] and episode.metadata["setting"] == about["setting"]
    assert episode.warnings == ()
    assert episode.timestamp_ns[:3].tolist() == [0, 60_000_000, 120_000_000]


def test_sample_references():
    found = converter().discover(SAMPLE)
    assert [ref.id for ref in found.episodes] == [f"{TASK}/aloha-agilex/clean/episode_{i}" for i in (0, 1)]
    assert found.episodes[0].group == f"{TASK}/aloha-agilex/clean"
    assert found.episodes[0].num_bytes == (SAMPLE / found.episodes[0].source).stat().st_size
    assert all((SAMPLE / file).is_file() for ref in found.episodes for file in ref.files)
    assert found.skipped == () and len(found.warnings) == 1 and "2 episodes found, 50 expected" in found.warnings[0]
    seeds = [converter().read(SAMPLE, ref).metadata["seed"] for ref in found.episodes]
    assert seeds == [0, 3]


@pytest.mark.parametrize("below", [TASK, f"{TASK}/aloha-agilex_clean_50", f"{TASK}/aloha-agilex_clean_50/data"])
def test_a_root_of_any_level_gives_the_same_episodes(below):
    whole, part = converter().discover(SAMPLE), converter().discover(SAMPLE / below)
    assert [ref.id for ref in part.episodes] == [ref.id for ref in whole.episodes]
    episode = converter().read(SAMPLE / below, part.episodes[1])
    assert episode.metadata["instruction_source"] == "instructions/episode1.json"
    assert episode.metadata["seed"] == 3 and episode.metadata["colour_check"]["verdict"] == "agrees"


def test_a_single_file_is_a_root():
    path = SAMPLE / TASK / "aloha-agilex_clean_50" / "data" / "episode1.hdf5"
    found = converter().discover(path)
    assert [ref.id for ref in found.episodes] == [f"{TASK}/aloha-agilex/clean/episode_1"] and found.warnings == ()
    assert converter().read(path, found.episodes[0]).metadata["seed"] == 3


# Variants and folder orders


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_hold_the_same_rows_and_colours(tmp_path, variant):
    written = write_episode(tmp_path / TASK / "aloha-agilex_clean_50" / "data" / "episode0.hdf5", variant)
    episode = read_one(tmp_path)
    assert np.array_equal(episode.state, written.rows[:-1].astype(np.float32))
    assert np.array_equal(episode.action, written.rows[1:].astype(np.float32))
    assert list(episode.cameras) == ["head_camera", "left_camera", "right_camera"]
    for name, camera in episode.cameras.items():
        error = np.abs(colours(camera).astype(int) - written.pictures[name][:-1])
        assert np.median(error) <= 3  # chroma of edges is blurred
        assert (camera.height, camera.width) == (48, 64)
    assert episode.metadata["variant"] == {"classic": "classic"}.get(variant, f"v1.0 {variant}")
    assert episode.metadata["fps_label"] == (None if variant == "classic" else 15)
    assert episode.metadata["colour_order"]["head_camera"] == ("marked" if variant == "marked" else "swapped")
    assert episode.metadata["recorded_frames"] == (6 if variant == "classic" else 5)
    if variant != "classic":
        assert list(episode.instructions) == list(dict.fromkeys(SEEN))
        assert episode.metadata["instruction_source"] == "recording"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folder_orders_tell_the_same(tmp_path, layout):
    write_task(tmp_path, layout, TASK, [10, 2], video=True)
    refs = converter().discover(tmp_path).episodes
    assert [ref.hints["index"] for ref in refs] == [2, 10]  # by number, not by text
    hints = refs[0].hints
    assert hints["task"] == TASK
    assert hints["setting"] == ("unknown" if layout == "v1-archive" else "clean")
    assert hints["embodiment"] == ("unknown" if layout == "classic" else "aloha-agilex")
    episode = converter().read(tmp_path, refs[1])
    assert episode.metadata["seed"] == 110 and episode.metadata["index"] == 10
    assert episode.metadata["colour_check"]["verdict"] == "agrees"
    assert episode.metadata["instructions_unseen"] == ([] if layout == "v1-archive" else list(UNSEEN))
    assert episode.warnings == ()


def test_frames_can_be_passed_twice_and_pickled(tmp_path):
    write_task(tmp_path, "archive", TASK, [0], num_frames=150)
    camera = read_one(tmp_path).cameras["head_camera"]
    first = [frame.data for frame in camera.frames()]
    assert len(first) == 149 and first == [frame.data for frame in pickle.loads(pickle.dumps(camera)).frames()]  # noqa: S301
    assert first[100] == encode(picture("head_camera", 100, (48, 64)))


@pytest.mark.parametrize("form", ["rows of bytes", "variable length", "pixels"])
def test_other_storage_of_pictures(tmp_path, form):
    folder = write_task(tmp_path, "v1", TASK, [0], variant="marked")
    images = np.stack([picture("head_camera", t, (48, 64)) for t in range(5)])
    data = [encode(image, marked=True) for image in images]
    with recording(folder) as file:
        key = "vision/cam_head/colors"
        if form == "pixels":
            replace(file, key, images)
        elif form == "rows of bytes":
            longest = max(map(len, data))
            replace(file, key, np.stack([np.frombuffer(d.ljust(longest, b"\0"), np.uint8) for d in data]))
        else:
            del file[key]
            node = file.create_dataset(key, (5,), h5py.vlen_dtype(np.uint8))
            for row, buffer in enumerate(data):
                node[row] = np.frombuffer(buffer, np.uint8)
    episode = read_one(tmp_path)
    camera = episode.cameras["head_camera"]
    assert isinstance(camera, RawCamera if form == "pixels" else EncodedCamera)
    assert np.median(np.abs(colours(camera).astype(int) - images)) <= 3
    assert episode.metadata["colour_order"]["head_camera"] == ("rgb" if form == "pixels" else "marked")


def test_marked_and_unmarked_buffers_in_one_camera(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    images = np.stack([picture("head_camera", t, (48, 64)) for t in range(6)])
    with recording(folder) as file:
        replace(file, "observation/head_camera/rgb", np.array([encode(im, t % 2 == 1) for t, im in enumerate(images)]))
    camera = read_one(tmp_path).cameras["head_camera"]
    assert [frame.red_blue_swapped for frame in camera.frames()] == [True, False, True, False, True]
    assert np.median(np.abs(colours(camera).astype(int) - images[:-1])) <= 3


@pytest.mark.parametrize(("n_arm", "embodiment", "told"), [(7, "franka", "franka-panda"), ((6, 7), "a+b", "a+b")])
def test_other_arms(tmp_path, n_arm, embodiment, told):
    write_episode(tmp_path / TASK / f"{embodiment}_clean_50" / "data" / "episode0.hdf5", n_arm=n_arm)
    episode = read_one(tmp_path)
    left, right = (n_arm, n_arm) if isinstance(n_arm, int) else n_arm
    assert episode.state.shape[1] == left + right + 2
    assert episode.state_names[left] == "left_gripper" and episode.state_names[-1] == "right_gripper"
    assert episode.state_names[0] == "left_joint_1" and episode.state_names[left + 1] == "right_joint_1"
    assert episode.metadata["embodiment"] == told and episode.metadata["gripper_indices"] == [left, left + right + 1]


def test_seven_joints_without_a_name_are_franka(tmp_path):
    write_task(tmp_path, "classic", TASK, [0], n_arm=7)
    assert read_one(tmp_path).metadata["embodiment"] == "franka-panda"


def test_joints_that_do_not_fit_the_named_robot(tmp_path):
    write_task(tmp_path, "archive", TASK, [0], n_arm=7)
    assert "7 and 7 joints, but aloha-agilex has 6" in reason(tmp_path)


# Paths


EMBODIMENT_SPELLINGS = ["aloha-agilex", "aloha_agilex", "ARX-X5", "arx_x5", "arx-x5", "franka", "franka-panda"]
EMBODIMENT_SPELLINGS += ["franka_panda", "piper", "ur5", "ur5-wsg", "ur5_wsg"]


@given(st.integers(0, 999_999_999), st.sampled_from(["episode{}", "episode_{}", "episode_{:07d}"]), st.booleans())
def test_every_spelling_of_a_file_name_round_trips(index, spelling, short):
    assert episode_index(spelling.format(index) + (".h5" if short else ".hdf5")) == index


@given(st.text("0123456789abc._- \n\u0663", max_size=12))
def test_other_file_names_are_no_recordings(text):
    assert episode_index(f"._episode{text}.hdf5") is None
    assert episode_index(f"episode{text}.hdf5.part") is None
    assert episode_index(f"episode{text}x.hdf5") is None


@settings(max_examples=150)
@given(
    st.sampled_from(LAYOUTS),
    st.one_of(st.sampled_from(sorted(TASKS)), st.just("my_own_task")),
    st.sampled_from(EMBODIMENT_SPELLINGS),
    st.sampled_from(["clean", "randomized"]),
    st.lists(st.sampled_from(["mnt", "data", "Robo Twin", "dataset", "x"]), max_size=3),
    st.booleans(),
)
def test_folder_names_round_trip(layout, task, embodiment, setting, above, nested):
    parts = task_folder(Path(*above), layout, task, embodiment, setting).parts
    place = parse_folder([*parts, *parts[-1:] * nested, "data"])
    assert place.task == task
    assert place.setting == ("unknown" if layout == "v1-archive" else setting)
    assert place.embodiment == ("unknown" if layout == "classic" else canonical_embodiment(embodiment))
    assert place.embodiment in {*ARM_JOINTS, "unknown"}
    assert place.expected == (50 if layout == "archive" else 0)


@pytest.mark.parametrize(
    ("folder", "task", "embodiment", "setting"),
    [
        (f"{TASK}/demo_clean/{TASK}/aloha_agilex", TASK, "aloha-agilex", "clean"),  # unpacked inside its archive's name
        (f"demo_randomized_480p/{TASK}/left_right", TASK, "left_right", "randomized"),
        (f"{TASK}/my_config", TASK, "unknown", "unknown"),
        (TASK, TASK, "unknown", "unknown"),
        ("", "unknown", "unknown", "unknown"),
    ],
)
def test_unusual_folders(folder, task, embodiment, setting):
    place = parse_folder([*folder.split("/"), "data"] if folder else ["data"])
    assert (place.task, place.embodiment, place.setting) == (task, embodiment, setting)


def test_order_does_not_depend_on_the_listing(tmp_path, monkeypatch):
    write_task(tmp_path, "archive", "click_bell", [0, 1, 11], num_frames=2)
    write_task(tmp_path, "archive", TASK, [2], num_frames=2, setting="randomized")
    write_task(tmp_path, "archive", TASK, [3], num_frames=2)
    plain = converter().discover(tmp_path)
    listing = os.scandir

    class Backwards:
        def __init__(self, path):
            with listing(path) as entries:
                self.entries = sorted(entries, key=lambda e: e.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

        def __iter__(self):
            return iter(self.entries)

    monkeypatch.setattr(os, "scandir", Backwards)
    assert converter().discover(tmp_path) == plain
    assert [(r.hints["task"], r.hints["setting"], r.hints["index"]) for r in plain.episodes] == [
        (TASK, "clean", 3),
        (TASK, "randomized", 2),
        ("click_bell", "clean", 0),
        ("click_bell", "clean", 1),
        ("click_bell", "clean", 11),
    ]


def test_discovery_opens_no_file(tmp_path, monkeypatch):
    write_task(tmp_path, "archive", TASK, [0, 1])

    def refuse(*_args, **_kwargs):
        raise AssertionError("a file was opened")

    made = converter()
    monkeypatch.setattr(h5py, "File", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(Path, "read_text", refuse)
    assert len(made.discover(tmp_path).episodes) == 2


# Finding nothing, and options


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ([], ["holds no files", "give the folder"]),
        (["a/aloha-agilex_clean_50.zip", "b/x.zip"], ["2 .zip", "unpack the archives"]),
        (["data/notes.txt", "data/episode0.pkl"], ["1 .pkl", "1 .txt"]),
        (["._episode0.hdf5", ".cache/data/episode0.hdf5", "_traj_data/episode0.hdf5"], ["holds no files"]),
    ],
)
def test_nothing_found(tmp_path, files, parts):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match="no data/episode") as caught:
        converter().discover(tmp_path)
    assert all(part in str(caught.value) for part in parts) and str(tmp_path) in str(caught.value)


def test_root_that_is_no_recording(tmp_path):
    with pytest.raises(UsageError, match="there is no"):
        converter().discover(tmp_path / "absent")
    (tmp_path / "other.hdf5").write_bytes(b"x")
    with pytest.raises(UsageError, match="no RoboTwin recording"):
        converter().discover(tmp_path / "other.hdf5")


def test_options_select(tmp_path):
    for task in (TASK, "click_bell"):
        for setting in ("clean", "randomized"):
            write_task(tmp_path, "archive", task, [0, 1], setting=setting, num_frames=2)

    def ids(**options):
        return [ref.id.replace("aloha-agilex/", "") for ref in converter(**options).discover(tmp_path).episodes]

    assert len(ids()) == 8
    assert ids(tasks=["click_bell"], settings=["randomized"]) == [f"click_bell/randomized/episode_{i}" for i in (0, 1)]
    assert ids(max_episodes_per_task=1) == [f"{TASK}/clean/episode_0", "click_bell/clean/episode_0"]
    with pytest.raises(UsageError, match="did you mean 'click_bell'"):
        ids(tasks=["click_bel"])
    with pytest.raises(UsageError, match="leave none of the 8 recordings found; their embodiments are aloha-agilex"):
        ids(embodiment="piper")
    with pytest.raises(UsageError, match="no option 'colours'; did you mean 'colour'"):
        ids(colours="rgb")
    with pytest.raises(UsageError, match="colour"):
        ids(colour="bgr")


def test_what_the_path_does_not_tell_can_be_set(tmp_path):
    write_episode(tmp_path / TASK / "data" / "episode0.hdf5")
    found = converter().discover(tmp_path)
    assert any("option embodiment" in w for w in found.warnings)
    assert any("option default_setting" in w for w in found.warnings)
    found = converter(embodiment="ur5", default_setting="clean").discover(tmp_path)
    assert found.episodes[0].id == f"{TASK}/ur5-wsg/clean/episode_0" and found.warnings == ()


def test_robots_of_different_joints_are_not_mixed(tmp_path):
    write_task(tmp_path, "archive", TASK, [0])
    write_task(tmp_path, "archive", "click_bell", [0], embodiment="franka", n_arm=7)
    with pytest.raises(UsageError, match=r"aloha-agilex \(6\), franka-panda \(7\).*option embodiment"):
        converter().discover(tmp_path)
    assert read_one(tmp_path, embodiment="franka").state.shape[1] == 16


def test_robots_of_equal_joints_are_a_warning_and_own_groups(tmp_path):
    write_task(tmp_path, "archive", TASK, [0])
    write_task(tmp_path, "archive", TASK, [0], embodiment="piper")
    found = converter().discover(tmp_path)
    assert len({ref.group for ref in found.episodes}) == 2
    assert any("several embodiments (aloha-agilex, piper)" in w for w in found.warnings)


# Real folders: what is wrong with whole trees


def test_fewer_episodes_than_the_name_says_and_gaps(tmp_path):
    write_task(tmp_path, "archive", TASK, [0, 1, 4], num_frames=2)
    found = converter().discover(tmp_path)
    assert [ref.hints["index"] for ref in found.episodes] == [0, 1, 4]
    assert any("3 episodes found, 50 expected" in w for w in found.warnings)
    assert any("2 episode numbers are absent (2, 3)" in w for w in found.warnings)
    episode = converter().read(tmp_path, found.episodes[2])
    assert episode.metadata["seed"] == 104  # its own token, not the third
    assert "instructions/episode4.json" in found.episodes[2].files[1]


def test_junk_is_ignored(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    for name in ("data/._episode1.hdf5", "data/.DS_Store", ".cache/data/episode5.hdf5", "_traj_data/episode0.pkl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"junk")
    (folder / "backup").mkdir()
    (folder / "backup" / "episode7.hdf5").write_bytes(b"junk")
    found = converter().discover(tmp_path)
    assert [ref.hints["index"] for ref in found.episodes] == [0]
    assert not any("_traj_data" in file for file in found.episodes[0].files)
    assert any("outside data folders" in w and "backup/episode7.hdf5" in w for w in found.warnings)


def test_nested_folder_after_unpacking(tmp_path):
    folder = write_task(tmp_path / "staging", "archive", TASK, [0])
    nested = tmp_path / "root" / TASK / folder.name
    nested.mkdir(parents=True)
    folder.rename(nested / folder.name)
    episode = read_one(tmp_path / "root")
    assert episode.task == TASK and episode.metadata["embodiment"] == "aloha-agilex"
    assert episode.metadata["instruction_source"] == "instructions/episode0.json" and episode.metadata["seed"] == 100


def test_links_out_of_the_root_are_not_followed(tmp_path):
    inside, outside = tmp_path / "root", tmp_path / "outside"
    write_task(inside, "archive", TASK, [0])
    folder = write_task(outside, "archive", "click_bell", [1])
    (inside / "click_bell").symlink_to(outside / "click_bell")
    (inside / "loop").symlink_to(inside)
    data = inside / TASK / "aloha-agilex_clean_50" / "data"
    (data / "episode1.hdf5").symlink_to(folder / "data" / "episode1.hdf5")
    (data / "episode2.hdf5").symlink_to(tmp_path / "nowhere")
    found = converter().discover(inside)
    assert [ref.hints["index"] for ref in found.episodes] == [0]
    assert any("4 entries were not followed" in w for w in found.warnings)


def test_side_files_that_link_out_of_the_root_are_not_read(tmp_path):
    folder = write_task(tmp_path / "root", "archive", TASK, [0])
    (tmp_path / "secret.json").write_text('{"seen": ["secret"]}')
    (folder / "instructions" / "episode0.json").unlink()
    (folder / "instructions" / "episode0.json").symlink_to(tmp_path / "secret.json")
    (folder / "seed.txt").unlink()
    (folder / "seed.txt").symlink_to(tmp_path / "secret.json")
    episode = read_one(tmp_path / "root")
    assert episode.metadata["instruction_fallback"] and episode.metadata["seed"] is None


def test_the_same_episode_in_two_layouts_is_kept_once(tmp_path):
    write_task(tmp_path / "old", "archive", TASK, [0, 1])
    write_task(tmp_path / "new", "v1-archive", TASK, [0], variant="converted")
    found = converter().discover(tmp_path)
    assert [ref.source for ref in found.episodes] == [
        f"old/{TASK}/aloha-agilex_clean_50/data/episode{i}.hdf5" for i in (0, 1)
    ]
    (skipped,) = found.skipped
    assert skipped.source == f"new/{TASK}/aloha_agilex/data/episode_0000000.hdf5"
    assert "the same episode as old/" in skipped.reason


def test_different_episodes_of_one_name_get_different_ids(tmp_path):
    write_episode(tmp_path / "a" / TASK / "piper_clean_50" / "data" / "episode0.hdf5", seed=1)
    write_episode(tmp_path / "b" / TASK / "piper_clean_50" / "data" / "episode0.hdf5", seed=2)
    write_episode(tmp_path / "c" / TASK / "piper_randomized_500" / "data" / "episode0.hdf5", seed=1)  # other setting
    found = converter().discover(tmp_path)
    assert found.skipped == ()
    assert [ref.id for ref in found.episodes] == [
        f"{TASK}/piper/clean/episode_0",
        f"{TASK}/piper/clean/episode_0@b/{TASK}/piper_clean_50/data",
        f"{TASK}/piper/randomized/episode_0",
    ]


def test_unknown_task_is_a_warning(tmp_path):
    write_task(tmp_path, "archive", "beat_block_hamer", [0])
    found = converter().discover(tmp_path)
    assert any("did you mean 'beat_block_hammer'" in w for w in found.warnings)
    assert read_one(tmp_path).task == "beat_block_hamer"


# Real folders: what is wrong with one recording


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "episode0.hdf5 is empty"), (b"no hdf5 at all" * 99, "cannot be read as HDF5")],
)
def test_files_that_are_no_hdf5(tmp_path, content, part):
    folder = write_task(tmp_path, "archive", TASK, [0])
    (folder / "data" / "episode0.hdf5").write_bytes(content)
    assert part in reason(tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_truncated_file(tmp_path, share):
    folder = write_task(tmp_path, "archive", TASK, [0])
    path = folder / "data" / "episode0.hdf5"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "episode0.hdf5 cannot be read as HDF5 (truncated" in reason(tmp_path)


@pytest.mark.parametrize("frames", [0, 1])
@pytest.mark.parametrize("variant", ["classic", "native"])
def test_too_short(tmp_path, variant, frames):
    write_episode(tmp_path / TASK / "piper_clean_50" / "data" / "episode0.hdf5", variant, num_frames=frames)
    assert "too short" in reason(tmp_path)


def test_two_frames_give_one_row(tmp_path):
    write_task(tmp_path, "archive", TASK, [0], num_frames=2)
    assert len(read_one(tmp_path).state) == 1


SHORT = np.array([encode(picture("head_camera", 0, (48, 64)))] * 5)


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("observation/head_camera/rgb", SHORT, ["head_camera/rgb has 5 frames", "joints have 6"]),
        ("observation/front_camera/rgb", SHORT, ["front_camera/rgb has 5 frames", "joints have 6"]),  # not even used
        ("joint_action/left_gripper", np.zeros(5), ["different length", "left_gripper 5", "left_arm 6"]),
        ("joint_action/right_arm", np.zeros((5, 6)), ["different length", "right_arm 5"]),
        ("joint_action/left_gripper", np.zeros((6, 2)), ["one value per frame"]),
        ("joint_action/left_arm", np.zeros((6, 5)), ["vector is (6, 14), its parts make (6, 13)"]),
        ("joint_action/left_arm", np.zeros((6, 6)), ["disagrees with its parts at frame 0, column 0"]),
        ("joint_action/left_arm", "text", ["must be numbers"]),
        ("joint_action/left_arm", np.zeros((6, 6, 2)), ["must be numbers of shape (frames, n)"]),
        ("joint_action/left_arm", np.zeros((6, 99)), ["at most"]),
        ("joint_action/vector", np.zeros((6, 16)), ["vector is (6, 16)"]),
        ("endpose/right_endpose", np.zeros((4, 7)), ["endpose/right_endpose has shape (4, 7)", "6 rows"]),
        ("endpose/left_gripper", np.zeros(7), ["endpose/left_gripper has shape (7,)"]),
        ("observation/head_camera/rgb", np.zeros((6, 4, 4, 3)), ["must hold JPEG buffers", "float64"]),
        ("observation/head_camera/rgb", np.array([b"\x89PNG"] * 6), ["head_camera frame 0 is no JPEG", "89 50"]),
        ("observation/head_camera/rgb", np.array([b""] * 6, "S9"), ["frame 0", "an empty string"]),
        ("observation/head_camera/rgb", np.array([b"\xff\xd8\xff"] * 6), ["frame 0: JPEG of 3 bytes without a frame"]),
    ],
)
def test_contradictions_inside_a_file(tmp_path, key, value, parts):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        replace(file, key, value)
    found = reason(tmp_path)
    assert all(part in found for part in parts), found


@pytest.mark.parametrize("key", ["joint_action/left_arm", "joint_action/right_gripper", "observation/left_camera/rgb"])
def test_missing_arrays(tmp_path, key):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        del file[key]
    assert ("left_camera is missing" if "camera" in key else f"{key} is missing") in reason(tmp_path)


def test_missing_camera_can_be_left_out_of_the_manifest(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        del file["observation/right_camera"]
    assert "camera right_camera is missing, found front_camera, head_camera, left_camera" in reason(tmp_path)
    manifest = load_manifest("robotwin").model_copy(update={"cameras": ("left_camera", "head_camera")})
    made = Converter(manifest)
    assert list(made.read(tmp_path, made.discover(tmp_path).episodes[0]).cameras) == ["left_camera", "head_camera"]


@pytest.mark.parametrize("frame", [3, 4])
def test_a_bad_buffer_later_in_a_camera_is_named(tmp_path, frame):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        node = file["observation/left_camera/rgb"]
        node[frame] = b""
    camera = read_one(tmp_path).cameras["left_camera"]
    with pytest.raises(BadEpisode, match=f"left_camera frame {frame} is no JPEG: found an empty string"):
        list(camera.frames())


def test_an_unreadable_picture_of_an_unused_camera_is_a_warning(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        replace(file, "observation/front_camera/rgb", np.array([b"x"] * 6))
    assert any("front_camera frame 0" in w and "not used" in w for w in read_one(tmp_path).warnings)


def test_sizes_may_differ_between_cameras(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        large = np.array([encode(picture("left_camera", t, (96, 128))) for t in range(6)])
        replace(file, "observation/left_camera/rgb", large)
    episode = read_one(tmp_path)
    assert episode.metadata["source_sizes"]["left_camera"] == [96, 128]
    assert (episode.cameras["left_camera"].height, episode.cameras["head_camera"].height) == (96, 48)


def test_vector_is_rebuilt_when_absent_and_empty_groups_are_fine(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        rows = file["joint_action/vector"][()]
        del file["joint_action/vector"], file["endpose"], file["pointcloud"]
        file.create_group("endpose")
    assert np.array_equal(read_one(tmp_path).state, rows[:-1].astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite(tmp_path, value):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        for key in ("joint_action/vector", "joint_action/left_arm"):
            file[key][2, 3] = value
    assert "not finite at frame 2, column 3" in reason(tmp_path)


def test_implausible_numbers_are_warnings(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        for key, column in (("joint_action/vector", 13), ("joint_action/right_gripper", ())):
            file[key][(2, column) if column else 2] = 1.5
        for key in ("joint_action/vector", "joint_action/left_arm"):
            file[key][3, 0] += 2
    warnings = read_one(tmp_path).warnings
    assert any("gripper values reach" in w and "1.5" in w for w in warnings)
    assert any("rad between frames 2 and 3" in w for w in warnings)


def test_repeated_rows_are_kept(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        for node in file["joint_action"].values():
            node[3] = node[2]
    episode = read_one(tmp_path)
    assert len(episode.state) == 5 and np.array_equal(episode.state[2], episode.action[2]) and episode.warnings == ()


def test_v1_actions_of_the_same_row_are_rebuilt(tmp_path):
    folder = write_task(tmp_path, "v1", TASK, [0], variant="converted")
    with recording(folder) as file:
        for name, node in file["action"].items():
            node[...] = file[f"state/{name}"][()]
        state = file["state/joint_states"][()]
    episode = read_one(tmp_path)
    assert np.array_equal(episode.state, state[:-1]) and np.array_equal(episode.action, state[1:])
    assert len(colours(episode.cameras["head_camera"])) == 4 and "rebuilt" in episode.metadata["rows"]


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("action/left_arm_joint_states", np.zeros((5, 6), np.float32), "action row 0 is neither state row 1"),
        ("state/right_ee_poses", np.zeros((4, 7)), "state/right_ee_poses has shape (4, 7)"),
        ("state/joint_states", np.zeros((5, 14), np.float32), "state/joint_states disagrees"),
        ("vision/cam_head/colors", SHORT[:4], "vision/cam_head/colors has 4 frames"),
        ("data_format_version", "v2.0", "data_format_version is 'v2.0'"),
    ],
)
def test_contradictions_inside_v1_files(tmp_path, key, value, part):
    folder = write_task(tmp_path, "v1", TASK, [0], variant="native")
    with recording(folder) as file:
        if key in file:
            del file[key]
        file[key] = value
    assert part in reason(tmp_path)


def test_other_hdf5_files(tmp_path):
    path = tmp_path / TASK / "data" / "episode_0.hdf5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["qpos"] = np.zeros(3)
    assert "not a RoboTwin recording" in reason(tmp_path) and "found qpos" in reason(tmp_path)


@pytest.mark.parametrize("kind", ["external link", "soft link through one", "virtual", "external storage", "soft loop"])
def test_data_of_other_files_is_refused(tmp_path, kind):
    folder = write_task(tmp_path / "root", "archive", TASK, [0])
    other = write_episode(tmp_path / "other.hdf5").path
    key = "joint_action/left_arm"
    with recording(folder) as file:
        del file[key]
        if kind == "external link":
            file[key] = h5py.ExternalLink(str(other), key)
        elif kind == "soft link through one":
            file["out"] = h5py.ExternalLink(str(other), "joint_action")
            file[key] = h5py.SoftLink("/out/left_arm")
        elif kind == "soft loop":
            file[key] = h5py.SoftLink(f"/{key}")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((6, 6), "f8")
            layout[:] = h5py.VirtualSource(str(other), key, (6, 6))
            file.create_virtual_dataset(key, layout)
        else:
            (tmp_path / "raw.bin").write_bytes(bytes(288))
            file.create_dataset(key, (6, 6), "f8", external=str(tmp_path / "raw.bin"))
    part = {"soft loop": "loop of soft links", "virtual": "other files", "external storage": "other files"}
    assert part.get(kind, "is an external link") in reason(tmp_path / "root")


def test_soft_links_inside_the_file_are_fine(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        file.move("observation/head_camera", "elsewhere")
        file["observation/head_camera"] = h5py.SoftLink("/elsewhere")
    assert len(colours(read_one(tmp_path).cameras["head_camera"])) == 5


@pytest.mark.parametrize(
    ("key", "shape", "dtype", "part"),
    [
        ("joint_action/left_arm", (10**9, 6), "f8", "is plausible"),
        ("observation/head_camera/rgb", (6,), "S300000000", "MiB each"),
        ("observation/head_camera/rgb", (6, 9000, 9000, 3), "u1", "9000 x 9000 pixels"),
    ],
)
def test_absurd_sizes_are_refused_before_they_are_allocated(tmp_path, key, shape, dtype, part):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        del file[key]
        file.create_dataset(key, shape, dtype, chunks=tuple(min(side, 100) for side in shape))
    assert part in reason(tmp_path)


# Text, seeds and scenes


def test_instructions_are_cleaned(tmp_path):
    texts = ["  Hit it. ", "Hit\nit.", "", "打它@Hit the block", "a@b@c", 5, "Hit it."]
    folder = write_task(tmp_path, "archive", TASK, [0])
    (folder / "instructions" / "episode0.json").write_text(json.dumps({"seen": texts, "unseen": ["New.", "New."]}))
    episode = read_one(tmp_path)
    assert episode.instructions == ("Hit it.", "Hit the block")
    assert episode.metadata["instructions_unseen"] == ["New."]
    assert sum("dropped" in w for w in episode.warnings) == 2


@pytest.mark.parametrize(
    "content",
    [None, "{", "[]", '{"seen": []}', '{"seen": [""]}', '{"seen": "x"}', '{"unseen": ["a"]}', "\udcff", "[" * 99999],
)
def test_without_usable_text_the_task_name_is_taken(tmp_path, content):
    folder = write_task(tmp_path, "archive", TASK, [0])
    path = folder / "instructions" / "episode0.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    episode = read_one(tmp_path)
    assert episode.instructions == ("beat block hammer",) and episode.metadata["instruction_fallback"] is True
    assert any("the task's name 'beat block hammer' is used" in w for w in episode.warnings)


def test_last_episode_of_an_interrupted_collection(tmp_path):
    write_task(tmp_path, "archive", TASK, [0, 1], seen=None)
    first, last = read_all(tmp_path)
    assert not any("last episode" in w for w in first.warnings) and any("last episode" in w for w in last.warnings)
    assert not any("last episode" in w for e in read_all(tmp_path, max_episodes_per_task=1) for w in e.warnings)


@pytest.mark.parametrize("stored", [[""], [], ["[broken"], ["[]"]])
def test_empty_text_inside_v1_files(tmp_path, stored):
    folder = write_task(tmp_path, "v1-archive", TASK, [0], variant="converted")
    with recording(folder) as file:
        del file["instructions"], file["instruction"]
        file.create_dataset("instructions", data=stored, dtype=h5py.string_dtype())
    episode = read_one(tmp_path)
    assert episode.instructions == ("beat block hammer",) and episode.metadata["instruction_fallback"] is True


def test_text_inside_the_recording_wins_over_a_shifted_file(tmp_path):
    folder = write_task(tmp_path, "v1", TASK, [0])
    (folder / "instruction" / "episode_0000000.json").write_text('{"seen": ["Other."], "unseen": ["New."]}')
    episode = read_one(tmp_path)
    assert episode.instructions == tuple(dict.fromkeys(SEEN)) and episode.metadata["instructions_unseen"] == ["New."]
    assert any("differ from instruction/episode_0000000.json" in w for w in episode.warnings)


def test_canonical_instruction_by_seed(tmp_path):
    texts = [f"Variant {i}." for i in range(40)]
    write_task(tmp_path, "archive", TASK, [0, 1, 2], seen=texts)
    picks = [episode.instructions for episode in read_all(tmp_path, instruction="seeded")]
    assert picks == [episode.instructions for episode in read_all(tmp_path, instruction="seeded")]
    assert len({pick[0] for pick in picks}) > 1
    assert all(sorted(pick) == sorted(texts) for pick in picks)


@pytest.mark.parametrize(("content", "part"), [("7", "1 seeds, none for episode 1"), ("7 x", "no number")])
def test_seeds_that_do_not_fit(tmp_path, content, part):
    folder = write_task(tmp_path, "archive", TASK, [1])
    (folder / "seed.txt").write_text(content)
    episode = read_one(tmp_path)
    assert episode.metadata["seed"] is None and any(part in w for w in episode.warnings)


@pytest.mark.parametrize(
    ("scenes", "part"),
    [
        ({"episode_0": {"info": {"{a}": "right"}}}, "speak of the left arm, scene_info.json of the right one"),
        ({"episode_1": {"info": {"{a}": "left"}}}, "no entry episode_0"),
        ([], "expected an object, found list"),
    ],
)
def test_shifted_scene_info_is_a_warning(tmp_path, scenes, part):
    folder = write_task(tmp_path, "archive", TASK, [0])
    (folder / "scene_info.json").write_text(json.dumps(scenes))
    episode = read_one(tmp_path)
    assert any(part in w for w in episode.warnings), episode.warnings


# Colours against the video


def test_a_video_that_contradicts_the_marker_stops_the_episode(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0], video=True)
    images = np.stack([picture("head_camera", t, (48, 64)) for t in range(6)])
    standard = np.array([encode(np.ascontiguousarray(image[..., ::-1])) for image in images])  # rewritten, no marker
    with recording(folder) as file:
        replace(file, "observation/head_camera/rgb", standard)
    assert "episode0.mp4 contradicts the colours of head_camera" in reason(tmp_path)
    assert "option colour" in reason(tmp_path)
    episode = read_one(tmp_path, colour="rgb")
    assert np.median(np.abs(colours(episode.cameras["head_camera"]).astype(int) - images[:-1])) <= 3
    assert episode.metadata["colour_check"]["verdict"] == "agrees"
    forced = read_one(tmp_path, colour="swapped")
    assert any("forced by option colour" in w for w in forced.warnings)


@pytest.mark.parametrize("kind", ["junk", "other size", "grey"])
def test_a_video_that_tells_nothing(tmp_path, kind):
    folder = write_task(tmp_path, "archive", TASK, [0])
    path = folder / "video" / "episode0.mp4"
    if kind == "junk":
        path.parent.mkdir()
        path.write_bytes(b"junk" * 99)
    else:
        write_video(path, np.full((2, *((96, 64) if kind == "other size" else (48, 64)), 3), 90, np.uint8))
    episode = read_one(tmp_path)
    verdict = episode.metadata["colour_check"]["verdict"]
    assert verdict == ("not coloured enough" if kind == "grey" else "not checked")
    assert any("colours are not checked" in w for w in episode.warnings) is (kind != "grey")
