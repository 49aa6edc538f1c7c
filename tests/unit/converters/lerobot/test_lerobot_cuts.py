"""Shared videos with frames too many or too few: cuts in the images show which episodes are whole."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_files import Recipe, write_dataset, write_video
from lerobot_reading import pixels
from numpy.typing import NDArray

from converters.lerobot import Converter
from converters.lerobot.converter import choose_manifest
from fwdata.api import BadEpisode

CAMERA = "observation.images.top"
LENGTHS = (20, 17, 22, 19)
RECIPE = Recipe(
    version="v3.0",
    fps=30,
    robot="own",
    lengths=LENGTHS,
    cameras=(CAMERA,),
    vectors={"observation.state": 4, "action": 4},
    tasks=(0, 1, 0, 1),
)
VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"
TABLE = "data/chunk-000/file-000.parquet"


def scene(episode: int) -> NDArray[np.uint8]:
    """A bar that moves steadily over a background of the episode's own; a lamp in the corner flickers."""
    rows = np.arange(LENGTHS[episode])
    images = np.full((len(rows), 48, 64, 3), 60, np.uint8)
    images[:, 30:, 16 * episode : 16 * episode + 12] = 200
    images[rows % 2 == 0, :8, :8] = 255
    for row in rows:
        images[row, 12:20, row : row + 8] = 150
    return images


SHOTS = np.concatenate([scene(episode) for episode in range(4)])
FIRST = np.cumsum([0, *LENGTHS])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of four episodes of such images in one video."""
    return write_dataset(tmp_path / "set", RECIPE)


def converted(root: Path) -> dict[int, NDArray[np.uint8]]:
    """Images of the episodes that can be read."""
    made, found = Converter(choose_manifest([root], {})), {}
    for ref in made.discover(root).episodes:
        with contextlib.suppress(BadEpisode):
            found[int(ref.hints["episode"])] = pixels(made.read(root, ref).cameras["top"])
    return found


def read(root: Path, **options: object) -> dict[int, str]:
    """Episode -> "" where its images are its own, else why it cannot be read."""
    chosen = choose_manifest([root], options)
    made = Converter(chosen.model_copy(update={"options": {**chosen.options, **options}}))
    found: dict[int, str] = {}
    listed = made.discover(root)
    for skip in listed.skipped:
        found[int(skip.source[-6:])] = skip.reason
    for ref in listed.episodes:
        index = int(ref.hints["episode"])
        try:
            episode = made.read(root, ref)
        except BadEpisode as error:
            found[index] = str(error)
        else:
            found[index] = "" if np.array_equal(pixels(episode.cameras["top"]), scene(index)) else "wrong images"
    return dict(sorted(found.items()))


CHANGES = {
    "lost at the start": (lambda shots: shots[1:], {0}),
    "doubled at the start": (lambda shots: np.concatenate([shots[:1], shots]), {0}),
    "lost inside": (lambda shots: np.delete(shots, FIRST[2] + 5, 0), {2}),
    "three doubled inside": (lambda shots: np.insert(shots, 25, shots[25:28], 0), {1}),
    "cut at the end": (lambda shots: shots[:-12], {3}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_the_episode_that_lost_or_gained_frames_is_left_out(root, change):
    edit, wrong = CHANGES[change]
    shots = edit(SHOTS)
    write_video(root / VIDEO, shots, 30)
    found = read(root)
    assert {index for index, reason in found.items() if reason} == wrong
    (reason,) = (reason for reason in found.values() if reason)
    assert (
        f"{VIDEO} holds {len(shots)} frames, its 4 episodes have {len(SHOTS)} rows; episode {min(wrong)} lies" in reason
    )
    assert "so nothing tells which frame each row has; download the video again, or leave the episode out" in reason


def test_episodes_without_a_cut_between_them_are_right_where_another_has_the_whole_fault(root):
    """Both scenes are alike at the joint of the last two episodes; the first lost two frames."""
    shots = SHOTS.copy()
    shots[FIRST[2] :, 30:] = 90
    shots[FIRST[2] :, 12:20] = 60
    write_video(root / VIDEO, shots[2:], 30)
    found = converted(root)
    assert set(found) == {1, 2, 3}
    for index, images in found.items():
        assert np.array_equal(images, shots[FIRST[index] : FIRST[index + 1]])
    write_video(root / VIDEO, np.delete(shots, [FIRST[2] + 3, FIRST[3] + 5], 0), 30)
    assert set(converted(root)) == {0, 1}


@pytest.mark.parametrize("lost", ["in the first", "behind the third", "rows of the last"])
def test_recovered_episodes_of_a_video_that_is_short(root, lost):
    """Rows are counted from the start of the file; a lost frame leaves no room for the last, and shifts none."""
    for path in (root / "meta/episodes").glob("*/*"):
        path.unlink()
    if lost == "rows of the last":
        table = pq.read_table(root / TABLE)
        pq.write_table(table.slice(0, len(table) - 8), root / TABLE)
    shots = {"in the first": np.delete(SHOTS, 7, 0), "behind the third": SHOTS[: FIRST[3] + 4]}.get(lost, SHOTS)
    write_video(root / VIDEO, shots, 30)
    found = read(root, recover=True)
    assert {index for index, reason in found.items() if reason} == ({0, 3} if lost == "in the first" else {3})
    told = {
        "in the first": "holds 77 frames, 18 of them behind the episodes before, episode 3 has 19 rows",
        "behind the third": "holds 63 frames, 4 of them behind the episodes before, episode 3 has 19 rows",
        "rows of the last": "cuts in the images at frames 59 and 78, which are 19 frames for its 11 rows",
    }
    assert told[lost] in found[3]
