"""What goes wrong in R1 Lite recordings, line by line of the failure catalogue, and what becomes of each."""

from __future__ import annotations

import itertools
import struct
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import r1lite_files as r1

from converters.r1lite import Converter
from fwdata.api import BadEpisode

FRAME = 1 / 15
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def sent():
    return r1.recording()


@pytest.fixture(scope="module")
def long():
    """60 frames: one damaged picture is less than 2 %."""
    return r1.recording(frames=60)


def write(root, messages, **how):
    return r1.McapWriter(**how).write(root / "x.mcap", messages)


def read(root, messages, **options):
    root = root / str(next(NUMBERS))  # pictures are read later, from the file
    write(root, messages)
    return r1.read_one(root, task="t", **options)


def refused(root, messages, **options):
    write(root, messages)
    return r1.reason(root, task="t", **options)


def shifted(message, seconds):
    """The message captured and recorded later."""
    late = round(seconds * r1.SECOND)
    return replace(message, stamp=message.stamp + late, log=message.log + late)


# 1: dropped head frames


def test_one_dropped_head_frame_is_recorded(tmp_path, sent):
    episode = read(tmp_path, r1.edit(sent, r1.HEAD, lambda i, s: None if i == 10 else s))
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
    episode = read(tmp_path, messages, gap=option)
    assert np.flatnonzero(~episode.valid).tolist() == ([10] if option == "split" else [])
    assert episode.metadata["gaps"][0]["missing_frames"] == 4
    assert r1.warned(episode, "4 head frames missing in 1 places")


# 2: dropped wrist frames


def test_far_pictures_are_reported_and_very_far_ones_invalid(tmp_path, sent):
    messages = r1.edit(sent, r1.WRISTS["left"], lambda i, s: None if 10 <= i < 15 else s)
    episode = read(tmp_path, messages)
    assert np.flatnonzero(~episode.valid).tolist() == [12, 13]  # 3 periods, and 2 periods and 13 ms
    assert r1.warned(episode, "left_wrist_rgb", "frames have no picture within 66.7 ms")
    skew = episode.metadata["camera_skew_ms"]["left_wrist_rgb"]
    assert 2 * FRAME * 1e3 < skew["max"] < 3.5 * FRAME * 1e3 and skew["p95"] < skew["max"]
    few = read(tmp_path, r1.edit(sent, r1.WRISTS["left"], lambda i, s: None if i == 10 else s))
    assert few.valid.all()


# 3: wrist topics under their other name, decided for every file and side


@pytest.mark.parametrize("sides", [("left",), ("right",), ("left", "right")])
def test_rectified_wrist_topics(tmp_path, sent, sides):
    messages = sent
    for side in sides:
        messages = r1.rename(messages, r1.WRISTS[side], r1.RECTIFIED[side])
    episode, plain = read(tmp_path / "a", messages), read(tmp_path / "b", sent)
    for name in ("left_wrist_rgb", "right_wrist_rgb"):
        assert r1.buffers(episode, name) == r1.buffers(plain, name)
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
    episode = read(tmp_path, r1.drop(sent, r1.ARM["left"], lambda t: t >= 0.15))
    assert len(episode.state) == 36 and episode.valid.all()
    assert np.array_equal(episode.state[0, :6], episode.state[1, :6])
    assert episode.metadata["topics"][r1.ARM["left"]]["first_offset_s"] == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize(("word", "keep"), [("starts late", lambda t: t > 0.5), ("ends early", lambda t: t < 1.8)])
def test_longer_absence_of_feedback_trims_the_episode(tmp_path, sent, word, keep):
    episode = read(tmp_path, r1.drop(sent, r1.GRIPPER["right"], keep))
    whole = read(tmp_path, sent)
    rows = np.flatnonzero([keep(t / 1e9) for t in whole.timestamp_ns])
    assert 20 < len(episode.state) == len(rows) < 36
    assert np.array_equal(episode.state[3:-3], whole.state[rows][3:-3]) and episode.valid.all()
    assert r1.warned(episode, r1.GRIPPER["right"], word, f"{36 - len(rows)} frames are trimmed")
    assert episode.metadata["start_ns"] - whole.metadata["start_ns"] == whole.timestamp_ns[rows[0]]


