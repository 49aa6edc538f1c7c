"""Which LIBERO task files are found, what they are called, and what is said about incomplete downloads."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from libero_files import write_file
from libero_reading import FILE, TASK, converter, reason

from converters.libero.published import SUITE_OF_TASK
from fwdata.api import UsageError

GOAL = "libero_goal"
OTHER = f"{GOAL}/put_the_bowl_on_the_plate_demo.hdf5"


def ids(root, **options):
    return [ref.id for ref in converter(**options).discover(root).episodes]


def warnings(root, **options):
    return " | ".join(converter(**options).discover(root).warnings)


def suite(folder, demos=1, kind="raw", skip=0, name=GOAL):
    """All task files of a suite, with what discovery looks at."""
    folder.mkdir()
    for task in sorted(task for task, owner in SUITE_OF_TASK.items() if owner == name)[skip:]:
        with h5py.File(folder / f"{task}_demo.hdf5", "w") as file:
            for number in range(demos):
                file[f"data/demo_{number}/actions"] = np.zeros((2, 7))
            if kind == "raw":
                file["data"].attrs["num_demos"] = demos


def test_suites_come_in_the_order_of_fast_wam(tmp_path):
    files = {
        "libero_90": "KITCHEN_SCENE10_close_the_top_drawer_of_the_cabinet",
        "libero_10": "STUDY_SCENE1_pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy",
        "libero_goal": TASK,
        "libero_object": "pick_up_the_milk_and_place_it_in_the_basket",
        "libero_spatial": "pick_up_the_black_bowl_on_the_stove_and_place_it_on_the_plate",
    }
    for folder, task in files.items():
        write_file(tmp_path / folder / f"{task}_demo.hdf5", [0])
    refs = converter().discover(tmp_path).episodes
    wanted = ["libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90"]
    assert [ref.hints["suite"] for ref in refs] == wanted
    assert [ref.id for ref in refs] == [f"{name}/{files[name]}/demo_0" for name in wanted]
    assert [ref.group for ref in refs] == [f"{name}/{files[name]}" for name in wanted]
    assert all(0 < ref.num_bytes < (tmp_path / ref.files[0]).stat().st_size for ref in refs)
    assert ids(tmp_path, suites=["libero_10", "libero_goal"]) == [f"{n}/{files[n]}/demo_0" for n in wanted[2:4]]
    assert ids(tmp_path, tasks=[TASK]) == [f"libero_goal/{TASK}/demo_0"]


@pytest.mark.parametrize("below", ["", GOAL, FILE])
def test_a_root_of_any_level_gives_the_same_ids(tmp_path, below):
    write_file(tmp_path / FILE, [0, 2])
    root = tmp_path / below
    refs = converter().discover(root).episodes
    assert [ref.id for ref in refs] == [f"{GOAL}/{TASK}/demo_{i}" for i in (0, 2)]
    assert refs[1].source.endswith(f"{TASK}_demo.hdf5#demo_2")
    assert len(converter().read(root, refs[1]).state) == 8


@pytest.mark.parametrize(
    ("path", "folder", "name"),
    [
        ("LIBERO-Goal/turn_on_the_stove_demo.hdf5", "LIBERO-Goal", "libero_goal"),
        ("libero_10_no_noops_512/anything_demo.hdf5", "libero_10_no_noops_512", "libero_10"),
        ("libero_spatial/deep/anything_demo.hdf5", "libero_spatial", "libero_spatial"),
        ("downloads/turn_on_the_stove_demo.hdf5", "libero_goal", "libero_goal"),  # told by the task
        ("libero_100/KITCHEN_SCENE2_stack_it_demo.hdf5", "libero_90", "libero_90"),
        ("mine/fold_the_towel_demo.hdf5", "unknown", "unknown"),
    ],
)
def test_where_the_suite_is_from(tmp_path, path, folder, name):
    write_file(tmp_path / path, [0])
    (ref,) = converter().discover(tmp_path).episodes
    assert ref.id.split("/")[0] == folder and ref.hints["suite"] == name
    assert ("tells the suite: mine/fold_the_towel_demo.hdf5" in warnings(tmp_path)) == (name == "unknown")


def test_raw_and_regenerated_files_of_one_task_have_different_ids(tmp_path):
    write_file(tmp_path / FILE, [0])
    write_file(tmp_path / f"{GOAL}_no_noops" / f"{TASK}_demo.hdf5", [0], "openvla")
    assert ids(tmp_path) == [f"{GOAL}/{TASK}/demo_0", f"{GOAL}_no_noops/{TASK}/demo_0"]
    assert "more than once" in warnings(tmp_path)
    assert ids(tmp_path, suites=[f"{GOAL}_no_noops"]) == [f"{GOAL}_no_noops/{TASK}/demo_0"]


def test_equal_names_in_several_places_stay_apart(tmp_path):
    for place in ("a", "b"):
        write_file(tmp_path / place / FILE, [0])
    write_file(tmp_path / "a" / FILE.replace(".hdf5", ".h5"), [0])
    found = ids(tmp_path)
    assert found == [
        f"{GOAL}/{TASK}/demo_0",
        f"{GOAL}/{TASK}@a/{GOAL}/demo_0",
        f"{GOAL}/{TASK}@b/{GOAL}/demo_0",
    ]
    assert len({ref.group for ref in converter().discover(tmp_path).episodes}) == 3


def test_a_task_in_the_wrong_folder_is_a_warning(tmp_path):
    write_file(tmp_path / "libero_object" / f"{TASK}_demo.hdf5", [0])
    assert (
        f"names another suite than the one the task is from: libero_object/{TASK}_demo.hdf5 (libero_goal)"
        in warnings(tmp_path)
    )


def test_limits(tmp_path):
    write_file(tmp_path / FILE, [7, 3, 20])
    write_file(tmp_path / OTHER, [1])
    found = ids(tmp_path, max_episodes_per_task=2)
    assert found == [
        f"{GOAL}/put_the_bowl_on_the_plate/demo_1",
        f"{GOAL}/{TASK}/demo_3",
        f"{GOAL}/{TASK}/demo_7",
    ]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"suites": ["libero_goals"]}, "no task file of 'libero_goals' was found; did you mean 'libero_goal'"),
        ({"tasks": ["turn_on_a_stove"]}, "did you mean 'turn_on_the_stove'"),
        ({"suites": ["libero_object"], "tasks": [TASK]}, "leave none of the 2 task files"),
    ],
)
def test_options_that_leave_nothing(tmp_path, options, part):
    write_file(tmp_path / FILE, [0])
    write_file(tmp_path / "libero_object" / "pick_up_the_milk_and_place_it_in_the_basket_demo.hdf5", [0])
    with pytest.raises(UsageError, match=part):
        converter(**options).discover(tmp_path)


# Counts


def test_complete_suites_say_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("converters.libero.published.RAW_DEMOS", 3)
    suite(tmp_path / GOAL, demos=3)
    assert warnings(tmp_path) == ""
    decisions = converter().discover(tmp_path).decisions
    assert decisions["suites"] == {GOAL: {"task_files": 10, "demonstrations": 30, "frames": 60, "layouts": {"raw": 10}}}


def test_incomplete_suites_are_warnings(tmp_path):
    suite(tmp_path / GOAL, skip=7)
    assert f"{GOAL}: 3 of 10 task files found" in warnings(tmp_path)
    assert "other than 50 demonstrations: put_the_wine_bottle_on_the_rack (1) and 2 more" in warnings(tmp_path)


def test_a_suite_with_files_of_perturbed_tasks_has_more_names_than_tasks(tmp_path):
    suite(tmp_path / GOAL)
    for number in (1, 2):
        write_file(tmp_path / GOAL / f"put_the_bowl_on_the_stove_table_{number}_demo.hdf5", [0])
    assert f"{GOAL}: task files of 12 names found, the suite has 10 tasks" in warnings(tmp_path)


def test_suite_folders_without_task_files_are_warnings(tmp_path):
    write_file(tmp_path / FILE, [0])
    (tmp_path / "libero_10").mkdir()
    (tmp_path / "libero_spatial_no_noops").mkdir()
    (tmp_path / "notes").mkdir()
    assert "suite folders without a task file: libero_10 and 1 more" in warnings(tmp_path)


@pytest.mark.parametrize(("demos", "said"), [(4, False), (3, True)])
def test_regenerated_counts_are_expected_within_some_percent(tmp_path, monkeypatch, demos, said):
    monkeypatch.setattr("converters.libero.published.REGENERATED_DEMOS", {GOAL: 42})
    suite(tmp_path / f"{GOAL}_no_noops", demos, "openvla")
    text = f"{GOAL}_no_noops: {demos * 10} demonstrations, the published regeneration has 42"
    assert warnings(tmp_path) == (text if said else "")


@pytest.mark.parametrize(
    ("attributes", "part"),
    [
        ({"num_demos": np.int64(50)}, f"the content counts: {FILE} (num_demos 50, found 2)"),
        ({"total": np.int64(17)}, f"the content counts: {FILE} (total 17, found 16)"),
        ({"env_args": '{"env_kwargs": {"control_freq": 10}}'}, f"than the manifest's 20 Hz: {FILE} (10 Hz)"),
    ],
)
def test_attributes_that_disagree_are_warnings(tmp_path, attributes, part):
    write_file(tmp_path / FILE, [0, 1], attributes=attributes)
    assert part in warnings(tmp_path)
    assert len(ids(tmp_path)) == 2


@pytest.mark.parametrize("attributes", [{"num_demos": "two"}, {"total": np.zeros(3)}, {"env_args": "no json"}, {}])
def test_attributes_may_be_anything_or_absent(tmp_path, attributes):
    names = ("num_demos", "total", "env_args", "problem_info", "tag", "env_name", "bddl_file_name")
    write_file(tmp_path / FILE, [0], attributes={**dict.fromkeys(names), **attributes})
    with h5py.File(tmp_path / FILE, "r+") as file:
        del file["data/demo_0"].attrs["num_samples"]
    assert len(ids(tmp_path)) == 1 and "disagree" not in warnings(tmp_path)


# Files without demonstrations


def test_demonstrations_at_the_root_of_a_file_are_named(tmp_path):
    write_file(tmp_path / FILE, [0, 1])
    with h5py.File(tmp_path / FILE, "r+") as file:
        for name in list(file["data"]):
            file.move(f"data/{name}", name)
    with pytest.raises(UsageError, match=r"demonstrations \(demo_0, demo_1\) lie at the root; move them into"):
        converter().discover(tmp_path)


@pytest.mark.parametrize("content", ["empty group", "no group", "another source"])
def test_files_without_demonstrations_are_warnings(tmp_path, content):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / OTHER, "w") as file:
        if content == "empty group":
            file.create_group("data")
        elif content == "another source":
            file["observation/head_camera/rgb"] = np.zeros(3)
    found = converter().discover(tmp_path)
    assert len(found.episodes) == 1 and found.skipped == ()
    wanted = "holds no demonstration" if content == "empty group" else "has no group data"
    assert any(OTHER in text and wanted in text for text in found.warnings)
    with pytest.raises(UsageError, match="no HDF5 file below .* holds a LIBERO demonstration: .*" + wanted):
        converter().discover(tmp_path / OTHER)


@pytest.mark.parametrize("damage", ["truncated", "empty", "no hdf5"])
def test_unreadable_files_are_skipped_with_their_reason(tmp_path, damage):
    write_file(tmp_path / FILE, [0])
    write_file(tmp_path / OTHER, [0])
    data = (tmp_path / OTHER).read_bytes()
    (tmp_path / OTHER).write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "no hdf5": b"x" * 999}[damage])
    found = converter().discover(tmp_path)
    assert [ref.files[0] for ref in found.episodes] == [FILE]
    assert [skip.source for skip in found.skipped] == [OTHER]
    assert ("is empty" if damage == "empty" else "cannot be read as HDF5") in found.skipped[0].reason
    with pytest.raises(UsageError, match=r"put_the_bowl_on_the_plate_demo\.hdf5"):
        converter().discover(tmp_path / OTHER)


def test_a_data_group_of_another_file_is_refused(tmp_path):
    write_file(tmp_path / "elsewhere" / "x_demo.hdf5", [0])
    (tmp_path / "root" / GOAL).mkdir(parents=True)
    write_file(tmp_path / "root" / OTHER, [0])
    with h5py.File(tmp_path / "root" / FILE, "w") as file:
        file["data"] = h5py.ExternalLink(str(tmp_path / "elsewhere" / "x_demo.hdf5"), "data")
    (skip,) = converter().discover(tmp_path / "root").skipped
    assert skip.source == FILE and "external link" in skip.reason


@pytest.mark.parametrize("path", ["", "notes.txt", "absent"])
def test_roots_without_task_files(tmp_path, path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "notes.txt").write_text("hello")
    with pytest.raises(UsageError) as caught:
        converter().discover(root / path)
    assert str(root / path) in str(caught.value) and "\n" not in str(caught.value)


def test_links_and_hidden_files_are_not_followed(tmp_path):
    inside = write_file(tmp_path / "root" / FILE, [0])
    write_file(tmp_path / "out" / OTHER, [0])
    (tmp_path / "root" / GOAL / "._turn_on_the_stove_demo.hdf5").write_bytes(b"mac")
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "out")
    (tmp_path / "root" / "put_the_bowl_on_the_plate_demo.hdf5").symlink_to(tmp_path / "out" / OTHER)
    assert len(inside) == 1 and ids(tmp_path / "root") == [f"{GOAL}/{TASK}/demo_0"]
    assert "2 entries were not followed, the first is linked (a symbolic link)" in warnings(tmp_path / "root")


def test_damaged_demonstrations_are_still_listed(tmp_path):
    write_file(tmp_path / FILE, [0, 1])
    with h5py.File(tmp_path / FILE, "r+") as file:
        del file["data/demo_0/actions"]
    refs = converter().discover(tmp_path).episodes
    assert [ref.hints["frames"] for ref in refs] == [0, 8]
    assert "data/demo_0/actions is missing (found dones, obs, " in reason(tmp_path)
