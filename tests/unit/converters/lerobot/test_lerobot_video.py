"""Videos of LeRobot datasets: colours by their tags, codecs, and which frame belongs to which row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clips import ffmpeg_rgb, moving, write_clip
from lerobot_files import Recipe, frames, write_dataset, write_video
from lerobot_reading import manifest, pixels

from converters.lerobot import Converter
from fwdata.api import BadEpisode, Episode

KEY = "observation.images.top"
VIDEO = f"videos/chunk-000/{KEY}/episode_000000.mp4"
SHARED = f"videos/{KEY}/chunk-000/file-000.mp4"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
ONE = Recipe(lengths=(12, 9, 10), tasks=(0, 0, 0), cameras=(KEY,), fps=30, vectors={"state": 2, "action": 2})
V3 = replace(ONE, version="v3.0")
OPTIONS = {"cameras": {"top": KEY}, "state": "state", "action": "action"}


def read(root: Path, **options: object) -> list[np.ndarray]:
    """Images of every episode."""
    return [pixels(e.cameras["top"]) for e in made(root, **options)]


def made(root: Path, **options: object) -> list[Episode]:
    """Every episode."""
    found = converter_for(root, **options)
    return [found.read(root, ref) for ref in found.discover(root).episodes]


def converter_for(root: Path, **options: object) -> Converter:
    """The converter of one camera and two vectors."""
    base = manifest("lerobot")
    stitch = base.stitch.model_copy(update={"layout": "horizontal", "cameras": ("top",)})
    changes = {"options": {**OPTIONS, **options}, "cameras": ("top",), "stitch": stitch}
    return Converter(base.model_copy(update=changes))


def shots(recipe: Recipe = V3) -> np.ndarray:
    return np.concatenate([frames(recipe, KEY, e) for e in range(len(recipe.lengths))])


def warnings(root: Path, **options: object) -> list[str]:
    return [text for episode in made(root, **options) for text in episode.warnings if "window" not in text]


def test_every_episode_of_a_sound_dataset_has_its_own_images(tmp_path):
    for name, recipe in (("v2", ONE), ("v3", V3)):
        root = write_dataset(tmp_path / name, recipe)
        assert all(np.array_equal(shown, frames(recipe, KEY, e)) for e, shown in enumerate(read(root)))
        assert not warnings(root)


@pytest.mark.parametrize(
    ("codec", "matrix", "color_range"),
    [("libx264", 2, 0), ("libx264", 1, 1), ("libx264", 1, 2), ("libsvtav1", 5, 2)],
    ids=["untagged", "BT.709", "BT.709 full", "AV1 full"],
)
def test_the_colours_of_a_video_are_those_its_tags_say(tmp_path, codec, matrix, color_range):
    root = write_dataset(tmp_path, replace(ONE, lengths=(3,), tasks=(0,)))
    write_clip(root / VIDEO, moving(3), codec, fps=30, matrix=matrix, color_range=color_range)
    assert np.array_equal(read(root)[0], ffmpeg_rgb(root / VIDEO))


@pytest.mark.parametrize(
    ("codec", "suffix", "form"),
    [
        ("mpeg4", "mp4", "mp4"),
        ("mpeg4", "avi", "avi"),
        ("libx264", "avi", "avi"),
        ("libx264", "mkv", "matroska"),
        ("libvpx-vp9", "webm", "webm"),
        ("mjpeg", "mov", "mov"),
        ("libx264", "ts", "mpegts"),
        ("mpeg1video", "mpg", "mpeg"),
        ("ffv1", "mkv", "matroska"),
        ("libx264", "mp4", "matroska"),
        ("mpeg4", "mp4", "avi"),
        ("libx264", "mp4", "mpegts"),
        ("mpeg1video", "mp4", "mpeg"),
        ("libx264", "mkv", "mp4"),
    ],
)
def test_codecs_and_containers(tmp_path, codec, suffix, form):
    """MPEG-4 Part 2 and others, whatever the ending; a file of another ending is found by its name."""
    root = write_dataset(tmp_path, replace(ONE, lengths=(9,), tasks=(0,)))
    path = (root / VIDEO).with_suffix(f".{suffix}")
    (root / VIDEO).unlink()
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    write_clip(path, moving(9), codec, fps=30, form=form, pix_fmt=pix_fmt)
    assert np.array_equal(read(root)[0], ffmpeg_rgb(path))


def edit_times(root: Path, **columns: object) -> None:
    """Change from_timestamp and to_timestamp of all episodes: name -> values."""
    table = pq.read_table(root / EPISODES)
    for name, values in columns.items():
        index = table.schema.names.index(f"videos/{KEY}/{name}_timestamp")
        table = table.set_column(index, table.schema.names[index], pa.array(values, pa.float64()))
    pq.write_table(table, root / EPISODES)


@pytest.mark.parametrize("stop", [[11 / 30, 20 / 30, 30 / 30], [0.0, 0.0, 0.0], [9.0, 8.0, 7.0], [None] * 3])
def test_to_timestamp_is_a_hint(tmp_path, stop):
    root = write_dataset(tmp_path, V3)
    edit_times(root, to=stop)
    assert all(np.array_equal(shown, frames(V3, KEY, e)) for e, shown in enumerate(read(root)))
    assert not warnings(root)


def test_starts_that_drift_are_counted(tmp_path):
    """A table that counts the last frame's time as an episode's end is one more frame off with each."""
    root = write_dataset(tmp_path, V3)
    edit_times(root, **{"from": [0.0, 11 / 30, 19 / 30]})
    assert all(np.array_equal(shown, frames(V3, KEY, e)) for e, shown in enumerate(read(root)))
    assert any(
        "from_timestamp of episode 2 is 0.633 s, counted by rows its frames begin at 0.700 s" in w
        for w in warnings(root)
    )


@pytest.mark.parametrize("fps", [29, 60])
def test_a_shared_video_of_another_rate_is_counted(tmp_path, fps):
    """Every frame is within half a period of some row; by time alone, later episodes would begin elsewhere."""
    root = write_dataset(tmp_path, V3)
    write_video(root / SHARED, shots(), fps)
    assert all(np.array_equal(shown, frames(V3, KEY, e)) for e, shown in enumerate(read(root)))
    assert all(f"runs at {fps} frames/s, meta/info.json says 30; frames are counted" in w for w in warnings(root))


def test_a_shared_video_that_begins_late(tmp_path):
    root = write_dataset(tmp_path, V3)
    write_clip(root / SHARED, shots(), "libx264rgb", pix_fmt="rgb24", form="mp4", times=range(3, 3 + len(shots())))
    assert all(np.array_equal(shown, frames(V3, KEY, e)) for e, shown in enumerate(read(root)))


@pytest.mark.parametrize("change", ["lost", "doubled", "lost at the end"])
def test_a_shared_video_of_more_or_fewer_frames_than_rows(tmp_path, change):
    """Episodes behind an unknown place are not stored; the first one is anchored by the start of the file."""
    root = write_dataset(tmp_path, V3)
    good = shots()
    bad = {
        "lost": np.delete(good, 12, axis=0),
        "doubled": np.insert(good, 15, good[15], axis=0),
        "lost at the end": good[:-1],
    }[change]
    write_video(root / SHARED, bad, 30, gop=10)
    found, kept = converter_for(root), []
    for ref in found.discover(root).episodes:
        try:
            episode = found.read(root, ref)
        except BadEpisode as error:
            assert "frames" in str(error)
        else:
            kept.append(ref.hints["episode"])
            assert np.array_equal(pixels(episode.cameras["top"]), frames(V3, KEY, 0))
            assert f"holds {len(bad)} frames, its 3 episodes have 31 rows" in " ".join(episode.warnings)
    assert kept == [0]


def test_keyframes_at_every_episode_show_that_the_surplus_is_elsewhere(tmp_path):
    """Videos are joined episode by episode, each with a keyframe; a few frames too many at the end harm none."""
    root = write_dataset(tmp_path, V3)
    parts = [frames(V3, KEY, e) for e in range(3)]
    parts[2] = np.concatenate([parts[2], parts[2][:2]])
    join(root / SHARED, parts)
    shown = read(root)
    assert all(np.array_equal(images, frames(V3, KEY, e)) for e, images in enumerate(shown))
    assert all("every episode begins at a keyframe" in text for text in warnings(root)) and warnings(root)
    parts[0] = parts[0][1:]
    join(root / SHARED, parts)
    assert len(shown) == 3
    with pytest.raises(BadEpisode, match="1 frame is there that no row has, and no cut in the images tells where"):
        made(root)


def join(path: Path, parts: list[np.ndarray]) -> None:
    """One video with a keyframe at the start of each part only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=30)
        stream.height, stream.width = parts[0].shape[1:3]
        stream.pix_fmt, stream.gop_size, stream.codec_context.thread_count = "rgb24", 250, 1
        stream.options = {"qp": "0", "preset": "ultrafast", "forced-idr": "1"}
        for part in parts:
            for number, image in enumerate(part):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pict_type = av.video.frame.PictureType.I if number == 0 else av.video.frame.PictureType.NONE
                container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_video_with_unlisted_episodes_behind_the_listed_ones(tmp_path):
    root = write_dataset(tmp_path, V3)
    write_video(root / SHARED, np.concatenate([shots(), shots()[:20]]), 30)
    assert all(np.array_equal(shown, frames(V3, KEY, e)) for e, shown in enumerate(read(root)))
    assert all("as long as an episode and taken for unlisted ones" in text for text in warnings(root))


