"""The controlled comparison: equal budgets, resumable, honest about what its intervals show."""

from __future__ import annotations

import json
import subprocess
from itertools import count
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from fake_store import FakeStore
from training import recipe
from warm import WarmPrograms

from fwdata.errors import UsageError
from fwdata.report import Range, RangePanel, Report, range_plot
from fwtrain.compare import CellResult, ComparedRun, ComparisonArm, ComparisonPlan, make_plan, run_comparison, summarise
from fwtrain.compare import run as comparing
from fwtrain.compare.page import write_comparison
from fwtrain.compare.run import states
from fwtrain.compare.summary import sentences
from fwtrain.data import open_source, training_order, training_reader
from fwtrain.errors import Interrupted, RunMismatch
from fwtrain.infer.evaluate import EvalResult
from fwtrain.recipe_changes import differences
from fwtrain.train.build import build_model, model_config
from fwtrain.train.loop import Trainer

NAMES = ("fastwam", "joint", "idm", "optional-idm", "no-video")


def plan(out: Path, *overrides: str, **options: Any) -> ComparisonPlan:
    return make_plan(recipe("optim.steps=2", *overrides), out, **{"env": "none", "seeds": (0, 1), **options})


def test_runs_of_one_seed_have_the_same_windows_order_and_weights_and_differ_in_one_key(tmp_path: Path):
    made = plan(tmp_path, lambdas=(0.5,))
    store = FakeStore((40, 40, 33, 50), stride=4)
    orders, weights = {}, {}
    for cell in made.cells:
        chosen = made.recipe(cell)
        source = open_source(store, chosen)
        reader = training_reader(source, chosen)
        assert reader.index.video.all()
        order = training_order(reader.index, chosen)
        orders.setdefault(cell.seed, set()).add(
            tuple(tuple(p.windows.tolist()) for i in range(9) for p in order.step(i))
        )
        model = build_model(model_config(chosen, source), chosen.seed)
        weights.setdefault(cell.seed, set()).add(sum(float(p.detach().double().sum()) for p in model.parameters()))
        keys = {line.split(":")[0] for line in differences(made.recipe(ComparedRun(made.arms[0], cell.seed)), chosen)}
        keys -= {"model.cond_noise_prob", "model.action_idm_prob"}  # they belong to the variant
        assert len(keys) == (cell.arm is not made.arms[0])
    assert [len(found) for found in (*orders.values(), *weights.values())] == [1, 1, 1, 1]
    assert orders[0] != orders[1] and weights[0] != weights[1]


def test_the_lambda_grid_trains_nothing_twice(tmp_path: Path):
    arms = plan(tmp_path, lambdas=(0, 0.5, 1, 0.5)).arms
    assert [arm.name for arm in arms] == [*NAMES, "fastwam lambda 0.5"]
    assert [arm.name for arm in plan(tmp_path, variants=("fastwam",), lambdas=(0,)).arms] == ["fastwam", "no-video"]
    assert [a.variant for a in plan(tmp_path, variants=("joint",), lambdas=(0,)).arms] == ["joint", "joint"]


@pytest.mark.slow
def test_a_comparison_trains_every_run_and_writes_table_plot_and_pages(tmp_path: Path):
    made = plan(tmp_path)
    told: list[int] = []
    results = run_comparison(FakeStore(), made, finished=lambda found: told.append(len(found)))
    assert told == list(range(1, 11))
    assert [(r.cell.arm.name, r.cell.seed) for r in results] == [(n, s) for s in (0, 1) for n in NAMES]
    page = write_comparison(made, results)
    root = ElementTree.fromstring(page.read_text())
    links = [a.get("href") for a in root.iter("a")]
    assert len(links) == 10 and all((tmp_path / str(link)).is_file() for link in links)
    data = json.loads((tmp_path / "results.json").read_text())
    assert data["complete"] and [arm["name"] for arm in data["arms"]] == list(NAMES)
    scores = [run["validation"]["score"] for run in data["arms"][0]["runs"]]
    assert data["arms"][0]["score"]["value"] == pytest.approx(np.mean(scores))
    assert data["arms"][0]["score_against_first"] is None and data["arms"][0]["success"] is None
    assert data["arms"][4]["video_by_horizon"] is None and len(data["arms"][1]["video_by_horizon"]) == 2
    svg = ElementTree.fromstring((tmp_path / "comparison.svg").read_text())
    assert [name in "".join(svg.itertext()) for name in NAMES] == [True] * 5


