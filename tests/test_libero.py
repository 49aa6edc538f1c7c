"""The LIBERO converter on a genuine sample and on raw and regenerated task files."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from fixtures import quick_writes, run_convert  # noqa: F401 - used by every test
from hypothesis import given
from hypothesis import strategies as st
from libero_files import KINDS, STATE_WIDTH, moving, write_file
from libero_reading import FILE, TASK, converter, manifest, pixels, read_all, read_one, reason, warnings_of

import fwdata
from converters._libero_hdf5 import kept_actions
from fwdata.api import Converter as Contract
from fwdata.errors import ManifestError, UsageError
from fwdata.inspect import describe

SAMPLE = Path(__file__).parent / "data" / "libero"
NAME = "pick_up_the_tomato_sauce_and_place_it_in_the_basket"


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """(x, y, z, w) [T, 4] to axis-angle [T, 3], angle in 0 .. 2 pi."""
    w = np.clip(quaternion[:, 3:], -1, 1)
    return quaternion[:, :3] * 2 * np.arccos(w) / np.sqrt(1 - w**2)


def test_genuine_sample():
    made = converter()
    assert isinstance(made, Contract)
    found = made.discover(SAMPLE)
    assert [ref.id for ref in found.episodes] == [f"libero_object/{NAME}/demo_{i}" for i in (0, 1)]
    assert [ref.source for ref in found.episodes] == [f"libero_object/{NAME}_demo.hdf5#demo_{i}" for i in (0, 1)]
    with h5py.File(SAMPLE / f"libero_object/{NAME}_demo.hdf5") as file:
        for ref in pickle.loads(pickle.dumps(found.episodes)):  # noqa: S301 - workers get them so
            episode, demo = made.read(SAMPLE, ref), file[f"data/{ref.hints['demo']}"]
            robot, actions = demo["robot_states"][()], demo["actions"][()]
            wanted = np.concatenate([robot[:, 2:5], axis_angle(robot[:, 5:]), robot[:, :2]], axis=1)
            assert np.abs(episode.state - wanted).max() < 1e-5 and episode.state.shape[1] == 8
            assert np.array_equal(episode.action[:, :6], actions[:, :6].astype(np.float32))
            assert np.array_equal(episode.action[:, 6], (actions[:, 6] < 0).astype(np.float32))
            for name, key in (("image", "agentview_rgb"), ("wrist_image", "eye_in_hand_rgb")):
                assert np.array_equal(pixels(episode, name), demo[f"obs/{key}"][()][:, ::-1, ::-1])
            about = episode.metadata
            assert about["rotation"] == "rot180" and about["gripper_band"] == "top"
            assert about["obs_timing"] == "after_action" and "content" in str(about["obs_timing_decided_by"])
            assert episode.instructions == ("pick up the tomato sauce and place it in the basket",)
            assert about["suite"] == "libero_object" and about["fps_label"] == 20 and about["embodiment"] == "Panda"
            assert warnings_of(episode) == []
    assert episode.timestamp_ns[:3].tolist() == [0, 50_000_000, 100_000_000]
    filtered = read_all(SAMPLE, filter_noops=True)
    assert [e.metadata["noops_dropped"] for e in filtered] == [[0, 1, 2, 3], [2, 3]]


def test_manifest_is_what_fast_wam_trains_on():
    made = manifest()
    assert made.fps.hz == 20 and made.cameras == made.stitch.cameras == ("image", "wrist_image")
    assert made.stitch.layout == "horizontal" and made.stitch.size == (224, 448)
    assert (made.window.num_frames, made.window.video_stride, made.window.action_horizon) == (33, 4, 32)
    assert made.normalisation.mode == "minmax" and made.normalisation.delta_actions == (0, 1, 2, 3, 4, 5)
    assert made.split.val == 0
    converter(**made.options)


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
        file[f"data/demo_{demo}/obs/eye_in_hand_rgb"][...] = value


@pytest.mark.parametrize("kind", ["openvla", "any4lerobot"])
def test_undecided_pictures_follow_another_demonstration(tmp_path, kind):
    write_file(tmp_path / FILE, [0, 1], kind)
    _paint(tmp_path / FILE, 0)
    episode = read_one(tmp_path)
    assert episode.metadata["rotation"] == ("none" if kind == "any4lerobot" else "rot180")
    assert "in demo_1" in str(episode.metadata["rotation_decided_by"]) and episode.metadata["gripper_band"] == "unclear"


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
    monkeypatch.setattr("converters._libero_cameras.READ_BYTES", 20 * 24 * 3 * 70)
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


def test_gripper_mapping():
    commands = np.array([-1.0, 1, 0, 0.25, -0.5, 2])
    actions = moving(6)
    actions[:, 6] = commands
    from converters._libero_hdf5 import policy_actions

    mapped = policy_actions(actions)
    assert mapped.dtype == np.float32 and np.array_equal(mapped[:, :6], actions[:, :6].astype(np.float32))
    assert mapped[:, 6].tolist() == [1, 0, 1, 0.75, 1, 0]


def reference_noops(actions: np.ndarray) -> list[bool]:
    """The rule of openvla's regeneration, as it is written there: compare with the last action that was kept."""
    kept: list[np.ndarray] = []
    mask = []
    for action in actions:
        still = np.linalg.norm(action[:6]) < 1e-4
        noop = still if not kept else still and action[6] == kept[-1][6]
        mask.append(not noop)
        if not noop:
            kept.append(action)
    return mask