def test_deleted_episodes_leave_gaps_in_a_shared_video(tmp_path):
    """from_timestamp of the later ones is behind frames that no episode shows."""
    root = write_dataset(tmp_path, V3)
    gap = moving(8, size=(24, 32))
    parts = [frames(V3, KEY, e) for e in range(3)]
    write_video(root / SHARED, np.concatenate([parts[0], gap, *parts[1:]]), 30)
    edit_times(root, **{"from": [0.0, 20 / 30, 29 / 30], "to": [12 / 30, 29 / 30, 39 / 30]})
    assert all(np.array_equal(shown, frames(V3, KEY, e)) for e, shown in enumerate(read(root)))
    assert not warnings(root)


def cut(root: Path, gop: int, recipe: Recipe = ONE, tail: int = 0, exact: bool = False) -> np.ndarray:
    """Give a v2.1 dataset videos cut out of one by copying packets, from the keyframe before the first row.

    tail: frames behind the last row that are copied, too; exact: as many as there are rows and no more.
    """
    whole = root / "whole.mp4"
    write_clip(whole, shots(recipe), gop=gop, fps=30, options={"x264-params": "scenecut=0:bframes=0"})
    start = 0
    for episode, length in enumerate(recipe.lengths):
        with av.open(str(whole)) as source:
            stream = source.streams.video[0]
            source.seek(int(start / 30 / stream.time_base), stream=stream, backward=True)
            packets = [p for p in source.demux(stream) if p.size]
            end = (start + length + tail) / 30 / stream.time_base
            first = min(p.pts for p in packets)
            packets = packets[:length] if exact else [p for p in packets if p.pts < end]
            target = root / f"videos/chunk-000/{KEY}/episode_{episode:06d}.mp4"
            with av.open(str(target), "w") as out:
                copy = out.add_stream_from_template(stream, opaque=True)
                for packet in packets:
                    packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, copy
                    out.mux(packet)
        start += length
    shown = ffmpeg_rgb(whole)
    whole.unlink()
    return shown


