"""Trained runs in other formats; lerobot's own classes load what was written and act alike."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_store import CHANNELS, HEIGHT, WIDTH, FakeStore, FakeText
from safetensors.torch import load_file, save_file
from training import recipe, side_by_side

from fwdata.encode.tensor_files import copy_renamed
from fwdata.errors import StoreDamaged, UsageError
from fwtrain import cli
from fwtrain.errors import CheckpointError
from fwtrain.export import export_lerobot, export_official
from fwtrain.infer.policy import LatentObserved, Policy
from fwtrain.model import FastWAM
from fwtrain.train.folder import RunFolder
from fwtrain.train.run import train
from fwtrain.weights import names as weights

DEPLOY = "deploy={execute: 24, gripper_sign: [6]}"
STATE = np.linspace(-0.5, 0.5, 14, dtype=np.float32)


class MeanVae:
    """Latents that follow the picture's mean, for our policy and (as `Theirs`) for lerobot's."""

    def encode_first(self, frame: np.ndarray) -> np.ndarray:
        ramp = np.linspace(-1, 1, CHANNELS * HEIGHT * WIDTH).reshape(CHANNELS, 1, HEIGHT, WIDTH)
        return (ramp * frame[:, :32].mean() / 255 - frame[:, 32:].mean() / 255).astype(np.float16)


class Theirs(torch.nn.Module):
    """The same where lerobot wants its VAE: pictures in -1 .. 1."""

    temporal_downsample_factor = 4
    upsampling_factor = 16

    def encode(self, videos: list[torch.Tensor], **_: Any) -> torch.Tensor:
        frame = ((videos[0][:, 0] + 1) * 127.5).round().permute(1, 2, 0).to(torch.uint8).numpy()
        return torch.from_numpy(MeanVae().encode_first(frame)[None].astype(np.float32))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("export") / "run"
    train(side_by_side(FakeStore()), recipe("optim.steps=2", "save_every=1", DEPLOY), out)
    return out


def lerobot_policy(folder: Path, monkeypatch) -> tuple[Any, Any, Any]:
    """What lerobot makes of a folder: (policy, preprocessor, postprocessor), its encoders replaced."""
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.fastwam import modeling_fastwam as theirs

    monkeypatch.setattr(theirs, "load_pretrained_wan_vae", lambda **_: Theirs())
    monkeypatch.setattr(theirs, "load_pretrained_wan_text_encoder", lambda **_: None)
    monkeypatch.setattr(theirs, "build_wan_tokenizer", lambda **_: None)
    policy = theirs.FastWAMPolicy.from_pretrained(folder, strict=True)
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    return policy, before, after


def their_chunk(folder: Path, cameras: dict[str, np.ndarray], state: np.ndarray, prompt: str, monkeypatch) -> Any:
    """float32 [A, a]: lerobot's whole path on one observation."""
    policy, before, after = lerobot_policy(folder, monkeypatch)
    observation: dict[str, Any] = {
        f"observation.images.{name}": torch.from_numpy(frame).permute(2, 0, 1).float() / 255
        for name, frame in cameras.items()
    }
    batch = before({**observation, "observation.state": torch.from_numpy(state)})
    context = torch.from_numpy(FakeText().embedding(prompt).astype(np.float32))[None]
    batch |= {"context": context, "context_mask": torch.ones(context.shape[:2], dtype=torch.bool)}
    batch.pop("task", None)
    return policy, after(policy.predict_action_chunk(batch)[0]).numpy()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:CUDA is not available", "ignore:User provided device_type")
