"""The simulator's clock in LIBERO's `states`: rates that no label tells, and rows that do not follow each other."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from libero_files import write_file
from libero_reading import FILE, manifest, read_one, reason, warnings_of

from converters.libero.stored import stored_conventions

ROWS = 24


def _take(path, rows):
    """Keep these rows of every array of demo_0."""
    with h5py.File(path, "r+") as file:
        group = file["data/demo_0"]
        names: list[str] = []
        group.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        for name in names:
            values = group[name][()]
            del group[name]
            group[name] = values[rows]
        group.attrs["num_samples"] = np.int64(len(rows))


@pytest.mark.parametrize("kind", ["raw", "openvla"])
@pytest.mark.parametrize(
    ("rows", "hz"),
    [(range(0, 2 * ROWS, 2), 10.0), (np.repeat(np.arange(ROWS), 2), 40.0), (range(ROWS), 20.0)],
)
def test_the_rate_is_that_of_the_simulator(tmp_path, kind, rows, hz):
    write_file(tmp_path / FILE, [0], kind, num_frames=2 * ROWS)
    _take(tmp_path / FILE, list(rows))
    episode = read_one(tmp_path)
    assert episode.conventions.rate is not None and episode.conventions.rate.clock == pytest.approx(hz)
    assert episode.metadata.get("fps_clock") == (None if hz == 20 else hz)
    again = stored_conventions(manifest(), (episode.state_names, episode.action_names), episode.metadata)
    assert again.rate is not None and again.rate.clock == (None if hz == 20 else hz)
    if hz != 20:
        assert episode.conventions.options["row_rate"] == f"fps.hz: {hz:g}"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (range(ROWS - 1, -1, -1), "runs backwards, from 1.15 to 0.00 s"),
        ([*range(ROWS), *range(ROWS)], "goes back from 1.15 to 0.00 s at row 24: several recordings are joined in one"),
    ],
)
def test_rows_that_do_not_follow_each_other(tmp_path, rows, said):
    write_file(tmp_path / FILE, [0], num_frames=ROWS)
    _take(tmp_path / FILE, list(rows))
    assert said in reason(tmp_path)


def test_missing_rows_are_reported(tmp_path):
    write_file(tmp_path / FILE, [0], num_frames=2 * ROWS)
    _take(tmp_path / FILE, [*range(10), *range(30, 48)])
    (said,) = [text for text in warnings_of(read_one(tmp_path)) if "simulator's time" in text]
    assert said.startswith("the simulator's time jumps by 1.05 s to row 10: rows are missing there")


def test_an_initial_state_before_the_scene_has_settled_is_no_hole(tmp_path):
    write_file(tmp_path / FILE, [0], num_frames=2 * ROWS)
    _take(tmp_path / FILE, [0, *range(12, 48)])
    assert not [text for text in warnings_of(read_one(tmp_path)) if "simulator's time" in text]


@pytest.mark.parametrize("first", [np.zeros(ROWS), np.random.default_rng(0).uniform(0, 1, ROWS)])
def test_a_column_that_is_not_a_clock_tells_nothing(tmp_path, first):
    write_file(tmp_path / FILE, [0], num_frames=ROWS)
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["data/demo_0/states"][:, 0] = first
    episode = read_one(tmp_path)
    assert episode.conventions.rate is not None and episode.conventions.rate.clock is None