@given(st.lists(st.tuples(st.sampled_from([0.0, 5e-5, 1e-4, 0.0027, 0.9]), st.sampled_from([-1.0, 1.0])), min_size=1))
def test_noop_rule(rows):
    actions = np.zeros((len(rows), 7))
    actions[:, 2] = [speed for speed, _ in rows]
    actions[:, 6] = [command for _, command in rows]
    mask = kept_actions(actions)
    assert mask.tolist() == reference_noops(actions)
    assert kept_actions(actions[mask]).all()  # filtering a filtered file changes nothing


def test_noops_compare_with_the_last_kept_action(tmp_path):
    actions = moving(8)
    actions[:, 6] = [-1, 1, -1, -1, 1, -1, 1, 1]
    actions[[0, 1, 2, 4, 5, 7], :6] = 0  # 0..2 go, whatever the gripper does; 4 and 5 are kept for theirs; 7 goes
    written = write_file(tmp_path / FILE, [0], actions=actions)
    kept = [3, 4, 5, 6]
    episode = read_one(tmp_path, filter_noops=True)
    assert episode.metadata["noops_dropped"] == [0, 1, 2, 7] and episode.metadata["recorded_frames"] == 8
    assert np.array_equal(episode.state, written[0].state[kept].astype(np.float32))
    assert np.array_equal(pixels(episode, "image"), written[0].pictures["image"][kept])
    assert episode.timestamp_ns.tolist() == [0, 50_000_000, 100_000_000, 150_000_000]
    whole = read_one(tmp_path)
    assert len(whole.state) == 8 and whole.metadata["noops_found"] == 4 and whole.metadata["noops_dropped"] == []


def test_nothing_but_noops(tmp_path):
    write_file(tmp_path / FILE, [0], actions=np.tile([0.0, 0, 0, 0, 0, 0, -1], (5, 1)))
    assert "all 5 actions are no-ops" in reason(tmp_path, filter_noops=True)
    assert len(read_one(tmp_path).state) == 5


def test_re_pairing_raw_observations(tmp_path):
    written = write_file(tmp_path / "raw" / FILE, [0])
    episode = read_one(tmp_path / "raw", pairing="next_action")
    assert np.array_equal(episode.action[:, :6], written[0].actions[1:, :6].astype(np.float32))
    assert np.array_equal(episode.state, written[0].state[:-1].astype(np.float32))
    assert np.array_equal(pixels(episode, "image"), written[0].pictures["image"][:-1])
    about = episode.metadata
    assert (about["obs_timing"], about["obs_timing_recorded"]) == ("before_action", "after_action")
    regenerated = write_file(tmp_path / "new" / FILE, [0], "openvla")
    episode = read_one(tmp_path / "new", pairing="next_action")
    assert np.array_equal(episode.action[:, :6], regenerated[0].actions[:, :6].astype(np.float32))


def test_re_pairing_and_noops_together(tmp_path):
    actions = moving(6)
    actions[:, 6] = -1
    actions[[0, 3], :6] = 0
    written = write_file(tmp_path / FILE, [0], actions=actions)
    episode = read_one(tmp_path, pairing="next_action", filter_noops=True)
    assert np.array_equal(episode.action[:, :6], actions[[1, 2, 4, 5], :6].astype(np.float32))
    assert np.array_equal(episode.state, written[0].state[[0, 1, 3, 4]].astype(np.float32))
    write_file(tmp_path / FILE, [0], num_frames=1)
    assert "too short" in reason(tmp_path, pairing="next_action")


