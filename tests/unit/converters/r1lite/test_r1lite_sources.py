"""R1 Lite topics that are not one steady source: renamed, sent by two programs, a clock set back, joints by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import r1lite_files as r1
import r1lite_reading as rd
from r1lite_reading import read_sent, refused

HALF = r1.START + r1.SECOND


@pytest.fixture(scope="module")
def sent():
    return r1.recording()


@pytest.mark.parametrize(
    ("topic", "other", "kind"),
    [
        (r1.GRIPPER_TARGET["left"], r1.GRIPPER_OLD["left"], "JointState"),
        (r1.WRISTS["left"], r1.RECTIFIED["left"], "CompressedImage"),
    ],
)
def test_a_preferred_topic_of_one_message_is_not_taken(tmp_path, sent, topic, other, kind):
    right = read_sent(tmp_path / "right", sent)
    stray = next(s for s in sent if s.topic == topic)
    episode = read_sent(tmp_path / "stray", [*r1.rename(sent, topic, other), replace(stray, log=stray.log + 1)])
    assert np.array_equal(episode.action, right.action) and np.array_equal(episode.valid, right.valid)
    assert rd.warned(episode, f"{topic} ", "has 1 messages in 0% of the recording", f"{other} is read instead")


def test_topics_that_are_both_recorded_keep_their_preference(tmp_path, sent):
    old = [replace(s, topic=r1.GRIPPER_OLD["left"], value=r1.joints([1.0])) for s in sent if s.topic == TARGET]
    right, both = read_sent(tmp_path / "right", sent), read_sent(tmp_path / "both", [*sent, *old])
    assert np.array_equal(both.action, right.action) and not rd.warned(both, "is read instead")


TARGET = r1.GRIPPER_TARGET["left"]


@pytest.mark.parametrize(
    ("topic", "other"), [(TARGET, r1.GRIPPER_OLD["left"]), (r1.WRISTS["left"], r1.RECTIFIED["left"])]
)
def test_a_topic_that_was_renamed_on_the_way(tmp_path, sent, topic, other):
    messages = r1.edit(sent, topic, lambda i, s: replace(s, topic=other) if s.stamp > HALF else s)
    found = refused(tmp_path, messages)
    assert f"is recorded as {topic} and, from 1." in found and f"s on, as {other}" in found


@pytest.mark.parametrize(
    ("topic", "size", "name"),
    [
        (r1.ARM["left"], 7, "left_joint_1"),
        (r1.ARM_TARGET["left"], 6, "left_joint_1"),
        (r1.GRIPPER["left"], 1, "left_gripper"),
    ],
)
def test_two_programs_that_publish_on_one_topic(tmp_path, sent, topic, size, name):
    late = 5_000_000
    zeros = [
        replace(s, stamp=s.stamp + late, log=s.log + late, value=r1.joints([0.0] * size))
        for s in sent
        if s.topic == topic
    ]
    found = refused(tmp_path, [*sent, *zeros])
    assert f"{topic}: {name} goes to and fro from message to message" in found and "two programs" in found


@pytest.mark.parametrize("flicker", [0.001, 0.009])
def test_a_sensor_that_flickers_by_its_resolution_is_one_sender(tmp_path, sent, flicker):
    def still(i, s):
        return replace(s, value=r1.joints([0.5 + flicker * (i % 2)] * 7))

    episode = read_sent(tmp_path, r1.edit(sent, r1.ARM["left"], still))
    assert np.ptp(episode.state[:, 0]) <= flicker * 1.01


@pytest.mark.parametrize("topics", [None, r1.HEAD])
def test_a_clock_that_was_set_back(tmp_path, sent, topics):
    back = [replace(s, stamp=s.stamp - 300_000_000) if s.log > HALF and topics in (None, s.topic) else s for s in sent]
    assert "its clock was set back by 0.3" in refused(tmp_path, back)


@pytest.mark.parametrize(
    ("order", "gripper"), [((6, 5, 4, 3, 2, 1), False), ((1, 2, 3, 4, 5, 6), True), ((3, 1, 2, 6, 5, 4), True)]
)
def test_joints_are_found_by_their_names(tmp_path, sent, order, gripper):
    def named(i, s):
        pose, stroke = r1.arm_pose(s.stamp, "left"), [99.0] if gripper else []
        names = [*(["left_gripper1"] if gripper else []), *(f"left_arm_joint{n}" for n in order)]
        value = r1.joints([*stroke, *(pose[n - 1] for n in order)])
        return replace(s, value={**value, "name": names})

    plain = read_sent(tmp_path / "plain", sent)
    episode = read_sent(tmp_path / "named", r1.edit(sent, r1.ARM["left"], named))
    assert np.array_equal(episode.state, plain.state)
    assert rd.warned(episode, r1.ARM["left"], "in the order of their names")


@pytest.mark.parametrize("names", [[], ["left_arm"], [f"joint{n}" for n in range(1, 8)], ["a"] * 7])
def test_names_that_tell_no_other_order(tmp_path, sent, names):
    plain = read_sent(tmp_path / "plain", sent)
    messages = r1.edit(sent, r1.ARM["left"], lambda i, s: replace(s, value={**s.value, "name": names}))
    episode = read_sent(tmp_path / "named", messages)
    assert np.array_equal(episode.state, plain.state) and not rd.warned(episode, "order of their names")


def test_a_format_that_tells_exchanged_colours_is_reported(tmp_path, sent):
    text = "rgb8; jpeg compressed rgb8"
    messages = r1.edit(sent, r1.HEAD, lambda i, s: replace(s, value={**s.value, "format": text}))
    assert rd.warned(read_sent(tmp_path, messages), r1.HEAD, text, "exchanges red and blue", "fwdata preview")


def test_a_compressed_database_is_named_as_such(tmp_path, sent):
    r1.write_db3(tmp_path / "rec", sent)
    (path,) = tmp_path.rglob("*.db3")
    path.write_bytes(r1.zstd.compress(path.read_bytes()))
    found = rd.reason(tmp_path, task="x")
    assert f"{path.name} is compressed as a whole" in found and f"zstd -d '{path.name}.zst'" in found
