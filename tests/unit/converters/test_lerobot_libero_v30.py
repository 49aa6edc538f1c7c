"""The LIBERO set that upstream published as LeRobot v3.0: four suites in one folder, AV1 frames of 512 x 512."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixtures import run_convert
from lerobot_files import LIBERO_CAMERAS, V3_VIDEO, Recipe, frames, write_dataset, write_video

import fwdata
from converters.lerobot import choose_manifest
from fwdata.images.stitch import stitch

SUITES = ("goal", "10")
STATE, ACTION = "observation.state", "action"
TASKS = ("put the bowl on the plate", "open the middle drawer of the cabinet")


def write_suite(root: Path, suite: str) -> Recipe:
    """`lerobot_v30/libero_<suite>_no_noops_lerobot`, two episodes of a few frames; the gripper is 1 open, 0 closed."""
    lengths = (3, 2)
    values = {}
    for episode, length in enumerate(lengths):
        actions = np.random.default_rng([episode, len(suite)]).uniform(-0.9, 0.9, (length, 7))
        actions[:, 6] = np.arange(length) % 2
        values[ACTION, episode] = actions
        states = np.random.default_rng([episode, len(suite), 1]).uniform(-0.5, 0.5, (length, 8))
        states[:, 6] = np.linspace(0.04, 0.01, length)  # two fingers, opposite
        states[:, 7] = -states[:, 6]
        values[STATE, episode] = states
    recipe = Recipe(
        version="v3.0",
        fps=20,
        robot="panda",
        lengths=lengths,
        cameras=LIBERO_CAMERAS,
        size=(512, 512),
        vectors={STATE: 8, ACTION: 7},
        values=values,
        table=TASKS,
    )
    folder = write_dataset(root / f"libero_{suite}_no_noops_lerobot", recipe)
    for key in LIBERO_CAMERAS:
        shots = np.concatenate([frames(recipe, key, episode) for episode in range(len(lengths))])
        path = folder / V3_VIDEO.format(video_key=key, chunk_index=0, file_index=0)
        path.unlink()
        write_video(path, shots, 20, "libsvtav1")
    return recipe


@pytest.mark.slow  # encodes and decodes AV1
def test_the_published_set_converts_as_it_is(tmp_path: Path):
    root = tmp_path / "lerobot_v30"
    recipes = {suite: write_suite(root, suite) for suite in SUITES}
    manifest = choose_manifest([root], {})
    assert manifest is not None and manifest.name == "lerobot-libero"
    report = run_convert(root, tmp_path / "s.zarr", manifest)
    assert (report.episodes, report.frames, report.quarantined) == (4, 10, [])
    store = fwdata.open(tmp_path / "s.zarr")
    assert {episode.id.split("/")[0] for episode in store.episodes} == {
        f"libero_{suite}_no_noops_lerobot" for suite in recipes
    }
    for episode in store.episodes:
        folder, name = episode.id.split("/")
        suite, number = folder.split("_")[1], int(name.split("_")[1])
        recipe = recipes[suite]
        expected = recipe.values[ACTION, number]
        assert np.array_equal(episode.action(), expected.astype(np.float32))  # the gripper is on our scale already
        assert episode.instruction == TASKS[number]
        true = {name: frames(recipe, key, number) for name, key in zip(manifest.cameras, LIBERO_CAMERAS, strict=True)}
        shown, wanted = episode.stitched(), stitch(true, manifest.stitch)
        assert shown.shape == (len(expected), 224, 448, 3)
        assert np.abs(shown.astype(int) - wanted).mean() < 12  # lossy video
