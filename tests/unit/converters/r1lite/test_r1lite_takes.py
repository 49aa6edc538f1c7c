"""R1 Lite recordings in several files, and clocks: skew below half a second, simulation time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import r1lite_files as r1
import r1lite_reading as rd
from r1lite_reading import read_sent, refused

DATES = ("2026_01_05-10_00_00", "2026_01_05-10_00_02", "2026_01_05-10_00_04")
ROS1_DATES = tuple(date.replace("_", "-") for date in DATES)


def _touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def _found(root, **options):
    found = rd.converter(task="t", **options).discover(root)
    said = [text for text in found.warnings if "joined from" in text]
    return [ref.files for ref in found.episodes], said


@pytest.fixture(scope="module")
def sent():
    return r1.recording()


@pytest.mark.parametrize(
    "names",
    [
        [f"{number}_rec_{date}.mcap" for number, date in enumerate(DATES)],
        [f"rec_{date}_{number}.bag" for number, date in enumerate(ROS1_DATES)],
        [f"{date}_{number}.bag" for number, date in enumerate(ROS1_DATES)],
        [f"rec_{number}.mcap" for number in range(3)],
        [f"{number}_{date}.mcap" for number, date in enumerate(DATES)],
        [f"{number}_rec_{date}_{number}23.mcap" for number, date in enumerate(DATES)],
        [f"{number}_rec_{date}.123456Z.mcap" for number, date in enumerate(DATES)],
        [f"{number}_rec_{1767607200 + 2 * number}.mcap" for number in range(3)],
        [f"rec_{date}Z_{number}.mcap" for number, date in enumerate(DATES)],
        [f"{number}_rec_20260105_10000{number}.mcap" for number in range(3)],
        [f"rec_20260105-10000{number}_{number}.bag" for number in range(3)],
    ],
)
def test_every_naming_of_split_files_is_joined_said_and_steerable(tmp_path, names):
    _touch(tmp_path / "rec", *names)
    files, said = _found(tmp_path)
    assert files == [tuple(f"rec/{name}" for name in names)]
    assert len(said) == 1 and f"1 recording is joined from 3 split files, the first from {names[0]}" in said[0]
    apart, quiet = _found(tmp_path, split_files="separate")
    assert sorted(apart) == sorted((f"rec/{name}",) for name in names) and quiet == []


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        ([f"rec_{date}_0.bag" for date in ROS1_DATES], [1, 1, 1]),
        ([f"0_rec_{DATES[0]}.mcap", f"1_rec_{DATES[1]}.mcap", f"0_rec_{DATES[2]}.mcap"], [1, 2]),
        ([f"rec_{date}.mcap" for date in DATES], [1, 1, 1]),
        ([f"rec_{date}.bag" for date in ROS1_DATES], [1, 1, 1]),
        ([f"rec_20260105_10{number}000.mcap" for number in range(3)], [1, 1, 1]),
        (["0_a_2026_01_05-10_00_00.mcap", "1_b_2026_01_05-10_00_02.mcap"], [1, 1]),
    ],
)
def test_takes_of_one_name_stay_apart(tmp_path, names, sizes):
    _touch(tmp_path, *names)
    files, said = _found(tmp_path)
    assert sorted(map(len, files)) == sizes and bool(said) == (max(sizes) > 1)


def test_split_files_of_current_rosbag2_are_read_as_one(tmp_path, sent):
    cut = [0, len(sent) // 3, 2 * len(sent) // 3, len(sent)]
    for part, date in enumerate(DATES):
        r1.McapWriter().write(tmp_path / "rec" / f"{part}_rec_{date}.mcap", sent[cut[part] : cut[part + 1]])
    episode, whole = rd.read_one(tmp_path, task="t"), read_sent(tmp_path, sent)
    assert np.array_equal(episode.state, whole.state)
    assert rd.buffers(episode, "head_rgb") == rd.buffers(whole, "head_rgb")


def _later(sent, pause):
    """The same messages after a pause in s; before, where it is negative."""
    length = sent[-1].log - sent[0].log
    later = round(pause * r1.SECOND) + (length if pause > 0 else 0)
    return [replace(s, stamp=s.stamp + later, log=s.log + later) for s in sent]


def _write(path, sent):
    if path.suffix == ".bag":
        r1.write_bag(path, sent)
    elif path.suffix == ".db3":
        r1.write_db3(path.with_suffix(""), sent)
    else:
        r1.McapWriter().write(path, sent)


@pytest.mark.parametrize(("pause", "how"), [(54.0, "begins 54.0 s after rec_0.mcap ends"), (-30.0, "s before rec_0")])
def test_takes_that_are_named_like_split_files_stay_apart(tmp_path, sent, pause, how):
    _write(tmp_path / "rec_0.mcap", sent)
    _write(tmp_path / "rec_1.mcap", _later(sent, pause))
    found = rd.converter(task="t").discover(tmp_path)
    assert [ref.files for ref in found.episodes] == [("rec_0.mcap",), ("rec_1.mcap",)]
    assert any(how in text and "gap = keep" in text for text in found.warnings)
    assert any("1 numbered file does not go on" in text for text in found.warnings)
    assert not rd.converter(task="t", split_files="separate").discover(tmp_path).warnings
    assert [ref.files for ref in rd.converter(task="t", gap="keep").discover(tmp_path).episodes] == [
        ("rec_0.mcap", "rec_1.mcap")
    ]


def test_takes_whose_index_is_lost_are_refused_when_they_are_read(tmp_path, sent):
    bare = r1.McapWriter(index=False)
    bare.write(tmp_path / "rec_0.mcap", sent)
    bare.write(tmp_path / "rec_1.mcap", _later(sent, 54.0))
    why = rd.reason(tmp_path, task="t")
    assert "rec_1.mcap begins 54." in why and "split_files = separate" in why
    assert len(rd.read_one(tmp_path, task="t", gap="keep").state) == 72


LOOSE = [
    ("rec.mcap", "rec_1.mcap"),
    ("rec-0.mcap", "rec-1.mcap"),
    ("part1.mcap", "part2.mcap"),
    ("part1.bag", "part2.bag"),
    ("take (1).mcap", "take (2).mcap"),
    ("0-rec.mcap", "1-rec.mcap"),
    ("9.mcap", "10.mcap"),
]


@pytest.mark.parametrize("names", LOOSE)
@pytest.mark.parametrize("pause", [0.0, 20.0])
def test_files_numbered_in_any_way_are_joined_where_one_goes_on(tmp_path, sent, names, pause):
    half = len(sent) // 2
    parts = (sent[:half], sent[half:]) if not pause else (sent, _later(sent, pause))
    for name, part in zip(names, parts, strict=True):
        _write(tmp_path / name, part)
    found = rd.converter(task="t").discover(tmp_path)
    if pause:
        assert [ref.files for ref in found.episodes] == sorted((name,) for name in names)
        assert any(f"{names[1]} begins 20.0 s after {names[0]} ends" in text for text in found.warnings)
    else:
        assert [ref.files for ref in found.episodes] == [names]
        assert any("joined from 2 split files" in text and "split_files = sep" in text for text in found.warnings)
    apart = rd.converter(task="t", split_files="separate").discover(tmp_path)
    assert len(apart.episodes) == 2 and not apart.warnings


@pytest.mark.parametrize(
    "names", [("a.mcap", "b.mcap"), ("rec_1/x.mcap", "rec_2/y.mcap"), ("part_1.db3", "part_2.db3")]
)
def test_files_of_other_names_that_go_on_are_reported(tmp_path, sent, names):
    half = len(sent) // 2
    for name, part, later in zip(names, (sent[:half], sent[half:]), (sent[:half], _later(sent, 20.0)), strict=True):
        _write(tmp_path / "one" / name, part)
        _write(tmp_path / "two" / name, later)
    found = rd.converter(task="t").discover(tmp_path / "one")
    assert len(found.episodes) == 2 and any("they may be one take in two files" in text for text in found.warnings)
    assert not rd.converter(task="t").discover(tmp_path / "two").warnings


def test_parts_without_an_index_and_parts_that_a_json_lists(tmp_path, sent):
    half = len(sent) // 2
    for name, part in zip(("part1.mcap", "part2.mcap"), (sent[:half], sent[half:]), strict=True):
        r1.McapWriter(index=False).write(tmp_path / "bare" / name, part)
        _write(tmp_path / "listed" / name, part)
    (said,) = rd.converter(task="t").discover(tmp_path / "bare").warnings
    assert "no index tells whether it goes on" in said and "part2.mcap after part1.mcap" in said
    r1.write_meta(tmp_path / "listed", [{"name": f"part{n}.mcap"} for n in (1, 2)])
    listed = rd.converter(task="t").discover(tmp_path / "listed")
    assert len(listed.episodes) == 2


# Clocks


def _earlier(sent, seconds, topics):
    for topic in topics:
        sent = r1.edit(sent, topic, lambda i, s: replace(s, stamp=s.stamp - round(seconds * r1.SECOND)))
    return sent


@pytest.mark.parametrize(("seconds", "said"), [(0.19, True), (-0.2, True), (0.02, False), (0.0, False)])
def test_clock_skew_above_a_frame_is_measured_and_corrected_on_request(tmp_path, sent, seconds, said):
    arms = (r1.ARM["left"], r1.ARM_TARGET["left"])
    messages = _earlier(sent, seconds, arms)
    episode = read_sent(tmp_path, messages)
    told = [text for text in episode.warnings if text.startswith("clock skew")]
    assert bool(told) == said
    if said:
        assert "and 1 more topic" in told[0] and "median delay" in told[0] and "option clock = shift" in told[0]
        assert ("before" if seconds > 0 else "after") in told[0]
        shifted, plain = read_sent(tmp_path, messages, clock="shift"), read_sent(tmp_path, sent)
        right = np.abs(plain.state[:, :6] - shifted.state[:, :6]).max()
        assert right < np.abs(plain.state[:, :6] - episode.state[:, :6]).max() / 2
        assert rd.warned(shifted, "clock skew", "corrected by it")


def test_the_topic_named_for_a_skew_is_the_first_of_its_clock(tmp_path, sent):
    arms = (r1.ARM["left"], r1.ARM_TARGET["left"])
    said = []
    for each in arms:  # whichever is a millisecond further off
        messages = _earlier(_earlier(sent, 0.2, arms), 0.001, [each])
        (told,) = [text for text in read_sent(tmp_path, messages).warnings if text.startswith("clock skew")]
        said.append(told.partition(" and 1 more")[0])
    assert said[0] == said[1]


def _at_speed(sent, speed, topics):
    """Stamps of some topics from a clock of another speed."""
    for topic in topics:
        first = next(s.stamp for s in sent if s.topic == topic)
        sent = r1.edit(sent, topic, lambda i, s, at=first: replace(s, stamp=at + round(speed * (s.stamp - at))))
    return sent


@pytest.mark.parametrize("clock", ["reject", "shift"])
def test_a_clock_of_another_speed_is_never_aligned(tmp_path, sent, clock):
    arms = (r1.ARM["left"], r1.ARM_TARGET["left"])
    found = refused(tmp_path, _at_speed(sent, 0.7, arms), clock=clock)
    assert "and 1 more topic fall behind their log times by 0." in found and "a clock of another speed" in found
    assert "of equal stamps" not in refused(tmp_path, _at_speed(sent, 0.0, arms), clock=clock)
    assert "overtake" in refused(tmp_path, _at_speed(sent, 1.4, arms), clock=clock)
    assert rd.warned(read_sent(tmp_path, _at_speed(sent, 0.94, arms), clock=clock), "or slow recording")
    assert not any("another speed" in text for text in read_sent(tmp_path, sent, clock=clock).warnings)


def test_simulation_time_is_the_clock_of_all_topics(tmp_path, sent):
    start = min(s.stamp for s in sent)
    slow = [replace(s, stamp=s.stamp - start, log=start + 3 * (s.log - start)) for s in sent]  # a third of real time
    episode, plain = read_sent(tmp_path, slow), read_sent(tmp_path, sent)
    assert np.array_equal(episode.state, plain.state) and np.array_equal(episode.timestamp_ns, plain.timestamp_ns)
    assert rd.warned(episode, "header stamps are simulation time")
    assert not any("unset" in text or "log times are used" in text for text in episode.warnings)


def test_stamps_at_zero_are_log_times(tmp_path, sent):
    zero = [replace(s, stamp=0) for s in sent]
    episode = read_sent(tmp_path, zero)
    assert rd.warned(episode, "and 10 more topics: its header stamps are unset", "log times")
    assert sum("unset" in text for text in episode.warnings) == 1 and len(episode.state) > 30
    assert not rd.warned(episode, "simulation time")


def test_simulation_time_in_one_topic_alone_is_no_clock(tmp_path, sent):
    start = min(s.stamp for s in sent)
    mixed = r1.edit(sent, r1.HEAD, lambda i, s: replace(s, stamp=s.stamp - start))
    assert rd.warned(read_sent(tmp_path, mixed), "times of another clock, that of a simulation; log times are used")
    half = r1.edit(sent, r1.HEAD, lambda i, s: replace(s, stamp=s.stamp - start) if i % 2 else s)
    assert "header stamps are unset" in refused(tmp_path, half)


# Files and topics


@pytest.mark.parametrize("ending", ["h264", "h265", "compressed_video", "ffmpeg"])
def test_topics_of_video_recorders_are_found(tmp_path, sent, ending):
    named = r1.HEAD.replace("/compressed", f"/{ending}")
    episode = read_sent(tmp_path, r1.rename(sent, r1.HEAD, named))
    assert episode.metadata["camera_skew_ms"]["head_rgb"]["topic"] == named


@pytest.mark.parametrize("suffix", [".mcap", ".bag", ".db3"])
@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132735\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html><title>Sign in</title>" + b" " * 2000, 'is an HTML page ("Sign in")'),
        (b"", "is empty (0 bytes)"),
    ],
)
def test_files_that_are_no_recordings_are_named_as_what_they_are(tmp_path, suffix, data, part):
    (tmp_path / f"x{suffix}").write_bytes(data)
    assert part in rd.reason(tmp_path, task="t")


def test_log_times_that_stand_still_are_reported_and_not_compared(tmp_path, sent):
    plain = read_sent(tmp_path, sent)
    for value in (0, r1.START):
        episode = read_sent(tmp_path, [replace(s, log=value) for s in sent])
        assert rd.warned(episode, "and 10 more topics", "is not verified")
        assert not rd.warned(episode, "another speed") and not rd.warned(episode, "clock skew")
        np.testing.assert_array_equal(episode.state, plain.state)
    arms = set(r1.ARM.values())
    some = read_sent(tmp_path, [replace(s, log=0) if s.topic in arms else s for s in sent])
    assert rd.warned(some, "and 1 more topic are all 0")
    np.testing.assert_array_equal(some.state, plain.state)


def test_without_any_time_nothing_is_converted(tmp_path, sent):
    found = refused(tmp_path, [replace(s, log=0, stamp=0) for s in sent])
    assert "its header stamps are unset, and its log times are all 0 s" in found
    arms = set(r1.ARM.values())
    still = refused(tmp_path, [replace(s, stamp=r1.START) if s.topic in arms else s for s in sent])
    assert "header stamps stand still at" in still


def test_stamps_that_count_from_the_start_of_the_robot_are_compared(tmp_path, sent):
    def booted(late: int) -> list[r1.Sent]:
        arms = set(r1.ARM.values())
        return [replace(s, stamp=s.stamp - r1.START + r1.SECOND - (late if s.topic in arms else 0)) for s in sent]

    assert not rd.warned(read_sent(tmp_path, booted(0)), "clock skew")
    assert rd.warned(read_sent(tmp_path, booted(r1.SECOND // 5)), "clock skew", "and 1 more topic")
    assert "option clock to shift" in refused(tmp_path, booted(r1.SECOND * 3 // 4))


def test_stamps_of_another_unit_are_refused(tmp_path, sent):
    micro = [replace(s, stamp=s.stamp // 1000) for s in sent]
    assert "0.001 times the speed of the log times: they are in another unit" in refused(tmp_path, micro)


def test_another_rate_that_the_user_allows_is_reported(tmp_path):
    fast = r1.recording(frames=40, hz=30)
    assert "runs at 30" in refused(tmp_path, fast)
    assert rd.warned(read_sent(tmp_path, fast, check_rate=False), "runs at 30", "says 15, which is stored")


def test_an_arm_of_more_values_is_reported(tmp_path, sent):
    more = r1.edit(sent, r1.ARM["left"], lambda i, s: replace(s, value=r1.joints([*s.value["position"], 0.5])))
    assert rd.warned(read_sent(tmp_path, more), "holds 8 joint values, expected 6 and a gripper's; the first 6")


def test_head_images_that_were_recorded_twice_are_no_clock_skew(tmp_path: Path) -> None:
    clean = r1.recording()
    twice = [
        copy for sent in clean for copy in ((sent, replace(sent, log=sent.log + 100)))[: 1 + (sent.topic == r1.HEAD)]
    ]
    episode = read_sent(tmp_path, twice)
    assert rd.warned(episode, r1.HEAD, "36 of equal stamps") and not rd.warned(episode, "clock skew")
    assert np.array_equal(episode.state, read_sent(tmp_path / "clean", clean).state)