def test_lerobot_loads_the_folder_and_acts_as_our_policy(run: Path, tmp_path: Path, monkeypatch):
    random = np.random.default_rng(0)
    cameras = {name: random.integers(0, 256, (96, 32, 3), np.uint8) for name in ("image", "wrist_image")}
    result = export_lerobot(run, tmp_path / "out", any_encoder=True)
    assert result.step == 2
    policy = Policy.load(run, MeanVae(), text=FakeText(), device="cpu")
    prompt = policy.info.manifest.render_prompt("lift the block")
    theirs, chunk = their_chunk(tmp_path / "out", cameras, STATE, prompt, monkeypatch)
    ours = policy.commands(policy.act(cameras, STATE, "lift the block", seed=42))
    assert chunk == pytest.approx(ours, abs=1e-5)
    assert set(np.unique(chunk[:, 6])) <= {-1.0, 1.0}
    assert np.abs(chunk - policy.act(cameras, STATE, "lift the block", seed=42)).max() > 0.1  # the sign rule was needed
    assert theirs.config.n_action_steps == 24
    other = policy.commands(policy.act(cameras, -STATE, "lift the block", seed=42))
    assert np.abs(other - ours).max() > 1e-4  # the state is looked at
    saved = {weights.ours_from_lerobot(name): v for name, v in load_file(tmp_path / "out/model.safetensors").items()}
    assert all(torch.equal(saved[name], value) for name, value in policy.model.state_dict().items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("mode", ["minmax", "quantile"])
def test_every_normalisation_survives(mode: str, tmp_path: Path, monkeypatch):
    store = side_by_side(FakeStore())
    store.metadata["manifest"]["normalisation"] = {"mode": mode}
    train(store, recipe("optim.steps=1"), tmp_path / "run")
    export_lerobot(tmp_path / "run", tmp_path / "out", any_encoder=True)
    cameras = {name: np.full((96, 32, 3), value, np.uint8) for name, value in (("image", 9), ("wrist_image", 90))}
    policy = Policy.load(tmp_path / "run", MeanVae(), text=FakeText(), device="cpu")
    prompt = policy.info.manifest.render_prompt("go")
    _, chunk = their_chunk(tmp_path / "out", cameras, STATE, prompt, monkeypatch)
    assert chunk == pytest.approx(policy.act(cameras, STATE, "go", seed=42), abs=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_pictures_that_lerobot_cannot_join_are_taken_stitched(tmp_path: Path, monkeypatch):
    train(FakeStore(), recipe("optim.steps=1", "deploy={gripper_clip: [6, 13]}"), tmp_path / "run")
    result = export_lerobot(tmp_path / "run", tmp_path / "out", any_encoder=True)
    assert any("observation.images.stitched" in note for note in result.notes)
    assert any("[6, 13]" in note for note in result.notes)
    picture = np.random.default_rng(1).integers(0, 256, (96, 64, 3), np.uint8)
    policy = Policy.load(tmp_path / "run", MeanVae(), text=FakeText(), device="cpu")
    prompt = policy.info.manifest.render_prompt("go")
    _, chunk = their_chunk(tmp_path / "out", {"stitched": picture}, STATE, prompt, monkeypatch)
    latent = MeanVae().encode_first(picture)[:, 0]
    assert chunk == pytest.approx(
        policy.act_batch([LatentObserved(latent, policy.context("go"), STATE)], [42])[0], abs=1e-5
    )


@pytest.mark.parametrize("variant", ["joint", "idm"])
def test_variants_lerobot_does_not_have_are_refused(variant: str, tmp_path: Path):
    train(FakeStore(), recipe("optim.steps=1", f"model.variant={variant}"), tmp_path / "run")
    with pytest.raises(UsageError, match=f"of variant '{variant}', which lerobot's fastwam policy does not have"):
        export_lerobot(tmp_path / "run", tmp_path / "out", any_encoder=True)
    assert not (tmp_path / "out").exists()


def test_foreign_encoders_and_existing_targets_are_refused(run: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"trained on latents of 'fake', lerobot will load 'wan2\.2'"):
        export_lerobot(run, tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        export_lerobot(run, tmp_path / "out", any_encoder=True)
    with pytest.raises(UsageError, match=r"must end in \.pt"):
        export_official(run, tmp_path / "x")


def test_the_checkpoint_can_be_named_and_is_verified(run: Path, tmp_path: Path):
    assert export_official(run, tmp_path / "one.pt", "1").step == 1
    with pytest.raises(CheckpointError, match="no such checkpoint; known: last, best, 1, 2"):
        export_official(run, tmp_path / "nine.pt", "9")
    file = RunFolder(run).need_checkpoint().path / "model.safetensors"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CheckpointError, match="is damaged"):
            export_official(run, tmp_path / "two.pt")
    finally:
        file.write_bytes(whole)
    assert not list(tmp_path.glob(".*tmp*"))


@pytest.mark.slow
@pytest.mark.parametrize("override", ["freeze=video", "lora={rank: 2}"])
def test_frozen_experts_and_adapters_are_joined_first(override: str, tmp_path: Path):
    train(side_by_side(FakeStore()), recipe("optim.steps=2", override), tmp_path / "run")
    export_official(tmp_path / "run", tmp_path / "a.pt")
    policy = Policy.load(tmp_path / "run", device="cpu")
    model = FastWAM(policy.info.model, seed=1)
    weights.load_fastwam(model, tmp_path / "a.pt")
    assert all(torch.equal(value, policy.model.state_dict()[name]) for name, value in model.state_dict().items())


def test_official_checkpoints_come_back(run: Path, tmp_path: Path):
    export_official(run, tmp_path / "a.pt")
    checkpoint = RunFolder(run).need_checkpoint()
    model = FastWAM(RunFolder(run).info().model, seed=1)
    weights.load_fastwam(model, tmp_path / "a.pt")
    assert all(torch.equal(value, checkpoint.model_tensors()[name]) for name, value in model.state_dict().items())
    data = torch.load(tmp_path / "a.pt", weights_only=True)
    assert set(data) == {"fwtrain", "mot", "proprio_encoder", "step", "torch_dtype"}
    assert data["torch_dtype"] == "torch.float32"


def test_the_command(run: Path, tmp_path: Path, monkeypatch, capsys):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fwtrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    code, out, _ = call("export", "fastwam", run, tmp_path / "a.pt", "--checkpoint", 1, "--json")
    assert code == 0
    assert json.loads(out) | {"out": "", "run": ""} == {
        "format": "fastwam",
        "out": "",
        "run": "",
        "step": 1,
        "notes": [],
    }
    code, _, err = call("export", "lerobot", run, tmp_path / "b")
    assert code == 2 and "pass --any-encoder" in err
    code, _, err = call("export", "onnx", run, tmp_path / "c")
    assert code == 2 and "known: model, lerobot, fastwam, robotwin-policy" in err


def test_renaming_copies_bytes(tmp_path: Path):
    tensors = {
        f"t{i}": torch.randn(i + 1, 3).to(t) for i, t in enumerate((torch.float32, torch.bfloat16, torch.float16))
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata={"who": "me"})
    copy_renamed(tmp_path / "a.safetensors", tmp_path / "b.safetensors", lambda name: f"x.{name}.longer")
    found = load_file(tmp_path / "b.safetensors")
    assert {name: (v.dtype, v.tolist()) for name, v in found.items()} == {
        f"x.{name}.longer": (v.dtype, v.tolist()) for name, v in tensors.items()
    }
    (tmp_path / "a.safetensors").write_bytes(b"\x05" * 40)
    with pytest.raises(StoreDamaged, match="not a whole safetensors file"):
        copy_renamed(tmp_path / "a.safetensors", tmp_path / "c.safetensors", str)
