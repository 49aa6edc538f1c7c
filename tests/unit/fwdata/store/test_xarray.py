"""Other programs open a store: xarray by the names of the dimensions, zarr-python without a warning."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from clips import moving, write_clip
from fixtures import robotwin_store, run_convert, toy_manifest, toy_store, write_toy
from latent_caches import random_latents
from old_stores import STORES, unpack
from raw_metadata import read_attributes, write_attributes
from video_stores import video_store

import fwdata
from fwdata.encode.prompts import encode_text
from fwdata.store.caches.stats import compute_statistics, save_statistics
from fwdata.store.caches.stitched import materialise
from fwdata.store.verify import verify_store


def array_names(store: Path) -> dict[str, list[str] | None]:
    """Names of the dimensions of every array, by its folder."""
    found = {}
    for file in store.rglob("zarr.json"):
        meta = json.loads(file.read_bytes())
        if meta["node_type"] == "array":
            found[file.parent.relative_to(store).as_posix()] = meta.get("dimension_names")
    return found


def open_all(store: Path) -> int:
    """Open every group that holds arrays with xarray; returns the arrays that it has."""
    found = 0
    for group in sorted({str(Path(name).parent) for name in array_names(store)}):
        with xarray.open_zarr(store, group=group, consolidated=False) as opened:
            assert not opened.coords, group  # no array has the name of a dimension
            found += len(opened.variables)
    return found


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with every kind of cache."""
    path = toy_store(tmp_path, monkeypatch, {"push": [12, 9]})
    random_latents(path)
    encode_text(path, "tiny")
    materialise(path)
    store = fwdata.open(path)
    save_statistics(store, compute_statistics(store))
    return path


def test_xarray_opens_every_group(path: Path) -> None:
    assert open_all(path) == len(array_names(path)) > 10
    lowdim = xarray.open_zarr(path, group="parts/p00000/lowdim", consolidated=False)
    assert lowdim.sizes["frame"] == 21 and lowdim["valid"].dims == ("frame",)
    assert np.array_equal(lowdim["state"][12:21], fwdata.open(path).episodes[1].state())
    tree = xarray.open_datatree(path, engine="zarr", consolidated=False)
    assert tree["parts/p00000/frames/stitched"].dims == ("frame", "row", "column", "colour")


def test_xarray_opens_kept_video_and_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "videos/task").mkdir(parents=True)
    write_clip(tmp_path / "videos/task/c.mp4", moving(9), gop=3)
    video_store(tmp_path / "videos", tmp_path / "v.zarr", monkeypatch, {"a": ("c.mp4", range(2, 8))})
    for path in (tmp_path / "v.zarr", robotwin_store(tmp_path, 1, 4)):
        assert open_all(path) == len(array_names(path)) > 10


def test_zarr_python_finds_nothing_that_it_does_not_know(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        members = zarr.open_group(str(path), mode="r").members(max_depth=None)
    assert {"stats", "parts/p00000/lowdim/state"} <= {name for name, _ in members}


@pytest.mark.slow
def test_a_store_of_an_earlier_release_goes_on_without_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = toy_manifest(monkeypatch)
    write_toy(tmp_path / "raw", {"a": [5]})
    for name in ("old", "new"):
        run_convert(tmp_path / "raw", tmp_path / name, manifest)
    old, new = tmp_path / "old", tmp_path / "new"
    attributes = read_attributes(old)
    assert attributes.pop("named_dimensions") is True
    write_attributes(old, attributes)
    write_toy(tmp_path / "raw", {"b": [4]})
    for path in (old, new):
        run_convert(tmp_path / "raw", path, manifest)
        random_latents(path)
        encode_text(path, "tiny")
    later = {name: names for name, names in array_names(old).items() if "parts/p00000" not in name}
    assert len(later) > 10 and not any(later.values())
    assert all(array_names(new).values())
    assert verify_store(old).damaged == verify_store(new).damaged == []


@pytest.mark.parametrize("name", sorted(path.stem for path in STORES.glob("*.zip")))
def test_arrays_of_a_released_store_have_the_names_it_was_begun_with(name: str, tmp_path: Path) -> None:
    store = unpack(name, tmp_path)
    named = read_attributes(store).get("named_dimensions", False)
    assert named == (name == "v3-raw")
    assert {bool(names) for names in array_names(store).values()} == {named}
