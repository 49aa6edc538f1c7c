"""Adversarial RoboTwin and LeRobot recordings: converted as a plain reading of the rule, or refused with a reason."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lerobot_files import Recipe, frames, rows, write_dataset
from lerobot_reading import PARTS, converter, pixels
from robotwin_files import write_task

from converters.robotwin import Converter as RoboTwin
from fwdata.api import BadEpisode, Episode, UsageError
from fwdata.manifest import load_manifest

QUIET = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
NUMBERS = ("left_arm", "left_gripper", "right_arm", "right_gripper")


def sound(episode: Episode, length: int) -> None:
    """What holds for every episode, whatever was recorded."""
    assert len(episode.state) == len(episode.action) == len(episode.timestamp_ns) == len(episode.valid) == length
    assert (np.diff(episode.timestamp_ns) > 0).all()
    assert all(len(pixels(camera)) == length for camera in episode.cameras.values())


@pytest.mark.slow
@QUIET
@given(
    st.sampled_from([None, *NUMBERS, "vector", "rgb"]),
    st.sampled_from(["short", "nan", "other", "missing"]),
    st.integers(0, 5),
)
def test_robotwin_rows_are_those_recorded_or_refused(key, trouble, row):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_task(root, "classic", "click_bell", [0], num_frames=6)
        (path,) = root.rglob("*.hdf5")
        place = f"observation/left_camera/{key}" if key == "rgb" else f"joint_action/{key}"
        with h5py.File(path, "r+") as file:
            recorded = np.concatenate([file[f"joint_action/{k}"][()].reshape(6, -1) for k in NUMBERS], 1)
            if key is not None:
                values = file[place][()]
                del file[place]
                if trouble == "short":
                    file[place] = values[:-1]
                elif trouble != "missing":
                    values[row] = b"\xff\xd8 no picture" if key == "rgb" else np.nan if trouble == "nan" else 0.123
                    file[place] = values
        made = RoboTwin(load_manifest("robotwin-sample"))
        try:
            (ref,) = made.discover(root).episodes
            episode = made.read(root, ref)
            sound(episode, 5)
        except (BadEpisode, ValueError) as error:
            assert key is not None and str(error)
            assert not (key == "vector" and trouble == "missing")
            return
        assert key in {None, "vector", "rgb"}  # the vector may be absent; the last picture belongs to no row
        assert key is None or (key == "vector" and trouble == "missing") or (key == "rgb" and row == 5)
        assert np.array_equal(episode.state, recorded[:-1].astype(np.float32))
        assert np.array_equal(episode.action, recorded[1:].astype(np.float32))


@pytest.mark.slow
@settings(QUIET, max_examples=40)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.sampled_from([None, "rows", "nan", "index", "start", "stop", "both", "length"]),
    st.integers(0, 30),
    st.floats(-1.0, 1.0),
)
def test_lerobot_rows_are_those_recorded_or_refused(lengths, trouble, number, amount):
    """Shared files of v3.0: each episode is its own rows and frames, or is left out; none has another's."""
    recipe = Recipe(version="v3.0", lengths=tuple(lengths), tasks=(0,) * len(lengths), size=(16, 16))
    victim = number % len(lengths)
    with tempfile.TemporaryDirectory() as folder:
        root = write_dataset(Path(folder), recipe)
        data, meta = root / "data/chunk-000/file-000.parquet", root / "meta/episodes/chunk-000/file-000.parquet"
        camera = recipe.cameras[0]
        shift = round(amount * recipe.fps) / recipe.fps
        if trouble == "rows":
            table = pq.read_table(data)
            pq.write_table(table.filter(pa.array(np.arange(len(table)) != number % len(table))), data)
        elif trouble == "nan":
            table = pq.read_table(data)
            values = table["action.left_gripper"].to_numpy().copy()
            values[number % len(values)] = np.nan
            place = table.schema.names.index("action.left_gripper")
            pq.write_table(table.set_column(place, "action.left_gripper", pa.array(values)), data)
        elif trouble is not None:
            table = pq.read_table(meta).to_pylist()
            if trouble in ("start", "stop", "both"):
                for end in {"start": ("from",), "stop": ("to",), "both": ("from", "to")}[trouble]:
                    table[victim][f"videos/{camera}/{end}_timestamp"] += shift
            elif trouble == "length":
                table[victim]["length"] += 1
            else:
                table[victim]["episode_index"] += 100
            pq.write_table(pa.Table.from_pylist(table), meta)
        made = converter()
        try:
            found = made.discover(root)
        except UsageError as error:
            assert trouble is not None and str(error)
            return
        for left_out in found.skipped:  # two that claim the same frames, or one that begins before its file
            twice = "one of them would get the other's images" in left_out.reason
            before = "expected chunk_index, file_index and from_timestamp" in left_out.reason and shift < 0
            assert trouble in ("start", "both", "length") and (twice or before)
        refused = 0
        for ref in found.episodes:
            index = int(ref.hints["episode"])
            try:
                episode = made.read(root, ref)
                sound(episode, lengths[index])
            except BadEpisode as error:
                assert trouble is not None and str(error)
                refused += 1
                continue
            expected = [rows(recipe, f"observation.state.{part}", index) for part in PARTS]
            assert np.array_equal(episode.state, np.concatenate(expected, 1).astype(np.float32))

            for name, key in zip(episode.cameras, recipe.cameras, strict=True):
                assert np.array_equal(pixels(episode.cameras[name]), frames(recipe, key, index))
        assert refused <= 1 or trouble in ("start", "both", "length")
        if trouble in ("rows", "nan", "index", "length"):
            assert refused or found.skipped
        elif trouble in (None, "stop") or abs(shift) < 1e-9:  # the end is a hint: the frames are counted
            assert not refused and not found.skipped
