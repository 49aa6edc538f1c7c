"""Stores of every released layout version are read, and say what they said when they were written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from commands import Command
from fixtures import tree
from old_stores import STORES, answers, unpack
from raw_metadata import read_attributes, write_attributes

import fwdata
from fwdata.errors import NewerStore
from fwdata.install import upgrade_command
from fwdata.pipeline.clean import clean
from fwdata.store.layout import LAYOUT_VERSION
from fwdata.store.verify import verify_store

FIXTURES = sorted(path.stem for path in STORES.glob("*.zip"))


def test_every_layout_version_has_fixtures() -> None:
    versions = {name.split("-")[0] for name in FIXTURES}
    assert versions == {f"v{n}" for n in range(1, LAYOUT_VERSION + 1)}


@pytest.mark.parametrize("name", FIXTURES)
def test_a_released_store_answers_as_it_did(name: str, tmp_path: Path) -> None:
    store = unpack(name, tmp_path)
    expected = json.loads((STORES / f"{name}.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(answers(store))) == expected
    assert verify_store(store).damaged == []


def test_a_released_store_is_plain_zarr(tmp_path: Path) -> None:
    store = unpack("v1-raw", tmp_path)
    group = zarr.open_group(str(store), mode="r")
    state = group["parts/p00000/lowdim/state"]
    assert isinstance(state, zarr.Array)
    assert np.array_equal(np.asarray(state[:]), fwdata.open(store).episodes[0].state())


@pytest.mark.parametrize("name", ["v1-raw", "v3-raw"])
def test_pixels_of_a_released_store_are_plain_zarr(name: str, tmp_path: Path) -> None:
    store = unpack(name, tmp_path)
    episodes = fwdata.open(store).episodes
    group = zarr.open_group(str(store), mode="r")
    for key in ("cameras/wrist/frames", "frames/stitched"):
        array = group[f"parts/p00001/{key}"]
        assert isinstance(array, zarr.Array)
        read = [e.frames("wrist") if "wrist" in key else e.stitched() for e in episodes if e.task == "push"]
        assert np.array_equal(np.asarray(array[:]), np.concatenate(read))


def test_a_newer_layout_is_refused_with_what_to_do(tmp_path: Path, run: Command) -> None:
    store = unpack("v1-raw", tmp_path)
    attributes = read_attributes(store)
    write_attributes(store, {**attributes, "layout_version": LAYOUT_VERSION + 1})
    before = tree(store)
    for use in (fwdata.open, clean):
        with pytest.raises(NewerStore, match=f"layout version {LAYOUT_VERSION + 1}.*update fwdata: ") as refused:
            use(store)
        assert str(refused.value).endswith(upgrade_command())
    done = run("doctor", store)
    done.refused(2, "update fwdata: ")
    assert "for recordings" not in done.err
    assert tree(store) == before
