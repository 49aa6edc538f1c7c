"""Shared videos (v3.0) of which a part is lost: episodes that are all there are read, each other is one sentence."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from clips import ffmpeg_rgb
from fixtures import run_convert
from lerobot_files import V2_VIDEO, Recipe, write_dataset
from lerobot_reading import converter, manifest, pixels
from torn_videos import overwrite, packet_places, write_set

import fwdata
from fwdata.errors import BadEpisode

LENGTHS = (7, 6, 9, 8)
STARTS = np.cumsum([0, *LENGTHS])


def read(raw: Path, shown: np.ndarray) -> tuple[list[int], list[str], set[str]]:
    """(episodes that are read, what is said of the others, warnings of those that are about the video); the frames of
    the first camera are those of the whole file."""
    made = converter()
    whole, said, warnings = [], [], set[str]()
    for number, ref in enumerate(made.discover(raw).episodes):
        try:
            episode = made.read(raw, ref)
            found = pixels(episode.cameras["head_rgb"])
        except BadEpisode as error:
            said.append(str(error))
            continue
        assert np.array_equal(found, shown[STARTS[number] : STARTS[number + 1]]), number
        whole.append(number)
        warnings |= {text for text in episode.warnings if "head_rgb" in text}
    assert not any("\n" in text for text in said)
    return whole, said, warnings


@pytest.mark.parametrize(
    ("form", "codec"),
    [("faststart", "h264"), ("faststart", "av1"), ("fragments", "hevc"), ("mkv", "mpeg4"), ("ts", "h264")],
)
def test_a_file_that_is_cut_loses_the_episodes_behind_the_cut(tmp_path: Path, form: str, codec: str) -> None:
    raw, path = write_set(tmp_path, LENGTHS, form, codec)
    shown, places, data = ffmpeg_rgb(path), packet_places(path), path.read_bytes()
    for frame, left in ((27, [0, 1, 2]), (15, [0, 1]), (3, [])):
        place, size = places[frame]
        path.write_bytes(data[: place + size // 2])
        whole, said, warnings = read(raw, shown)
        assert whole == left and len(said) == 4 - len(left), said
        assert all("is cut off at its end: " in text for text in said), said
        assert "frames of the episode are lost" in said[-1]
        assert [text.count("is cut off at its end") for text in warnings] == [1] * bool(left)


@pytest.mark.slow
def test_what_is_left_of_a_file_is_kept_as_recorded(tmp_path: Path) -> None:
    raw, path = write_set(tmp_path, LENGTHS, "faststart", "h264")
    shown, data = ffmpeg_rgb(path), path.read_bytes()
    path.write_bytes(data[: packet_places(path)[24][0] + 20])
    report = run_convert(raw, tmp_path / "s.zarr", manifest())
    assert [source[-1] for source, _ in report.quarantined] == ["3"]
    assert not any("losslessly" in text for text in report.warnings)
    for episode, start, length in zip(fwdata.open(tmp_path / "s.zarr").episodes, STARTS, LENGTHS, strict=False):
        assert np.array_equal(episode.frames("head_rgb"), shown[start : start + length])


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4"])
@pytest.mark.parametrize("lost", ["first", "hole"])
def test_a_damaged_packet_costs_the_episodes_that_are_decoded_from_it(tmp_path: Path, codec: str, lost: str) -> None:
    """The decoders of H.264 and HEVC show what is left of a packet with a hole, without a sign."""
    raw, path = write_set(tmp_path, LENGTHS, "faststart", codec)
    shown, places = ffmpeg_rgb(path), packet_places(path)
    place, size = places[0 if lost == "first" else 15]
    overwrite(path, place if lost == "first" else place + size // 2, bytes(size if lost == "first" else 64))
    whole, said, _ = read(raw, shown)
    number = 0 if lost == "first" else 2
    assert whole == [k for k in range(4) if k != number]
    assert f"frame {'0' if lost == 'first' else '2'} of the episode cannot be decoded, the video is damaged" in said[0]


@pytest.mark.parametrize("lost", ["first", "middle", "last"])
def test_frames_that_are_lost_in_a_transport_stream_shift_no_other(tmp_path: Path, lost: str) -> None:
    """It begins at a time of its own, here that of B-frames, and nothing is left of a frame that is lost."""
    raw, path = write_set(tmp_path, LENGTHS, "ts", "h264")
    shown, places = ffmpeg_rgb(path), packet_places(path)
    number = {"first": 0, "middle": 17, "last": len(places) - 1}[lost]
    end = path.stat().st_size if lost == "last" else places[number + 1][0]
    overwrite(path, places[number][0], bytes(end - places[number][0]))
    whole, said, _ = read(raw, shown)
    bad = {"first": 0, "middle": 2, "last": 3}[lost]
    assert whole == [k for k in range(4) if k != bad] and len(said) == 1, said


def test_a_block_of_a_matroska_file_without_its_track_is_lost_alone(tmp_path: Path) -> None:
    raw, path = write_set(tmp_path, LENGTHS, "mkv", "mpeg4")
    shown = ffmpeg_rgb(path)
    overwrite(path, packet_places(path)[-1][0], bytes(1))
    whole, said, _ = read(raw, shown)
    assert whole == [0, 1, 2] and "frame 7 of the episode is lost" in said[0]


def test_the_index_of_a_file_that_is_cut_still_tells_that_its_count_was_wrong(tmp_path: Path) -> None:
    raw, path = write_set(tmp_path, LENGTHS, "faststart", "h264", frames=sum(LENGTHS) - 1)
    path.write_bytes(path.read_bytes()[: packet_places(path)[20][0]])
    whole, said, _ = read(raw, ffmpeg_rgb(path))
    assert whole == [] and all("it had 29 frames, its episodes have 30 rows" in text for text in said)


@pytest.mark.parametrize(("form", "codec"), [("mkv", "h264"), ("mkv", "hevc"), ("ts", "hevc"), ("ts", "mpeg4")])
def test_frames_that_are_decoded_from_one_of_which_nothing_is_left_are_lost(
    tmp_path: Path, form: str, codec: str
) -> None:
    """The start of a packet is lost, so that none of it is handed out and nothing marks those behind it."""
    raw, path = write_set(tmp_path, LENGTHS, form, codec, gop=60)
    shown, places = ffmpeg_rgb(path), packet_places(path)
    overwrite(path, places[8][0] + (4 if form == "ts" else 0), bytes(40 if form == "ts" else 1))
    whole, said, _ = read(raw, shown)
    assert whole in ([0], []) and len(said) == 4 - len(whole), said


def test_bytes_that_were_left_out_of_a_block_spoil_its_frame(tmp_path: Path) -> None:
    raw, path = write_set(tmp_path, LENGTHS, "mkv", "av1")
    shown, places, data = ffmpeg_rgb(path), packet_places(path), path.read_bytes()
    for frame in (8, 16, 23):
        place = places[frame][0] + places[frame][1] // 2
        path.write_bytes(data[:place] + data[place + 60 :])
        whole, said, _ = read(raw, shown)
        assert 0 in whole and len(said) >= 1


def test_packets_of_which_a_transport_stream_has_lost_some_bytes_cost_no_other_episode(tmp_path: Path) -> None:
    raw, path = write_set(tmp_path, LENGTHS, "ts", "h264")
    shown, data = ffmpeg_rgb(path), path.read_bytes()
    place = packet_places(path)[17][0]
    path.write_bytes(data[: place + 500] + data[place + 590 :])
    whole, said, _ = read(raw, shown)
    assert whole == [0, 1, 3] and len(said) == 1, said


def test_a_keyframe_that_lost_bytes_in_a_transport_stream_shows_no_frame(tmp_path: Path) -> None:
    """As many bytes as a packet of it has, so that all others stay where they are; FFmpeg marks the frame before."""
    raw, path = write_set(tmp_path, LENGTHS, "ts", "hevc", gop=10)
    shown, places, data = ffmpeg_rgb(path), packet_places(path), path.read_bytes()
    place = next(place for place, size in places[12:] if size > 1200) + 500
    path.write_bytes(data[:place] + data[place + 188 :])
    whole, said, _ = read(raw, shown)
    assert 0 in whole and 3 not in whole and len(said) == 4 - len(whole), said


@pytest.mark.slow
def test_what_comes_behind_a_hole_is_kept_as_recorded(tmp_path: Path) -> None:
    """What is left of a packet may look like parameter sets, which no later packet would bring back."""
    raw, path = write_set(tmp_path, LENGTHS, "faststart", "h264")
    shown, places = ffmpeg_rgb(path), packet_places(path)
    first, end = places[8][0] + 20, sum(places[9]) - 9
    overwrite(path, first, bytes(end - first))
    report = run_convert(raw, tmp_path / "s.zarr", manifest())
    assert [source[-1] for source, _ in report.quarantined] == ["1"]
    recoded = [text for text in report.warnings if "losslessly" in text]
    assert all("#episode_000000" in text for text in recoded), recoded  # the hole is in its last group
    for episode in fwdata.open(tmp_path / "s.zarr").episodes:
        start = STARTS[int(episode.id[-1])]
        assert np.array_equal(episode.frames("head_rgb"), shown[start : start + episode.num_frames])


@pytest.mark.parametrize("form", ["mkv", "fragments", "ts"])
def test_what_is_lost_in_front_of_what_is_left_shifts_no_frame(tmp_path: Path, form: str) -> None:
    """The first group is lost with the head of its cluster or fragment, and the end is cut."""
    raw, path = write_set(tmp_path, (40, 90, 30), form, "h264", gop=20)
    shown, places, data = ffmpeg_rgb(path), packet_places(path), path.read_bytes()
    clusters = [at for at in range(len(data)) if data.startswith(b"\x1fC\xb6u", at)]
    first = clusters[0] if form == "mkv" else places[0][0] - (0 if form == "ts" else 300)
    end = clusters[1] if form == "mkv" else places[19][0]
    path.write_bytes((data[:first] + bytes(end - first) + data[end:])[: places[150][0] + 9])
    made, starts = converter(), (0, 40, 130)
    for start, ref in zip(starts, made.discover(raw).episodes, strict=True):
        with suppress(BadEpisode):
            found = pixels(made.read(raw, ref).cameras["head_rgb"])
            assert np.array_equal(found, shown[start : start + len(found)]), start


def test_an_index_that_points_past_the_end_is_said(tmp_path: Path) -> None:
    raw, path = write_set(tmp_path, LENGTHS, "faststart", "h264")
    data = bytearray(path.read_bytes())
    at = data.index(b"stco") + 8
    for entry in range(int.from_bytes(data[at : at + 4])):
        place = at + 4 + 4 * entry
        data[place : place + 4] = (int.from_bytes(data[place : place + 4]) + 1_000_000).to_bytes(4)
    path.write_bytes(data)
    whole, said, _ = read(raw, np.empty(0))
    assert whole == [] and "has an index that points past its end: to byte 100" in said[0]
    assert f"the file has {len(data)} bytes; it holds no frame; download the video again" in said[0]


def test_a_video_of_one_episode_that_is_cut_between_two_packets_is_said(tmp_path: Path) -> None:
    _, path = write_set(tmp_path / "v3", (30,), "faststart", "h264")
    recipe = Recipe(lengths=(30, 8), tasks=(0, 0), size=(64, 96))
    root = write_dataset(tmp_path / "set", recipe)
    target = root / V2_VIDEO.format(video_key=recipe.cameras[0], episode_chunk=0, episode_index=0)
    end = packet_places(path)[18][0]
    target.write_bytes(path.read_bytes()[:end])
    made = converter()
    first, second = made.discover(root).episodes
    with pytest.raises(
        BadEpisode, match=r"is cut off at its end: .*; 18 frames are left for the 30 rows of the episode"
    ):
        made.read(root, first)
    assert len(pixels(made.read(root, second).cameras["head_rgb"])) == 8