def test_targets_are_held_instead(tmp_path, sent):
    episode = read(tmp_path, r1.drop(sent, r1.ARM_TARGET["left"], lambda t: t < 1.5))
    assert len(episode.state) == 36 and episode.valid.all()
    assert np.array_equal(episode.action[-1, :6], episode.action[-5, :6])
    assert r1.warned(episode, r1.ARM_TARGET["left"], "ends early", "last value is held")


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
    episode, plain = read(tmp_path, messages), read(tmp_path, sent)
    assert np.array_equal(episode.state, plain.state) and np.array_equal(episode.timestamp_ns, plain.timestamp_ns)
    for name in plain.cameras:
        assert r1.buffers(episode, name) == r1.buffers(plain, name)
    assert episode.metadata["topics"][topic]["out_of_order"] == 2
    assert r1.warned(episode, topic, "2 messages out of order")


def test_of_equal_stamps_the_last_written_counts(tmp_path, sent):
    wrong = r1.joints([9.0] * 6)
    messages = []
    for s in sent:
        if s.topic == r1.ARM["left"]:
            messages.append(replace(s, value=wrong))
        if s.topic == r1.HEAD:
            messages.append(replace(s, value=r1.compressed(r1.jpeg(99, 2))))
        messages.append(s)
    episode, plain = read(tmp_path, messages), read(tmp_path, sent)
    assert np.array_equal(episode.state, plain.state)
    assert r1.buffers(episode, "head_rgb") == r1.buffers(plain, "head_rgb")
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
    episode, plain = read(tmp_path, messages, clock="shift"), read(tmp_path, sent)
    assert r1.warned(episode, r1.ARM["right"], "corrected")
    assert np.abs(episode.state - plain.state).max() < 0.05  # the delay of pictures is not part of the clock
    assert np.array_equal(episode.state[:, :6], plain.state[:, :6])


# 9: stamps that were never set


def test_unset_stamps(tmp_path, sent):
    messages = r1.edit(sent, r1.GRIPPER["left"], lambda i, s: replace(s, stamp=0))
    episode, plain = read(tmp_path, messages), read(tmp_path, sent)
    assert r1.warned(episode, r1.GRIPPER["left"], "header stamps are unset", "log times")
    assert np.abs(episode.state[:, 6] - plain.state[:, 6]).max() < 0.5  # 1.1 ms late
    mixed = r1.edit(sent, r1.GRIPPER["left"], lambda i, s: replace(s, stamp=0) if i % 9 == 4 else s)
    assert "header stamps are unset" in refused(tmp_path, mixed)


# 10, 11: truncated and damaged MCAP


@pytest.mark.parametrize("compression", ["zstd", "lz4", ""])
@pytest.mark.parametrize("share", [0.95, 0.7])
def test_truncated_mcap(tmp_path, sent, compression, share):
    whole = read(tmp_path, sent)
    path = write(tmp_path / "cut", sent, compression=compression)
    tmp_path = path.parent
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    found = r1.reason(tmp_path, task="t")
    assert "x.mcap is truncated" in found and "head frames are recoverable with option recover" in found
    promised = int(found.split("; ")[1].split()[0])
    episode = r1.read_one(tmp_path, task="t", recover=True)
    rows = len(episode.state)
    assert share * 36 - 8 < rows <= promised <= 36 and (promised < 36 or share > 0.9)
    assert np.array_equal(episode.state, whole.state[:rows])  # nothing is held: all topics cover the last row
    assert np.array_equal(episode.action, whole.action[:rows])
    assert r1.buffers(episode, "head_rgb") == r1.buffers(whole, "head_rgb")[:rows]
    assert episode.metadata["recovered"] is True and r1.warned(episode, "recovered from a truncated file")


def test_recording_that_lost_only_its_end_mark(tmp_path, sent):
    whole = read(tmp_path, sent)
    path = write(tmp_path / "cut", sent)
    path.write_bytes(path.read_bytes()[:-8])
    assert "36 head frames are recoverable" in r1.reason(path.parent, task="t")
    episode = r1.read_one(path.parent, task="t", recover=True)
    assert 35 <= len(episode.state) <= 36 and np.array_equal(episode.state, whole.state[: len(episode.state)])


def test_nothing_recoverable(tmp_path, sent):
    path = write(tmp_path, sent, chunk_bytes=10**9)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 10])
    assert "nothing of its head camera is recoverable" in r1.reason(tmp_path, task="t")
    assert "needed topics are absent" in r1.reason(tmp_path, task="t", recover=True)


