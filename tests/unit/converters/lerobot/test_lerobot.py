"""LeRobot datasets, both layouts: which rows and frames an episode gets, instructions, and several datasets at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fixtures import run_convert
from lerobot_files import (
    R1LITE,
    Recipe,
    edit_info,
    edit_table,
    encoded,
    frames,
    write_dataset,
    write_json,
    write_video,
)
from lerobot_reading import converter, joined, manifest, pixels, read_all, refusal
from paths import DATA
from typer.testing import CliRunner

import fwdata
from fwdata.api import EncodedCamera
from fwdata.cli import app
from fwdata.pipeline import workers

FIXTURE = DATA / "lerobot_v21"
VERSIONS = ("v2.1", "v3.0")


@pytest.fixture(scope="module")
def expected() -> dict:
    return json.loads((FIXTURE / "expected.json").read_text())["episodes"][0]


def test_recorded_dataset_end_to_end(tmp_path, expected):
    report = run_convert(FIXTURE, tmp_path / "s.zarr", manifest())
    assert (report.episodes, report.frames, report.quarantined) == (1, 32, [])
    store = fwdata.open(tmp_path / "s.zarr")
    (episode,) = store.episodes
    assert store.source == "lerobot" and store.fps == 15 and episode.id == "episode_000000"
    for row in expected["rows"].values():
        for values, key in ((episode.state(), "state14"), (episode.action(), "action14")):
            assert np.allclose(values[row["frame"]], row[key], rtol=0, atol=1e-5)
    assert np.allclose(episode.state().astype(float).sum(0), expected["state14_sum"], rtol=0, atol=1e-4)
    assert np.allclose(episode.action().astype(float).sum(0), expected["action14_sum"], rtol=0, atol=1e-4)
    for camera in store.cameras:
        shown = episode.frames(camera)
        assert shown.shape == (32, 240, 320, 3)
        for name, frame in (("first", 0), ("middle", 16), ("last", 31)):
            told = expected["mean_rgb"][name][f"observation.images.{camera}"]
            assert np.allclose(shown[frame].mean((0, 1)), told, rtol=0, atol=0.5)  # one grey level of decoder freedom
    assert np.array_equal(episode.timestamp_ns(), np.rint(np.arange(32) * 1e9 / 15).astype(np.int64))
    assert episode.instructions == (expected["coarse_task"],) and episode.task == expected["coarse_task"]
    runs = [(s["text"], s["first_frame"], s["last_frame"], s["quality"]) for s in episode.metadata["segments"]]
    told = [(r["text"], r["first_frame"], r["last_frame"], r["quality"]) for r in expected["fine_text_per_frame_runs"]]
    assert runs == told
    assert episode.metadata["gripper_range"] == [0, 100] and episode.metadata["timestamps"] == "nominal"


def test_names_are_those_of_the_robots_own_converters():
    assert converter().variants[0].state_names == converter("lerobot-robotwin").variants[0].state_names
    from converters.libero.hdf5 import ACTION_NAMES, STATE_NAMES
    from converters.r1lite.topics import column_names, parts_of

    assert converter().variants[0].state_names == column_names(parts_of("arms"), "feedback")
    libero = converter("lerobot-libero").variants[0]
    assert (libero.state_names, libero.action_names) == (STATE_NAMES, ACTION_NAMES)
    for ours, theirs in (("libero", "libero"), ("robotwin", "robotwin"), ("r1lite", "r1lite")):
        assert manifest(f"lerobot-{ours}").stitch == manifest(theirs).stitch


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pictures", ["video", "png", "jpeg"])
def test_rows_and_frames_belong_together(tmp_path, version, pictures):
    recipe = Recipe(version=version, pictures=pictures, lengths=(5, 1, 7), tasks=(0, 1, 1))
    root = write_dataset(tmp_path / "set", recipe)
    episodes = read_all(root)
    assert [len(e.state) for e in episodes] == [5, 1, 7]
    for number, episode in enumerate(episodes):
        assert np.array_equal(episode.state, joined(recipe, number, "observation.state"))
        assert np.array_equal(episode.action, joined(recipe, number, "action"))
        assert episode.instructions == (recipe.table[recipe.tasks[number]],)
        assert episode.valid.all() and list(episode.cameras) == list(manifest().cameras)
        for camera, key in zip(episode.cameras.values(), recipe.cameras, strict=True):
            shots = frames(recipe, key, number)
            if pictures == "jpeg":
                assert isinstance(camera, EncodedCamera)
                assert [f.data for f in camera.frames()] == [encoded(p, "jpeg") for p in shots]
                assert not any(f.red_blue_swapped for f in camera.frames())
            else:
                assert camera.encoding == ("video" if pictures == "video" else "raw")
                assert np.array_equal(pixels(camera), shots)


@pytest.mark.parametrize("version", VERSIONS)
def test_long_videos_come_in_small_blocks(tmp_path, version):
    recipe = Recipe(version=version, lengths=(3, 70))
    episode = read_all(write_dataset(tmp_path, recipe), video="pixels")[1]
    blocks = [len(block) for block in episode.cameras["head_rgb"].frames()]
    assert sum(blocks) == 70 and max(blocks) <= 32
    assert np.array_equal(pixels(episode.cameras["head_rgb"]), frames(recipe, recipe.cameras[0], 1))


@pytest.mark.parametrize(("codec", "gop"), [("libx264", 12), ("mpeg4", 5)])
def test_reordered_frames_and_long_groups(tmp_path, codec, gop):
    """B-frames are stored out of order, and a shared video is entered in the middle of a group."""
    recipe = Recipe(version="v3.0", lengths=(7, 9), size=(48, 64))
    root = write_dataset(tmp_path, recipe)
    steps = np.linspace(20, 230, 16).astype(np.uint8)
    shots = np.broadcast_to(steps[:, None, None, None], (16, 48, 64, 3))
    for path in root.glob("videos/*/*/*.mp4"):
        write_video(path, shots, 15, codec, gop)
    one, two = (pixels(e.cameras["head_rgb"]).mean((1, 2, 3)) for e in read_all(root))
    assert np.allclose(np.concatenate([one, two]), steps, atol=5)


def test_red_and_blue_can_be_exchanged(tmp_path):
    for pictures in ("video", "png", "jpeg"):
        recipe = Recipe(pictures=pictures, lengths=(3,), tasks=(0,))
        root = write_dataset(tmp_path / pictures, recipe)
        (plain,), (exchanged,) = read_all(root), read_all(root, colour="swapped")
        one, two = pixels(plain.cameras["head_rgb"]), pixels(exchanged.cameras["head_rgb"])
        assert np.array_equal(one, two[..., ::-1]) or (pictures == "jpeg" and np.abs(one - two[..., ::-1]).max() < 3)
        assert not np.array_equal(one, two)


def test_several_datasets_become_one_store(tmp_path):
    one, two = Recipe(lengths=(4, 5)), Recipe(version="v3.0", lengths=(6, 3))
    write_dataset(tmp_path / "raw/b/second", two)
    write_dataset(tmp_path / "raw/a", one)
    report = run_convert(tmp_path / "raw", tmp_path / "s.zarr", manifest())
    store = fwdata.open(tmp_path / "s.zarr")
    ids = ["a/episode_000000", "a/episode_000001", "b/second/episode_000000", "b/second/episode_000001"]
    assert report.quarantined == [] and [e.id for e in store.episodes] == ids
    assert [len(e.state()) for e in store.episodes] == [4, 5, 6, 3]
    assert store.metadata["decisions"]["datasets"]["b/second"]["codebase_version"] == "v3.0"
    assert np.array_equal(store.episodes[2].state(), joined(two, 0, "observation.state"))
    assert store.episodes[3].source == "b/second/data/chunk-000/file-000.parquet#episode_000001"


def test_dataset_that_does_not_fit_is_left_out_and_another_rate_refused(tmp_path):
    write_dataset(tmp_path / "a", Recipe())
    write_dataset(tmp_path / "b", Recipe(cameras=("observation.images.top",), pictures="png"))
    found = converter().discover(tmp_path)
    assert len(found.episodes) == 2
    assert [(s.source, "camera head_rgb needs" in s.reason) for s in found.skipped] == [("b", True)]
    write_dataset(tmp_path / "c", Recipe(fps=30))
    told = refusal(tmp_path)
    assert "/c: meta/info.json says 30 fps (others: 15)" in told and "lerobot-r1lite' 15" in told
    assert len(converter(fps_labels=[30]).discover(tmp_path).episodes) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_a_dataset_whose_name_is_not_utf8_is_named(tmp_path):
    write_dataset(tmp_path / "made", Recipe())
    (tmp_path / "made").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    assert refusal(tmp_path).endswith("/caf\\udce9: its name is not UTF-8; rename it")


@pytest.mark.parametrize("version", VERSIONS)
def test_instructions_follow_the_rows_tasks(tmp_path, version):
    table = ("抓杯子@pick up the cup ", "把杯子放下", "null", "unqualified", "qualified", "tidy the table")
    recipe = Recipe(
        version=version,
        lengths=(4, 4, 4),
        table=table,
        tasks=([0, 0, 2, 2], [0, 0, 1, 1], [2, 2, 2, 2]),
        labels={"quality_index": [[4] * 4, [4, 3, 3, 4], [0] * 4], "coarse_task_index": [[5] * 4, [5] * 4, [5] * 4]},
    )
    root = write_dataset(tmp_path, recipe)
    one, two, three = read_all(root)
    assert one.instructions == ("pick up the cup", "tidy the table")
    assert two.instructions == three.instructions == ("tidy the table",)
    assert [s["instruction"] for s in two.stored_metadata()["segments"]] == ["pick up the cup"] * 2 + ["把杯子放下"] * 2
    assert any("2 frames have Chinese text only" in w for w in two.warnings)
    assert two.valid.all() and two.metadata["unqualified_frames"] == 2
    marked = read_all(root, unqualified="invalid", lang="zh", instruction="coarse")[1]
    assert marked.valid.tolist() == [True, False, False, True] and marked.instructions == ("tidy the table",)
    assert [s["instruction"] for s in read_all(root, lang="zh")[0].stored_metadata()["segments"]] == [
        "抓杯子",
        "tidy the table",
    ]


def test_instructions_without_a_coarse_task(tmp_path):
    recipe = Recipe(lengths=(4, 2), tasks=([0, 0, 1, 1], 1))
    root = write_dataset(tmp_path, recipe)
    one, two = read_all(root)
    assert one.instructions == ("pick up the cup; then open the drawer",) and two.instructions == ("open the drawer",)
    assert read_all(root, task="set up")[0].instructions == ("set up",)
    write_json(root / "training_data_set_meta.json", {"rawDataSetName": "Set_Up_20250101_002", "rawDataList": [{}]})
    assert read_all(root)[0].instructions == ("set up",)
    for path in root.glob("data/*/*.parquet"):
        edit_table(path, "task_index", None)
    assert read_all(root)[1].instructions == ("open the drawer", "set up")


def test_older_and_poorer_files_are_read(tmp_path):
    recipe = Recipe(version="v2.0", lengths=(4,), tasks=(0,))
    root = write_dataset(tmp_path, recipe)
    edit_info(root, data_path=None, video_path=None, chunks_size=None, total_episodes=None, robot_type=None)
    (path,) = root.glob("data/*/*.parquet")
    for key in ("episode_index", "frame_index", "timestamp", "index"):
        edit_table(path, key, None)
    lists = pa.array(joined(recipe, 0, "observation.state")[:, :6].tolist(), pa.large_list(pa.float32()))
    edit_table(path, "observation.state.left_arm", lists)
    edit_table(path, "action.left_gripper", pa.array([[7]] * 4, pa.list_(pa.int16())))
    (episode,) = read_all(root)
    assert np.array_equal(episode.state, joined(recipe, 0, "observation.state"))
    assert (episode.action[:, 6] == 7).all() and episode.embodiment == "galaxea_r1_lite"


def test_tasks_table_of_lerobots_own_writer(tmp_path):
    """It keeps the texts as the pandas index, which may lose its name."""
    root = write_dataset(tmp_path, Recipe(version="v3.0"))
    table = pa.table({"task_index": pa.array([1, 0]), "__index_level_0__": pa.array(["one", "zero"])})
    pa.parquet.write_table(table, root / "meta/tasks.parquet")
    assert [e.instructions for e in read_all(root)] == [("zero",), ("one",)]


def test_first_episodes_only(tmp_path):
    root = write_dataset(tmp_path, Recipe(lengths=(2, 3, 4), tasks=(0, 0, 0)))
    assert [r.id for r in converter(max_episodes=2).discover(root).episodes] == ["episode_000000", "episode_000001"]


@pytest.mark.slow
@pytest.mark.parametrize("video", [True, False])
def test_against_lerobots_own_writer_and_reader(tmp_path, video):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    lengths = (6, 5, 4, 7, 3)
    recipe = Recipe(lengths=lengths, size=(64, 96))
    kind = "video" if video else "image"
    features = {
        k: {"dtype": kind, "shape": (64, 96, 3), "names": ["height", "width", "channels"]} for k in recipe.cameras
    }
    features |= {k: {"dtype": "float32", "shape": (n,), "names": None} for k, n in R1LITE.items()}
    root = tmp_path / "set"
    written = LeRobotDataset.create("a/b", 15, features, root=root, robot_type="r1lite", use_videos=video)
    written.meta.update_chunk_settings(chunks_size=2, data_files_size_in_mb=0.004, video_files_size_in_mb=0.002)
    from lerobot_files import rows

    for number, length in enumerate(recipe.lengths):
        for t in range(length):
            frame = {k: rows(recipe, k, number)[t].astype(np.float32) for k in R1LITE}
            written.add_frame(
                {**frame, **{k: frames(recipe, k, number)[t] for k in recipe.cameras}, "task": f"do {number}"}
            )
        written.save_episode()
    written.finalize()
    files = {suffix: len(list(root.glob(f"{suffix}/**/file-*"))) for suffix in ("data", "videos")}
    assert files["data"] > 1 and (files["videos"] > 3 or not video), files
    theirs = LeRobotDataset("a/b", root=root, video_backend="pyav")
    for number, episode in enumerate(read_all(root)):
        assert np.array_equal(episode.state, joined(recipe, number, "observation.state"))
        assert episode.instructions == (f"do {number}",)
        for t in range(recipe.lengths[number]):
            item = theirs[sum(lengths[:number]) + t]
            assert item["episode_index"] == number and item["frame_index"] == t
            for camera, key in zip(episode.cameras.values(), recipe.cameras, strict=True):
                shown = item[key].permute(1, 2, 0).numpy() * 255
                assert np.abs(pixels(camera)[t] - shown).max() <= (3 if video else 0)


@pytest.mark.slow
def test_columns_are_read_as_numbers_without_pandas_and_pyarrow_compute() -> None:
    code = """
