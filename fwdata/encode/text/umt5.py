"""The umt5-xxl text encoder of Wan2.2, through transformers (imported here alone: it takes seconds to load)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fwdata.encode.devices import need_device
from fwdata.encode.hub import WAN22_DIFFUSERS_ID, fetch, file_names, matching
from fwdata.encode.tensor_files import (
    NotPlainTensors,
    TensorFiles,
    found_instead,
    is_pointer,
    load_torch,
    unreadable,
    weight_files,
)
from fwdata.encode.text.prompt_cleaning import clean_prompt
from fwdata.errors import FwdataError, StoreDamaged, UsageError
from fwdata.install import library_command
from fwdata.store.caches.identity import TEXT_CODE_VERSION

MAX_TOKENS = 128
SHORT_LENGTHS = (16, 32, 64, MAX_TOKENS)
"""Lengths of `fwdata encode-text --short`: most instructions have fewer than 32 tokens with the template."""
ORIGINAL_NAME, ORIGINAL_TOKENIZER = "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl"
"""The encoder's file and the tokenizer's folder beside it, as they lie in the folder Wan2.2-TI2V-5B."""
EMBEDDING_NAMES = ("shared.weight", "encoder.embed_tokens.weight")
"""The two names of the embedding; a file may have one or both."""
OLDEST_TRANSFORMERS = (5, 3)
"""Earlier 5.x versions leave the embedding of a file that holds `shared.weight` alone at random values."""
NEWER = "'transformers>=5.3'"
"""What to install then."""
XXL_WIDTH, XXL_LAYERS = 4096, 24


class Umt5Text:
    """A loaded umt5 encoder; see `fwdata.encode.text.encoders.TextEncoder`.

    A prompt is padded to the smallest of `lengths` that holds it (128 tokens unless asked for otherwise) and runs with
    its real padding mask, alone; only real rows are returned. The length changes the last bits of the rows, so that
    other lengths than 128 are part of the identity, and so is a GPU.
    """

    max_tokens = MAX_TOKENS

    def __init__(
        self, model: Any, tokenizer: Any, device: str, dtype: str, lengths: Sequence[int] = (MAX_TOKENS,)
    ) -> None:
        self.lengths = tuple(sorted(lengths))
        self.dim = int(model.config.d_model)
        self.name = "umt5-xxl" if self.dim == XXL_WIDTH else "umt5"
        self.device, self.dtype = device, dtype
        self._identity = {
            "name": self.name,
            "weights": fingerprint(model.state_dict()),
            "tokenizer": _tokenizer_hash(tokenizer),
            "max_tokens": self.max_tokens,
            "compute_dtype": dtype,
            "code": TEXT_CODE_VERSION,
        }
        if device.startswith("cuda"):
            self._identity["device"] = torch.cuda.get_device_name(device)
        if self.lengths != (MAX_TOKENS,):
            self._identity["lengths"] = list(self.lengths)
        self._tokenizer = tokenizer
        self._model = model.to(device, getattr(torch, dtype)).eval().requires_grad_(False)

    def identity(self) -> dict[str, object]:
        """See TextEncoder."""
        return dict(self._identity)

    def encode(self, prompts: Sequence[str]) -> list[NDArray[np.float16]]:
        """See TextEncoder. Raises FwdataError for a value that float16 cannot hold."""
        return [self._rows(clean_prompt(prompt)) for prompt in prompts]

    def _rows(self, prompt: str) -> NDArray[np.float16]:
        tokens = self._tokenizer(
            prompt,
            padding="max_length",
            truncation=True,
            max_length=self.max_tokens,
            add_special_tokens=True,
            return_tensors="pt",
        )
        length = int(tokens.attention_mask.sum())
        padded = next(size for size in self.lengths if size >= length)
        ids, mask = (t[:, :padded].to(self.device) for t in (tokens.input_ids, tokens.attention_mask))
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        rows: NDArray[np.float16] = hidden[:length].float().cpu().numpy().astype(np.float16)
        if not np.isfinite(rows).all():
            raise FwdataError(f"text encoder {self.name} gave values that float16 cannot hold for {prompt!r}")
        return rows


def load_umt5(spec: str, device: str, dtype: str, lengths: Sequence[int] = (MAX_TOKENS,)) -> Umt5Text:
    """See `fwdata.encode.text.encoders.load_text_encoder`.

    Cost for umt5-xxl: 11 GB of memory and about 20 s of hashing.
    """
    need_device(device)
    path = Path(spec)
    if not path.exists():
        path = _fetch(spec)
    if (path / ORIGINAL_NAME).is_file():
        path /= ORIGINAL_NAME
    if path.is_file():
        return Umt5Text(
            _original_model(path), _tokenizer(path.parent / ORIGINAL_TOKENIZER, spec), device, dtype, lengths
        )
    nested = (path / "text_encoder").is_dir()
    model_folder = path / "text_encoder" if nested else path
    tokenizer_folder = path / "tokenizer" if nested else path
    return Umt5Text(_model(model_folder, spec), _tokenizer(tokenizer_folder, spec), device, dtype, lengths)


def _fetch(spec: str) -> Path:
    """Download what a hub repository holds of an encoder and its tokenizer, and no more."""
    hub_id, what = WAN22_DIFFUSERS_ID if spec == "umt5-xxl" else spec, f"text encoder {spec!r}"
    names = file_names(hub_id, what)
    if "text_encoder/config.json" in names:
        wanted = ["text_encoder/config.json", "text_encoder/*.safetensors*", "tokenizer/*"]
    elif ORIGINAL_NAME in names:
        wanted = [ORIGINAL_NAME, f"{ORIGINAL_TOKENIZER}/*"]
    else:
        wanted = ["config.json", "*.safetensors*", "tokenizer*", "special_tokens_map.json", "*.model"]
    return fetch(hub_id, matching(names, *wanted), what)


def _model(folder: Path, spec: str) -> Any:
    """transformers' UMT5EncoderModel from a folder, in the dtype of the files; safetensors alone are read."""
    from safetensors import SafetensorError
    from transformers import UMT5EncoderModel

    check_transformers()
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise UsageError(
            f"text encoder {spec!r}: no config.json in {folder} (expected a umt5 encoder's folder)"
            f"{found_instead(folder)}"
        )
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(
            f"text encoder {spec!r}: {config_path} is not JSON: {unreadable(config_path, error)}"
        ) from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "umt5":
        raise UsageError(f"text encoder {spec!r}: expected a model of type umt5 in {config_path}, found {kind!r}")
    try:
        TensorFiles.open(*weight_files(folder))  # says better than transformers what is wrong with a file
        model, report = UMT5EncoderModel.from_pretrained(
            folder,
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
        )
    except (StoreDamaged, UsageError) as error:
        raise UsageError(f"text encoder {spec!r}: {error}") from None
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"text encoder {spec!r}: cannot read the weights in {folder} ({reason})") from None
    missing = sorted(set(report["missing_keys"]) - set(EMBEDDING_NAMES))
    if missing:
        raise UsageError(f"text encoder {spec!r}: the weights in {folder} lack the tensor {missing[0]!r}")
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise UsageError(
            f"text encoder {spec!r}: tensor {name!r} in {folder}: expected shape {tuple(expected)} by its config.json, "
            f"found {tuple(found)}"
        )
    _check_embedding(model, folder, spec)
    return model


