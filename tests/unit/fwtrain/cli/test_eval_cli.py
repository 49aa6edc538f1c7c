"""`fwtrain eval` on a benchmark: options, messages and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fake_store import FakeStore
from fixtures import tree
from serving import small_policy
from training import recipe

from fwtrain.infer import evaluate
from fwtrain.infer.evaluate import EvalResult
from fwtrain.infer.policy import Policy, settled_sampling
from fwtrain.serve.server import PolicyServer, background
from fwtrain.train.folder import RunFolder
from fwtrain.train.run import set_threads, train

RESULT = EvalResult(1, 2, 9.0)
ENV = ("--env", "fake_benchmark:BENCHMARK", "--suite", "one")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    before = torch.get_num_threads()
    set_threads(1)
    out = tmp_path_factory.mktemp("eval") / "run"
    train(FakeStore(), recipe("optim.steps=2"), out)
    yield out
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def without_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args, sampling, **options):
        policy = small_policy()
        policy.sampling = settled_sampling(sampling, policy.info)
        return policy

    monkeypatch.setattr(Policy, "load", load)


def test_a_run_of_short_chunks_is_not_asked_for_more_than_it_predicts(trained: Path, tmp_path: Path, call, monkeypatch):
    info = json.loads((trained / "run.json").read_text())
    info["manifest"]["window"] |= {"num_frames": 17, "action_horizon": 16}
    (tmp_path / "run.json").write_text(json.dumps(info))
    asked = []
    monkeypatch.setattr(evaluate, "evaluate_sample", lambda *a, execute, **k: asked.append(execute) or RESULT)
    for run, words in ((trained, ()), (tmp_path, ()), (tmp_path, ("--execute", 3))):
        assert call("eval", run, "--env", "sample", *words)[0] == 0
    assert asked == [24, 16, 3]


def test_an_interrupted_sample_world_does_not_promise_to_continue(trained: Path, call, monkeypatch):
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "evaluate_sample", interrupted)
    code, _, err = call("eval", trained, "--env", "sample")
    assert code == 130 and "the same command starts over" in err and "continue" not in err


@pytest.mark.slow
def test_a_benchmark_is_evaluated_and_continued(trained: Path, tmp_path: Path, call, monkeypatch):
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("FAKE_BENCHMARK", f"exit,lift,0,2,{marks}")
    asked = (trained, *ENV, "--tasks", "0", "--trials", "1", "--steps", "1", "--seed", "7", "--out", tmp_path / "out")
    code, out, err = call("eval", *asked)
    assert code == 3 and "trial 0 of fake_one/lift is not finished: its environment ended with status 3" in err
    code, out, err = call("eval", *asked, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "") and found["trials"] == 1 and found["unfinished"] == []
    assert found["protocol_changed"] == ["denoising_steps", "noise_seed"] and found["protocol"]["noise_seed"] == 7
    assert found["policy"]["checkpoint"] == "step 2" and found["policy"]["sampling"]["action_shift"] == 1.0
    assert found["protocol"]["source"] == "usual script" and len(found["policy"]["weights"]) == 16
    code, out, err = call("eval", *asked)
    assert code == 0 and "report: " in out and "of 1, " in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--env", "sample", "--suite", "one"), "--suite has no meaning with --env sample"),
        (("--env", "sample", "--exact"), "--exact has no meaning with --env sample"),
        ((*ENV, "--episodes", "3"), "--episodes has no meaning with --env fake_benchmark:BENCHMARK"),
        ((*ENV, "--films", "a"), "--films takes numbers of trials like 0,3, found 'a'"),
        ((*ENV, "--workers", "0"), "--workers must be at least 1"),
        ((*ENV, "--batch", "0"), "--batch must be at least 1, found 0"),
        (ENV[:2], "needs --suite: fake_one, fake_two"),
        (("--env", "libro", "--suite", "goal"), "--env 'libro' is unknown; did you mean 'libero'?"),
        ((*ENV, "--server", "x:1", "--shift", "1"), "--mode and --shift are the server's"),
        ((*ENV, "--server", "x:1", "--checkpoint", "2"), "--checkpoint has no meaning with --server"),
        ((*ENV, "--server", "x:1", "--untrained"), "--untrained has no meaning with --server"),
        ((*ENV, "--server", "x:1", "--vae", "tiny"), "--vae has no meaning with --server"),
        ((*ENV, "--token-file", "secret"), "--token-file is the secret of a server: it needs --server"),
        ((*ENV, "--films", "\N{SUPERSCRIPT TWO}"), "--films takes numbers of trials like 0,3"),
    ],
)
def test_wrong_options_are_one_sentence(trained: Path, tmp_path: Path, call, options, words):
    code, out, err = call("eval", trained, *options)
    assert code == 2 and out == "" and words in err and err.count("error: ") == 1, err
    assert not (trained / "eval").exists()


def test_a_folder_of_something_else_is_refused_and_stays(trained: Path, tmp_path: Path, call):
    (tmp_path / "file").write_text("x")
    for out, words in (
        (tmp_path / "file", "is a file; name a folder"),
        (trained, "holds checkpoints, which is not of"),
    ):
        before = tree(trained)
        code, _, err = call("eval", trained, *ENV, "--out", out)
        assert code == 2 and words in err and tree(trained) == before
    code, _, err = call("eval", trained, *ENV, "--out", tmp_path)
    assert code == 2 and "holds file, which is not of an evaluation; name another --out" in err


@pytest.mark.slow
def test_a_servers_secret_steps_and_weights_are_looked_at(trained: Path, tmp_path: Path, call):
    secret = tmp_path / "secret"
    secret.write_text("a long enough secret")
    secret.chmod(0o600)
    info = RunFolder(trained).info()
    policy = small_policy()
    policy.info, policy.weights = info, "0" * 16
    asked = ("eval", trained, *ENV, "--tasks", "0", "--trials", "1", "--out", tmp_path / "out", "--server")
    with background(PolicyServer(policy, port=0, token="a long enough secret", steps=1)) as (host, port):
        code, _, err = call(*asked, f"{host}:{port}")
        assert code == 1 and "401 authentication required" in err
        code, _, err = call(*asked, f"{host}:{port}", "--token-file", secret, "--steps", 3)
        assert code == 2 and "--steps 3 has no effect on the server, which takes 1 denoising steps" in err
        code, out, err = call(*asked, f"{host}:{port}", "--token-file", secret, "--json")
        assert code == 0 and json.loads(out)["policy"]["weights"] == "0" * 16, err
    policy.weights = "1" * 16
    with background(PolicyServer(policy, port=0, steps=1)) as (host, port):
        code, _, err = call(*asked, f"{host}:{port}")
        assert code == 2 and f"policy.weights {'0' * 16}, now it is {'1' * 16}; use another --out" in err
    scaled = info.state.model_copy(update={"scale": tuple(2 * value for value in info.state.scale)})
    policy.info = info.model_copy(update={"state": scaled})
    with background(PolicyServer(policy, port=0, steps=1)) as (host, port):
        code, _, err = call(*asked, f"{host}:{port}")
        assert code == 2 and "the server serves another run: its statistics" in err


def test_a_run_of_another_robot_is_refused(trained: Path, call, monkeypatch):
    import numpy as np

    from fwdata.envs.benchmarks.contract import BenchmarkTask, checked_states
    from fwdata.envs.benchmarks.libero import LiberoBenchmark

    monkeypatch.setattr(LiberoBenchmark, "prepare", lambda self: {"mujoco": "3.3.2"})
    monkeypatch.setattr(LiberoBenchmark, "tasks", lambda self, suite: (BenchmarkTask(0, "a", "a"),))
    monkeypatch.setattr(LiberoBenchmark, "initial_states", lambda self, s, t: checked_states(np.ones((50, 3)), "x"))
    code, _, err = call("eval", trained, "--env", "libero", "--suite", "goal")
    assert code == 2 and "looks through camera 'head_camera', the environment libero has image, wrist_image" in err