import sys
from pathlib import Path
from typing import Any
import numpy as np, pyarrow as pa
from converters.lerobot.values import numbers
flags = [i % 3 == 0 for i in range(21)]
lists = [[float(i), -float(i)] for i in range(21)]
columns = {"flag": pa.array(flags), "pair": pa.array(lists), "fixed": pa.array(lists, pa.list_(pa.float32(), 2))}
columns["large"] = pa.array(lists, pa.large_list(pa.float64()))
for name in ("pandas", "pyarrow.compute"):  # what made the table may have imported them
    sys.modules.pop(name, None)
for table in (pa.table(columns), pa.concat_tables([pa.table(columns).slice(0, 9), pa.table(columns).slice(9)])):
    part = table.slice(5, 14)
    assert np.array_equal(numbers(part, "t", "flag", 1)[:, 0], np.array(flags[5:19], float))
    assert all(np.array_equal(numbers(part, "t", key, 2), lists[5:19]) for key in ("pair", "fixed", "large"))
assert not {"pandas", "pyarrow.compute"} & sys.modules.keys(), "imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_one_worker_chooses_the_manifest_and_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker imports the converter's libraries, half a second of CPU."""
    raw, started, start = write_dataset(tmp_path / "set", Recipe()), [], workers._Worker.start

    def counted(*arguments: Any) -> workers._Worker:
        started.append(arguments)
        return start(*arguments)

    monkeypatch.setattr(workers._Worker, "start", counted)
    arguments = ["convert", "lerobot", str(raw), "--out", str(tmp_path / "s.zarr"), "--workers", "1"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert len(started) == 1 and len(fwdata.open(tmp_path / "s.zarr").episodes) == 2
