"""Topics that are there under other names than R1 Lite's own: another robot's, or below a namespace."""

from __future__ import annotations

from dataclasses import replace

import pytest
import r1lite_files as r1
import r1lite_reading as rd


def below(sent: list[r1.Sent], space: str) -> list[r1.Sent]:
    return [replace(message, topic=space + message.topic) for message in sent]


def write(root, sent: list[r1.Sent], kind: str) -> None:
    if kind == "mcap":
        r1.McapWriter().write(root / "pick/a.mcap", sent)
    else:
        r1.write_bag(root / "pick/a.bag", sent)


@pytest.mark.parametrize("kind", ["mcap", "bag"])
def test_a_second_robot_is_said_and_not_read(tmp_path, kind):
    one = r1.recording(frames=34)
    write(tmp_path / "one", one, kind)
    write(tmp_path / "two", one + below(one, "/robot2"), kind)
    alone, both = rd.read_one(tmp_path / "one"), rd.read_one(tmp_path / "two")
    assert (alone.state == both.state).all()
    [told] = set(both.warnings) - set(alone.warnings)
    assert told == "8 topics of joints and grippers below /robot2 are not read: another robot's, or a copy of these"
    write(tmp_path / "copy", one + below([m for m in one if m.topic == r1.HEAD], "/throttled"), kind)
    assert rd.read_one(tmp_path / "copy").warnings == alone.warnings


def test_topics_below_a_namespace_are_named(tmp_path):
    write(tmp_path, below(r1.recording(frames=34), "/robot1"), "mcap")
    found = rd.reason(tmp_path)
    assert found.startswith("11 needed topics are absent or empty: /hdas/feedback_arm_left (left_arm feedback), ")
    assert "11 such topics are there below /robot1: give them their names without it in the recording" in found


def test_what_is_there_instead_is_said(tmp_path):
    write(tmp_path, r1.drop(r1.recording(frames=34), r1.HEAD), "mcap")
    found = rd.reason(tmp_path)
    assert "it has 11 topics, such as /hdas/bms, " in found and found.endswith("(--exclude), or record them")
