"""LIBERO pictures: orientation decided, cameras, sizes and streaming."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from fixtures import run_convert
from libero_files import KINDS, paint, write_file
from libero_reading import FILE, converter, manifest, pixels, read_all, read_one, reason, warnings_of

import fwdata
from converters.libero import orientation
from converters.libero.cameras import DemoPixels


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_hold_the_same_rows_and_upright_pictures(tmp_path, kind):
    written = write_file(tmp_path / FILE, [0, 10, 2], kind)
    made = converter()
    refs = made.discover(tmp_path).episodes
    assert [ref.hints["demo"] for ref in refs] == ["demo_0", "demo_2", "demo_10"]  # by number, not by text; gaps stay
    for ref in refs:
        episode, demo = made.read(tmp_path, ref), written[int(str(ref.hints["demo"])[5:])]
        assert np.array_equal(episode.state, demo.state.astype(np.float32))
        assert np.array_equal(episode.action[:, 6], [1, 1, 1, 1, 0, 0, 0, 0])
        for name, pictures in demo.pictures.items():
            assert np.array_equal(pixels(episode, name), pictures)
        raw = kind == "raw"
        assert episode.metadata["layout"] == ("raw" if raw else "regenerated")
        assert episode.metadata["obs_timing"] == ("after_action" if raw else "before_action")
        assert episode.metadata["rotation"] == ("none" if kind == "any4lerobot" else "rot180")
        assert str(episode.metadata["rotation_decided_by"]).startswith("attribute" if raw else "content")
        assert warnings_of(episode) == []


# Orientation


@pytest.mark.parametrize(("option", "turn"), [("rot180", (-1, -1)), ("flip_vertical", (-1, 1)), ("none", (1, 1))])
@pytest.mark.parametrize("kind", KINDS)
def test_forced_rotation(tmp_path, kind, option, turn):
    write_file(tmp_path / FILE, [0], kind)
    with h5py.File(tmp_path / FILE) as file:
        stored = file["data/demo_0/obs/agentview_rgb"][()]
    episode = read_one(tmp_path, rotation=option)
    assert np.array_equal(pixels(episode, "image"), stored[:, :: turn[0], :: turn[1]])
    assert (episode.metadata["rotation"], episode.metadata["rotation_decided_by"]) == (option, "option rotation")
    wrong = (option == "none") != (kind == "any4lerobot")
    assert [text for text in warnings_of(episode) if "leaves the gripper at the top" in text] == warnings_of(episode)
    assert bool(warnings_of(episode)) == wrong


def test_opencv_convention_is_mirrored(tmp_path):
    written = write_file(tmp_path / FILE, [0], attributes={"macros_image_convention": b"opencv"})
    with h5py.File(tmp_path / FILE, "r+") as file:
        for node in (file["data/demo_0/obs/agentview_rgb"], file["data/demo_0/obs/eye_in_hand_rgb"]):
            node[...] = node[()][:, ::-1]
    episode = read_one(tmp_path)
    assert np.array_equal(pixels(episode, "wrist_image"), written[0].pictures["wrist_image"])
    assert episode.metadata["rotation"] == "mirror" and warnings_of(episode) == []


@pytest.mark.parametrize(("convention", "kind"), [("opengl", "turned"), ("opencv", "as recorded")])
def test_attribute_that_the_pictures_contradict(tmp_path, convention, kind):
    write_file(tmp_path / FILE, [0], attributes={"macros_image_convention": convention})
    if kind == "turned":
        with h5py.File(tmp_path / FILE, "r+") as file:
            node = file["data/demo_0/obs/eye_in_hand_rgb"]
            node[...] = node[()][:, ::-1, ::-1]
    found = reason(tmp_path)
    assert f"macros_image_convention is {convention!r}" in found and "set option rotation" in found
    assert warnings_of(read_one(tmp_path, rotation="none" if kind == "turned" else "rot180")) == []


def _paint(path: Path, demo: int, value: int = 200) -> None:
    with h5py.File(path, "r+") as file:
        paint(file[f"data/demo_{demo}/obs/eye_in_hand_rgb"], value)


@pytest.mark.parametrize("kind", ["openvla", "any4lerobot"])
def test_undecided_pictures_follow_another_demonstration(tmp_path, kind):
    write_file(tmp_path / FILE, [0, 1], kind)
    _paint(tmp_path / FILE, 0)
    episode = read_one(tmp_path)
    assert episode.metadata["rotation"] == ("none" if kind == "any4lerobot" else "rot180")
    assert "in demo_1" in str(episode.metadata["rotation_decided_by"]) and episode.metadata["gripper_band"] == "unclear"


def test_neighbours_are_asked_once_for_each_state_of_a_file(tmp_path, monkeypatch):
    write_file(tmp_path / FILE, [0, 1, 2, 3], "openvla")
    for demo in range(4):
        _paint(tmp_path / FILE, demo)
    os.utime(tmp_path / FILE, (0, 0))  # of what was changed just now nothing is kept
    asked, band = Counter(), orientation.gripper_band
    monkeypatch.setattr(orientation, "gripper_band", lambda file, demo: asked.update([demo]) or band(file, demo))
    assert [e.metadata["gripper_band"] for e in read_all(tmp_path)] == ["unclear"] * 4
    assert set(asked.values()) == {2}  # for itself, and once for all others
    with h5py.File(tmp_path / FILE, "r+") as file:
        node = file["data/demo_3/obs/eye_in_hand_rgb"]
        node[:, -(node.shape[1] // 4) :] = 100
    assert "gripper at the bottom" in str(read_one(tmp_path).metadata["rotation_decided_by"])


@pytest.mark.parametrize("value", [200, 50])  # nothing dark, everything dark
def test_default_rotation_is_a_warning(tmp_path, value):
    written = write_file(tmp_path / FILE, [0], "openvla")
    _paint(tmp_path / FILE, 0, value)
    episode = read_one(tmp_path)
    assert np.array_equal(pixels(episode, "image"), written[0].pictures["image"])
    assert str(episode.metadata["rotation_decided_by"]).startswith("default")
    (warning,) = warnings_of(episode)
    assert "nothing tells how the frames are turned" in warning and "option rotation" in warning


def test_a_file_without_the_convention_is_decided_by_content(tmp_path):
    written = write_file(tmp_path / FILE, [0], attributes={"macros_image_convention": None})
    episode = read_one(tmp_path)
    assert np.array_equal(pixels(episode, "image"), written[0].pictures["image"])
    assert "content" in str(episode.metadata["rotation_decided_by"])


def _band(path: Path, grey: int, rows: slice = slice(None)) -> None:
    """Paint the gripper's band of demo_0 (stored at the top) and make the rest colourful."""
    with h5py.File(path, "r+") as file:
        node = file["data/demo_0/obs/eye_in_hand_rgb"]
        frames = node[()]
        frames[rows, :3] = grey
        node[...] = frames


