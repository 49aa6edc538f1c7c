"""Videos of rare kinds: stored images are what ffmpeg shows, or the file's wish that is not followed is reported."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import ffmpeg_rgb, moving, write_clip
from fixtures import run_convert
from joined_clips import clip, with_two_descriptions
from lerobot_files import V3_VIDEO, Recipe, edit_info, write_dataset, write_video
from lerobot_reading import converter, manifest, pixels, reason
from PIL import Image

import fwdata
from fwdata.errors import BadEpisode
from fwdata.pipeline.results import ConvertReport
from fwdata.store.reader import Store

LENGTHS = (7, 1, 12)
COUNT = sum(LENGTHS)


def shared_set(folder: Path, suffix: str = ".mp4") -> tuple[Path, list[Path]]:
    """A v3.0 dataset, and its three videos that are to be replaced."""
    recipe = Recipe(version="v3.0", lengths=LENGTHS, tasks=(0, 1, 1), size=(64, 96))
    raw = write_dataset(folder / "set", recipe)
    edit_info(raw, video_path=V3_VIDEO.replace(".mp4", suffix))
    paths = [path.with_suffix(suffix) for path in sorted(raw.rglob("*.mp4"))]
    for path in raw.rglob("*.mp4"):
        path.unlink()
    return raw, paths


def convert(raw: Path, out: Path, **options: object) -> tuple[ConvertReport, Store]:
    base = manifest()
    report = run_convert(raw, out, base.model_copy(update={"options": {**base.options, **options}}))
    return report, fwdata.open(out)


def shows(store: Store, shown: np.ndarray) -> bool:
    """Whether every episode's frames are its part of the file's, for one camera."""
    starts = np.cumsum([0, *LENGTHS])
    return len(store.episodes) == len(LENGTHS) and all(
        np.array_equal(episode.frames(store.cameras[0]), shown[start : start + length])
        for episode, start, length in zip(store.episodes, starts[:-1], LENGTHS, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix", "size"),
    [
        ("mjpeg", "yuvj420p", ".mp4", (65, 97)),
        ("png", "rgb24", ".mp4", (64, 96)),
        ("png", "gray", ".mp4", (64, 96)),
        ("ffv1", "yuv411p", ".mkv", (64, 96)),
    ],
)
def test_formats_that_the_lossless_coding_does_not_take_become_exact_rgb(
    tmp_path: Path, codec: str, pix_fmt: str, suffix: str, size: tuple[int, int]
) -> None:
    raw, paths = shared_set(tmp_path, suffix)
    for path in paths:
        form = "matroska" if suffix == ".mkv" else "mp4"
        write_clip(path, moving(COUNT, size), codec, fps=15, pix_fmt=pix_fmt, color_range=2, form=form)
    report, store = convert(raw, tmp_path / "s.zarr")
    assert report.quarantined == [] and shows(store, ffmpeg_rgb(paths[0]))
    assert f"cannot be kept as recorded (codec '{codec}' is not kept as recorded); " in " ".join(report.warnings)


@pytest.mark.parametrize("later", [{"matrix": 1, "color_range": 2}, {"pix_fmt": "yuv444p"}])
def test_tags_or_formats_that_change_inside_keep_every_frames_colours(tmp_path: Path, later: dict[str, Any]) -> None:
    """Two streams behind each other in a transport stream: the change is inside of the last episode."""
    raw, paths = shared_set(tmp_path, ".ts")
    parts, first = [io.BytesIO(), io.BytesIO()], dict[str, Any]()
    for seed, (part, tags) in enumerate(zip(parts, (first, later), strict=True)):
        options = {"x264-params": "bframes=0"}
        write_clip(part, moving(COUNT // 2, seed=seed), gop=5, form="h264", options=options, **tags)
    for path in paths:
        joined = io.BytesIO(b"".join(part.getvalue() for part in parts))
        with av.open(joined, format="h264") as source, av.open(str(path), "w", format="mpegts") as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
                packet.pts = packet.dts = number * 1200000 // 15
                packet.stream = stream
                out.mux(packet)
    report, store = convert(raw, tmp_path / "s.zarr")
    assert report.quarantined == [] and any("stored losslessly coded" in text for text in report.warnings)
    assert shows(store, np.concatenate([ffmpeg_rgb(part) for part in parts]))


def test_transport_streams_that_were_joined_byte_by_byte_are_named_as_that(tmp_path: Path) -> None:
    raw, paths = shared_set(tmp_path, ".ts")
    for path in paths:
        parts = [io.BytesIO(), io.BytesIO()]
        for part, count in zip(parts, (8, COUNT - 8), strict=True):
            write_clip(part, moving(count), gop=4, fps=15, form="mpegts")
        path.write_bytes(b"".join(part.getvalue() for part in parts))
    found = reason(raw)
    assert "its times begin again after 8 of 20 frames: recordings were joined byte by byte" in found
    assert "download" not in found
    for path in paths:
        write_clip(path, moving(COUNT), gop=4, fps=15, form="mpegts")
        path.write_bytes(path.read_bytes()[:-3000])
    made = converter()
    with pytest.raises(BadEpisode) as caught:
        made.read(raw, made.discover(raw).episodes[-1])
    assert "begin again" not in str(caught.value)


def test_mpeg4_whose_container_marks_every_packet_as_a_keyframe_is_entered_at_true_ones(tmp_path: Path) -> None:
    raw, paths = shared_set(tmp_path)
    for path in paths:
        write_clip(path, moving(COUNT), "mpeg4", gop=9, fps=15)
        path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
    shown = ffmpeg_rgb(paths[0])
    for how in ("keep", "pixels"):
        report, store = convert(raw, tmp_path / f"{how}.zarr", video=how)
        assert report.quarantined == [] and shows(store, shown)
        assert not any("keyframe" in text for text in report.warnings)


@pytest.mark.parametrize("how", ["keep", "pixels"])
def test_a_turn_that_the_file_asks_for_and_colours_that_nothing_converts_are_reported(tmp_path: Path, how: str) -> None:
    raw, paths = shared_set(tmp_path)
    for path in paths:
        write_clip(path, moving(COUNT), gop=4, fps=15, matrix=8)
        data = bytearray(path.read_bytes())
        start = data.index(b"tkhd") + 44  # the matrix of ISO 14496-12 8.3.2, behind its time, number, length and layer
        turn = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
        data[start : start + 36] = b"".join(value.to_bytes(4, signed=True) for value in turn)
        path.write_bytes(data)
    report, store = convert(raw, tmp_path / "s.zarr", video=how)
    text = " ".join(report.warnings)
    assert report.quarantined == [] and len(store.episodes) == len(LENGTHS)
    assert "asks players to turn the image by" in text and "its colours are tagged YCgCo" in text


def test_one_frame_too_many_is_not_an_unlisted_episode_because_a_listed_one_has_one_row(tmp_path: Path) -> None:
    raw, paths = shared_set(tmp_path)
    frames = moving(COUNT)
    for path in paths:
        write_video(path, np.insert(frames, 9, frames[9], axis=0), 15, gop=50)
    report, store = convert(raw, tmp_path / "s.zarr")
    assert len(store.episodes) == 1 and len(report.quarantined) == 2
    assert all("no cut in the images tells where" in reason for _, reason in report.quarantined)


def test_the_damaged_frame_of_a_shared_file_is_named(tmp_path: Path) -> None:
    raw, paths = shared_set(tmp_path)
    for path in paths:
        write_clip(path, moving(COUNT), "libaom-av1", gop=2, fps=15)
    with av.open(str(paths[0])) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(paths[0].read_bytes())
    at, size = packets[14]
    assert at is not None
    data[at + 4 : at + size] = bytes(size - 4)
    paths[0].write_bytes(data)
    report, store = convert(raw, tmp_path / "s.zarr")
    [(source, reason)] = report.quarantined
    assert source.endswith("#episode_000002") and "frame 6 of the episode cannot be decoded" in reason
    assert "download the video again" in reason and len(store.episodes) == 2


def test_a_file_of_two_videos_is_said(tmp_path: Path) -> None:
    raw, paths = shared_set(tmp_path)
    for path in paths:
        write_clip(path, moving(COUNT), fps=15)
    both = io.BytesIO()
    with av.open(str(paths[0])) as source, av.open(both, "w", format="mp4") as out:
        copies = [out.add_stream_from_template(source.streams.video[0], opaque=True) for _ in range(2)]
        for packet in [packet for packet in source.demux(video=0) if packet.size]:
            for copy in copies:
                again = av.Packet(bytes(packet))
                again.pts, again.dts, again.time_base = packet.pts, packet.dts, packet.time_base
                again.is_keyframe, again.stream = packet.is_keyframe, copy
                out.mux(again)
    paths[0].write_bytes(both.getvalue())
    report, store = convert(raw, tmp_path / "s.zarr")
    assert report.quarantined == [] and shows(store, ffmpeg_rgb(paths[0]))
    assert "the file holds 2 videos (96x64 h264, 96x64 h264); the first one is taken" in " ".join(report.warnings)


def _box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def with_cover(data: bytes, first: bool) -> bytes:
    """An mp4 whose index is its last box, with a cover image; first: listed before the video (iTunes metadata)."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (9, 99, 9)).save(picture, "jpeg")
    cover = _box(b"covr", _box(b"data", (13).to_bytes(4, "big") + bytes(4) + picture.getvalue()))
    kind = _box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    added = _box(b"udta", _box(b"meta", bytes(4) + kind + _box(b"ilst", cover)))
    index = data.rindex(b"moov")
    content = data[index + 4 :]
    head = int.from_bytes(content[:4], "big") if first else len(content)
    return data[: index - 4] + _box(b"moov", content[:head] + added + content[head:])


