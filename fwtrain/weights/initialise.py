"""The weights a run starts from: `model.init` of its recipe.

    wan2.2[:SOURCE]   the video expert of Wan2.2-TI2V-5B; the action expert is interpolated from it (or is the official
                      preprocessed file `model.init_action`); its input and output layers and the proprioception
                      encoder stay random
    fastwam:SOURCE    all of a trained Fast-WAM of equal sizes: an official .pt file or a folder with one, a lerobot
                      `fastwam` folder (as `fwtrain export lerobot` writes it), a run of ours (its last checkpoint) or
                      one of its checkpoint folders; a recipe that leaves `model.action_shift` open takes the one these
                      weights were trained with

SOURCE is a path or a hub id (owner/name); of a repository with several .pt files owner/name/FILE. The whole folder of
Wan2.2-TI2V-5B, original or of diffusers, will do: of a repository the video expert's files alone are downloaded.
Tensors are read one at a time. Only a new run reads them: a resumed one has its checkpoint, and a recipe with another
`model.init` does not continue it.
"""

from __future__ import annotations

from pathlib import Path

from fwdata.encode.hub import WAN22_ORIGINAL_ID, fetch, file_names, is_hub_id, matching
from fwdata.errors import UsageError
from fwtrain.model import FastWAM
from fwtrain.model.saving import load_exactly
from fwtrain.recipe import ModelRecipe
from fwtrain.train.checkpoint import CHECKPOINTS, latest
from fwtrain.train.shards import INDEX, ShardedTensors
from fwtrain.weights import names as weights
from fwtrain.weights.released import ACTION_SHIFT, OLDER_ACTION_SHIFT, Origin

_WAN_PATTERNS = (
    "transformer/diffusion_pytorch_model*.safetensors*",
    "diffusion_pytorch_model*.safetensors*",
    "model.safetensors*",
)
"""Where the video expert lies, in diffusers' pipeline, in the original release, alone; the first that is there."""
_MODEL_PATTERNS = [f"{weights.MODEL_FILE}*", "config.json"]


def initialise(model: FastWAM, init: str, action: str | None = None) -> None:
    """Fill the model as `init` (and `init_action`) of a recipe say.

    Raises UsageError when the source cannot be found, downloaded or read safely, StoreDamaged when its tensors do not
    fit the model.
    Cost: one read of the files, and for wan2.2 one resize of every tensor of the video expert.
    """
    kind, _, source = init.partition(":")
    what = f"model.init {init}"
    if kind == "fastwam":
        found = _local_fastwam(source, what)
        if (found / INDEX).is_file():
            load_exactly(model, ShardedTensors.of_model(found), str(found))
        else:
            weights.load_fastwam(model, found)
        return
    path = _local(source or WAN22_ORIGINAL_ID, what)
    weights.load_wan_video_expert(model, path)
    if action is None:
        weights.init_action_expert_from_video(model)
    else:
        weights.load_action_backbone(model, Path(action))


def initial_origin(init: str) -> tuple[Path, Origin | None]:
    """The file or folder that `fastwam:SOURCE` names, downloaded where it is not here, and what is known of it."""
    path = _local_fastwam(init.partition(":")[2], f"model.init {init}")
    return path, weights.origin_of(path)


def initial_shift(init: str) -> float:
    """The action shift a run takes from its initial weights where the recipe leaves it open.

    Wan2.2 has no action expert: its runs take upstream's. Raises UsageError where nothing says how weights of a trained
    Fast-WAM were trained: with another shift they act worse without any error.
    """
    if not init.startswith("fastwam:"):
        return ACTION_SHIFT
    path, origin = initial_origin(init)
    if origin is None:
        raise UsageError(
            f"model.init {init}: nothing says which action shift {path.name} was trained with; give it with --set "
            f"model.action_shift={OLDER_ACTION_SHIFT:g} (upstream before August 2026) or "
            f"model.action_shift={ACTION_SHIFT:g} (since)"
        )
    return origin.action_shift


def shift_warning(recipe: ModelRecipe) -> str | None:
    """A sentence where a recipe trains on with another action shift than its initial weights were trained with."""
    if recipe.init is None or not recipe.init.startswith("fastwam:") or recipe.action_shift is None:
        return None
    path, origin = initial_origin(recipe.init)
    if origin is None or origin.action_shift == recipe.action_shift:
        return None
    return (
        f"model.action_shift is {recipe.action_shift:g}, {path.name} was trained with {origin.action_shift:g} "
        f"({origin.told_by}): the action expert has to learn another distribution of times"
    )


def _local(source: str, what: str) -> Path:
    """The path itself if it exists, else the hub repository's weights."""
    path = Path(source)
    if path.exists():
        return path
    if not is_hub_id(source):
        raise UsageError(f"{what}: {source} does not exist, and is not a hub id (owner/name)")
    names = file_names(source, what)
    for pattern in _WAN_PATTERNS:
        found = matching(names, pattern)
        if found:
            return fetch(source, found, what)
    raise UsageError(f"{what}: {source} holds no video expert; expected {' or '.join(_WAN_PATTERNS)}")


def _local_fastwam(source: str, what: str) -> Path:
    """The path itself if it exists, else the weights of a hub repository: its `model.safetensors` or its only .pt file,
    or the file that is named. An official file has 12 GB, so that only one is downloaded."""
    path = Path(source)
    if path.exists():
        return _last_checkpoint(path)
    owner, _, rest = source.partition("/")
    name, _, file = rest.partition("/")
    hub_id = f"{owner}/{name}"
    if not is_hub_id(hub_id):
        raise UsageError(f"{what}: {source} does not exist, and is not a hub id (owner/name or owner/name/FILE)")
    if not file:
        found = file_names(hub_id, what)
        safetensors = any(name.startswith(weights.MODEL_FILE) for name in found)
        torch_files = [name for name in found if name.endswith(weights.TORCH_SUFFIXES)]
        if safetensors or len(torch_files) == 0:
            return fetch(hub_id, _MODEL_PATTERNS, what)
        if len(torch_files) > 1:
            listed = ", ".join(f"fastwam:{hub_id}/{name}" for name in torch_files)
            raise UsageError(f"{what}: {hub_id} holds {len(torch_files)} torch files; name one: {listed}")
        file = torch_files[0]
    fetched = fetch(hub_id, [file], what) / file
    if not fetched.is_file():
        raise UsageError(f"{what}: {hub_id} has no file {file}")
    return fetched


def _last_checkpoint(path: Path) -> Path:
    """The last complete checkpoint of a run's folder; any other path as it is."""
    checkpoints = path / CHECKPOINTS
    if not checkpoints.is_dir():
        return path
    found = latest(checkpoints)
    if found is None:
        raise UsageError(f"{path} is the folder of a run without a complete checkpoint; name another source")
    return found.path
