"""What a LIBERO file's numbers and images mean is measured: gripper, actions, orientation of each camera."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from fixtures import run_convert
from libero_files import moving, paint, write_file
from libero_reading import FILE, converter, manifest, pixels, read_all, read_one, reason, warnings_of
from paths import DATA

import fwdata
from fwdata.api import UsageError
from fwdata.cli import app
from fwdata.console import run_app
from fwdata.manifest import ManifestError
from fwdata.store.evidence import read_evidence

NAME = "pick_up_the_tomato_sauce_and_place_it_in_the_basket"
SAMPLE = DATA / "libero" / "libero_object" / f"{NAME}_demo.hdf5"
ROWS = 40


def _commands(path, change, demos=("demo_0",)):
    with h5py.File(path, "r+") as file:
        for demo in demos:
            node = file[f"data/{demo}/actions"]
            actions = node[()]
            actions[:, 6] = change(actions[:, 6])
            node[...] = actions


def _opened(file, demo, closing_at):
    """Fingers that close after row `closing_at` and open again ten rows before the end."""
    width = np.full(len(file[f"data/{demo}/actions"]), 0.04)
    width[closing_at : closing_at + 4], width[closing_at + 4 : -10] = 0.025, 0.01
    file[f"data/{demo}/obs/gripper_states"][...] = np.stack([width, -width], axis=1)


@pytest.fixture
def task(tmp_path):
    """A raw file whose gripper closes at row 15 and opens at 28; demo_1's never moves."""
    actions = moving(ROWS)
    actions[:, 6] = -1
    actions[13:28, 6] = 1
    path = tmp_path / FILE
    write_file(path, [0, 1], num_frames=ROWS, size=(8, 8), actions=actions)
    with h5py.File(path, "r+") as file:
        _opened(file, "demo_0", 15)
        still = file["data/demo_1/actions"][()]
        still[:, 6] = 0
        file["data/demo_1/actions"][...] = still
        file["data/demo_1/obs/gripper_states"][...] = [0.04, -0.04]
    return path


OPEN_ROWS = [0, 5, 12, 30, 39]
CLOSED_ROWS = [13, 20, 27]


@pytest.mark.parametrize(
    ("change", "opens"),
    [
        (lambda g: g, False),
        (lambda g: -g, True),
        (lambda g: (g + 1) / 2, False),
        (lambda g: (1 - g) / 2, True),
    ],
    ids=["as published", "inverted", "1 closes", "1 opens"],
)
def test_the_gripper_is_one_when_open_whichever_way_it_was_commanded(tmp_path, task, change, opens):
    _commands(task, change)
    first, second = read_all(tmp_path)
    assert first.action[OPEN_ROWS, 6].tolist() == [1] * 5 and first.action[CLOSED_ROWS, 6].tolist() == [0] * 3
    assert "2 of 2 switches" in str(first.metadata["gripper_decided_by"])
    told = [text for text in warnings_of(first) if "the reverse of LIBERO's -1 open / +1 close" in text]
    assert bool(told) == opens and (not told or "correlation" in told[0])
    assert "measured in demo_0" in str(second.metadata["gripper_decided_by"])  # its own gripper never moves
    unset = [text for text in warnings_of(second) if "command is 0 in every row, where demo_0 has -1 and 1" in text]
    assert bool(unset) == (change(1.0) == 1 and change(-1.0) == -1)


def test_gripper_commands_that_are_all_0_are_reported(tmp_path, task):
    _commands(task, lambda g: 0 * g)
    with h5py.File(task, "r+") as file:
        del file["data/demo_1"]
    assert any("gripper commands are 0 .. 0 instead of -1 and 1" in text for text in warnings_of(read_one(tmp_path)))


