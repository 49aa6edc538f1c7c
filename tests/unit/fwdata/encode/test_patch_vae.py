"""The embedded VAE `tiny-libero`: what it shows of held-out tasks, its geometry, its training script, its refusals."""

from __future__ import annotations

import importlib.resources
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import DATA

from fwdata.encode.fidelity import psnr
from fwdata.encode.vae import train_patch, train_tiny
from fwdata.encode.vae.wan import LatentVae, load_vae
from fwdata.errors import UsageError

FOLDER = importlib.resources.files("fwdata.assets") / "tiny_libero_vae"


@pytest.fixture(scope="module")
def vae() -> LatentVae:
    return load_vae("tiny-libero", decoder=True)


@pytest.fixture(scope="module")
def held_out() -> dict[str, np.ndarray]:
    """Frames of task 9 of four suites, which training did not see, and one clip of 5 frames."""
    with np.load(DATA / "vae" / "libero_held_out.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.slow
def test_held_out_simulator_frames_come_back(vae: LatentVae, held_out):
    stills = [psnr(image, vae.decode(vae.encode_first(image))[0]) for image in held_out["stills"]]
    assert len(stills) == 4 and min(stills) > 26 and np.mean(stills) > 28
    tiny = load_vae("tiny", decoder=True)
    assert max(psnr(image, tiny.decode(tiny.encode_first(image))[0]) for image in held_out["stills"]) < 16
    assert psnr(held_out["clip"], vae.decode(vae.encode(held_out["clip"]))) > 25


def test_the_sample_world_comes_back(vae: LatentVae):
    clips = np.stack(list(train_tiny.clips(np.random.default_rng(train_tiny.HELD_OUT_SEED), 16)))
    assert psnr(clips[:, 0], np.stack([vae.decode(vae.encode_first(clip[0]))[0] for clip in clips])) > 24


def test_geometry_and_causality_are_those_of_the_wan_vae(vae: LatentVae, held_out):
    clip = np.concatenate([held_out["clip"], held_out["clip"][:4]])
    latents = vae.encode(clip)
    assert latents.shape == (48, 3, 8, 16) and latents.dtype == np.float16
    np.testing.assert_array_equal(latents[:, :1], vae.encode_first(clip[0]))
    np.testing.assert_array_equal(latents[:, :2], vae.encode(clip[:5]))
    assert vae.decode(latents).shape == clip.shape
    assert abs(float(latents.astype(np.float32).mean())) < 0.5 and 0.5 < float(latents.astype(np.float32).std()) < 2
    with pytest.raises(UsageError, match="without its decoder"):
        load_vae("tiny-libero").decode(latents)


def test_the_weights_are_small_and_have_an_identity_of_their_own(vae: LatentVae):
    with importlib.resources.as_file(FOLDER) as folder:
        assert sum(path.stat().st_size for path in folder.iterdir()) < 6e6
        named = load_vae(str(folder))
    assert vae.identity()["name"] == "tiny-libero" and named.identity()["name"] == "custom"
    assert vae.weights_sha256 == named.weights_sha256 != load_vae("tiny").weights_sha256


def test_training_begins_with_principal_components(monkeypatch: pytest.MonkeyPatch):
    """Before any step a patch is coded by its 48 leading components: nothing linear is closer to it."""
    stills = np.random.default_rng(0).integers(0, 256, (600, 16, 16, 3), dtype=np.uint8)
    stills[:, :, 8:] = stills[:, :, :8]
    flat = train_patch.to_model(stills[:, None])[:, :, 0].reshape(600, -1).double()
    centred = flat - flat.mean(0)
    lost = torch.linalg.svdvals(centred)[48:].square().sum().item() / flat.numel()
    net = train_patch.first_network(stills)
    x = train_patch.to_model(stills[:, None])
    with torch.inference_mode():
        found = (net.decoded(net.moments(x)[0]) - x).square().mean().item()
        clip = x.repeat(1, 1, 5, 1, 1)[:20]
        np.testing.assert_allclose(net.moments(clip)[0][:, :, 1], net.moments(clip)[0][:, :, 0], atol=1e-4)
    assert math.isclose(found, lost, rel_tol=1e-3)


@pytest.mark.slow  # the first optimizer of a process imports torch's compiler
def test_the_training_script_writes_a_loadable_vae_and_repeats_itself(tmp_path: Path, monkeypatch, capsys, held_out):
    monkeypatch.setattr(train_patch, "SAMPLE_CLIPS", 4)
    monkeypatch.setattr(train_patch, "HELD_OUT_CLIPS", 2)
    for name in ("train", "held_out"):
        (tmp_path / name).mkdir()
        clips = np.concatenate([held_out["clip"]] * 5)[None]
        np.savez_compressed(tmp_path / name / "libero_goal-0.npz", frames=clips)
    for name in ("a", "b"):
        assert train_patch.main([str(tmp_path), "--out", str(tmp_path / name), "--steps", "3", "--seed", "3"]) == 0
    assert "libero_9_frames" in capsys.readouterr().out
    assert load_vae(str(tmp_path / "a")).identity() == load_vae(str(tmp_path / "b")).identity()
    assert train_patch.main([str(tmp_path), "--measure", str(tmp_path / "a")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["libero_1_frames"] > 20
    parts = {name: 10 ** (-found[f"libero_{name}"] / 10) for name in ("1_frames", "9_frames", "future")}
    assert 9 * parts["9_frames"] == pytest.approx(parts["1_frames"] + 8 * parts["future"], rel=0.01)
    halves = [10 ** (-found[f"libero_future_{camera}"] / 10) for camera in ("scene", "wrist")]
    assert sum(halves) / 2 == pytest.approx(parts["future"], rel=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"base_dim": 0}, "expected a positive base_dim, found 0"), ({"latents_std": [1.0]}, "found 1 values")],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path: Path, change, message: str):
    fields = json.loads((FOLDER / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | change))
    with pytest.raises(UsageError, match=message):
        load_vae(str(tmp_path))


def test_a_width_that_the_weights_do_not_have_is_refused(tmp_path: Path):
    with importlib.resources.as_file(FOLDER) as folder:
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {"frame_dim": 96}))
    with pytest.raises(UsageError, match=r"tensor 'encoder\.join_chunk\.weight': expected shape"):
        load_vae(str(tmp_path))
