"""Checkpoints of several processes: every row once, read back by any number of them, and nothing half done counts.

A team of one that saves as several do runs torch's collectives alone; runs of two and four processes are in
`test_train_parallel.py`.
"""

from __future__ import annotations

import errno
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fake_store import FakeStore
from safetensors.torch import save_file
from torch.distributed.device_mesh import DeviceMesh
from training import assert_same_run, losses, recipe, run, tensors

from fwtrain.errors import CheckpointError
from fwtrain.export import export_model, export_official
from fwtrain.infer.predict import predict
from fwtrain.model import load_model
from fwtrain.train import saver as saving
from fwtrain.train import tensors as files
from fwtrain.train.checkpoint import MARKER, Content, best, checkpoints, latest, tidy
from fwtrain.train.folder import RunFolder
from fwtrain.train.parallel import Team
from fwtrain.train.run import train
from fwtrain.train.saver import Saver
from fwtrain.train.shards import INDEX, ShardedTensors
from fwtrain.train.tensors import TensorPart
from fwtrain.train.weights import load_trained
from fwtrain.weights.names import official_tensors

SHAPES = {"a.weight": (5, 3), "b.weight": (1, 2), "b.bias": (7,)}


@pytest.fixture
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    with several(tmp_path_factory.mktemp("meeting") / "file") as team:
        yield team


