"""Export to LeRobot v3.0: what lerobot reads back, what converting back gives, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures import (
    robotwin_store,
    run_convert,
    save,
    stamps,
    toy_arrays,
    toy_manifest,
    toy_store,
)
from paths import DATA

import fwdata
from fwdata.cli.merge_export import parse_numbers
from fwdata.errors import FwdataError, UsageError
from fwdata.export.lerobot import ExportRequest, export_lerobot, frame_tasks, plan_export
from fwdata.manifest import load_manifest
from fwdata.pipeline.choose import manifest_for
from fwdata.store.files import write_lock


def read_back(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The dataset as lerobot opens it."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return LeRobotDataset("local/test", root=folder)


def assert_rows(dataset: Any, store: fwdata.Store, label: int, pixels: float) -> None:
    """Every frame of the dataset is that of the store; pictures within `pixels` levels on average."""
    row = 0
    for episode in store.episodes:
        state, action = episode.state(), episode.action()
        pictures = {name: episode.frames(name) for name in store.cameras}
        for frame in range(episode.num_frames):
            item = dataset[row]
            assert (int(item["episode_index"]), int(item["frame_index"])) == (episode.index, frame)
            assert np.array_equal(item["observation.state"].numpy(), state[frame])
            assert np.array_equal(item["action"].numpy(), action[frame])
            assert item["task"] == episode.instructions[0]
            assert float(item["timestamp"]) == pytest.approx(frame / label)
            for name in store.cameras:
                shown = item[f"observation.images.{name}"].numpy().transpose(1, 2, 0) * 255
                assert np.abs(shown - pictures[name][frame]).mean() <= pixels
            row += 1
    assert row == len(dataset) == store.num_frames


@pytest.mark.slow
def test_pictures_and_rows_survive_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fwdata.open(robotwin_store(tmp_path, episodes=2, frames=9))
    report = export_lerobot(ExportRequest(store, tmp_path / "out", storage="image"))
    assert (report.plan.frames, report.plan.fps) == (store.num_frames, 17)
    assert any("16.6667 Hz written as 17 fps" in text for text in report.plan.decisions)
    dataset = read_back(tmp_path / "out", monkeypatch, tmp_path)
    assert_rows(dataset, store, 17, 1e-4)
    assert dataset.meta.features["action"]["names"] == list(store.action_names)
    about = json.loads((tmp_path / "out" / "meta" / "fwdata.json").read_text())
    assert (about["fps"], about["fps_label"], about["fingerprint"]) == (store.fps, 17, store.fingerprint)
    assert about["decisions"] == store.metadata["decisions"]
    lines = (tmp_path / "out" / "meta" / "fwdata_episodes.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [episode.id for episode in store.episodes]
    assert json.loads(lines[0])["instructions"] == list(store.episodes[0].instructions)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"meta", "data"}
    keys = list(json.loads((tmp_path / "out/meta/stats.json").read_text()))
    assert keys == sorted(keys)  # lerobot's own order is another one in every process
    assert not (tmp_path / ".out.export").exists()


@pytest.mark.slow
def test_video_survives_within_the_codecs_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    for seed, name in enumerate(("take0", "take1")):
        arrays = toy_arrays(6, seed)
        ramp = np.linspace(40, 200, 64, dtype=np.uint8)
        for camera in ("overhead", "wrist"):
            level = np.arange(6, dtype=np.uint8)[:, None, None, None] * 5
            arrays[camera] = np.broadcast_to(ramp[None, :, None, None] + level, (6, 64, 64, 3)).copy()
        (raw / "push").mkdir(parents=True, exist_ok=True)
        save(raw / "push" / f"{name}.npz", arrays)
    run_convert(raw, tmp_path / "toy.zarr", toy_manifest(monkeypatch))
    store = fwdata.open(tmp_path / "toy.zarr")
    capfd.readouterr()
    export_lerobot(ExportRequest(store, tmp_path / "out"))
    assert capfd.readouterr() == ("", "")
    assert list((tmp_path / "out" / "videos").rglob("*.mp4"))
    assert_rows(read_back(tmp_path / "out", monkeypatch, tmp_path), store, 10, 4.0)


@pytest.mark.slow
@pytest.mark.parametrize("episodes", [None, (2, 0)])
def test_an_exported_dataset_converts_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, episodes: tuple[int, ...] | None
) -> None:
    store = fwdata.open(toy_store(tmp_path, monkeypatch, {"a": [7, 5], "b": [6]}))
    export_lerobot(ExportRequest(store, tmp_path / "out", episodes, "image"))
    run_convert(tmp_path / "out", tmp_path / "back.zarr", manifest_for("lerobot", None, {}, [tmp_path / "out"]))
    back = fwdata.open(tmp_path / "back.zarr")
    chosen = [store.episodes[number] for number in episodes or range(3)]
    assert back.fps == store.fps and len(back.episodes) == len(chosen)
    for old, new in zip(chosen, back.episodes, strict=True):
        assert np.array_equal(old.state(), new.state()) and np.array_equal(old.action(), new.action())
        assert old.instructions[0] == new.instructions[0]
        for camera in store.cameras:
            assert np.array_equal(old.frames(camera), new.frames(camera))


@pytest.mark.slow
def test_a_killed_export_leaves_nothing_at_its_place_and_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fwdata.open(toy_store(tmp_path, monkeypatch, {"a": [7, 5]}))

    def stop(count: int) -> None:
        if stop.seen == 9:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        stop.seen += count  # type: ignore[attr-defined]

    stop.seen = 0  # type: ignore[attr-defined]
    request = ExportRequest(store, tmp_path / "out", storage="image")
    with pytest.raises(KeyboardInterrupt):
        export_lerobot(request, on_frames=stop)
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.export").is_dir()
    export_lerobot(request)
    assert len(read_back(tmp_path / "out", monkeypatch, tmp_path)) == 12
    assert not (tmp_path / ".out.export").exists()


@pytest.mark.slow
def test_the_command_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toy_store(tmp_path, monkeypatch, {"a": [4]})
    code = "from fwdata.cli import main; main()"
    arguments = ["export", "lerobot", str(path), str(tmp_path / "out"), "--image", "--json"]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and all(line.startswith("exporting: ") for line in done.stderr.splitlines())
    assert json.loads(done.stdout)["frames"] == 4


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fwdata.Store:
    return fwdata.open(toy_store(tmp_path, monkeypatch, {"a": [7, 5], "b": [6]}))


def test_a_plan_writes_nothing_and_says_what_is_decided(store: fwdata.Store, tmp_path: Path) -> None:
    before = stamps(tmp_path)
    plan = plan_export(ExportRequest(store, tmp_path / "out", (1, 2), "image"))
    assert (plan.episodes, plan.frames, plan.fps) == ((1, 2), 11, 10)
    assert plan.sizes == {"overhead": (32, 32), "wrist": (32, 32)}
    assert plan.decisions == ("timestamps are frame / fps", "images: PNG, exact")
    assert stamps(tmp_path) == before


def test_what_cannot_be_exported_is_refused(store: fwdata.Store, tmp_path: Path) -> None:
    for options, words in (
        ({"episodes": (0, 3)}, r"has episodes 0\.\.2, asked for 3"),
        ({"episodes": (1, 1)}, "asked for twice"),
        ({"episodes": ()}, "no episode"),
        ({}, "camera overhead is 32x32, the video codec takes at least 64 pixels a side; use --image"),
    ):
        with pytest.raises(UsageError, match=words):
            plan_export(ExportRequest(store, tmp_path / "out", **options))  # type: ignore[arg-type]
    (tmp_path / "full").mkdir()
    with pytest.raises(UsageError, match="full exists; name a folder that does not exist yet"):
        plan_export(ExportRequest(store, tmp_path / "full", storage="image"))
    with write_lock(tmp_path / ".out.export"), pytest.raises(FwdataError, match="is being written by process"):
        export_lerobot(ExportRequest(store, tmp_path / "out", storage="image"))


def test_one_dataset_has_one_picture_size(tmp_path: Path) -> None:
    from robotwin_files import write_task

    for task, size in (("beat_block_hammer", (48, 64)), ("click_bell", (64, 80))):
        write_task(tmp_path / "rt", "classic", task, range(1), num_frames=4, size=size)
    run_convert(tmp_path / "rt", tmp_path / "rt.zarr", load_manifest("robotwin-sample"))
    store = fwdata.open(tmp_path / "rt.zarr")
    with pytest.raises(UsageError, match=r"is 64x80 in episode 1, 48x64 in episode 0; .*--episodes"):
        plan_export(ExportRequest(store, tmp_path / "out", storage="image"))
    assert plan_export(ExportRequest(store, tmp_path / "out", (1,), "image")).sizes["head_camera"] == (64, 80)
    assert plan_export(ExportRequest(store, tmp_path / "out", (1,))).fps
    with pytest.raises(UsageError, match="joins no videos in a folder with ' in its path"):  # not after all encoding
        plan_export(ExportRequest(store, tmp_path / "it's/out", (1,)))
    assert plan_export(ExportRequest(store, tmp_path / "it's/out", (1,), "image")).fps


def test_segments_give_their_frames_their_own_task(store: fwdata.Store, tmp_path: Path) -> None:
    assert frame_tasks(store.episodes[0]) == [store.episodes[0].instruction] * 7
    run_convert(DATA / "r1lite", tmp_path / "r1.zarr", load_manifest("r1lite"), workers=0)
    tasks = frame_tasks(fwdata.open(tmp_path / "r1.zarr").episodes[0])
    assert [tasks.index(task) for task in dict.fromkeys(tasks)] == [0, 20] and len(tasks) == 44


def test_numbers_and_ranges() -> None:
    assert parse_numbers("0,3, 7-9,12-12") == (0, 3, 7, 8, 9, 12)
    for text in ("", "a", "3-1", "-2", "1-", "1,,2"):
        with pytest.raises(UsageError, match="takes numbers and ranges"):
            parse_numbers(text)
