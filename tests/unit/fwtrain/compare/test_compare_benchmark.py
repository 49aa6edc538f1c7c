"""A comparison judged by trials of a benchmark: equal trials, kept, paired, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_store import FakeStore
from json_checks import faults
from serving import small_policy
from training import recipe

from fwdata.envs.benchmarks import load_benchmark
from fwdata.io import plain_json
from fwtrain.compare import CellResult, ComparedRun, ComparisonArm, ComparisonPlan, make_plan, run_comparison, summarise
from fwtrain.compare.page import to_json, write_comparison
from fwtrain.compare.run import states
from fwtrain.errors import Interrupted
from fwtrain.infer.evaluate import EvalResult
from fwtrain.infer.policy import Policy
from fwtrain.infer.trials.loop import Unfinished
from fwtrain.infer.trials.plan import ProtocolChanges, plan_evaluation

ENV = "fake_benchmark:BENCHMARK"


def plan(out: Path, *, trials: str = "2", **options: Any) -> ComparisonPlan:
    asked = plan_evaluation(
        ENV, load_benchmark(ENV), ["one"], tasks="lift", trials=trials, changes=ProtocolChanges(limit=9)
    )
    usual = {"seeds": (0,), "variants": ("fastwam", "no-video"), "workers": 2}
    return make_plan(recipe("optim.steps=1"), out, benchmark=asked, **{**usual, **options})


@pytest.fixture(autouse=True)
def without_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policy, "load", lambda *args, **options: small_policy())


@pytest.mark.slow
def test_runs_are_judged_by_equal_trials_which_are_kept_and_paired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    marks, out = tmp_path / "marks", tmp_path / "out"
    marks.mkdir()
    monkeypatch.setenv("FAKE_BENCHMARK", f"exit,lift,1,2,{marks}")
    made = plan(out)
    assert (made.env, made.episodes, made.execute) == (ENV, 2, 4)
    results = run_comparison(FakeStore(), made)
    (lost,) = results[0].unfinished
    assert (lost.task, lost.trial) == ("lift", 1) and results[1].unfinished == ()
    assert [state.judged for state in states(made)] == [False, True]
    assert results[0].closed is not None and results[0].closed.episodes == 1 and results[0].closed.outcomes == ()
    found = to_json(made, summarise(results))
    assert not found["complete"] and found["arms"][1]["success_against_first"] is None
    kept = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/compared/*/*/trials/*/*/*.json")}
    assert len(kept) == 3
    results = run_comparison(FakeStore(), made)
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items()), "finished trials stay"
    page, found = write_comparison(made, results), to_json(made, summarise(results))
    assert not faults("fwtrain", "compare", json.loads(json.dumps({**found, "report": str(page)}, default=plain_json)))
    assert found["complete"] and found["closed_loop"]["trials"] == [0, 1] and found["closed_loop"]["env"] == ENV
    difference = found["arms"][1]["success_against_first"]
    assert difference is not None and difference["value"] == 0  # the same policy, the same trials
    text = page.read_text()
    assert "protocol usual with other limits: 1 task, 2 scenes" in text and "fake_one/lift" in text
    assert "Closed-loop success, fake_benchmark<" in text and "\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}2" in text
    assert "In closed loop" in (out / "runs/fastwam-seed0/report.html").read_text()
    loads: list[int] = []
    monkeypatch.setattr(Policy, "load", lambda *args, **options: loads.append(1) or small_policy())
    assert [r.closed for r in run_comparison(FakeStore(), made)] == [r.closed for r in results] and not loads
    with pytest.raises(Interrupted, match="its training and its finished trials are kept"):
        run_comparison(FakeStore(), plan(out, trials="4"), should_stop=lambda: True)
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())


def test_trials_that_are_not_finished_are_left_out_of_pairs():
    def result(name: str, outcomes: tuple[bool, ...], lost: int = 0) -> CellResult:
        closed = EvalResult(sum(outcomes), len(outcomes), 9.0, {}, () if lost else outcomes)
        unfinished = (Unfinished("one", "lift", 1, "its environment crashed"),) * lost
        return CellResult(ComparedRun(ComparisonArm(name, 1.0, name), 0), {}, closed, 1, unfinished)

    _, other = summarise([result("fastwam", (True, True)), result("joint", (True,), lost=1)])
    assert other.versus_success is None and other.success is not None and other.success.value == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--env", ENV), "needs --suite: fake_one, fake_two"),
        (("--env", ENV, "--suite", "one", "--episodes", 3), f"--episodes has no meaning with --env {ENV}"),
        (("--env", ENV, "--suite", "one", "--execute", 33), "asks for 33 actions of a chunk, the run predicts 32"),
        (("--suite", "one"), "--suite has no meaning with --env sample"),
        (("--env", "none", "--execute", 3), "--execute has no meaning with --env none"),
        (("--env", "libro", "--suite", "goal"), "--env 'libro' is unknown; did you mean 'libero'?"),
    ],
)
def test_a_world_that_does_not_fit_is_refused_before_training(
    tmp_path: Path, call, memory_store, options: tuple[Any, ...], words: str
):
    asked = ("compare", "memory", "--recipe", "tiny", "--out", tmp_path / "out", *options, "--device", "cpu")
    code, out, err = call(*asked)
    assert code == 2 and out == "" and words in err, err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_ends_with_3_where_environments_crash(tmp_path: Path, call, memory_store, monkeypatch):
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("FAKE_BENCHMARK", f"exit,lift,0,2,{marks}")
    small = ("--steps", 1, "--seeds", 0, "--variants", "no-video", "--set", "validation.windows=0", "--device", "cpu")
    small = (*small, "--set", "optim.batch_size=2")
    words = ("compare", "memory", "--recipe", "tiny", "--out", tmp_path / "out", *small, "--env", ENV)
    words = (*words, "--suite", "one", "--tasks", "lift", "--trials", 1, "--limit", 9)
    code, out, err = call(*words, "--json")
    assert code == 3 and "trial 0 of fake_one/lift is not finished: its environment ended with status 3" in err, err
    run = json.loads(out)["arms"][0]["runs"][0]
    assert run["closed_loop"] is None and run["unfinished"][0]["trial"] == 0
    code, out, _ = call(*words)
    assert code == 0 and "report: " in out
    code, out, _ = call(*words, "--dry-run", "--json")
    assert code == 0 and json.loads(out)["runs"][0]["done"]
