"""Episodes whose videos are one and the same file: one of them would show the other's images."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import V2_VIDEO, V3_VIDEO, Recipe, rows, write_dataset, write_video

from converters.lerobot import Converter
from converters.lerobot.converter import choose_manifest
from fwdata.api import Discovery, UsageError

KEY = "observation.images.top"
RECIPE = Recipe(
    lengths=(6, 6, 5, 6),
    tasks=(0, 0, 1, 1),
    cameras=(KEY,),
    fps=30,
    robot="own",
    vectors={"observation.state": 2, "action": 2},
)


def discover(root: Path) -> Discovery:
    return Converter(choose_manifest([root], {})).discover(root)


def video(root: Path, episode: int) -> Path:
    return root / V2_VIDEO.format(video_key=KEY, episode_chunk=0, episode_index=episode)


@pytest.mark.parametrize("linked", [False, True])
def test_two_episodes_of_one_video_are_left_out(tmp_path, linked):
    root = write_dataset(tmp_path, RECIPE)
    if linked:
        video(root, 3).unlink()
        video(root, 3).symlink_to(video(root, 0).name)
    else:
        shutil.copy(video(root, 0), video(root, 3))
    found = discover(root)
    assert [ref.hints["episode"] for ref in found.episodes] == [1, 2]
    assert [skip.source[-6:] for skip in found.skipped] == ["000000", "000003"]
    assert "are the same file, byte for byte, but episodes 0, 3 have other rows" in found.skipped[0].reason
    told = "2 of 4 episodes are read, the others left out (frames that another episode claims: 2)"
    assert any(told in warning for warning in found.warnings)


def test_episodes_that_are_there_twice_and_still_videos_are_kept(tmp_path):
    root = write_dataset(tmp_path / "twice", replace(RECIPE, values=values()))
    shutil.copy(video(root, 0), video(root, 1))
    assert len(discover(root).episodes) == 4
    root = write_dataset(tmp_path / "still", RECIPE)
    for episode in (0, 1, 3):
        write_video(video(root, episode), np.full((6, 24, 32, 3), 90, np.uint8), 30)
    assert len(discover(root).episodes) == 4


def values() -> dict[tuple[str, int], np.ndarray]:
    """The rows of episode 0 for episode 1."""
    return {(key, 1): rows(RECIPE, key, 0) for key in RECIPE.vectors}


def test_two_shared_files_of_one_content(tmp_path):
    """The second half of a v3.0 dataset, copied over by the first."""
    recipe = replace(RECIPE, version="v3.0", lengths=(6, 6), tasks=(0, 1))
    root = write_dataset(tmp_path, recipe)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    lines = pq.read_table(path).to_pylist()
    lines[1] |= {f"videos/{KEY}/file_index": 1, f"videos/{KEY}/from_timestamp": 0.0}
    pq.write_table(pa.Table.from_pylist(lines), path)
    first, second = (root / V3_VIDEO.format(video_key=KEY, chunk_index=0, file_index=n) for n in (0, 1))
    rng = np.random.default_rng(0)
    write_video(first, rng.integers(0, 256, (6, 24, 32, 3), np.uint8), 30)
    write_video(second, rng.integers(0, 256, (6, 24, 32, 3), np.uint8), 30)
    assert len(discover(root).episodes) == 2
    shutil.copy(first, second)
    with pytest.raises(UsageError, match="the same file, byte for byte"):
        discover(root)


@pytest.mark.parametrize("apart", [True, False])
def test_alike_files_of_which_episodes_have_other_frames(tmp_path, apart):
    """What was exported as kept: two episodes that are cut out of one group bring the whole group along."""
    root = write_dataset(tmp_path, replace(RECIPE, version="v3.0", lengths=(6, 6), tasks=(0, 1)))
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    lines = pq.read_table(path).to_pylist()
    lines[1] |= {f"videos/{KEY}/file_index": 1, f"videos/{KEY}/from_timestamp": (6 if apart else 5) / 30}
    pq.write_table(pa.Table.from_pylist(lines), path)
    first, second = (root / V3_VIDEO.format(video_key=KEY, chunk_index=0, file_index=n) for n in (0, 1))
    shutil.copy(first, second)
    if apart:
        assert len(discover(root).episodes) == 2
        return
    with pytest.raises(UsageError, match="the same file, byte for byte"):
        discover(root)
