"""Recordings left out by name, what is left out counted, and warnings grouped by kind."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from libero_files import moving, write_file

import fwdata
from fwdata.cli.convert import _names_in
from fwdata.errors import UsageError
from fwdata.warning_kinds import group_warnings

STOVE, BOWL = "turn_on_the_stove", "put_the_bowl_on_the_plate"


@pytest.fixture
def raw(tmp_path):
    for task in (STOVE, BOWL):
        write_file(tmp_path / "raw" / "libero_goal" / f"{task}_demo.hdf5", [0, 1, 2], size=(8, 8))
    return tmp_path / "raw"


def _convert(run, raw, *options):
    return run("convert", "libero", raw, "--out", raw.parent / "s.zarr", "--workers", 0, "--no-evidence", *options)


def _ids(raw):
    return [episode.id.removeprefix("libero_goal/") for episode in fwdata.open(raw.parent / "s.zarr").episodes]


@pytest.mark.parametrize(
    ("options", "left", "named", "outside"),
    [
        (
            ("--exclude", f"libero_goal/{STOVE}/demo_1"),
            [f"{BOWL}/0", f"{BOWL}/1", f"{BOWL}/2", f"{STOVE}/0", f"{STOVE}/2"],
            1,
            0,
        ),
        (("--exclude", f"libero_goal/{STOVE}_demo.hdf5"), [f"{BOWL}/0", f"{BOWL}/1", f"{BOWL}/2"], 3, 0),
        (("--exclude", "*demo_[12]"), [f"{BOWL}/0", f"{STOVE}/0"], 4, 0),
        (("--only", f"libero_goal/{BOWL}_demo.hdf5#demo_2"), [f"{BOWL}/2"], 0, 5),
        (("--only", f"*{BOWL}*", "--exclude", "*demo_0"), [f"{BOWL}/1", f"{BOWL}/2"], 2, 2),
    ],
)
def test_recordings_are_left_out_by_name_and_counted_by_reason(run, raw, options, left, named, outside):
    ran = _convert(run, raw, *options)
    told = [line.partition(": ")[0::2] for line in ran.err.splitlines() if line.startswith("left out")]
    reasons = (("recordings that --exclude names", named), ("recordings that --only does not name", outside))
    assert ran.code == 0
    assert [(start, rest.partition(":")[0]) for start, rest in told] == [
        (f"left out, {count}", reason) for reason, count in reasons if count
    ]
    assert sorted(_ids(raw)) == sorted(name.replace("/", "/demo_") for name in left)
    again = _convert(run, raw)  # the choice is recorded: the others are no new recordings
    assert again.code == 0 and len(_ids(raw)) == len(left) and "0 frames" in again.out


def test_recordings_that_cannot_be_read_are_left_out_by_name_too(run, raw):
    """So the advice to leave them out can be followed, and --only is not about them."""
    (raw / "libero_goal" / "broken_demo.hdf5").write_bytes(b"")
    assert "0 bytes" in _convert(run, raw, "--dry-run").err
    for options in (("--exclude", "libero_goal/broken_demo.hdf5"), ("--only", f"*{BOWL}*")):
        ran = _convert(run, raw, *options, "--dry-run")
        assert ran.code == 0 and "left out, " in ran.err and "0 bytes" not in ran.err, ran.err
    ran = _convert(run, raw, "--only", "libero_goal/broken_demo.hdf5#demo_0")
    assert ran.code == 2 and "--only: libero_goal/broken_demo.hdf5 cannot be converted: " in ran.err


@pytest.mark.parametrize("name", [f"libero_goal/{STOVE}_demo.hdf5#demo_1", f"libero_goal/{STOVE}/demo_1", "demo_1"])
def test_a_name_that_an_option_leaves_out_is_answered_with_the_option(run, raw, name):
    for path in raw.glob("*/*.hdf5"):
        with h5py.File(path, "a") as file:
            file["mask/train"] = np.array([b"demo_0", b"demo_2"])
    masked = ("--mask", "train", "--dry-run")
    ran = _convert(run, raw, "--only", name, *masked)
    assert ran.code == 2
    assert f"--only: '{name}' is one of 2 demonstrations outside of mask train, which are left out" in ran.err
    assert _convert(run, raw, "--exclude", name, *masked).code == 0  # it is left out already
    assert "no recording is called" in _convert(run, raw, "--only", "demo_7", *masked).err


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("nosuch", f"is called 'nosuch'; known: libero_goal/{BOWL}/demo_0, libero_goal/{BOWL}/demo_1"),
        (f"{STOVE}_demo.hdf5", f"; 3 end in it, such as libero_goal/{STOVE}_demo.hdf5#demo_0: name one of them whole"),
        (f"{STOVE}_demo.hdf5#demo_1", f"; 1 end in it, such as libero_goal/{STOVE}_demo.hdf5#demo_1: name one"),
    ],
)
def test_a_name_of_no_recording_is_answered_with_recordings(run, raw, name, answer):
    ran = _convert(run, raw, "--exclude", name, "--dry-run")
    assert ran.code == 2 and answer in ran.err, ran.err


def test_the_pattern_that_the_answer_names_takes_all(run, raw):
    assert _convert(run, raw, "--exclude", f"*{STOVE}_demo.hdf5*").code == 0
    assert len(_ids(raw)) == 3


def test_names_from_a_file(run, raw, tmp_path):
    names = tmp_path / "bad.txt"
    names.write_text(f"# failed\nlibero_goal/{STOVE}/demo_0  # slipped\n\nlibero_goal/{STOVE}/demo_2\n")
    assert _convert(run, raw, "--exclude-file", names).code == 0
    assert len(_ids(raw)) == 4
    plan = fwdata.open(tmp_path / "s.zarr").plan
    assert (
        plan.exclude == (f"libero_goal/{STOVE}/demo_0", f"libero_goal/{STOVE}/demo_2") and plan.left_out[0].count == 2
    )


def test_a_file_of_names_that_is_none(tmp_path):
    names = tmp_path / "names.txt"
    names.write_bytes(b"\xef\xbb\xbfdemo_0\r\n")
    assert _names_in(names) == ("demo_0",)
    names.write_bytes("demo_0".encode("utf-16"))
    for path, told in (
        (names, "is not text in UTF-8"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "none", "cannot be read: No such file or directory"),
    ):
        with pytest.raises(UsageError, match=told):
            _names_in(path)


@pytest.mark.slow
def test_refusals_write_nothing(run, raw, tmp_path):
    _convert(run, raw, "--exclude", "libero_goal/turn_on_the_stove/demo_7").refused(
        2, "no recording is called", "did you"
    )
    _convert(run, raw, "--exclude", "*").refused(2, "leave none of the 6 recordings")
    empty = tmp_path / "empty.txt"
    empty.write_text("# nothing\n")
    _convert(run, raw, "--exclude-file", empty).refused(2, "names no recording")
    assert not (tmp_path / "s.zarr").exists()
    assert _convert(run, raw).code == 0
    _convert(run, raw, "--exclude", f"libero_goal/{STOVE}/demo_0").refused(2, "already", "another --out")
    assert len(_ids(raw)) == 6


def test_a_store_that_leaves_out_nothing_has_the_plan_it_always_had(run, raw, tmp_path):
    assert _convert(run, raw).code == 0 and _convert(run, raw).code == 0
    attributes = json.loads((tmp_path / "s.zarr" / "plan" / "zarr.json").read_text())["attributes"]
    assert not {"left_out", "exclude", "only"} & set(attributes)


def _odd(path, demos):
    with h5py.File(path, "r+") as file:
        for demo in demos:
            file[f"data/demo_{demo}/actions"][3, 6] = 0.25


@pytest.mark.slow
def test_warnings_of_one_kind_are_one_line_and_the_gravest_come_first(run, tmp_path):
    path = tmp_path / "raw" / "libero_goal" / f"{STOVE}_demo.hdf5"
    write_file(path, range(25), num_frames=15, size=(8, 8), actions=moving(15))
    _odd(path, (18, 20, 24))
    ran = run("convert", "libero", path.parent, "--out", tmp_path / "s.zarr", "--workers", 0, "--no-evidence")
    lines = [line for line in ran.err.splitlines() if line.startswith("warning")]
    assert lines[0].startswith("warning: 3 recordings: gripper commands other than -1 and 1, the first is 0.25")
    assert "demo_18, " in lines[0] and lines[0].endswith("demo_20, ..)")
    (short,) = [line for line in lines if "fewer than a window" in line]
    assert "25 recordings: 15 rows" in short and lines.index(short) > 0
    shown = run("inspect", tmp_path / "s.zarr")
    assert "warning in 3 episodes: gripper commands other than" in shown.out
    assert "warning in 25 episodes: 15 rows are fewer than a window" in shown.out
    first = next(line for line in shown.out.splitlines() if line.startswith("  warning"))
    assert "gripper commands" in first and "1 of 10 task files found" in shown.out  # before what discovery says
    kinds = run("inspect", tmp_path / "s.zarr", "--json").json["warning_kinds"]
    assert [kind["count"] for kind in kinds] == [3, 25]
    assert run("preview", tmp_path / "s.zarr", "--out", tmp_path / "page", "--episodes", 1).code == 0
    assert run("report", tmp_path / "s.zarr", "--out", tmp_path / "report.html").code == 0
    for page in ((tmp_path / "page" / "index.html").read_text(), (tmp_path / "report.html").read_text()):
        kinds = page[page.index("Warnings by kind, the gravest first") :]
        places = [kinds.index(text) for text in ("gripper commands other than", "task files found", "fewer than a")]
        assert places[0] < min(places[1:])
        assert "<td>3</td>" in kinds.replace(' class="n"', "") and "demo_18, " in kinds
    episode = fwdata.open(tmp_path / "s.zarr").episodes[18]
    assert any("gripper commands" in text for text in episode.metadata["warnings"])


@pytest.mark.slow
def test_what_discovery_leaves_out_is_said_in_every_place(run, tmp_path):
    path = tmp_path / "raw" / "libero_goal" / f"{STOVE}_demo.hdf5"
    write_file(path, [0, 1, 2], size=(8, 8))
    with h5py.File(path, "r+") as file:
        file.move("data/demo_1", "data/demo_1_success")
        file.move("data/demo_2", "data/episode_2")
    store = tmp_path / "s.zarr"
    arguments = ("convert", "libero", path.parent, "--out", store, "--workers", 0, "--no-evidence")
    for more in (("--dry-run",), ()):
        ran = run(*arguments, *more)
        assert ran.code == 0 and "warning: left out, 2: groups with actions whose names are not demo_N" in ran.err
        assert "#demo_1_success" in ran.err and "#episode_2" in ran.err
    assert "left out, 2: groups with actions" in run("inspect", store).out
    (left,) = run(*arguments, "--json").json["left_out"]
    assert left["count"] == 2 and left["asked"] is False


def test_kinds_differ_in_words_and_not_in_numbers_or_names():
    rows = [
        ("a", "3 rows of 'x' at 0.5"),
        ("b", "14 rows of 'y' at -1e-3"),
        ("c", "3 rows of another kind"),
        ("", "3 rows"),
    ]
    assert sorted((kind.count, kind.examples) for kind in group_warnings(rows)) == [
        (1, ()),
        (1, ("c",)),
        (2, ("a", "b")),
    ]
    assert np.all([kind.sentence() for kind in group_warnings(rows)])