def check_transformers() -> None:
    """UsageError for a transformers that would load wrong embeddings without any error."""
    import transformers

    numbers = re.findall(r"\d+", transformers.__version__)
    if tuple(int(number) for number in numbers[:2]) < OLDEST_TRANSFORMERS:
        raise UsageError(
            f"transformers {transformers.__version__} is installed, umt5 needs "
            f"{'.'.join(map(str, OLDEST_TRANSFORMERS))} or newer: earlier versions leave its embedding at random "
            f"values; upgrade it with: {library_command(NEWER)}"
        )


def _check_embedding(model: Any, folder: Path, spec: str) -> None:
    """UsageError unless the embedding that the model reads is the file's own, whichever of its names the file has."""
    for file in weight_files(folder):
        stored = TensorFiles.open(file)
        for name in stored.keys() & set(EMBEDDING_NAMES):
            if not torch.equal(model.encoder.embed_tokens.weight, stored[name]):
                raise UsageError(
                    f"text encoder {spec!r}: the embedding in use is not {name} of {file}; the two embeddings of "
                    "umt5 are one tensor: check the file, and that transformers is 5.3 or newer"
                )


def _tokenizer(folder: Path, spec: str) -> Any:
    from transformers import AutoTokenizer

    if not folder.is_dir() or not any(folder.iterdir()):
        raise UsageError(f"text encoder {spec!r}: no tokenizer in {folder}")
    pointer = next((file for file in sorted(folder.iterdir()) if is_pointer(file)), None)
    if pointer is not None:
        raise UsageError(
            f"text encoder {spec!r}: {pointer} is a pointer of Git LFS in place of the file: run `git lfs pull` there, "
            "or download the file"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"text encoder {spec!r}: cannot read the tokenizer in {folder} ({reason})") from None


