"""What is wrong with LeRobot datasets of v3.0, whose episodes share files, and what is said about it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import Recipe, frames, write_dataset, write_video
from lerobot_reading import converter, pixels, read_all, refusal

from fwdata.api import BadEpisode

EPISODES_V3 = "meta/episodes/chunk-000/file-000.parquet"
HEAD = "observation.images.head_rgb"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undamaged dataset, written once."""
    return write_dataset(tmp_path_factory.mktemp("whole") / "set", Recipe(version="v3.0"))


@pytest.fixture
def shared(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "set"))


def _edit_episodes(root, **changes):
    path = root / EPISODES_V3
    table = pq.read_table(path).to_pylist()
    for key, value in changes.items():
        table[1][key] = value
    pq.write_table(pa.Table.from_pylist(table), path)


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("length", 6, "holds 7 rows of episode 1, the metadata say 6"),
    ],
)
def test_shared_files_and_their_metadata_disagree(shared, key, value, part):
    _edit_episodes(shared, **{key: value})
    assert part in _second_reason(shared)


def _second_reason(root):
    made = converter()
    ref = made.discover(root).episodes[1]
    with pytest.raises(BadEpisode) as caught:
        made.read(root, ref)
    return str(caught.value)


def test_shared_video_that_is_shifted(shared):
    """Where the video has as many frames as rows, they are counted; times that are far off are an error."""
    late = {f"videos/{HEAD}/from_timestamp": 6 / 15, f"videos/{HEAD}/to_timestamp": 13 / 15}
    _edit_episodes(shared, **late)
    episode = read_all(shared)[1]
    assert np.array_equal(pixels(episode.cameras["head_rgb"]), frames(Recipe(), HEAD, 1))
    assert any(
        "from_timestamp of episode 1 is 0.400 s, counted by rows its frames begin at 0.333" in w
        for w in episode.warnings
    )
    far = {f"videos/{HEAD}/from_timestamp": 60.0, f"videos/{HEAD}/to_timestamp": 60.0 + 7 / 15}
    _edit_episodes(shared, **far)
    assert "row 0 is at 60.000 s, the closest frame left for it at 0.733 s" in _second_reason(shared)


def test_spans_of_two_episodes_that_overlap_cost_both(tmp_path):
    recipe = Recipe(version="v3.0", lengths=(5, 5, 6), tasks=(0, 1, 0))
    root = write_dataset(tmp_path / "set", recipe)
    _edit_episodes(root, **{f"videos/{HEAD}/from_timestamp": 2 / 15, f"videos/{HEAD}/to_timestamp": 7 / 15})
    found = converter().discover(root)
    assert [ref.hints["episode"] for ref in found.episodes] == [2]
    assert [skip.source.split("#")[1] for skip in found.skipped] == ["episode_000000", "episode_000001"]
    one, other = (skip.reason for skip in found.skipped)
    assert f"{HEAD}/chunk-000/file-000.mp4: episode 0 spans 0.000 to 0.333 s, episode 1 0.133 to 0.467 s" in one
    assert "episode 1 spans 0.133 to 0.467 s, episode 0 0.000 to 0.333 s; one of them would get" in other


def test_small_shifts_take_the_nearest_frame(shared):
    shift = {f"videos/{HEAD}/from_timestamp": 5.3 / 15, f"videos/{HEAD}/to_timestamp": 12.3 / 15}
    _edit_episodes(shared, **shift)
    episode = read_all(shared)[1]
    assert np.array_equal(pixels(episode.cameras["head_rgb"]), frames(Recipe(), HEAD, 1))
    assert episode.metadata["pictures"]["head_rgb"]["largest_offset_ms"] == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        (f"videos/{HEAD}/from_timestamp", -1.0, f"camera {HEAD}: expected chunk_index, file_index and from_timestamp"),
        ("length", -5, "expected episode_index and length, found 1 and -5"),
    ],
)
def test_shared_metadata_costs_its_episode_alone(shared, key, value, part):
    _edit_episodes(shared, **{key: value})
    found = converter().discover(shared)
    assert [ref.hints["episode"] for ref in found.episodes] == [0]
    assert [part in skip.reason for skip in found.skipped] == [True]


def test_a_place_that_is_null_costs_its_episode_where_the_video_has_other_frames(shared):
    write_video(next(shared.rglob(f"{HEAD}/*/file-000.mp4")), frames(Recipe(), HEAD, 0), 15)
    _edit_episodes(shared, **{f"videos/{HEAD}/file_index": None})
    found = converter().discover(shared)
    assert [ref.hints["episode"] for ref in found.episodes] == [0]
    assert [f"the metadata give no video of camera {HEAD} for episode 1" in skip.reason for skip in found.skipped] == [
        True
    ]


def test_shared_metadata_files(shared):
    (shared / EPISODES_V3).unlink()
    assert "meta/episodes holds no parquet file" in refusal(shared)
    (shared / "meta/tasks.parquet").write_bytes(b"PAR1")
    assert "meta/tasks.parquet cannot be read as parquet" in refusal(shared)


@pytest.mark.parametrize(
    ("table", "part"),
    [
        (pa.table({"task_index": [0, 0], "task": ["a", "b"]}), "task_index 0 has two texts, 'a' is kept"),
        (pa.table({"task_index": [0], "text": ["a"]}), "has no column 'task', found task_index, text"),
        (pa.table({"task_index": [0], "task": [None]}), "expected task_index and task, found 0 and 'None'"),
        (pa.table({"task": ["a"]}), "has no column 'task_index'"),
        (pa.table({"task_index": [0], "task": pa.array([b"\xff"]).view(pa.string())}), "cannot be read as parquet"),
    ],
)
def test_task_tables(shared, table, part):
    pq.write_table(table, shared / "meta/tasks.parquet")
    assert part in refusal(shared)


def test_an_episode_table_of_absurd_length(shared):
    name = "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(shared / name)
    pq.write_table(table.take(pa.array(np.zeros(5_000, np.int64))), shared / name)
    assert f"{name} lists 5000 episodes, meta/info.json says 2; download it again" in refusal(shared)
