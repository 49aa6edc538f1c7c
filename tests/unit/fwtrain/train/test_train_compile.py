"""`compile` as a recipe key and in a policy: the same numbers to round-off, and refused where it cannot work."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_store import FakeText
from serving import STATE, PictureVae, pictures
from training import losses, recipe, run, tensors

from fwdata.errors import UsageError
from fwtrain.infer.policy import Policy
from fwtrain.model import FastWAM
from fwtrain.recipe_changes import FREE_TO_CHANGE, differences


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_run_trains_and_acts_like_a_plain_one(tmp_path: Path):
    few = ("optim.steps=2", "optim.eps=1e-3", "validation.windows=0", "data.windows=future")  # few graphs to compile
    run(tmp_path / "plain", *few)
    run(tmp_path / "compiled", *few, "compile=true")
    for a, b in zip(losses(tmp_path / "plain"), losses(tmp_path / "compiled"), strict=True):
        assert {k: b[k] for k in ("loss", "video", "action")} == pytest.approx(
            {k: a[k] for k in ("loss", "video", "action")}, rel=2e-5
        )
    after = tensors(tmp_path / "compiled")
    for name, tensor in tensors(tmp_path / "plain").items():
        assert after[name].numpy() == pytest.approx(tensor.numpy(), rel=1e-3, abs=2e-5), name

    def act(compiled: bool):
        parts = {"vae": PictureVae(), "text": FakeText(), "device": "cpu", "compiled": compiled}
        policy = Policy.load(tmp_path / "plain", **parts)
        return policy.act(pictures(0), STATE, "lift the block", seed=1, steps=2)

    assert np.abs(act(True) - act(False)).max() < 1e-5


def test_compile_reaches_every_layer_and_a_run_keeps_it(tmp_path: Path, monkeypatch):
    assert "compile" not in FREE_TO_CHANGE  # round-off would differ from the uninterrupted run
    assert differences(recipe(), recipe("compile=true")) == ["compile: False -> True"]
    seen = []
    monkeypatch.setattr(FastWAM, "compile_layers", lambda self, **options: seen.append(self.device.type))
    run(tmp_path, "compile=true", "optim.steps=1")
    assert seen == ["cpu"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler on the CPU: install g"):
        run(tmp_path / "other", "compile=true", "optim.steps=1")