def _tokenizer_hash(tokenizer: Any) -> str:
    """sha256 hex over the vocabulary."""
    return hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 hex over (name, dtype, shape, bytes) of all tensors; the tied copy of the embedding is left out."""
    digest = hashlib.sha256()
    for name in sorted(set(tensors) - {"encoder.embed_tokens.weight"}):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


_RENAMES = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.(\d+)\.norm1\.", r"encoder.block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.attn\.([qkvo])\.", r"encoder.block.\1.layer.0.SelfAttention.\2."),
    (r"^blocks\.(\d+)\.pos_embedding\.embedding\.", r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias."),
    (r"^blocks\.(\d+)\.norm2\.", r"encoder.block.\1.layer.1.layer_norm."),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"encoder.block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"encoder.block.\1.layer.1.DenseReluDense.wo."),
)


def original_to_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the original umt5 encoder file under the names of transformers' UMT5EncoderModel.

    The embedding appears under both of its tied names. Source of the names: Wan2.2 wan/modules/t5.py.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    if "shared.weight" in renamed:
        renamed["encoder.embed_tokens.weight"] = renamed["shared.weight"]
    return renamed


def _check_tensors(path: Path, expected: Mapping[str, torch.Size], found: Mapping[str, Tensor]) -> None:
    """UsageError with the first tensor that is missing, unknown or of another shape."""
    for name in sorted(expected.keys() | found.keys()):
        there = tuple(found[name].shape) if name in found else "no such tensor"
        wanted = tuple(expected[name]) if name in expected else "no such tensor"
        if there != wanted:
            raise UsageError(
                f"text encoder file {path}: tensor {name!r} (as transformers calls it): expected {wanted}, "
                f"found {there}"
            )


def _original_model(path: Path) -> Any:
    """UMT5EncoderModel from models_t5_umt5-xxl-enc-bf16.pth; sizes come from the tensors' shapes."""
    from transformers import UMT5Config, UMT5EncoderModel

    try:
        raw = load_torch(path)
    except NotPlainTensors as error:
        raise UsageError(f"text encoder file {path} is not a plain torch weights file ({error})") from None
    axes = {
        "token_embedding.weight": 2,
        "blocks.0.pos_embedding.embedding.weight": 2,
        "blocks.0.attn.q.weight": 2,
        "blocks.0.ffn.fc1.weight": 2,
    }
    if not isinstance(raw, dict) or any(not isinstance(value, Tensor) for value in raw.values()):
        raise UsageError(f"text encoder file {path}: expected a flat table of named tensors as in {ORIGINAL_NAME}")
    for name, count in axes.items():
        if name not in raw or raw[name].ndim != count:
            found = f"shape {tuple(raw[name].shape)}" if name in raw else "no such tensor"
            raise UsageError(f"text encoder file {path}: expected tensor {name!r} as in {ORIGINAL_NAME}, found {found}")
    buckets, heads = raw["blocks.0.pos_embedding.embedding.weight"].shape
    vocabulary, width = raw["token_embedding.weight"].shape
    layers = len({name.split(".")[1] for name in raw if name.startswith("blocks.")})
    if width == XXL_WIDTH and layers != XXL_LAYERS:
        raise UsageError(f"text encoder file {path}: expected the {XXL_LAYERS} blocks of umt5-xxl, found {layers}")
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=raw["blocks.0.attn.q.weight"].shape[0] // heads,
        d_ff=raw["blocks.0.ffn.fc1.weight"].shape[0],
        num_layers=layers,
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu",
    )
    check_transformers()
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    renamed = original_to_transformers(raw)
    _check_tensors(path, {name: value.shape for name, value in model.state_dict().items()}, renamed)
    model.load_state_dict(renamed, strict=True, assign=True)
    if model.encoder.embed_tokens.weight.data_ptr() != raw["token_embedding.weight"].data_ptr():
        raise UsageError(f"text encoder file {path}: the embedding in use is not token_embedding.weight of the file")
    return model
