"""Episodes in rad and in degrees do not get into one store, at once or one after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixtures import tree
from lerobot_files import Recipe, write_dataset

KEYS = ("observation.state", "action")
ROWS = 40


def write(folder: Path, units: tuple[float, ...]) -> Path:
    """A plain dataset of smooth joints, each episode times its unit."""
    values = {}
    for episode, unit in enumerate(units):
        rng = np.random.default_rng(episode)
        waves = np.sin(np.arange(ROWS + 2)[:, None] * rng.uniform(0.1, 0.3, 6) + rng.uniform(0, 6, 6))
        values |= {(KEYS[0], episode): unit * waves[:ROWS], (KEYS[1], episode): unit * waves[2:]}
    recipe = Recipe(
        robot="own", cameras=("observation.images.top",), pictures="png", size=(16, 16), values=values,
        vectors=dict.fromkeys(KEYS, 6), lengths=(ROWS,) * len(units), tasks=(0,) * len(units),
    )  # fmt: skip
    return write_dataset(folder, recipe)


@pytest.mark.parametrize("later", [False, True])
def test_degrees_beside_rad_are_refused_with_both_groups(run, tmp_path: Path, later: bool) -> None:
    store, options = tmp_path / "s.zarr", ("--workers", 0)
    if later:
        root = write(tmp_path / "set", (1, 1, 1))
        assert run("convert", "lerobot", root, "--out", store, *options).code == 0
    before = tree(store) if later else {}
    root = write(tmp_path / "set", (1, 1, 1, 57.3, 57.3, 57.3))
    ran = run("convert", "lerobot", root, "--out", store, *options, *(("--update",) if later else ()))
    assert ran.code == 2 and "as degrees and rad, or cm and m differ" in ran.err
    assert "episode_000005 against episode_000000" in ran.err and "--exclude" in ran.err
    assert (tree(store) if store.exists() else {}) == before