@pytest.mark.parametrize("grey", [25, 53, 74, 120])  # the scenes of LIBERO, from a dark living room to a bright kitchen
def test_the_gripper_is_seen_in_any_light(tmp_path, grey):
    write_file(tmp_path / FILE, [0], "openvla")
    _band(tmp_path / FILE, grey)
    assert read_one(tmp_path).metadata["gripper_band"] == "top"


@pytest.mark.parametrize("grey", [0, 255])  # nothing was drawn, or it is blank
def test_black_and_white_are_no_gripper(tmp_path, grey):
    write_file(tmp_path / FILE, [0], "openvla")
    _band(tmp_path / FILE, grey)
    assert read_one(tmp_path).metadata["gripper_band"] == "unclear"


@pytest.mark.parametrize(("covered", "band"), [(3, "top"), (5, "unclear")])
def test_frames_with_something_before_the_gripper_are_outvoted(tmp_path, covered, band):
    write_file(tmp_path / FILE, [0], "openvla", num_frames=9)
    _band(tmp_path / FILE, 200, slice(covered))
    assert read_one(tmp_path).metadata["gripper_band"] == band


def test_a_grey_scene_is_no_gripper(tmp_path):
    write_file(tmp_path / FILE, [0], "openvla")
    with h5py.File(tmp_path / FILE, "r+") as file:
        node = file["data/demo_0/obs/eye_in_hand_rgb"]
        frames = node[()]
        frames[:, 4:] = np.random.default_rng(0).integers(20, 140, (8, 16, 24, 1), np.uint8)
        node[...] = frames
    assert read_one(tmp_path).metadata["gripper_band"] == "top"