@pytest.mark.parametrize("first", [False, True])
def test_a_cover_image_is_no_second_video(tmp_path: Path, first: bool) -> None:
    raw, paths = shared_set(tmp_path)
    for path in paths:
        write_clip(path, moving(COUNT), fps=15)
    expected = ffmpeg_rgb(paths[0])
    paths[0].write_bytes(with_cover(paths[0].read_bytes(), first))
    with av.open(str(paths[0])) as container:
        assert [stream.codec_context.name for stream in container.streams.video].index("mjpeg") == (0 if first else 1)
    report, store = convert(raw, tmp_path / "s.zarr")
    assert report.quarantined == [] and shows(store, expected)
    assert not any("videos" in text for text in report.warnings), report.warnings


def test_shared_videos_that_are_refreshed_bit_by_bit(tmp_path: Path) -> None:
    """Decoding begins at the file's first frame for every episode: no later one can be decoded alone."""
    raw, paths = shared_set(tmp_path)
    options = {"x264-params": "intra-refresh=1:keyint=5:scenecut=0:bframes=0"}
    for path in paths:
        write_clip(path, moving(COUNT), fps=15, gop=5, options=options)
    report, store = convert(raw, tmp_path / "s.zarr")
    assert report.quarantined == [] and shows(store, ffmpeg_rgb(paths[0]))
    assert not any("cannot be kept" in text for text in report.warnings)


