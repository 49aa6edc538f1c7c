"""The fwtrain command: results, messages, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from training import SMALL

from fwtrain.checks import reference
from fwtrain.checks.reference import ReferenceRow
from fwtrain.train.logs import read_log
from fwtrain.train.loop import Trainer

pytestmark = pytest.mark.usefixtures("memory_store")
FLAGS = ["--recipe", "tiny", *(part for override in SMALL for part in ("--set", override))]


def test_run_then_predict(call, tmp_path: Path):
    code, out, err = call("run", "s.zarr", "--out", tmp_path / "r", *FLAGS, "--threads", 1, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["step"] == result["total"] == 6
    assert result["val_action_mae"] > 0
    code, out, _ = call("predict", tmp_path / "r", "--store", "s.zarr", "--episode", 1, "--frame", 4, "--threads", 1)
    assert code == 0
    assert "joint13" in out
    assert "over 16 recorded steps" in out
    assert max(map(len, out.splitlines())) <= 120
    arguments = ("predict", tmp_path / "r", "--store", "s.zarr", "--frame", 4, "--threads", 1, "--json")
    code, out, _ = call(*arguments, "--checkpoint", "best")
    assert len(json.loads(out)["action"]) == 32
    code, _, err = call(*arguments, "--checkpoint", 99)
    assert code == 2
    assert "--checkpoint 99:" in err
    assert "known: last, best, 2, 4, 6" in err


def test_compare_lists_runs_then_trains_and_compares_them(call, tmp_path: Path):
    out = tmp_path / "c"
    arguments = (
        "compare",
        "s.zarr",
        "--recipe",
        "tiny",
        "--out",
        out,
        *FLAGS,
        "--steps",
        1,
        "--seeds",
        0,
        "--env",
        "none",
        "--threads",
        1,
    )
    code, printed, _ = call(*arguments, "--variants", "fastwam,no-video", "--dry-run", "--json")
    assert code == 0 and not out.exists()
    assert [run["done"] for run in json.loads(printed)["runs"]] == [False, False]
    code, printed, err = call(*arguments, "--variants", "fastwam,no-video")
    assert code == 0, err
    assert "no-video against fastwam, action error" in printed and "One seed bounds nothing" in printed
    code, printed, _ = call(*arguments, "--variants", "fastwam,no-video", "--dry-run")
    assert code == 0 and printed.count("done") == 2
    code, printed, _ = call("report", out / "runs" / "no-video-seed0", "--json")
    assert code == 0 and Path(json.loads(printed)["report"]).is_file()
    code, _, err = call(*arguments[:-2], "--lambdas", "0,x")
    assert code == 2 and "--lambdas takes values separated by commas, found 'x'" in err


def test_steps_option_wins_over_the_recipe(call, tmp_path: Path):
    code, out, _ = call("run", "s.zarr", "--out", tmp_path / "r", *FLAGS, "--steps", 1, "--threads", 1, "--json")
    assert (code, json.loads(out)["total"]) == (0, 1)


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(call, tmp_path: Path):
    asked = ("run", "s.zarr", "--out", tmp_path / "r", *FLAGS, "--threads", 1)
    code, out, _ = call(*asked, "--dry-run", "--json")
    planned = json.loads(out)
    assert (code, planned["step"], planned["total"]) == (0, 0, 6)
    assert not list(tmp_path.iterdir())
    code, out, _ = call(*asked, "--json")
    assert (code, json.loads(out)["total"]) == (0, planned["total"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, out, _ = call(*asked, "--dry-run")
    assert code == 0 and "nothing is left to do" in out
    code, out, _ = call(*asked, "--set", "optim.lr=1", "--dry-run")
    assert code == 2 and out == ""
    code, out, _ = call(*asked, "--set", "optim.lr=1", "--dry-run", "--fresh")
    assert code == 0 and "steps 0 to 6" in out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_same_command_continues(call, tmp_path: Path, monkeypatch, number):
    step = Trainer._train_step

    def step_and_signal(self, batches, stop):
        done = step(self, batches, stop)
        if self.step == 3:
            os.kill(os.getpid(), number)
        return done

    arguments = ("run", "s.zarr", "--out", tmp_path / "r", *FLAGS, "--threads", 1, "--json")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", step_and_signal)
        code, out, err = call(*arguments)
    assert (code, out) == (130, "")
    assert "saved at step 3 of 6" in err
    code, out, _ = call(*arguments)
    assert (code, json.loads(out)["step"]) == (0, 6)
    assert [line["step"] for line in read_log(tmp_path / "r")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "s", "--out", "r"],
            "choose a recipe with --recipe: generic, libero, r1lite, robotwin, tiny, or the path of a",
        ),
        (["run", "s", "--out", "r", "--recipe", "tinny"], "no recipe 'tinny'; did you mean 'tiny'?"),
        (
            ["run", "s", "--recipe", "tiny", "--out", "r", "--set", "optim.lrr=1"],
            "unknown key 'optim.lrr'; did you mean 'optim.lr'?",
        ),
        (["run", "s", "--recipe", "tiny", "--out", "r", "--resume", "--fresh"], "exclude each other"),
        (["run", "s", "--recipe", "tiny", "--out", "r", "--freeze", "wheels"], "freeze"),
        (["plan", "--recipe", "libero", "--gpu", "0"], "--gpu and --processes must be at least 1"),
        (["run", "s", "--recipe", "tiny", "--out", "r", "--threads", "0"], "--threads must be at least 1"),
        (
            ["run", "s", "--recipe", "tiny", "--out", "r", "--device", "tpu9"],
            "--device 'tpu9': expected auto, cpu, cuda or cuda:N",
        ),
        (["run", "s", "--out", "r", "--recipe", "libero"], "recipe libero is for 8 state dimensions"),
        (["run", "s", "--out", "r", "--recipe", "robotwin"], "reads text of width 4096, the store's text cache has 16"),
        (
            ["run", "s", "--recipe", "tiny", "--out", "r", "--set", "model.init=nix"],
            "must be wan2.2, wan2.2:SOURCE or fastwam:SOURCE",
        ),
        (["run", "s", "--recipe", "tiny", "--out", "r", "--dry-run", "--resume"], "r holds no run"),
        (
            ["run", "s", "--recipe", "tiny", "--out", "r", "--dry-run", "--set", "data.action_dim=7"],
            "is for 7 action dimensions",
        ),
        (
            ["run", "s", "--recipe", "tiny", "--out", "r", "--dry-run", "--device", "tpu9"],
            "--device 'tpu9': expected auto, cpu, cuda or cuda:N",
        ),
        (["serve", "r", "--port", "99999999"], "--port must be 0 .. 65535, found 99999999"),
        (["bench", "latency", "--size", "nix"], "--size 'nix' is unknown; known: 50m, tiny"),
        (["predict", "nothing", "--store", "s"], "nothing is not a run folder"),
        (["predict", "nothing", "--store", "s", "--steps", "0"], "--steps must be at least 1, found 0"),
        (["serve", "nothing", "--steps", "0"], "--steps must be at least 1, found 0"),
        (["recipes", "liber"], "no recipe 'liber'; did you mean 'libero'?"),
        (["eval", "nothing"], "nothing is not a run folder"),
        (["eval", "nothing", "--env", "moon"], "--env 'moon' is unknown"),
        (["check-reference", "."], "not a reference folder"),
        (["run", "s"], "--out"),
        (["train"], "No such command 'train'"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(call, tmp_path: Path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_recipes_are_listed(call):
    code, out, _ = call("recipes", "--json")
    assert code == 0
    assert [r["name"] for r in json.loads(out)["recipes"]] == ["generic", "libero", "r1lite", "robotwin", "tiny"]


def test_a_recipe_is_printed_with_its_sources(call):
    code, out, _ = call("recipes", "libero")
    assert code == 0 and "lr: 1.0e-4                 # configs/train.yaml" in out
    code, out, _ = call("recipes", "libero", "--json")
    assert json.loads(out)["optim"]["lr"] == 1e-4 and json.loads(out)["name"] == "libero"


def test_check_reference_ends_with_a_verdict(call, monkeypatch):
    rows = [ReferenceRow("fastwam", "loss", 1e-7, 1e-4), ReferenceRow("idm", "sample", 5e-5, 1e-4)]
    monkeypatch.setattr(reference, "check_reference", lambda folder: rows)
    monkeypatch.setattr(reference, "not_compared", lambda folder: ["masks.npz"])
    code, out, err = call("check-reference", "folder", "--threads", 1)
    assert "not compared, config.json does not list them: masks.npz" in err
    verdict = "ok: all 2 comparisons are within tolerance; nearest to it is idm sample with 5.00e-05 of 1e-04"
    assert code == 0 and out.splitlines()[-1] == verdict
    rows.append(ReferenceRow("joint", "loss", 1.0, 1e-4))
    code, out, err = call("check-reference", "folder", "--threads", 1)
    assert code == 1 and "ok:" not in out and "1 of 3 comparisons are above tolerance" in err


COMMANDS = (
    "run", "plan", "compare", "distil", "import", "report", "predict", "eval", "recipes", "check-reference",
    "check-mask", "serve", "export lerobot", "bench train", "bench latency", "bench serve",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(call, command: str):
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert f"Example: fwtrain {command}" in out


def test_starting_the_command_imports_no_heavy_library():
    heavy = "{'torch', 'zarr', 'h5py', 'av', 'numpy'} & set(sys.modules)"
    code = f"import fwtrain.cli, sys; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
