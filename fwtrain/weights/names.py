"""Weights from elsewhere: Wan2.2-TI2V-5B (original or diffusers names), official Fast-WAM `.pt` files, lerobot folders.

Every name table is here, in both directions. Our names are the official Fast-WAM ones: mixtures.video.* (the original
Wan names after the prefix), mixtures.action.*, proprio_encoder.*. Sources: scripts/convert_wan_to_diffusers.py of
diffusers, policies/fastwam of lerobot 0.6, scripts/preprocess_action_dit_backbone.py of the official Fast-WAM release.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

from fwdata.encode.tensor_files import NotPlainTensors, TensorFiles, found_instead, load_torch, weight_files
from fwdata.errors import StoreDamaged, UsageError
from fwtrain.model.fastwam import FastWAM
from fwtrain.model.saving import load_exactly
from fwtrain.weights import released
from fwtrain.weights.released import Origin

VIDEO, ACTION, PROPRIO = "mixtures.video.", "mixtures.action.", "proprio_encoder."
MODEL_FILE = "model.safetensors"
"""The file of a whole model's weights in a folder of lerobot's, of diffusers' and of ours."""
TORCH_SUFFIXES = (".pt", ".pth", ".bin")
ABOUT = "fwtrain"
"""Entry of exported .pt files that records variant, shifts and token rows; the official loader does not read it."""
OWN_LAYERS = ("action_encoder.", "head.")
"""Layers of the action expert that have no counterpart in the video expert."""

# diffusers module (or parameter) name -> Wan name, inside a block and outside.
_BLOCK = {
    **{f"{a}.{x}": f"{b}.{y}"
       for a, b in (("attn1", "self_attn"), ("attn2", "cross_attn"))
       for x, y in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"),
                    ("norm_q", "norm_q"), ("norm_k", "norm_k"))},
    "norm2": "norm3",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "scale_shift_table": "modulation",
}  # fmt: skip
_TOP = {
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "patch_embedding": "patch_embedding",
    "scale_shift_table": "head.modulation",
    "proj_out": "head.head",
}
_NAME = re.compile(r"(?P<block>blocks\.\d+\.)?(?P<module>.+?)(?P<leaf>\.(weight|bias))?$")
_LEROBOT_BLOCK = re.compile(r"model\.mot\.layers\.(\d+)\.blocks\.(video|action)\.(.+)$")
_OUR_BLOCK = re.compile(r"mixtures\.(video|action)\.blocks\.(\d+)\.(.+)$")


def _translated(name: str, block: dict[str, str], top: dict[str, str]) -> str | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    module = (block if match["block"] else top).get(match["module"])
    return None if module is None else f"{match['block'] or ''}{module}{match['leaf'] or ''}"


def wan_from_diffusers(name: str) -> str | None:
    """Wan's name of a WanTransformer3DModel tensor; None for a name that model does not have."""
    return _translated(name, _BLOCK, _TOP)


def diffusers_from_wan(name: str) -> str | None:
    """The inverse of `wan_from_diffusers`."""
    return _translated(name, {v: k for k, v in _BLOCK.items()}, {v: k for k, v in _TOP.items()})


def lerobot_from_ours(name: str) -> str:
    """The name lerobot's `fastwam` policy saves one of our parameters under."""
    match = _OUR_BLOCK.fullmatch(name)
    if match:
        return f"model.mot.layers.{match[2]}.blocks.{match[1]}.{match[3]}"
    return f"model.{name}" if name.startswith(PROPRIO) else f"model.mot.{name}"


def ours_from_lerobot(name: str) -> str | None:
    """The inverse of `lerobot_from_ours`; also reads the older form model.mot.mixtures.<expert>.blocks.*."""
    match = _LEROBOT_BLOCK.fullmatch(name)
    if match:
        return f"mixtures.{match[2]}.blocks.{match[1]}.{match[3]}"
    plain = name.removeprefix("model.").removeprefix("mot.")
    return plain if plain.startswith((VIDEO, ACTION, PROPRIO)) else None


def load_wan_video_expert(model: FastWAM, path: Path | str) -> None:
    """Fill the video expert from Wan2.2-TI2V-5B: original shards, or a diffusers `transformer` folder (or its parent).

    Also takes a torch file of the same tensors, alone or under "dit" as in the oldest official checkpoints. One tensor
    at a time is in memory. Raises UsageError for a path without weights or an unsafe pickle, StoreDamaged for broken
    files or names and shapes that do not fit the model.
    """
    source = Path(path)
    if (source / "transformer").is_dir():
        source /= "transformer"
    tensors = _torch_video_tensors(source) if _is_torch(source) else TensorFiles.open(*weight_files(source))
    if any(name.startswith("condition_embedder.") for name in tensors):
        tensors = _renamed(tensors, {name: wan_from_diffusers(name) or name for name in tensors}, source)
    load_exactly(model.video, tensors, str(source))


def load_fastwam(model: FastWAM, path: Path | str) -> None:
    """Fill all parameters from an official `.pt` file or a folder that holds one, from a lerobot `fastwam` folder, from
    one of our checkpoints or model folders, or from a safetensors file.

    Pickles are read with weights_only. Raises UsageError for a path without weights or an unsafe or foreign pickle,
    StoreDamaged for broken files or names and shapes that do not fit the model.
    """
    source = _torch_file_in(Path(path))
    if _is_torch(source):
        load_exactly(model, official_tensors(source), str(source))
        return
    tensors: Mapping[str, Tensor] = TensorFiles.open(*weight_files(source))
    if any(name.startswith("model.") for name in tensors):
        tensors = _renamed(tensors, {name: ours_from_lerobot(name) or name for name in tensors}, source)
    load_exactly(model, tensors, str(source))


