"""The VAE: diffusers' bits, the first frame's independence, identities, every source of weights, every refusal."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import DATA
from released_names import original_vae_name

from fwdata.encode.vae import train_tiny as train_tiny_vae
from fwdata.encode.vae.files import VaeWeights, find_weights, original_to_diffusers
from fwdata.encode.vae.net import VaeConfig, WanVae
from fwdata.encode.vae.wan import LatentVae, load_vae
from fwdata.envs.sample import random_clips
from fwdata.errors import FwdataError, UsageError
from fwdata.images.stitch import stitch
from fwdata.manifest import load_manifest

SMALL = VaeConfig(4, 8, (0.0,) * 48, (1.0,) * 48, num_res_blocks=2)
GOLDEN = DATA / "vae" / "diffusers_golden.npz"


@pytest.fixture(scope="module")
def tiny() -> LatentVae:
    return load_vae("tiny", decoder=True)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    spec = load_manifest("robotwin-sample").stitch
    return [stitch(frames, spec) for frames in random_clips(np.random.default_rng(987654321), 6)]


def decoded(frames: int) -> torch.Tensor:
    """float32 [1, 3, frames, 64, 64] in -1..1 from a formula."""
    t, y, x = torch.meshgrid(torch.arange(frames), torch.arange(64), torch.arange(64), indexing="ij")
    phase = 0.7 * t + 0.21 * x + 0.13 * y
    return torch.stack([torch.sin(phase), torch.cos(1.3 * phase), torch.sin(0.1 * x * y / 8 + t)])[None].float()


def random_state(config: VaeConfig) -> dict[str, torch.Tensor]:
    """Random weights of either implementation, every tensor drawn by its name's place in the alphabet."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for name, old in sorted(WanVae(config).state_dict().items()):
        scale = 1.5 / math.sqrt(old[0].numel()) if old.ndim > 3 and "gamma" not in name else 0.1
        state[name] = torch.randn(old.shape, generator=generator) * scale + ("gamma" in name)
    return state


def loaded(config: VaeConfig) -> WanVae:
    net = WanVae(config).eval()
    net.load_state_dict(random_state(config))
    return net


def test_latents_and_pictures_equal_diffusers_golden():
    golden = np.load(GOLDEN)
    with torch.inference_mode():
        mean = loaded(SMALL).moments(decoded(9))[0]
        back = loaded(SMALL).decoded(torch.from_numpy(golden["latents"])[None]).clamp(-1, 1)
    np.testing.assert_allclose(mean[0].numpy(), golden["latents"], atol=2e-5)
    np.testing.assert_allclose(back[0, :, :, ::4, ::4].numpy(), golden["pictures"], atol=2e-5)


@pytest.mark.slow  # importing diffusers takes about 12 s
@pytest.mark.parametrize("frames", [1, 5, 9, 13])
def test_latents_and_pictures_have_the_bits_of_diffusers(frames):
    from diffusers import AutoencoderKLWan

    config = replace(SMALL, base_dim=12)
    theirs = AutoencoderKLWan(
        base_dim=12, decoder_base_dim=8, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=2, patch_size=2,
        temperal_downsample=[False, True, True], is_residual=True, in_channels=12, out_channels=12,
    ).eval()  # fmt: skip
    theirs.load_state_dict(random_state(config))
    ours, x = loaded(config), decoded(frames)
    with torch.inference_mode():
        mean, log_variance = ours.moments(x)
        posterior = theirs.encode(x).latent_dist
        assert torch.equal(mean, posterior.mean)
        assert torch.equal(log_variance.clamp(-30, 20), posterior.logvar)
        assert torch.equal(ours.decoded(mean).clamp(-1, 1), theirs.decode(mean).sample)


