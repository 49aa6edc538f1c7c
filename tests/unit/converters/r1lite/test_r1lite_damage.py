"""What goes wrong in R1 Lite recordings, line by line of the failure catalogue, and what becomes of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import r1lite_files as r1
import r1lite_reading as rd
from r1lite_reading import read_sent, refused, write_sent

from converters.r1lite import Converter
from fwdata.api import BadEpisode

FRAME = 1 / 15


@pytest.fixture(scope="module")
def sent():
    return r1.recording()


def shifted(message, seconds):
    """The message captured and recorded later."""
    late = round(seconds * r1.SECOND)
    return replace(message, stamp=message.stamp + late, log=message.log + late)


# 1: dropped head frames


def test_one_dropped_head_frame_is_recorded(tmp_path, sent):
    episode = read_sent(tmp_path, r1.edit(sent, r1.HEAD, lambda i, s: None if i == 10 else s))
    assert len(episode.state) == 35 and episode.valid.all()
    (gap,) = episode.metadata["gaps"]
    assert (gap["after_frame"], gap["missing_frames"]) == (9, 1)
    assert gap["seconds"] == pytest.approx(2 * FRAME, abs=0.005)


@pytest.mark.parametrize("option", ["split", "keep", "reject"])
def test_a_long_pause_of_the_head_camera(tmp_path, sent, option):
    messages = r1.edit(sent, r1.HEAD, lambda i, s: None if 10 <= i < 14 else s)
    if option == "reject":
        assert "the head camera pauses for 0.33" in refused(tmp_path, messages, gap="reject")
        return
    episode = read_sent(tmp_path, messages, gap=option)
    assert np.flatnonzero(~episode.valid).tolist() == ([10] if option == "split" else [])
    assert episode.metadata["gaps"][0]["missing_frames"] == 4
    assert rd.warned(episode, "4 head frames missing in 1 place")


# 2: dropped wrist frames


def test_far_pictures_are_reported_and_very_far_ones_invalid(tmp_path, sent):
    messages = r1.edit(sent, r1.WRISTS["left"], lambda i, s: None if 10 <= i < 15 else s)
    episode = read_sent(tmp_path, messages)
    assert np.flatnonzero(~episode.valid).tolist() == [12, 13]  # 3 periods, and 2 periods and 13 ms
    assert rd.warned(episode, "left_wrist_rgb", "frames have no image within 66.7 ms")
    skew = episode.metadata["camera_skew_ms"]["left_wrist_rgb"]
    assert 2 * FRAME * 1e3 < skew["max"] < 3.5 * FRAME * 1e3 and skew["p95"] < skew["max"]
    few = read_sent(tmp_path, r1.edit(sent, r1.WRISTS["left"], lambda i, s: None if i == 10 else s))
    assert few.valid.all()


# 3: wrist topics under their other name, decided for every file and side


@pytest.mark.parametrize("sides", [("left",), ("right",), ("left", "right")])
def test_rectified_wrist_topics(tmp_path, sent, sides):
    messages = sent
    for side in sides:
        messages = r1.rename(messages, r1.WRISTS[side], r1.RECTIFIED[side])
    episode, plain = read_sent(tmp_path / "a", messages), read_sent(tmp_path / "b", sent)
    for name in ("left_wrist_rgb", "right_wrist_rgb"):
        assert rd.buffers(episode, name) == rd.buffers(plain, name)
        used = episode.metadata["camera_skew_ms"][name]["topic"]
        assert ("image_rect_raw" in used) == (name.split("_")[0] in sides)


# 4: topics that are absent or empty


def test_all_absent_topics_are_listed(tmp_path, sent):
    messages = r1.drop(r1.drop(sent, r1.ARM["left"]), r1.WRISTS["right"])
    found = refused(tmp_path, messages)
    assert "2 needed topics are absent or empty" in found
    assert r1.ARM["left"] in found and r1.WRISTS["right"] in found and "right_wrist_rgb" in found
    assert r1.HEAD in refused(tmp_path, r1.drop(sent, r1.HEAD))


# 5: topics that start late or stop early


def test_feedback_is_held_up_to_a_fifth_of_a_second(tmp_path, sent):
    episode = read_sent(tmp_path, r1.drop(sent, r1.ARM["left"], lambda t: t >= 0.15))
    assert len(episode.state) == 36 and episode.valid.all()
    assert np.array_equal(episode.state[0, :6], episode.state[1, :6])
    assert episode.metadata["topics"][r1.ARM["left"]]["first_offset_s"] == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize(("word", "keep"), [("starts late", lambda t: t > 0.5), ("ends early", lambda t: t < 1.8)])
def test_longer_absence_of_feedback_trims_the_episode(tmp_path, sent, word, keep):
    episode = read_sent(tmp_path, r1.drop(sent, r1.GRIPPER["right"], keep))
    whole = read_sent(tmp_path, sent)
    rows = np.flatnonzero([keep(t / 1e9) for t in whole.timestamp_ns])
    assert 20 < len(episode.state) == len(rows) < 36
    assert np.array_equal(episode.state[3:-3], whole.state[rows][3:-3]) and episode.valid.all()
    assert rd.warned(episode, r1.GRIPPER["right"], word, f"{36 - len(rows)} frames are trimmed")
    assert episode.metadata["start_ns"] - whole.metadata["start_ns"] == whole.timestamp_ns[rows[0]]


def test_targets_are_held_instead(tmp_path, sent):
    episode = read_sent(tmp_path, r1.drop(sent, r1.ARM_TARGET["left"], lambda t: t < 1.5))
    assert len(episode.state) == 36 and episode.valid.all()
    assert np.array_equal(episode.action[-1, :6], episode.action[-5, :6])
    assert rd.warned(episode, r1.ARM_TARGET["left"], "ends early", "last value is held")


def test_topics_without_common_time(tmp_path, sent):
    messages = [shifted(s, 100) if s.topic == r1.ARM["left"] else s for s in sent]
    assert "no time in common" in refused(tmp_path, messages)


# 6, 7: order and duplicates of stamps


@pytest.mark.parametrize("topic", [r1.ARM["left"], r1.WRISTS["left"], r1.HEAD])
def test_out_of_order_stamps_are_sorted_and_counted(tmp_path, sent, topic):
    numbers = [n for n, s in enumerate(sent) if s.topic == topic]
    messages = list(sent)
    for k in (5, 12):
        i, j = numbers[k], numbers[k + 1]
        first, second = messages[i], messages[j]  # written in the other order, same log times
        messages[i], messages[j] = replace(second, log=first.log), replace(first, log=second.log)
    episode, plain = read_sent(tmp_path, messages), read_sent(tmp_path, sent)
    assert np.array_equal(episode.state, plain.state) and np.array_equal(episode.timestamp_ns, plain.timestamp_ns)
    for name in plain.cameras:
        assert rd.buffers(episode, name) == rd.buffers(plain, name)
    assert episode.metadata["topics"][topic]["out_of_order"] == 2
    assert rd.warned(episode, topic, "2 messages out of order")


def test_of_equal_stamps_the_last_written_counts(tmp_path, sent):
    wrong = r1.joints([9.0] * 6)
    messages = []
    for s in sent:
        if s.topic == r1.ARM["left"]:
            messages.append(replace(s, value=wrong))
        if s.topic == r1.HEAD:
            messages.append(replace(s, value=r1.compressed(r1.jpeg(99, 2))))
        messages.append(s)
    episode, plain = read_sent(tmp_path, messages), read_sent(tmp_path, sent)
    assert np.array_equal(episode.state, plain.state)
    assert rd.buffers(episode, "head_rgb") == rd.buffers(plain, "head_rgb")
    assert episode.metadata["topics"][r1.HEAD]["equal_stamps"] == 36
    assert episode.metadata["topics"][r1.HEAD]["messages"] == 72 == episode.metadata["frames_recorded"]


# 8: clocks


def test_a_clock_that_is_set_inside_a_topic(tmp_path, sent):
    late = round(0.8 * r1.SECOND)
    messages = r1.edit(sent, r1.ARM["right"], lambda i, s: replace(s, stamp=s.stamp + late) if i > 50 else s)
    found = refused(tmp_path, messages)
    assert r1.ARM["right"] in found and "clock jumps by 0.800 s" in found and "message 51" in found
    assert "clock jumps" in refused(tmp_path, messages, clock="shift")


@pytest.mark.parametrize("seconds", [3.0, -0.7])
def test_a_topic_of_another_clock(tmp_path, sent, seconds):
    moved = round(seconds * r1.SECOND)
    messages = r1.edit(sent, r1.ARM["right"], lambda i, s: replace(s, stamp=s.stamp + moved))
    found = refused(tmp_path, messages)
    assert r1.ARM["right"] in found and "option clock to shift" in found
    episode, plain = read_sent(tmp_path, messages, clock="shift"), read_sent(tmp_path, sent)
    assert rd.warned(episode, r1.ARM["right"], "corrected")
    assert np.abs(episode.state - plain.state).max() < 0.05  # the delay of pictures is not part of the clock
    assert np.array_equal(episode.state[:, :6], plain.state[:, :6])


# 9: stamps that were never set


def test_unset_stamps(tmp_path, sent):
    messages = r1.edit(sent, r1.GRIPPER["left"], lambda i, s: replace(s, stamp=0))
    episode, plain = read_sent(tmp_path, messages), read_sent(tmp_path, sent)
    assert rd.warned(episode, r1.GRIPPER["left"], "header stamps are unset", "log times")
    assert np.abs(episode.state[:, 6] - plain.state[:, 6]).max() < 0.5  # 1.1 ms late
    mixed = r1.edit(sent, r1.GRIPPER["left"], lambda i, s: replace(s, stamp=0) if i % 9 == 4 else s)
    assert "header stamps are unset" in refused(tmp_path, mixed)


# 17, 18: gripper targets


def test_sparse_gripper_targets_are_held(tmp_path, sent):
    changes = {0.4: 100.0, 1.0: 30.0, 1.7: 70.0}
    messages = r1.drop(sent, r1.GRIPPER_TARGET["left"])
    for t, value in changes.items():
        stamp = r1.START + round(t * r1.SECOND)
        messages.append(r1.Sent(r1.GRIPPER_TARGET["left"], "JointState", stamp, stamp + 900_000, r1.joints([value])))
    episode = read_sent(tmp_path, messages)
    t = (episode.timestamp_ns + episode.metadata["start_ns"] - r1.START) / 1e9
    assert np.array_equal(episode.action[:, 6], np.where(t < 1.0, 100.0, np.where(t < 1.7, 30.0, 70.0)))
    assert episode.valid.all() and len(t) == 36


def test_pauses_of_targets_are_held_and_of_feedback_invalid(tmp_path, sent):
    outside = lambda t: not 0.8 < t < 1.3  # noqa: E731
    episode = read_sent(tmp_path, r1.drop(sent, r1.ARM_TARGET["left"], outside))
    assert episode.valid.all()
    inside = [i for i, t in enumerate(episode.timestamp_ns / 1e9) if 0.83 < t < 1.27]
    assert len(inside) > 4 and np.ptp(episode.action[inside, :6], axis=0).max() == 0
    episode = read_sent(tmp_path, r1.drop(sent, r1.ARM["left"], outside))
    assert set(inside) <= set(np.flatnonzero(~episode.valid)) <= {*inside, inside[0] - 1, inside[-1] + 1}
    assert rd.warned(episode, "frames are invalid")


def test_headerless_gripper_commands(tmp_path, sent):
    messages = sent
    for side in ("left", "right"):
        messages = r1.edit(
            messages,
            r1.GRIPPER_TARGET[side],
            lambda i, s, side=side: replace(
                s, topic=r1.GRIPPER_OLD[side], kind="Float32", value={"data": float(s.value["position"][0])}
            ),
        )
    episode, plain = read_sent(tmp_path, messages), read_sent(tmp_path, sent)
    assert rd.warned(episode, r1.GRIPPER_OLD["left"], "no header", "log times")
    assert np.median(np.abs(episode.action[:, [6, 13]] - plain.action[:, [6, 13]])) < 5


# 19, 20: leader, spikes


def test_leader_that_is_not_engaged(tmp_path, sent):
    messages = r1.edit(
        sent,
        r1.ARM_TARGET["left"],
        lambda i, s: replace(s, value=r1.joints(s.value["position"] + max(0.0, 1.0 - 0.02 * i))),
    )
    episode = read_sent(tmp_path, messages)
    assert len(episode.state) == 36 and rd.warned(episode, "leader not engaged", "trim_unengaged")
    trimmed = read_sent(tmp_path, messages, trim_unengaged=True)
    cut = 36 - len(trimmed.state)
    assert 8 < cut < 20 and rd.warned(trimmed, f"{cut} frames before the leader was engaged")
    assert np.abs(trimmed.action[0, :6] - trimmed.state[0, :6]).max() < 0.2
    assert np.array_equal(trimmed.state, episode.state[cut:]) and trimmed.valid.all() and trimmed.timestamp_ns[0] == 0
    never = r1.edit(sent, r1.ARM_TARGET["left"], lambda i, s: replace(s, value=r1.joints([3.0] * 6)))
    assert "leave none of 36 frames" in refused(tmp_path, never, trim_unengaged=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path, sent, value):
    messages = r1.edit(
        sent, r1.ARM["right"], lambda i, s: replace(s, value=r1.joints([0, 0, value, 0, 0, 0])) if i == 7 else s
    )
    found = refused(tmp_path, messages)
    assert r1.ARM["right"] in found and "not finite: message 7, right_joint_3" in found


def test_spikes_are_named(tmp_path, sent):
    at = {s.stamp for s in sent if s.topic == r1.HEAD}
    frame = sorted(at)[20]
    messages = r1.edit(
        sent,
        r1.ARM["left"],
        lambda i, s: replace(s, value=r1.joints([2.5] * 6)) if abs(s.stamp - frame) < r1.SECOND // 25 else s,
    )
    episode = read_sent(tmp_path, messages)
    assert rd.warned(episode, "state: joints jump by up to", "frames 20, 21")
    torso = r1.edit(
        r1.recording(torso=True),
        r1.CHASSIS_TARGET,
        lambda i, s: replace(s, value={"six": [0, 0, 0, 0, 0, 88.0]}) if 50 < i < 60 else s,
    )
    assert rd.warned(read_sent(tmp_path, torso, action_set="arms+torso+chassis"), "speeds above 50 at frames")


# 25, 26, 27: short episodes, other robots, unknown types


def test_short_episodes_are_kept(tmp_path):
    episode = read_sent(tmp_path, r1.recording(frames=12))
    assert len(episode.state) == 12 and rd.warned(episode, "12 frames: shorter than a training window of 33")
    one = read_sent(tmp_path, r1.recording(frames=1))
    assert len(one.state) == 1 and one.timestamp_ns.tolist() == [0] and one.metadata["fps_measured"] is None


def test_seven_joint_targets_are_another_robot(tmp_path, sent):
    messages = r1.edit(sent, r1.ARM_TARGET["left"], lambda i, s: replace(s, value=r1.joints([0.0] * 7)))
    found = refused(tmp_path, messages)
    assert "7 joint targets" in found and "R1 Pro" in found
    five = r1.edit(sent, r1.ARM["left"], lambda i, s: replace(s, value=r1.joints([0.0] * 5)))
    assert "holds 5 joint values, expected 6" in refused(tmp_path, five)
    nine = r1.edit(sent, r1.ARM_TARGET["left"], lambda i, s: replace(s, value=r1.joints([0.0] * 9)))
    assert "holds 9 joint values, expected 6" in refused(tmp_path, nine)


@pytest.mark.parametrize("seven", [True, False])
def test_feedback_of_six_and_of_seven_values(tmp_path, sent, seven):
    assert np.array_equal(read_sent(tmp_path, r1.recording(seven=seven)).state, read_sent(tmp_path, sent).state)


def test_unknown_schemas_on_other_topics_do_not_matter(tmp_path, sent):
    r1.McapWriter().write(tmp_path / "x.mcap", sent, foreign=True)
    assert len(rd.read_one(tmp_path, task="t").state) == 36


def test_wrong_types_on_needed_topics(tmp_path, sent):
    messages = r1.edit(
        sent, r1.ARM["left"], lambda i, s: replace(s, kind="Bms", value={"voltage": 1, "current": 1, "capital": 1})
    )
    assert f"{r1.ARM['left']} holds" in (found := refused(tmp_path, messages)) and "expected JointState" in found
    pictures = r1.edit(sent, r1.HEAD, lambda i, s: replace(s, kind="Float32", value={"data": 1.0}))
    assert r1.HEAD in refused(tmp_path, pictures)


def test_a_recording_that_changes_between_passes_is_refused(tmp_path, sent):
    path = write_sent(tmp_path, sent)
    made = rd.converter(task="t")
    assert isinstance(made, Converter)
    episode = made.read(tmp_path, made.discover(tmp_path).episodes[0])
    r1.McapWriter().write(path, r1.drop(sent, r1.HEAD, lambda t: t < 1))
    with pytest.raises(BadEpisode, match=r"head_rgb: frame 1[56] .* cannot be read again"):
        rd.buffers(episode, "head_rgb")


def test_numbers_of_another_type_are_named(tmp_path, sent):
    twists = r1.edit(sent, r1.ARM["left"], lambda i, s: replace(s, kind="TwistStamped", value={"six": [0] * 6}))
    assert "geometry_msgs/msg/TwistStamped messages without the numbers of left_arm" in refused(tmp_path, twists)
    pictures = r1.edit(
        sent, r1.GRIPPER["left"], lambda i, s: replace(s, kind="CompressedImage", value=r1.compressed(r1.jpeg(1, 1)))
    )
    assert "CompressedImage messages without the numbers of left_gripper" in refused(tmp_path, pictures)