@pytest.mark.parametrize(("turned", "band"), [(2, "top"), (3, "unclear"), (7, "bottom")])
def test_frames_that_contradict_each_other_decide_nothing(tmp_path, turned, band):
    write_file(tmp_path / FILE, [0], "openvla", num_frames=9)
    with h5py.File(tmp_path / FILE, "r+") as file:
        node = file["data/demo_0/obs/eye_in_hand_rgb"]
        node[:turned] = node[:turned][:, ::-1]
    assert read_one(tmp_path).metadata["gripper_band"] == band


# Frames


@pytest.mark.parametrize("storage", [{}, {"chunks": (3, 8, 8, 3)}, {"chunks": (7, 20, 24, 3), "compression": "gzip"}])
def test_frames_are_streamed_in_small_blocks(tmp_path, monkeypatch, storage):
    monkeypatch.setattr("converters.libero.cameras.READ_BYTES", 20 * 24 * 3 * 70)
    written = write_file(tmp_path / FILE, [0], num_frames=150)
    with h5py.File(tmp_path / FILE, "r+") as file:
        for key in ("agentview_rgb", "eye_in_hand_rgb"):
            stored = file[f"data/demo_0/obs/{key}"][()]
            del file[f"data/demo_0/obs/{key}"]
            file["data/demo_0/obs"].create_dataset(key, data=stored, **storage)
    camera = pickle.loads(pickle.dumps(read_one(tmp_path).cameras["image"]))  # noqa: S301 - made here
    blocks = list(camera.frames())
    assert max(map(len, blocks)) <= 64 and all(block.flags.c_contiguous for block in blocks)
    assert np.array_equal(np.concatenate(blocks), written[0].pictures["image"])
    assert np.array_equal(np.concatenate(list(camera.frames())), written[0].pictures["image"])


@pytest.mark.slow
def test_pictures_are_resized_after_they_are_turned(tmp_path):
    written = write_file(tmp_path / FILE, [0], size=(40, 60))
    episode = read_one(tmp_path, resize=(20, 24))
    camera = episode.cameras["image"]
    assert (camera.height, camera.width) == (20, 24) and episode.metadata["resized_to"] == [20, 24]
    made = pixels(episode, "image")
    assert made.shape == (8, 20, 24, 3) and made.dtype == np.uint8
    import torch
    from torchvision.transforms.v2.functional import resize

    wanted = resize(torch.from_numpy(written[0].pictures["image"]).permute(0, 3, 1, 2).float(), [20, 24])
    assert np.abs(made - wanted.permute(0, 2, 3, 1).numpy()).max() <= 1  # as Fast-WAM's transform, within a grey level
    report = run_convert(tmp_path, tmp_path / "s.zarr", manifest().model_copy(update={"options": {"resize": [20, 24]}}))
    store = fwdata.open(tmp_path / "s.zarr")
    assert report.episodes == 1 and np.array_equal(store.episodes[0].frames("image"), made)
    assert store.metadata["decisions"]["resize"].startswith("20x24 pixels")


