"""Folders of weights as people have them: half downloaded, with older copies beside, of other types."""

from __future__ import annotations

import importlib.resources
import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fwdata.encode.tensor_files import MODEL_NAMES, NotPlainTensors, load_torch, save_tensors, save_torch, weight_files
from fwdata.encode.text import umt5
from fwdata.encode.vae.wan import load_vae
from fwdata.errors import UsageError

WHOLE = MODEL_NAMES[1]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n"

type Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def tiny() -> tuple[str, Tensors]:
    """config.json and tensors of the embedded VAE."""
    with importlib.resources.as_file(importlib.resources.files("fwdata.assets") / "tiny_vae") as folder:
        return (folder / "config.json").read_text(), load_file(folder / WHOLE)


def older_copy(folder: Path, tensors: Tensors) -> None:
    save_file(tensors, folder / WHOLE)
    save_file(
        {name: tensor * 2 for name, tensor in tensors.items()}, folder / "diffusion_pytorch_model_old.safetensors"
    )


def half_downloaded(folder: Path, tensors: Tensors) -> None:
    names = sorted(tensors)
    shards = [f"diffusion_pytorch_model-{i}-of-2.safetensors" for i in (1, 2)]
    save_file({name: tensors[name] for name in names[::2]}, folder / shards[0])
    index = {"weight_map": {name: shards[number % 2] for number, name in enumerate(names)}}
    (folder / f"{WHOLE}.index.json").write_text(json.dumps(index))


def pointer(folder: Path, tensors: Tensors) -> None:
    (folder / WHOLE).write_text(POINTER)


def quantised(folder: Path, tensors: Tensors) -> None:
    save_file({name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}, folder / WHOLE)


def not_finite(folder: Path, tensors: Tensors) -> None:
    name = min(name for name in tensors if name.startswith("encoder."))
    save_file({**tensors, name: tensors[name] * float("nan")}, folder / WHOLE)


def test_an_older_copy_beside_the_weights_is_not_read(tiny: tuple[str, Tensors], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(tiny[0])
    older_copy(tmp_path, tiny[1])
    assert load_vae(str(tmp_path)).identity()["weights"] == load_vae("tiny").identity()["weights"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (half_downloaded, r"index\.json names diffusion_pytorch_model-2-of-2\.safetensors, which is missing \(1 of 2"),
        (pointer, r"model\.safetensors is not a readable .* pointer of Git LFS .* run `git lfs pull`"),
        (quantised, r"tensor 'encoder\..* is quantised \(torch\.float8_e4m3fn\)"),
        (not_finite, r"tensor 'encoder\..* holds values that are not finite"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_sentence(
    tiny: tuple[str, Tensors], tmp_path: Path, make: Callable[[Path, Tensors], None], says: str
) -> None:
    (tmp_path / "config.json").write_text(tiny[0])
    make(tmp_path, tiny[1])
    with pytest.raises(UsageError, match=says):
        load_vae(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"latents_std": [float("nan")] * 48}, "expected numbers in latents_std, found nan"),
        ({"latents_mean": ["x"] * 48}, "expected numbers in latents_mean, found 'x'"),
        ({"base_dim": "12"}, "expected a positive whole number for base_dim, found '12'"),
        ({"dim_mult": "1244"}, "expected strides 16 and 4, found dim_mult 1244"),
    ],
)
def test_fields_of_another_type_are_refused(
    tiny: tuple[str, Tensors], tmp_path: Path, change: dict[str, object], says: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**json.loads(tiny[0]), **change}))
    save_file(tiny[1], tmp_path / WHOLE)
    with pytest.raises(UsageError, match=says):
        load_vae(str(tmp_path))


def test_a_system_that_cannot_write_a_file_of_weights_says_why(tmp_path: Path) -> None:
    limits, large = resource.getrlimit(resource.RLIMIT_FSIZE), torch.zeros(1 << 16)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_tensors(tmp_path / WHOLE, {"a": large})
        with pytest.raises(OSError, match="Input/output error"):
            save_torch(tmp_path / "a.pt", large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / WHOLE).exists()


def test_a_file_of_weights_can_be_read_by_whoever_reads_others(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_tensors(tmp_path / WHOLE, {"a": torch.zeros(2)})
    assert (tmp_path / WHOLE).stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("config", "found"), [({"model_type": "umt5"}, "umt5"), ({"architectures": ["Policy"]}, "Policy"), ({}, "a config")]
)
def test_a_folder_of_another_model_is_named(tmp_path: Path, config: dict[str, object], found: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=rf"expected the Wan2\.2 VAE \(AutoencoderKLWan\), found {found}"):
        load_vae(str(tmp_path))


def test_torch_files_of_the_older_format_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loaded = load_torch(tmp_path / "old.pth")
    assert isinstance(loaded, dict) and loaded["a"].tolist() == [1, 1, 1]
    (tmp_path / "old.pth").write_text(POINTER)
    with pytest.raises(NotPlainTensors, match="pointer of Git LFS"):
        load_torch(tmp_path / "old.pth")