@pytest.mark.parametrize("gop", [2, 5, 7])
def test_surplus_frames_of_videos_cut_without_encoding_are_at_the_start(tmp_path, gop):
    root = write_dataset(tmp_path, ONE)
    shown = cut(root, gop)
    found = read(root)
    bounds = np.cumsum([0, *ONE.lengths])
    assert len(found) == 3
    for episode, images in enumerate(found):
        assert np.array_equal(images, shown[bounds[episode] : bounds[episode + 1]])
    surplus = [int(b) % gop for b in bounds[1:3] if b % gop]
    told = warnings(root)
    assert len(told) == len(surplus)
    for count, text in zip(surplus, told, strict=True):
        several, dropped = ("is", "was") if count == 1 else (f"{count} are", "were")
        assert f"the first {several} also the last of the episode before, and {dropped} dropped" in text


def test_videos_cut_at_an_earlier_keyframe_and_as_long_as_the_rows_warn(tmp_path):
    """Of episodes that begin 0, 5 and 0 frames behind a keyframe the second one shows."""
    root = write_dataset(tmp_path, ONE)
    cut(root, 7, exact=True)
    (text,) = warnings(root)
    assert (
        "episode_000001.mp4 has a frame for every row, but its first 5 are also the last of the episode before" in text
    )
    assert "its images are 5 rows late or more" in text


