"""Finding RoboTwin recordings: what paths tell, options, and what is wrong with whole trees."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import pytest
from fixtures import run_convert
from hypothesis import given, settings
from hypothesis import strategies as st
from robotwin_files import (
    LAYOUTS,
    task_folder,
    write_episode,
    write_task,
)
from robotwin_reading import TASK, converter, read_one

from converters.robotwin.paths import ARM_JOINTS, TASKS, canonical_embodiment, episode_index, parse_folder
from fwdata.api import UsageError
from fwdata.envs.sample import write_sample
from fwdata.manifest import load_manifest

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
    with pytest.raises(UsageError, match="their settings unknown; option default_setting says what those are"):
        converter(settings=["clean"]).discover(tmp_path)
    found = converter().discover(tmp_path)
    assert any("option embodiment" in w for w in found.warnings)
    assert any("option default_setting" in w for w in found.warnings)
    found = converter(embodiment="ur5", default_setting="clean").discover(tmp_path)
    assert found.episodes[0].id == f"{TASK}/ur5-wsg/clean/episode_0" and found.warnings == ()


@pytest.mark.parametrize(("embodiment", "joints", "told"), [("franka", 7, "franka-panda"), ("piper", 6, "piper")])
def test_robots_are_not_mixed_whatever_their_joints(tmp_path, embodiment, joints, told):
    write_task(tmp_path, "archive", TASK, [0])
    write_task(tmp_path, "archive", "click_bell", [0], embodiment=embodiment, n_arm=joints)
    with pytest.raises(UsageError, match=rf"aloha-agilex \(1\), {told} \(1\).* --embodiment aloha-agilex"):
        converter().discover(tmp_path)
    assert read_one(tmp_path, embodiment=embodiment).state.shape[1] == 2 * (joints + 1)


def test_robots_of_several_roots_are_not_mixed_but_unnamed_ones_are_taken_along(tmp_path):
    write_task(tmp_path / "a", "archive", TASK, [0])
    write_task(tmp_path / "b", "archive", TASK, [0], embodiment="piper")
    write_task(tmp_path / "c", "classic", "click_bell", [0])
    both = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(UsageError, match=r"several embodiments, aloha-agilex \(1\), piper \(1\).*a store of its own"):
        run_convert(both, tmp_path / "s.zarr", load_manifest("robotwin-sample"))
    report = run_convert([tmp_path / "b", tmp_path / "c"], tmp_path / "t.zarr", load_manifest("robotwin-sample"))
    assert report.episodes == 2 and any("option embodiment sets it" in warning for warning in report.warnings)


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
    (left,) = found.left_out
    assert (left.reason, left.count) == ("episode files outside of data folders", 1)
    assert left.examples[0].endswith("backup/episode7.hdf5")


def test_nested_folder_after_unpacking(tmp_path):
    folder = write_task(tmp_path / "staging", "archive", TASK, [0])
    nested = tmp_path / "root" / TASK / folder.name
    nested.mkdir(parents=True)
    folder.rename(nested / folder.name)
    episode = read_one(tmp_path / "root")
    assert episode.task == TASK and episode.embodiment == "aloha-agilex"
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


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "seed.txt is empty (0 bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "git lfs pull --include 'seed.txt'"),
        (b"/annex/objects/SHA256E-s1--ab\n", "git annex get --include='*seed.txt'"),
        (b"<!doctype html><title>Sign in</title>", "an HTML page"),
    ],
)
def test_seeds_that_are_not_there_are_named_as_what_is(tmp_path, data, told):
    folder = write_task(tmp_path, "archive", TASK, [0])
    (folder / "seed.txt").write_bytes(data)
    [said] = [w for w in read_one(tmp_path).warnings if "seed" in w]
    assert said.startswith("seed.txt is not used: ") and told in said


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
    assert "the same episode as old/" in skipped.reason and not skipped.damaged


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


def test_tasks_of_the_sample_world_are_known(tmp_path):
    write_sample("robotwin", tmp_path, episodes=2, seed=0)
    assert converter().discover(tmp_path).warnings == ()


def test_recordings_in_folders_named_as_failed_are_named(tmp_path):
    write_task(tmp_path, "archive", TASK, [0])
    assert not any("failed" in text for text in converter().discover(tmp_path).warnings)
    write_task(tmp_path / "failed", "archive", "click_bell", [0, 1])
    (told,) = [text for text in converter().discover(tmp_path).warnings if "named as failed" in text]
    assert told.startswith("2 recordings lie in") and "failed/click_bell" in told and "--exclude" in told
