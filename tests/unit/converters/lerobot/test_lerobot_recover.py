"""Datasets whose writer was killed: what is read with option recover, and what is left out."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import Recipe, frames, write_dataset, write_json, write_video
from lerobot_killed import EPISODES, HEAD, TABLE, V3, VIDEO, kill, order_columns, recovered
from lerobot_reading import converter, joined, pixels, refusal

from converters.lerobot.footer import ThriftReader, encoded, footer_of, pages_of
from fwdata.api import BadEpisode


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A v3.0 dataset of three episodes."""
    found = write_dataset(tmp_path / "set", V3)
    order_columns(found)
    return found


def check(root: Path, count: int, recipe: Recipe = V3) -> None:
    """The first episodes, and no others, are read with their own rows and images."""
    found = recovered(root)
    assert [e.metadata["episode_index"] for e in found] == list(range(count))
    for number, episode in enumerate(found):
        assert np.array_equal(episode.state, joined(recipe, number, "observation.state"))
        assert np.array_equal(pixels(episode.cameras["head_rgb"]), frames(recipe, HEAD, number))


def test_a_sound_dataset_is_the_same_with_recover(root):
    check(root, 3)
    assert not converter(recover=True).discover(root).warnings


def test_without_the_table_of_episodes_and_the_footer(root):
    shutil.rmtree(root / "meta/episodes")
    assert "or add --recover" in refusal(root)
    kill(root / TABLE, V3.lengths)
    check(root, 3)
    told = converter(recover=True).discover(root).warnings
    assert "dataset: 3 episodes that the metadata do not list were recovered from the tables" in told


def test_a_table_without_footer_is_named_without_recover(root):
    kill(root / TABLE, V3.lengths)
    told = refusal(root)
    assert f"{TABLE} cannot be read: it has no Parquet footer, so its writer was killed" in told and "--recover" in told
    check(root, 3)


def test_rows_that_were_not_written_whole_are_left_out(root):
    """Two of three row groups are there."""
    shutil.rmtree(root / "meta/episodes")
    kill(root / TABLE, V3.lengths, share=0.8)
    check(root, 2)


def test_half_videos_cost_their_episodes(root):
    """A video with the frames of two episodes and some of the third; and one that cannot be opened at all."""
    shutil.rmtree(root / "meta/episodes")
    shots = np.concatenate([frames(V3, HEAD, e) for e in range(3)])
    write_video(root / VIDEO, shots[:21], V3.fps)
    check(root, 2)
    (skip,) = converter(recover=True).discover(root).skipped
    assert f"no video of camera {HEAD} holds images of episode 2: the recording broke off" in skip.reason