@contextmanager
def several(meeting: Path) -> Iterator[Team]:
    """A team that saves as several processes do, and is one."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    try:
        yield Team(torch.device("cpu"), saving=DeviceMesh.from_group(dist.new_group(backend="gloo"), "cpu"))
    finally:
        dist.destroy_process_group()


def content(seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> Content:
    generator = torch.Generator().manual_seed(seed)
    masters = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    model = [TensorPart(name, value.to(dtype), value.shape) for name, value in masters.items()]
    state = [TensorPart(f"exp_avg.{name}", value + 1, value.shape) for name, value in masters.items()]
    state += [TensorPart(f"step.{name}", torch.tensor(3.0), torch.Size(())) for name in masters]
    if dtype != torch.float32:
        state += [TensorPart(f"master.{name}", value, value.shape) for name, value in masters.items()]
    return Content(model, state, "{}", {"seed": seed})


class SlowDisk:
    """Writes nothing until it is opened; with `seconds`, that long per tensor by the saver's clock, which stands still
    otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float | None = None) -> None:
        self.opened = threading.Event()
        self.writes = 0
        self.now = 0.0
        write = files.write_block

        def slow(file: Any, data: memoryview) -> None:
            self.writes += 1
            if seconds is None:
                self.opened.wait()
            else:
                self.now += seconds
            write(file, data)

        monkeypatch.setattr(files, "write_block", slow)
        if seconds is not None:
            monkeypatch.setattr(saving, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_read_is_what_was_saved_and_masters_stand_for_weights(tmp_path: Path, team: Team, dtype: torch.dtype):
    wanted, saver = content(1, dtype), Saver(tmp_path, team, 2)
    saver.save(4, wanted)
    assert saver.wait()
    found = latest(tmp_path)
    assert found is not None
    assert found.step == 4
    assert found.state()["seed"] == 1
    assert found.sharded
    found.verify()
    model, state = found.model_tensors(), found.optimizer_tensors()
    assert {name: value.dtype for name, value in model.items()} == dict.fromkeys(SHAPES, dtype)
    assert all(torch.equal(model[part.name], part.tensor) for part in wanted.model)
    assert state.keys() == {part.name for part in wanted.optimizer}
    assert all(torch.equal(state[part.name], part.tensor) for part in wanted.optimizer)
    stored = json.loads((found.path / INDEX).read_text())["tensors"]
    assert ("model.a.weight" in stored) == (dtype == torch.float32)
    shard = next(found.path.glob("shard-*"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"shard-00000\.safetensors is damaged"):
        found.verify()


def test_training_goes_on_while_one_save_is_written_and_the_next_waits(tmp_path: Path, team: Team, monkeypatch):
    disk, saver, trained = SlowDisk(monkeypatch), Saver(tmp_path, team, 5), content(1)
    saver.save(1, trained)  # returns although nothing is written
    assert latest(tmp_path) is None
    for part in (*trained.model, *trained.optimizer):
        part.tensor.add_(1)  # the next step
    threading.Timer(0.2, disk.opened.set).start()
    saver.save(2, content(2))
    assert checkpoints(tmp_path)[0].step == 1  # the second may be written by now too
    assert saver.wait()
    assert [item.step for item in checkpoints(tmp_path)] == [1, 2]
    for item, seed in zip(checkpoints(tmp_path), (1, 2), strict=True):
        assert all(torch.equal(item.model_tensors()[part.name], part.tensor) for part in content(seed).model)


def test_old_checkpoints_and_the_best_before_are_removed(tmp_path: Path, team: Team):
    saver = Saver(tmp_path, team, 2)
    for step in (1, 2, 3):
        saver.save(step, content(step))
        saver.save_best(step, 1 / step, content(step))
    saver.wait()
    assert [item.step for item in checkpoints(tmp_path)] == [2, 3]
    kept = best(tmp_path)
    assert kept is not None
    assert (kept.step, kept.score) == (3, pytest.approx(1 / 3))
    assert sorted(kept.model_tensors()) == sorted(SHAPES)
    assert all(torch.equal(kept.model_tensors()[part.name], part.tensor) for part in content(3).model)
    assert len(list(tmp_path.iterdir())) == 3
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    saver.save(3, content(9))  # there already
    saver.wait()
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


@pytest.mark.parametrize("moment", ["tensor", "index", "rename", "marker"])
def test_a_save_that_ends_at_any_moment_leaves_the_checkpoint_before_it(
    tmp_path: Path, team: Team, monkeypatch, moment: str
):
    saver = Saver(tmp_path, team, 2)
    saver.save(1, content(1))
    saver.wait()

    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        if moment == "tensor":
            patched.setattr(files, "write_block", broken)
        elif moment == "index":
            patched.setattr("fwdata.io.write_synced", broken)
        elif moment == "rename":
            patched.setattr(Path, "rename", broken)
        else:
            patched.setattr("fwtrain.train.checkpoint.write_json", broken)
        saver.save(2, content(2))
        while not saver.failed:
            time.sleep(0.01)
        with pytest.raises(CheckpointError, match=r"step-00000002 could not be written in process 0: .*No space left"):
            saver.wait()
    assert not saver.failed
    assert [item.step for item in checkpoints(tmp_path)] == [1]
    tidy(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    saver.save(2, content(2))
    saver.wait()
    assert [item.step for item in checkpoints(tmp_path)] == [1, 2]


@pytest.mark.slow
def test_a_stop_gives_up_what_a_slow_disk_does_not_take_in_time(tmp_path: Path, team: Team, monkeypatch):
    disk, saver = SlowDisk(monkeypatch, seconds=10), Saver(tmp_path, team, 2)
    saver.save(1, content(1))
    assert saver.wait()
    tensors, saver.seconds = disk.writes, None
    assert saver.stop(2, lambda: content(2), disk.now + 600) == 2
    assert disk.writes == 2 * tensors
    saver.seconds = None
    assert saver.stop(3, lambda: content(3), disk.now + 35) == 2
    assert disk.writes == 2 * tensors + 4 < 3 * tensors  # the fourth ends after the deadline; the rest is not written
    assert [item.step for item in checkpoints(tmp_path)] == [1, 2]


@pytest.mark.slow
def test_a_stop_finishes_the_save_in_flight_and_begins_none_that_it_has_no_time_for(
    tmp_path: Path, team: Team, monkeypatch
):
    disk, saver = SlowDisk(monkeypatch, seconds=10), Saver(tmp_path, team, 2)
    saver.save(1, content(1))
    assert saver.stop(2, lambda: pytest.fail("begun"), 150) == 1
    assert saver.seconds == disk.now == 10 * disk.writes > 75  # more than is left
    saver.seconds = 600.0
    assert saver.stop(2, lambda: pytest.fail("begun"), disk.now + 300) == 1
    saver.seconds = None
    assert saver.stop(2, lambda: content(2), disk.now + 300) == 2


def test_rows_of_several_files_are_read_as_of_one(tmp_path: Path):
    whole = torch.arange(7 * 2.0).reshape(7, 2)
    cuts = [(0, 3), (3, 3), (3, 6), (6, 7)]
    for number, (low, high) in enumerate(cuts):
        if low < high:
            save_file({"master.w": whole[low:high].contiguous()}, tmp_path / f"shard-{number:05d}.safetensors")
    pieces = [[f"shard-{n:05d}.safetensors", low, high - low] for n, (low, high) in enumerate(cuts) if low < high]
    index = {"version": 1, "tensors": {"master.w": {"dtype": "F32", "shape": [7, 2], "pieces": pieces}}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    state, model = ShardedTensors.of_optimizer(tmp_path), ShardedTensors.of_model(tmp_path)
    for start in range(8):
        for stop in range(start, 8):
            assert torch.equal(state.rows("master.w", start, stop), whole[start:stop])
            assert torch.equal(model.rows("w", start, stop), whole[start:stop].bfloat16())
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(CheckpointError, match=r"index\.json cannot be read: JSONDecodeError"):
        ShardedTensors.of_model(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), ("precision=bf16", "optim.moments=8bit")])
def test_a_run_saved_in_shards_continues_predicts_and_exports_like_another(
    tmp_path: Path, monkeypatch, overrides: tuple[str, ...]
):
    run(tmp_path / "whole", *overrides)
    calls = count(1)
    with several(tmp_path / "rendezvous") as team, monkeypatch.context() as patched:
        patched.setattr("fwtrain.train.run.join", lambda mode, device: _given(team))
        out = train(FakeStore(), recipe(*overrides), tmp_path / "shards", should_stop=lambda: next(calls) > 4)
    assert out.saved == out.step == 3
    found = latest(tmp_path / "shards" / "checkpoints")
    assert found is not None
    assert found.sharded
    folder = RunFolder(tmp_path / "shards")
    model = load_trained(folder, found)
    export_model(folder.path, tmp_path / "one-file")
    assert sorted(path.name for path in (tmp_path / "one-file").iterdir()) == ["config.json", "model.safetensors"]
    export_official(folder.path, tmp_path / "official.pt")
    exported, official = load_model(tmp_path / "one-file").state_dict(), official_tensors(tmp_path / "official.pt")
    assert all(torch.equal(exported[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(official[name], value) for name, value in model.state_dict().items())
    assert predict(folder.path, FakeStore(), 0, 3, device="cpu").action.shape == (32, 14)
    started = run(tmp_path / "next", *overrides, f"model.init=fastwam:{folder.path}", "optim.lr=1e-30", "save_every=1")
    assert started.finished
    weights = tensors(tmp_path / "next")
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    run(folder.path, *overrides)
    assert_same_run(tmp_path / "whole", folder.path)
    assert losses(folder.path)[-1]["step"] == 6


@contextmanager
def _given(team: Team) -> Iterator[Team]:
    yield team


def test_processes_on_machines_without_a_shared_folder_are_told(tmp_path: Path, team: Team, monkeypatch):
    monkeypatch.setattr(saving, "begin", lambda folder, name, team: tmp_path / "elsewhere" / name)
    with pytest.raises(CheckpointError, match="several machines need --out on storage that all of them share"):
        Saver(tmp_path, team, 2).save(1, content())
    assert not (tmp_path / MARKER).exists()
