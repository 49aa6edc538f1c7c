"""RoboTwin recordings as third parties name, regroup, rewrite and pack them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import simplejpeg
from robotwin_files import write_episode, write_task
from robotwin_reading import TASK, colours, converter, read_all, read_one, reason, recording, replace

from converters.robotwin.paths import ARM_JOINTS, canonical_embodiment
from fwdata.api import UsageError
from fwdata.evidence.detectors.action import WORDS


@pytest.mark.parametrize("name", ARM_JOINTS)
@pytest.mark.parametrize("between", ["_", "+"])
def test_two_arms_of_one_kind_are_that_kind(name, between):
    plain = name.replace("-", "_").lower()
    assert canonical_embodiment(f"{plain}{between}{plain}") == name
    assert canonical_embodiment(f"{name}{between}{name}") == name
    assert canonical_embodiment("piper_franka") == "piper_franka"


def test_a_doubled_embodiment_is_converted_with_the_others_and_its_joints_are_counted(tmp_path):
    write_task(tmp_path, "archive", "click_bell", [0], embodiment="ur5")
    folder = tmp_path / "demo_clean" / TASK / "ur5_wsg_ur5_wsg"
    write_episode(folder / "data" / "episode_0000000.hdf5", "native")
    found = converter().discover(tmp_path)
    assert {ref.embodiment for ref in found.episodes} == {"ur5-wsg"}
    write_episode(folder / "data" / "episode_0000000.hdf5", "native", n_arm=7)
    made = converter()
    refs = [ref for ref in made.discover(tmp_path).episodes if "demo_clean" in ref.source]
    with pytest.raises(Exception, match="have 7 and 7 joints, but ur5-wsg has 6"):
        made.read(tmp_path, refs[0])


def _regrouped(root, below=(TASK,), folder="instructions", index=1):
    write_episode(root.joinpath("data", *below, f"episode{index}.hdf5"))
    text = root.joinpath(folder, *below, f"episode{index}.json")
    text.parent.mkdir(parents=True)
    text.write_text(json.dumps({"seen": ["Lift the bottle upright."], "unseen": []}))
    return root


@pytest.mark.parametrize("folder", ["instructions", "instruction"])
@pytest.mark.parametrize("below", [(TASK,), (TASK, "aloha-agilex_clean_50"), ("demo_clean", TASK, "piper")])
def test_recordings_in_data_task_have_their_texts_in_instructions_task(tmp_path, below, folder):
    _regrouped(tmp_path, below, folder)
    episode = read_one(tmp_path)
    assert episode.instructions == ("Lift the bottle upright.",) and episode.task == TASK
    (only,) = converter().discover(tmp_path).episodes
    assert only.files[1] == "/".join((folder, *below, "episode1.json"))
    assert read_one(tmp_path / "data").instructions == ("Lift the bottle upright.",)
    assert read_one((tmp_path / "data").joinpath(*below)).instructions == ("Lift the bottle upright.",)


@pytest.mark.parametrize("below", [(TASK,), ("demo_clean", TASK), (TASK, "piper")])
def test_recordings_in_task_have_their_texts_in_instructions_task(tmp_path, below):
    _regrouped(tmp_path / "set", below)
    moved = (tmp_path / "set").joinpath(*below)
    moved.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "set" / "data").joinpath(*below).rename(moved)
    for root in (tmp_path / "set", moved):
        episode = read_one(root)
        assert episode.instructions == ("Lift the bottle upright.",) and episode.task == TASK
    (only,) = converter().discover(tmp_path / "set").episodes
    assert only.files[1] == "/".join(("instructions", *below, "episode1.json"))


@pytest.mark.parametrize(("folder", "text"), [("hdf5", "instructions"), ("data", "data"), (".", ".")])
def test_texts_lie_beside_a_folder_of_another_name_or_among_the_recordings(tmp_path, folder, text):
    task = tmp_path / TASK / "aloha-agilex_clean_50"
    write_episode(task / folder / "episode1.hdf5")
    (task / text).mkdir(exist_ok=True)
    (task / text / "episode1.json").write_text(json.dumps(["Lift it."]), encoding="utf-8-sig")
    (task / text / "episode0.json").write_text(json.dumps(["Lift another."]))
    assert read_one(tmp_path).instructions == ("Lift it.",) == read_one(task / folder).instructions


def test_texts_of_another_task_or_number_are_not_taken(tmp_path):
    _regrouped(tmp_path)
    (tmp_path / "instructions" / TASK / "episode1.json").rename(tmp_path / "instructions" / TASK / "episode2.json")
    assert read_one(tmp_path).metadata["instruction_fallback"] is True


@pytest.mark.parametrize(
    "content",
    [
        {"instruction": "Hit it."},
        {"instruction": ["Hit it.", "Hit it."]},
        {"instructions": ["Hit it."]},
        {"instructions": {"seen": ["Hit it."], "unseen": ["No."]}},
        {"seen": "Hit it."},
        {"task": "beat_block_hammer", "prompt": "Hit it."},
        {"task_description": ["Hit it."]},
        ["Hit it."],
        "Hit it.",
    ],
)
def test_every_form_of_an_instruction_file(tmp_path, content):
    folder = write_task(tmp_path, "archive", TASK, [0])
    (folder / "instructions" / "episode0.json").write_text(json.dumps(content))
    episode = read_one(tmp_path)
    assert episode.instructions == ("Hit it.",) and episode.metadata["instruction_fallback"] is False


def test_an_instruction_file_of_another_form_is_answered_with_its_keys(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    (folder / "instructions" / "episode0.json").write_text(json.dumps({"goal": "Hit it.", "id": 3}))
    assert any("list of texts, found 'goal', 'id'" in warning for warning in read_one(tmp_path).warnings)


# Actions


def test_recorded_targets_are_kept_on_request(tmp_path):
    folder = write_task(tmp_path, "v1", TASK, [0])
    with recording(folder) as file:
        rows = file["action/left_arm_joint_states"][()] + np.float32(0.01)
        replace(file, "action/left_arm_joint_states", rows)
    assert "option actions = recorded keeps such targets" in reason(tmp_path)
    episode = read_one(tmp_path, actions="recorded")
    assert np.array_equal(episode.action[:, :6], rows) and episode.conventions.action == "absolute"
    assert "recorded targets" in str(episode.metadata["rows"])


@pytest.mark.parametrize(("group", "other"), [("state", "action"), ("action", "state")])
def test_degrees_beside_rad_are_named_and_not_kept_by_an_option(tmp_path, group, other):
    folder = write_task(tmp_path, "v1", TASK, [0])
    with recording(folder) as file:
        for side in ("left", "right"):
            rows = file[f"{group}/{side}_arm_joint_states"][()]
            replace(file, f"{group}/{side}_arm_joint_states", np.degrees(rows))
    told = reason(tmp_path)
    assert told.startswith(f"{group} is in degrees, {other} in rad") and "recorded" not in told


@pytest.mark.parametrize("late", [2, 6])
def test_actions_that_are_late_throughout_are_left_out_for_that(tmp_path, late):
    folder = write_task(tmp_path, "v1", TASK, [0], num_frames=30)
    with recording(folder) as file:
        for name, rows in file["action"].items():
            behind = np.roll(file["state"][name][()], late - 1, axis=0)
            replace(file, f"action/{name}", behind)
            assert len(rows) == 29
    told = reason(tmp_path)
    assert f"action row t is the state of row t - {late - 1} throughout: " in told
    assert f"the actions are {late} rows late" in told and ("reverse order" in told) == (late == 2)


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (lambda row: row / 30, "show 30 Hz, where 16.667 Hz is stored"),
        (lambda row: row / 15, None),
        (lambda row: row * 60_000_000 + 1_754_400_852 * 10**9, None),
        (lambda row: row, None),
        (lambda row: row * 0.06 + (row > 9) * 0.5, "jump by 0.56 s to row 10"),
        (lambda row: np.where(row == 7, 0.0, row * 0.06), "do not grow at row 7"),
    ],
    ids=["30 Hz", "label", "ns", "row numbers", "hole", "back"],
)
def test_stamps_that_the_layout_has_not_are_compared_with_the_rate(tmp_path, times, told):
    folder = write_task(tmp_path, "archive", TASK, [0], num_frames=20)
    with recording(folder) as file:
        file["timestamps"] = times(np.arange(len(file["joint_action/vector"])))
    found = [text for text in read_one(tmp_path).warnings if text.startswith("timestamps is not used")]
    assert len(found) == (told is not None) and (told is None or told in found[0])


def test_without_the_option_the_next_state_is_the_action(tmp_path):
    write_task(tmp_path, "v1", TASK, [0])
    episode, kept = read_one(tmp_path), read_one(tmp_path, actions="recorded")
    assert np.array_equal(episode.action, kept.action) and episode.conventions.action == "next_state"
    known = {key: flag for key, flag in kept.conventions.options.items() if key.startswith("action_meaning")}
    assert known == {f"action_meaning -> {WORDS[what]}": "--actions next_state" for what in ("next_state", "copy")}
    write_task(tmp_path / "classic", "archive", TASK, [0])
    assert "classic files hold no actions besides their joint targets" in reason(
        tmp_path / "classic", actions="recorded"
    )


# What a converted file says about its own origin


@pytest.mark.parametrize(
    ("told", "setting", "embodiment"),
    [
        (f"/mnt/raw/{TASK}/aloha-agilex_randomized_500/data/episode3.hdf5", "randomized", "aloha-agilex"),
        (f"D:\\data\\{TASK}\\demo_clean\\data\\episode3.hdf5", "clean", "aloha-agilex"),
        ("episode3.hdf5", "unknown", "aloha-agilex"),
        ("native_collection", "unknown", "aloha-agilex"),
        (3, "unknown", "aloha-agilex"),
    ],
)
def test_a_setting_that_folders_do_not_tell_is_in_the_files_own_path(tmp_path, told, setting, embodiment):
    folder = write_task(tmp_path, "v1-archive", TASK, [0], variant="converted")
    with recording(folder) as file:
        file.attrs["source_path"] = told
    made = converter()
    found = made.discover(tmp_path)
    assert (found.episodes[0].hints["setting"], found.episodes[0].embodiment) == (setting, embodiment)
    assert any("attribute source_path tells" in text for text in found.warnings) == (setting != "unknown")
    forced = converter(default_setting="clean").discover(tmp_path).episodes[0]
    assert forced.hints["setting"] == (setting if setting != "unknown" else "clean")


def test_a_files_own_path_that_contradicts_its_folders_is_named(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    assert not any("source_path" in text for text in read_one(tmp_path).warnings)
    path = r"D:\data\click_bell\ur5_wsg_ur5_wsg_randomized_50\data\episode0.hdf5"
    with recording(folder) as file:
        file.attrs["source_path"] = path
    (told,) = [text for text in read_one(tmp_path).warnings if "source_path" in text]
    assert (
        "says setting randomized and" in told and "task click_bell" in told and f"task {TASK}, which is stored" in told
    )


# Images


def _grey(folder, form):
    with recording(folder) as file:
        key = "observation/left_camera/rgb"
        pictures = np.full((6, 48, 64, 1), 90, np.uint8)
        pictures[:, 10:20] = 200
        if form == "jpeg":
            data = [simplejpeg.encode_jpeg(image, colorspace="GRAY") for image in pictures]
            replace(file, key, np.array(data, dtype=f"S{max(map(len, data))}"))
        else:
            replace(file, key, pictures if form == "4-D" else pictures[..., 0])


@pytest.mark.parametrize("form", ["jpeg", "3-D", "4-D"])
def test_greyscale_cameras_are_reported_and_kept(tmp_path, form):
    _grey(write_task(tmp_path, "archive", TASK, [0]), form)
    episode = read_one(tmp_path)
    shown = colours(episode.cameras["left_camera"])
    assert shown.shape == (5, 48, 64, 3) and (shown[..., 0] == shown[..., 2]).all()
    assert abs(int(shown[0, 15, 5, 0]) - 200) < 4 and abs(int(shown[0, 30, 5, 0]) - 90) < 4
    assert [text for text in episode.warnings if "greyscale" in text] == [
        "left_camera is greyscale; stored as three equal channels"
    ]


@pytest.mark.parametrize(("size", "said"), [((48, 64), False), ((64, 64), True), ((36, 64), True)])
def test_cameras_of_another_aspect_than_their_tile_are_reported(tmp_path, size, said):
    write_task(tmp_path, "archive", TASK, [0], size=size)
    told = [text for text in read_one(tmp_path).warnings if "of their aspect when stitched at 320x240" in text]
    assert len(told) == (3 if said else 0)
    assert not said or f"head_camera has images of {size[1]}x{size[0]} pixels" in told[0]


@pytest.mark.parametrize("video", [False, True])
def test_colours_that_nothing_shows_are_claimed_as_not_verified(tmp_path, video):
    write_task(tmp_path, "archive", TASK, [0], video=video)
    colour = read_one(tmp_path).conventions.colour
    assert colour is not None
    assert (colour.verified_by, colour.reason) == (("the collector's video", "") if video else (None, "no video"))


# What is not taken


def _left_out(root, **options):
    found = converter(**options).discover(root).left_out
    return {left.reason: (left.count, left.asked) for left in found}


def test_archives_beside_folders_are_named_with_the_command(tmp_path):
    write_task(tmp_path, "archive", TASK, [0])
    packed, unpacked = (
        tmp_path / "click_bell" / "aloha-agilex_clean_50.zip",
        tmp_path / TASK / "aloha-agilex_clean_50.zip",
    )
    packed.parent.mkdir()
    for path in (packed, unpacked, tmp_path / "rest.tar.gz"):
        path.write_bytes(b"PK")
    found = _left_out(tmp_path)
    (told,) = [text for text in found if "not unpacked" in text]
    assert "unzip -q {}" in told and "tar xf {}" in told and found[told] == (2, False)
    assert found["archives beside a folder or recording of their name, taken as unpacked"] == (1, True)
    with pytest.raises(UsageError, match=r"unpack the archives first, in that folder: find \. -name '\*\.zip'"):
        converter().discover(packed.parent)


def test_what_options_leave_out_is_counted(tmp_path):
    write_task(tmp_path, "archive", TASK, [0, 1, 2])
    write_task(tmp_path, "archive", "click_bell", [0])
    assert _left_out(tmp_path, tasks=(TASK,), max_episodes_per_task=1) == {
        "recordings that the options tasks, settings and embodiment do not name": (1, True),
        "recordings beyond max_episodes_per_task of their task": (2, True),
    }
    assert _left_out(tmp_path) == {} and len(read_all(tmp_path)) == 4
