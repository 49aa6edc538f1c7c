"""What is wrong with single LIBERO demonstrations in real downloads, and what becomes of them."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from fixtures import run_convert
from libero_files import moving, paint, write_file
from libero_reading import FILE, converter, manifest, pixels, read_all, read_one, reason, warnings_of

import fwdata

GREY = np.zeros((8, 20, 24, 3), np.uint8)


def replace(path, key, value, **storage):
    """Put another dataset in the place of one of demo_0."""
    with h5py.File(path, "r+") as file:
        if f"data/demo_0/{key}" in file:
            del file[f"data/demo_0/{key}"]
        if value is not None:
            file.create_dataset(f"data/demo_0/{key}", data=value, **storage)


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("actions", None, ["data/demo_0/actions"]),
        ("obs/agentview_rgb", None, ["data/demo_0/obs/agentview_rgb is missing", "manifest whose cameras"]),
        ("obs/eye_in_hand_rgb", None, ["obs/eye_in_hand_rgb is missing"]),
        ("obs/gripper_states", None, ["obs/gripper_states is missing"]),
        ("obs", None, ["data/demo_0 has no group obs", "actions"]),
        ("obs", np.zeros(3), ["has no group obs"]),
        ("actions", np.zeros((7, 7)), ["different length", "actions 7", "obs/agentview_rgb 8", "num_samples 8"]),
        ("obs/agentview_rgb", GREY[:7], ["different length", "actions 8", "obs/agentview_rgb 7"]),
        ("obs/eye_in_hand_rgb", GREY[:0], ["different length", "obs/eye_in_hand_rgb 0"]),
        ("states", np.zeros((9, 23)), ["different length", "states 9"]),
        ("rewards", np.zeros(9, np.uint8), ["different length", "rewards 9"]),
        ("obs/joint_states", np.zeros((9, 7)), ["different length", "obs/joint_states 9"]),
        ("actions", np.zeros((8, 6)), ["actions must be floating-point numbers of shape (frames, 7)", "(8, 6)"]),
        ("actions", np.zeros((8, 7), "S3"), ["actions must be floating-point numbers"]),
        ("actions", np.zeros((8, 7), np.int16), ["actions must be floating-point numbers", "int16"]),
        ("obs/gripper_states", np.zeros((8, 2), np.uint8), ["must be floating-point numbers", "uint8"]),
        ("actions", np.zeros(8), ["actions must be floating-point numbers of shape (frames, 7)", "(8,)"]),
        ("actions", 3.0, ["actions must have one row per frame"]),
        ("obs/ee_states", np.zeros((8, 7)), ["obs/ee_states must be floating-point numbers of shape (frames, 6)"]),
        (
            "obs/gripper_states",
            np.zeros((8, 1)),
            ["gripper_states must be floating-point numbers of shape (frames, 2)"],
        ),
        ("obs/agentview_rgb", GREY.astype(np.float32), ["must be uint8 of shape (frames, H, W, 3)", "float32"]),
        ("obs/agentview_rgb", GREY[..., :1], ["must be uint8 of shape (frames, H, W, 3)", "(8, 20, 24, 1)"]),
        ("obs/agentview_rgb", GREY[..., 0], ["must be uint8 of shape (frames, H, W, 3)"]),
        ("obs/agentview_rgb", GREY[:, :0], ["0 x 24 pixels"]),
    ],
)
def test_missing_keys_lengths_and_shapes(tmp_path, key, value, parts):
    write_file(tmp_path / FILE, [0, 1])
    replace(tmp_path / FILE, key, value)
    found = reason(tmp_path)
    assert all(part in found for part in parts), found


def test_number_of_samples_is_checked(tmp_path):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["data/demo_0"].attrs["num_samples"] = 12
    assert "actions 8" in reason(tmp_path) and "attribute num_samples 12" in reason(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("key", ["actions", "obs/ee_states", "obs/gripper_states", "states"])
def test_numbers_that_are_not_finite(tmp_path, key, value):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file[f"data/demo_0/{key}"][3, 1] = value
    assert f"data/demo_0/{key} is not finite at frame 3, column 1" in reason(tmp_path)


def test_halves_of_the_end_effector(tmp_path):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        del file["data/demo_0/obs/ee_states"], file["data/demo_0/obs/ee_ori"]
    assert "ee_states is missing, and so is ee_ori" in reason(tmp_path)


@pytest.mark.parametrize(("name", "column"), [("ee_pos", 1), ("ee_ori", 4)])
def test_halves_that_contradict_the_whole(tmp_path, name, column):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        obs = file["data/demo_0/obs"]
        obs[name][...] = obs["ee_states"][:, :3] if name == "ee_pos" else obs["ee_states"][:, 3:]
        obs[name][2, 1] += 0.05
        was = obs["ee_states"][2, column]
    found = reason(tmp_path)
    assert f"obs/{name} contradicts ee_states: {was + 0.05:.6g} against {was:.6g} in row 2, column 1" in found
    with h5py.File(tmp_path / FILE, "r+") as file:
        half = file[f"data/demo_0/obs/{name}"]
        half[2, 1] -= 0.05
        kept = half[()].astype(np.float32)
        del file[f"data/demo_0/obs/{name}"]
        file[f"data/demo_0/obs/{name}"] = kept
    assert read_one(tmp_path).state[2, column] == np.float32(was)


def test_no_rows(tmp_path):
    write_file(tmp_path / FILE, [0], num_frames=0)
    assert "data/demo_0 is too short" in reason(tmp_path)


def test_one_row_is_kept(tmp_path):
    write_file(tmp_path / FILE, [0], num_frames=1)
    episode = read_one(tmp_path)
    assert len(episode.state) == 1 and any("1 row is fewer than a window" in text for text in episode.warnings)


@pytest.mark.parametrize(("frames", "said"), [(32, True), (33, False)])
def test_demonstrations_shorter_than_a_window_are_kept(tmp_path, frames, said):
    write_file(tmp_path / FILE, [0], num_frames=frames, size=(8, 8))
    episode = read_one(tmp_path)
    assert len(episode.state) == frames
    assert (f"{frames} rows are fewer than a window of 33; windows are padded" in episode.warnings) == said


def test_suspicious_actions_are_warnings(tmp_path):
    actions = moving(8)
    actions[2, 0], actions[4, 6] = 1.5, 0.25
    write_file(tmp_path / FILE, [0], actions=actions)
    episode = read_one(tmp_path)
    text = " ".join(warnings_of(episode))
    assert "actions reach" in text and "1.5, expected -1 .. 1" in text
    assert "gripper commands other than -1 and 1, the first is 0.25" in text
    assert episode.action[4, 6] == 0.75 and episode.action[2, 0] == 1.5


def test_an_unreadable_array_costs_one_demonstration(tmp_path):
    write_file(tmp_path / "raw" / FILE, [0, 1])
    path = tmp_path / "raw" / FILE
    with h5py.File(path, "r+") as file:
        stored = file["data/demo_0/obs/agentview_rgb"][()]
    replace(path, "obs/agentview_rgb", stored, chunks=(2, 20, 24, 3), compression="gzip")
    with h5py.File(path) as file:
        chunk = file["data/demo_0/obs/agentview_rgb"].id.get_chunk_info(2)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(data)
    assert "cannot be read as HDF5" in reason(tmp_path / "raw")
    report = run_convert(tmp_path / "raw", tmp_path / "s.zarr", manifest())
    assert report.episodes == 1 and [source for source, _ in report.quarantined] == [f"{FILE}#demo_0"]
    assert fwdata.open(tmp_path / "s.zarr").episodes[0].source == f"{FILE}#demo_1"


def test_a_damaged_neighbour_does_not_matter(tmp_path):
    write_file(tmp_path / FILE, [0, 1, 2], "openvla")
    with h5py.File(tmp_path / FILE, "r+") as file:
        paint(file["data/demo_0/obs/eye_in_hand_rgb"], 200)  # undecided, so its neighbours are asked
    with h5py.File(tmp_path / FILE, "r+") as file:
        del file["data/demo_1/obs/eye_in_hand_rgb"]
        file["data/demo_1/obs/eye_in_hand_rgb"] = h5py.ExternalLink("other.hdf5", "x")
    assert "in demo_2" in str(read_one(tmp_path).metadata["rotation_decided_by"])


@pytest.mark.parametrize("what", ["a dataset", "a link to nothing"])
def test_demonstrations_that_are_no_groups(tmp_path, what):
    write_file(tmp_path / FILE, [1])
    with h5py.File(tmp_path / FILE, "r+") as file:
        if what == "a dataset":
            file["data/demo_0"] = np.zeros(3)
        else:
            file["data/demo_0"] = h5py.SoftLink("/nowhere")
    assert "data/demo_0 must be a group" in reason(tmp_path)
    made = converter()
    assert len(pixels(made.read(tmp_path, made.discover(tmp_path).episodes[1]), "image")) == 8


@pytest.mark.parametrize("kind", ["external link", "virtual", "external storage", "soft loop"])
def test_data_of_other_files_is_refused(tmp_path, kind):
    write_file(tmp_path / "root" / FILE, [0])
    write_file(tmp_path / "other.hdf5", [0])
    key = "data/demo_0/obs/agentview_rgb"
    with h5py.File(tmp_path / "root" / FILE, "r+") as file:
        del file[key]
        if kind == "external link":
            file[key] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), key)
        elif kind == "soft loop":
            file[key] = h5py.SoftLink(f"/{key}")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(GREY.shape, "u1")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), key, GREY.shape)
            file.create_virtual_dataset(key, layout)
        else:
            (tmp_path / "raw.bin").write_bytes(bytes(GREY.nbytes))
            file.create_dataset(key, GREY.shape, "u1", external=str(tmp_path / "raw.bin"))
    part = {"external link": "is an external link", "soft loop": "loop of soft links"}.get(kind, "from other files")
    assert part in reason(tmp_path / "root")


@pytest.mark.parametrize(
    ("key", "shape", "dtype", "chunks", "part"),
    [
        ("actions", (10**9, 7), "f8", (100, 7), "different length"),
        ("obs/agentview_rgb", (8, 60_000, 60_000, 3), "u1", (1, 64, 64, 3), "60000 x 60000 pixels"),
        ("obs/agentview_rgb", (8, 8000, 30_000, 3), "u1", None, "more bytes than the whole file"),
        ("obs/agentview_rgb", (8, 8000, 8000, 3), "u1", (8, 8000, 8000, 3), "MiB each"),
    ],
)
def test_absurd_sizes_are_refused_before_they_are_allocated(tmp_path, key, shape, dtype, chunks, part):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        del file[f"data/demo_0/{key}"]
        file.create_dataset(f"data/demo_0/{key}", shape, dtype, chunks=chunks)
    assert part in reason(tmp_path)


def test_absurd_lengths_that_agree(tmp_path):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        del file["data/demo_0"]
        demo = file.create_group("data/demo_0")
        demo.create_dataset("actions", (10**9, 7), "f8", chunks=(100, 7))
        demo.create_dataset("obs/agentview_rgb", (10**9, 8, 8, 3), "u1", chunks=(100, 8, 8, 3))
    assert "actions has 1000000000 rows; at most" in reason(tmp_path)


def test_pictures_of_another_size_are_quarantined(tmp_path):
    write_file(tmp_path / "raw" / FILE, [0, 1])
    replace(tmp_path / "raw" / FILE, "obs/agentview_rgb", np.zeros((8, 32, 32, 3), np.uint8))
    report = run_convert(tmp_path / "raw", tmp_path / "s.zarr", manifest())
    (only,) = report.quarantined
    assert report.episodes == 1 and "camera image: frames are 20x24, the part holds 32x32" in only[1]


def test_failed_demonstrations_are_not_judged_by_dones(tmp_path):
    write_file(tmp_path / FILE, [0, 1])
    replace(tmp_path / FILE, "dones", np.zeros(8, np.uint8))
    episodes = read_all(tmp_path)
    assert len(episodes) == 2 and all("success" not in episode.metadata for episode in episodes)


def test_a_data_type_that_cannot_be_read(tmp_path):
    write_file(tmp_path / FILE, [0, 1])
    with h5py.File(tmp_path / FILE, "r+") as file:
        del file["data/demo_0/rewards"]
        space = h5py.h5s.create_simple((8,))
        h5py.h5d.create(file["data/demo_0"].id, b"rewards", h5py.h5t.UNIX_D32LE, space)
    assert "data/demo_0/rewards has a data type that cannot be read" in reason(tmp_path)


def test_a_truncated_download_is_named_and_the_others_go_on(tmp_path):
    write_file(tmp_path / "raw" / FILE, [0])
    path = tmp_path / "raw" / "libero_goal" / "put_the_bowl_on_the_plate_demo.hdf5"
    write_file(path, [0])
    path.write_bytes(path.read_bytes()[:-2000])
    report = run_convert(tmp_path / "raw", tmp_path / "s.zarr", manifest())
    ((source, reason_),) = report.quarantined  # which makes the command end with code 3
    assert report.episodes == 1 and source.endswith("put_the_bowl_on_the_plate_demo.hdf5") and "truncated" in reason_


def test_what_the_recorder_left_is_neither_followed_nor_copied(tmp_path):
    model = '<mujoco><mesh file="/home/recorder/assets/mug.obj"/></mujoco>' + " " * 70_000
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE, "r+") as file:
        file["data/demo_0"].attrs["model_file"] = model
        file["data"].attrs["bddl_file_name"] = "/home/recorder/chiliocosm/bddl_files/libero_100/other.bddl"
    episode = read_one(tmp_path)
    kept = json.dumps(dict(episode.metadata))
    assert "recorder" not in kept and "chiliocosm" not in kept and len(kept) < 3000
    assert episode.instructions == ("turn on the stove",) and episode.metadata["suite"] == "libero_goal"