@pytest.mark.slow
def test_a_stopped_comparison_continues_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = run_comparison(FakeStore(), plan(tmp_path / "whole", variants=NAMES[:2]))
    made, steps = plan(tmp_path / "stopped", variants=NAMES[:2]), count(1)
    with pytest.raises(Interrupted, match="step 1 of 2 of joint-seed0; the same command continues"):
        run_comparison(FakeStore(), made, should_stop=lambda: next(steps) > 3)
    assert [(s.step, s.judged) for s in states(made)] == [(2, True), (1, False), (0, False), (0, False)]
    done: list[int] = []
    train_step = Trainer._train_step
    monkeypatch.setattr(
        Trainer, "_train_step", lambda self, *rest: (done.append(self.step), train_step(self, *rest))[1]
    )
    notes: list[str] = []
    results = run_comparison(FakeStore(), made, note=notes.append)
    assert done == [1, 0, 1, 0, 1]  # the rest of the second run, and the two that had not begun
    assert [r.validation for r in results] == [r.validation for r in whole]
    assert any("about" in note and "left" in note for note in notes)
    run_comparison(FakeStore(), made)
    assert len(done) == 5


def test_another_recipe_is_refused_in_the_same_folder(tmp_path: Path):
    run_comparison(FakeStore(), plan(tmp_path, seeds=(0,), variants=NAMES[:1]))
    for overrides in (["optim.lr=0.5"], ["optim.steps=3"]):
        with pytest.raises(RunMismatch, match=overrides[0].split("=")[0]):
            run_comparison(FakeStore(), plan(tmp_path, *overrides, seeds=(0,), variants=NAMES[:1]))


def test_the_closed_loop_is_run_once_per_checkpoint_and_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[int, int]] = []

    def act(policy: object, episodes: int, seed: int, *, execute: int, done: Any) -> EvalResult:
        asked.append((episodes, execute))
        done(episodes)
        outcomes = tuple(i < len(asked) for i in range(episodes))
        return EvalResult(sum(outcomes), episodes, 9.0, {"press": (sum(outcomes), episodes)}, outcomes)

    store = FakeStore()
    store.source = "robotwin"
    monkeypatch.setattr(comparing, "evaluate_sample", act)
    monkeypatch.setattr(comparing.Policy, "load", lambda *args, **options: None)
    options: dict[str, Any] = {"env": "sample", "seeds": (0,), "variants": NAMES[:2]}
    first = run_comparison(store, plan(tmp_path, episodes=4, **options))
    again = run_comparison(store, plan(tmp_path, episodes=4, **options))
    assert asked == [(4, 12), (4, 12)] and [r.closed for r in first] == [r.closed for r in again]
    run_comparison(store, plan(tmp_path, episodes=5, **options))
    assert asked[2:] == [(5, 12), (5, 12)]
    with pytest.raises(Interrupted, match="fastwam-seed0 was acting"):
        run_comparison(store, plan(tmp_path, episodes=6, **options), should_stop=lambda: True)


def result(name: str, seed: int, wins: int, score: float, episodes: int = 20) -> CellResult:
    outcomes = tuple(i < wins for i in range(episodes))
    closed = EvalResult(wins, episodes, 10.0, {}, outcomes)
    return CellResult(ComparedRun(ComparisonArm(name, 1.0, name), seed), {"score": score}, closed, 10)


def test_findings_say_what_is_shown_and_what_is_not():
    results = [result("fastwam", s, 18, 0.10 + s / 100) for s in range(3)]
    results += [result("joint", s, 17, 0.101 + s / 90) for s in range(3)]
    results += [result("no-video", s, 8, 0.20 + s / 100) for s in range(3)]
    summaries = summarise(results)
    assert summaries[0].success is not None and summaries[0].success.value == 0.9
    joint_success, joint_error, less_success, less_error = sentences(summaries)
    assert joint_success.startswith("joint against fastwam, closed-loop success: -5 points (")
    assert all("includes 0: no difference is shown" in text for text in (joint_success, joint_error))
    assert less_success.endswith("The interval excludes 0: fewer successes.") and "-50 points" in less_success
    assert less_error.endswith("The interval excludes 0: larger error.") and "+0.1000" in less_error
    alone = summarise([result("fastwam", 0, 20, 0.1), result("joint", 0, 0, 0.9)])
    assert "One seed bounds nothing" in sentences(alone)[1]


