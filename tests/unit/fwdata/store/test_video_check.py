"""Video that cannot be kept as recorded, or not at all: one sentence, one episode, nothing else lost."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
from clips import ffmpeg_rgb, moving, write_clip
from fixtures import run_convert
from video_stores import VIDEO_PLUGIN, video_manifest, video_store, write_recording

import fwdata
from fwdata.api import BadEpisode, VideoCamera, VideoPacket
from fwdata.images.video import DecodeError, VideoHeader, is_entry, parameter_sets
from fwdata.pipeline.results import ConvertReport
from fwdata.store.video_check import Packets, check_packets
from fwdata.store.video_writer import VideoSpool, as_pixels

FRAMES = 24


@pytest.fixture
def camera_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], VideoCamera]:
    """Opens a clip whole as the toy converter does."""
    monkeypatch.syspath_prepend(str(VIDEO_PLUGIN))
    import toyvideo

    return lambda path: toyvideo.camera(path, list(range(FRAMES)))


def spool(camera: VideoCamera, folder: Path) -> VideoSpool:
    found = VideoSpool("head", camera, len(camera.rows), folder, 1 << 20)
    found.close()
    return found


def changed(camera: VideoCamera, change: Callable[[int, VideoPacket], VideoPacket | None]) -> VideoCamera:
    """A camera whose packets are changed, or left out where that gives None."""

    def packets() -> Iterator[VideoPacket]:
        found = (change(number, packet) for number, packet in enumerate(camera.packets()))
        yield from (packet for packet in found if packet is not None)

    return dataclasses.replace(camera, packets=packets)


def without_stss(path: Path) -> None:
    """Hide an MP4's list of keyframes: its demuxer then marks every packet as one."""
    data = path.read_bytes()
    assert data.count(b"stss") == 1
    path.write_bytes(data.replace(b"stss", b"free"))


@pytest.mark.parametrize("codec", ["libx265", "libx264", "libsvtav1"])
def test_a_container_that_marks_every_packet_as_a_keyframe_is_not_believed(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "raw/task/clip.mp4"
    path.parent.mkdir(parents=True)
    write_clip(path, moving(FRAMES), codec, gop=8)
    without_stss(path)
    report = video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, {"a": ("clip.mp4", range(FRAMES))})
    assert report.warnings == []
    episode = fwdata.open(tmp_path / "s.zarr").episodes[0]
    shown = ffmpeg_rgb(path)
    some = [23, 9, 1, 14]
    assert np.array_equal(np.stack([episode.frames("wrist", [i])[0] for i in some]), shown[some])


