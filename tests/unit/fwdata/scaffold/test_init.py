"""A new robot: `fwdata init` writes files that pass at once, also from a recording of one's own."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import r1lite_files
from commands import Command
from PIL import Image

import fwdata
from fwdata.errors import UsageError
from fwdata.manifest import load_manifest
from fwdata.pipeline.registry import load_converter
from fwdata.scaffold.check import check_converter
from fwdata.scaffold.init import init

FRAMES = 15
JOINTS = ("joint_0", "joint_1", "gripper_state")


def images(seed: int = 0, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (FRAMES, size[0] // 10, size[1] // 10, 3), np.uint8).repeat(10, 1).repeat(10, 2)


def folder_recording(folder: Path, seed: int = 0) -> Path:
    """PNG files and a CSV table, as people record them."""
    rng = np.random.default_rng(seed)
    for camera in ("cam left", "wrist"):
        (folder / camera).mkdir(parents=True)
        for i, frame in enumerate(images(seed)):
            Image.fromarray(frame).save(folder / camera / f"{i:04d}.png")
    with (folder / "log.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["timestamp", "joint_0", "joint_1", "gripper_state", "action_0", "action_1"])
        table.writerows([[f"{i / 20:.3f}", *(f"{v:.5f}" for v in rng.normal(size=5))] for i in range(FRAMES)])
    return folder


def write_clip(path: Path, frames: np.ndarray) -> None:
    """An MP4 whose pixels are exactly those of `frames`."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264rgb", rate=25, options={"qp": "0"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())


def video_recording(folder: Path, seed: int = 0) -> Path:
    """An NPZ of arrays, a video per camera and the instruction as a text file."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for camera, size in (("front", (40, 60)), ("wrist", (30, 40))):
        write_clip(folder / f"{camera}.mp4", images(seed, size))
    (folder / "task.txt").write_text(f"stack cup {seed}\n")
    values = {"qpos": rng.normal(size=(FRAMES, 7)), "cmd": rng.normal(size=(FRAMES, 7)).astype(np.float32)}
    np.savez(folder / "data.npz", allow_pickle=False, **values, t=np.arange(FRAMES) / 25, serial=np.array("x7"))
    return folder


def parquet_recording(folder: Path, seed: int = 0) -> Path:
    """A Parquet table of lists and numbers, and one video; the table is named, not its folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    write_clip(folder / "front.mkv", images(seed))
    columns = {
        "timestamp": np.arange(FRAMES) / 20,
        "arm_state": list(rng.normal(size=(FRAMES, 3))),
        "gripper_state": rng.normal(size=FRAMES),
        "action": list(rng.normal(size=(FRAMES, 4))),
    }
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    return folder / "rows.parquet"


def hdf5_recording(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["observations/images/top"] = images(seed)
        file["observations/qpos"] = rng.normal(size=(FRAMES, 7))
        file["action"] = rng.normal(size=(FRAMES, 7)).astype(np.float32)
        file["notes"] = np.zeros(3)
    return path


def npz_recording(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path, allow_pickle=False, front=images(seed), state=np.ones((FRAMES, 3)), action=np.zeros((FRAMES, 2), int)
    )
    return path


@pytest.mark.parametrize(
    ("record", "cameras", "state", "action", "fps"),
    [
        (None, ("front",), ("state.x", "state.y", "state.gripper"), ("action.x", "action.y", "action.gripper"), 10.0),
        (
            folder_recording,
            ("cam_left", "wrist"),
            ("joint_0", "joint_1", "gripper_state"),
            ("action_0", "action_1"),
            20.0,
        ),
        (video_recording, ("front", "wrist"), ("qpos",), ("cmd",), 25.0),
        (lambda p: video_recording(p).parents[1], ("front", "wrist"), ("qpos",), ("cmd",), 25.0),
        (parquet_recording, ("front",), ("arm_state", "gripper_state"), ("action",), 20.0),
        (lambda p: hdf5_recording(p.with_suffix(".hdf5")), ("top",), ("observations/qpos",), ("action",), 10.0),
        (lambda p: npz_recording(p.with_suffix(".npz")), ("front",), ("state",), ("action",), 10.0),
    ],
    ids=["nothing", "folder", "videos", "folder of recordings", "parquet", "hdf5", "npz"],
)
def test_what_init_writes_passes_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record: Callable[[Path], Path] | None,
    cameras: tuple[str, ...],
    state: tuple[str, ...],
    action: tuple[str, ...],
    fps: float,
) -> None:
    source = None if record is None else record(tmp_path / "raw" / "stack_cups" / "take1")
    made = init("mybot", tmp_path / "mybot", source)
    assert tuple(made.draft.cameras) == cameras
    assert (made.draft.state, made.draft.action, made.draft.fps) == (state, action, fps)
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path / "mybot"))
    report = check_converter("mybot", tmp_path / "mybot" / "fixture")
    assert (report.faults, report.episodes) == ((), 1)
    compile((tmp_path / "mybot" / "test_mybot.py").read_text(), "test_mybot.py", "exec")