@pytest.mark.parametrize(
    ("held", "kept", "says"),
    [
        ({"a": torch.ones(999)}, 0.5, "its end is missing"),
        ({"a": Path("x")}, 1.0, "it holds other Python objects than tensors"),
        (None, 1.0, "it was not written by torch.save"),
    ],
)
def test_a_torch_file_that_cannot_be_read_says_why(tmp_path: Path, held: object, kept: float, says: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(held, path)
    data = path.read_bytes() if held is not None else b"{}"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(NotPlainTensors, match=rf"^{says}"):
        load_torch(path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "the folder is empty"),
        (("Wan2.2_VAE.pth.incomplete", "README.md"), "Wan2.2_VAE.pth.incomplete was not downloaded to its end"),
        (("adapter_config.json", "adapter.bin"), "this is a LoRA adapter: merge it"),
        (("wan-Q4_K_M.gguf",), "wan-Q4_K_M.gguf is quantised"),
        (("snapshots/1f2e/model.bin", "blobs/1"), "a folder of the hub's cache, name .*/snapshots/1f2e"),
        (("a.txt", "b", "c", "d"), r"found a\.txt, b, c, \.\."),
    ],
)
def test_a_folder_without_weights_says_what_it_holds(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for read in (weight_files, lambda folder: load_vae(str(folder)), _load_umt5):
        with pytest.raises(UsageError, match=words):
            read(tmp_path)


def _load_umt5(folder: Path) -> object:
    return umt5.load_umt5(str(folder), "cpu", "float32")


def test_a_link_into_a_cache_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to("../../blobs/4d7a")
    with pytest.raises(UsageError, match=r"model\.safetensors was not downloaded to its end"):
        weight_files(tmp_path)


def test_processors_of_a_policy_are_no_weights(tmp_path: Path) -> None:
    for name in (
        "policy_preprocessor_step_3_normalizer_processor",
        "policy_postprocessor_step_0_unnormalizer_processor",
    ):
        save_file({"action.mean": torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(UsageError, match="has no safetensors file"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"conv2.weight": torch.zeros(())}, r"'conv2.weight' has shape \(\)"),
        ({"encoder.conv1.weight": torch.zeros(3)}, r"'encoder.conv1.weight' has shape \(3,\)"),
        ({"model.conv2.weight": torch.zeros(48, 48, 1, 1, 1)}, "names occur twice, with and without 'model.'"),
    ],
)
def test_an_original_vae_with_odd_tensors_is_refused(tmp_path: Path, change: Tensors, says: str) -> None:
    kernel = (1, 1, 1)
    whole = {
        "conv2.weight": torch.zeros(48, 48, *kernel),
        "encoder.conv1.weight": torch.zeros(8, 12, *kernel),
        "decoder.head.0.gamma": torch.zeros(8),
    }
    torch.save({**whole, **change}, tmp_path / "Wan2.2_VAE.pth")
    with pytest.raises(UsageError, match=says):
        load_vae(str(tmp_path))


@pytest.mark.slow
def test_an_original_text_encoder_names_what_does_not_fit(tmp_path: Path) -> None:
    def block(number: int) -> Tensors:
        names = {f"attn.{name}": (32, 32) for name in "qkvo"}
        names |= {"ffn.gate.0": (64, 32), "ffn.fc1": (64, 32), "ffn.fc2": (32, 64), "norm1": (32,), "norm2": (32,)}
        names["pos_embedding.embedding"] = (8, 4)
        return {f"blocks.{number}.{name}.weight": torch.ones(shape) for name, shape in names.items()}

    whole = {"token_embedding.weight": torch.ones(64, 32), "norm.weight": torch.ones(32), **block(0), **block(1)}
    path = tmp_path / "encoder.pth"
    torch.save(whole, path)
    umt5._original_model(path)

    def refused(says: str, without: str = "", **change: object) -> None:
        torch.save({**{k: v for k, v in whole.items() if k != without}, **change}, path)
        with pytest.raises(UsageError, match=says):
            umt5._original_model(path)

    refused("expected tensor 'blocks.0.attn.q.weight' .* found no such tensor", "blocks.0.attn.q.weight")
    refused("expected tensor 'token_embedding.weight' .* found shape", **{"token_embedding.weight": torch.ones(3)})
    refused(r"tensor 'encoder\.block\.1\..*SelfAttention\.o.weight' .*: expected .* no such", "blocks.1.attn.o.weight")
    refused(r"tensor 'extra' .*: expected no such tensor, found \(2,\)", extra=torch.ones(2))
    refused("expected the 24 blocks of umt5-xxl, found 2", **{"token_embedding.weight": torch.ones(64, 4096)})
    refused("expected a flat table of named tensors", note="text")
    (tmp_path / "tokenizer.json").write_text(POINTER)
    with pytest.raises(UsageError, match=r"tokenizer\.json is a pointer of Git LFS"):
        umt5._tokenizer(tmp_path, "own")


@pytest.mark.slow
def test_a_text_encoder_names_the_tensor_that_does_not_fit(tmp_path: Path) -> None:
    from transformers import UMT5Config, UMT5EncoderModel

    sizes = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    config = UMT5Config(**sizes, feed_forward_proj="gated-gelu")
    whole = {k: v.clone() for k, v in UMT5EncoderModel(config).state_dict().items() if "embed_tokens" not in k}
    name = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
    (tmp_path / "config.json").write_text(config.to_json_string())
    save_file({**whole, name: whole[name][1:].clone()}, tmp_path / MODEL_NAMES[0], {"format": "pt"})
    save_file(whole, tmp_path / "older.safetensors")
    with pytest.raises(UsageError, match=rf"tensor '{name}' .* expected shape \(64, 32\) .* found \(63, 32\)"):
        umt5._model(tmp_path, "own")
    save_file({k: v + 1 for k, v in whole.items()}, tmp_path / "older.safetensors")
    save_file(whole, tmp_path / MODEL_NAMES[0], {"format": "pt"})
    umt5._model(tmp_path, "own")
    (tmp_path / MODEL_NAMES[0]).write_text(POINTER)
    with pytest.raises(UsageError, match="pointer of Git LFS"):
        umt5._model(tmp_path, "own")
    (tmp_path / "config.json").write_text(POINTER)
    with pytest.raises(UsageError, match=r"config\.json is not JSON: .* pointer of Git LFS"):
        umt5._model(tmp_path, "own")
