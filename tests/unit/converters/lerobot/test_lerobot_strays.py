"""Videos that no listed episode has, and what their numbers say about those of the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lerobot_files import R1LITE_CAMERAS, V2_DATA, V2_VIDEO, V3_VIDEO, Recipe, frames, write_dataset, write_video
from lerobot_reading import converter, pixels, read_all, refusal

HEAD = R1LITE_CAMERAS[0]
LIKE = Recipe(lengths=(6, 6, 6), tasks=(0, 1, 0))
APART = Recipe(lengths=(5, 7, 6), tasks=(0, 1, 0))


def from_one(root: Path, cameras: tuple[str, ...] = R1LITE_CAMERAS, count: int = 3) -> None:
    """Number the videos of cameras from 1."""
    for key in cameras:
        for index in reversed(range(count)):
            old, new = (
                root / V2_VIDEO.format(episode_chunk=0, video_key=key, episode_index=i) for i in (index, index + 1)
            )
            old.rename(new)


def left_out(root: Path) -> list[str]:
    return [left.reason for left in converter().discover(root).left_out]


@pytest.mark.parametrize("recipe", [LIKE, APART])
@pytest.mark.parametrize("cameras", [R1LITE_CAMERAS, (HEAD,)])
def test_videos_that_count_from_one_are_not_taken(tmp_path, recipe, cameras):
    """Every episode but the first has a video of its number, with the images of the one before."""
    root = write_dataset(tmp_path, recipe)
    from_one(root, cameras)
    told = refusal(root)
    assert f"the videos of camera {HEAD} are numbered 1 to 3, the episodes 0 to 2" in told
    assert "those of the previous episode" in told


def test_a_first_video_that_is_missing_beside_one_too_many(tmp_path):
    """Numbers of frames show that the videos are those of their episodes."""
    recipe = Recipe(lengths=(5, 7, 6, 8), tasks=(0, 1, 0, 1))
    root = write_dataset(tmp_path, recipe)
    (root / V2_VIDEO.format(episode_chunk=0, video_key=HEAD, episode_index=0)).unlink()
    write_video(root / V2_VIDEO.format(episode_chunk=0, video_key=HEAD, episode_index=4), frames(recipe, HEAD, 0), 15)
    found = read_all(root)
    assert [len(episode.state) for episode in found] == [7, 6, 8]
    assert np.array_equal(pixels(found[0].cameras["head_rgb"]), frames(recipe, HEAD, 1))
    assert left_out(root) == ["videos that the metadata do not list"]


@pytest.mark.parametrize("recipe", [LIKE, APART])
def test_videos_of_a_removed_episode_are_counted(tmp_path, recipe):
    """The rows of episode 1 were removed, and those behind it numbered again."""
    root = write_dataset(tmp_path, recipe)
    (root / V2_DATA.format(episode_chunk=0, episode_index=2)).unlink()
    lines = (root / "meta/episodes.jsonl").read_text().splitlines()[:2]
    (root / "meta/episodes.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (reason,) = left_out(root)
    assert reason.startswith("videos that the metadata do not list; where an episode was removed")
    (found,) = converter().discover(root).left_out
    assert found.count == 3 and found.examples[0] == V2_VIDEO.format(episode_chunk=0, video_key=HEAD, episode_index=2)


def test_videos_of_tables_that_are_not_listed_are_said_once(tmp_path):
    root = write_dataset(tmp_path, APART)
    lines = (root / "meta/episodes.jsonl").read_text().splitlines()[:2]
    (root / "meta/episodes.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (reason,) = left_out(root)
    assert reason.startswith("episodes that tables hold")


def test_shared_videos_that_are_not_listed_are_counted(tmp_path):
    recipe = Recipe(version="v3.0", lengths=(5, 7))
    root = write_dataset(tmp_path, recipe)
    write_video(root / V3_VIDEO.format(video_key=HEAD, chunk_index=0, file_index=1), frames(recipe, HEAD, 0), 15)
    assert left_out(root) == ["videos that the metadata do not list"]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_sound_datasets_and_parts_of_them_say_nothing(tmp_path, version):
    """Also a part of a download, and videos of a feature that is no camera beside those of one."""
    root = write_dataset(tmp_path, Recipe(version=version, lengths=(6, 6, 6), tasks=(0, 1, 0)))
    assert left_out(root) == []
    if version == "v2.1":
        beside = root / V2_VIDEO.format(episode_chunk=0, video_key=HEAD, episode_index=7)
        beside.with_name("preview_000007.mp4").write_bytes(b"0")
        for index in (1, 2):
            (root / V2_DATA.format(episode_chunk=0, episode_index=index)).unlink()
            (root / V2_VIDEO.format(episode_chunk=0, video_key=HEAD, episode_index=index)).unlink()
        assert left_out(root) == []
    assert json.loads((root / "meta/info.json").read_text())["total_episodes"] == 3
