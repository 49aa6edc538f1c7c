"""A file of demonstrations that grows: older demonstrations do not change by that, those that are edited do."""

from __future__ import annotations

from pathlib import Path

import h5py
import libero_files as lf
import pytest
from fixtures import run_convert

import fwdata
from fwdata.manifest import load_manifest

NAME = "libero_object/pick_up_the_tomato_sauce_and_place_it_in_the_basket_demo.hdf5"


@pytest.mark.slow
def test_demonstrations_that_join_change_no_other(tmp_path: Path) -> None:
    raw, out, manifest = tmp_path / "raw", tmp_path / "s.zarr", load_manifest("libero")
    (raw / NAME).parent.mkdir(parents=True)
    lf.write_file(raw / NAME, demos=(0, 1))
    run_convert(raw, out, manifest, evidence=False)
    (raw / NAME).unlink()
    lf.write_file(raw / NAME, demos=(0, 1, 2))
    assert not run_convert(raw, out, manifest, evidence=False).changed
    assert len(fwdata.open(out).episodes) == 3
    with h5py.File(raw / NAME, "r+") as file:
        images = file["data/demo_1/obs/agentview_rgb"]
        images[-1, 0, 0, 0] ^= 1
    [changed] = run_convert(raw, out, manifest, evidence=False).changed
    assert changed.id.endswith("demo_1")
    run_convert(raw, out, manifest, evidence=False, update=True)
    assert not run_convert(raw, out, manifest, evidence=False).changed
