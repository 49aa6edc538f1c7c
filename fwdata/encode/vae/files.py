"""Where VAE weights come from: the embedded tiny VAE, a folder or file of diffusers or of the original Wan2.2 release,
or a hub id of either.

Whatever the source, the result is one `VaeWeights`: a checked configuration and tensors under diffusers' names.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwdata.encode.hub import WAN22_DIFFUSERS_ID, fetch, file_names, is_hub_id, matching, unknown
from fwdata.encode.vae.net import LATENT_CHANNELS, PATCH, SPATIAL_STRIDE, TEMPORAL_STRIDE, VaeConfig
from fwdata.encode.vae.patch_net import PatchConfig
from fwdata.errors import StoreDamaged, UsageError, did_you_mean
from fwdata.plugins import VAES

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
_WEIGHTS = "diffusion_pytorch_model*.safetensors*"
ORIGINAL_NAMES = ("Wan2.2_VAE.pth", "Wan2.2_VAE.safetensors")
"""Files of the original release, as they lie in the folder Wan2.2-TI2V-5B."""
CONV_AXES = 5
"""Axes of the weight of a 3-D convolution."""
ENCODER_SIDE = ("encoder.", "quant_conv.")
EMBEDDED = {"tiny": "tiny_vae", "tiny-libero": "tiny_libero_vae"}
"""Name -> folder of `fwdata.assets`: trained on the sample world, and on the LIBERO simulator."""

WAN22_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
WAN22_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip
"""Normalisation constants of the Wan2.2 VAE (Wan2.2 wan/modules/vae2_2.py)."""

_FIXED = {
    "z_dim": LATENT_CHANNELS,
    "patch_size": PATCH,
    "in_channels": 3 * PATCH**2,
    "out_channels": 3 * PATCH**2,
    "is_residual": True,
    "attn_scales": [],
    "scale_factor_spatial": SPATIAL_STRIDE,
    "scale_factor_temporal": TEMPORAL_STRIDE,
}
_IGNORED = {"clip_output", "dropout"}


@dataclass(frozen=True)
class VaeWeights:
    """A checked VAE checkpoint."""

    name: str
    """"tiny", "tiny-libero", "wan2.2" (any checkpoint of that architecture) or "custom"."""
    config: VaeConfig | PatchConfig
    """Its sizes."""
    tensors: dict[str, Tensor]
    """Parameters under diffusers' names, in the dtype of the file; the decoder's are absent if it was not asked for."""

    def fingerprint(self) -> str:
        """sha256 hex over what the latents depend on: (name, dtype, shape, bytes) of the encoder side, mean and std.

        Cost: one pass over the encoder's bytes (0.6 GB in float32 for Wan2.2, about 1 s).
        """
        import torch

        digest = hashlib.sha256(json.dumps(config_fields(self.config), sort_keys=True).encode())
        for name in sorted(n for n in self.tensors if n.startswith(ENCODER_SIDE)):
            tensor = self.tensors[name].detach().contiguous().cpu()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()


def config_fields(config: VaeConfig | PatchConfig) -> dict[str, object]:
    """The configuration fields that the latents depend on (all but the decoder's width), as JSON values."""
    values = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "decoder_base_dim"}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def find_weights(spec: str, decoder: bool) -> VaeWeights:
    """Read the checkpoint that `spec` names; see `vae.load_vae`. Raises UsageError when it cannot be
    found or downloaded."""
    if spec in EMBEDDED:
        with importlib.resources.as_file(importlib.resources.files("fwdata.assets") / EMBEDDED[spec]) as folder:
            return _from_folder(folder, spec, decoder, spec)
    path = Path(spec)
    if path.is_file():
        return _from_file(path, decoder)
    if not path.is_dir():
        path = _fetch(spec)
    if (path / "vae" / "config.json").is_file():
        return _from_folder(path / "vae", spec, decoder, None)
    original = next((path / name for name in ORIGINAL_NAMES if (path / name).is_file()), None)
    return _from_folder(path, spec, decoder, None) if original is None else _from_file(original, decoder)