@pytest.mark.parametrize("kind", ["raw", "openvla"])
def test_timing_without_evidence_follows_the_layout(tmp_path, kind):
    write_file(tmp_path / FILE, [0], kind)
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["data/demo_0/states"][...] = 0
        file["data/demo_0/obs/joint_states"][...] = 0
    about = read_one(tmp_path).metadata
    assert about["obs_timing"] == ("after_action" if kind == "raw" else "before_action")
    assert str(about["obs_timing_decided_by"]).startswith("layout")


def test_timing_that_the_layout_contradicts(tmp_path):
    write_file(tmp_path / FILE, [0], "openvla")
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["data"].attrs["macros_image_convention"] = "opengl"
    episode = read_one(tmp_path)
    assert episode.metadata["obs_timing"] == "before_action"
    assert any("before_action by their content" in text for text in episode.warnings)


def test_half_states_are_joined(tmp_path):
    written = write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        del file["data/demo_0/obs/ee_states"], file["data/demo_0/robot_states"]
    assert np.array_equal(read_one(tmp_path).state, written[0].state.astype(np.float32))


def test_state_is_not_taken_from_robot_states(tmp_path):
    written = write_file(tmp_path / FILE, [0], "openvla")
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["data/demo_0/robot_states"][0] = 9  # stale in regenerated files
        file["data/demo_0/states"][0] = np.full(STATE_WIDTH, 9)
    episode = read_one(tmp_path)
    assert np.array_equal(episode.state, written[0].state.astype(np.float32))
    assert episode.metadata["obs_timing"] == "before_action" and warnings_of(episode) == []


# The whole way


@pytest.mark.parametrize("kind", KINDS)
def test_conversion_to_a_store(tmp_path, kind):
    written = write_file(tmp_path / "raw" / FILE, [0, 3], kind)
    report = run_convert(tmp_path / "raw", tmp_path / "s.zarr", manifest())
    assert report.episodes == 2 and report.quarantined == []
    store = fwdata.open(tmp_path / "s.zarr")
    assert [e.id for e in store.episodes] == [f"libero_goal/{TASK}/demo_{i}" for i in (0, 3)]
    assert store.source == "libero" and store.fps == 20 and store.stitch_layout == "horizontal"
    assert np.array_equal(store.episodes[1].frames("wrist_image"), written[3].pictures["wrist_image"])
    assert store.episodes[0].stitched([0]).shape == (1, 224, 448, 3)
    assert store.metadata["decisions"]["gripper_action"].startswith("1 open, 0 closed")


def test_inspect_tells_what_was_decided_for_which_episodes(tmp_path):
    write_file(tmp_path / "raw" / FILE, [0, 1])
    write_file(tmp_path / "raw/libero_goal_no_noops" / f"{TASK}_demo.hdf5", [0], "any4lerobot")
    run_convert(tmp_path / "raw", tmp_path / "s.zarr", manifest())
    found = describe(fwdata.open(tmp_path / "s.zarr"))
    decided = found["decided_per_episode"]
    assert decided["layout"] == {"raw": 2, "regenerated": 1} and decided["rotation"] == {"rot180": 2, "none": 1}
    assert decided["obs_timing"] == {"after_action": 2, "before_action": 1}
    assert list(decided["rotation_decided_by"].values()) == [2, 1]
    assert decided["camera_sizes.image"] == {"[20, 24]": 3}
    assert decided["noops_dropped.length"]["max"] == 0 and decided["noops_found"].keys() == {"min", "median", "max"}
    conventions = (
        "gripper_action",
        "instruction",
        "noops",
        "pairing",
        "rate_hz",
        "resize",
        "rotation",
        "state",
        "suites",
    )
    assert set(conventions) <= set(found["decisions"])


@pytest.mark.parametrize(
    "options",
    [
        {"rotation": "upside"},
        {"instruction": "bddl"},
        {"pairing": 1},
        {"resize": 256},
        {"resize": [256]},
        {"resize": [0, 256]},
        {"resize": [256, 100_000]},
    ],
)
def test_wrong_option_values(options):
    with pytest.raises(ManifestError, match=next(iter(options))):
        converter(**options)


def test_unknown_option():
    with pytest.raises(UsageError, match="no option 'filter_noop'; did you mean 'filter_noops'"):
        converter(filter_noop=True)
