"""Few-step students: closer to the teacher than its own few steps, runs like any other, kept and refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_store import FakeStore
from fixtures import tree
from serving import small_policy
from training import recipe

from fwdata.errors import UsageError
from fwtrain.errors import RunMismatch
from fwtrain.export import export_official
from fwtrain.infer.policy import Policy, settled_sampling
from fwtrain.model import Denoising
from fwtrain.train import distil as module
from fwtrain.train.distil import DistilRequest, distil
from fwtrain.train.folder import RunFolder
from fwtrain.train.run import train


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("distil") / "run"
    train(FakeStore(), recipe("optim.steps=30", "optim.lr=0.01"), out)
    return out


def asked(teacher: Path, out: Path, **changes) -> DistilRequest:
    usual = {"steps": (1, 2), "train_steps": 60, "lr": 3e-3, "device": "cpu"}
    return DistilRequest(teacher, out, **{**usual, **changes})


@pytest.mark.slow
def test_students_end_where_the_teacher_ends(teacher: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "COMPARED", 2)
    rows = {(row.name, row.steps): row for row in distil(FakeStore(), asked(teacher, tmp_path / "out"))}
    assert list(rows) == [("teacher", 10), ("teacher", 1), ("teacher", 2), ("student", 1), ("student", 2)]
    assert rows["teacher", 10].to_teacher == 0
    for count in (1, 2):
        assert rows["student", count].to_teacher < 0.7 * rows["teacher", count].to_teacher
    assert all(row.milliseconds > 0 for row in rows.values())
    assert all(row.error is not None and row.error > 0 for row in rows.values())
    before, after = (Policy.load(path, device="cpu").model for path in (teacher, tmp_path / "out" / "steps-1"))
    changed = {name for name, p in before.named_parameters() if not torch.equal(p, after.state_dict()[name])}
    assert changed and all(name.startswith("mot.action") or ".action" in name for name in changed)
    kept = tree(tmp_path / "out")
    distil(FakeStore(), asked(teacher, tmp_path / "out"))
    assert tree(tmp_path / "out") == kept, "a finished student is not trained again"
    with pytest.raises(RunMismatch, match=r"steps-1 was made with train_steps 60, now it is 61"):
        distil(FakeStore(), asked(teacher, tmp_path / "out", train_steps=61))
    assert RunFolder(tmp_path / "out" / "steps-2").recipe().description == "student of 2 steps of run"


@pytest.mark.slow
def test_a_student_is_of_one_teacher_and_one_number_of_steps(teacher: Path, tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(module, "COMPARED", 1)
    again, out = tmp_path / "run", tmp_path / "out"
    distil(FakeStore(), asked(teacher, out, steps=(2,), train_steps=2))
    train(FakeStore(), recipe("optim.steps=30", "optim.lr=0.02"), again)
    with pytest.raises(RunMismatch, match="steps-2 was made with teacher_weights"):
        distil(FakeStore(), asked(again, out, steps=(2,), train_steps=2))
    info = RunFolder(out / "steps-2").info()
    assert info.student_steps == 2 and RunFolder(teacher).info().student_steps is None
    assert not caplog.records
    Policy.load(out / "steps-2", device="cpu", sampling=Denoising(steps=2))
    assert not caplog.records
    Policy.load(out / "steps-2", device="cpu")
    assert "a student of 2 denoising steps, sampled with 10" in caplog.text and "pass --steps 2" in caplog.text
    assert "student of 2 denoising steps" in export_official(out / "steps-2", tmp_path / "s.pt").notes[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": (10,)}, "from 1 to 9, below the teacher's 10; found 10"),
        ({"steps": ()}, "found none"),
        ({"train_steps": 0}, "--train-steps must be a number above 0, found 0"),
        ({"lr": float("nan")}, "--lr must be a number above 0, found nan"),
        ({"run": Path("nowhere")}, "nowhere is not a run folder"),
    ],
)
def test_numbers_out_of_range_are_refused(teacher: Path, tmp_path: Path, changes, words: str):
    with pytest.raises(UsageError, match=words):
        distil(FakeStore(), replace(asked(teacher, tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_prints_a_table_and_json(teacher: Path, tmp_path: Path, call, memory_store, monkeypatch):
    monkeypatch.setattr(module, "COMPARED", 1)
    words = ("distil", teacher, "--store", "memory", "--out", tmp_path / "out", "--steps", "1", "--train-steps", 2)
    code, out, err = call(*words, "--device", "cpu")
    assert code == 0 and "distance to teacher" in out and "training the student of 1 step" in err
    code, out, _ = call(*words, "--device", "cpu", "--json")
    assert code == 0 and [row["policy"] for row in json.loads(out)["rows"]] == ["teacher", "teacher", "student"]
    code, _, err = call(*words, "--env", "mars")
    assert code == 2 and "--env 'mars' is unknown" in err


BENCHMARK = ("--env", "fake_benchmark:BENCHMARK", "--suite", "one", "--tasks", "lift", "--trials", "2")


@pytest.mark.slow
def test_students_are_compared_in_a_benchmark_and_trials_are_kept(
    teacher: Path, tmp_path: Path, call, memory_store, monkeypatch
):
    monkeypatch.setattr(module, "COMPARED", 1)
    loaded = []

    def load(path, *, sampling, **options):
        policy = small_policy()
        policy.sampling = settled_sampling(sampling, policy.info)
        loaded.append((Path(path).name, sampling.steps))
        return policy

    monkeypatch.setattr(Policy, "load", load)
    marks, out = tmp_path / "marks", tmp_path / "out"
    marks.mkdir()
    monkeypatch.setenv("FAKE_BENCHMARK", f"exit,lift,1,2,{marks}")
    words = ("distil", teacher, "--store", "memory", "--out", out, "--steps", "1", "--train-steps", 2, *BENCHMARK)
    code, _, err = call(*words, "--device", "cpu", "--limit", 9)
    assert code == 3 and err.count("trial 1 of fake_one/lift is not finished: its environment ended") == 1
    assert loaded == [("run", 10), ("run", 1), ("steps-1", 1)]
    (folder,) = (out / "eval").iterdir()
    settings = {p.name.rpartition("-")[0]: json.loads((p / "settings.json").read_text()) for p in folder.iterdir()}
    assert {name: s["protocol"]["denoising_steps"] for name, s in settings.items()} == {
        "teacher-10": 10, "teacher-1": 1, "student-1": 1,
    }  # fmt: skip
    assert settings["teacher-1"]["policy"]["weights"] != settings["student-1"]["policy"]["weights"]
    kept = {p: p.stat().st_mtime_ns for p in folder.rglob("trials/*/*/*.json")}
    code, out_text, err = call(*words, "--device", "cpu", "--limit", 9, "--json")
    assert code == 0 and [row["episodes"] for row in json.loads(out_text)["rows"]] == [2, 2, 2]
    assert len(kept) == 5 and all(p.stat().st_mtime_ns == at for p, at in kept.items()), "finished trials stay"
    call(*words, "--device", "cpu", "--limit", 8)
    assert len(list((out / "eval").iterdir())) == 2, "another protocol is another folder"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (BENCHMARK[:2], "needs --suite: fake_one, fake_two"),
        ((*BENCHMARK, "--episodes", 3), "--episodes has no meaning with --env fake_benchmark:BENCHMARK"),
        ((*BENCHMARK, "--execute", 33), "asks for 33 actions of a chunk, the run predicts 32"),
        (("--env", "sample", "--suite", "one"), "--suite has no meaning with --env sample"),
        (("--env", "sample", "--execute", 33), "--execute must be between 1 and the chunk's 32 actions, found 33"),
        (("--trials", "2"), "--trials has no meaning with --env none"),
    ],
)
def test_a_loop_that_does_not_fit_is_refused_before_training(
    teacher: Path, tmp_path: Path, call, memory_store, options, words: str
):
    asked = ("distil", teacher, "--store", "memory", "--out", tmp_path / "out", "--steps", "1", "--train-steps", 2)
    code, out, err = call(*asked, *options, "--device", "cpu")
    assert code == 2 and out == "" and words in err, err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda i: i["state"].update(scale=[2 * v for v in i["state"]["scale"]]), "normalises state joint0 with scale"),
        (lambda i: i["latents"].update(fingerprint="other"), "was trained on latents other, this store has"),
        (lambda i: i["model"].update(context_len=9), "has a model of context_len 9, this store makes 8"),
    ],
)
def test_a_store_that_the_run_was_not_trained_on_is_refused(teacher: Path, tmp_path: Path, change, words: str):
    other = shutil.copytree(teacher, tmp_path / "run")
    info = json.loads((other / "run.json").read_text())
    change(info)
    (other / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunMismatch, match=words):
        distil(FakeStore(), asked(other, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
