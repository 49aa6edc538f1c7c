"""Closed loops in a benchmark: trials that can be repeated alone, workers that crash, and folders that continue."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import fake_benchmark
import numpy as np
import pytest
from fixtures import tree
from serving import small_policy

from fwdata.envs.benchmarks.contract import RobotSpec, checked_states
from fwdata.errors import FwdataError, UsageError
from fwdata.io import plain_json
from fwdata.report.films import film_frames
from fwtrain.infer.closed_loop import in_rows
from fwtrain.infer.policy import Policy
from fwtrain.infer.trials import films
from fwtrain.infer.trials.loop import trial_row
from fwtrain.infer.trials.plan import EvalPlan, PolicyAbout, ProtocolChanges, plan_evaluation
from fwtrain.infer.trials.records import EvalFolder
from fwtrain.infer.trials.run import Evaluation, FilmRequest, evaluate_benchmark, text
from fwtrain.model import Denoising
from fwtrain.serve.client import ServerError

ABOUT: PolicyAbout = {
    "checkpoint": "step 2",
    "variant": "fastwam",
    "sampling": Denoising(mode="first-frame", video_shift=5.0, action_shift=1.0),
    "gripper_sign": [],
    "scaling": "0" * 16,
    "arithmetic": "float32 on cpu",
}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return small_policy()


class RowPolicy:
    """Every row of a batch from its own observation and seed; what was asked is kept."""

    gripper_sign: tuple[int, ...] = ()

    def __init__(self, info) -> None:
        self.info = info
        self.batches: list[int] = []
        self.seeds: list[int] = []

    def act_batch(self, observations, seeds, *, steps):
        assert steps == 2
        self.batches.append(len(observations))
        self.seeds += seeds
        return np.stack([self.row(o, s) for o, s in zip(observations, seeds, strict=True)])

    def row(self, seen, seed):
        noise = np.random.default_rng(seed).normal(size=(32, 14)).astype(np.float32)
        noise[:, 6] = noise[:, 6] > 0
        return noise + 0.1 * seen.state[0] * (np.arange(14) != 6)

    def commands(self, chunk):
        return chunk


@pytest.fixture
def rows(policy: Policy) -> RowPolicy:
    return RowPolicy(policy.info)


ENV = "fake_benchmark:BENCHMARK"
ASKED = ("suites", "tasks", "trials", "protocol", "changes")


def plan(suites=("one",), **options) -> EvalPlan:
    return plan_evaluation(ENV, fake_benchmark.BENCHMARK, suites, **options)


def evaluate(policy, out: Path, **options) -> Evaluation:
    asked = {key: options.pop(key) for key in ASKED if key in options}
    return evaluate_benchmark(plan(**asked), policy, ABOUT, out, **options)


def outcomes(out: Path) -> dict[str, dict]:
    """Finished trials without what they cost."""
    kept = {str(p.relative_to(out)): json.loads(p.read_text()) for p in (out / "trials").rglob("*.json")}
    return {name: {k: v for k, v in record.items() if k != "env_cpu_seconds"} for name, record in kept.items()}


@pytest.mark.slow
def test_trials_are_the_same_alone_in_any_order_and_for_any_number_of_workers(rows: RowPolicy, tmp_path: Path):
    whole = evaluate(rows, tmp_path / "whole", workers=3)
    evaluate(rows, tmp_path / "parts", trials="2-3")
    evaluate(rows, tmp_path / "parts", tasks="drop", trials="1")
    evaluate(rows, tmp_path / "parts", workers=2)
    assert outcomes(tmp_path / "parts") == outcomes(tmp_path / "whole")
    assert len(outcomes(tmp_path / "whole")) == 8 and whole.summary.all.trials == 8
    records = list(EvalFolder(tmp_path / "whole").finished())
    assert {r.success for r in records} == {True, False}
    assert all(r.steps <= fake_benchmark.LIMIT and len(r.commands()) == r.steps for r in records)
    assert all(set(np.unique(r.commands()[:, 6])) <= {-1, 1} for r in records), "the gripper rule of the environment"


class Waits(RowPolicy):
    """Answers for the first time once two environments have started."""

    def act_batch(self, observations, seeds, *, steps):
        deadline = time.monotonic() + 60
        while len(list(Path(os.environ["FAKE_STARTED"]).iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return super().act_batch(observations, seeds, steps=steps)


@pytest.mark.slow
def test_waiting_observations_of_all_environments_are_one_batch(policy: Policy, tmp_path: Path, monkeypatch):
    (tmp_path / "started").mkdir()
    monkeypatch.setenv("FAKE_STARTED", str(tmp_path / "started"))
    monkeypatch.setenv("FAKE_PACE", "0.1")
    waits = Waits(policy.info)
    evaluate(waits, tmp_path / "out", tasks="drop", trials="4", workers=2, rows=4)
    chunks = sum(record["chunks"] for record in outcomes(tmp_path / "out").values())
    assert set(waits.batches) == {4} and len(waits.batches) < chunks, "some of them held two observations"


@pytest.mark.slow
def test_workers_change_no_bit_with_a_real_network(policy: Policy, tmp_path: Path):
    """Batches have 3 rows and a trial is always in the same one, whoever waits; elsewhere it rounds differently."""
    evaluate(policy, tmp_path / "one", tasks="drop", trials="3", rows=3)
    evaluate(policy, tmp_path / "two", tasks="drop", trials="3", rows=3, workers=3)
    assert outcomes(tmp_path / "one") == outcomes(tmp_path / "two")


def test_trials_keep_their_rows():
    def seat(task: int, trial: int) -> SimpleNamespace:
        return SimpleNamespace(task=SimpleNamespace(task=SimpleNamespace(number=task)), episode=trial)

    seats = [seat(0, 4), seat(0, 1), seat(0, 7), seat(1, 1), seat(1, 4)]
    found = [
        {row: seat.episode for row, seat in batch.items()}
        for batch in in_rows(seats, [trial_row(seat, 3) for seat in seats])
    ]
    assert found == [{1: 4, 2: 1}, {1: 1, 2: 4}, {1: 7}]
    assert [list(batch) for batch in in_rows(seats, [trial_row(seat, 1) for seat in seats])] == [[0]] * 5


@pytest.mark.slow
def test_noise_is_running_or_the_same_for_every_chunk(rows: RowPolicy, tmp_path: Path):
    evaluate(rows, tmp_path / "running", trials="2")
    assert len(set(rows.seeds)) == len(rows.seeds) > 4
    same = RowPolicy(rows.info)
    evaluate(same, tmp_path / "same", trials="2", protocol="other")
    assert set(same.seeds) == {42}


def test_finished_trials_are_never_run_again(rows: RowPolicy, tmp_path: Path):
    evaluate(rows, tmp_path)
    before, asked = tree(tmp_path / "trials"), len(rows.batches)
    evaluate(rows, tmp_path)
    assert tree(tmp_path / "trials") == before and len(rows.batches) == asked


class Stops(RowPolicy):
    """Ends the evaluation once a trial was written, as a server that is gone or a kill would."""

    def __init__(self, info, out: Path) -> None:
        super().__init__(info)
        self.out = out

    def act_batch(self, observations, seeds, *, steps):
        if outcomes(self.out):
            raise ServerError("the policy server is gone (closed)")
        return super().act_batch(observations, seeds, steps=steps)


@pytest.mark.slow
def test_a_server_that_is_gone_loses_nothing(rows: RowPolicy, tmp_path: Path):
    with pytest.raises(ServerError, match="gone"):
        evaluate(Stops(rows.info, tmp_path / "cut"), tmp_path / "cut", workers=2)
    kept = outcomes(tmp_path / "cut")
    assert 0 < len(kept) < 8
    evaluate(rows, tmp_path / "cut", workers=2)
    assert {name: record for name, record in outcomes(tmp_path / "cut").items() if name in kept} == kept
    assert len(outcomes(tmp_path / "cut")) == 8


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("crash", "crashed (SIGABRT)"),
        pytest.param("exit", "ended with status 3: the renderer is gone", marks=pytest.mark.slow),
        pytest.param("hang", "did not answer for 10 s", marks=pytest.mark.slow),
        pytest.param("raise", "crashed: RuntimeError in fake_benchmark.py", marks=pytest.mark.slow),
    ],
)
def test_a_lost_environment_costs_its_trial_only(
    rows: RowPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
):
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("FAKE_BENCHMARK", f"{kind},drop,1,2,{marks}")
    found = evaluate(rows, tmp_path / "out", trials="2", hang=10.0 if kind == "hang" else None)
    assert len(list(marks.iterdir())) == 2, "tried twice"
    assert [(u.task, u.trial) for u in found.unfinished] == [("drop", 1)] and words in found.unfinished[0].reason
    assert found.summary.all.trials == 3 and found.summary.all.planned == 4
    again = evaluate(rows, tmp_path / "out", trials="2")
    assert not again.unfinished and again.summary.all.trials == 4
    monkeypatch.delenv("FAKE_BENCHMARK")
    evaluate(rows, tmp_path / "calm", trials="2")
    assert outcomes(tmp_path / "out") == outcomes(tmp_path / "calm")


def test_an_environment_that_refuses_ends_with_its_sentence(rows: RowPolicy, tmp_path: Path, monkeypatch):
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("FAKE_BENCHMARK", f"refuse,lift,0,9,{marks}")
    with pytest.raises(UsageError, match="this task cannot be built"):
        evaluate(rows, tmp_path / "out", trials="1")


def test_a_folder_continues_with_its_own_settings_only(rows: RowPolicy, tmp_path: Path, monkeypatch):
    evaluate(rows, tmp_path / "out", trials="1")
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match=r"protocol.limits.fake_one 20, now it is 9; use another --out"):
        evaluate(rows, tmp_path / "out", trials="1", changes=ProtocolChanges(limit=9))
    with pytest.raises(UsageError, match=r"policy.checkpoint step 2, now it is step 4"):
        evaluate_benchmark(plan(trials="1"), rows, {**ABOUT, "checkpoint": "step 4"}, tmp_path / "out")
    with pytest.raises(UsageError, match=r"policy.arithmetic float32 on cpu, now it is bfloat16 on cuda"):
        evaluate_benchmark(plan(trials="1"), rows, {**ABOUT, "arithmetic": "bfloat16 on cuda"}, tmp_path / "out")
    assert tree(tmp_path / "out") == before
    other = fake_benchmark.BENCHMARK.initial_states("one", None).states + 1
    monkeypatch.setattr(fake_benchmark.FakeBenchmark, "initial_states", lambda *_: checked_states(other, "memory"))
    with pytest.raises(UsageError, match=r"trial 0 of fake_one/drop, which began with other initial states \(sha256 "):
        evaluate(rows, tmp_path / "out", trials="1-2")
    monkeypatch.undo()
    assert tree(tmp_path / "out") == before
    settings = tmp_path / "out/settings.json"
    older = {**json.loads(settings.read_text()), "policy": {k: v for k, v in ABOUT.items() if k != "arithmetic"}}
    older["protocol"]["source"] = "usual script, as it was called before"
    settings.write_text(json.dumps(older, default=plain_json))
    assert evaluate(rows, tmp_path / "out", trials="1").summary.all.trials == 2, "texts and new keys decide nothing"
    record = tmp_path / "out/trials/fake_one/lift/0.json"
    record.write_text("{")
    with pytest.raises(UsageError, match=r"0.json is damaged; delete it to run its trial again"):
        evaluate(rows, tmp_path / "out", trials="1")


@pytest.mark.parametrize(
    ("suites", "options", "words"),
    [
        (("three",), {}, "--suite 'three' is unknown"),
        ((), {}, "needs --suite: fake_one, fake_two"),
        (("one",), {"tasks": "7"}, "has no task '7', tasks are 0 to 1"),
        (("one",), {"tasks": "lifft"}, "did you mean 'lift'?"),
        (("one",), {"tasks": " , "}, "--tasks names no task"),
        (("one",), {"protocol": "ours"}, "--protocol 'ours' is unknown"),
        (("one",), {"trials": "7"}, "6 initial states, trial 6 has none"),
        (("one",), {"trials": "x"}, "--trials takes a count or a range"),
        (("one",), {"trials": "5-2"}, "names no trial"),
        (("one",), {"changes": ProtocolChanges(limit=0)}, "--limit must be at least 1"),
        (("one",), {"trials": "\N{SUPERSCRIPT TWO}"}, "--trials takes a count or a range"),
        (("one",), {"trials": "1000000000000"}, "6 initial states, trial 999999999999 has none"),
        (("one",), {"changes": ProtocolChanges(denoising_steps=0)}, "--steps must be at least 1, found 0"),
        (("one",), {"changes": ProtocolChanges(noise_seed=-1)}, "--seed must be at least 0, found -1"),
        (("one",), {"changes": ProtocolChanges(env_seed=1 << 33)}, "--env-seed must be below 2147483648"),
        (("one",), {"changes": ProtocolChanges(noise_seed=1 << 63)}, "--seed must be below 9223372036854775808"),
    ],
)
def test_a_wrong_request_is_refused(suites, options, words):
    with pytest.raises(UsageError) as error:
        plan(suites, **options)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("robot", "words"),
    [
        (RobotSpec(("image",), 14, 14, 6), "looks through camera"),
        (RobotSpec(fake_benchmark.BENCHMARK.robot.cameras, 8, 14, 6), "14 state dimensions, the environment"),
        (RobotSpec(fake_benchmark.BENCHMARK.robot.cameras, 14, 7, 6), "14 action dimensions, the environment"),
    ],
)
def test_a_run_of_another_robot_is_refused_before_anything_starts(rows, monkeypatch, tmp_path, robot, words):
    monkeypatch.setattr(fake_benchmark.FakeBenchmark, "robot", robot)
    with pytest.raises(UsageError, match=words):
        evaluate(rows, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"films": FilmRequest((1, 9))}, "--films 9 is not one of the trials 0 to 1"),
        ({"hang": float("nan")}, "--hang-after must be a number of seconds above 0, found nan"),
        ({"hang": -1.0}, "--hang-after must be a number of seconds above 0, found -1"),
    ],
)
def test_films_and_times_that_cannot_be_are_refused(rows: RowPolicy, tmp_path: Path, options, words: str):
    with pytest.raises(UsageError, match=words):
        evaluate(rows, tmp_path / "out", trials="2", **options)
    assert not (tmp_path / "out").exists()


def test_an_absent_simulator_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAKE_ABSENT", "1")
    with pytest.raises(FwdataError, match="apt-get install"):
        plan()


@pytest.mark.slow
def test_what_could_change_a_score_is_reported(rows: RowPolicy, tmp_path: Path):
    found = evaluate(rows, tmp_path, suites=("one", "two"), trials="2", changes=ProtocolChanges(limit=15, wait_steps=2))
    shown = text(found)
    for words in (
        "fake_one: ",
        "| Method | fake_one | fake_two | Average |",
        "protocol: usual, changed: limits",
        "limits (steps): fake_one 15, fake_two 15",
        "wait steps: 2",
        "variant, mode: fastwam, first-frame",
        "arithmetic: float32 on cpu",
        "shift (video, actions): 5.0, 1.0",
        "fakesim: 1.0",
        "sha256 ",
        "source of the protocol: usual script",
    ):
        assert words in shown, shown
    kept = json.loads((tmp_path / "result.json").read_text())
    assert kept["protocol_changed"] == ["limits"] and kept["simulator"] == {"fakesim": "1.0"}
    assert kept["by_suite"]["fake_one"]["trials"] == 4 and len(kept["by_suite"]["fake_one"]["interval"]) == 2
    assert kept["average"] == np.mean([kept["by_suite"][s]["rate"] for s in ("fake_one", "fake_two")])
    assert "What a score depends on" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_films_replay_trials_with_every_step_rendered(rows: RowPolicy, tmp_path: Path):
    found = evaluate(rows, tmp_path, films=FilmRequest((0,), failures=1))
    assert not found.warnings
    trials = {(r.task, r.trial): r for r in EvalFolder(tmp_path).finished()}
    filmed = {(f.record.task, f.record.trial) for f in found.films}
    assert {("lift", 0), ("drop", 0)} <= filmed
    failures = {key for key, r in trials.items() if not r.success}
    assert {name for name, _ in filmed & failures} == {name for name, _ in failures}
    for film in found.films:
        frames = film_frames(film.path, 1000)
        assert len(frames) == film.record.steps + 1 and frames.shape[1:] == (48, 192, 3)
        assert abs(int(frames[-1, 20, 20, 1]) - film.record.steps) < 12, "the last image is of the last step"
        assert film.path.name in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_a_disk_that_is_full_while_filming_loses_nothing(rows: RowPolicy, tmp_path: Path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(films, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(rows, tmp_path, trials="1", films=FilmRequest((0,)))
    monkeypatch.undo()
    before, asked = tree(tmp_path / "trials"), len(rows.batches)
    found = evaluate(rows, tmp_path, trials="1", films=FilmRequest((0,)))
    assert tree(tmp_path / "trials") == before and len(rows.batches) == asked and len(found.films) == 2


def test_the_policys_own_gripper_rule_is_not_applied_twice():
    from fwtrain.infer.trials.loop import environment_actions

    chunk = np.array([[0.0, 1.0, 0.5]], np.float32)
    own = SimpleNamespace(gripper_sign=(2,), commands=lambda c: np.sign(1 - 2 * c))
    assert environment_actions(own, chunk, 2)[0, 2] == 0
    plain = SimpleNamespace(gripper_sign=(), commands=lambda c: c)
    assert [environment_actions(plain, np.array([[0, 0, g]], np.float32), 2)[0, 2] for g in (1, 0)] == [-1, 1]
