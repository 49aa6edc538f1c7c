"""What is wrong with single RoboTwin recordings in real downloads, and what becomes of them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from robotwin_files import (
    encode,
    picture,
    write_episode,
    write_task,
)
from robotwin_reading import TASK, colours, manifest, read_one, reason, recording, replace

from converters.robotwin import Converter
from fwdata.api import BadEpisode


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "episode0.hdf5 is empty"), (b"no hdf5 at all" * 99, "cannot be read as HDF5")],
)
def test_files_that_are_no_hdf5(tmp_path, content, part):
    folder = write_task(tmp_path, "archive", TASK, [0])
    (folder / "data" / "episode0.hdf5").write_bytes(content)
    assert part in reason(tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_truncated_file(tmp_path, share):
    folder = write_task(tmp_path, "archive", TASK, [0])
    path = folder / "data" / "episode0.hdf5"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "episode0.hdf5 cannot be read as HDF5 (truncated" in reason(tmp_path)


@pytest.mark.parametrize("frames", [0, 1])
@pytest.mark.parametrize("variant", ["classic", "native"])
def test_too_short(tmp_path, variant, frames):
    write_episode(tmp_path / TASK / "piper_clean_50" / "data" / "episode0.hdf5", variant, num_frames=frames)
    assert "too short" in reason(tmp_path)


def test_two_frames_give_one_row(tmp_path):
    write_task(tmp_path, "archive", TASK, [0], num_frames=2)
    assert len(read_one(tmp_path).state) == 1


SHORT = np.array([encode(picture("head_camera", 0, (48, 64)))] * 5)


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("observation/head_camera/rgb", SHORT, ["head_camera/rgb has 5 frames", "joints have 6"]),
        ("observation/front_camera/rgb", SHORT, ["front_camera/rgb has 5 frames", "joints have 6"]),  # not even used
        ("joint_action/left_gripper", np.zeros(5), ["different length", "left_gripper 5", "left_arm 6"]),
        ("joint_action/right_arm", np.zeros((5, 6)), ["different length", "right_arm 5"]),
        ("joint_action/left_gripper", np.zeros((6, 2)), ["one value per frame"]),
        ("joint_action/left_arm", np.zeros((6, 5)), ["vector is (6, 14), its parts make (6, 13)"]),
        ("joint_action/left_arm", np.zeros((6, 6)), ["disagrees with its parts at frame 0, column 0"]),
        ("joint_action/left_arm", "text", ["must be floating-point numbers"]),
        ("joint_action/left_arm", np.zeros((6, 6, 2)), ["must be floating-point numbers of shape (frames, n)"]),
        ("joint_action/left_arm", np.zeros((6, 99)), ["at most"]),
        ("joint_action/vector", np.zeros((6, 16)), ["vector is (6, 16)"]),
        ("endpose/right_endpose", np.zeros((4, 7)), ["endpose/right_endpose has shape (4, 7)", "6 rows"]),
        ("endpose/left_gripper", np.zeros(7), ["endpose/left_gripper has shape (7,)"]),
        ("observation/head_camera/rgb", np.zeros((6, 4, 4, 3)), ["must hold JPEG buffers", "float64"]),
        ("observation/head_camera/rgb", np.array([b"\x89PNG"] * 6), ["head_camera frame 0 is not a JPEG", "89 50"]),
        ("observation/head_camera/rgb", np.array([b""] * 6, "S9"), ["frame 0", "an empty string"]),
        ("observation/head_camera/rgb", np.array([b"\xff\xd8\xff"] * 6), ["frame 0: JPEG of 3 bytes without a frame"]),
    ],
)
def test_contradictions_inside_a_file(tmp_path, key, value, parts):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        replace(file, key, value)
    found = reason(tmp_path)
    assert all(part in found for part in parts), found


@pytest.mark.parametrize("key", ["joint_action/left_arm", "joint_action/right_gripper", "observation/left_camera/rgb"])
def test_missing_arrays(tmp_path, key):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        del file[key]
    assert ("left_camera is missing" if "camera" in key else f"{key} is missing (found ") in reason(tmp_path)


def test_missing_camera_can_be_left_out_of_the_manifest(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        del file["observation/right_camera"]
    assert "camera right_camera is missing, found front_camera, head_camera, left_camera" in reason(tmp_path)
    fewer = manifest().model_copy(update={"cameras": ("left_camera", "head_camera")})
    made = Converter(fewer)
    assert list(made.read(tmp_path, made.discover(tmp_path).episodes[0]).cameras) == ["left_camera", "head_camera"]


@pytest.mark.parametrize("frame", [3, 4])
def test_a_bad_buffer_later_in_a_camera_is_named(tmp_path, frame):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        node = file["observation/left_camera/rgb"]
        node[frame] = b""
    camera = read_one(tmp_path).cameras["left_camera"]
    with pytest.raises(BadEpisode, match=f"left_camera frame {frame} is not a JPEG: found an empty string"):
        list(camera.frames())


def test_an_unreadable_picture_of_an_unused_camera_is_a_warning(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        replace(file, "observation/front_camera/rgb", np.array([b"x"] * 6))
    assert any("front_camera frame 0" in w and "not used" in w for w in read_one(tmp_path).warnings)


def test_sizes_may_differ_between_cameras(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        large = np.array([encode(picture("left_camera", t, (96, 128))) for t in range(6)])
        replace(file, "observation/left_camera/rgb", large)
    episode = read_one(tmp_path)
    assert episode.metadata["source_sizes"]["left_camera"] == [96, 128]
    assert (episode.cameras["left_camera"].height, episode.cameras["head_camera"].height) == (96, 48)


def test_vector_is_rebuilt_when_absent_and_empty_groups_are_fine(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        rows = file["joint_action/vector"][()]
        del file["joint_action/vector"], file["endpose"], file["pointcloud"]
        file.create_group("endpose")
    assert np.array_equal(read_one(tmp_path).state, rows[:-1].astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite(tmp_path, value):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        for key in ("joint_action/vector", "joint_action/left_arm"):
            file[key][2, 3] = value
    assert "not finite at frame 2, column 3" in reason(tmp_path)


def test_implausible_numbers_are_warnings(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        for key, column in (("joint_action/vector", 13), ("joint_action/right_gripper", ())):
            file[key][(2, column) if column else 2] = 1.5
        for key in ("joint_action/vector", "joint_action/left_arm"):
            file[key][3, 0] += 2
    warnings = read_one(tmp_path).warnings
    assert any("gripper values reach" in w and "1.5" in w for w in warnings)
    assert any("rad between frames 2 and 3" in w for w in warnings)


@pytest.mark.parametrize(("change", "said"), [(1, "one is 1 minus the other"), (0, "left_gripper never changes")])
def test_a_gripper_that_the_file_itself_contradicts(tmp_path, change, said):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        values = file["joint_action/left_gripper"][()]
        values = 1 - values if change else 0 * values
        del file["joint_action/vector"]
        replace(file, "joint_action/left_gripper", values)
    found = reason(tmp_path)
    assert "endpose/left_gripper disagrees with joint_action/left_gripper at frame 0: 1 != 0" in found and said in found


def test_repeated_rows_are_kept(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        for node in file["joint_action"].values():
            node[3] = node[2]
    episode = read_one(tmp_path)
    assert len(episode.state) == 5 and np.array_equal(episode.state[2], episode.action[2]) and episode.warnings == ()


def test_v1_rows_in_reverse_order_are_called_so(tmp_path):
    folder = write_task(tmp_path, "v1", TASK, [0], variant="native")
    with recording(folder) as file:
        names: list[str] = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        for name in names:
            if file[name].shape and len(file[name]) == 5:
                replace(file, name, file[name][()][::-1])
    assert "action row t is the state of row t - 1 throughout: the rows are in reverse order" in reason(tmp_path)


def test_v1_actions_of_the_same_row_are_rebuilt(tmp_path):
    folder = write_task(tmp_path, "v1", TASK, [0], variant="converted")
    with recording(folder) as file:
        for name, node in file["action"].items():
            node[...] = file[f"state/{name}"][()]
        state = file["state/joint_states"][()]
    episode = read_one(tmp_path)
    assert np.array_equal(episode.state, state[:-1]) and np.array_equal(episode.action, state[1:])
    assert len(colours(episode.cameras["head_camera"])) == 4 and "rebuilt" in episode.metadata["rows"]


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("action/left_arm_joint_states", np.zeros((5, 6), np.float32), "action row 0 is neither state row 1"),
        ("state/right_ee_poses", np.zeros((4, 7)), "state/right_ee_poses has shape (4, 7)"),
        ("state/joint_states", np.zeros((5, 14), np.float32), "state/joint_states disagrees"),
        ("vision/cam_head/colors", SHORT[:4], "vision/cam_head/colors has 4 frames"),
        ("data_format_version", "v2.0", "data_format_version is 'v2.0'"),
    ],
)
def test_contradictions_inside_v1_files(tmp_path, key, value, part):
    folder = write_task(tmp_path, "v1", TASK, [0], variant="native")
    with recording(folder) as file:
        if key in file:
            del file[key]
        file[key] = value
    assert part in reason(tmp_path)


def test_other_hdf5_files(tmp_path):
    path = tmp_path / TASK / "data" / "episode_0.hdf5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["qpos"] = np.zeros(3)
    assert "not a RoboTwin recording" in reason(tmp_path) and "found qpos" in reason(tmp_path)


@pytest.mark.parametrize("kind", ["external link", "soft link through one", "virtual", "external storage", "soft loop"])
def test_data_of_other_files_is_refused(tmp_path, kind):
    folder = write_task(tmp_path / "root", "archive", TASK, [0])
    other = write_episode(tmp_path / "other.hdf5").path
    key = "joint_action/left_arm"
    with recording(folder) as file:
        del file[key]
        if kind == "external link":
            file[key] = h5py.ExternalLink(str(other), key)
        elif kind == "soft link through one":
            file["out"] = h5py.ExternalLink(str(other), "joint_action")
            file[key] = h5py.SoftLink("/out/left_arm")
        elif kind == "soft loop":
            file[key] = h5py.SoftLink(f"/{key}")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((6, 6), "f8")
            layout[:] = h5py.VirtualSource(str(other), key, (6, 6))
            file.create_virtual_dataset(key, layout)
        else:
            (tmp_path / "raw.bin").write_bytes(bytes(288))
            file.create_dataset(key, (6, 6), "f8", external=str(tmp_path / "raw.bin"))
    part = {"soft loop": "loop of soft links", "virtual": "other files", "external storage": "other files"}
    assert part.get(kind, "is an external link") in reason(tmp_path / "root")


def test_names_that_are_no_text_are_passed_over(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        file["observation"].create_group(b"\xff\xfe")
        file.create_group(b"\xff")
    assert read_one(tmp_path).metadata["cameras_not_used"] == ["front_camera"]


def test_soft_links_inside_the_file_are_fine(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        file.move("observation/head_camera", "elsewhere")
        file["observation/head_camera"] = h5py.SoftLink("/elsewhere")
    assert len(colours(read_one(tmp_path).cameras["head_camera"])) == 5


@pytest.mark.parametrize(
    ("key", "shape", "dtype", "part"),
    [
        ("joint_action/left_arm", (10**9, 6), "f8", "is plausible"),
        ("observation/head_camera/rgb", (6,), "S300000000", "MiB each"),
        ("observation/head_camera/rgb", (6, 9000, 9000, 3), "u1", "9000 x 9000 pixels"),
    ],
)
def test_absurd_sizes_are_refused_before_they_are_allocated(tmp_path, key, shape, dtype, part):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        del file[key]
        file.create_dataset(key, shape, dtype, chunks=tuple(min(side, 100) for side in shape))
    assert part in reason(tmp_path)


def test_arrays_larger_than_their_file_are_refused(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        del file["observation/head_camera/rgb"]
        file.create_dataset("observation/head_camera/rgb", (6,), "S99000000")
    assert "head_camera/rgb claims (6,) of |S99000000, more bytes than the whole file has" in reason(tmp_path)


@pytest.mark.parametrize(("camera", "taken"), [("front_camera", True), ("left_camera", False)])
def test_a_missing_filter_matters_in_cameras_that_are_used(tmp_path, monkeypatch, camera, taken):
    monkeypatch.setattr("h5py.h5z.filter_avail", lambda code: code != 32015)
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        stored = file["observation/left_camera/rgb"][()]
        group = file.require_group(f"observation/{camera}")
        group.pop("rgb", None)
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((len(stored),))
        created.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
        space, kind = h5py.h5s.create_simple(stored.shape), h5py.h5t.py_create(stored.dtype)
        h5py.h5d.create(group.id, b"rgb", kind, space, created).write_direct_chunk((0,), stored.tobytes())
    if not taken:
        assert f"{camera}/rgb is not damaged, but packed by HDF5 filter 32015 (zstd)" in reason(tmp_path)
        return
    told = [text for text in read_one(tmp_path).warnings if "filter 32015" in text]
    assert len(told) == 1 and told[0].endswith("(a camera that is not used)")


@pytest.mark.parametrize("kind", ["f2", "f4"])
def test_a_joined_vector_may_be_coarser_than_its_parts(tmp_path, kind):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        vector = file["joint_action/vector"][()].astype(kind)
        del file["joint_action/vector"]
        file["joint_action/vector"] = vector
    assert np.abs(read_one(tmp_path).state - vector[:-1]).max() < 1e-2