@pytest.mark.parametrize(("kind", "frames"), [("signed", 0.5), ("unit", 1.0)])
def test_a_gripper_of_which_nothing_tells(tmp_path, task, kind, frames):
    with h5py.File(task, "r+") as file:
        del file["data/demo_1"]
        file["data/demo_0/obs/gripper_states"][...] = [0.04, -0.04]
    if kind == "unit":
        _commands(task, lambda g: (g + 1) / 2)
    episode = read_one(tmp_path)
    assert str(episode.metadata["gripper_decided_by"]).startswith("default")
    told = [text for text in warnings_of(episode) if "no switch moves the fingers" in text]
    assert bool(told) == (kind == "unit")
    forced = read_one(tmp_path, gripper="plus_opens")
    assert np.array_equal(forced.action[:, 6], 1 - episode.action[:, 6])
    assert forced.metadata["gripper_decided_by"] == "option gripper = plus_opens"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda g: np.linspace(0.02, 0.08, len(g)), "0.02 .. 0.08, probably widths in m"),
        (lambda g: 0.04 * g, "-0.04 .. 0.04, probably widths in m"),
        (lambda g: 0.3 * g, "-0.3 .. 0.3, on another scale"),
        (lambda g: 50 * (1 + g), "0 .. 100; expected -1 open and +1 close, or 0 and 1"),
        (lambda g: 255 * (g > 0), "0 .. 255; expected"),
    ],
)
def test_gripper_commands_of_other_scales_are_refused(tmp_path, task, change, part):
    _commands(task, change)
    assert part in reason(tmp_path)


def test_the_genuine_gripper_and_its_reverse(tmp_path):
    path = tmp_path / FILE
    path.parent.mkdir()
    shutil.copy(SAMPLE, path)
    right = read_one(tmp_path)
    _commands(path, lambda g: -g, ("demo_0", "demo_1"))
    turned = read_one(tmp_path)
    assert np.array_equal(right.action, turned.action)
    assert warnings_of(right) == [] and "the reverse of LIBERO's" in warnings_of(turned)[0]


# Actions


def _absolute(path, values):
    with h5py.File(path, "r+") as file:
        demo = file["data/demo_0"]
        goal = demo[f"obs/{values}"][()][:, :6]
        actions = demo["actions"][()]
        actions[:, :6] = np.concatenate([goal[2:], goal[-1:], goal[-1:]])
        demo["actions"][...] = actions


@pytest.mark.parametrize(
    ("values", "what"), [("ee_states", "end effector's position"), ("joint_states", "joint angles")]
)
def test_absolute_actions_are_recognised(tmp_path, values, what):
    path = tmp_path / FILE
    path.parent.mkdir()
    shutil.copy(SAMPLE, path)
    with h5py.File(path, "r+") as file:
        del file["data/demo_1"]
    assert read_one(tmp_path).conventions.action == "delta"
    _absolute(path, values)
    assert "hold absolute targets, not LIBERO's delta commands" in reason(tmp_path) and what in reason(tmp_path)


def test_absolute_actions_as_the_option_says(tmp_path):
    path = tmp_path / FILE
    path.parent.mkdir()
    shutil.copy(SAMPLE, path)
    _absolute(path, "ee_states")
    with pytest.raises(UsageError, match=r"absolute_actions needs normalisation.delta_actions: \[\]"):
        converter(absolute_actions=True)
    plain = manifest().model_dump()
    plain["normalisation"]["delta_actions"], plain["options"] = (), {"absolute_actions": True}
    from converters.libero import Converter

    made = Converter(manifest().model_validate(plain))
    episode = made.read(tmp_path, made.discover(tmp_path).episodes[0])
    assert episode.action_names[0] == "target_position_x" and episode.conventions.action == "absolute"
    assert episode.conventions.options["action_meaning"] == "--no-absolute-actions"
    assert not any("actions reach" in text for text in episode.warnings)  # positions and angles may


# Orientation of each camera

TURNS = {"rot180": (1, 1), "none": (-1, -1), "mirror": (-1, 1), "flip_vertical": (1, -1)}
"""What the converter must do -> how raw frames are turned beforehand."""