def test_arms_of_a_part_are_compared_by_the_seeds_they_share():
    results = [result("fastwam", 0, 10, 0.1), result("joint", 0, 10, 0.2), result("fastwam", 1, 20, 0.5)]
    joint = summarise(results)[1]
    assert joint.versus_score is not None and joint.versus_score.value == pytest.approx(0.1)
    assert joint.versus_success is not None and joint.versus_success.value == 0


def test_ranges_are_drawn_within_their_axis_and_rows_must_agree():
    rows = {"a <b>": Range(50, 20, 190, (40, 60)), "none": None}
    root = ElementTree.fromstring(range_plot([RangePanel("t", "%", rows, (0, 100))]))
    dots = [float(dot.get("cx", 0)) for dot in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(dots) == 3 and dots[2] == pytest.approx((dots[0] + dots[1]) / 2)
    ends = [path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("class") == "line s0"]
    width = float(root.get("viewBox", "").split()[2])
    right = float(ends[0].get("d", "").split("H")[1].split("M")[0])
    assert max(dots) < right < width
    assert "a <b>" in "".join(root.itertext())
    with pytest.raises(ValueError, match="same rows"):
        range_plot([RangePanel("t", "", {"a": None}), RangePanel("u", "", {"b": None})])


@pytest.mark.parametrize("target", ["../up.html", "/etc/passwd", "javascript:alert(1)", "a//b", 'x" onclick="', ""])
def test_a_report_links_to_plain_relative_paths_alone(target: str):
    with pytest.raises(ValueError, match="plain relative path"):
        Report("page").links({"here": target})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": ("fastwan",)}, "did you mean 'fastwam'"),
        ({"env": "moon"}, "--env 'moon' is unknown"),
        ({"episodes": 0}, "--episodes must be at least 1"),
        ({"seeds": ()}, "--seeds and --variants"),
        ({"seeds": (-1,)}, "must not be negative"),
        ({"variants": ("no-video",), "lambdas": (0.5,)}, "a variant with a video loss"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(tmp_path: Path, options: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        plan(tmp_path, **options)


def test_a_world_without_the_stores_robot_is_refused_before_training(tmp_path: Path):
    store = FakeStore()  # of a robot that the sample world does not have
    with pytest.raises(UsageError, match="fake"):
        run_comparison(store, plan(tmp_path, env="sample"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_whole_comparison_on_recordings_of_the_sample_world(tmp_path: Path, warm: WarmPrograms):
    raw, path, out = (str(tmp_path / name) for name in ("raw", "s.zarr", "compared"))
    small = ("--set", "optim.batch_size=4", "--set", "validation.windows=4", "--steps", "2", "--seeds", "0")
    for command in (
        ("fwdata", "sample", "robotwin", "--episodes", "10", "--out", raw),
        ("fwdata", "convert", "robotwin", raw, "--out", path, "--manifest", "robotwin-sample"),
        ("fwdata", "stats", path),
        ("fwdata", "encode-text", path, "--encoder", "tiny"),
        ("fwdata", "encode-latents", path, "--vae", "tiny", "--stride", "16"),
        ("fwtrain", "compare", path, "--recipe", "tiny", "--out", out, *small, "--episodes", "2", "--threads", "1"),
    ):
        program, *arguments = command
        done = subprocess.run([*warm(program), *arguments, "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    data = json.loads(done.stdout)
    assert data["complete"] and [arm["name"] for arm in data["arms"]] == list(NAMES)
    for arm in data["arms"]:
        assert arm["runs"][0]["closed_loop"]["episodes"] == 2 and 0 < arm["success"]["high"] < 1
        page = (tmp_path / "compared" / arm["runs"][0]["folder"] / "report.html").read_text()
        assert ("True and predicted frames of held-out windows" in page) == (arm["name"] != "no-video")
