"""The action shift of runs, older runs and imported checkpoints, and what sampling with a wrong one does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_store import FakeStore
from model_case import lively, random_batch, small_config
from safetensors.torch import load_file, save_file
from training import recipe

from fwdata.errors import UsageError
from fwtrain.errors import RunMismatch
from fwtrain.export import export_lerobot, export_official
from fwtrain.infer.policy import Policy
from fwtrain.model import Denoising, Noise, load_model, sampling, save_model
from fwtrain.recipe import load_recipe
from fwtrain.serve.server import PolicyServer
from fwtrain.train.folder import RunFolder
from fwtrain.train.run import plan_run, train
from fwtrain.weights import names as weights
from fwtrain.weights import released
from fwtrain.weights.released import RELEASED, Released

pytestmark = pytest.mark.usefixtures("memory_store")


def shift_of(out: Path) -> float:
    """The shift a run records, which is in its recipe, its run.json and every checkpoint."""
    folder = RunFolder(out)
    told = {folder.recipe().model.action_shift, folder.info().model.schedule.action_shift}
    checkpoint = folder.latest()
    assert checkpoint is not None
    told.add(json.loads(checkpoint.state()["identity"]["model"])["schedule"]["action_shift"])
    (found,) = told
    assert found is not None
    return found


def trained(out: Path, *overrides: str) -> Path:
    train(FakeStore(), recipe("optim.steps=1", *overrides), out)
    return out


def test_runs_record_upstreams_shift_unless_told_otherwise(tmp_path: Path):
    assert shift_of(trained(tmp_path / "new")) == 1.0
    assert shift_of(trained(tmp_path / "other", "model.action_shift=3")) == 3.0
    assert {load_recipe(name).model.action_shift for name in ("libero", "r1lite", "robotwin", "tiny")} == {None}


# --- runs from before -------------------------------------------------------------------------------------------------


def older(out: Path, *, recorded: bool) -> Path:
    """A run as before the default changed; not `recorded`: its files do not say the shift at all."""
    stops = iter([False, True])
    train(FakeStore(), recipe("model.action_shift=5.0"), out, should_stop=lambda: next(stops, True))
    if recorded:
        return out
    path = out / "recipe.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "action_shift" not in line))
    info = json.loads((out / "run.json").read_text())
    del info["model"]["schedule"]["action_shift"]
    (out / "run.json").write_text(json.dumps(info))
    return out


@pytest.mark.parametrize("recorded", [True, False])
def test_an_older_run_continues_and_acts_with_its_own_shift(recorded: bool, tmp_path: Path):
    out = older(tmp_path / "run", recorded=recorded)
    assert RunFolder(out).recipe().model.action_shift == 5.0
    assert Policy.load(out, device="cpu").sampling.action_shift == 5.0
    assert plan_run(FakeStore(), recipe(), out).step == 1
    assert train(FakeStore(), recipe(), out).finished  # the recipe of today, which leaves the shift open
    assert shift_of(out) == 5.0
    whole = tmp_path / "whole"
    train(FakeStore(), recipe("model.action_shift=5.0"), whole)
    left, right = (load_file(RunFolder(path).need_checkpoint().path / "model.safetensors") for path in (out, whole))
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    with pytest.raises(RunMismatch, match=r"model\.action_shift: 5\.0 -> 1\.0"):
        train(FakeStore(), recipe("model.action_shift=1.0"), out)


def test_a_saved_model_without_a_shift_is_of_the_older_kind(tmp_path: Path):
    save_model(lively(small_config()), tmp_path)
    assert load_model(tmp_path).config.schedule.action_shift == 1.0
    config = json.loads((tmp_path / "config.json").read_text())
    del config["schedule"]["action_shift"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(tmp_path).config.schedule.action_shift == 5.0


# --- imported checkpoints ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("five") / "run", "model.action_shift=5")


def official(run: Path, path: Path) -> Path:
    """An official file: it says nothing of variant and shift."""
    export_official(run, path)
    data = torch.load(path, weights_only=True)
    del data["fwtrain"]
    torch.save(data, path)
    return path


def started(out: Path, source: Path, *overrides: str) -> float:
    return shift_of(trained(out, f"model.init=fastwam:{source}", *overrides))


def test_what_records_its_shift_is_taken_at_its_word(five: Path, tmp_path: Path):
    export_official(five, tmp_path / "ours.pt")
    checkpoint = RunFolder(five).need_checkpoint().path
    theirs = tmp_path / "lerobot"
    theirs.mkdir()
    tensors = load_file(checkpoint / "model.safetensors")
    save_file({weights.lerobot_from_ours(k): v for k, v in tensors.items()}, theirs / "model.safetensors")
    config = {"type": "fastwam", "action_scheduler": {"train_shift": 4.0, "infer_shift": 4.0}}
    (theirs / "config.json").write_text(json.dumps(config))
    sources = {tmp_path / "ours.pt": 5.0, checkpoint: 5.0, theirs: 4.0, theirs / "model.safetensors": 4.0}
    for number, (source, shift) in enumerate(sources.items()):
        assert started(tmp_path / str(number), source) == shift, source


def test_released_files_are_known_by_name_and_size(five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert [(item.file, item.variant, item.action_shift) for item in RELEASED] == [
        ("libero_uncond_2cam224.pt", "fastwam", 5.0),
        ("robotwin_uncond_3cam_384.pt", "fastwam", 5.0),
        ("libero_optional_idm_2cam224.pt", "optional-idm", 1.0),
    ]
    assert started(tmp_path / "r", official(five, tmp_path / "robotwin_uncond_3cam_384.pt")) == 5.0
    path = official(five, tmp_path / "libero_uncond_2cam224.pt")
    with pytest.raises(UsageError, match=r"which action shift libero_uncond_2cam224\.pt was trained with"):
        started(tmp_path / "no", path)  # the name of a released file, and another size
    data = path.read_bytes()
    item = Released(path.name, "fastwam", 5.0, len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(released, "RELEASED", (item,))
    assert started(tmp_path / "named", path) == 5.0
    assert started(tmp_path / "renamed", path.rename(tmp_path / "mine.pt")) == 5.0
    other = tmp_path / "other.pt"
    other.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert weights.origin_of(tmp_path / "mine.pt") is not None
    assert released.origin_of(other) is None  # of the same size, with other contents


def test_an_unknown_file_is_refused_until_the_shift_is_given(five: Path, tmp_path: Path):
    path = official(five, tmp_path / "step_020000.pt")
    message = (
        r"nothing says which action shift step_020000\.pt was trained with; give it with --set model\.action_shift=5 "
        r"\(upstream before August 2026\) or model\.action_shift=1 \(since\)"
    )
    with pytest.raises(UsageError, match=message):
        started(tmp_path / "run", path)
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    assert started(tmp_path / "run", path, "model.action_shift=5") == 5.0


def test_training_on_with_another_shift_is_said(five: Path, tmp_path: Path):
    export_official(five, tmp_path / "ours.pt")
    told: list[str] = []
    chosen = recipe("optim.steps=1", f"model.init=fastwam:{tmp_path / 'ours.pt'}", "model.action_shift=1")
    train(FakeStore(), chosen, tmp_path / "run", note=told.append)
    assert any("model.action_shift is 1, ours.pt was trained with 5 (ours.pt says so)" in line for line in told)
    again: list[str] = []
    train(FakeStore(), chosen, tmp_path / "run", note=again.append)
    assert not any("was trained with" in line for line in again)


def test_export_says_what_upstream_would_sample_with(five: Path, tmp_path: Path):
    (note,) = export_official(five, tmp_path / "five.pt").notes
    assert "action shift is 5; upstream samples actions at 1 since August 2026" in note
    assert "model.action_scheduler.infer_shift=5" in note
    assert export_official(trained(tmp_path / "one"), tmp_path / "one.pt").notes == ()
    both = export_official(trained(tmp_path / "o", "model.variant=optional-idm"), tmp_path / "o.pt")
    assert "+EVALUATION.action_infer_mode (idm, first_frame)" in both.notes[0]
    about = torch.load(tmp_path / "o.pt", weights_only=True)["fwtrain"]
    assert about == {"variant": "optional-idm", "video_shift": 5.0, "action_shift": 1.0, "tokens": 8}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_optional_idm_leaves_for_lerobot_as_first_frame(tmp_path: Path):
    run = trained(tmp_path / "run", "model.variant=optional-idm")
    result = export_lerobot(run, tmp_path / "out", any_encoder=True)
    assert any("mode idm of optional-idm is not in it" in note for note in result.notes)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["action_scheduler"]["infer_shift"] == 1.0 and config["video_scheduler"]["infer_shift"] == 5.0


# --- sampling ---------------------------------------------------------------------------------------------------------


def test_a_wrong_shift_gives_other_actions_without_any_error():
    """Same weights, observation and noise: actions as far apart as they are large, where round-off is a millionth."""
    model = lively(small_config(schedule={"action_shift": 5.0}))
    batch = random_batch(model.config, 8)
    noise = Noise(torch.randn(batch.action.shape, generator=torch.Generator().manual_seed(0)))

    def actions(shift: float | None) -> torch.Tensor:
        how = Denoising(action_shift=shift)
        return sampling.sample(model, batch.first, batch.context, batch.proprio, noise, how, video=False).action

    own, wrong = actions(None), actions(1.0)
    assert torch.equal(own, actions(5.0))
    assert torch.isfinite(wrong).all()
    assert float((wrong - own).abs().mean()) > 0.1 * float(own.abs().mean())


@pytest.mark.slow
def test_predict_takes_a_shift_and_says_what_it_used(five: Path, call):
    flags = ("predict", five, "--store", "s", "--threads", 1, "--json")
    answers = {}
    for shift in (None, "5", "1", "5,1"):
        code, out, err = call(*flags, *(() if shift is None else ("--shift", shift)))
        assert code == 0, err
        answers[shift] = json.loads(out)
    used = {shift: (a["sampling"]["video_shift"], a["sampling"]["action_shift"]) for shift, a in answers.items()}
    assert used == {None: (5, 5), "5": (5, 5), "1": (1, 1), "5,1": (5, 1)}
    assert answers[None]["action"] == answers["5"]["action"]
    assert answers["1"]["action"] == answers["5,1"]["action"]  # first-frame: the video is not sampled
    assert np.abs(np.subtract(answers["1"]["action"], answers["5"]["action"])).max() > 1e-3
    for wrong in ("0", "-1", "nan", "x", "1,2,3"):
        code, _, err = call(*flags, "--shift", wrong)
        assert code == 2 and err.count("\n") == 1, wrong
    code, out, _ = call(*flags[:-1], "--shift", "2")
    assert out.splitlines()[-1] == "sampled with mode first-frame, 10 steps, shift 2 (video) and 2 (actions)"


def test_a_server_says_how_it_samples_and_eval_leaves_that_to_it(five: Path, call):
    policy = Policy.load(five, device="cpu", sampling=Denoising(video_shift=3.0, action_shift=2.0))
    told = PolicyServer(policy, steps=4).metadata()["sampling"]
    assert told == {"steps": 4, "mode": "first-frame", "video_shift": 3.0, "action_shift": 2.0}
    for flag, value in (("--shift", "1"), ("--mode", "first-frame")):
        code, _, err = call("eval", five, "--server", "127.0.0.1:1", flag, value)
        assert code == 2 and "--mode and --shift are the server's: give them to fwtrain serve" in err
    code, _, err = call("serve", five, "--shift", "0")
    assert code == 2 and "shifts above 0" in err
