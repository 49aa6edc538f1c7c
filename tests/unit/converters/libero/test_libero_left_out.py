"""Demonstrations that are not taken are counted and named, with the option that takes them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from libero_files import write_file
from libero_reading import FILE, converter, read_all, reason

from fwdata.api import UsageError


def _left_out(root, **options):
    return {
        left.reason: (left.count, left.examples, left.asked) for left in converter(**options).discover(root).left_out
    }


@pytest.fixture
def named(tmp_path):
    write_file(tmp_path / FILE, [0, 1, 2, 10])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file.move("data/demo_1", "data/demo_1_success")
        file.move("data/demo_2", "data/episode_2")
        file["data/notes/text"] = 1
    return tmp_path


def test_groups_of_other_names_are_counted_and_taken_on_request(named):
    assert [e.metadata["demo"] for e in read_all(named)] == [0, 10]
    ((reason_, (count, examples, asked)),) = _left_out(named).items()
    assert "names are not demo_N (option other_demos takes them)" in reason_ and not asked
    assert count == 2 and examples == (f"{FILE}#demo_1_success", f"{FILE}#episode_2")
    assert [e.metadata["demo"] for e in read_all(named, other_demos=True)] == [0, 10, 1, 2]
    assert _left_out(named, other_demos=True) == {}


def test_a_file_with_other_names_only(named):
    with h5py.File(named / FILE, "r+") as file:
        del file["data/demo_0"], file["data/demo_10"]
    with pytest.raises(UsageError, match=r"none of the demonstrations .*: 2 groups .*demo_1_success"):
        converter().discover(named)
    assert len(read_all(named, other_demos=True)) == 2


def test_a_file_without_demonstrations_says_what_it_holds(tmp_path):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        del file["data/demo_0/actions"]
        file.move("data/demo_0", "data/rollout")
    with pytest.raises(UsageError, match=r"its group data holds no demonstration \(rollout\)"):
        converter().discover(tmp_path)


def test_masks_are_reported_or_used(tmp_path):
    write_file(tmp_path / FILE, [0, 1, 2])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["mask/train"] = np.array([b"demo_0", b"demo_2"])
        file["mask/failed"] = np.array([b"demo_1"])
    (told,) = [text for text in converter().discover(tmp_path).warnings if "mask" in text]
    assert "filters that are not used (option mask takes some)" in told and "failed (1), train (2)" in told
    assert len(read_all(tmp_path)) == 3
    assert [e.metadata["demo"] for e in read_all(tmp_path, mask=("train",))] == [0, 2]
    assert _left_out(tmp_path, mask=("train",)) == {
        "demonstrations outside of mask train": (1, (f"{FILE}#demo_1",), True)
    }
    assert not any("mask" in text for text in converter(mask=("train",)).discover(tmp_path).warnings)
    with pytest.raises(UsageError, match=r"no file has a filter 'trian' .*did you mean 'train'"):
        converter(mask=("trian",)).discover(tmp_path)


def test_a_mask_of_all_demonstrations_changes_nothing_and_is_not_reported(tmp_path):
    write_file(tmp_path / FILE, [0, 1, 2])
    everything = np.array([b"demo_0", b"demo_1", b"demo_2"])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["mask/train"] = everything
    assert not [text for text in converter().discover(tmp_path).warnings if "mask" in text]
    assert len(read_all(tmp_path, mask=("train",))) == 3
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["mask/failed"] = everything
    (told,) = [text for text in converter().discover(tmp_path).warnings if "mask" in text]
    assert "(failed (3))" in told


def test_a_mask_of_numbers_is_reported_and_cannot_be_asked_for(tmp_path):
    write_file(tmp_path / FILE, [0, 1, 2])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["mask/train"] = np.array([0, 2])
        file["mask/none"] = np.array([])
    told = [text for text in converter().discover(tmp_path).warnings if "mask" in text]
    assert any("they do not hold names" in text and "(train)" in text for text in told)
    assert any("not used" in text and "(none (0))" in text for text in told)
    with pytest.raises(UsageError, match=r"'train' of .* does not hold names of demonstrations"):
        converter(mask=("train",)).discover(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "failed"),
    [
        *(("successful", value, True) for value in (False, 0, "False", b"false")),
        ("success", False, True),
        ("successful", True, False),
        ("success", "yes", False),
        ("score", 0, False),
        *((key, False, True) for key in ("succeeded", "is_successful", "episode_success", "Success")),
        *(("failed", value, failed) for value, failed in ((True, True), (False, False), ("yes", True), ("no", False))),
        *(
            ("outcome", value, failed)
            for value, failed in (("failure", True), ("Failed", True), ("ok", False), (0, False))
        ),
        ("success", np.array([0, 1, 0]), False),
    ],
)
def test_demonstrations_that_say_they_failed(tmp_path, key, value, failed):
    write_file(tmp_path / FILE, [0, 1])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["data/demo_1"].attrs[key] = value
    assert len(read_all(tmp_path)) == 2 - failed
    assert any("attributes say that they failed" in text for text in _left_out(tmp_path)) == failed
    assert len(read_all(tmp_path, include_failed=True)) == 2


@pytest.mark.parametrize(
    ("key", "value", "failed"),
    [
        ("success", False, True),
        ("success", np.zeros(8, np.uint8), True),
        ("success", np.arange(8) == 7, False),
        ("is_failed", np.array([1]), True),
        ("status", "failed", True),
        ("status", np.zeros(8), False),
        ("success", np.array([], bool), False),
    ],
)
def test_datasets_that_say_that_a_demonstration_failed(tmp_path, key, value, failed):
    write_file(tmp_path / FILE, [0, 1])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file[f"data/demo_1/{key}"] = value
    assert len(read_all(tmp_path)) == 2 - failed
    assert len(read_all(tmp_path, include_failed=True)) == 2


@pytest.mark.parametrize(
    ("name", "failed"),
    [("demo_1_failed", True), ("Fail_1", True), ("failure-1", True), ("demo_1_success", False), ("unfailing_1", False)],
)
def test_names_that_say_that_a_demonstration_failed(tmp_path, name, failed):
    write_file(tmp_path / FILE, [0, 1])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file.move("data/demo_1", f"data/{name}")
    assert len(read_all(tmp_path, other_demos=True)) == 2 - failed
    assert len(read_all(tmp_path, other_demos=True, include_failed=True)) == 2


@pytest.mark.parametrize(("folder", "failed"), [("failed", True), ("Failures", True), ("no_fail", False)])
def test_folders_named_after_failures(tmp_path, folder, failed):
    write_file(tmp_path / FILE, [0])
    write_file(tmp_path / "libero_goal" / folder / "put_the_bowl_on_the_plate_demo.hdf5", [0, 1])
    assert len(read_all(tmp_path)) == (1 if failed else 3) and len(read_all(tmp_path, include_failed=True)) == 3


def test_a_mask_of_demonstrations_that_are_not_there(tmp_path):
    write_file(tmp_path / FILE, [0, 1])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["mask/train"] = np.array([b"demo_00", b"demo_99"])
    with pytest.raises(UsageError, match="the mask names demo_00, demo_99, which its file does not have"):
        converter(mask=("train",)).discover(tmp_path)


def test_a_mask_that_names_some_demonstrations_that_are_not_there(tmp_path):
    write_file(tmp_path / FILE, [0, 1])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["mask/train"] = np.array([b"demo_0", b"demo_9"])
        file["mask/valid"] = np.array([b"demo_1"])
    for mask, told in ((("train",), True), (("train", "valid"), True), (("valid",), False), (None, False)):
        warnings = converter(mask=mask).discover(tmp_path).warnings
        found = f"option mask names demonstrations that its file does not have: {FILE} (demo_9)"
        assert (found in warnings) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [("Kindly turn the stove on", True), ("Turn on the stove.", False), ("turn_on_the_stove", False), ("", False)],
)
@pytest.mark.parametrize(("key", "attribute"), [("language_instruction", True), ("instruction", False)])
def test_a_text_of_one_demonstration_is_named(tmp_path, text, told, key, attribute):
    write_file(tmp_path / FILE, [0, 1])
    with h5py.File(tmp_path / FILE, "r+") as file:
        demo = file["data/demo_1"]
        if attribute:
            demo.attrs[key] = text
        else:
            demo[key] = text
    warned = [any(f"its {key} says {text!r}" in w for w in episode.warnings) for episode in read_all(tmp_path)]
    assert warned == [False, told]


def test_a_missing_camera_is_answered_with_those_that_are_there(tmp_path):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file.move("data/demo_0/obs/agentview_rgb", "data/demo_0/obs/agentview_image")
        file["data/demo_0/obs/more/x"] = 1
    assert "agentview_rgb is missing (images there: agentview_image, eye_in_hand_rgb); to convert" in reason(tmp_path)


def test_a_demonstration_without_a_reward_beside_others_with_one_is_named(tmp_path):
    write_file(tmp_path / FILE, [0, 1, 2])

    def told(**options):
        return [any("rewards are 0" in text for text in e.warnings) for e in read_all(tmp_path, **options)]

    assert told() == [False] * 3
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["data/demo_1/rewards"][...] = 0
    assert told() == [False] * 3  # its dones end it
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["data/demo_1/dones"][...] = 0
    assert told() == [False, True, False] and told(include_failed=True) == [False] * 3
    with h5py.File(tmp_path / FILE, "r+") as file:
        for name in ("rewards", "dones"):
            file[f"data/demo_0/{name}"][...] = file[f"data/demo_2/{name}"][...] = 0
    assert told() == [False] * 3  # nothing is recorded


def test_what_options_leave_out_is_counted(tmp_path):
    for name in ("turn_on_the_stove", "put_the_bowl_on_the_plate"):
        write_file(tmp_path / "libero_goal" / f"{name}_demo.hdf5", [0, 1, 2])
    found = _left_out(tmp_path, tasks=("turn_on_the_stove",), max_episodes_per_task=1)
    assert found == {
        "demonstrations after the first 1 of their file": (2, (f"{FILE}#demo_1", f"{FILE}#demo_2"), True),
        "task files that the options suites and tasks do not name": (
            1,
            ("libero_goal/put_the_bowl_on_the_plate_demo.hdf5",),
            True,
        ),
    }


@pytest.mark.parametrize(
    ("names", "command"),
    [
        (["libero_10.zip"], "find . -name '*.zip' -execdir unzip -q {} \\;"),
        (["a/x.tar.gz"], "find . -name '*.tar.gz' -execdir tar xf {} \\;"),
        (["libero_90.zip.001", "libero_90.zip.002"], "cat libero_90.zip.* > libero_90.zip, then unpack libero_90.zip"),
    ],
)
def test_archives_are_named_with_the_command_that_unpacks_them(tmp_path, names, command):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(UsageError) as caught:
        converter().discover(tmp_path)
    assert command in str(caught.value)
    write_file(tmp_path / FILE, [0])
    ((reason_, (count, examples, asked)),) = _left_out(tmp_path).items()
    assert command in reason_ and count == len(names) and examples == tuple(sorted(names)) and not asked


def test_archives_beside_their_folder_count_as_unpacked(tmp_path):
    write_file(tmp_path / FILE, [0])
    (tmp_path / "libero_goal.zip").write_bytes(b"PK")
    ((reason_, (count, _, asked)),) = _left_out(tmp_path).items()
    assert "beside a folder or recording of their name" in reason_ and (count, asked) == (1, True)


def test_files_without_observations_and_robomimics_keys_say_what_to_do(tmp_path):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        obs = file["data/demo_0/obs"]
        for ours, theirs in {
            "ee_states": None,
            "ee_pos": "robot0_eef_pos",
            "ee_ori": None,
            "gripper_states": "robot0_gripper_qpos",
            "agentview_rgb": "agentview_image",
        }.items():
            if theirs:
                obs.move(ours, theirs)
            else:
                del obs[ours]
    found = reason(tmp_path)
    assert "under robomimic's names (agentview_image, robot0_eef_pos" in found and "fwdata regenerate libero" in found
    with h5py.File(tmp_path / FILE, "r+") as file:
        file.move("data/demo_0/obs/agentview_image", "data/demo_0/obs/agentview_rgb")
    assert "under robomimic's names (robot0_eef_pos" in reason(tmp_path)
    with h5py.File(tmp_path / FILE, "r+") as file:
        del file["data/demo_0/obs/robot0_eef_pos"], file["data/demo_0/obs/robot0_gripper_qpos"]
    found = reason(tmp_path)
    assert "gripper_states is missing (found agentview_rgb, eye_in_hand_rgb, joint_states); files with" in found
    with h5py.File(tmp_path / FILE, "r+") as file:
        del file["data/demo_0/obs"]
    assert "has no group obs" in reason(tmp_path) and "make them from the states: fwdata regenerate" in reason(tmp_path)
