"""A policy that was trained elsewhere as a run folder, so that eval, serve, predict and export take it like our own.

An official checkpoint brings its weights; its normalisation is in the `dataset_stats.json` beside it. A lerobot folder
brings its normalisation, its gripper rule and the number of actions that are carried out in its processors and
configuration. Both record or imply their action shift (`fwtrain.weights.released`), or it has to be given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from fwdata.encode.hub import fetch, file_names, is_hub_id
from fwdata.encode.tensor_files import TensorFiles
from fwdata.encode.text.encoders import load_text_encoder
from fwdata.encode.vae.wan import load_vae
from fwdata.errors import FwdataError, UsageError
from fwdata.manifest import Manifest, validate_model
from fwdata.normalise import Normaliser
from fwtrain.export.files import whole
from fwtrain.model import FastWAM
from fwtrain.model.sampling import USUAL
from fwtrain.recipe import DeployRecipe, Recipe
from fwtrain.train.build import DTYPES, Sizes, sized_config
from fwtrain.train.checkpoint import Content, TrainingState, save_checkpoint
from fwtrain.train.folder import CacheInfo, RunFolder, RunInfo, Scaling
from fwtrain.train.parallel import Team
from fwtrain.train.tensors import checkpoint_tensors
from fwtrain.train.weights import model_parts
from fwtrain.variants import VARIANTS
from fwtrain.weights.initialise import initial_origin, initialise
from fwtrain.weights.names import MODEL_FILE
from fwtrain.weights.released import Origin

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
STATE, ACTION = "observation.state", "action"
TEXT_TOKENS = 128
"""Token rows of a prompt, as published."""
IMPORTED = "imported"
"""Name and fingerprint of the caches of a run that was not trained from any."""
EPS = 1e-8
"""lerobot divides by std + EPS, and multiplies with std on the way back."""


@dataclass(frozen=True)
class ImportRequest:
    """One `fwtrain import` call."""

    source: str
    """What `model.init` takes after `fastwam:`: a file, a folder or a hub id, also of a lerobot policy."""
    out: Path
    """The run folder to write; must not exist."""
    recipe: Recipe
    """Sizes, variant and deployment rules; its action shift where it has one."""
    manifest: Manifest
    """How images are stitched and prompts are made."""
    stats: Path | None = None
    """Official `dataset_stats.json`; None for a lerobot folder, which has its own."""
    vae: str = "wan2.2"
    """What loads the VAE."""
    encoder: str = "umt5-xxl"
    """What loads the text encoder."""
    tokens: int | None = None
    """Token rows of a prompt; None: those that the source records, else `TEXT_TOKENS`."""


@dataclass(frozen=True)
class ImportedRun:
    """A run folder that was written."""

    out: Path
    """The folder."""
    recipe: Recipe
    """Its recipe, with the shift and the rules that were found."""
    notes: tuple[str, ...] = ()
    """Sentences about what was asked for otherwise than it was trained."""


def import_policy(asked: ImportRequest) -> ImportedRun:
    """Write the run folder, whole or not at all.

    Raises UsageError for a target that exists, statistics that are absent or unfit, encoders that cannot be loaded,
    weights of which nothing says their action shift, or that say what the request contradicts; StoreDamaged for tensors
    that do not fit the recipe's model.
    Cost: one copy of the weights; both encoders are loaded for their identity.
    """
    if asked.out.exists():
        raise UsageError(f"{asked.out} exists already; name a new one")
    folder = Path(asked.source)
    if "/" not in asked.source.strip("/") and not folder.exists():
        raise UsageError(
            f"there is no file or folder {asked.source}; a checkpoint on the hub is OWNER/NAME or OWNER/NAME/FILE"
        )
    if asked.stats is None and RunFolder(folder).exists:
        raise UsageError(f"{folder} is a run folder already: name it itself to eval, serve, predict and export")
    if asked.stats is None and not folder.exists() and is_hub_id(asked.source):
        folder = _lerobot_on_hub(asked.source) or folder
        asked = replace(asked, source=str(folder))
    lerobot = folder.is_dir() and (folder / PREPROCESSOR).is_file()
    if not lerobot and asked.stats is None:
        raise UsageError(f"{asked.source} is not a lerobot folder: give its normalisation with --stats DATASET_STATS")
    if lerobot and asked.stats is not None:
        raise UsageError(f"{folder} has its own normalisation in {PREPROCESSOR}: leave out --stats")
    notes: tuple[str, ...] = ()
    recipe = _with(asked.recipe, {"model": {"init": f"fastwam:{asked.source}"}})
    if lerobot:
        state, action, deploy, notes = of_lerobot(folder)
        recipe = _with(recipe, {"deploy": deploy.model_dump(exclude_unset=True)})
    else:
        assert asked.stats is not None
        state, action = of_statistics(asked.stats, asked.manifest)
    recipe = RunFolder(asked.out).settled(recipe)
    path, origin = initial_origin(f"fastwam:{asked.source}")
    tokens = _tokens(asked, path, origin)
    notes += () if origin is None else _agreed(recipe, path, origin)
    vae, encoder = load_vae(asked.vae), load_text_encoder(asked.encoder)
    height, width = (pixels // vae.spatial_stride for pixels in asked.manifest.stitch.size)
    latents, text = (vae.channels, height, width), (tokens, encoder.dim)
    sizes = Sizes(len(state.names), len(action.names), asked.manifest.window, latents, text)
    info = RunInfo(
        source=asked.manifest.converter,
        fps=asked.manifest.fps.hz,
        manifest=asked.manifest,
        model=sized_config(recipe, sizes),
        latents=_cache(asked.vae, "vae", vae.identity()),
        text=_cache(asked.encoder, "encoder", encoder.identity()),
        state=state,
        action=action,
        latent_shape=latents,
        text_shape=text,
        episodes={"train": 0, "val": 0},
    )
    model = FastWAM(info.model, seed=None, device="cpu", dtype=DTYPES[recipe.precision])
    initialise(model, f"fastwam:{asked.source}")
    with whole(asked.out) as temporary:
        record_weights(temporary, recipe, info, model)
    return ImportedRun(asked.out, recipe, notes)


def _lerobot_on_hub(hub_id: str) -> Path | None:
    """The local copy of a lerobot policy's repository; None for a repository that is none, of which nothing is fetched.

    UsageError when the hub does not answer and there is no local copy.
    """
    if PREPROCESSOR not in file_names(hub_id, hub_id):
        return None
    return fetch(hub_id, ["config.json", "policy_*", f"{MODEL_FILE}*"], hub_id)


def _tokens(asked: ImportRequest, path: Path, origin: Origin | None) -> int:
    """Attention counts the empty rows behind a prompt, too: another number of rows is another policy."""
    recorded = None if origin is None else origin.tokens
    if None not in (asked.tokens, recorded) and asked.tokens != recorded:
        raise UsageError(f"{path} was trained with {recorded} token rows of a prompt, --tokens asks for {asked.tokens}")
    return asked.tokens or recorded or TEXT_TOKENS


def _agreed(recipe: Recipe, path: Path, origin: Origin) -> tuple[str, ...]:
    """Sentences about differences that can be meant. UsageError for a variant or a video shift that cannot."""
    model, notes = recipe.model, []
    if origin.video_shift not in (None, model.video_shift):
        raise UsageError(
            f"{path} was trained with video shift {origin.video_shift:g}, the recipe has {model.video_shift:g}: "
            f"pass --set model.video_shift={origin.video_shift:g}"
        )
    if origin.variant in VARIANTS and origin.variant != model.variant:
        trained = {mode.sampler for mode in VARIANTS[origin.variant].modes}
        if any(mode.sampler not in trained for mode in VARIANTS[model.variant].modes):
            raise UsageError(
                f"{path} was trained as variant {origin.variant}, the recipe's is {model.variant}: "
                f"pass --set model.variant={origin.variant}"
            )
        modes = " and ".join(VARIANTS[model.variant].mode_names)
        notes.append(
            f"{path.name} was trained as variant {origin.variant}; "
            f"as {model.variant} it is sampled in mode {modes} only"
        )
    if model.action_shift is not None and origin.action_shift != model.action_shift:
        notes.append(
            f"model.action_shift is {model.action_shift:g}, {path.name} was trained with {origin.action_shift:g} "
            f"({origin.told_by}): its actions are sampled on another grid"
        )
    return tuple(notes)


def record_weights(out: Path, recipe: Recipe, info: RunInfo, model: FastWAM) -> None:
    """A run folder of weights that no training here made: one checkpoint, step 0, without an optimizer."""
    run = RunFolder(out)
    run.record(recipe, info)
    state: TrainingState = {
        "total": 0,
        "identity": info.identity(),
        "meter": [],
        "owes_validation": False,
        "frozen": None,
        "recipe": recipe.model_dump(mode="json"),
    }
    content = Content(model_parts(model, trained=True), [], info.model.to_json(), state)
    save_checkpoint(run.checkpoints, 0, content, Team(model.device))


def _with(recipe: Recipe, changes: Mapping[str, Mapping[str, object]]) -> Recipe:
    data = recipe.model_dump(mode="json")
    for section, values in changes.items():
        data[section] = {**data[section], **values}
    return validate_model(Recipe, data, f"recipe {recipe.name}")


def _cache(spec: str, key: str, identity: Mapping[str, object]) -> CacheInfo:
    return CacheInfo(name=IMPORTED, spec=spec, fingerprint=IMPORTED, identity={key: identity})


def of_statistics(path: Path, manifest: Manifest) -> tuple[Scaling, Scaling]:
    """Scaling of state and action from an official `dataset_stats.json`, in the manifest's mode of normalisation."""
    data = _read_json(path)
    found = []
    for what in ("state", "action"):
        try:
            entries = data[what]["default"]
            columns = {key.removeprefix("global_"): v for key, v in entries.items() if key.startswith("global_")}
            width = len(columns["mean"])
        except (KeyError, TypeError, AttributeError):
            raise UsageError(
                f"{path} has no {what}.default.global_mean: expected an official dataset_stats.json"
            ) from None
        names = tuple(f"{what}_{number}" for number in range(width))
        try:
            scaling = Normaliser.from_statistics(_Columns(columns), manifest.normalisation.mode, names, what)
        except (FwdataError, AttributeError, ValueError) as error:
            raise UsageError(f"{path}: {error}") from None
        found.append(_scaling(names, scaling))
    return found[0], found[1]