def _fetch(spec: str) -> Path:
    """Download what a hub repository holds of a VAE, and no more: its vae/ folder, the file of the original release,
    or, where the repository is a VAE alone, its configuration and weights."""
    hub_id, what = WAN22_DIFFUSERS_ID if spec == "wan2.2" else spec, f"VAE {spec!r}"
    if not is_hub_id(hub_id):
        raise unknown("VAE", spec, [*EMBEDDED, "wan2.2", *VAES.names()])
    names = file_names(hub_id, what)
    if "vae/config.json" in names:
        return fetch(hub_id, ["vae/config.json", *matching(names, f"vae/{_WEIGHTS}")], what)
    originals = [name for name in ORIGINAL_NAMES if name in names]
    if originals:
        return fetch(hub_id, originals[:1], what)
    root = fetch(hub_id, ["config.json"], what)
    _folder_config(root, spec)  # a repository of another model is refused before its weights are downloaded
    return fetch(hub_id, ["config.json", *matching(names, _WEIGHTS)], what)


def _from_folder(folder: Path, spec: str, decoder: bool, name: str | None) -> VaeWeights:
    """Diffusers layout: config.json beside one or several safetensors files."""
    config = _folder_config(folder, spec)
    if not (any(folder.glob("*.safetensors")) or any(folder.glob("*.safetensors.index.json"))):
        raise UsageError(f"VAE {spec!r}: no .safetensors weights in {folder}; only safetensors are read from a folder")
    prefixes = ENCODER_SIDE + (("decoder.", "post_quant_conv.") if decoder else ())
    tensors = _read_safetensors(folder, spec, prefixes)
    return VaeWeights(name or name_of(config), config, tensors)


def _folder_config(folder: Path, spec: str) -> VaeConfig | PatchConfig:
    """The checked configuration of a VAE folder."""
    from fwdata.encode.tensor_files import found_instead, unreadable

    path = folder / "config.json"
    if not path.is_file():
        raise UsageError(
            f"VAE {spec!r}: no config.json in {folder} or its vae/ folder (diffusers layout), "
            f"and no {ORIGINAL_NAMES[0]} (original release){found_instead(folder)}"
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"VAE {spec!r}: {path} is not valid JSON: {unreadable(path, error)}") from None
    return parse_config(raw, f"VAE {spec!r} ({path})")


def _read_safetensors(path: Path, spec: str, prefixes: tuple[str, ...] | None) -> dict[str, Tensor]:
    """Tensors of a file or a folder whose names start with one of the prefixes (all without)."""
    from fwdata.encode.tensor_files import TensorFiles, unreadable, weight_files

    def refusal(file: Path, error: Exception) -> UsageError:
        return UsageError(f"VAE {spec!r}: {file} is not a readable safetensors file ({unreadable(file, error)})")

    try:
        found = TensorFiles.open(*weight_files(path), refusal=refusal)
    except StoreDamaged as error:
        raise UsageError(f"VAE {spec!r}: {error}") from None
    return {name: found[name] for name in found if prefixes is None or name.startswith(prefixes)}


def _from_file(path: Path, decoder: bool) -> VaeWeights:
    """A file of the original release (Wan2.2_VAE.pth, or the same as safetensors), or a file in a diffusers folder."""
    import torch

    from fwdata.encode.tensor_files import NotPlainTensors, load_torch

    raw: object
    if path.suffix == ".safetensors":
        if (path.parent / "config.json").is_file():
            return _from_folder(path.parent, str(path), decoder, None)
        raw = _read_safetensors(path, str(path), None)
    else:
        try:
            raw = load_torch(path)
        except NotPlainTensors as error:
            raise UsageError(f"VAE file {path} is not a plain torch weights file ({error})") from None
    if not isinstance(raw, dict) or not raw or not all(isinstance(v, torch.Tensor) for v in raw.values()):
        raise UsageError(f"VAE file {path}: expected a flat table of named tensors as in Wan2.2_VAE.pth")
    config = original_config(raw, str(path))
    tensors = {original_to_diffusers(k): v for k, v in raw.items()}
    if len(tensors) < len(raw):
        raise UsageError(f"VAE file {path}: names occur twice, with and without 'model.'; expected those of one VAE")
    if not decoder:
        tensors = {k: v for k, v in tensors.items() if k.startswith(ENCODER_SIDE)}
    return VaeWeights(name_of(config), config, tensors)


