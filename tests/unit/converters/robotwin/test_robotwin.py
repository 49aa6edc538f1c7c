"""The RoboTwin converter on the official sample and on every variant and folder order."""

from __future__ import annotations

import json
import pickle

import h5py
import numpy as np
import pytest
from fixtures import run_convert
from paths import DATA
from robotwin_files import (
    LAYOUTS,
    SEEN,
    UNSEEN,
    VARIANTS,
    encode,
    picture,
    write_episode,
    write_task,
)
from robotwin_reading import TASK, colours, converter, read_one, reason, recording, replace

import fwdata
from fwdata.api import Converter as Contract
from fwdata.api import EncodedCamera, RawCamera
from fwdata.manifest import load_manifest
from fwdata.report.inspect_store import describe

SAMPLE = DATA / "robotwin"
EXPECTED = json.loads((SAMPLE / "expected.json").read_text())["episodes"]


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
    assert episode.embodiment == about["embodiment"] and episode.metadata["setting"] == about["setting"]
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
    assert np.array_equal(episode.timestamp_ns, np.rint(np.arange(5) * 1e9 / load_manifest("robotwin").fps.hz))
    assert episode.metadata["colour_order"]["head_camera"] == ("marked" if variant == "marked" else "swapped")
    assert episode.metadata["recorded_frames"] == (6 if variant == "classic" else 5)
    if variant != "classic":
        assert list(episode.instructions) == list(dict.fromkeys(SEEN))
        assert episode.metadata["instruction_source"] == "recording"


def test_attributes_may_be_bytes(tmp_path):
    path = write_episode(tmp_path / "data" / "episode_0000000.hdf5", "interim").path
    with h5py.File(path, "r+") as file:
        file.attrs["source_path"] = np.bytes_("native_collection")
    assert read_one(tmp_path).metadata["variant"] == "v1.0 interim"


def test_inspect_tells_what_was_decided_for_which_episodes(tmp_path, run):
    for index, (variant, size) in enumerate([("classic", (48, 64)), ("classic", (96, 128)), ("native", (48, 64))]):
        path = tmp_path / "raw" / TASK / "aloha-agilex_clean_50" / "data" / f"episode{index}.hdf5"
        write_episode(path, variant, size=size, seed=index)
    run_convert(tmp_path / "raw", tmp_path / "s.zarr", load_manifest("robotwin"))
    found = describe(fwdata.open(tmp_path / "s.zarr"))
    decided = found["decided_per_episode"]
    assert decided["camera_sizes.left_camera"] == {"[48, 64]": 2, "[96, 128]": 1}
    assert decided["rows"] == {"state = row t, action = row t + 1": 2, "as stored (action = next row's state)": 1}
    assert decided["fps_label"] == {"None": 2, "15.0": 1}
    assert "fps_label: none (2); 15.0 (1)" in run("inspect", tmp_path / "s.zarr").out
    assert found["decisions"]["instruction"].startswith("seen texts of the recording, else of the file beside it")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folder_orders_tell_the_same(tmp_path, layout):
    write_task(tmp_path, layout, TASK, [10, 2], video=True)
    refs = converter().discover(tmp_path).episodes
    assert [ref.hints["index"] for ref in refs] == [2, 10]  # by number, not by text
    hints = refs[0].hints
    assert hints["task"] == TASK
    assert hints["setting"] == ("unknown" if layout == "v1-archive" else "clean")
    assert refs[0].embodiment == ("unknown" if layout == "classic" else "aloha-agilex")
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
    assert episode.embodiment == told and episode.metadata["gripper_indices"] == [left, left + right + 1]


def test_seven_joints_without_a_name_are_franka(tmp_path):
    write_task(tmp_path, "classic", TASK, [0], n_arm=7)
    assert read_one(tmp_path).embodiment == "franka-panda"


def test_joints_that_do_not_fit_the_named_robot(tmp_path):
    write_task(tmp_path, "archive", TASK, [0], n_arm=7)
    assert "7 and 7 joints, but aloha-agilex has 6" in reason(tmp_path)