def test_packets_that_claim_to_be_entries_are_stored_losslessly_instead(
    tmp_path: Path, camera_of: Callable[[Path], VideoCamera]
) -> None:
    options = {"x265-params": "log-level=none:pools=1:frame-threads=1:bframes=0"}
    write_clip(tmp_path / "c.mp4", moving(FRAMES), "libx265", gop=8, options=options)
    camera = changed(camera_of(tmp_path / "c.mp4"), lambda n, p: dataclasses.replace(p, is_entry=True))
    found = spool(camera, tmp_path)
    assert found.packets.header.codec == "h264"
    [warning] = found.warnings
    assert "cannot be kept as recorded (frame 1 is marked as a keyframe, but decoding cannot start there)" in warning


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n, p: None if n == 13 else p, "does not come out|shown at the same time|decoder"),
        (lambda n, p: dataclasses.replace(p, data=p.data[: len(p.data) // 2]) if n == 13 else p, "decoder|Invalid"),
        (lambda n, p: dataclasses.replace(p, is_entry=False) if n == 0 else p, "does not begin with a keyframe"),
        (lambda n, p: dataclasses.replace(p, rank=4) if n == 5 else p, "shown at the same time"),
    ],
    ids=["packet missing", "packet cut", "no entry at the start", "time doubled"],
)
@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_what_the_check_finds_is_named_and_the_frames_are_kept_exactly(
    codec: str,
    change: Callable[[int, VideoPacket], VideoPacket | None],
    reason: str,
    tmp_path: Path,
    camera_of: Callable[[Path], VideoCamera],
) -> None:
    write_clip(tmp_path / "c.mp4", moving(FRAMES), codec, gop=8)
    found = spool(changed(camera_of(tmp_path / "c.mp4"), change), tmp_path)
    assert found.packets.header.codec == "h264" and len(found.rows) == FRAMES
    [warning] = found.warnings
    assert re.search(reason, warning), warning


def convert_beside_good(raw: Path, monkeypatch: pytest.MonkeyPatch, workers: int = 0) -> tuple[ConvertReport, Path]:
    """Convert raw/task with a good recording beside what is there; the good one must come through."""
    write_clip(raw / "task/good.mp4", moving(FRAMES, seed=1), gop=6)
    write_recording(raw / "task", "z_good", "good.mp4", range(3, 20))
    out = raw.parent / "s.zarr"
    report = run_convert(raw, out, video_manifest(monkeypatch), workers=workers)
    good = [episode for episode in fwdata.open(out).episodes if episode.id == "task/z_good"]
    assert np.array_equal(good[0].frames("overhead"), ffmpeg_rgb(raw / "task/good.mp4")[3:20])
    return report, out


def test_a_frame_size_that_changes_inside_loses_one_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "raw/task"
    folder.mkdir(parents=True)
    one, two = io.BytesIO(), io.BytesIO()
    write_clip(one, moving(4), form="h264")
    write_clip(two, moving(4, (48, 64)), form="h264")
    both = io.BytesIO(one.getvalue() + two.getvalue())
    with av.open(both, format="h264") as source, av.open(str(folder / "bad.mkv"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.pts = packet.dts = number * 1200000 // 30
            packet.stream = stream
            out.mux(packet)
    write_recording(folder, "bad", "bad.mkv", range(8))
    report, _ = convert_beside_good(tmp_path / "raw", monkeypatch)
    [(source_name, reason)] = report.quarantined
    assert source_name == "task/bad.json" and "48x64" in reason and "\n" not in reason


@pytest.mark.parametrize("where", ["start", "end"])
def test_a_damaged_packet_at_either_end_loses_one_episode(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "raw/task"
    folder.mkdir(parents=True)
    write_clip(folder / "bad.mp4", moving(FRAMES), "libsvtav1", gop=2)
    data = bytearray((folder / "bad.mp4").read_bytes())
    with av.open(str(folder / "bad.mp4")) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    position, size = packets[0 if where == "start" else -1]
    data[position : position + size] = bytes(size)
    (folder / "bad.mp4").write_bytes(data)
    write_recording(folder, "bad", "bad.mp4", range(FRAMES))
    report, _ = convert_beside_good(tmp_path / "raw", monkeypatch)
    [(name, reason)] = report.quarantined
    assert name == "task/bad.json" and "\n" not in reason


def zero_parameter_sets(path: Path, box: bytes, skip: int, count: int) -> None:
    """Overwrite parameter sets in the container's own box."""
    data = bytearray(path.read_bytes())
    start = data.index(box) + 4 + skip
    data[start : start + count] = bytes(count)
    path.write_bytes(data)


def zero_packets(path: Path, count: int) -> None:
    """Overwrite the first bytes of every packet; the sequence headers of AV1 are among them."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(p.pos, min(count, p.size)) for p in container.demux(video=0) if p.size]
    for position, size in places:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("codec", "spoil"),
    [
        ("libx264", lambda path: zero_parameter_sets(path, b"avcC", 0, 40)),
        ("libx264", lambda path: zero_parameter_sets(path, b"avcC", 8, 28)),
        ("libx265", lambda path: zero_parameter_sets(path, b"hvcC", 0, 100)),
        ("libsvtav1", lambda path: zero_packets(path, 14)),
        ("libx264", lambda path: zero_packets(path, 1 << 20)),
    ],
    ids=["no avcC", "no SPS", "no hvcC", "no AV1 sequence header", "packets of zeros"],
)
def test_missing_parameter_sets_lose_one_episode(
    codec: str, spoil: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "raw/task"
    folder.mkdir(parents=True)
    write_clip(folder / "bad.mp4", moving(FRAMES), codec, gop=8)
    spoil(folder / "bad.mp4")
    write_recording(folder, "bad", "bad.mp4", range(10))
    report, _ = convert_beside_good(tmp_path / "raw", monkeypatch)
    [(name, reason)] = report.quarantined
    assert name == "task/bad.json" and "Errno" not in reason and "\n" not in reason
    assert re.search(
        "not begin with a keyframe|parameter sets may be missing|none of its packets gives a frame", reason
    )


def test_frames_that_are_not_rows_may_be_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged group that belongs to no row is not kept at all."""
    folder = tmp_path / "raw/task"
    folder.mkdir(parents=True)
    write_clip(folder / "half.mp4", moving(FRAMES), gop=6)
    shown = ffmpeg_rgb(folder / "half.mp4")
    with av.open(str(folder / "half.mp4")) as container:
        last = [p.pos for p in container.demux(video=0) if p.size][-1]
    data = bytearray((folder / "half.mp4").read_bytes())
    data[last + 8 : last + 30] = bytes(22)
    (folder / "half.mp4").write_bytes(data)
    write_recording(folder, "a", "half.mp4", range(10))
    report, out = convert_beside_good(tmp_path / "raw", monkeypatch)
    assert report.quarantined == []
    assert np.array_equal(fwdata.open(out).episodes[0].frames("wrist"), shown[:10])


def overwritten(path: Path, number: int) -> None:
    """Write 1 bits over all but the head of one packet."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    (first, size), data = packets[number], bytearray(path.read_bytes())
    data[first + 40 : first + size] = b"\xff" * (size - 40)
    path.write_bytes(data)


@pytest.mark.parametrize("number", [0, 1, 5, 13])
def test_concealed_damage_is_not_stored_in_another_way(
    number: int, tmp_path: Path, camera_of: Callable[[Path], VideoCamera]
) -> None:
    """HEVC's decoder marks nothing; that it makes another image each time tells. Packets 0, 5 and 13 are keyframes."""
    params = "log-level=none:pools=1:frame-threads=1:keyint=8:min-keyint=8:open-gop=1:bframes=3:b-adapt=0:scenecut=0"
    write_clip(tmp_path / "c.mp4", moving(FRAMES), "libx265", gop=8, options={"x265-params": params})
    assert spool(camera_of(tmp_path / "c.mp4"), tmp_path).warnings == []
    overwritten(tmp_path / "c.mp4", number)
    level = av.logging.get_level()
    with pytest.raises(BadEpisode, match=r"camera head: the video is damaged: .*; download the video again, or leave"):
        spool(camera_of(tmp_path / "c.mp4"), tmp_path)
    assert av.logging.get_level() == level


@pytest.mark.parametrize("options", [{}, {"x264-params": "open-gop=1:bframes=3:b-adapt=0"}], ids=["closed", "open"])
def test_frames_that_a_decoder_marks_as_damaged_are_not_stored_whatever_a_converter_does(
    options: dict[str, str], tmp_path: Path, camera_of: Callable[[Path], VideoCamera]
) -> None:
    """The toy converter hands out what the decoder gives, unseen."""
    write_clip(tmp_path / "c.mp4", moving(FRAMES), gop=8, options=options)
    overwritten(tmp_path / "c.mp4", 9)
    camera = camera_of(tmp_path / "c.mp4")
    assert len(list(camera.frames())) == FRAMES
    with pytest.raises(BadEpisode, match=r"camera head: .*the decoder marks the frame of row \d+ as damaged"):
        spool(camera, tmp_path)
    with pytest.raises(BadEpisode, match=r"marks the frame of row \d+ as damaged; download the video again, or leave"):
        list(as_pixels(camera).frames())


@pytest.mark.slow
def test_a_decoder_that_crashes_loses_one_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "raw/task"
    folder.mkdir(parents=True)
    (folder / "bad.mp4").write_bytes(b"crash")
    write_recording(folder, "bad", "bad.mp4", range(4))
    report, _ = convert_beside_good(tmp_path / "raw", monkeypatch, workers=1)
    [(name, reason)] = report.quarantined
    assert name == "task/bad.json" and "crashed (SIGABRT)" in reason


def test_variable_rate_and_edit_lists_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "raw/task"
    folder.mkdir(parents=True)
    times = np.cumsum(np.random.default_rng(0).integers(1, 5, FRAMES)).tolist()
    write_clip(folder / "vfr.mp4", moving(FRAMES), gop=8, times=times)
    write_clip(folder / "whole.mp4", moving(FRAMES), gop=8)
    cut_without_decoding(folder / "whole.mp4", folder / "cut.mp4", 11)
    shown = ffmpeg_rgb(folder / "cut.mp4")
    assert len(shown) < FRAMES - 8
    recordings = {"a": ("vfr.mp4", range(FRAMES)), "b": ("cut.mp4", range(len(shown)))}
    report = video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, recordings)
    assert report.quarantined == [] and report.warnings == []
    first, second = fwdata.open(tmp_path / "s.zarr").episodes
    assert np.array_equal(first.frames("wrist"), ffmpeg_rgb(folder / "vfr.mp4"))
    assert np.array_equal(second.frames("wrist"), shown)


def cut_without_decoding(source: Path, out: Path, first: int) -> None:
    """Copy packets from the keyframe before frame `first`; an edit list hides those before it."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
        step = sorted(p.pts for p in packets)[1] - sorted(p.pts for p in packets)[0]
        start = max(n for n, p in enumerate(packets) if p.is_keyframe and p.pts <= first * step)
        with av.open(str(out), "w") as target:
            copied = target.add_stream_from_template(stream)
            for packet in packets[start:]:
                packet.pts, packet.dts = packet.pts - first * step, packet.dts - first * step
                packet.stream = copied
                target.mux(packet)


def test_hevc_entries_are_told_by_their_units_in_both_forms() -> None:
    key, other = bytes([0, 0, 1, 19 << 1, 1, 9]), bytes([0, 0, 1, 1 << 1, 1, 9])
    assert is_entry(key, b"", "hevc") and not is_entry(other, b"", "hevc")
    prefixed = bytes([0, 0, 0, 3, 19 << 1, 1, 9])
    hvcc = b"\x01" + bytes(20) + b"\x03\x00"
    assert is_entry(prefixed, hvcc, "hevc")
    assert not is_entry(bytes([0, 0, 0, 3, 1 << 1, 1, 9]), hvcc, "hevc")
    assert not is_entry(b"\0\0", hvcc, "hevc")


def test_h264_that_is_refreshed_bit_by_bit_is_entered_at_its_beginning(tmp_path: Path) -> None:
    """Recovery points are marked as keyframes; decoding from one leaves out the frames up to the next."""
    options = {"x264-params": "intra-refresh=1:keyint=8:scenecut=0:bframes=0"}
    write_clip(tmp_path / "c.mp4", moving(40), gop=8, options=options)
    camera = VideoCamera.from_file(tmp_path / "c.mp4")
    with av.open(str(tmp_path / "c.mp4")) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0) if packet.size) > 2
    assert [n for n, packet in enumerate(camera.packets()) if packet.is_entry] == [0]
    assert not is_entry(bytes([0, 0, 1, 0x41, 0b1_00110_00]), b"", "h264")  # first_mb 0, slice_type 5: P
    assert is_entry(bytes([0, 0, 1, 0x41, 0b1_0001000]), b"", "h264")  # 7: I


def test_a_row_beyond_the_end_of_a_video_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw/task").mkdir(parents=True)
    write_clip(tmp_path / "raw/task/c.mp4", moving(10), gop=5)
    recordings = {"a": ("c.mp4", range(10)), "b": ("c.mp4", [0, 1, 12])}
    report = video_store(tmp_path / "raw", tmp_path / "s.zarr", monkeypatch, recordings)
    assert report.quarantined == [("task/b.json", "row 2 shows frame 12, the video holds 10 frames")]


def test_packets_of_fewer_frames_than_rows_ask_for_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw/task").mkdir(parents=True)
    write_clip(tmp_path / "raw/task/c.mp4", moving(10), gop=5)
    camera = VideoCamera.from_file(tmp_path / "raw/task/c.mp4")
    with pytest.raises(DecodeError, match="row 9 shows frame 9, the video holds 5 frames"):
        packets = list(camera.packets())[:5]
        check_packets(
            Packets(camera.header, lambda n: packets[n].data, [p.rank for p in packets], [0]), camera.rows, (48, 64)
        )


def test_parameter_sets_that_change_and_are_not_sent_again_are_found(tmp_path: Path) -> None:
    """A decoder that saw all packets knows the second stream's sets, one that starts at a later keyframe does not."""
    streams = []
    for seed, coding in ((0, "cabac=1"), (1, "cabac=0:8x8dct=0")):
        clip = io.BytesIO()
        write_clip(clip, moving(12, seed=seed), gop=4, form="h264", options={"x264-params": f"bframes=0:{coding}"})
        with av.open(clip, format="h264") as source:
            streams.append([bytes(packet) for packet in source.demux(video=0) if packet.size])
    slices = [data[data.index(b"\0\0\1\x65") :] if b"\0\0\1\x65" in data else data for data in streams[1]]
    once, repeated = [*streams[0], streams[1][0], *slices[1:]], [*streams[0], *streams[1]]
    header = VideoHeader("h264", parameter_sets(streams[0][0], "h264"), b"", "yuv420p", 2, 0)
    packets = Packets(header, repeated.__getitem__, list(range(24)), list(range(0, 24, 4)))
    check_packets(packets, np.arange(24), (64, 96))
    packets.data = once.__getitem__
    with pytest.raises(DecodeError, match="frame 16 is a keyframe without the parameter sets"):
        check_packets(packets, np.arange(24), (64, 96))


@pytest.mark.parametrize(
    ("codec", "number"), [("libx264", 8), ("libx265", 0), ("libx265", 8), ("libvpx-vp9", 8), ("libx265", 16)]
)
def test_a_hole_in_a_packet_is_no_image(
    codec: str, number: int, tmp_path: Path, camera_of: Callable[[Path], VideoCamera]
) -> None:
    """The decoders show what is left of the frame, and mark nothing. Behind the last row it does no harm."""
    params = {"libx265": "log-level=none:pools=1:frame-threads=1:bframes=0", "libx264": "bframes=0"}
    options = {f"{codec[3:]}-params": params[codec]} if codec in params else {}
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES, 64, 96, 3), np.uint8)
    write_clip(tmp_path / "c.mp4", noise, codec, gop=8, options=options)
    camera = camera_of(tmp_path / "c.mp4")
    holed = changed(camera, lambda n, p: dataclasses.replace(p, data=p.data[:-300] + bytes(300)) if n == number else p)
    shown = list(camera.frames())
    if number == 16:
        rows = dataclasses.replace(holed, rows=camera.rows[:16], frames=lambda: iter(shown[:16]))
        assert "the data of frame 16 hold 256 zeros in a row" in spool(rows, tmp_path).warnings[0]
        return
    with pytest.raises(BadEpisode, match=rf"the video is damaged: the data of frame {number} hold \d+ zeros in a row"):
        spool(holed, tmp_path)
    everywhere = changed(camera, lambda n, p: dataclasses.replace(p, data=p.data + bytes(300)))
    assert not any("zeros" in warning for warning in spool(everywhere, tmp_path).warnings)