def test_episodes_that_overlap_in_rows_and_images_are_right(tmp_path):
    """A stream that was cut into episodes of 12 rows which share 5."""
    numbers = np.random.default_rng(0).normal(size=(26, 2))
    values = {(key, e): numbers[7 * e : 7 * e + 12] for e in range(3) for key in ("state", "action")}
    recipe = replace(ONE, lengths=(12, 12, 12), values=values)
    root = write_dataset(tmp_path, recipe)
    whole = moving(26, size=(24, 32))
    for episode in range(3):
        path = root / VIDEO.replace("000000.mp4", f"{episode:06d}.mp4")
        how = {"pix_fmt": "yuvj420p", "options": {"qmin": "2", "qmax": "2"}}
        write_clip(path, whole[7 * episode : 7 * episode + 12], "mjpeg", fps=30, **how)
    assert not warnings(root)
    write_dataset(root, ONE)
    for episode in range(3):
        path = root / VIDEO.replace("000000.mp4", f"{episode:06d}.mp4")
        write_clip(path, whole[7 * episode : 7 * episode + ONE.lengths[episode]], "mjpeg", fps=30, **how)
    assert [text[-200:].count("rows late or more") for text in warnings(root)] == [1, 1]


def test_an_option_that_takes_other_frames_than_the_neighbours_show_is_warned_about(tmp_path):
    root = write_dataset(tmp_path, ONE)
    cut(root, 7)
    surplus = [int(b) % 7 for b in np.cumsum(ONE.lengths)[:2] if b % 7]
    for rule in ("first", "ignore"):
        told = warnings(root, extra_frames=rule)
        assert len(told) == len(surplus) > 0
        for count, text in zip(surplus, told, strict=True):
            assert f"extra_frames={rule} takes frame k + 0: images are {count} rows behind state and action" in text
    assert not warnings(root, extra_frames="last")


def test_surplus_frames_at_the_end_that_begin_the_next_episode(tmp_path):
    root = write_dataset(tmp_path, ONE)
    how = {"pix_fmt": "yuvj420p", "options": {"qmin": "2", "qmax": "2"}}
    write_clip(root / VIDEO, np.concatenate([frames(ONE, KEY, 0), frames(ONE, KEY, 1)[:1]]), "mjpeg", **how)
    write_clip(root / VIDEO.replace("000000.mp4", "000001.mp4"), frames(ONE, KEY, 1), "mjpeg", **how)
    (text,) = warnings(root)
    assert "the last is also the first of the episode after, and was dropped" in text
    assert np.array_equal(read(root)[0], ffmpeg_rgb(root / VIDEO)[:12])


