"""HDF5 values that nobody wrote: HDF5 reads them as zeros, which look like actions, images and joints."""

from __future__ import annotations

import h5py
import pytest
from libero_files import write_file
from libero_reading import FILE, converter, pixels, read_one, reason
from robotwin_files import write_task
from robotwin_reading import reason as robotwin_reason

from fwdata.api import BadEpisode


def _rewrite(path, key, how):
    """Store a dataset as a writer that was stopped leaves it."""
    with h5py.File(path, "r+") as file:
        values = file[key][()]
        del file[key]
        if how == "chunks":
            file.create_dataset(key, values.shape, values.dtype, chunks=(2, *values.shape[1:]))[:6] = values[:6]
        elif how == "nothing":
            file.create_dataset(key, values.shape, values.dtype)
        else:
            file["source"] = values if how == "mapped" else values[:6]
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            count = len(values) if how == "short source" else 6
            layout[:count] = h5py.VirtualSource(".", "source", values.shape, values.dtype)[:count]
            file.create_virtual_dataset(key, layout)


SAID = {
    "chunks": "1 of 4 chunks were never written",
    "nothing": "no value was ever written",
    "mapped": "maps 42 of its 56 values",
    "short source": "maps more of source than its shape (6, 7) holds",
}


@pytest.mark.parametrize("how", SAID)
def test_actions_that_were_never_written(tmp_path, how):
    write_file(tmp_path / FILE, [0])
    _rewrite(tmp_path / FILE, "data/demo_0/actions", how)
    found = reason(tmp_path)
    assert "data/demo_0/actions" in found and SAID[how] in found and "--exclude" in found


@pytest.mark.parametrize("key", ["obs/gripper_states", "obs/ee_states", "obs/agentview_rgb", "obs/eye_in_hand_rgb"])
def test_images_and_states_that_were_never_written(tmp_path, key):
    write_file(tmp_path / FILE, [0])
    _rewrite(tmp_path / FILE, f"data/demo_0/{key}", "chunks")
    assert f"data/demo_0/{key}: 1 of 4 chunks were never written" in reason(tmp_path)


def test_what_is_not_stored_may_be_unwritten(tmp_path):
    written = write_file(tmp_path / FILE, [0])
    for key in ("rewards", "dones"):
        _rewrite(tmp_path / FILE, f"data/demo_0/{key}", "nothing")
    assert (pixels(read_one(tmp_path), "image") == written[0].pictures["image"]).all()


def test_robotwin_joints_that_were_never_written(tmp_path):
    folder = write_task(tmp_path, "archive", "click_bell", [0], num_frames=8)
    _rewrite(folder / "data" / "episode0.hdf5", "joint_action/left_arm", "chunks")
    assert "joint_action/left_arm: 1 of 4 chunks were never written" in robotwin_reason(tmp_path)


def test_a_link_that_leads_nowhere_costs_its_demonstration_alone(tmp_path):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["data/demo_1"] = h5py.ExternalLink("other.hdf5", "/data/demo_0")
    made = converter()
    good, bad = made.discover(tmp_path).episodes
    assert len(made.read(tmp_path, good).state) == 8
    with pytest.raises(BadEpisode, match=r"data/demo_1 is an external link to other.hdf5"):
        made.read(tmp_path, bad)