def name_of(config: VaeConfig | PatchConfig) -> str:
    """ "wan2.2" for the release's widths, else "custom"; which weights they are is the fingerprint's business."""
    real = VaeConfig(base_dim=160, decoder_base_dim=256, latents_mean=WAN22_MEAN, latents_std=WAN22_STD)
    return "wan2.2" if config_fields(config) == config_fields(real) else "custom"


def parse_config(raw: object, where: str) -> VaeConfig | PatchConfig:
    """The checked configuration of diffusers' config.json, or of a patch VAE; UsageError names the first field that
    does not fit."""
    if not isinstance(raw, dict):
        raise UsageError(f"{where}: expected a JSON object")
    other = str(raw.get("model_type") or (raw.get("architectures") or ["a config without z_dim"])[0])
    kind = raw.get("_class_name", "AutoencoderKLWan" if "z_dim" in raw else other)
    if kind == "PatchVae":
        return _patch_config(raw, where)
    if kind != "AutoencoderKLWan":
        raise UsageError(f"{where}: expected the Wan2.2 VAE (AutoencoderKLWan), found {kind}")
    values = {k: v for k, v in raw.items() if not k.startswith("_") and k not in _IGNORED}
    if values.get("z_dim", 16) != LATENT_CHANNELS:
        raise UsageError(
            f"{where}: expected {LATENT_CHANNELS} latent channels (Wan2.2), found z_dim {values.get('z_dim', 16)}"
            "; the 16-channel Wan2.1 VAE does not fit Fast-WAM"
        )
    for key, expected in _FIXED.items():
        found = values.pop(key, expected if key == "attn_scales" else None)
        if found != expected:
            raise UsageError(f"{where}: expected {key} {expected} as in the Wan2.2 VAE, found {found}")
    known = {f.name for f in fields(VaeConfig)} - {"z_dim"}
    for key in values:
        if key not in known:
            raise UsageError(f"{where}: unknown field {key!r}{did_you_mean(key, known)}")
    return _checked_config(values, where)


def _checked_config(values: Mapping[str, Any], where: str) -> VaeConfig:
    """VaeConfig from the free fields, with every value checked."""
    _check_constants(values, where)
    downs = values.get("temperal_downsample", [False, True, True])
    mult = values.get("dim_mult", [1, 2, 4, 4])
    if [_is_list(mult, 4, int), _is_list(downs, 3, bool)] != [True, True] or sum(downs) != 2 or min(mult) < 1:
        raise UsageError(f"{where}: expected strides 16 and 4, found dim_mult {mult}, temperal_downsample {downs}")
    base = values.get("base_dim", 96)
    for key in ("base_dim", "decoder_base_dim", "num_res_blocks"):
        size = values.get(key)
        if size is not None and (type(size) is not int or size < 1):
            raise UsageError(f"{where}: expected a positive whole number for {key}, found {size!r}")
    return VaeConfig(
        base_dim=base,
        decoder_base_dim=values.get("decoder_base_dim") or base,
        latents_mean=tuple(float(v) for v in values["latents_mean"]),
        latents_std=tuple(float(v) for v in values["latents_std"]),
        dim_mult=tuple(mult),
        num_res_blocks=values.get("num_res_blocks", 2),
        temperal_downsample=tuple(bool(v) for v in downs),
    )


def _is_list(value: object, length: int, kind: type) -> bool:
    return isinstance(value, list) and len(value) == length and all(type(item) is kind for item in value)