def _scene(path, turn=(1, 1), still=False):
    """No attributes; a bright patch moves as the arm does in raw frames, down as it rises, right towards +y."""
    write_file(path, [0, 1], "openvla", num_frames=60, size=(32, 32))
    height, side = 0.2 * np.sin(np.arange(60) / 9), 0.3 * np.sin(np.arange(60) / 6 + 1)
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            pose = demo["obs/ee_states"][()]
            pose[:, 1], pose[:, 2] = side, height + 0.9
            demo["obs/ee_states"][...], demo["obs/ee_pos"][...] = pose, pose[:, :3]
            frames = np.full((60, 32, 32, 3), 60, np.uint8)
            for frame, z, y in zip(frames, height, side, strict=True):
                row, column = (16, 16) if still else (round(14 + 55 * z), round(14 + 35 * y))
                frame[row : row + 4, column : column + 4] = 220
            demo["obs/agentview_rgb"][...] = frames[:, :: turn[0], :: turn[1]]
            demo["obs/joint_states"][...] = demo["states"][:, 1:8]


@pytest.mark.parametrize("expected", TURNS)
def test_the_fixed_camera_is_turned_by_what_moves_in_it(tmp_path, expected):
    _scene(tmp_path / "right" / FILE)
    right = read_one(tmp_path / "right")
    _scene(tmp_path / "turned" / FILE, TURNS[expected])
    episode = read_one(tmp_path / "turned")
    for camera in ("image", "wrist_image"):
        assert np.array_equal(pixels(episode, camera), pixels(right, camera))
    told = [text for text in warnings_of(episode) if "the cameras are turned differently" in text]
    spelt = expected if expected == "rot180" else f"image={expected},wrist_image=rot180"
    assert bool(told) == (expected != "rot180") and episode.metadata["rotation"] == spelt


def test_demonstrations_of_one_file_that_are_turned_differently(tmp_path):
    _scene(tmp_path / FILE)
    right = read_one(tmp_path)
    with h5py.File(tmp_path / FILE, "r+") as file:  # demo_1 is of a file whose frames were rotated already
        for name in ("agentview_rgb", "eye_in_hand_rgb"):
            node = file[f"data/demo_1/obs/{name}"]
            node[...] = file[f"data/demo_0/obs/{name}"][()][:, ::-1, ::-1]
    first, second = read_all(tmp_path)
    assert (first.metadata["rotation"], second.metadata["rotation"]) == ("rot180", "none")
    for camera in ("image", "wrist_image"):
        assert np.array_equal(pixels(first, camera), pixels(right, camera))
        assert np.array_equal(pixels(second, camera), pixels(right, camera))
    assert not any("turned differently" in text for text in (*warnings_of(first), *warnings_of(second)))


def test_a_camera_that_looks_straight_down_tells_nothing_of_the_height(tmp_path):
    _scene(tmp_path / FILE)
    with h5py.File(tmp_path / FILE, "r+") as file:
        for demo in file["data"].values():
            pose = demo["obs/ee_states"][()]
            pose[:, 0] = pose[:, 2] - 0.9  # what goes down in the image goes away from the robot
            pose[:, 2] = 0.9 - 0.8 * pose[:, 0] + 0.05 * np.sin(np.arange(60) / 2)
            demo["obs/ee_states"][...], demo["obs/ee_pos"][...] = pose, pose[:, :3]
    episode = read_one(tmp_path)
    assert episode.metadata["rotation"] == "rot180"
    assert not any("the cameras are turned differently" in text for text in warnings_of(episode))


@pytest.mark.slow
@pytest.mark.parametrize("still", [False, True])
def test_the_fixed_camera_tells_where_the_gripper_does_not(tmp_path, still):
    _scene(tmp_path / FILE, (-1, -1), still)
    with h5py.File(tmp_path / FILE, "r+") as file:
        for demo in file["data"].values():
            paint(demo["obs/eye_in_hand_rgb"], 200)
    episode = read_one(tmp_path)
    assert episode.metadata["rotation"] == ("rot180" if still else "none")
    assert ("what moves in agentview_rgb" in str(episode.metadata["rotation_decided_by"])) == (not still)
    assert any("nothing tells" in text for text in warnings_of(episode)) == still