class _Columns:
    """Statistics as attributes, as `Normaliser.from_statistics` reads them."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        vars(self).update(columns)


class StepConfig(BaseModel):
    """Settings of a processor step that are read here."""

    norm_map: dict[str, str] = {}
    """STATE and ACTION -> how they are normalised."""
    toggle_dimensions: tuple[int, ...] = ()
    """Dimensions of the action that are sent as -1 open / +1 closed."""


class ProcessorStep(BaseModel):
    """A step of a lerobot processor."""

    registry_name: str = ""
    """What it is."""
    config: StepConfig = StepConfig()
    """Its settings."""
    state_file: str | None = None
    """File of its tensors, beside the processor."""


class ProcessorFile(BaseModel):
    """A lerobot processor: policy_preprocessor.json or policy_postprocessor.json."""

    steps: tuple[ProcessorStep, ...] = ()
    """In the order in which they are applied."""

    def step(self, name: str) -> ProcessorStep | None:
        """The last step of a name."""
        return {step.registry_name: step for step in self.steps}.get(name)


class SchedulerConfig(BaseModel):
    """What is read of a stream's scheduler."""

    train_shift: float | None = None
    """Time shift of the training."""
    infer_shift: float | None = None
    """Time shift of the sampling."""


class PolicyConfigFile(BaseModel):
    """What is read of a lerobot policy's config.json."""

    n_action_steps: int | None = None
    """Actions carried out before the next observation."""
    action_scheduler: SchedulerConfig = SchedulerConfig()
    """Of the action stream."""
    sigma_shift: float | None = None
    """Replaces the shift of both streams in sampling, where it is set."""
    num_inference_steps: int | None = None
    """Denoising steps; None where it does not say."""

    def sampling_notes(self) -> tuple[str, ...]:
        """Sentences where lerobot samples otherwise than this toolkit does unasked."""
        notes = []
        trained = self.action_scheduler.train_shift
        sampled = self.sigma_shift or self.action_scheduler.infer_shift
        if None not in (trained, sampled) and trained != sampled:
            notes.append(
                f"lerobot samples it at action shift {sampled:g}, it was trained with {trained:g}, which is taken "
                f"here: pass --shift {sampled:g} to eval and serve to sample as lerobot does"
            )
        if self.num_inference_steps not in (None, USUAL.steps):
            notes.append(
                f"lerobot samples it with {self.num_inference_steps} denoising steps, the usual are {USUAL.steps}: "
                f"pass --steps {self.num_inference_steps} to eval and serve to sample as lerobot does"
            )
        return tuple(notes)


