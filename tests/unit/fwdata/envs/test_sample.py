"""The sample world: determinism, the expert, closed-loop rules, pictures and the RoboTwin files it writes."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import simplejpeg

from fwdata.envs.sample import TASKS, SampleEnv, find_task, random_clips, random_views, write_sample
from fwdata.envs.sample.env import HOLD_STEPS, episode_scene, expert_rollout
from fwdata.envs.sample.record_robotwin import JPEG_MARK, encode_video
from fwdata.envs.sample.world import (
    CLOSED,
    MAX_GRIPPER_STEP,
    MAX_JOINT_STEP,
    TWO_ARMS,
    arm_pose,
    elbow_and_hand,
    expert_action,
)
from fwdata.errors import FwdataError, UsageError

CAMERAS = {"head_camera", "left_camera", "right_camera"}
M_PERTURB = -6
"""Of malloc.h: what memory is filled with when it is allocated or freed."""


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def differing(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """A line for each file that differs between the trees: its name, both sizes, where it differs first and last."""
    lines = []
    for name in sorted(first.keys() | second.keys()):
        a, b = first.get(name, b""), second.get(name, b"")
        if a != b or (name in first) != (name in second):
            at = [k for k in range(min(len(a), len(b))) if a[k] != b[k]] or [min(len(a), len(b))]
            lines.append(f"{name}: {len(a)} and {len(b)} bytes, {len(at)} differ, from byte {at[0]} to {at[-1]}")
    return lines


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("classic")
    report = write_sample("robotwin", out, 3, seed=5)
    assert (report.episodes, report.written) == (3, 3)
    return out


def test_expert_solves_every_evaluation_episode_with_moderate_steps():
    env = SampleEnv("robotwin", pixels=(16, 16))
    lengths = []
    for episode in range(8):
        observations = expert_rollout(env, seed=3, episode=episode, split="eval")
        assert env.success and env.done
        states = np.stack([observation.state for observation in observations])
        steps = np.abs(np.diff(states, axis=0)).reshape(-1, 2, 7)
        assert steps[..., :6].max() < MAX_JOINT_STEP
        assert steps[..., 6].max() < MAX_GRIPPER_STEP
        lengths.append(len(observations))
    assert min(lengths) >= 20 and max(lengths) <= 55


def test_random_and_idle_policies_fail():
    env = SampleEnv("robotwin", pixels=(16, 16))
    states = np.stack([o.state for e in range(2) for o in expert_rollout(env, 0, e, "record")])
    mean, std = states.mean(0), states.std(0)
    rng = np.random.default_rng(0)
    for episode in range(2):
        env.reset(1, episode)
        while not env.done:
            env.step(mean + std * rng.standard_normal(14))
        assert not env.success
    observation = env.reset(1, 0)
    while not env.done:
        observation = env.step(observation.state)
    assert not env.success and env.steps == env.step_limit


def test_following_the_other_instruction_presses_the_wrong_button():
    env = SampleEnv("robotwin")
    for episode in range(4):
        observation = env.reset(2, episode)
        other = TASKS[1 - episode % 2]
        while not env.done:
            observation = env.step(expert_action(env.scene, other, observation.state))
        assert not env.success and env.steps < env.step_limit


def test_a_short_touch_is_no_press():
    env = SampleEnv("robotwin")
    observation = env.reset(0, 0)
    closed = 0
    while closed < HOLD_STEPS - 3:
        observation = env.step(env.expert_action())
        closed += bool(observation.state[[6, 13]].min() <= CLOSED)
    assert not env.success
    opened = observation.state.copy()
    opened[[6, 13]] = 1.0
    for _ in range(3):
        env.step(opened)
    assert not env.success and not env.done


def test_pictures_before_the_first_action_do_not_tell_the_task():
    task, scene = episode_scene("robotwin", 0, 0, "eval")
    other = next(t for t in TASKS if t != task)
    first, second = (expert_action(scene, t, scene.start_state()) for t in (task, other))
    assert scene.pressing_arm(task) != scene.pressing_arm(other)
    assert np.abs(first - second).max() > 0.005
    assert env_instruction(0) != env_instruction(1)


def env_instruction(episode: int) -> str:
    return SampleEnv("robotwin").reset(0, episode).instruction


def test_same_seed_and_episode_give_the_same_pictures_and_other_splits_others():
    a, b = SampleEnv("robotwin").reset(4, 7), SampleEnv("robotwin").reset(4, 7)
    recorded = SampleEnv("robotwin").reset(4, 7, "record")
    assert a.cameras.keys() == CAMERAS
    for name, picture in a.cameras.items():
        assert picture.shape == (48, 64, 3) and picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, b.cameras[name])
        assert (picture != recorded.cameras[name]).any()
    assert a.state.shape == (14,) and a.state.dtype == np.float32
    assert (a.state != recorded.state).any()


def test_red_button_is_red_and_four_frames_show_motion():
    env = SampleEnv("robotwin")
    observations = expert_rollout(env, 0, 0, "record")
    head = [o.cameras["head_camera"].astype(int) for o in observations]
    red = (head[0][..., 0] > 150) & (head[0][..., 1:].max(-1) < 90)
    blue = (head[0][..., 2] > 150) & (head[0][..., :2].max(-1) < 110)
    assert red.sum() > 40 and blue.sum() > 40
    rows, columns = np.nonzero(red)
    x, y = env.scene.button("red").centre
    assert abs((columns.mean() + 0.5) / 64 * 0.88 - 0.44 - x) < 0.02
    assert abs(0.25 + 0.33 - (rows.mean() + 0.5) / 48 * 0.66 - y) < 0.02
    assert all((np.abs(head[t + 4] - head[t]).max(-1) > 30).sum() >= 10 for t in range(0, 16, 4))


def test_arm_pose_reaches_the_hand_position():
    for arm in TWO_ARMS.arms:
        for hand in ((arm.home[0], arm.home[1]), (arm.base[0] + 0.05, 0.42)):
            reached = elbow_and_hand(arm, arm_pose(arm, hand, 0.5))[1]
            assert np.hypot(reached[0] - hand[0], reached[1] - hand[1]) < 1e-9


def test_step_limits_motion_and_ignores_numbers_that_are_not_finite():
    env = SampleEnv("robotwin")
    before = env.reset(0, 0).state
    action = np.full(14, 50.0, np.float32)
    action[3] = np.nan
    after = env.step(action).state
    assert after[3] == before[3]
    np.testing.assert_allclose(after[:3] - before[:3], MAX_JOINT_STEP, rtol=1e-4)
    assert after[6] == 1.0
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(7))
    with pytest.raises(ValueError, match="reset"):
        SampleEnv("robotwin").step(action)


def test_random_clips_and_views_have_the_promised_shapes():
    clips = list(random_clips(np.random.default_rng(0), 6))
    assert len(clips) == 6 and all(clip.keys() == CAMERAS for clip in clips)
    assert all(f.shape == (9, 48, 64, 3) and f.dtype == np.uint8 for clip in clips for f in clip.values())
    again = list(random_clips(np.random.default_rng(0), 6))
    assert all((a[k] == b[k]).all() for a, b in zip(clips, again, strict=True) for k in CAMERAS)
    (view,) = random_views(np.random.default_rng(0), 1, pixels=(24, 32))
    assert view["left_camera"].shape == (24, 32, 3)


def test_classic_files_hold_what_the_world_showed(classic: Path):
    folder = classic / "press_blue_button" / "aloha-agilex_clean_1"
    assert (folder / "seed.txt").read_text() == "500001 "
    assert (folder / "video" / "episode0.mp4").stat().st_size > 500
    text = json.loads((folder / "instructions" / "episode0.json").read_text())
    assert text["seen"][0] == "Press the blue button." and len(text["seen"]) == 10 and len(text["unseen"]) == 5
    info = json.loads((folder / "scene_info.json").read_text())["episode_0"]["info"]
    observations = expert_rollout(SampleEnv("robotwin"), 5, 1, "record")
    with h5py.File(folder / "data" / "episode0.hdf5") as file:
        vector = file["joint_action/vector"][:]
        assert vector.dtype == np.float64
        np.testing.assert_array_equal(vector, np.stack([o.state for o in observations]).astype(np.float64))
        np.testing.assert_array_equal(vector[:, 7:13], file["joint_action/right_arm"][:])
        np.testing.assert_array_equal(vector[:, 6], file["endpose/left_gripper"][:])
        assert file["pointcloud"].shape == (len(vector), 0)
        assert set(file["observation"]) == CAMERAS
        moved = int(np.ptp(vector[:, 7:13], axis=0).max() > np.ptp(vector[:, :6], axis=0).max())
        assert info == {"{A}": "blue button", "{a}": ("left", "right")[moved]}
        for camera in CAMERAS:
            group = file["observation"][camera]
            assert group["rgb"].dtype.kind == "S" and group["extrinsic_cv"].shape == (len(vector), 3, 4)
            for row in (0, len(vector) - 1):
                swapped = simplejpeg.decode_jpeg(group["rgb"][row], colorspace="RGB")
                error = np.abs(swapped[..., ::-1].astype(int) - observations[row].cameras[camera]).mean()
                assert error < 6


def test_hand_lies_in_the_middle_of_its_wrist_camera(classic: Path):
    path = classic / "press_red_button" / "aloha-agilex_clean_2" / "data" / "episode1.hdf5"
    with h5py.File(path) as file:
        hand = file["endpose/left_endpose"][3, :3]
        group = file["observation/left_camera"]
        seen = group["extrinsic_cv"][3] @ np.array([hand[0], hand[1], 0.0, 1.0])
        pixel = group["intrinsic_cv"][3] @ seen
        gl = group["cam2world_gl"][3]
    np.testing.assert_allclose(pixel[:2] / pixel[2], [32, 24], atol=1e-3)
    np.testing.assert_allclose(gl[:2, 3], hand[:2], atol=1e-6)


def test_writing_again_gives_the_same_bytes_and_resumes(classic: Path, tmp_path: Path):
    first = tree(classic)
    write_sample("robotwin", tmp_path, 3, seed=5)
    assert not differing(tree(tmp_path), first)
    lost = tmp_path / "press_red_button" / "aloha-agilex_clean_2" / "data" / "episode1.hdf5"
    lost.write_bytes(lost.read_bytes()[:5000])
    report = write_sample("robotwin", tmp_path, 3, seed=5)
    assert report.written == 1 and report.frames > 60
    assert report.bytes == sum(len(b) for name, b in first.items() if name.endswith(".hdf5"))
    assert not differing(tree(tmp_path), first)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt of glibc")
def test_a_video_does_not_depend_on_what_memory_held_before():
    seen = expert_rollout(SampleEnv("robotwin", pixels=(60, 80)), 5, 0, "record")
    pictures = [observation.cameras["head_camera"] for observation in seen]
    library, found = ctypes.CDLL(None), set()
    try:
        for filled_with in (0, 90, 165, 255):
            library.mallopt(M_PERTURB, filled_with)
            found.add(encode_video(pictures))
    finally:
        library.mallopt(M_PERTURB, 0)
    assert len(found) == 1


def test_other_recordings_in_the_folder_are_refused(classic: Path, tmp_path: Path):
    before = tree(classic)
    with pytest.raises(UsageError, match=r"made with --seed 5, but . with --seed 6"):
        write_sample("robotwin", classic, 3, seed=6)
    with pytest.raises(UsageError, match="already holds aloha-agilex_clean_2"):
        write_sample("robotwin", classic, 6, seed=5)
    with pytest.raises(UsageError, match="64x48 images, but 80x60"):
        write_sample("robotwin", classic, 3, seed=5, camera_size=(60, 80))
    assert not differing(tree(classic), before)
    (tmp_path / "press_red_button" / "aloha-agilex_clean_1" / "data").mkdir(parents=True)
    with pytest.raises(UsageError, match="did not write"):
        write_sample("robotwin", tmp_path, 1)


def test_v1_files_are_marked_and_drop_the_last_instant(tmp_path: Path):
    report = write_sample("robotwin", tmp_path, 1, seed=5, variant="v1.0", camera_size=(24, 32))
    folder = tmp_path / "demo_clean" / "press_red_button" / "aloha_agilex"
    observations = expert_rollout(SampleEnv("robotwin", pixels=(24, 32)), 5, 0, "record")
    assert (folder / "instruction" / "episode_0000000.json").is_file()
    with h5py.File(folder / "data" / "episode_0000000.hdf5") as file:
        assert file["data_format_version"][()] == b"v1.0" and file.attrs["source_path"] == "native_collection"
        assert len(json.loads(file["instructions"][()])) == 10
        state, action = file["state/left_arm_joint_states"][:], file["action/left_arm_joint_states"][:]
        assert state.dtype == np.float32 and len(state) == len(observations) - 1 == report.frames
        np.testing.assert_array_equal(action[:-1], state[1:])
        np.testing.assert_array_equal(action[-1], observations[-1].state[:6])
        stream = file["vision/cam_head/colors"][0]
        assert stream[20:32] == JPEG_MARK
        picture = simplejpeg.decode_jpeg(stream, colorspace="RGB")
        assert np.abs(picture.astype(int) - observations[0].cameras["head_camera"]).mean() < 8
        np.testing.assert_array_equal(file["vision/cam_head/shape"][:], [24, 32, 3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "hdf5"}, "available: robotwin, lerobot, r1lite, libero"),
        ({"kind": "libero", "variant": "classic"}, "libero has no variant 'classic' here"),
        ({"episodes": 0}, "at least 1"),
        ({"seed": -1}, "not negative"),
        ({"camera_size": (47, 64)}, "even"),
        ({"variant": "v1"}, "did you mean 'v1.0'"),
    ],
)
def test_wrong_requests_say_what_is_possible(tmp_path: Path, arguments: dict[str, object], message: str):
    request = {"kind": "robotwin", "out": tmp_path / "x", "episodes": 1, "seed": 0} | arguments
    with pytest.raises(UsageError, match=message):
        write_sample(**request)
    assert not (tmp_path / "x").exists()


def test_a_file_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(UsageError, match="taken is a file"):
        write_sample("robotwin", tmp_path / "taken", 1)
    (tmp_path / "press_red_button").write_text("x")
    with pytest.raises(FwdataError, match="cannot write"):
        write_sample("robotwin", tmp_path, 1)


def test_tasks_are_found_by_name():
    assert find_task("press_red_button").colour == "red"
    with pytest.raises(UsageError, match="did you mean 'press_blue_button'"):
        find_task("press_blu_button")
    for task in TASKS:
        assert len(set(task.seen + task.unseen)) == 15
        assert all(task.colour in text and "@" not in text for text in task.seen + task.unseen)