@pytest.mark.parametrize("option", ["image=mirror,wrist_image=none", {"image": "mirror", "wrist_image": "none"}])
def test_a_rotation_for_each_camera(tmp_path, option):
    write_file(tmp_path / FILE, [0])
    with h5py.File(tmp_path / FILE) as file:
        stored = {name: file[f"data/demo_0/obs/{name}"][()] for name in ("agentview_rgb", "eye_in_hand_rgb")}
    episode = read_one(tmp_path, rotation=option)
    assert np.array_equal(pixels(episode, "image"), stored["agentview_rgb"][:, :, ::-1])
    assert np.array_equal(pixels(episode, "wrist_image"), stored["eye_in_hand_rgb"])
    assert episode.metadata["rotation"] == "image=mirror,wrist_image=none"
    assert [claim.chosen for claim in episode.conventions.cameras] == [True, True]
    one = read_one(tmp_path, rotation={"image": "mirror"})
    assert one.metadata["rotation"] == "image=mirror,wrist_image=rot180"
    assert [claim.name for claim in one.conventions.cameras if claim.chosen] == ["image"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "wrong"),
    [("rot180", ()), ("none", ("up_down", "left_right")), ("image=mirror", ("up_down",))],
)
def test_a_rotation_that_an_option_forces_is_measured_too(tmp_path, capsys, monkeypatch, option, wrong):
    _scene(tmp_path / "raw" / FILE)
    made = manifest().model_copy(update={"options": {"rotation": option}})
    run_convert(tmp_path / "raw", tmp_path / "s.zarr", made)
    record = read_evidence(fwdata.open(tmp_path / "s.zarr").files)
    told = {v.detector: v for v in record.verdicts() if v.subject == "image"}
    for direction in ("up_down", "left_right"):
        verdict = told[f"camera_{direction}"]
        expected = ("contradicted", "warn") if direction in wrong else ("confirmed", "note")
        assert (verdict.verdict, verdict.action) == expected
    monkeypatch.setattr("sys.argv", ["fwdata", "doctor", str(tmp_path / "s.zarr")])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    assert not ended.value.code  # the user's choice stops nothing
    printed = capsys.readouterr().out
    assert ("--rotation image=rot180" in printed) == bool(wrong)


def test_rotations_that_do_not_exist(tmp_path):
    for wrong in ("upside", "image=upside", {"image": "upside"}):
        with pytest.raises((UsageError, ManifestError), match="rotation"):
            converter(rotation=wrong)
    for wrong, told in (
        ("wrist=none", "no camera is called 'wrist'; did you mean 'wrist_image'"),
        ({"agentview": "mirror"}, "no camera is called 'agentview'; known: image, wrist_image"),
        ("image=mirror,image=none", "names image more than once"),
    ):
        with pytest.raises((UsageError, ManifestError), match=told):
            converter(rotation=wrong)
    assert read_one(_raw(tmp_path), rotation="mirror").metadata["rotation"] == "mirror"


def _raw(folder):
    write_file(folder / FILE, [0])
    return folder


def test_a_store_keeps_the_rotation_of_each_camera(tmp_path):
    options = {"rotation": "image=mirror,wrist_image=none"}
    made = manifest().model_copy(update={"options": options})
    run_convert(_raw(tmp_path / "raw"), tmp_path / "s.zarr", made)
    again = run_convert(tmp_path / "raw", tmp_path / "s.zarr", made)
    store = fwdata.open(tmp_path / "s.zarr")
    assert again.new_episodes == 0 and store.episodes[0].metadata["rotation"] == "image=mirror,wrist_image=none"
