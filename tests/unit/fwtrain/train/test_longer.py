"""A finished run that is given more steps, and windows of another length in seconds than the published ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_store import FakeStore
from fixtures import robotwin_store
from training import assert_same_run, losses, recipe, run

import fwdata
from fwdata.errors import UsageError
from fwdata.window import Window
from fwtrain.cli.run import _outcome_text
from fwtrain.errors import RunMismatch
from fwtrain.recipe import load_recipe
from fwtrain.train.build import Sizes, sized_config
from fwtrain.train.folder import RunFolder, refuse_difference
from fwtrain.train.horizon import horizon_warning
from fwtrain.train.optim import learning_rate
from fwtrain.train.run import plan_run


def test_a_finished_run_continues_from_its_last_checkpoint_with_the_longer_schedule(tmp_path: Path):
    run(tmp_path)
    before, notes = losses(tmp_path), list[str]()
    planned = plan_run(FakeStore(), recipe("optim.steps=12"), tmp_path)
    assert (planned.step, planned.total) == (6, 12)
    again = run(tmp_path, "optim.steps=12", note=notes.append)
    assert (again.step, again.total, again.finished) == (12, 12, True)
    after = losses(tmp_path)
    assert after[:6] == before and [line["step"] for line in after] == list(range(1, 13))
    optim = recipe("optim.steps=12").optim
    assert [line["lr"] for line in after[6:]] == [learning_rate(step, 12, optim) for step in range(6, 12)]
    text = next(note for note in notes if "was finished" in note)
    assert "finished at step 6, at learning rate 1e-05; it continues from that checkpoint to step 12" in text
    assert f"the next one {learning_rate(6, 12, optim):.3g}" in text
    folder = RunFolder(tmp_path)
    assert folder.recipe().optim.steps == 12
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["kind"] == "longer"] == [{"kind": "longer", "step": 6, "total": 12}]
    assert "continued at step 6" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_a_longer_run_that_is_stopped_goes_on_as_without_the_stop(tmp_path: Path):
    for name in ("whole", "stopped"):
        run(tmp_path / name)
    run(tmp_path / "whole", "optim.steps=12")
    run(tmp_path / "stopped", "optim.steps=12", stop_after=2)
    assert run(tmp_path / "stopped", "optim.steps=12").finished
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_epochs_can_be_added_too(tmp_path: Path):
    first = run(tmp_path, "optim.epochs=1", "optim.steps=null")
    assert run(tmp_path, "optim.epochs=2", "optim.steps=null").step == 2 * first.step


def test_only_a_finished_run_only_more_steps_and_nothing_else(tmp_path: Path):
    run(tmp_path, stop_after=2)
    with pytest.raises(RunMismatch, match=r"optim.steps: 6 -> 12.*finish it first, with the steps it has"):
        run(tmp_path, "optim.steps=12")
    run(tmp_path)
    with pytest.raises(RunMismatch, match=r"optim.steps: 6 -> 3.*can be given more steps, not fewer"):
        run(tmp_path, "optim.steps=3")
    with pytest.raises(RunMismatch, match=r"optim.lr: 0.001 -> 0.5") as refused:
        run(tmp_path, "optim.steps=12", "optim.lr=0.5")
    assert "more steps" not in str(refused.value)
    assert RunFolder(tmp_path).recipe().optim.steps == 6


def test_the_last_lines_of_a_run_say_how_it_goes_on(tmp_path: Path):
    first = run(tmp_path)
    assert "(video none of this step's windows, action" in _outcome_text(replace(first, video=0.0), tmp_path)
    assert "nothing was trained; for more steps" in _outcome_text(run(tmp_path), tmp_path)


def test_a_difference_is_named_by_its_cause_before_the_digest_that_follows_from_it():
    saved = {"normalisation": "a1", "view": json.dumps({"split": {"val": 0.1}})}
    now = {"normalisation": "b2", "view": json.dumps({"split": {"val": 0.25}})}
    with pytest.raises(RunMismatch, match=r"another view: split.val 0.1 -> 0.25"):
        refuse_difference(saved, now, "run")
    with pytest.raises(RunMismatch, match=r"another normalisation: a1 -> b2 \(digests; other recordings"):
        refuse_difference(saved, {**saved, "normalisation": "b2"}, "run")


@pytest.mark.parametrize("fps", [20, 50 / 3, 15])
def test_published_rates_are_not_warned_about(fps: float):
    assert horizon_warning(Window(), fps) is None


@pytest.mark.parametrize(("fps", "seconds"), [(30, "1.07"), (50, "0.64"), (5, "6.40")])
def test_a_window_of_another_length_in_seconds_is_warned_about_with_one_that_fits(fps: float, seconds: str):
    text = horizon_warning(Window(), fps)
    assert text is not None and f"33 frames at {fps} Hz span {seconds} s" in text
    values = dict(part.split("=") for part in text.replace(",", " ").split() if part.startswith("window."))
    better = Window(**{key.removeprefix("window."): int(value) for key, value in values.items()})
    assert horizon_warning(better, fps) is None and better.latent_frames == 3


def test_a_run_says_it_before_its_first_step(tmp_path: Path):
    store, notes = FakeStore(), list[str]()
    store.fps = 60.0
    run(tmp_path, store=store, note=notes.append)
    assert any("span" in note and "fwdata view" in note for note in notes)


def test_the_generic_recipe_takes_its_sizes_from_a_store_without_caches(tmp_path: Path):
    generic = load_recipe("generic")
    sizes = Sizes.planned(fwdata.open(robotwin_store(tmp_path)), generic)
    assert (sizes.state, sizes.action, sizes.latent_shape, sizes.text_shape) == (14, 14, (48, 6, 4), (128, 4096))
    config = sized_config(generic, sizes)
    assert (config.action_expert.action_dim, config.proprio_dim, config.latent_grid) == (14, 14, (3, 6, 4))
    with pytest.raises(UsageError, match="recipe generic takes its sizes from the recordings: name their store"):
        Sizes.usual(generic)
