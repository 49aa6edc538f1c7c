"""Another collection with the same names never replaces a store's recordings, nor is added to them, unasked."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import r1lite_files as r1
from fixtures import run_convert, save, stamps, toy_arrays, toy_manifest, tree, write_toy
from lerobot_files import LIBERO_CAMERAS, Recipe, write_dataset
from libero_files import write_file
from robotwin_files import write_task
from typer.testing import CliRunner

import fwdata
from fwdata.cli import app
from fwdata.errors import UsageError
from fwdata.export.lerobot import ExportRequest, plan_export
from fwdata.manifest import Manifest, load_manifest
from fwdata.merge import MergeRequest, plan_merge
from fwdata.pipeline.estimate import dry_run
from fwdata.pipeline.request import ConvertRequest
from fwdata.store.records import PartSources
from fwdata.store.sources import place_of, read_sources, write_sources

REFUSED = "holds other recordings under the names of those in"


@pytest.fixture
def manifest(monkeypatch: pytest.MonkeyPatch) -> Manifest:
    return toy_manifest(monkeypatch)


@pytest.fixture
def store(tmp_path: Path, manifest: Manifest) -> Path:
    run_convert(write_toy(tmp_path / "a/raw", {"t": [4, 5, 3]}), tmp_path / "s.zarr", manifest)
    return tmp_path / "s.zarr"


@pytest.mark.parametrize("name", ["b/other", "b/raw"], ids=["another name", "the same name"])
def test_another_collection_is_refused_before_anything_is_written(
    tmp_path: Path, store: Path, manifest: Manifest, name: str
) -> None:
    other, before = write_toy(tmp_path / name, {"t": [4, 5, 3]}, seed=50), stamps(store)
    with pytest.raises(UsageError, match=rf"{REFUSED}.*such as t/take0\.npz.*0 of 3 .*--replace-all"):
        run_convert(other, store, manifest, update=True)
    with pytest.raises(UsageError, match=REFUSED):
        dry_run(ConvertRequest("toy", (other,), store, manifest, workers=0, update=True))
    assert stamps(store) == before
    assert run_convert(other, store, manifest, update=True, replace_all=True).new_episodes == 3
    assert fwdata.open(store).episodes[0].state().tobytes() == toy_arrays(4, 50)["state"].tobytes()


def test_further_recordings_of_another_collection_are_not_added(
    tmp_path: Path, store: Path, manifest: Manifest
) -> None:
    other, before = write_toy(tmp_path / "other", {"t": [4, 5, 3], "u": [2]}, seed=50), stamps(store)
    with pytest.raises(UsageError, match=REFUSED):
        run_convert(other, store, manifest)
    assert stamps(store) == before


def test_a_folder_in_which_every_recording_was_made_anew_is_updated(
    tmp_path: Path, store: Path, manifest: Manifest
) -> None:
    write_toy(tmp_path / "a/raw", {"t": [4, 5, 3]}, seed=50)
    assert len(run_convert(tmp_path / "a/raw", store, manifest, update=True).updated) == 3


def test_a_folder_that_moved_is_known_by_a_recording_that_did_not_change_or_by_its_numbers(
    tmp_path: Path, store: Path, manifest: Manifest
) -> None:
    shutil.copytree(tmp_path / "a/raw", tmp_path / "moved")
    save(tmp_path / "moved/t/take0.npz", toy_arrays(4, 60))
    assert run_convert(tmp_path / "moved", store, manifest, update=True).updated == ["t/take0.npz"]
    for index, seed in enumerate((60, 1, 2)):  # the same rows, other texts and images
        arrays = toy_arrays((4, 5, 3)[index], seed)
        again = {**arrays, "overhead": arrays["overhead"][::-1], "text": np.array("move elsewhere")}
        (tmp_path / "again/t").mkdir(parents=True, exist_ok=True)
        save(tmp_path / f"again/t/take{index}.npz", again)
    assert len(run_convert(tmp_path / "again", store, manifest, update=True).updated) == 3


def test_a_store_that_tells_no_place_goes_by_the_name_of_the_folder(
    tmp_path: Path, store: Path, manifest: Manifest
) -> None:
    recorded = read_sources(fwdata.open(store).files, "p00000")
    assert recorded.place == place_of(tmp_path / "a/raw") and str(tmp_path) not in recorded.model_dump_json()
    write_sources(store, PartSources(part="p00000", mtime_ns=recorded.mtime_ns))
    with pytest.raises(UsageError, match=REFUSED):
        run_convert(write_toy(tmp_path / "other", {"t": [4, 5, 3]}, seed=50), store, manifest, update=True)
    other = write_toy(tmp_path / "b/raw", {"t": [4, 5, 3]}, seed=50)
    assert len(run_convert(other, store, manifest, update=True).updated) == 3


def lerobot(folder: Path, shift: float) -> Path:
    vectors, lengths, rng = {"observation.state": 3, "action": 3}, (6, 7), np.random.default_rng(round(shift))
    values = {(key, e): rng.normal(size=(n, 3)) for key in vectors for e, n in enumerate(lengths)}
    recipe = Recipe("v3.0", robot="so101", lengths=lengths, cameras=LIBERO_CAMERAS, vectors=vectors, values=values)
    return write_dataset(folder, recipe)


def libero(folder: Path, shift: float) -> Path:
    path = folder / "libero_goal/turn_on_the_stove_demo.hdf5"
    write_file(path)
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values() if shift == 2 else ():
            for name in ("actions", "obs/ee_states", "obs/ee_pos", "obs/ee_ori", "obs/gripper_states"):
                demo[name][()] *= np.linspace(0.9, 0.8, len(demo[name]))[:, None]
    return folder


def robotwin(folder: Path, shift: float) -> Path:
    first = 0 if shift == 1 else 7
    made = write_task(folder, "classic", "click_bell", range(first, first + 2), num_frames=6)
    for index in (0, 1) if first else ():
        (made / f"data/episode{first + index}.hdf5").rename(made / f"data/episode{index}.hdf5")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("make", [lerobot, libero, robotwin])
def test_the_command_refuses_it_for_every_source(tmp_path: Path, make: object) -> None:
    assert callable(make)
    one, other, out = make(tmp_path / "one", 1), make(tmp_path / "two", 2), str(tmp_path / "s.zarr")
    command = ["convert", make.__name__, "--out", out, "--workers", "0", "--no-evidence"]
    first = CliRunner().invoke(app, [*command, str(one)])
    assert first.exit_code == 0, first.output
    before = tree(tmp_path / "s.zarr")
    refused = CliRunner().invoke(app, [*command, str(other), "--update"])
    assert isinstance(refused.exception, UsageError) and REFUSED in str(refused.exception), refused.output
    assert tree(tmp_path / "s.zarr") == before
    done = CliRunner().invoke(app, [*command, str(other), "--update", "--replace-all"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("place", ["x.zarr", "parts/x.zarr"])
def test_dry_runs_see_a_store_inside_a_store(tmp_path: Path, store: Path, manifest: Manifest, place: str) -> None:
    raw, before = tmp_path / "a/raw", stamps(store)
    with pytest.raises(UsageError, match="lies inside the store"):
        dry_run(ConvertRequest("toy", (raw,), store / place, manifest, workers=0))
    with pytest.raises(UsageError, match="lies inside the store"):
        plan_merge(MergeRequest((str(store), str(store)), store / place))
    with pytest.raises(UsageError, match="lies inside the store"):
        plan_export(ExportRequest(fwdata.open(store), store / place, None, "image"))
    assert stamps(store) == before


@pytest.mark.parametrize("joined_first", [True, False])
def test_a_file_that_is_in_the_store_is_not_added_under_another_name(tmp_path: Path, joined_first: bool) -> None:
    sent, manifest = r1.recording(frames=20), load_manifest("r1lite")
    half, whole = len(sent) // 2, tmp_path / "whole" / "Pick_Cup_1"
    for name, part in (("a.mcap", sent), ("part1.mcap", sent[:half]), ("part2.mcap", sent[half:])):
        r1.McapWriter().write(whole / name, part)
    apart = tmp_path / "apart" / "Pick_Cup_1"
    shutil.copytree(whole, apart)
    (apart / "part2.mcap").rename(apart / "two.mcap")
    roots = (tmp_path / "whole", tmp_path / "apart")[:: 1 if joined_first else -1]
    run_convert(roots[0], tmp_path / "s.zarr", manifest, evidence=False)
    before = tree(tmp_path / "s.zarr")
    for update in (False, True):
        with pytest.raises(
            UsageError, match=r"part1\.mcap is in .* 'part1?', and now belongs to 'part1?': it would be"
        ):
            run_convert(roots[1], tmp_path / "s.zarr", manifest, update=update, evidence=False)
    assert tree(tmp_path / "s.zarr") == before
