"""The LIBERO converter on a genuine sample and on raw and regenerated task files."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest
from fixtures import run_convert
from hypothesis import given
from hypothesis import strategies as st
from libero_files import KINDS, STATE_WIDTH, moving, write_file
from libero_reading import FILE, TASK, converter, manifest, pixels, read_all, read_one, reason, warnings_of
from paths import DATA

import fwdata
from converters.libero.actions import kept_actions
from fwdata.api import Converter as Contract
from fwdata.errors import ManifestError, UsageError
from fwdata.report.inspect_store import describe

SAMPLE = DATA / "libero"
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
            assert about["suite"] == "libero_object" and about["fps_label"] == 20 and episode.embodiment == "Panda"
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


def test_gripper_mapping():
    commands = np.array([-1.0, 1, 0, 0.25, -0.5, 2])
    actions = moving(6)
    actions[:, 6] = commands
    from converters.libero.actions import policy_actions

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
