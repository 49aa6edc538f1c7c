"""Images and videos that LeRobot's writer had not moved to the shared video yet when it was killed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import Recipe, frames, write_dataset, write_video
from lerobot_killed import EPISODES, HEAD, TABLE, V3, VIDEO, kill, loosen, order_columns, recovered
from lerobot_reading import converter, pixels

from fwdata.api import BadEpisode


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A v3.0 dataset of three episodes."""
    found = write_dataset(tmp_path / "set", V3)
    order_columns(found)
    return found


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("sign", ["-", "_"])
def test_images_of_a_video_that_was_never_encoded_are_read(tmp_path, whole, sign):
    """lerobot writes the rows, then encodes the images, and removes them."""
    recipe = Recipe(lengths=(5, 7, 6), tasks=(0, 1, 0))
    root = write_dataset(tmp_path, recipe)
    video = f"videos/chunk-000/{HEAD}/episode_000001.mp4"
    (root / video).unlink()
    loosen(root, recipe, 1, sign, None if whole else 4)
    (skip,) = converter().discover(root).skipped
    assert ("its 7 images are in images/" in skip.reason) == ("add --recover, which reads" in skip.reason) == whole
    assert whole or skip.reason.startswith(f"{video} is missing")
    assert [len(episode.state) for episode in recovered(root)] == ([5, 7, 6] if whole else [5, 6])
    for number, episode in enumerate(recovered(root) if whole else ()):
        assert np.array_equal(pixels(episode.cameras["head_rgb"]), frames(recipe, HEAD, number))


@pytest.mark.parametrize("batch", [False, True])
def test_images_that_are_not_in_a_shared_video_yet_are_read(root, batch):
    """Killed before the last episode's images were encoded, or those of a batch of all (batch_encoding_size)."""
    shutil.rmtree(root / "meta/episodes")
    kill(root / TABLE, V3.lengths)
    first = 0 if batch else 2
    for key in V3.cameras:
        shown = [frames(V3, key, episode) for episode in range(first)]
        path = root / VIDEO.replace(HEAD, key)
        path.unlink()
        if shown:
            write_video(path, np.concatenate(shown), V3.fps)
    for episode in range(first, 3):
        loosen(root, V3, episode, "-")
    for key in V3.cameras[1:]:
        shutil.copytree(root / f"images/{HEAD}", root / f"images/{key}")
    told = converter(recover=True).discover(root)
    assert any(f"images of {3 - first} episode" in text for text in told.warnings)
    assert any("--video pixels stores them beside" in text for text in told.warnings) != batch
    found = recovered(root)
    assert len(found) == 3 and all(len(ref.files) > len(V3.cameras) + 1 for ref in told.episodes[first:])
    for number, episode in enumerate(found):
        assert np.array_equal(pixels(episode.cameras["head_rgb"]), frames(V3, HEAD, number))
    (root / f"images/{HEAD}/episode-000002/frame-000003.png").write_bytes(b"png")
    made = converter(recover=True)
    last = made.read(root, made.discover(root).episodes[2])
    with pytest.raises(BadEpisode, match=r"frame-000003\.png is not a readable image"):
        pixels(last.cameras["head_rgb"])


@pytest.mark.parametrize("short", [0, 1])
def test_a_video_that_was_not_appended_to_the_shared_one_yet_is_read(root, short):
    """lerobot encodes it to a folder of its own; the images of another camera may still be waiting."""
    shutil.rmtree(root / "meta/episodes")
    kill(root / TABLE, V3.lengths)
    loosen(root, V3, 2, "-")
    for key in V3.cameras:
        shown = [frames(V3, key, episode) for episode in range(3)]
        write_video(root / VIDEO.replace(HEAD, key), np.concatenate(shown[:2]), V3.fps)
        if key != HEAD:
            write_video(root / f"tmp{key[-6:]}/{key}_002.mp4", shown[2][short:], V3.fps)
    found = recovered(root)
    assert len(found) == 3 - short
    for number, episode in enumerate(found):
        for key in V3.cameras:
            camera = episode.cameras[key.rpartition(".")[2]]
            assert np.array_equal(pixels(camera), frames(V3, key, number)), (key, number)


def test_a_listed_episode_without_a_video_is_told_of_its_images(root):
    """Of a batch that waits to be encoded, the metadata may list episodes already, with no place in a video."""
    rows = pq.read_table(root / EPISODES).to_pylist()
    rows[2] |= {key: None for key in rows[2] if key.startswith("videos/")}
    pq.write_table(pa.Table.from_pylist(rows), root / EPISODES)
    for key in V3.cameras:
        shown = np.concatenate([frames(V3, key, episode) for episode in (0, 1)])
        write_video(root / VIDEO.replace(HEAD, key), shown, V3.fps)
        shutil.copytree(root / f"images/{HEAD}", root / f"images/{key}") if key != HEAD else loosen(root, V3, 2, "-")
    (skip,) = converter().discover(root).skipped
    assert "its 10 images are in images/" in skip.reason and "add --recover, which reads them" in skip.reason
    found = recovered(root)
    assert len(found) == 3
    for number, episode in enumerate(found):
        assert np.array_equal(pixels(episode.cameras["head_rgb"]), frames(V3, HEAD, number))
