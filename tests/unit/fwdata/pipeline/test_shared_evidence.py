"""Shards of a conversion, and a dataset that is recovered, tell of the conventions what one process tells."""

from __future__ import annotations

import shutil
from pathlib import Path

import lerobot_files
import numpy as np
import pytest
from evidence_episodes import delayed, scene, two_arms
from fixtures import run_convert
from lerobot_files import Recipe, write_dataset

from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, LookTrace, MotionTrace, Verdict
from fwdata.evidence.sentences import line, warnings
from fwdata.manifest import Manifest
from fwdata.pipeline.choose import manifest_for
from fwdata.pipeline.shared_evidence import hand_over, handed_over
from fwdata.pipeline.units import Shard, Spread
from fwdata.pipeline.workers import WorkerPool
from fwdata.store.evidence import read_evidence
from fwdata.store.files import LocalFiles
from fwdata.store.verify import verify_store
from fwdata.store.writer import PartWriter

KEY, ROWS = "observation.images.front", 60


def dataset(root: Path, monkeypatch: pytest.MonkeyPatch, count: int, version: str = "v2.1") -> Path:
    """Episodes of two arms whose camera is two rows late."""
    episodes = [two_arms(seed, ROWS, images=False) for seed in range(count)]
    values = {("observation.state", n): e.state.astype(float) for n, e in enumerate(episodes)}
    values |= {("action", n): e.action.astype(float) for n, e in enumerate(episodes)}
    names = {key: list(episodes[0].state_names) for key in ("observation.state", "action")}

    def frames(recipe: Recipe, key: str, episode: int) -> np.ndarray:
        images = delayed(scene(episodes[episode].state[:, [0, 4]] * 12, 1), 2)
        return np.repeat(images[..., None], 3, axis=3)

    monkeypatch.setattr(lerobot_files, "frames", frames)
    recipe = Recipe(
        version, 20, "mine", (ROWS,) * count, (KEY,), "video", (32, 32), {"observation.state": 8, "action": 8},
        names, ("lift it",), (0,) * count, values=values,
    )  # fmt: skip
    return write_dataset(root, recipe)


def chosen(raw: Path, **options: object) -> Manifest:
    """The manifest that is chosen for a dataset."""
    with WorkerPool(0, None) as pool:
        return manifest_for("lerobot", None, options, (raw,), pool)


def told(out: Path) -> list[DatasetVerdict]:
    """The verdicts of a store's data set."""
    record = read_evidence(LocalFiles(out))
    assert record is not None
    return list(record.verdicts())


@pytest.mark.slow
def test_shards_tell_what_one_process_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = dataset(tmp_path / "raw", monkeypatch, 12)
    manifest, accept = chosen(raw), {"camera_delay": "a slow camera"}
    run_convert(raw, tmp_path / "one.zarr", manifest, part_episodes=2, accept=accept)
    for index in (2, 0, 1):
        spread = Spread(Shard(index, 3))
        run_convert(raw, tmp_path / "many.zarr", manifest, part_episodes=2, accept=accept, spread=spread)
    one, many = told(tmp_path / "one.zarr"), told(tmp_path / "many.zarr")
    assert [line(v) for v in many] == [line(v) for v in one] and many == one
    assert warnings(many, accept) == warnings(one, accept) != []
    assert any(v.detector == "camera_delay" and v.against for v in one), "which needs the traces of all episodes"
    assert not (tmp_path / "many.zarr/.jobs").exists() and verify_store(tmp_path / "many.zarr").damaged == []


def test_a_recovered_dataset_tells_what_the_whole_one_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = dataset(tmp_path / "raw", monkeypatch, 4, "v3.0")
    run_convert(raw, tmp_path / "whole.zarr", chosen(raw))
    shutil.rmtree(raw / "meta/episodes")
    run_convert(raw, tmp_path / "again.zarr", chosen(raw, recover=True, task="lift it"))
    one, again = told(tmp_path / "whole.zarr"), told(tmp_path / "again.zarr")
    assert [line(v) for v in again] == [line(v) for v in one] and len(one) > 8


@pytest.mark.slow
def test_a_killed_conversion_goes_on_with_what_it_had_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = dataset(tmp_path / "raw", monkeypatch, 12)
    manifest, accept = chosen(raw), {"camera_delay": "a slow camera"}
    run_convert(raw, tmp_path / "one.zarr", manifest, part_episodes=2, accept=accept)
    commit, done = PartWriter.commit, list[str]()

    def dying(writer: PartWriter) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        commit(writer)
        done.append("a part")

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PartWriter, "commit", dying)
        run_convert(raw, tmp_path / "two.zarr", manifest, part_episodes=2, accept=accept)
    run_convert(raw, tmp_path / "two.zarr", manifest, part_episodes=2, accept=accept)
    assert told(tmp_path / "two.zarr") == told(tmp_path / "one.zarr")
    assert any(v.detector == "camera_delay" and v.against for v in told(tmp_path / "two.zarr"))
    assert not (tmp_path / "two.zarr/.jobs").exists() and not (tmp_path / "one.zarr/.jobs").exists()


def test_what_is_handed_over_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / ".jobs/convert"
    energy, speeds = np.arange(5, dtype=np.float32) / 3, np.ones((5, 2), np.float32) / 7
    tiles = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    traces = (
        MotionTrace("head", 20.0, energy, speeds, True, speeds, 1.5),
        MotionTrace("left", 20.0, energy, speeds, False),
        LookTrace("head", tiles, np.array([3, 1 << 31], np.uint32), np.array([5], np.uint32)),
    )
    verdict = Verdict(
        "gripper_scale", "confirmed", "left", 1 / 3, (0.1, 0.2), 4, "values 0 .. 1", "stop", "0 .. 1", "0 .. 1"
    )
    mine = EpisodeMeasurement("a", "set", (verdict,), traces, {"row_rate": "fps.hz: 20"})
    hand_over(tmp_path, "p00000", [mine])
    assert not folder.exists(), "a job that has ended is not begun again"
    folder.mkdir(parents=True)
    hand_over(tmp_path, "p00000", [mine, EpisodeMeasurement("b", "set", (verdict,))])
    found = handed_over(tmp_path, {"b"})
    assert (
        found.keys() == {"a"} and found["a"].verdicts == (verdict,) and dict(found["a"].options) == dict(mine.options)
    )
    [look] = found["a"].traces[2:]
    assert isinstance(look, LookTrace) and (look.camera, look.prints.tolist(), look.rows.tolist()) == (
        "head",
        [3, 1 << 31],
        [5],
    )
    assert np.array_equal(look.tiles, tiles) and look.tiles.dtype == np.uint8
    for had, has in zip(traces[:2], found["a"].traces, strict=False):
        assert isinstance(had, MotionTrace)
        assert isinstance(has, MotionTrace) and np.array_equal(has.energy, had.energy)
        assert (has.camera, has.simulated, has.state_lag) == (had.camera, had.simulated, had.state_lag)
        assert (has.commands is None) == (had.commands is None)