def load_action_backbone(model: FastWAM, path: Path | str) -> None:
    """Fill the action expert, but its input and output layers, from a file of preprocess_action_dit_backbone.py.

    Such a file holds {"policy", "backbone_state_dict", "meta"}. Errors as of `load_fastwam`.
    """
    source = Path(path)
    tensors = _torch_table(source).get("backbone_state_dict")
    if not _is_table(tensors):
        raise UsageError(f"{source} is not an action backbone: expected a table of tensors under 'backbone_state_dict'")
    load_exactly(model.action, tensors, str(source), skip=OWN_LAYERS)


def official_tensors(path: Path) -> dict[str, Tensor]:
    """All model tensors of an official checkpoint {"mot", "proprio_encoder", ...}, memory-mapped, under our names."""
    data = _torch_table(path)
    if "mot" not in data and _is_table(data.get("dit")):
        raise UsageError(f"{path} holds the video expert alone (an entry 'dit'); start from it with init wan2.2:{path}")
    mot, proprio = data.get("mot"), data.get("proprio_encoder") or {}
    if not _is_table(mot) or not _is_table(proprio):
        found = sorted(map(str, data))[:5]
        raise UsageError(f"{path} is not an official Fast-WAM checkpoint: expected tensors under 'mot', found {found}")
    return {**mot, **{PROPRIO + name: value for name, value in proprio.items()}}


def _torch_video_tensors(path: Path) -> Mapping[str, Tensor]:
    data = _torch_table(path)
    if "mot" in data:
        raise UsageError(f"{path} holds both experts (an entry 'mot'); start from it with init fastwam:{path}")
    tensors = data.get("dit", data)
    if not _is_table(tensors):
        raise UsageError(
            f"{path} holds no video expert: expected a table of tensors, found {sorted(map(str, data))[:5]}"
        )
    return tensors


def origin_of(path: Path) -> Origin | None:
    """What a checkpoint was trained with, by its own words or because it is a released one; None where nothing says so.

    Raises UsageError for a torch file that cannot be read safely.
    """
    path = _torch_file_in(path)
    known = released.origin_of(path)
    if known is not None or not _is_torch(path):
        return known
    about = _torch_table(path).get(ABOUT)
    if not isinstance(about, dict) or not isinstance(about.get("action_shift"), float):
        return None
    variant, video, tokens = (about.get(key) for key in ("variant", "video_shift", "tokens"))
    return Origin(
        about["action_shift"],
        variant if isinstance(variant, str) else None,
        f"{path.name} says so",
        video if isinstance(video, float) else None,
        tokens if type(tokens) is int else None,
    )


def _is_torch(path: Path) -> bool:
    return path.suffix in TORCH_SUFFIXES and not path.is_dir()


def _torch_file_in(path: Path) -> Path:
    """The only torch file of a folder without safetensors; any other path as it is. UsageError for none or several."""
    if not path.is_dir() or any(path.glob("*.safetensors")) or any(path.glob("*.safetensors.index.json")):
        return path
    files = sorted(file for file in path.iterdir() if _is_torch(file))
    if len(files) > 1:
        raise UsageError(f"{path} holds {len(files)} torch files; name one of {', '.join(file.name for file in files)}")
    if not files:
        raise UsageError(
            f"{path} holds no weights; expected {MODEL_FILE}, other safetensors files or one .pt file"
            f"{found_instead(path)}"
        )
    return files[0]


def _torch_table(path: Path) -> dict[Any, Any]:
    """The dictionary in a torch file, memory-mapped; UsageError for one that is absent or wants to run code."""
    if not path.is_file():
        raise UsageError(f"{path} does not exist; expected a torch file of weights")
    try:
        data = load_torch(path)
    except NotPlainTensors as error:
        raise UsageError(f"{path} is not a checkpoint that can be read safely as plain tensors ({error})") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds a {type(data).__name__}; expected a table of tensors")
    return data


def _is_table(value: object) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(value, dict) and all(isinstance(item, Tensor) for item in value.values())


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str], source: Path) -> Mapping[str, Tensor]:
    """`tensors` with each name replaced; StoreDamaged if two would share one."""
    if len(set(names.values())) < len(names):
        raise StoreDamaged(f"{source} holds some tensors under two names each")
    if isinstance(tensors, TensorFiles):
        return tensors.renamed(names)
    return {new: tensors[old] for old, new in names.items()}


@torch.no_grad()
def init_action_expert_from_video(model: FastWAM) -> None:
    """Fill the action expert with the video expert's tensors of the same names, resized where widths differ.

    Each axis is resized linearly with aligned corners, axis 0 first, in float32, and rounded to the source type; where
    the last of several axes changed from m to n entries, the result is multiplied by sqrt(m / n). `action_encoder` and
    `head` keep their values. As in the official release, `time_projection` is resized across its six parts.
    """
    video = dict(model.video.named_parameters())
    for name, parameter in model.action.named_parameters():
        if not name.startswith(OWN_LAYERS):
            parameter.copy_(resized(video[name], parameter.shape))


def resized(source: Tensor, shape: torch.Size) -> Tensor:
    """`source` in another shape of as many axes, by the rule of `init_action_expert_from_video`."""
    if source.shape == shape:
        return source
    value = source.float()
    for axis, size in enumerate(shape):
        if value.shape[axis] != size:
            lines = value.movedim(axis, -1)
            flat = F.interpolate(lines.reshape(1, -1, lines.shape[-1]), size=size, mode="linear", align_corners=True)
            value = flat.reshape(*lines.shape[:-1], size).movedim(-1, axis)
    value = value.to(source.dtype)
    if len(shape) > 1 and source.shape[-1] != shape[-1]:
        value = value * math.sqrt(source.shape[-1] / shape[-1])
    return value
