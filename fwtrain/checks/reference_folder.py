"""Folders of format `fwtrain-reference-v1`: what they hold, read and checked.

A folder holds a model description `config.json`, its weights under official names, one batch, and for every recorded
training variant and sampler the random draws that went in and the tensors that came out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from fwdata.encode.tensor_files import TensorFiles
from fwdata.errors import ManifestError, StoreDamaged, UsageError
from fwdata.manifest import validate_model
from fwtrain.batch import Batch
from fwtrain.model import (
    VARIANTS,
    Draws,
    FastWAM,
    Mode,
    ModelConfig,
    Variant,
    flow,
)
from fwtrain.model.config import recorded
from fwtrain.model.saving import load_exactly
from fwtrain.variants import COND_NOISE, MODE_SHARE

FORMAT = "fwtrain-reference-v1"
FRAMES_PER_LATENT = 4


@dataclass(frozen=True)
class RecordedScalars:
    """Numbers that were recorded of one training pass."""

    values: Mapping[str, float]
    """Losses and the total norm of the gradient, by name in SCALARS; what was not recorded is absent."""
    norms: Mapping[str, float]
    """Norm of every parameter's gradient by official name; empty: not recorded."""


class ReferenceFiles(BaseModel):
    """File names in the folder."""

    weights: str
    """The model's parameters, safetensors."""
    batch: str
    """The training batch, safetensors."""
    train: dict[str, str] = {}
    """Recorded training pass by name of the run, safetensors."""
    train_scalars: str | None = None
    """Recorded losses of all runs, JSON; None: not recorded."""
    infer: dict[str, str] = {}
    """Recorded sampling by name of the run, safetensors."""


class ReferenceSampling(BaseModel):
    """What the sampling runs share."""

    sample: int = Field(default=0, ge=0)
    """Row of the batch that was sampled."""


class ReferenceRun(BaseModel):
    """How one run was recorded, where its name alone does not say so."""

    mode: str | None = None
    """Of the sampler, spelled as upstream's (first_frame) or ours; None: as the run's name says, else the first."""
    video_cond_noise_prob: float | None = Field(default=None, ge=0, le=1)
    """Share of conditioning videos that were noised; None for the variant's default."""
    action_idm_prob: float | None = Field(default=None, ge=0, le=1)
    """Share of samples that saw the whole copy; None for the variant's default."""


class ReferenceDescription(BaseModel):
    """What config.json holds besides the model's sizes."""

    format: Literal["fwtrain-reference-v1"]
    """Version of the folder's layout."""
    dtype: Literal["float32"] = "float32"
    """Type of everything recorded."""
    files: ReferenceFiles
    """Where everything is."""
    infer: ReferenceSampling = ReferenceSampling()
    """What the sampling runs share."""
    runs: dict[str, ReferenceRun] = {}
    """How runs were recorded, by name; a run that is absent is recorded as its name says."""


class RecordedTensors(dict[str, Tensor]):
    """Tensors of one file; StoreDamaged for one that is needed and not there, or has another shape."""

    def __init__(self, path: Path) -> None:
        super().__init__(TensorFiles.open(path))
        self.path = path

    def __missing__(self, name: str) -> Tensor:
        raise StoreDamaged(f"{self.path} has no tensor {name!r}; record it again")

    def shaped(self, name: str, *shape: int | None) -> Tensor:
        """The tensor, float32 or bool; None stands for any length."""
        value = self[name]
        if len(value.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, value.shape, strict=True)):
            wanted = ", ".join("any" if n is None else str(n) for n in shape)
            raise StoreDamaged(f"{self.path}: {name} has shape {tuple(value.shape)}, expected ({wanted})")
        return value.float() if value.is_floating_point() else value.bool()

    def optional(self, name: str, *shape: int | None) -> Tensor | None:
        return self.shaped(name, *shape) if name in self else None