@pytest.mark.parametrize(("suffix", "form"), [(".mp4", "mp4"), (".ts", "mpegts")])
def test_an_episode_that_no_keyframe_of_the_container_leads_to(tmp_path: Path, suffix: str, form: str) -> None:
    """The last episode begins at a frame that is shown before its keyframe; a seek in a transport stream overshoots."""
    raw, paths = shared_set(tmp_path, suffix)
    for path in paths:
        write_clip(path, moving(COUNT), "mpeg2video", fps=25, gop=8, form=form, options={"bf": "2"})
    report, store = convert(raw, tmp_path / "s.zarr")
    assert report.quarantined == [] and shows(store, ffmpeg_rgb(paths[0]))


def test_a_variable_rate_says_which_frame_and_what_to_do(tmp_path: Path) -> None:
    raw = write_dataset(tmp_path / "set", Recipe(lengths=(6,), tasks=(0,), size=(64, 96)))
    write_clip(sorted(raw.rglob("*.mp4"))[0], moving(6), fps=15, times=[0, 1, 2, 5, 6, 7])
    told = reason(raw)
    assert "frame 2 is shown at 0.133 s, an even rate puts it at 0.187 s; frames are missing or doubled; " in told
    assert "download the video again, or leave the episode out" in told


def copied(path: Path, out: Path, form: str, key: int = 0, filters: str = "") -> None:
    """Packets of a video from a keyframe on in another file, through a bitstream filter if named."""
    with av.open(str(path)) as source, av.open(str(out), "w", format=form) as made:
        stream = source.streams.video[0]
        copy = made.add_stream_from_template(stream, opaque=True)
        packets = [packet for packet in source.demux(stream) if packet.size]
        first = [number for number, packet in enumerate(packets) if packet.is_keyframe][key]
        made_of = av.bitstream.BitStreamFilterContext(filters, stream) if filters else None
        for packet in packets[first:]:
            for changed in made_of.filter(packet) if made_of else [packet]:
                changed.stream = copy
                made.mux(changed)