def _patch_config(raw: Mapping[str, Any], where: str) -> PatchConfig:
    """The configuration that `train_patch` writes."""
    _check_constants(raw, where)
    sizes = {key: raw.get(key) for key in ("frame_dim", "base_dim", "decoder_base_dim")}
    for key, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{where}: expected a positive {key}, found {value}")
    mean, std = (tuple(float(v) for v in raw[key]) for key in ("latents_mean", "latents_std"))
    return PatchConfig(mean, std, raw["frame_dim"], raw["base_dim"], raw["decoder_base_dim"])


def _check_constants(values: Mapping[str, Any], where: str) -> None:
    """UsageError unless both constants of the normalisation have 48 values."""
    for key in ("latents_mean", "latents_std"):
        found = values.get(key)
        if not isinstance(found, list) or len(found) != LATENT_CHANNELS:
            count = f"{len(found)} values" if isinstance(found, list) else "none"
            raise UsageError(f"{where}: expected {LATENT_CHANNELS} values in {key}, found {count}")
        wrong = next((value for value in found if type(value) not in (int, float) or not math.isfinite(value)), None)
        if wrong is not None or None in found:
            raise UsageError(f"{where}: expected numbers in {key}, found {wrong!r}")
    if min(values["latents_std"]) <= 0:
        raise UsageError(f"{where}: every value of latents_std must be positive")


def original_config(raw: dict[str, Tensor], where: str) -> VaeConfig:
    """Sizes of an original Wan2.2 VAE from its tensor shapes; mean and std are the release's constants."""
    shapes = {k.removeprefix("model."): tuple(v.shape) for k, v in raw.items()}
    needed = ("conv2.weight", "encoder.conv1.weight", "decoder.head.0.gamma")
    missing = [k for k in needed if k not in shapes]
    if missing:
        raise UsageError(f"VAE file {where}: no tensor {missing[0]!r}; expected the names of Wan2.2_VAE.pth")
    flat = next((k for k in needed[:2] if len(shapes[k]) != CONV_AXES), None)
    if flat is not None or not shapes[needed[2]]:
        name = flat or needed[2]
        raise UsageError(f"VAE file {where}: tensor {name!r} has shape {shapes[name]}; expected that of Wan2.2_VAE.pth")
    channels, patched = shapes["conv2.weight"][0], shapes["encoder.conv1.weight"][1]
    if channels != LATENT_CHANNELS or patched != 3 * PATCH**2:
        raise UsageError(
            f"VAE file {where}: expected {LATENT_CHANNELS} latent and {3 * PATCH**2} input channels (Wan2.2), "
            f"found {channels} and {patched}; the 16-channel Wan2.1 VAE does not fit Fast-WAM"
        )
    blocks = {k.split(".")[4] for k in shapes if re.match(r"encoder\.downsamples\.0\.downsamples\.\d+\.residual\.", k)}
    return VaeConfig(
        base_dim=shapes["encoder.conv1.weight"][0],
        decoder_base_dim=shapes["decoder.head.0.gamma"][0],
        latents_mean=WAN22_MEAN,
        latents_std=WAN22_STD,
        num_res_blocks=len(blocks),
    )


_RENAMES = (
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.downsamples\.(\d+)\.downsamples\.\d+\.(resample|time_conv)\.", r".down_blocks.\1.downsampler.\2."),
    (r"\.upsamples\.(\d+)\.upsamples\.\d+\.(resample|time_conv)\.", r".up_blocks.\1.upsampler.\2."),
    (r"\.downsamples\.(\d+)\.downsamples\.(\d+)\.", r".down_blocks.\1.resnets.\2."),
    (r"\.upsamples\.(\d+)\.upsamples\.(\d+)\.", r".up_blocks.\1.resnets.\2."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)


def original_to_diffusers(name: str) -> str:
    """Tensor name of the original Wan2.2 VAE (or of FastWAM's copy, prefix "model.") to diffusers' name.

    Source: diffusers scripts/convert_wan_to_diffusers.py, the function for VAE 2.2.
    """
    name = name.removeprefix("model.")
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