class ReferenceFolder:
    """An opened reference folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "config.json"
        if not self.path.is_file():
            raise UsageError(f"{folder} is not a reference folder: it has no config.json of format {FORMAT!r}")
        raw = _json_table(self.path)
        if raw.get("format") != FORMAT:
            raise UsageError(f"{self.path}: expected format {FORMAT!r}, found {raw.get('format')!r}")
        described = validate_model(ReferenceDescription, raw, str(self.path))
        sizes = {k: v for k, v in raw.items() if k in ModelConfig.model_fields}
        self.files, self.sample, self.runs = described.files, described.infer.sample, described.runs
        self.config = validate_model(ModelConfig, recorded(sizes), str(self.path))
        self.weights = self.tensors(self.files.weights)
        self.batch = _batch(self.tensors(self.files.batch), self.config)
        if self.sample >= len(self.batch):
            raise ManifestError(f"{self.path}: infer.sample {self.sample}, the batch has {len(self.batch)} samples")
        self.scalars = _json_table(self._file(self.files.train_scalars)) if self.files.train_scalars else {}

    def _file(self, name: str) -> Path:
        path = self.folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ManifestError(f"{self.path}: {name!r} must be a file in the folder itself")
        if not path.is_file():
            raise StoreDamaged(f"{path} is named by the reference's config.json and is missing; copy the folder again")
        return path

    def unlisted(self) -> list[str]:
        """Recordings beside the description that it does not list: nobody should take them for compared."""
        files = self.files
        listed = {files.weights, files.batch, files.train_scalars, *files.train.values(), *files.infer.values()}
        kinds = {".safetensors", ".npz", ".npy", ".pt"}
        return sorted(path.name for path in self.folder.iterdir() if path.suffix in kinds and path.name not in listed)

    def tensors(self, name: str) -> RecordedTensors:
        return RecordedTensors(self._file(name))

    def model(self, run: str) -> FastWAM:
        """The recorded weights as the variant of a run: its name, or what stands before the first "_" of it."""
        variant = run if run in VARIANTS else run.split("_")[0]
        if variant not in VARIANTS:
            raise ManifestError(f"{self.path}: run {run!r} is not of a variant; known: {', '.join(VARIANTS)}")
        told = self.runs.get(run, ReferenceRun())
        probabilities = {COND_NOISE: told.video_cond_noise_prob, MODE_SHARE: told.action_idm_prob}
        read = VARIANTS[variant].probabilities
        changes = {key: value for key, value in probabilities.items() if key in read and value is not None}
        model = FastWAM(self.config.replace(variant=variant, **changes), seed=None)
        load_exactly(model, self.weights, str(self.weights.path))
        return model

    def mode(self, run: str, rules: Variant) -> Mode:
        """How a sampling run samples: as config.json says, else as its name says after the variant's."""
        told = self.runs.get(f"infer {run}", ReferenceRun()).mode
        name = told.replace("_", "-") if told is not None else None
        if name is None:
            rest = run.removeprefix(rules.name).removeprefix("_")
            name = next((mode for mode in rules.mode_names if rest == mode or rest.startswith(f"{mode}-")), None)
        try:
            return rules.mode(name)
        except ValueError as error:
            raise ManifestError(f"{self.path}: run {run!r}: {error}") from None

    def recorded_scalars(self, run: str, suffix: str = "") -> RecordedScalars:
        """Of a training run, by its tensor file's name without `train_`; StoreDamaged for one that is not a number."""
        name = Path(self.files.train[run]).stem.removeprefix("train_") + suffix
        found = self.scalars.get(name, {})
        norms = found.get("grad_norms", {}) if isinstance(found, dict) else None
        if not isinstance(found, dict) or not isinstance(norms, dict):
            raise StoreDamaged(f"{self.folder / str(self.files.train_scalars)}: {name} is not a table; record it again")
        for key, value in {**found, **norms}.items():
            if (key in norms or key in SCALARS) and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise StoreDamaged(
                    f"{self.folder / str(self.files.train_scalars)}: {key} of {name} must be a number, found {value!r}"
                )
        return RecordedScalars({key: found[key] for key in SCALARS if key in found}, dict(norms))


SCALARS = ("loss_total", "loss_video", "loss_action", "grad_norm_total")


def _json_table(path: Path) -> dict[str, object]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path} must be a table of keys and values, found {type(data).__name__}")
    return data


def _batch(tensors: RecordedTensors, config: ModelConfig) -> Batch:
    """The recorded batch; a latent frame is padded iff all four of its video frames are."""
    channels, width = config.video_expert.in_channels, config.proprio_dim
    latents = tensors.shaped("latents", None, channels, *config.latent_grid)
    size, later = len(latents), config.latent_grid[0] - 1
    mask = tensors.optional("context_mask", size, None)
    if mask is not None and not bool(mask.all()):
        raise StoreDamaged(f"{tensors.path}: context_mask hides rows; Fast-WAM reads all of them, padding included")
    proprio = torch.zeros(size, 1)
    if width is not None:
        rows = (size, width) if tensors["proprio"].ndim == 2 else (size, None, width)
        proprio = tensors.shaped("proprio", *rows).view(size, -1, width)[:, 0]
    action = tensors.shaped("action", size, None, config.action_expert.action_dim)
    video_pad = tensors.optional("image_is_pad", size, 1 + FRAMES_PER_LATENT * later)
    action_pad = tensors.optional("action_is_pad", size, action.shape[1])
    if video_pad is None:
        video_pad = torch.zeros(size, 1 + FRAMES_PER_LATENT * later, dtype=torch.bool)
    return Batch(
        first=latents[:, :, 0],
        future=latents[:, :, 1:],
        future_is_pad=video_pad[:, 1:].view(size, later, FRAMES_PER_LATENT).all(2),
        context=tensors.shaped("context", size, None, config.video_expert.text_dim),
        proprio=proprio,
        action=action,
        action_is_pad=torch.zeros(action.shape[:2], dtype=torch.bool) if action_pad is None else action_pad,
    )


def recorded_draws(tensors: RecordedTensors, config: ModelConfig, batch: Batch) -> Draws:
    """Recorded draws; times are recorded as timesteps and mapped back to uniforms."""
    schedule, size, rules = config.schedule, len(batch), config.rules
    video = (size, config.video_expert.in_channels, *config.latent_grid)

    def uniform(name: str, shift: float) -> Tensor:
        sigma = tensors.shaped(name, size).double() / schedule.num_train_timesteps
        return flow.unshifted(sigma, shift).float()

    with_video, with_copy = rules.video_loss, rules.copy and "noise_video_cond" in tensors
    return Draws(
        noise_video=tensors.shaped("noise_video", *video) if with_video else None,
        u_video=uniform("timestep_video", schedule.video_shift) if with_video else None,
        noise_action=tensors.shaped("noise_action", *batch.action.shape),
        u_action=uniform("timestep_action", schedule.action_shift),
        cond_uniform=tensors.shaped("cond_uniform", size) if rules.copy else None,
        u_cond=uniform("timestep_video_cond_sampled", schedule.video_shift) if with_copy else None,
        noise_cond=tensors.shaped("noise_video_cond", *video) if with_copy else None,
        mode_uniform=tensors.shaped("idm_uniform", size) if len(rules.modes) > 1 else None,
    )