def of_lerobot(folder: Path) -> tuple[Scaling, Scaling, DeployRecipe, tuple[str, ...]]:
    """Scaling of state and action, how actions are sent, and what differs in sampling, of a lerobot folder."""
    before, after = (_read(ProcessorFile, folder / name) for name in (PREPROCESSOR, POSTPROCESSOR))
    config = _read(PolicyConfigFile, folder / "config.json")
    state = _affine(folder, before, "normalizer_processor", STATE, EPS)
    action = _affine(folder, after, "unnormalizer_processor", ACTION, 0.0)
    toggle = after.step("fastwam_action_toggle_processor")
    deploy = DeployRecipe(
        gripper_sign=toggle.config.toggle_dimensions if toggle else (), gripper_clip=(), execute=config.n_action_steps
    )
    return state, action, deploy, config.sampling_notes()


def _affine(folder: Path, processor: ProcessorFile, step: str, feature: str, eps: float) -> Scaling:
    """The affine map of a normalising step: mean and std, or least and greatest to -1 .. 1."""
    found = processor.step(step)
    if found is None or found.state_file is None:
        raise UsageError(f"{folder} has no {step} with statistics")
    kind = found.config.norm_map.get("STATE" if feature == STATE else "ACTION", "nothing")
    tensors: TensorFiles = checkpoint_tensors(folder / found.state_file)
    keys = {"MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99")}.get(kind)
    if keys is None or any(f"{feature}.{key}" not in tensors for key in keys):
        raise UsageError(f"{folder}: {step} normalises {feature} by {kind}, which is not known or lacks statistics")
    one, other = (tensors[f"{feature}.{key}"].double().numpy() for key in keys)
    if kind == "MEAN_STD":
        scale = 1 / (other + eps)
        offset = -one * scale
    else:
        scale = 2 / np.where(other == one, EPS, other - one)
        offset = -1 - one * scale
    names = tuple(f"{feature.rsplit('.', 1)[-1]}_{number}" for number in range(len(scale)))
    return _scaling(names, Normaliser(scale.astype(np.float32), offset.astype(np.float32)))


def _scaling(names: tuple[str, ...], found: Normaliser) -> Scaling:
    return Scaling(names=names, scale=tuple(found.scale.tolist()), offset=tuple(found.offset.tolist()))


def _read[M: BaseModel](model: type[M], path: Path) -> M:
    """A JSON file as a model. UsageError naming the file, and the key where a value does not fit."""
    return validate_model(model, _read_json(path), str(path))


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is not a JSON object")
    return found
