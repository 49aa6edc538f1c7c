"""RoboTwin cameras that are mirrored or upside down: shown by the camera matrices and by the collector's video."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
import simplejpeg
from paths import DATA
from robotwin_files import write_task
from robotwin_reading import TASK, manifest, read_one, reason, recording, replace

from fwdata.errors import BadEpisode
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import measure
from fwdata.evidence.thumbnails import of_camera

PLACE = f"{TASK}/aloha-agilex_clean_50"
TURNS = {"as recorded": (1, 1), "mirrored": (1, -1), "upside down": (-1, 1)}


QUARTERS = {
    "turned by 90 degrees counterclockwise": 1,
    "turned by 180 degrees": 2,
    "turned by 90 degrees clockwise": 3,
}


def _turn(file, camera, turn):
    """turn: steps along rows and columns, or quarter turns of an image that keeps its size, below 0 of one that does
    not."""
    key = f"observation/{camera}/rgb"
    images = [simplejpeg.decode_jpeg(bytes(data).rstrip(b"\0")) for data in file[key][()]]
    if isinstance(turn, int):
        turned = [np.rot90(image, turn) for image in images]
        height, width = images[0].shape[:2] if turn > 0 else turned[0].shape[:2]
        down, across = (np.arange(n) * m // n for n, m in zip((height, width), turned[0].shape[:2], strict=True))
        shown = [image[down][:, across] for image in turned]
    else:
        shown = [image[:: turn[0], :: turn[1]] for image in images]
    stored = [simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95) for image in shown]
    replace(file, key, np.array(stored, dtype=f"S{max(map(len, stored))}"))


def _genuine(root, number, camera, turn, without=()):
    """A genuine recording, one camera turned."""
    folder = root / PLACE
    (folder / "data").mkdir(parents=True)
    shutil.copy(DATA / "robotwin" / PLACE / "data" / f"episode{number}.hdf5", folder / "data")
    with recording(folder) as file:
        _turn(file, camera, turn)
        for key in without:
            del file[key]
    return read_one(root)


def _verdicts(episode, camera):
    """What the orientation detectors say of a camera: detector -> (verdict, what was measured)."""
    shown = {camera: of_camera(episode.cameras[camera], len(episode.state))}
    names = tuple(episode.state_names), tuple(episode.action_names)
    times, hz = episode.timestamp_ns / 1e9, manifest().fps.hz
    rows = (episode.state, episode.action, *names, times, hz, "", episode.conventions)
    found = measure(EpisodeInput("e", "g", *rows, shown))
    kinds = ("camera_up_down", "camera_left_right", "wrist_left_right", "camera_quarter_turn")
    return {v.detector: v for v in found.verdicts if v.detector in kinds and v.subject == camera}


@pytest.mark.parametrize(("number", "camera"), [(0, "left_camera"), (1, "right_camera")])
@pytest.mark.parametrize("turn", ["as recorded", "mirrored"])
def test_a_mirrored_wrist_camera_contradicts_its_poses(tmp_path, number, camera, turn):
    verdict = _verdicts(_genuine(tmp_path, number, camera, TURNS[turn]), camera)["wrist_left_right"]
    assert verdict.verdict == ("confirmed" if turn == "as recorded" else "contradicted")
    assert abs(verdict.value) > 0.8 and verdict.action == "warn"
    assert turn == "as recorded" or verdict.measured == "mirrored"


@pytest.mark.parametrize(("number", "camera"), [(0, "left_camera"), (1, "right_camera")])
@pytest.mark.parametrize("turn", [(1, 1), (1, -1), 1, 2, 3])
def test_a_wrist_camera_turned_by_90_degrees_contradicts_its_poses(tmp_path, number, camera, turn):
    verdict = _verdicts(_genuine(tmp_path, number, camera, turn), camera)["camera_quarter_turn"]
    quarter = isinstance(turn, int) and turn != 2
    assert verdict.measured == ("turned by 90 degrees" if quarter else "an upright image")
    assert verdict.verdict == ("contradicted" if quarter else "confirmed") and verdict.action == "warn"


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_head_camera_contradicts_its_pose(tmp_path, turn):
    found = _verdicts(_genuine(tmp_path, 0, "head_camera", TURNS[turn]), "head_camera")
    assert found["camera_up_down"].verdict == ("contradicted" if turn == "upside down" else "confirmed")
    assert found["camera_left_right"].verdict == ("contradicted" if turn == "mirrored" else "confirmed")


@pytest.mark.parametrize("number", [0, 1])
def test_a_head_camera_that_is_turned_by_90_degrees_is_found_by_where_things_move(tmp_path, number):
    for turn in ((1, 1), *QUARTERS.values()):
        root = tmp_path / str(turn)
        found = _verdicts(_genuine(root, number, "head_camera", turn), "head_camera")["camera_quarter_turn"]
        said = next((name for name, quarter in QUARTERS.items() if quarter == turn), "an upright image")
        assert found.measured == said and found.action == "stop"
        assert found.verdict == ("confirmed" if turn == (1, 1) else "contradicted")


@pytest.mark.parametrize("camera", ["head_camera", "left_camera"])
def test_images_of_swapped_sides_are_named(tmp_path, camera):
    key = f"observation/{camera}/intrinsic_cv"
    with pytest.raises(BadEpisode, match=r"320 x 240 pixels .height x width., its camera matrix .* is of 240 x 320"):
        _genuine(tmp_path / "a", 0, camera, -1)
    plain = _genuine(tmp_path / "b", 0, camera, -1, [key, f"observation/{camera}/extrinsic_cv"])
    assert any(f"{camera} has images of 240x320 pixels" in text and "turned by 90" in text for text in plain.warnings)
    verdict = _verdicts(plain, camera)["camera_quarter_turn"]
    assert (verdict.verdict, verdict.detail, verdict.decided) == (
        "no evidence",
        "no layout or camera pose tells it",
        "an upright image",
    )


@pytest.mark.parametrize("lost", ["observation/left_camera/extrinsic_cv", "observation/left_camera"])
def test_without_poses_nothing_is_claimed(tmp_path, lost):
    episode = _genuine(tmp_path, 0, "head_camera", (1, 1), [lost] if lost.endswith("cv") else [f"{lost}/extrinsic_cv"])
    assert "left_camera" not in {claim.name for claim in episode.conventions.cameras}


@pytest.mark.parametrize(("turn", "said"), [((1, -1), "mirrored"), ((-1, -1), "rotated by 180 degrees")])
def test_a_head_camera_that_is_turned_against_its_video(tmp_path, turn, said):
    folder = write_task(tmp_path, "archive", TASK, [0], video=True)
    with recording(folder) as file:
        _turn(file, "head_camera", turn)
    found = reason(tmp_path)
    assert f"head_camera is {said} against episode0.mp4" in found and "contradicts the colours" not in found


def test_rows_in_reverse_order_against_the_video_are_refused(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0], video=True)
    assert read_one(tmp_path).metadata["colour_check"]["verdict"] == "agrees"
    with recording(folder) as file:
        names: list[str] = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        for name in names:
            if file[name].shape and len(file[name]) == 6:
                replace(file, name, file[name][()][::-1])
    assert "head_camera frame 5, and not frame 0, is the first one of episode0.mp4" in reason(tmp_path)


def test_a_video_of_another_length_is_reported(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0], num_frames=12, video=True)
    with recording(folder) as file:
        names: list[str] = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        for name in names:
            if file[name].shape and len(file[name]) == 12:
                replace(file, name, file[name][::2])
    assert any("episode0.mp4 has 12 frames, the recording 6" in text for text in read_one(tmp_path).warnings)


def test_joints_cut_to_integers_are_refused(tmp_path):
    folder = write_task(tmp_path, "archive", TASK, [0])
    with recording(folder) as file:
        replace(file, "joint_action/left_arm", file["joint_action/left_arm"][()].astype(np.int32))
    assert "joint_action/left_arm must be floating-point numbers" in reason(tmp_path)