def test_without_resize_pictures_are_those_of_the_source(tmp_path):
    write_file(tmp_path / FILE, [0], size=(40, 60))
    found = converter().discover(tmp_path)
    assert found.decisions["resize"] == "none, the source's resolution"
    assert read_one(tmp_path).metadata["resized_to"] is None


def test_images_that_stitching_stretches_are_reported(tmp_path):
    for size, told in (((40, 40), 0), ((40, 60), 2)):
        write_file(tmp_path / FILE, [0], size=size)
        found = [text for text in read_one(tmp_path).warnings if "stretched to 0.67 of their aspect" in text]
        assert len(found) == told


def test_any_size_and_unknown_observations(tmp_path):
    write_file(tmp_path / FILE, [0], size=(32, 48))
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["data/demo_0/obs/agentview_depth"] = np.zeros((8, 32, 48, 1), np.float32)
        file["data/demo_0/obs/camera_matrix"] = np.zeros((3, 3))
        file["data/other"] = np.zeros(3)
        file.create_group("data/demo_x")
        file["mask/train"] = np.array([b"demo_0"])
    (episode,) = read_all(tmp_path)
    assert episode.metadata["obs_not_used"] == ["agentview_depth", "camera_matrix"]
    assert episode.metadata["source_sizes"] == {"image": [32, 48], "wrist_image": [32, 48]}


def test_a_camera_of_your_own(tmp_path):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["data/demo_0/obs/sideview_rgb"] = file["data/demo_0/obs/agentview_rgb"][()]
    more = type(converter())(manifest().model_copy(update={"cameras": ("image", "wrist_image", "sideview")}))
    episode = more.read(tmp_path, more.discover(tmp_path).episodes[0])
    assert np.array_equal(pixels(episode, "sideview"), pixels(episode, "image"))


# Actions, no-ops, pairing


@pytest.mark.parametrize("kept", [range(70), [0, 1, 5, 6, 69], range(3, 68)])
@pytest.mark.parametrize("operation", ["rot180", "mirror", "flip_vertical", "none"])
def test_frames_are_turned_exactly_and_in_arrays_of_their_own(tmp_path, operation, kept):
    recorded = np.random.default_rng(0).integers(0, 256, (70, 6, 8, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["x"] = recorded
    rows = np.asarray(kept, np.int64)
    pixels = DemoPixels(tmp_path / "a.hdf5", "x", 70, rows, operation)
    blocks = list(pixels())
    assert np.array_equal(pixels.usual(), np.concatenate(blocks))
    expected = {"rot180": recorded[:, ::-1, ::-1], "mirror": recorded[:, :, ::-1], "flip_vertical": recorded[:, ::-1]}
    assert np.array_equal(np.concatenate(blocks), expected.get(operation, recorded)[rows])
    assert all(block.flags.c_contiguous and not block.flags.writeable for block in blocks)  # stored without a copy
    memory = np.zeros((len(rows), 6, 8, 3), np.uint8)
    filled = list(pixels.into(memory))
    assert np.array_equal(memory, np.concatenate(blocks)) and all(block.base is memory for block in filled)
    assert [len(block) for block in pixels.into(memory[:-1])] == [len(block) for block in blocks]


@pytest.mark.parametrize("chunks", [False, True])
def test_images_of_a_recording_that_is_written_anew_after_it_was_read_are_those_of_the_new_one(tmp_path, chunks):
    write_file(tmp_path / FILE, [0])
    episode = read_one(tmp_path)
    before = pixels(episode, "image")
    with h5py.File(tmp_path / FILE, "r+") as file:
        obs = file["data/demo_0/obs"]
        recorded = obs["agentview_rgb"][()]
        obs["elsewhere"] = np.zeros((7, 5))
        del obs["agentview_rgb"]
        obs.create_dataset("agentview_rgb", data=255 - recorded, chunks=(3, *recorded.shape[1:]) if chunks else None)
    assert np.array_equal(pixels(episode, "image"), 255 - before)