def test_a_video_that_cannot_be_opened_costs_all_its_episodes(root):
    shutil.rmtree(root / "meta/episodes")
    data = (root / VIDEO).read_bytes()
    (root / VIDEO).write_bytes(data[: len(data) // 2])
    assert f"{VIDEO} cannot be read as video" in refusal(root, recover=True)  # no camera without images


def test_episodes_behind_the_last_listed_one(root):
    """The table of episodes is written every few episodes: the first is listed, the others are not."""
    table = pq.read_table(root / EPISODES)
    pq.write_table(table.slice(0, 1), root / EPISODES)
    kill(root / TABLE, V3.lengths)
    check(root, 3)


def test_a_torn_table_of_episodes_is_not_answered_with_the_option_that_is_given(root):
    path = root / EPISODES
    path.write_bytes(path.read_bytes()[:-30])
    check(root, 3)
    told = "\n".join(converter(recover=True).discover(root).warnings)
    assert "it has no Parquet footer" in told and "looked for in the tables" in told and "--recover" not in told
    (root / "meta/tasks.parquet").unlink()
    told = "\n".join(converter(recover=True).discover(root).warnings)
    assert "meta/tasks.parquet is missing; instructions are those that the metadata list by episode" in told


def test_rows_in_another_order_are_not_taken(root):
    """Columns that do not fit the pages, or rows that do not count from 0, prove nothing."""
    shutil.rmtree(root / "meta/episodes")
    table = pq.read_table(root / TABLE)
    pq.write_table(table.select(table.schema.names[::-1]), root / TABLE)
    kill(root / TABLE, V3.lengths)
    assert "the pages are not those of the columns in meta/info.json" in refusal(root, recover=True)


def test_columns_of_other_types_in_another_order_are_named(root):
    """Pages of single numbers are as many in any order; their values cannot be read as another type."""
    table = pq.read_table(root / TABLE)
    names = ["timestamp", *(name for name in table.schema.names if name != "timestamp")]
    first = names.index("frame_index")
    names = [*names[1:first], "timestamp", *names[first:]]
    pq.write_table(table.select(names), root / TABLE)
    kill(root / TABLE, V3.lengths)
    said = refusal(root, recover=True)
    assert f"{TABLE} cannot be read as parquet without its footer; meta/info.json may list its columns in" in said


@pytest.mark.parametrize("swapped", [False, True])
def test_the_order_of_equal_columns_is_checked_by_the_statistics(root, swapped):
    """State and action have pages of one kind; meta/stats.json tells them apart."""
    one, other = "observation.state.left_arm", "action.left_arm"
    table = pq.read_table(root / TABLE)
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.full(6 * 31, 50.0)), 6)
    table = table.set_column(table.schema.names.index(other), other, column)
    flat = np.stack(table.column(one).to_pylist())
    stats = {one: {"min": flat.min(0).tolist(), "max": flat.max(0).tolist()}, other: {"min": [49] * 6, "max": [51] * 6}}
    write_json(root / "meta/stats.json", stats)
    names = table.schema.names
    if swapped:
        names = [{one: other, other: one}.get(name, name) for name in names]
    pq.write_table(table.rename_columns(names).select(table.schema.names), root / TABLE)
    shutil.rmtree(root / "meta/episodes")
    kill(root / TABLE, V3.lengths)
    if swapped:
        assert "have another order than meta/info.json says" in refusal(root, recover=True)
    else:
        assert len(recovered(root)) == 3


def test_an_episode_that_does_not_count_from_0_is_left_out(root):
    shutil.rmtree(root / "meta/episodes")
    table = pq.read_table(root / TABLE)
    pq.write_table(table.slice(2), root / TABLE)
    kept = converter(recover=True).discover(root)
    assert any("does not count 0, 1, 2, .." in skip.reason for skip in kept.skipped)


@pytest.mark.parametrize("lost", ["meta/episodes.jsonl", "meta/tasks.jsonl", "a line"])
def test_lists_of_v21_that_are_missing_or_cut(tmp_path, lost):
    recipe = Recipe(lengths=(6, 5), tasks=(0, 1))
    root = write_dataset(tmp_path, recipe)
    if lost == "a line":
        path = root / "meta/episodes.jsonl"
        path.write_text(path.read_text()[:-30])
    else:
        (root / lost).unlink()
    made = converter(recover=True, **({"task": "do it"} if "tasks" in lost else {}))
    found = [made.read(root, ref) for ref in made.discover(root).episodes]
    assert [len(e.state) for e in found] == [6, 5]
    assert found[1].instructions[0] == "open the drawer"


def test_info_json_is_needed(root):
    (root / "meta/info.json").write_text('{"codebase_')
    assert "meta/info.json is not valid JSON" in refusal(root, recover=True)


def schema() -> pa.Schema:
    return pa.schema(
        [
            ("state", pa.list_(pa.float32(), 6)),
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("done", pa.bool_()),
            ("index", pa.int64()),
        ]
    )


def written(lengths: tuple[int, ...], codec: str = "snappy", pages: str = "1.0") -> tuple[bytes, pa.Table]:
    """Bytes of a table without its footer, and the table."""
    rng, tables = np.random.default_rng(0), []
    buffer = io.BytesIO()
    writer = pq.ParquetWriter(buffer, schema(), compression=codec, use_dictionary=True, data_page_version=pages)
    for length in lengths:
        state = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=6 * length).astype(np.float32)), 6)
        image = pa.array([{"bytes": rng.bytes(50), "path": "p"} for _ in range(length)], schema().field("image").type)
        index = pa.array(np.arange(length))
        tables.append(pa.table([state, image, pa.array(np.arange(length) % 2 == 0), index], schema=schema()))
        writer.write_table(tables[-1])
    return buffer.getvalue(), pa.concat_tables(tables).combine_chunks()


