"""Training: exact resume, whole checkpoints, divergence, schedule. A very small model on a store in memory."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_store import FakeStore
from training import assert_same_run, losses, recipe, run, small_model

from fwdata.errors import StoreBusy, UsageError
from fwdata.io import folder_lock
from fwdata.normalise import Normaliser
from fwtrain.data import open_source
from fwtrain.errors import CheckpointError, RunMismatch, TrainingDiverged
from fwtrain.recipe import OptimRecipe
from fwtrain.train import checkpoint as checkpoints
from fwtrain.train.checkpoint import latest
from fwtrain.train.far_values import far_values
from fwtrain.train.folder import RunFolder
from fwtrain.train.logs import read_log
from fwtrain.train.optim import Optimizer, learning_rate
from fwtrain.train.run import stop_on_signals


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(out)
    return out


VARIANTS = [
    (),
    ("model.variant=idm", "data.workers=0", "precision=bf16"),
    ("optim.accumulation=3", "log_every=4", "data.video_fraction=0.5", "data.instruction=sample"),
]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", VARIANTS)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, overrides: tuple[str, ...]):
    assert run(tmp_path / "whole", *overrides).finished
    for stop in (3,) if overrides else (0, 1, 3):
        out = tmp_path / f"stopped{stop}"
        first = run(out, *overrides, stop_after=stop)
        assert (first.step, first.finished) == (stop, False)
        second = run(out, *overrides)
        assert second.finished
        assert_same_run(tmp_path / "whole", out)


def test_a_folder_that_is_trained_in_is_refused_with_who_holds_it(tmp_path: Path):
    out = tmp_path / "run"
    run(out, stop_after=1)
    with folder_lock(out), pytest.raises(StoreBusy, match=f"is being written by process {os.getpid()}"):
        run(out)
    with folder_lock(out), pytest.raises(StoreBusy):
        run(out, fresh=True)
    assert run(out).finished


def test_a_start_that_failed_leaves_no_folder(tmp_path: Path):
    with pytest.raises(UsageError):
        run(tmp_path / "run", resume=True)
    with pytest.raises(UsageError, match="is for 30 state dimensions"):
        run(tmp_path / "run", "data.state_dim=30")
    assert not (tmp_path / "run").exists()


def test_remains_of_a_killed_start_or_removal_are_tidied_up(tmp_path: Path, whole: Path):
    tmp_path.joinpath(".recipe.yaml.tmp").write_text("name")
    run(tmp_path, stop_after=4)
    remains = ["step-00000001", ".step-00000003.tmp-9", ".best-00000003.tmp-9", "best-00000001"]
    for name in remains:
        (tmp_path / "checkpoints" / name).mkdir()
    run(tmp_path)
    assert_same_run(whole, tmp_path)
    assert not [name for name in remains if (tmp_path / "checkpoints" / name).exists()]


@pytest.mark.parametrize("workers", [0, 3])
def test_workers_change_nothing(tmp_path: Path, whole: Path, workers: int):
    run(tmp_path, f"data.workers={workers}")
    assert_same_run(whole, tmp_path)


def test_another_seed_is_another_run(tmp_path: Path, whole: Path):
    run(tmp_path, "seed=1", "optim.steps=1")
    assert losses(tmp_path)[0]["loss"] != losses(whole)[0]["loss"]


class Killed(BaseException):
    """Stands for a process that ends in the middle of a save."""


@pytest.mark.parametrize("moment", ["first file", "before the rename", "before the marker"])
def test_a_kill_during_a_save_loses_only_that_checkpoint(tmp_path: Path, whole: Path, monkeypatch, moment: str):
    out = tmp_path / "killed"
    with monkeypatch.context() as patch:
        _kill_at(patch, moment, "step-00000004")
        with pytest.raises(Killed):
            run(out)
    found = latest(out / "checkpoints")
    assert found is not None
    assert found.step == 2
    run(out)
    assert_same_run(whole, out)
    assert not list((out / "checkpoints").glob(".*"))


def _kill_at(patch: pytest.MonkeyPatch, moment: str, name: str) -> None:
    if moment == "first file":
        original = checkpoints.write_tensors

        def write_tensors(path, parts, team):
            if name in str(path):
                path.write_bytes(b"half")
                raise Killed
            return original(path, parts, team)

        patch.setattr(checkpoints, "write_tensors", write_tensors)
    elif moment == "before the rename":
        rename = Path.rename

        def rename_or_die(self, target):
            if name in str(target):
                raise Killed
            return rename(self, target)

        patch.setattr(Path, "rename", rename_or_die)
    else:
        write = checkpoints.write_json

        def write_json(path, data):
            if name == path.parent.name and path.name == checkpoints.MARKER:
                raise Killed
            write(path, data)

        patch.setattr(checkpoints, "write_json", write_json)


def test_a_torn_log_line_is_dropped_on_resume(tmp_path: Path, whole: Path):
    out = tmp_path / "torn"
    run(out, stop_after=3)
    with (out / "log.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 5, "loss": 1}\n{"kind": "tr')
    run(out)
    assert_same_run(whole, out)


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path):
    run(tmp_path, stop_after=3)
    path = tmp_path / "checkpoints" / "step-00000003" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"step-00000003/model.safetensors is damaged"):
        run(tmp_path)


def test_keep_last_drops_the_oldest(tmp_path: Path):
    run(tmp_path, "save_every=1", "keep_last=2")
    assert [c.step for c in checkpoints.checkpoints(tmp_path / "checkpoints")] == [5, 6]
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == 2


def test_a_finished_run_does_nothing_more(tmp_path: Path):
    run(tmp_path)
    log = (tmp_path / "log.jsonl").read_text()
    again = run(tmp_path)
    assert (again.step, again.finished, again.loss) == (6, True, None)
    assert (tmp_path / "log.jsonl").read_text() == log


def test_another_recipe_cache_or_text_is_refused_with_the_difference(tmp_path: Path):
    run(tmp_path, stop_after=2)
    with pytest.raises(RunMismatch, match=r"optim.lr: 0.001 -> 0.5"):
        run(tmp_path, "optim.lr=0.5")
    other = FakeStore()
    other.cache.fingerprint = "other-cache"
    with pytest.raises(RunMismatch, match="latent cache: fake-cache -> other-cache"):
        run(tmp_path, store=other)
    with pytest.raises(RunMismatch, match=r"model.variant: fastwam -> joint"):
        run(tmp_path, "model.variant=joint")
    assert run(tmp_path, "save_every=3", "keep_last=null").finished


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda m: m.update(description="new", name="other", units={}), None),
        (lambda m: m.update(options={"a key of a later release": 1}), None),
        (lambda m: m["split"].update(val=0.5), r"another view: split\.val .* -> 0\.5"),
        (lambda m: m["normalisation"].update(delta_actions=[0]), r"another view: normalisation\.delta_actions"),
        (lambda m: m["window"].update(action_horizon=16), r"another view: window\.action_horizon 32 -> 16"),
        (lambda m: m.update(prompt="do {task}"), "another view: prompt"),
    ],
    ids=["description", "options", "split", "delta actions", "window", "prompt"],
)
def test_of_the_manifest_only_what_training_depends_on_ends_a_run(tmp_path: Path, change, refusal: str | None):
    run(tmp_path, stop_after=2)
    store = FakeStore()
    change(store.metadata["manifest"])
    if refusal is None:
        assert run(tmp_path, store=store).finished
    else:
        with pytest.raises(RunMismatch, match=refusal):
            run(tmp_path, store=store)


def test_a_run_of_an_earlier_release_continues(tmp_path: Path):
    run(tmp_path, stop_after=2)
    states = list(tmp_path.glob("checkpoints/*/state.json"))
    assert states
    for state in states:
        found = json.loads(state.read_text())
        del found["identity"]["view"], found["identity"]["recordings"]
        found["identity"]["manifest"] = "digest of the whole manifest"
        state.write_text(json.dumps(found))
    info = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**info, "stores": []}))
    assert run(tmp_path).finished


def test_other_recordings_of_the_same_number_end_a_run(tmp_path: Path):
    run(tmp_path, stop_after=2)
    store = FakeStore()
    store.fingerprint = "another"
    with pytest.raises(RunMismatch, match=r"another recordings: .* -> another"):
        run(tmp_path, store=store)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path):
    run(tmp_path / "a", stop_after=2)
    run(tmp_path / "b", "model.layers=2", stop_after=2)
    source, target = (tmp_path / n / "checkpoints" / "step-00000002" for n in "ab")
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    with pytest.raises(RunMismatch, match=r"another model: .*num_layers 1 -> 2"):
        run(tmp_path / "b", "model.layers=2")


def test_fresh_starts_again_and_resume_needs_a_run(tmp_path: Path):
    with pytest.raises(UsageError, match="--resume"):
        run(tmp_path / "new", resume=True)
    run(tmp_path / "a", stop_after=2)
    assert run(tmp_path / "a", "optim.lr=0.5", fresh=True).finished
    assert len(losses(tmp_path / "a")) == 6
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "precious.txt").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        run(tmp_path / "foreign", fresh=True)
    assert (tmp_path / "foreign" / "precious.txt").exists()


def test_a_loss_that_is_not_finite_stops_and_names_the_frames(tmp_path: Path):
    store = FakeStore((40, 40, 40))
    store.cache.poison = (1, 17)
    with pytest.raises(TrainingDiverged) as error:
        run(tmp_path, "optim.epochs=1", "save_every=1", "optim.batch_size=8", "model.variant=no-video", store=store)
    message = str(error.value)
    assert "episode1 frame" in message
    assert " 17" in message
    kept = latest(tmp_path / "checkpoints")
    if kept is None:
        assert "no checkpoint was written yet" in message
    else:
        assert str(kept.path) in message
        assert all(torch.isfinite(t).all() for t in kept.model_tensors().values())
        assert f"at step {kept.step + 1}" in message


def test_without_validation_episodes_training_says_so(tmp_path: Path):
    notes: list[str] = []
    outcome = run(tmp_path, store=FakeStore(val=0), note=notes.append)
    assert outcome.validation is None
    assert any(
        "holds out no episode" in note and f"fwdata view {FakeStore().location} --set split.val=0.25" in note
        for note in notes
    )
    run(tmp_path / "off", "validation.windows=0", note=notes.append)
    assert notes.pop() == "no validation: validation.windows is 0"


def test_validation_error_is_in_robot_units(tmp_path: Path):
    outcome = run(tmp_path, "optim.lr=1e-12")
    assert outcome.validation is not None
    assert outcome.validation.action_error.windows == 4
    line = read_log(tmp_path, "val")[-1]
    assert line["action_mae"] == outcome.validation.action_error.mae
    assert line["action_mae"] == pytest.approx(np.mean([v for k, v in line.items() if k.startswith("mae.")]), rel=1e-6)


@pytest.mark.slow
def test_training_learns(tmp_path: Path):
    run(tmp_path, "optim.steps=40", "optim.lr=1e-2", "save_every=40", "eval_every=40", "optim.batch_size=8")
    values = [line["action"] for line in read_log(tmp_path)]
    assert np.mean(values[-10:]) < 0.8 * np.mean(values[:10])


def test_the_run_folder_holds_all_that_prediction_needs(tmp_path: Path):
    store = FakeStore()
    run(tmp_path, store=store)
    info = RunFolder(tmp_path).info()
    assert info.action.names == store.action_names
    assert info.manifest.render_prompt("x").endswith("x")
    assert info.latent_shape == (48, 6, 4)
    assert info.text_shape == (8, 16)
    assert info.latents.fingerprint == "fake-cache"
    assert info.episodes == {"train": 3, "val": 1}
    assert RunFolder(tmp_path).recipe() == recipe().settled(1.0)
    state = json.loads((tmp_path / "checkpoints" / "step-00000006" / "state.json").read_text())
    assert state["identity"]["latent cache"] == "fake-cache"


def test_tensorboard_events_are_written(tmp_path: Path):
    run(tmp_path, "tensorboard=true")
    assert len(list((tmp_path / "tensorboard").glob("events.*"))) == 1


def test_a_signal_asks_for_a_stop_and_a_second_interrupt_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_schedule_warms_up_and_falls_to_one_percent():
    optim = OptimRecipe(lr=1e-4, warmup_fraction=0.05, min_lr_ratio=0.01, steps=1000)
    rates = [learning_rate(k, 1000, optim) for k in range(1000)]
    assert rates[0] == pytest.approx(1e-4 / 50)
    assert rates[25] == pytest.approx(1e-4 * (1 / 50 + (1 - 1 / 50) * 25 / 50))
    assert rates[50] == pytest.approx(1e-4)
    k = 600
    assert rates[k] == pytest.approx(1e-6 + 99e-6 * (1 + math.cos(math.pi * (k - 50) / 950)) / 2)
    assert rates[999] == pytest.approx(1e-6, rel=0.01)
    assert max(rates) == rates[50]


def test_clipping_scales_the_gradient_and_reports_the_unclipped_norm():
    norms, steps = [], []
    for clip in (None, 0.5):
        model = small_model()
        weight = next(model.parameters())
        before = weight.detach().clone()
        weight.grad = torch.full_like(weight, 3.0)
        optimizer = Optimizer(model, OptimRecipe(steps=1, clip=clip, eps=1.0, weight_decay=0))
        norms.append(float(optimizer.step(0.1)))
        steps.append(float((weight.detach() - before).abs().max()))
    assert norms[0] == norms[1] == pytest.approx(3.0 * math.sqrt(weight.numel()))
    assert steps[1] < 0.5 * steps[0]


def test_bf16_weights_follow_float32_masters():
    model = small_model(torch.bfloat16)
    optimizer = Optimizer(model, OptimRecipe(steps=1, weight_decay=0))
    weight = model.action.head.weight
    start = weight.detach().clone()
    for _ in range(200):
        weight.grad = torch.ones_like(weight)
        optimizer.step(1e-5)
        optimizer.zero_grad()
    master = next(part.tensor for part in optimizer.parts() if part.name == "master.mixtures.action.head.weight")
    moved = master - start.float()
    assert moved.mean() == pytest.approx(-200e-5, rel=0.05)  # steps far below bf16's resolution still add up
    assert (weight == master.bfloat16()).all()


def test_a_fresh_run_takes_nothing_from_the_one_it_replaces(tmp_path: Path):
    run(tmp_path / "a", "optim.steps=1", "model.action_shift=3.0")
    run(tmp_path / "a", "optim.steps=1", fresh=True)
    assert RunFolder(tmp_path / "a").recipe() == recipe("optim.steps=1").settled(1.0)


def test_rows_far_outside_the_statistics_are_reported(tmp_path):
    source = open_source(FakeStore(), recipe())
    assert far_values(source) == []
    stale = replace(source, state=Normaliser(source.state.scale * 200, source.state.offset))
    [told] = far_values(stale)
    assert told.startswith("state rows of 3 of 3 episodes are far outside the statistics, such as episode0")
    assert "fwdata stats" in told