@pytest.mark.slow
def test_a_folder_of_png_and_csv_converts_at_the_second_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Command
) -> None:
    for i, task in enumerate(("stack_cups", "stack_cups", "open_box")):
        folder_recording(tmp_path / "raw" / task / f"take{i}", seed=i)
    first = run(
        "init", "mybot", "--from", str(tmp_path / "raw" / "stack_cups" / "take0"), "--out", str(tmp_path / "bot")
    )
    assert first.code == 0
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path / "bot"))
    checked = run("check-converter", "mybot", str(tmp_path / "raw"), "--json")
    assert checked.code == 0 and (checked.json["found"], checked.json["frames"]) == (3, 3 * FRAMES)
    second = run("convert", "mybot", str(tmp_path / "raw"), "--out", str(tmp_path / "bot.zarr"), "--workers", "0")
    assert second.code == 0
    store = fwdata.open(tmp_path / "bot.zarr")
    assert {e.instruction for e in store.episodes} == {"stack cups", "open box"}
    assert np.array_equal(store.episodes[0].frames("wrist"), images(2))  # open_box sorts first
    assert store.episodes[0].stitched([0]).shape == (1, 32, 128, 3)


def test_rate_time_gripper_and_instruction_come_from_an_hdf5_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Command
) -> None:
    """Of a folder of files the first one; the text is an attribute and the time counts milliseconds."""
    rng = np.random.default_rng(0)
    for i in range(2):
        path = hdf5_recording(tmp_path / "raw" / f"take{i}.h5", seed=i)
        with h5py.File(path, "a") as file:
            file["observations/gripper_width"] = rng.normal(size=FRAMES)
            file["time_ms"] = 5_000_000 + 66 * np.arange(FRAMES) + (np.arange(FRAMES) > 7)
            file["reward"] = np.zeros(FRAMES)
            file["timestep"] = np.arange(FRAMES)
            file.attrs["language_instruction"] = f"open drawer {i}"
    made = run("init", "mybot", "--from", str(tmp_path / "raw"), "--out", str(tmp_path / "bot"))
    assert made.code == 0 and "neither in STATE nor in ACTION: reward, timestep" in made.err
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path / "bot"))
    assert check_converter("mybot", tmp_path / "bot" / "fixture").faults == ()
    done = run("convert", "mybot", str(tmp_path / "raw"), "--out", str(tmp_path / "bot.zarr"), "--workers", "0")
    assert done.code == 0
    store = fwdata.open(tmp_path / "bot.zarr")
    assert store.fps == pytest.approx(15.135) and len(store.state_names) == 8
    assert [e.instruction for e in store.episodes] == ["open drawer 0", "open drawer 1"]
    assert np.diff(store.episodes[0].timestamp_ns())[[0, 7]].tolist() == [66_000_000, 67_000_000]


def test_a_draft_says_what_a_recording_does_not(tmp_path: Path) -> None:
    path = tmp_path / "take.npz"
    np.savez(path, allow_pickle=False, front=images(), qpos=np.ones((FRAMES, 3)), prompt=np.array("fold it"))
    made = init("mybot", tmp_path / "mybot", path)
    said = "; ".join(made.draft.open_questions("mybot.yaml"))
    assert "ACTION repeats STATE" in said and "fps is 10 in mybot.yaml" in said and "instruction" not in said
    module = (tmp_path / "mybot" / "mybot.py").read_text()
    assert 'TEXT = "prompt"' in module and "TIME" not in module


