"""What people download works as it lies: original folders, diffusers folders, hub ids; and nothing else is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_hub import FakeHub
from released_names import original_vae_name, t5_encoder

from fwdata.encode.text import umt5
from fwdata.encode.text.encoders import load_text_encoder
from fwdata.encode.vae.files import WAN22_MEAN, WAN22_STD, original_config, original_to_diffusers
from fwdata.encode.vae.net import VaeConfig, WanVae
from fwdata.encode.vae.wan import load_vae
from fwdata.errors import UsageError

ORIGINAL = (
    "config.json",
    "configuration.json",
    "Wan2.2_VAE.pth",
    "models_t5_umt5-xxl-enc-bf16.pth",
    "diffusion_pytorch_model-00001-of-00003.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "google/umt5-xxl/spiece.model",
    "google/umt5-xxl/tokenizer.json",
    "examples/i2v_input.JPG",
)
PIPELINE = (
    "model_index.json",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "text_encoder/config.json",
    "text_encoder/model-00001-of-00003.safetensors",
    "text_encoder/model.safetensors.index.json",
    "text_encoder/pytorch_model.bin",
    "tokenizer/tokenizer.json",
    "tokenizer/spiece.model",
    "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
    "transformer/config.json",
)
ALONE = ("README.md", "config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json", "spiece.model")


def made(folder: Path, names: tuple[str, ...]) -> Path:
    """A folder of placeholder files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"_class_name": "WanModel"}' if name == "config.json" else "placeholder")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "asked", "read"),
    [
        (ORIGINAL, {"Wan2.2_VAE.pth"}, "Wan2.2_VAE.pth is not a plain torch weights file"),
        (PIPELINE, {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}, r"vae/config\.json is not valid"),
        (
            ("config.json", "diffusion_pytorch_model.safetensors"),
            {"config.json"},
            "expected the Wan2.2 VAE .* WanModel",
        ),
    ],
)
def test_of_a_vae_on_the_hub_only_its_files_are_fetched(tmp_path, monkeypatch, names, asked, read):
    hub = FakeHub(monkeypatch, made(tmp_path / "source", names), tmp_path / "cache")
    with pytest.raises(UsageError, match=read):  # the placeholders are read, which shows where it looks
        load_vae("someone/something")
    assert set(hub.asked) == asked


def test_the_original_folder_holds_a_vae(tmp_path):
    with pytest.raises(UsageError, match=r"Wan2\.2_VAE\.pth is not a plain torch weights file"):
        load_vae(str(made(tmp_path / "Wan2.2-TI2V-5B", ORIGINAL)))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Where the text encoder's weights and tokenizer were looked for, instead of loading them."""
    found: dict[str, Path] = {}

    def note(name: str) -> Any:
        return lambda path, *_: found.__setitem__(name, path)

    for name, function in (("file", "_original_model"), ("folder", "_model"), ("tokenizer", "_tokenizer")):
        monkeypatch.setattr(umt5, function, note(name))
    monkeypatch.setattr(umt5, "Umt5Text", lambda *_: None)
    return found


@pytest.mark.parametrize(
    ("names", "asked", "places"),
    [
        (
            ORIGINAL,
            {"models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/spiece.model", "google/umt5-xxl/tokenizer.json"},
            {"file": "models_t5_umt5-xxl-enc-bf16.pth", "tokenizer": "google/umt5-xxl"},
        ),
        (
            PIPELINE,
            {name for name in PIPELINE if name.startswith(("text_encoder", "tokenizer"))} - {PIPELINE[7]},
            {"folder": "text_encoder", "tokenizer": "tokenizer"},
        ),
        (ALONE, set(ALONE) - {"README.md", "pytorch_model.bin"}, {"folder": "", "tokenizer": ""}),
    ],
)
def test_of_a_text_encoder_only_its_files_are_fetched(tmp_path, monkeypatch, loaded, names, asked, places):
    source = made(tmp_path / "source", names)
    load_text_encoder(str(source))
    assert loaded == {name: source / place for name, place in places.items()}
    loaded.clear()
    hub = FakeHub(monkeypatch, source, tmp_path / "cache")
    load_text_encoder("someone/something")
    assert loaded == {name: hub.cache / place for name, place in places.items()}
    assert set(hub.asked) == asked


REAL = VaeConfig(base_dim=160, decoder_base_dim=256, latents_mean=WAN22_MEAN, latents_std=WAN22_STD)


def test_every_tensor_of_the_released_vae_has_its_place():
    with torch.device("meta"):
        expected = WanVae(REAL).state_dict()
    original = {original_vae_name(name, REAL.num_res_blocks): tensor for name, tensor in expected.items()}
    assert len(expected) == len(original) == 196
    assert {original_to_diffusers(name) for name in original} == set(expected)
    assert {original_to_diffusers(f"model.{name}") for name in original} == set(expected)
    assert original_config(original, "x") == REAL


@pytest.mark.slow  # importing diffusers takes about 12 s
def test_the_released_vae_has_the_names_of_diffusers():
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        ours = WanVae(REAL).state_dict()
        theirs = AutoencoderKLWan(
            base_dim=160, decoder_base_dim=256, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=2, patch_size=2,
            temperal_downsample=[False, True, True], is_residual=True, in_channels=12, out_channels=12,
        ).state_dict()  # fmt: skip
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.slow  # importing transformers takes about 10 s
def test_every_tensor_of_the_released_text_encoder_has_its_place():
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=256_384, d_model=4096, d_kv=64, d_ff=10_240, num_layers=24, num_heads=64,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
        released = {name: torch.empty(shape) for name, shape in t5_encoder().items()}
    assert len(released) == 242
    renamed = umt5.original_to_transformers(released)
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("version", ["5.0.0", "5.2.4", "4.57.1"])
def test_a_transformers_that_loads_wrong_embeddings_is_refused(monkeypatch, version):
    pytest.importorskip("transformers")
    monkeypatch.setattr("transformers.__version__", version)
    with pytest.raises(UsageError, match=rf"transformers {version} is installed, umt5 needs 5\.3 or newer"):
        umt5.check_transformers()