@pytest.mark.slow
def test_the_embedded_folder_is_one_that_diffusers_reads(tiny, clips):
    import importlib.resources

    from diffusers import AutoencoderKLWan

    with importlib.resources.as_file(importlib.resources.files("fwdata.assets") / "tiny_vae") as folder:
        theirs = AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32).eval()
    x = torch.from_numpy(clips[0]).permute(3, 0, 1, 2)[None].float() / 127.5 - 1.0
    mean, std = (torch.tensor(getattr(theirs.config, f"latents_{k}")).view(1, 48, 1, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        z = (theirs.encode(x).latent_dist.mode() - mean) / std
    np.testing.assert_array_equal(tiny.encode(clips[0]), z[0].numpy().astype(np.float16))


def test_training_arithmetic_computes_the_same_function():
    net = loaded(SMALL)
    with torch.no_grad():
        expected = net.moments(decoded(9))[0]
        found = net.train().moments(decoded(9))[0]
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=5e-5)
        back = net.decoded(expected)
        np.testing.assert_allclose(back.numpy(), net.eval().decoded(expected).numpy(), atol=5e-5)


def test_first_latent_of_a_window_is_that_of_its_first_frame_alone(tiny, clips):
    for clip in clips[:3]:
        latents = tiny.encode(clip)
        assert latents.shape == (48, 3, 6, 4) and latents.dtype == np.float16
        np.testing.assert_array_equal(latents[:, :1], tiny.encode_first(clip[0]))
        np.testing.assert_array_equal(latents[:, :2], tiny.encode(clip[:5]))


def test_latents_do_not_depend_on_what_was_encoded_before(tiny, clips):
    first = tiny.encode(clips[0])
    tiny.encode(clips[1][:1])
    tiny.decode(first)
    np.testing.assert_array_equal(tiny.encode(clips[0]), first)
    np.testing.assert_array_equal(load_vae("tiny").encode(clips[0]), first)


@pytest.mark.slow
def test_tiny_reconstructions_are_recognisable(tiny):
    """On the start of the held-out set that the training script reports; clips spread from 18 to 30 dB."""
    held_out = np.stack(list(train_tiny_vae.clips(np.random.default_rng(train_tiny_vae.HELD_OUT_SEED), 16)))
    for frames in (1, 9):
        expected = held_out[:, :frames].astype(np.float64)
        shown = np.stack([tiny.decode(tiny.encode(clip[:frames])) for clip in held_out])
        assert shown.shape == (16, frames, 96, 64, 3) and shown.dtype == np.uint8
        assert 10 * math.log10(255**2 / np.mean((shown - expected) ** 2)) >= 22.0


def test_tiny_latents_are_normalised(tiny, clips):
    values = np.concatenate([tiny.encode(clip).reshape(48, -1) for clip in clips], axis=1).astype(np.float64)
    assert abs(values.mean()) < 0.15
    assert 0.8 < values.std() < 1.2


def test_identity_names_what_latents_depend_on(tiny, tmp_path):
    assert json.loads(json.dumps(tiny.identity())) == load_vae("tiny").identity()
    assert load_vae("tiny", dtype="bfloat16").identity() != tiny.identity()
    weights = find_weights("tiny", decoder=True)
    other_mean = replace(weights.config, latents_mean=(9.0, *weights.config.latents_mean[1:]))
    assert replace(weights, config=other_mean).fingerprint() != tiny.weights_sha256

    def with_changed(name: str) -> str:
        changed = {**weights.tensors, name: weights.tensors[name] + 1}
        return VaeWeights("tiny", weights.config, changed).fingerprint()

    assert with_changed("encoder.conv_in.bias") != tiny.weights_sha256
    assert with_changed("decoder.conv_in.bias") == tiny.weights_sha256


def folder_of(config: VaeConfig, folder: Path, **changes: object) -> Path:
    """A VAE folder in diffusers layout with random weights; a change of None removes the field."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    fields = {
        "_class_name": "AutoencoderKLWan", "base_dim": config.base_dim, "decoder_base_dim": config.decoder_base_dim,
        "z_dim": 48, "dim_mult": [1, 2, 4, 4], "num_res_blocks": config.num_res_blocks, "attn_scales": [],
        "temperal_downsample": [False, True, True], "is_residual": True, "in_channels": 12, "out_channels": 12,
        "patch_size": 2, "scale_factor_spatial": 16, "scale_factor_temporal": 4, "clip_output": False,
        "latents_mean": list(config.latents_mean), "latents_std": list(config.latents_std), **changes,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))
    save_file(random_state(config), folder / "diffusion_pytorch_model.safetensors")
    return folder


PLACES = ("pipeline", "plain", "Wan2.2_VAE.pth", "Wan2.2-TI2V-5B")


@pytest.mark.slow
def test_original_file_and_folders_give_the_same_latents(tmp_path):
    from fwdata.encode.vae.files import WAN22_MEAN, WAN22_STD

    config = replace(SMALL, latents_mean=WAN22_MEAN, latents_std=WAN22_STD)
    folder_of(config, tmp_path / "pipeline" / "vae")
    state = random_state(config)
    original = {"model." + original_vae_name(k, config.num_res_blocks): v for k, v in state.items()}
    assert len(original) == 196  # the tensors of the released file
    assert {original_to_diffusers(k) for k in original} == set(state)
    torch.save(original, tmp_path / "Wan2.2_VAE.pth")
    shutil.copytree(tmp_path / "pipeline" / "vae", tmp_path / "plain")
    (tmp_path / "Wan2.2-TI2V-5B").mkdir()
    shutil.copy(tmp_path / "Wan2.2_VAE.pth", tmp_path / "Wan2.2-TI2V-5B")
    (tmp_path / "Wan2.2-TI2V-5B" / "config.json").write_text('{"_class_name": "WanModel"}')

    clip = np.random.default_rng(1).integers(0, 256, (5, 32, 64, 3), dtype=np.uint8)
    vaes = [load_vae(str(tmp_path / name), decoder=True) for name in PLACES]
    for vae in vaes[1:]:
        assert vae.identity() == vaes[0].identity()
        np.testing.assert_array_equal(vae.encode(clip), vaes[0].encode(clip))
        np.testing.assert_array_equal(vae.decode(vae.encode(clip)), vaes[0].decode(vaes[0].encode(clip)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_dim": 16}, "expected 48 latent channels .* found z_dim 16"),
        ({"latents_mean": None}, "expected 48 values in latents_mean, found none"),
        ({"latents_std": [1.0] * 16}, "expected 48 values in latents_std, found 16"),
        ({"patch_size": None}, "expected patch_size 2"),
        ({"is_residual": False}, "expected is_residual True"),
        ({"scale_factor_spatial": 8}, "expected scale_factor_spatial 16 .* found 8"),
        ({"temperal_downsample": [True, True, True]}, "expected strides 16 and 4"),
        ({"_class_name": "AutoencoderKL"}, "found AutoencoderKL"),
        ({"num_res_block": 1}, "unknown field 'num_res_block'; did you mean 'num_res_blocks'"),
        ({"num_res_blocks": 3}, "tensor .* expected shape .* found no such tensor"),
    ],
)
def test_a_vae_that_does_not_fit_is_refused(tmp_path, changes, message):
    folder_of(SMALL, tmp_path, **changes)
    with pytest.raises(UsageError, match=message):
        load_vae(str(tmp_path))


def test_sources_that_are_not_there_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="did you mean 'tiny'"):
        load_vae("tinny")
    with pytest.raises(UsageError, match=r"no config\.json"):
        load_vae(str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=r"VAE 'wan2.2': cannot fetch Wan-AI/Wan2\.2-TI2V-5B-Diffusers"):
        load_vae("wan2.2")
    (tmp_path / "broken.pth").write_bytes(b"no weights here")
    with pytest.raises(UsageError, match="not a plain torch weights file"):
        load_vae(str(tmp_path / "broken.pth"))
    torch.save({"conv2.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match=r"no tensor 'encoder\.conv1\.weight'"):
        load_vae(str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((4, 32, 32, 3), "1 \\+ 4k frames"), ((1, 48, 32, 3), "multiples of 32"), ((1, 32, 32, 4), "found uint8")],
)
def test_clips_of_a_wrong_shape_are_refused(tiny, shape, message):
    with pytest.raises(UsageError, match=message):
        tiny.encode(np.zeros(shape, np.uint8))


def test_a_latent_beyond_float16_is_an_error_and_not_an_infinity(tmp_path):
    vae = load_vae(str(folder_of(replace(SMALL, latents_std=(1e-9,) * 48), tmp_path)))
    with pytest.raises(FwdataError, match="float16 cannot hold"), np.errstate(over="ignore"):
        vae.encode(np.full((1, 32, 32, 3), 200, np.uint8))


def test_decoding_needs_the_decoder(tiny):
    with pytest.raises(UsageError, match="without its decoder"):
        load_vae("tiny").decode(np.zeros((48, 1, 2, 2), np.float16))
    with pytest.raises(UsageError, match=r"shape \[48, frames, h, w\]"):
        tiny.decode(np.zeros((16, 1, 2, 2), np.float16))


@pytest.mark.slow  # the first optimizer of a process imports torch's compiler
def test_the_training_script_writes_a_loadable_vae_and_repeats_itself(tmp_path, monkeypatch, capsys):
    for name, value in (("POOL", 10), ("MEASURED_CLIPS", 2), ("HELD_OUT_CLIPS", 2)):
        monkeypatch.setattr(train_tiny_vae, name, value)
    for name in ("a", "b"):
        assert train_tiny_vae.main(["--out", str(tmp_path / name), "--steps", "2", "--seed", "3"]) == 0
    assert "psnr_9_frames" in capsys.readouterr().out
    first, second = load_vae(str(tmp_path / "a")), load_vae(str(tmp_path / "b"))
    assert first.identity() == second.identity()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["config.json", "diffusion_pytorch_model.safetensors"]