def test_images_are_taken_by_the_numbers_in_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """frame_2 comes before frame_10; cameras may stand in a folder of their own; a list of episodes is no recording."""
    for take in ("take0", "take1"):
        for camera in ("front", "wrist"):
            folder = tmp_path / "raw" / take / "images" / camera
            folder.mkdir(parents=True)
            for i in range(FRAMES):
                Image.fromarray(np.full((32, 32, 3), 10 * i, np.uint8)).save(folder / f"frame_{i}.png")
            (folder / ".thumb.png").write_bytes(b"x")
            (folder / "notes.txt").write_text("x")
        with (tmp_path / "raw" / take / "log.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["qpos", "action"], *([i / 7, i / 9] for i in range(FRAMES))])
    (tmp_path / "raw" / "all.csv").write_text("episode,qpos\n0,1\n1,2\n")
    draft = init("mybot", tmp_path / "mybot", tmp_path / "raw").draft
    assert draft.cameras == {"front": "images/front", "wrist": "images/wrist"} and draft.table == "log.csv"
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path / "mybot"))
    for root in (tmp_path / "raw", tmp_path / "mybot" / "fixture"):
        assert check_converter("mybot", root).faults == ()
    converter = load_converter(load_manifest("mybot"))
    [first, _] = converter.discover(tmp_path / "raw").episodes
    camera = converter.read(tmp_path / "raw", first).cameras["front"]
    assert [int(f[0, 0, 0]) for block in camera.frames() for f in block] == [10 * i for i in range(FRAMES)]