@pytest.mark.parametrize("compression", ["zstd", "lz4", ""])
def test_damaged_chunk(tmp_path, sent, compression):
    writer = r1.McapWriter(compression, 20_000)
    path = writer.write(tmp_path / "x.mcap", sent)
    whole = r1.read_one(tmp_path, task="t")
    data = bytearray(path.read_bytes())
    middle = writer.chunk_offsets[len(writer.chunk_offsets) // 2]
    data[middle + 4000] ^= 0xFF
    path.write_bytes(data)
    found = r1.reason(tmp_path, task="t")
    assert f"x.mcap is damaged: the chunk at byte {middle}" in found and "recover" in found
    episode = r1.read_one(tmp_path, task="t", recover=True)
    assert r1.warned(episode, "1 chunks were skipped") and episode.metadata["recovered"] is True
    assert len(episode.state) < len(whole.state)
    assert not episode.valid.all()  # the pause is longer than 0.25 s


def test_absurd_sizes_are_refused(tmp_path, sent):
    from converters import _r1lite_mcap as mcap

    writer = r1.McapWriter("zstd")
    path = writer.write(tmp_path / "x.mcap", sent)
    data = bytearray(path.read_bytes())
    start = writer.chunk_offsets[1] + 9 + 16
    data[start : start + 8] = (2**40).to_bytes(8, "little")
    path.write_bytes(data)
    assert f"at most {mcap.MAX_RECORD >> 20} are read" in r1.reason(tmp_path, task="t")
    bomb = r1.zstd.compress(bytes(50_000_000))
    with pytest.raises(BadEpisode, match="another size"):
        (tmp_path / "x.mcap").write_bytes(_chunk_file(bomb, 1000))
        r1.reason(tmp_path, task="t")
        list(mcap.read_messages(tmp_path / "x.mcap", {"/a"}))


def _chunk_file(packed, claimed):
    chunk = struct.pack("<QQQI", 0, 0, claimed, 0) + struct.pack("<I", 4) + b"zstd" + struct.pack("<Q", len(packed))
    body = b"\x89MCAP0\r\n" + struct.pack("<BQ", 6, len(chunk) + len(packed)) + chunk + packed
    return body + struct.pack("<BQQQI", 2, 20, 0, 0, 0) + b"\x89MCAP0\r\n"


@pytest.mark.parametrize(
    ("content", "part"), [(b"", "x.mcap is empty"), (b"text" * 99, "is no MCAP file (wrong first bytes)")]
)
def test_files_that_are_no_mcap(tmp_path, content, part):
    (tmp_path / "x.mcap").write_bytes(content)
    assert part in r1.reason(tmp_path, task="t")


@pytest.mark.parametrize("seed", range(12))
def test_any_flipped_byte_gives_rows_or_one_sentence(tmp_path, sent, seed):
    path = write(tmp_path, sent[: len(sent) // 3], compression=["zstd", ""][seed % 2], crc=seed % 3 != 0)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(data), 3):
        data[place] ^= int(rng.integers(1, 256))
    path.write_bytes(data)
    for recover in (False, True):
        try:
            episode = r1.read_one(tmp_path, task="t", recover=recover, check_rate=False)
            assert all(len(r1.buffers(episode, name)) == len(episode.state) for name in episode.cameras)
        except BadEpisode as error:
            assert "\n" not in str(error)


# 12, 13: ROS 1 index, metadata.yaml


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_cut_bag(tmp_path, sent, share):
    path = r1.write_bag(tmp_path / "x.bag", sent, "lz4")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "x.bag cannot be read" in (found := r1.reason(tmp_path, task="t")) and "rosbag reindex" in found


@pytest.mark.parametrize("seed", range(6))
def test_damaged_bag(tmp_path, sent, seed):
    path = r1.write_bag(tmp_path / "x.bag", sent[: len(sent) // 3], ["lz4", "bz2", ""][seed % 3])
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 40] = np.random.default_rng(seed).bytes(40)
    path.write_bytes(data)
    try:
        episode = r1.read_one(tmp_path, task="t")
        assert all(len(r1.buffers(episode, name)) == len(episode.state) for name in episode.cameras)
    except BadEpisode as error:
        assert "\n" not in str(error)


def test_damaged_db3(tmp_path, sent):
    r1.write_db3(tmp_path / "x", sent)
    path = tmp_path / "x" / "x.db3"
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)
    assert "x.db3 cannot be read" in r1.reason(tmp_path, task="t")
    path.write_bytes(b"no database")
    assert "x.db3 cannot be read" in r1.reason(tmp_path, task="t")


def test_active_bags_are_left_out_with_advice(tmp_path, sent):
    write(tmp_path, sent)
    (tmp_path / "y.bag.active").write_bytes(b"#ROSBAG V2.0\n")
    (tmp_path / "z.db3.zstd").write_bytes(b"")
    skipped = {s.source: s.reason for s in r1.converter(task="t").discover(tmp_path).skipped}
    assert "rosbag reindex y.bag.active" in skipped["y.bag.active"]
    assert "unpack it" in skipped["z.db3.zstd"]


@pytest.mark.parametrize("metadata", [None, "relative_file_paths: [other.mcap]", ": no yaml ["])
def test_metadata_yaml_does_not_matter(tmp_path, sent, metadata):
    path = r1.write_recording(tmp_path, sent)
    if metadata is not None:
        (path.parent / "metadata.yaml").write_text(metadata)
    assert len(r1.read_one(tmp_path).state) == 36


# 14: damaged pictures


@pytest.mark.parametrize("damage", ["cut", "empty", "other size", "no jpeg"])
@pytest.mark.parametrize(
    ("topic", "camera", "hue"), [(r1.WRISTS["left"], "left_wrist_rgb", 1), (r1.HEAD, "head_rgb", 0)]
)
def test_one_damaged_picture_is_replaced(tmp_path, long, damage, topic, camera, hue):
    bad = {
        "cut": r1.jpeg(20, hue)[:-60],
        "empty": b"",
        "other size": r1.jpeg(20, hue, (40, 64)),
        "no jpeg": b"\x00\x01\x02\x03garbage",
    }[damage]
    episode = read(tmp_path, r1.edit(long, topic, lambda i, s: replace(s, value=r1.compressed(bad)) if i == 20 else s))
    assert len(episode.state) == 60 and np.flatnonzero(~episode.valid).tolist() == [20]
    shown = r1.buffers(episode, camera)
    assert shown[20] in (shown[19], shown[21]) and shown[19] == r1.jpeg(19, hue)
    assert r1.warned(episode, camera, "message 20", "1 frames show a neighbouring picture")
    assert episode.metadata["invalid_frames"]["picture damaged"] == 1


def test_many_damaged_pictures(tmp_path, long):
    messages = r1.edit(
        long, r1.WRISTS["right"], lambda i, s: replace(s, value=r1.compressed(b"")) if i in (3, 9) else s
    )
    found = refused(tmp_path, messages)
    assert "right_wrist_rgb: 2 of 60 pictures are damaged (message 3: the buffer is empty)" in found
    nothing = r1.edit(long, r1.WRISTS["right"], lambda i, s: replace(s, value=r1.compressed(b"xyz")))
    assert "none of 60 pictures is readable: no JPEG: starts with 78 79 7a" in refused(tmp_path, nothing)
    png = r1.edit(long, r1.HEAD, lambda i, s: replace(s, value=r1.compressed(b"\x89PNG\r\n\x1a\n", "png")))
    assert "holds PNG pictures" in refused(tmp_path, png)


# 15, 16: video and plain pictures


def video(frames, codec, size=(48, 64), gop=8):
    """Annex B packets of a video whose pictures get brighter, one per frame."""
    encoder = av.CodecContext.create({"h264": "libx264", "h265": "libx265"}[codec], "w")
    encoder.height, encoder.width, encoder.pix_fmt = *size, "yuv420p"
    encoder.framerate, encoder.gop_size, encoder.thread_count = 15, gop, 1
    encoder.time_base = Fraction(1, 15)
    tuning = {"preset": "ultrafast", "tune": "zerolatency"}
    quiet = {"x265-params": "log-level=none:pools=1:frame-threads=1:bframes=0:keyint=8:repeat-headers=1"}
    encoder.options = tuning | ({} if codec == "h264" else quiet)
    packets = []
    for i in range(frames):
        frame = av.VideoFrame.from_ndarray(np.full((*size, 3), 40 + 3 * i, np.uint8), format="rgb24")
        frame.pts = i
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    assert len(packets) == frames
    return [bytes(p) for p in packets]


def as_video(messages, topic, packets, kind="CompressedVideo", text="h264"):
    return r1.edit(messages, topic, lambda i, s: replace(s, kind=kind, value=r1.compressed(packets[i], text)))


@pytest.mark.parametrize(
    ("codec", "kind"), [("h264", "CompressedVideo"), ("h264", "CompressedImage"), ("h265", "CompressedVideo")]
)
def test_video_topics_are_decoded(tmp_path, sent, codec, kind):
    episode = read(tmp_path, as_video(sent, r1.WRISTS["left"], video(36, codec), kind, codec))
    plain = read(tmp_path, sent)
    shown = r1.pictures(episode, "left_wrist_rgb")
    assert shown.shape == (36, 48, 64, 3) and episode.valid.all()
    rows = plain.cameras["left_wrist_rgb"].frames.rows
    assert np.abs(shown.mean((1, 2, 3)) - (40 + 3 * np.array(rows))).max() < 4
    assert r1.buffers(episode, "head_rgb") == r1.buffers(plain, "head_rgb")
    assert episode.metadata["camera_skew_ms"]["left_wrist_rgb"]["kind"] in ("h264", "hevc")


def test_video_before_its_first_keyframe_is_left_out(tmp_path, sent):
    packets = video(36, "h264")
    messages = r1.edit(as_video(sent, r1.HEAD, packets), r1.HEAD, lambda i, s: None if i < 3 else s)
    episode = read(tmp_path, messages)  # frames 3 .. 7 need frame 0
    assert len(episode.state) == 28
    assert np.abs(r1.pictures(episode, "head_rgb").mean((1, 2, 3)) - (40 + 3 * np.arange(8, 36))).max() < 4
    assert r1.warned(episode, "head_rgb", "5 frames before the first keyframe")
    messages = as_video(r1.edit(sent, r1.HEAD, lambda i, s: s if i < 7 else None), r1.HEAD, packets[1:])
    assert "without a keyframe" in refused(tmp_path, messages)


def test_video_that_cannot_be_followed(tmp_path, sent):
    packets = video(36, "h264")
    messages = as_video(sent, r1.HEAD, packets)
    swapped = r1.edit(messages, r1.HEAD, lambda i, s: replace(s, stamp=s.stamp - r1.SECOND // 10) if i == 9 else s)
    assert "stamps are out of order" in refused(tmp_path, swapped)
    hole = r1.edit(messages, r1.HEAD, lambda i, s: replace(s, value=r1.compressed(b"", "h264")) if i == 9 else s)
    assert "message 9 of the h264 video: the buffer is empty" in refused(tmp_path, hole)
    start = packets[0].index(b"\0\0\1\x65") + 4
    noise = [packets[0][:start] + bytes(range(1, 200)), *packets[1:]]
    with pytest.raises(BadEpisode, match="head_rgb"):
        r1.pictures(read(tmp_path, as_video(sent, r1.HEAD, noise)), "head_rgb")


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_plain_pictures(tmp_path, sent, encoding):
    rng = np.random.default_rng(1)
    colours = rng.integers(0, 256, (36, 6, 10, 3), np.uint8)

    def change(i, s):
        picture = {"rgb8": colours[i], "bgr8": colours[i][..., ::-1], "mono8": colours[i][..., :1]}[encoding]
        return replace(
            s,
            topic=s.topic.removesuffix("/compressed"),
            kind="Image",
            value=r1.plain(np.ascontiguousarray(picture), encoding, padding=5),
        )

    episode = read(tmp_path, r1.edit(sent, r1.WRISTS["right"], change))
    wanted = colours if encoding != "mono8" else colours[..., :1].repeat(3, -1)
    assert np.array_equal(r1.pictures(episode, "right_wrist_rgb"), wanted)


def test_plain_pictures_of_unknown_encoding_or_size(tmp_path, sent):
    def change(**fields):
        value = {**r1.plain(np.zeros((6, 10, 3), np.uint8), "rgb8"), **fields}
        return r1.edit(sent, r1.WRISTS["right"], lambda i, s: replace(s, kind="Image", value=value))

    assert "holds '16UC1' pictures" in refused(tmp_path, change(encoding="16UC1"))
    assert "claims 100000x10 pixels" in refused(tmp_path, change(height=100_000))
    assert "too few for 6x99 pixels" in refused(tmp_path, change(width=99))


# 17, 18: gripper targets


def test_sparse_gripper_targets_are_held(tmp_path, sent):
    changes = {0.4: 100.0, 1.0: 30.0, 1.7: 70.0}
    messages = r1.drop(sent, r1.GRIPPER_TARGET["left"])
    for t, value in changes.items():
        stamp = r1.START + round(t * r1.SECOND)
        messages.append(r1.Sent(r1.GRIPPER_TARGET["left"], "JointState", stamp, stamp + 900_000, r1.joints([value])))
    episode = read(tmp_path, messages)
    t = (episode.timestamp_ns + episode.metadata["start_ns"] - r1.START) / 1e9
    assert np.array_equal(episode.action[:, 6], np.where(t < 1.0, 100.0, np.where(t < 1.7, 30.0, 70.0)))
    assert episode.valid.all() and len(t) == 36


def test_pauses_of_targets_are_held_and_of_feedback_invalid(tmp_path, sent):
    outside = lambda t: not 0.8 < t < 1.3  # noqa: E731
    episode = read(tmp_path, r1.drop(sent, r1.ARM_TARGET["left"], outside))
    assert episode.valid.all()
    inside = [i for i, t in enumerate(episode.timestamp_ns / 1e9) if 0.83 < t < 1.27]
    assert len(inside) > 4 and np.ptp(episode.action[inside, :6], axis=0).max() == 0
    episode = read(tmp_path, r1.drop(sent, r1.ARM["left"], outside))
    assert set(inside) <= set(np.flatnonzero(~episode.valid)) <= {*inside, inside[0] - 1, inside[-1] + 1}
    assert r1.warned(episode, "frames are invalid")


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
    episode, plain = read(tmp_path, messages), read(tmp_path, sent)
    assert r1.warned(episode, r1.GRIPPER_OLD["left"], "no header", "log times")
    assert np.median(np.abs(episode.action[:, [6, 13]] - plain.action[:, [6, 13]])) < 5


# 19, 20: leader, spikes


def test_leader_that_is_not_engaged(tmp_path, sent):
    messages = r1.edit(
        sent,
        r1.ARM_TARGET["left"],
        lambda i, s: replace(s, value=r1.joints(s.value["position"] + max(0.0, 1.0 - 0.02 * i))),
    )
    episode = read(tmp_path, messages)
    assert len(episode.state) == 36 and r1.warned(episode, "leader not engaged", "trim_unengaged")
    trimmed = read(tmp_path, messages, trim_unengaged=True)
    cut = 36 - len(trimmed.state)
    assert 8 < cut < 20 and r1.warned(trimmed, f"{cut} frames before the leader was engaged")
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
    episode = read(tmp_path, messages)
    assert r1.warned(episode, "state: joints jump by up to", "frames 20, 21")
    torso = r1.edit(
        r1.recording(torso=True),
        r1.CHASSIS_TARGET,
        lambda i, s: replace(s, value={"six": [0, 0, 0, 0, 0, 88.0]}) if 50 < i < 60 else s,
    )
    assert r1.warned(read(tmp_path, torso, action_set="arms+torso+chassis"), "speeds above 50 at frames")


# 25, 26, 27: short episodes, other robots, unknown types


def test_short_episodes_are_kept(tmp_path):
    episode = read(tmp_path, r1.recording(frames=12))
    assert len(episode.state) == 12 and r1.warned(episode, "12 frames: shorter than a training window of 33")
    one = read(tmp_path, r1.recording(frames=1))
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
    assert np.array_equal(read(tmp_path, r1.recording(seven=seven)).state, read(tmp_path, sent).state)


def test_unknown_schemas_on_other_topics_do_not_matter(tmp_path, sent):
    r1.McapWriter().write(tmp_path / "x.mcap", sent, foreign=True)
    assert len(r1.read_one(tmp_path, task="t").state) == 36


def test_wrong_types_on_needed_topics(tmp_path, sent):
    messages = r1.edit(
        sent, r1.ARM["left"], lambda i, s: replace(s, kind="Bms", value={"voltage": 1, "current": 1, "capital": 1})
    )
    assert f"{r1.ARM['left']} holds" in (found := refused(tmp_path, messages)) and "expected JointState" in found
    pictures = r1.edit(sent, r1.HEAD, lambda i, s: replace(s, kind="Float32", value={"data": 1.0}))
    assert r1.HEAD in refused(tmp_path, pictures)


def test_a_recording_that_changes_between_passes_is_refused(tmp_path, sent):
    path = write(tmp_path, sent)
    made = r1.converter(task="t")
    assert isinstance(made, Converter)
    episode = made.read(tmp_path, made.discover(tmp_path).episodes[0])
    r1.McapWriter().write(path, r1.drop(sent, r1.HEAD, lambda t: t < 1))
    with pytest.raises(BadEpisode, match=r"head_rgb: frame 1[56] .* cannot be read again"):
        r1.buffers(episode, "head_rgb")