def test_a_cut_at_the_left_is_where_the_stream_says(tmp_path: Path) -> None:
    """Decoders cut a left edge in steps of 32 bytes unless asked to; then frames were wider than the stream says."""
    raw, paths = shared_set(tmp_path, ".ts")
    write_clip(tmp_path / "whole.mp4", moving(COUNT), fps=15, options={"x264-params": "bframes=0"})
    filters = "h264_metadata=crop_left=8:crop_right=6:crop_top=4:crop_bottom=10"
    for path in paths:
        copied(tmp_path / "whole.mp4", path, "mpegts", filters=f"h264_mp4toannexb,{filters}")
    edit_info(raw, video_path=V3_VIDEO.replace(".mp4", ".ts"))
    for how in ("keep", "pixels"):
        report, store = convert(raw, tmp_path / f"{how}.zarr", video=how)
        assert report.quarantined == [] and not any("cannot be kept" in text for text in report.warnings)
        found = np.concatenate([episode.frames(store.cameras[0]) for episode in store.episodes])
        inner = ffmpeg_rgb(tmp_path / "whole.mp4")[:, 4:54, 8:90]
        assert found.shape == inner.shape
        assert np.array_equal(found[:, 2:-2, 2:-2], inner[:, 2:-2, 2:-2])  # chroma is interpolated from beyond the edge


@pytest.mark.parametrize("how", ["keep", "pixels"])
def test_a_container_that_asks_to_cut_the_edges_off_is_reported(tmp_path: Path, how: str) -> None:
    raw, paths = shared_set(tmp_path)
    for path in paths:
        write_clip(path, moving(COUNT), gop=4, fps=15)
        data = bytearray(path.read_bytes())
        clap = (40).to_bytes(4, "big") + b"clap" + b"".join(n.to_bytes(4, "big") for n in (80, 1, 40, 1, 0, 1, 0, 1))
        for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):  # outermost first
            at = data.index(kind, data.index(b"moov")) - 4
            data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + len(clap)).to_bytes(4, "big")
        at = data.index(b"avcC") - 4
        data[at:at] = clap
        path.write_bytes(data)
    report, store = convert(raw, tmp_path / "s.zarr", video=how)
    assert report.quarantined == [] and shows(store, ffmpeg_rgb(paths[0]))
    assert "the file asks players to cut the edges of the image off" in " ".join(report.warnings)


@pytest.mark.parametrize("how", ["keep", "pixels"])
def test_pictures_that_only_a_cut_off_beginning_would_show_are_no_frames(tmp_path: Path, how: str) -> None:
    """Copied from the second keyframe of open groups on: the pictures before it are packets that no decoder shows."""
    raw, paths = shared_set(tmp_path, ".mkv")
    params = "log-level=none:pools=1:frame-threads=1:open-gop=1:bframes=3:b-adapt=0:scenecut=0:keyint=8:min-keyint=8"
    write_clip(tmp_path / "whole.mp4", moving(COUNT + 8), "libx265", fps=15, gop=8, options={"x265-params": params})
    for path in paths:
        copied(tmp_path / "whole.mp4", path, "matroska", key=1)
    with av.open(str(paths[0])) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) > COUNT
    shown = ffmpeg_rgb(paths[0])
    report, store = convert(raw, tmp_path / "s.zarr", video=how)
    assert len(shown) == COUNT and report.quarantined == [] and shows(store, shown)
    assert not any("holds" in text or "cannot be kept" in text for text in report.warnings), report.warnings


