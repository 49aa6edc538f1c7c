"""R1 Lite failure catalogue, lines 14 to 16: damaged pictures, video, plain pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import r1lite_files as r1
import r1lite_reading as rd
import simplejpeg
from r1lite_reading import read_sent, refused
from r1lite_video import as_video, reordered_video, video

from fwdata.api import BadEpisode


@pytest.fixture(scope="module")
def sent():
    return r1.recording()


@pytest.fixture(scope="module")
def long():
    """60 frames: one damaged picture is less than 2 %."""
    return r1.recording(frames=60)


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
    episode = read_sent(
        tmp_path, r1.edit(long, topic, lambda i, s: replace(s, value=r1.compressed(bad)) if i == 20 else s)
    )
    assert len(episode.state) == 60 and np.flatnonzero(~episode.valid).tolist() == [20]
    shown = rd.buffers(episode, camera)
    assert shown[20] in (shown[19], shown[21]) and shown[19] == r1.jpeg(19, hue)
    assert rd.warned(episode, camera, "message 20", "1 frame shows a neighbouring image")
    assert episode.metadata["invalid_frames"]["picture damaged"] == 1


def test_many_damaged_pictures(tmp_path, long):
    messages = r1.edit(
        long, r1.WRISTS["right"], lambda i, s: replace(s, value=r1.compressed(b"")) if i in (3, 9) else s
    )
    found = refused(tmp_path, messages)
    assert "right_wrist_rgb: 2 of 60 images are damaged (message 3: the buffer is empty)" in found
    nothing = r1.edit(long, r1.WRISTS["right"], lambda i, s: replace(s, value=r1.compressed(b"xyz")))
    assert "none of 60 images is readable: no JPEG: starts with 78 79 7a" in refused(tmp_path, nothing)
    png = r1.edit(long, r1.HEAD, lambda i, s: replace(s, value=r1.compressed(b"\x89PNG\r\n\x1a\n", "png")))
    assert "holds PNG images" in refused(tmp_path, png)


# 15, 16: video and plain pictures


@pytest.mark.parametrize(
    ("codec", "kind"), [("h264", "CompressedVideo"), ("h264", "CompressedImage"), ("h265", "CompressedVideo")]
)
def test_video_topics_are_decoded(tmp_path, sent, codec, kind):
    episode = read_sent(tmp_path, as_video(sent, r1.WRISTS["left"], video(36, codec), kind, codec))
    plain = read_sent(tmp_path, sent)
    shown = rd.pictures(episode, "left_wrist_rgb")
    assert shown.shape == (36, 48, 64, 3) and episode.valid.all()
    rows = plain.cameras["left_wrist_rgb"].frames.rows
    assert np.abs(shown.mean((1, 2, 3)) - (40 + 3 * np.array(rows))).max() < 4
    assert rd.buffers(episode, "head_rgb") == rd.buffers(plain, "head_rgb")
    assert episode.metadata["camera_skew_ms"]["left_wrist_rgb"]["kind"] in ("h264", "hevc")


def test_video_before_its_first_keyframe_is_left_out(tmp_path, sent):
    packets = video(36, "h264")
    messages = r1.edit(as_video(sent, r1.HEAD, packets), r1.HEAD, lambda i, s: None if i < 3 else s)
    episode = read_sent(tmp_path, messages)  # frames 3 .. 7 need frame 0
    assert len(episode.state) == 28
    assert np.abs(rd.pictures(episode, "head_rgb").mean((1, 2, 3)) - (40 + 3 * np.arange(8, 36))).max() < 4
    assert rd.warned(episode, "head_rgb", "5 frames before the first keyframe, or")
    messages = as_video(r1.edit(sent, r1.HEAD, lambda i, s: s if i < 7 else None), r1.HEAD, packets[1:])
    assert "without a keyframe" in refused(tmp_path, messages)


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("topic", [r1.HEAD, r1.WRISTS["left"]])
def test_video_after_a_missing_frame_waits_for_the_next_keyframe(tmp_path, sent, codec, topic):
    """Such frames decode without an error, but to wrong pictures: 8 frames a group, frame 10 was not recorded."""
    messages = as_video(sent, topic, video(36, codec), text=codec)
    episode = read_sent(tmp_path, r1.edit(messages, topic, lambda i, s: None if i == 10 else s))
    camera = "head_rgb" if topic == r1.HEAD else "left_wrist_rgb"
    shown = rd.pictures(episode, camera).mean((1, 2, 3))
    if topic == r1.HEAD:
        assert len(shown) == 30 and np.abs(shown - (40 + 3 * np.array([*range(10), *range(16, 36)]))).max() < 4
        assert np.flatnonzero(~episode.valid).tolist() == [10]
    else:
        taken = np.rint((shown - 40) / 3).astype(int)
        assert not set(taken) & set(range(10, 16)) and np.flatnonzero(~episode.valid).tolist() == [12, 13, 14]
    assert rd.warned(episode, camera, "5 frames before the first keyframe, or between a hole and the next one")


def test_video_that_cannot_be_followed(tmp_path, sent):
    packets = video(36, "h264")
    messages = as_video(sent, r1.HEAD, packets)
    swapped = r1.edit(messages, r1.HEAD, lambda i, s: replace(s, stamp=s.stamp - r1.SECOND // 10) if i == 9 else s)
    assert "stamps are out of order; correct it" in refused(tmp_path, swapped)
    ninth = [message for message in messages if message.topic == r1.HEAD][9]
    twice = [m for s in messages for m in ((s, replace(s, log=s.log + 1)) if s is ninth else (s,))]
    assert "with 1 message of another's stamp; correct it" in refused(tmp_path, twice)
    hole = r1.edit(messages, r1.HEAD, lambda i, s: replace(s, value=r1.compressed(b"", "h264")) if i == 9 else s)
    assert "message 9 of the h264 video: the buffer is empty" in refused(tmp_path, hole)
    start = packets[0].index(b"\0\0\1\x65") + 4
    noise = [packets[0][:start] + bytes(range(1, 200)), *packets[1:]]
    with pytest.raises(BadEpisode, match="head_rgb"):
        rd.pictures(read_sent(tmp_path, as_video(sent, r1.HEAD, noise)), "head_rgb")


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

    episode = read_sent(tmp_path, r1.edit(sent, r1.WRISTS["right"], change))
    wanted = colours if encoding != "mono8" else colours[..., :1].repeat(3, -1)
    assert np.array_equal(rd.pictures(episode, "right_wrist_rgb"), wanted)
    told = [text for text in episode.warnings if "greyscale" in text]
    assert told == (["right_wrist_rgb is greyscale; stored as three equal channels"] if encoding == "mono8" else [])


def test_grey_jpegs_are_named(tmp_path, sent):
    grey = simplejpeg.encode_jpeg(np.full((36, 64, 1), 90, np.uint8), colorspace="GRAY")
    changed = r1.edit(sent, r1.WRISTS["left"], lambda i, s: replace(s, value=r1.compressed(grey)))
    told = [text for text in read_sent(tmp_path, changed).warnings if "greyscale" in text]
    assert told == ["left_wrist_rgb is greyscale; stored as three equal channels"]
    assert not any("greyscale" in text for text in read_sent(tmp_path, sent).warnings)


def test_plain_pictures_of_unknown_encoding_or_size(tmp_path, sent):
    def change(**fields):
        value = {**r1.plain(np.zeros((6, 10, 3), np.uint8), "rgb8"), **fields}
        return r1.edit(sent, r1.WRISTS["right"], lambda i, s: replace(s, kind="Image", value=value))

    assert "holds '16UC1' images" in refused(tmp_path, change(encoding="16UC1"))
    assert "claims 100000x10 pixels" in refused(tmp_path, change(height=100_000))
    assert "too few for 6x99 pixels" in refused(tmp_path, change(width=99))


@pytest.mark.parametrize("how", ["keep", "pixels"])
@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("stamped", ["as sent", "as displayed"])
def test_b_frames_are_shown_in_display_order(tmp_path, sent, how, codec, b_frames, stamped):
    packets, display = reordered_video(36, codec, b_frames)
    place = {number: j for j, number in enumerate(display)}
    messages = as_video(sent, r1.WRISTS["left"], packets, text=codec)
    if stamped == "as displayed":  # each message has the stamp of its own frame
        stamps = [s.stamp for s in messages if s.topic == r1.WRISTS["left"]]
        messages = r1.edit(messages, r1.WRISTS["left"], lambda i, s: replace(s, stamp=stamps[place[i]]))
    episode = read_sent(tmp_path, messages, video=how)
    seen = rd.pictures(episode, "left_wrist_rgb").mean(axis=(1, 2, 3))
    assert len(seen) == 36 and (np.diff(seen) > 1).all(), "frame k is the k-th that was filmed"
    assert np.abs(seen - (40 + 3 * np.arange(36))).max() < 4
    said = any("has B-frames, its images are taken in display order" in w for w in episode.warnings)
    assert said == bool(b_frames)


def later(sent):
    return replace(sent, stamp=sent.stamp + r1.SECOND, log=sent.log + r1.SECOND)


def test_b_frames_whose_place_is_not_known_are_refused(tmp_path, sent):
    packets, _ = reordered_video(36, "h264", 2)
    messages = as_video(sent, r1.WRISTS["left"], packets)
    late = r1.edit(
        messages, r1.WRISTS["left"], lambda i, s: replace(s, stamp=s.stamp - r1.SECOND // 10) if i == 9 else s
    )
    assert "neither those of the messages nor those of the displayed frames" in refused(tmp_path, late)
    lost = r1.edit(messages, r1.WRISTS["left"], lambda i, s: later(s) if i > 20 else s)
    assert "lost messages would shift its images" in refused(tmp_path, lost)
