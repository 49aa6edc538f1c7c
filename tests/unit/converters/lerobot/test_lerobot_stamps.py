"""Rows that were cut out of an episode whose video was left as it was: their timestamps say which frames they show."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clips import write_clip
from lerobot_files import Recipe, frames, write_dataset
from lerobot_reading import pixels

from converters.lerobot import Converter
from converters.lerobot.converter import choose_manifest
from fwdata.api import BadEpisode, Episode

KEY = "observation.images.top"
RECIPE = Recipe(
    lengths=(14, 12, 13),
    tasks=(0, 0, 0),
    cameras=(KEY,),
    fps=30,
    robot="own",
    vectors={"observation.state": 2, "action": 2},
)
FRONT = tuple(range(4, 14))
MIDDLE = (0, 1, 2, 6, 7, 8, 9, 10, 11)


def read(root: Path, **options: object) -> list[Episode]:
    """Every episode, as a plain dataset."""
    chosen = choose_manifest([root], {})
    made = Converter(chosen.model_copy(update={"options": {**chosen.options, **options}}))
    return [made.read(root, ref) for ref in made.discover(root).episodes]


def keep(root: Path, rows: tuple[int, ...], numbered: bool = True) -> None:
    """Leave these rows of every episode, with their timestamps; frame_index counts anew where `numbered`."""
    lengths: dict[int, int] = {}
    for path in root.glob("data/*/*.parquet"):
        table = pq.read_table(path)
        table = table.filter(np.isin(table["frame_index"], rows).tolist())
        counts = np.array(table["frame_index"]).copy()
        episodes = np.array(table["episode_index"])
        for episode in np.unique(episodes):
            lengths[int(episode)] = int((episodes == episode).sum())
            counts[episodes == episode] = np.arange(lengths[int(episode)])
        if numbered:
            place = table.schema.names.index("frame_index")
            table = table.set_column(place, "frame_index", pa.array(counts))
        pq.write_table(table, path)
    listed = root / "meta/episodes.jsonl"
    if listed.exists():
        lines = [json.loads(line) for line in listed.read_text().splitlines()]
        listed.write_text("\n".join(json.dumps({**x, "length": lengths[x["episode_index"]]}) for x in lines))
    for path in root.glob("meta/episodes/*/*.parquet"):
        found = pq.read_table(path).to_pylist()
        pq.write_table(pa.Table.from_pylist([{**x, "length": lengths[x["episode_index"]]} for x in found]), path)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("rows", [FRONT, MIDDLE], ids=["front", "middle"])
def test_rows_show_the_frames_of_their_timestamps(tmp_path, version, rows):
    recipe = replace(RECIPE, version=version)
    root = write_dataset(tmp_path, recipe)
    keep(root, rows)
    for number, episode in enumerate(read(root)):
        there = [row for row in rows if row < recipe.lengths[number]]
        assert np.array_equal(pixels(episode.cameras["top"]), frames(recipe, KEY, number)[there])
        assert any("the frame at each row's timestamp is taken" in text for text in episode.warnings)
        assert episode.metadata["pictures"]["top"]["frame_of_row"] == "the frame at each row's timestamp"


def test_options_for_surplus_frames_look_at_timestamps(tmp_path):
    root = write_dataset(tmp_path, RECIPE)
    keep(root, FRONT)
    for number, episode in enumerate(read(root, extra_frames="by-time")):
        assert np.array_equal(pixels(episode.cameras["top"]), frames(RECIPE, KEY, number)[4:])
    (text,) = (t for t in read(root, extra_frames="first")[0].warnings if "timestamps" in t)
    assert "row 0 shows frame 4, but option extra_frames=first takes frame 0" in text
    with pytest.raises(BadEpisode, match="holds 14 frames, the episode has 10 rows"):
        read(root, extra_frames="reject")


def test_times_of_another_clock_say_nothing(tmp_path):
    """Seconds since 1970 in the column: frame k is row k where there are as many, and nothing tells where not."""
    root = write_dataset(tmp_path, RECIPE)
    for path in root.glob("data/*/*.parquet"):
        table = pq.read_table(path)
        place = table.schema.names.index("timestamp")
        pq.write_table(
            table.set_column(place, "timestamp", pa.array(np.array(table["timestamp"], float) + 1.7e9)), path
        )
    assert all(np.array_equal(pixels(e.cameras["top"]), frames(RECIPE, KEY, k)) for k, e in enumerate(read(root)))
    keep(root, FRONT)
    with pytest.raises(BadEpisode, match="nothing in the files tells which frames"):
        read(root)


def test_a_video_at_the_uneven_times_of_the_rows(tmp_path):
    """Recorded with the clock: a pause of two periods is in the video and in the column."""
    recipe = replace(RECIPE, lengths=(14,), tasks=(0,))
    times = np.arange(14) + 2 * (np.arange(14) > 7)
    root = write_dataset(tmp_path, recipe)
    (table,) = root.glob("data/*/*.parquet")
    rows = pq.read_table(table)
    place = rows.schema.names.index("timestamp")
    pq.write_table(rows.set_column(place, "timestamp", pa.array(times / 30)), table)
    (path,) = root.glob("videos/*/*/*.mp4")
    write_clip(path, frames(recipe, KEY, 0), "libx264rgb", pix_fmt="rgb24", fps=30, times=times.tolist())
    assert np.array_equal(pixels(read(root)[0].cameras["top"]), frames(recipe, KEY, 0))


def test_frame_index_may_count_from_another_number(tmp_path):
    root = write_dataset(tmp_path, RECIPE)
    keep(root, FRONT, numbered=False)
    for number, episode in enumerate(read(root)):
        assert np.array_equal(pixels(episode.cameras["top"]), frames(RECIPE, KEY, number)[4:])
        assert any("frame_index begins at 4; row 0 is the first one" in text for text in episode.warnings)
    keep(root, (4, 5, 7, 8, 9), numbered=False)
    with pytest.raises(BadEpisode, match="frame_index is 7 at row 2 of the episode, expected 6: rows are missing"):
        read(root)


LONG = replace(RECIPE, lengths=(14,) * 5, tasks=(0,) * 5)


def timed(root: Path, episode: int, times: np.ndarray) -> None:
    """Other timestamps of one episode."""
    path = sorted(root.glob("data/*/*.parquet"))[episode]
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.names.index("timestamp"), "timestamp", pa.array(times)), path)


@pytest.mark.parametrize("unit", [1.0, 1e3])
def test_an_episode_of_another_rate_is_left_out(tmp_path, unit):
    """The first ones tell that of the dataset; option rate says that the times are wrong."""
    root = write_dataset(tmp_path, LONG)
    timed(root, 3, np.arange(14) / 15 * unit)
    with pytest.raises(BadEpisode, match=r"15(000)? a second|0.015 a second") as caught:
        read(root)
    assert "the dataset's rows by 0.03333 s, 30 a second" in str(caught.value) and "--rate 30" in str(caught.value)
    warned = [episode.warnings for episode in read(root, rate=30)]
    assert ["rows are stored as evenly spaced" in each[0] for each in warned] == [number == 3 for number in range(5)]


@pytest.mark.parametrize(
    "times",
    [
        np.arange(14) / 28.5,  # a loop that is a little slow
        np.arange(14) / 30 + 1.7e9,
        np.cumsum(np.random.default_rng(0).uniform(0.02, 0.09, 14)),  # measured
        np.arange(14) / 30 * 1e9,
        np.zeros(14),
    ],
    ids=["slower", "of the day", "uneven", "ns", "none"],
)
def test_times_of_the_datasets_rate_and_uneven_ones_are_kept(tmp_path, times):
    root = write_dataset(tmp_path, LONG)
    timed(root, 3, times)
    assert len(read(root)) == 5


@pytest.mark.parametrize(("name", "unit"), [("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
def test_times_in_other_units_are_said(tmp_path, name, unit):
    root = write_dataset(tmp_path, LONG)
    for episode in range(5):
        timed(root, episode, np.rint(np.arange(14) / 30 * unit).astype(np.int64))
    assert all(f"counts in {name}, LeRobot's in s" in episode.warnings[0] for episode in read(root))