def test_the_rate_of_a_file_without_times_is_that_of_its_frames(tmp_path: Path) -> None:
    """H.264 copied to AVI: its index counts ticks of 1/600 s as frames."""
    raw, paths = shared_set(tmp_path, ".avi")
    write_clip(tmp_path / "whole.mp4", moving(COUNT), fps=15, options={"x264-params": "bframes=0"})
    for path in paths:
        copied(tmp_path / "whole.mp4", path, "avi", filters="h264_mp4toannexb")
    report, store = convert(raw, tmp_path / "s.zarr")
    assert report.quarantined == [] and shows(store, ffmpeg_rgb(tmp_path / "whole.mp4"))
    assert not any("frames/s" in text for text in report.warnings), report.warnings


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_file_that_describes_its_video_twice(codec: str, tmp_path: Path) -> None:
    """FFmpeg hands out the first description alone: packets of the second part were decoded by it to other images."""
    raw, paths = shared_set(tmp_path)
    one, other = (clip(codec, seed, offset, "mp4", COUNT // 2) for seed, offset in ((0, 0), (1, 6)))
    for path in paths:
        path.write_bytes(with_two_descriptions(one.getvalue(), other.getvalue()))
    shown = ffmpeg_rgb(paths[0])
    assert np.array_equal(shown, np.concatenate([ffmpeg_rgb(one), ffmpeg_rgb(other)]))
    report, store = convert(raw, tmp_path / "s.zarr")
    assert report.quarantined == [] and shows(store, shown)
    assert "cannot be kept as recorded (the file describes its video in 2 ways" in " ".join(report.warnings)


@pytest.mark.parametrize("codec", ["libx265", "mpeg4"])
def test_frames_before_the_first_keyframe_are_not_what_a_decoder_makes_up(tmp_path: Path, codec: str) -> None:
    """A file that begins inside a group: HEVC's decoder shows its first frames, and enters it anywhere."""
    raw, paths = shared_set(tmp_path)
    params = {"x265-params": "log-level=none:pools=1:frame-threads=1:bframes=0"} if codec == "libx265" else {}
    whole = io.BytesIO()
    write_clip(whole, moving(COUNT + 2), codec, gop=8, fps=15, options=params)
    for path in paths:
        with av.open(io.BytesIO(whole.getvalue())) as source, av.open(str(path), "w", format="mp4") as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            for packet in [p for p in source.demux(video=0) if p.size][2:]:
                packet.stream = stream
                out.mux(packet)
    report, store = convert(raw, tmp_path / "s.zarr")
    assert [name[-6:] for name, _ in report.quarantined] == ["000000"]
    assert "frame 0 of the episode cannot be decoded" in report.quarantined[0][1]
    shown = ffmpeg_rgb(whole)[2:]
    for episode, first, length in zip(store.episodes, (7, 8), LENGTHS[1:], strict=True):
        assert np.array_equal(episode.frames(store.cameras[0]), shown[first : first + length])


def test_times_that_contradict_the_order_of_the_frames_are_named(tmp_path: Path) -> None:
    """B-frames whose times count packets, as a copy that loses display times leaves them."""
    raw, paths = shared_set(tmp_path)
    whole = io.BytesIO()
    write_clip(whole, moving(COUNT), gop=10, fps=15, options={"x264-params": "bframes=3:b-adapt=0"})
    for path in paths:
        with av.open(io.BytesIO(whole.getvalue())) as source, av.open(str(path), "w", format="mp4") as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
                packet.stream, packet.pts, packet.dts = stream, *(2 * [number * packet.duration])
                out.mux(packet)
    made = converter()
    for ref in made.discover(raw).episodes:
        with pytest.raises(
            BadEpisode, match="its times contradict the order in which its frames are coded to be shown"
        ):
            pixels(made.read(raw, ref).cameras["head_rgb"])