def test_a_footer_is_made_from_the_pages():
    """Also with many pages to a column, images, and booleans, which have no dictionary."""
    data, table = written((3, 40_000, 7))
    footer = footer_of(data, schema())
    assert footer is not None
    found = pq.read_table(io.BytesIO(data + footer))
    assert found.equals(table)
    for cut, rows in ((len(data) - 1, 40_003), (len(data) // 2, 3)):
        footer = footer_of(data[:cut], schema())
        assert footer is not None and pq.read_table(io.BytesIO(data[:cut] + footer)).num_rows == rows
    assert footer_of(data[:40], schema()) is None and footer_of(data[:4], schema()) is None


@pytest.mark.parametrize("codec", ["snappy", "gzip", "zstd", "none"])
@pytest.mark.parametrize("pages", ["1.0", "2.0"])
def test_a_footer_names_how_pages_are_packed(codec, pages):
    data, table = written((30, 5, 40), codec, pages)
    footer = footer_of(data[:-9], schema())
    assert footer is not None
    assert pq.read_table(io.BytesIO(data[:-9] + footer)).equals(table.slice(0, 35))


@pytest.mark.parametrize("codec", ["lz4", "brotli"])
def test_pages_that_show_no_codec_are_named(codec):
    data, _ = written((30, 5), codec)
    with pytest.raises(ValueError, match="neither plain nor packed by snappy, gzip or zstd"):
        footer_of(data, schema())


def test_a_missing_list_of_episodes_is_named(tmp_path):
    root = write_dataset(tmp_path / "set", Recipe(version="v2.1", lengths=(12, 9), tasks=(0, 1)))
    (root / "meta/episodes.jsonl").unlink()
    told = " ".join(converter(recover=True).discover(root).warnings)
    assert "meta/episodes.jsonl is missing; its episodes are looked for in the tables" in told and "Errno" not in told


def test_damaged_pages_end_the_list_without_harm():
    data, _ = written((30, 30))
    rng = np.random.default_rng(1)
    for _ in range(200):
        broken = bytearray(data)
        for at in rng.integers(4, len(data), 3):
            broken[at] = rng.integers(256)
        try:
            footer_of(bytes(broken), schema())
        except ValueError:
            continue
    assert len(pages_of(data)) > len(pages_of(data[: len(data) // 2]))


def test_the_compact_protocol_round_trips():
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", None]}), buffer)
    data = buffer.getvalue()
    size = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - size : -8]
    assert encoded(ThriftReader(footer, 0).struct()) == footer
    with pytest.raises(ValueError, match="end inside"):
        ThriftReader(footer[:20], 0).struct()


def test_the_statistics_may_be_older_than_the_last_episode(root):
    """They are written after an episode's rows: one that goes where none went before is no other order of columns."""
    one = "observation.state.left_arm"
    table = pq.read_table(root / TABLE)
    values = np.stack(table.column(one).to_pylist())
    values[21:] += 500.0
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 6)
    pq.write_table(table.set_column(table.schema.names.index(one), one, column), root / TABLE)
    stats = {one: {"min": values[:21].min(0).tolist(), "max": values[:21].max(0).tolist()}}
    write_json(root / "meta/stats.json", stats)
    shutil.rmtree(root / "meta/episodes")
    kill(root / TABLE, V3.lengths)
    assert len(recovered(root)) == 3


def test_rows_that_were_lost_at_the_end_cost_the_last_episode_alone(root):
    """The table lacks the last rows of the third episode; no cut in the images tells where it begins."""
    shutil.rmtree(root / "meta/episodes")
    table = pq.read_table(root / TABLE)
    pq.write_table(table.slice(0, len(table) - 3), root / TABLE)
    made = converter(recover=True)
    refs = made.discover(root).episodes
    for number, ref in enumerate(refs[:2]):
        episode = made.read(root, ref)
        assert np.array_equal(pixels(episode.cameras["head_rgb"]), frames(V3, HEAD, number))
        assert any("the surplus is taken for rows that were lost at its end" in text for text in episode.warnings)
    with pytest.raises(BadEpisode, match="3 frames are there that no row has"):
        made.read(root, refs[2])