@pytest.mark.parametrize(
    ("gop", "tail", "lengths", "heads"),
    [(4, 1, (12, 8, 12), (0, 0, 0)), (4, 2, (12, 8, 12, 8), (0, 0, 0, 0)), (5, 1, (12, 9, 10), (0, 2, 1))],
)
def test_videos_that_were_cut_behind_the_next_first_frame(tmp_path, gop, tail, lengths, heads):
    """Their first frames are the last of the video before, and yet its own: seen by those further on."""
    recipe = replace(ONE, lengths=lengths, tasks=(0,) * len(lengths))
    root = write_dataset(tmp_path, recipe)
    shown = cut(root, gop, recipe, tail)
    bounds = np.cumsum([0, *lengths])
    for episode, images in enumerate(read(root)):
        assert np.array_equal(images, shown[bounds[episode] : bounds[episode + 1]])
    told = warnings(root)
    for head, text in zip(heads, told, strict=False):
        several = "is" if head == 1 else f"{head} are"
        assert (f"the first {several} also the last of the episode before" in text) == (head > 0)


def test_a_video_of_twice_the_rate_is_taken_by_time(tmp_path):
    root = write_dataset(tmp_path, ONE)
    write_video(root / VIDEO, frames(ONE, KEY, 0).repeat(2, 0), 60)
    assert np.array_equal(read(root)[0], frames(ONE, KEY, 0))
    (text,) = warnings(root)
    assert "holds 24 frames, the episode has 12 rows: 60 frames and 30 rows a second; the frame at each row's" in text


@pytest.mark.parametrize("rate", [60, 90])
def test_a_shared_video_of_more_frames_than_rows_is_taken_by_time(tmp_path, rate):
    """As lerobot does: rows were left out, or a slower table was made of a set, and its videos kept."""
    root = write_dataset(tmp_path, V3)
    write_video(root / SHARED, shots().repeat(rate // 30, 0), rate)
    assert all(np.array_equal(shown, frames(V3, KEY, e)) for e, shown in enumerate(read(root)))
    assert len(told := warnings(root)) == 3
    words = f"holds {31 * rate // 30} frames, its 3 episodes have 31 rows: {rate} frames and 30 rows a second; the"
    assert all(words in text for text in told)
    write_video(root / SHARED, shots().repeat(rate // 30, 0)[: -rate // 10], rate)
    with pytest.raises(BadEpisode):
        made(root)


@pytest.mark.parametrize(("rule", "ahead", "behind"), [("first", 0, 7), ("last", 7, 0)])
def test_the_first_or_last_frames_of_a_video_of_twice_the_rate(tmp_path, rule, ahead, behind):
    """The rule says where the rows begin or end; frames between rows stay out."""
    root = write_dataset(tmp_path, ONE)
    good = frames(ONE, KEY, 0).repeat(2, 0)
    write_video(root / VIDEO, np.concatenate([good[:1]] * ahead + [good] + [good[-1:]] * behind), 60)
    assert np.array_equal(read(root, extra_frames=rule)[0], frames(ONE, KEY, 0))
    with pytest.raises(BadEpisode, match=r"60 and 30 a second, so .* --extra-frames first .* or last"):
        made(root)


def test_by_time_where_rows_are_shown_at_uneven_times(tmp_path):
    """Frames that no row has are skipped; a row without a frame at its time is an error."""
    root = write_dataset(tmp_path, ONE)
    good = frames(ONE, KEY, 0)
    extra = np.insert(good, 5, good[0], axis=0)
    times = [2 * k for k in range(12)]
    write_clip(root / VIDEO, extra, "libx264rgb", pix_fmt="rgb24", fps=60, times=sorted([*times, 9]))
    assert np.array_equal(read(root, extra_frames="by-time")[0], good)
    write_clip(root / VIDEO, extra, "libx264rgb", pix_fmt="rgb24", fps=60, times=[0, *range(20, 32)])
    with pytest.raises(BadEpisode, match="no frame is closer than"):
        made(root, extra_frames="by-time")
