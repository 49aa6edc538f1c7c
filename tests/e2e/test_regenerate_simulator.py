"""One demonstration replayed in the real LIBERO simulator, and the result converted."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from libero_reading import pixels, read_one, warnings_of
from paths import DATA

from converters.libero.actions import kept_actions
from fwdata.envs import libero as simulators
from fwdata.errors import FwdataError

RAW, CUT = DATA / "libero_replay", DATA / "libero"
TASK = "pick_up_the_tomato_sauce_and_place_it_in_the_basket"


@pytest.mark.slow
def test_a_demonstration_solves_its_task_and_converts(tmp_path):
    try:
        simulators.versions()
        simulators.choose_backend()
    except FwdataError as error:
        pytest.skip(str(error))
    command = ["regenerate", "libero", "--suite", "libero_object", "--resolution", "128", str(RAW), "--out", "made"]
    ran = subprocess.run(
        [sys.executable, "-m", "fwdata", *command, "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    said = [line for line in ran.stderr.splitlines() if not line.startswith("replaying: ")]  # on a slow machine
    assert ran.returncode == 0 and said == [], ran.stderr
    report = json.loads(ran.stdout)
    assert (report["kept"], report["rows"], report["noops"], report["failed"]) == (1, 96, 12, [])

    with h5py.File(RAW / f"libero_object/{TASK}_demo.hdf5") as file:
        recorded, states = file["data/demo_0/actions"][()], file["data/demo_0/states"][()]
    kept = kept_actions(recorded)
    episode = read_one(tmp_path / "made")
    assert warnings_of(episode) == [] and episode.instructions == (TASK.replace("_", " "),)
    assert np.array_equal(episode.action[:, :6], recorded[kept, :6].astype(np.float32))
    about = episode.metadata
    assert about["layout"] == "regenerated" and about["noops_found"] == 0 and len(episode.state) == 96
    assert about["obs_timing"] == "before_action" and "content" in str(about["obs_timing_decided_by"])
    assert about["rotation"] == "rot180" and about["gripper_band"] == "top"
    with h5py.File(tmp_path / f"made/libero_object_no_noops/{TASK}_demo.hdf5") as file:
        joints, own = file["data/demo_0/obs/joint_states"][()], file["data/demo_0/states"][()]
    assert np.abs(own[1:, 1:8] - joints[1:]).max() < 0.01  # before the action, at most a simulation sub-step apart
    assert np.abs(own[:, 1:8] - states[kept][:, 1:8]).max() < 0.05  # the arm goes the recorded way

    raw = read_one(CUT)  # the same demonstration as it was recorded: rows 0 to 3 are no-ops, shown after the action
    for camera in ("image", "wrist_image"):
        made, seen = (pixels(e, camera).astype(int) for e in (episode, raw))
        assert np.abs(made[1] - seen[4]).mean() < 6
        for turned in (made[1, ::-1], made[1, :, ::-1], made[1, ::-1, ::-1]):
            assert np.abs(turned - seen[4]).mean() > 15
