"""Cameras of whole video files: packets are kept where they can be, and what is wrong with a file is said."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from clips import moving, write_clip

from fwdata.api import BadEpisode, VideoCamera
from fwdata.images.colour import ToRgb

FRAMES = np.random.default_rng(0).integers(0, 256, (7, 32, 48, 3), np.uint8)


def clip(path: Path, codec: str = "libx264rgb", pix_fmt: str = "rgb24", **options: str) -> Path:
    """FRAMES as a video, without loss."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=10, options={"qp": "0", **options})
        stream.height, stream.width, stream.pix_fmt = 32, 48, pix_fmt
        for frame in FRAMES:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    return path


def test_packets_and_frames_of_a_file(tmp_path: Path) -> None:
    camera = VideoCamera.from_file(clip(tmp_path / "a.mp4"))
    assert (camera.height, camera.width, camera.unkept) == (32, 48, "")
    assert camera.rows.tolist() == list(range(7)) and len(list(camera.packets())) == 7
    to_rgb = ToRgb()
    for _ in range(2):  # every call is a fresh pass
        assert np.array_equal([to_rgb(frame) for frame in camera.frames()], FRAMES)


def test_frames_of_files_without_times_are_stored_instead(tmp_path: Path) -> None:
    camera = VideoCamera.from_file(clip(tmp_path / "a.avi", "ffv1", "bgr0"))
    assert camera.unkept == "the file tells no display times" and len(list(camera.frames())) == 7


@pytest.mark.parametrize("codec", ["libx265", "mpeg4"])
def test_a_file_that_begins_inside_a_group(tmp_path: Path, codec: str) -> None:
    write_clip(tmp_path / "whole.mp4", moving(9), codec, gop=6)
    with av.open(str(tmp_path / "whole.mp4")) as source, av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in [p for p in source.demux(video=0) if p.size][2:]:
            packet.stream = stream
            out.mux(packet)
    camera = VideoCamera.from_file(tmp_path / "a.mp4")
    assert "no keyframe comes before its first frame" in camera.unkept
    with pytest.raises(BadEpisode, match=r"a\.mp4: frame 0 of \d cannot be decoded, the video is damaged"):
        list(camera.frames())


def test_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    whole = clip(tmp_path / "a.mkv").read_bytes()
    for name, data, said in (
        ("absent.mp4", None, "absent.mp4 cannot be read as video: No such file"),
        ("a.txt", b"x", "a.txt has the ending '.txt'; known are .mp4"),
        ("b.mp4", b"x" * 64, "b.mp4 cannot be read as video: it is truncated, damaged, or not a video"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(BadEpisode, match=said):
            VideoCamera.from_file(tmp_path / name)
    camera = VideoCamera.from_file(tmp_path / "a.mkv")
    (tmp_path / "a.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(BadEpisode, match=r"a\.mkv: frame \d of 7 cannot be decoded"):
        list(camera.frames())


def test_a_file_that_is_cut_in_a_packet_is_said(tmp_path: Path) -> None:
    write_clip(tmp_path / "whole.mp4", FRAMES, form="mp4")
    with (
        av.open(str(tmp_path / "whole.mp4")) as source,
        av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in [p for p in source.demux(video=0) if p.size]:
            packet.stream = stream
            out.mux(packet)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[:-20])
    with pytest.raises(BadEpisode, match=r"a\.mp4 is cut short or damaged at frame 6; fetch it again"):
        VideoCamera.from_file(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"GIF89a", "it is GIF, which is not read; put it into a container that is: ffmpeg -i FILE FILE.mkv"),
        (b"OggS\0", "it is Ogg, which is not read; put it into a container that is: ffmpeg -i FILE -c copy FILE.mkv"),
        (b"\0\0\0\1\x67\x42", "a coded stream without a container, which holds no times"),
        (b"\xff\xd8\xff\xe0", "it is a single JPEG image, not a video; fetch it again"),
        (b"PAR1\x15", "it is a Parquet table, not a video"),
    ],
)
def test_what_is_no_video_that_is_read_is_named(tmp_path: Path, head: bytes, said: str) -> None:
    (tmp_path / "a.mp4").write_bytes(head + bytes(range(256)))
    with pytest.raises(BadEpisode) as caught:
        VideoCamera.from_file(tmp_path / "a.mp4")
    assert said in str(caught.value) and "\n" not in str(caught.value)
