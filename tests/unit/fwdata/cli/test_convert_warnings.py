"""What `fwdata convert` says of recordings: every reason for leaving one out, and one line per kind of warning."""

from __future__ import annotations

from pathlib import Path

from fwdata.api import Discovery, LeftOut
from fwdata.pipeline.roots import Root, together
from fwdata.warning_kinds import group_warnings


def test_recordings_left_out_of_several_roots_are_named_with_their_root() -> None:
    packed = LeftOut("archives that are not unpacked", 3, ("a.zip", "b.zip"))
    found = together([(Root(Path(f"/{n}"), n, f"{n}/"), Discovery((), left_out=(packed,))) for n in ("one", "two")])
    assert found.left_out[0] == LeftOut("one: archives that are not unpacked", 3, ("one/a.zip", "one/b.zip"))
    assert found.left_out[1].examples == ("two/a.zip", "two/b.zip") and found.warnings == ()


def test_warnings_of_one_kind_are_one_line_and_the_gravest_come_first() -> None:
    short = [(f"e{n}", f"{n} rows are fewer than a window of 33") for n in range(3)]
    found = group_warnings([*short, ("e1", "the gripper is inverted")])
    assert [kind.sentence() for kind in found] == [
        "e1: the gripper is inverted",
        "3 recordings: 0 rows are fewer than a window of 33, and the like (e0, e1, ..)",
    ]
    (same,) = group_warnings([("a", "too dark"), ("b", "too dark")])
    assert same.sentence() == "2 recordings: too dark (a, b)"


def test_names_of_files_and_of_tasks_do_not_part_a_kind() -> None:
    unread = [(f"e{n}", f"instructions/episode{n}.json is not used: it is empty") for n in range(3)]
    named = [(f"e{n}", f"no instruction text; the task's name 'task {n}' is used") for n in range(3)]
    rows = [(f"e{n}", f"data/demo_{n}/obs/agentview_rgb must be uint8") for n in range(3)]
    assert [kind.count for kind in group_warnings([*unread, *named, *rows])] == [3, 3, 3]


def test_one_and_several_are_one_kind() -> None:
    said = [("a", "1 of 39 frames is invalid"), ("b", "2 of 39 frames are invalid"), ("c", "3 chunks were skipped")]
    (frames, chunks) = group_warnings([*said, ("d", "1 chunk was skipped")])
    assert (frames.count, frames.gravity, chunks.count) == (2, 1, 2)


def test_a_recording_with_two_warnings_of_a_kind_counts_once() -> None:
    (kind,) = group_warnings([("a", "text 1 is dropped"), ("a", "text 2 is dropped"), ("b", "text 1 is dropped")])
    assert (kind.count, kind.examples) == (2, ("a", "b"))


def test_clock_skew_is_graver_than_frames_that_no_window_reaches():
    said = [
        *((f"r{i}", "1 of 39 frames are invalid: no training window reaches them") for i in range(4)),
        *((f"r{i}", "/a/gripper_left and 3 more topics: 9 messages out of order were sorted") for i in range(3)),
        ("r1", "clock skew: the stamps of /a/b lie 0.150 s further before their log times than the head camera's"),
        ("r2", "its language says 'Push it', which is not used: all demonstrations of a file have one instruction"),
        (
            "r3",
            "its attribute source_path says setting clean, its folders or options say setting randomized, ..",
        ),
        ("r4", "5 rows are fewer than a window of 33; windows are padded"),
    ]
    assert [(kind.gravity, kind.count) for kind in group_warnings(said)] == [(0, 1)] * 3 + [(1, 4), (1, 3), (2, 1)]