def test_a_column_holds_the_instruction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must be one text; columns without a known word are state where none has one."""
    folder = tmp_path / "raw" / "take0"
    (folder / "front").mkdir(parents=True)
    for i, frame in enumerate(images()):
        Image.fromarray(frame).save(folder / "front" / f"{i:04d}.png")
    rows = [[f"{1_700_000_000 + i / 12.5:.3f}", i / 7, i / 9, "push it"] for i in range(FRAMES)]
    with (folder / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["t", "q0", "grip", "instruction"], *rows])
    draft = init("mybot", tmp_path / "mybot", folder).draft
    assert (draft.state, draft.fps, draft.text, draft.time) == (("q0", "grip"), 12.5, "instruction", "t")
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path / "mybot"))
    assert check_converter("mybot", folder.parent).faults == ()
    rows[3][3] = "pull it"
    with (folder / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["t", "q0", "grip", "instruction"], *rows])
    [fault] = check_converter("mybot", folder.parent).faults
    assert "column 'instruction' must hold one text, found ['pull it', 'push it']" in fault


@pytest.mark.slow
def test_videos_and_arrays_convert_at_the_second_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Command
) -> None:
    """Without a line changed in what `init` wrote: packets are kept, instructions come from the text files."""
    for i in range(3):
        video_recording(tmp_path / "raw" / "monday" / f"take{i}", seed=i)
    assert run("init", "mybot", "--from", str(tmp_path / "raw"), "--out", str(tmp_path / "bot")).code == 0
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path / "bot"))
    second = run("convert", "mybot", str(tmp_path / "raw"), "--out", str(tmp_path / "bot.zarr"), "--workers", "0")
    assert second.code == 0
    store = fwdata.open(tmp_path / "bot.zarr")
    assert [e.instruction for e in store.episodes] == ["stack cup 0", "stack cup 1", "stack cup 2"]
    assert store.parts[0].record.cameras["front"].encoding == "video"
    assert np.array_equal(store.episodes[2].frames("wrist"), images(2, (30, 40)))
    assert store.state_names == tuple(f"qpos.{i}" for i in range(7)) and store.fps == 25
    (tmp_path / "raw/monday/take1/task.txt").unlink()
    checked = run("check-converter", "mybot", str(tmp_path / "raw"), "--json")
    assert checked.code != 0 and any("task.txt" in fault for fault in checked.json["faults"])


@pytest.mark.slow
@pytest.mark.parametrize("ros1", [True, False])
def test_a_draft_of_a_bag_joins_its_topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ros1: bool) -> None:
    """Rows are images of the first camera; other topics have their latest message."""
    sent = r1lite_files.recording(frames=36)
    for task in ("fold", "wipe"):
        (tmp_path / "raw" / task).mkdir(parents=True)
        if ros1:
            r1lite_files.write_bag(tmp_path / "raw" / task / "take.bag", sent)
        else:
            r1lite_files.write_db3(tmp_path / "raw" / task / "take", sent)
    made = init("mybot", tmp_path / "mybot", tmp_path / "raw")
    assert len(made.draft.cameras) >= 2 and made.draft.fps == pytest.approx(15, abs=0.5)
    assert all("target" in topic for topic in made.draft.action) and made.draft.state
    monkeypatch.setenv("FWDATA_PLUGINS", str(tmp_path / "mybot"))
    for root, count in ((tmp_path / "raw", 2), (tmp_path / "mybot" / "fixture", 1)):
        report = check_converter("mybot", root)
        assert (report.faults, report.episodes) == ((), count)
    converter = load_converter(load_manifest(str(tmp_path / "mybot" / "mybot.yaml")))
    found = converter.discover(tmp_path / "raw").episodes
    episode = converter.read(tmp_path / "raw", found[0])
    topic = made.draft.state[0]
    stamps = np.array([m.stamp for m in sent if m.topic == topic])
    values = [m.value["position"] for m in sent if m.topic == topic]
    row = 20
    at = int(np.searchsorted(stamps, episode.timestamp_ns[row], side="right")) - 1
    assert np.allclose(episode.state[row, : len(values[at])], values[at])
    assert [ref.group for ref in found] == ["fold", "wipe"]


def test_bags_without_cameras_and_broken_ones_are_refused(tmp_path: Path) -> None:
    sent = [m for m in r1lite_files.recording() if m.kind != "CompressedImage"]
    r1lite_files.write_bag(tmp_path / "blind.bag", sent)
    with pytest.raises(UsageError, match="no topic of JPEG images; it holds /hdas"):
        init("mybot", tmp_path / "out", tmp_path / "blind.bag")
    (tmp_path / "broken.bag").write_bytes(b"#ROSBAG V2.0")
    with pytest.raises(UsageError, match="cannot be read as a bag"):
        init("mybot", tmp_path / "out", tmp_path / "broken.bag")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("My Bot", None, "lower-case letters"),
        ("libero", None, "a converter 'libero' already"),
        ("mybot", "absent.h5", "no such file"),
        ("mybot", "table.parquet", "LeRobot"),
        ("mybot", "broken.hdf5", "cannot be read as HDF5"),
        ("mybot", "empty", "no table"),
        ("mybot", "blind", "no table"),
        ("mybot", "words", "no column of numbers for a state; it holds note"),
        ("mybot", "dark", "holds no video stream|cannot be read as video"),
        ("mybot", "blind.npz", "no camera in it"),
    ],
)
def test_a_refused_init_writes_nothing(tmp_path: Path, name: str, source: str | None, said: str) -> None:
    for folder in ("empty", "blind", "words", "dark"):
        (tmp_path / folder).mkdir()
    (tmp_path / "blind" / "rows.csv").write_text("state\n1\n")
    for folder, table in (("words", "note\nfine\n"), ("dark", "state\n1\n")):
        (tmp_path / folder / "rows.csv").write_text(table)
        (tmp_path / folder / "front.mp4").write_bytes(b"\0" * 100)
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    (tmp_path / "broken.hdf5").write_bytes(b"x" * 100)
    np.savez(tmp_path / "blind.npz", allow_pickle=False, state=np.ones((4, 2)))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=said):
        init(name, tmp_path / "out", None if source is None else tmp_path / source)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_holds_something_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(UsageError, match="is not empty"):
        init("mybot", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_an_empty_folder_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir(mode=0o700)
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(elsewhere)
    monkeypatch.chdir(here)
    init("mybot", Path(), None)
    init("other", tmp_path / "link", None)
    assert (here / "mybot.py").is_file() and here.stat().st_mode & 0o777 == 0o700
    assert (elsewhere / "other.yaml").is_file() and (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "here", "link"]
