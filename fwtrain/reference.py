"""Compare this implementation with a recorded run of the official one (folders of format `fwtrain-reference-v1`).

A folder holds a model description `config.json`, its weights under official names, one batch, and for every recorded
training variant and sampler the random draws that went in and the tensors that came out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fwdata.errors import StoreDamaged, UsageError
from fwdata.manifest import validate_model
from fwtrain.batch import Batch
from fwtrain.model import flow
from fwtrain.model.config import ModelConfig
from fwtrain.model.draws import Draws
from fwtrain.model.fastwam import FastWAM
from fwtrain.model.saving import load_exactly, read_safetensors
from fwtrain.model.variants import allowed

FORMAT = "fwtrain-reference-v1"
FRAMES_PER_LATENT = 4
PREDICTION_RTOL, GRADIENT_RTOL, SAMPLE_ATOL = 1e-4, 1e-3, 1e-4


@dataclass(frozen=True)
class Row:
    """One comparison. error: the largest |found - expected|, divided by the largest |expected| where the tolerance is
    relative; for several tensors the largest of theirs."""

    run: str
    quantity: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance


def check_reference(folder: Path | str) -> list[Row]:
    """Every comparison the folder allows, float32 on the CPU, in seconds for a tiny model.

    Raises UsageError if the folder is not a reference of this format, StoreDamaged if a file of it cannot be read or
    its weights do not fit its description.
    """
    reference = _Reference(Path(folder))
    rows: list[Row] = []
    for variant in reference.files["train"]:
        rows += _training_rows(reference, variant)
    for run in reference.files.get("infer", {}):
        rows += _sampling_rows(reference, run)
    return rows


class _Reference:
    """An opened reference folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "config.json"
        if not path.is_file():
            raise UsageError(f"{folder} is not a reference folder: it has no config.json of format {FORMAT!r}")
        try:
            self.raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise UsageError(f"{path} is not valid JSON: {error}") from None
        if self.raw.get("format") != FORMAT:
            raise UsageError(f"{path}: expected format {FORMAT!r}, found {self.raw.get('format')!r}")
        self.files: dict[str, Any] = self.raw["files"]
        self.config = validate_model(
            ModelConfig, {k: v for k, v in self.raw.items() if k in ModelConfig.model_fields}, str(path)
        )
        self.weights = self.tensors(self.files["weights"])
        self.batch = _batch(self.tensors(self.files["batch"]))
        scalars = self.files.get("train_scalars")
        self.scalars: dict[str, Any] = json.loads((folder / scalars).read_text(encoding="utf-8")) if scalars else {}

    def tensors(self, name: str) -> dict[str, Tensor]:
        path = self.folder / name
        if not path.is_file():
            raise StoreDamaged(f"{path} is named by the reference's config.json and is missing; copy the folder again")
        return read_safetensors(path)

    def model(self, variant: str) -> FastWAM:
        model = FastWAM(self.config.replace(variant=variant), seed=None)
        load_exactly(model, self.weights, self.files["weights"])
        return model


def _batch(tensors: dict[str, Tensor]) -> Batch:
    """The recorded batch; a latent frame is padded iff all four of its video frames are."""
    latents, video_pad = tensors["latents"], tensors["image_is_pad"]
    return Batch(
        first=latents[:, :, 0],
        future=latents[:, :, 1:],
        future_is_pad=video_pad[:, 1:].view(len(latents), -1, FRAMES_PER_LATENT).all(2),
        context=tensors["context"],
        proprio=tensors["proprio"][:, 0],
        action=tensors["action"],
        action_is_pad=tensors["action_is_pad"],
    )


def _draws(tensors: dict[str, Tensor], config: ModelConfig) -> Draws:
    """Recorded draws; times are recorded as timesteps and mapped back to uniforms."""
    schedule = config.schedule

    def uniform(name: str, shift: float) -> Tensor | None:
        if name not in tensors:
            return None
        return flow.unshifted(tensors[name].double() / schedule.num_train_timesteps, shift).float()

    u_action = uniform("timestep_action", schedule.action_shift)
    if u_action is None:
        raise StoreDamaged("the reference's training file has no timestep_action; record it again")
    return Draws(
        noise_video=tensors.get("noise_video"),
        u_video=uniform("timestep_video", schedule.video_shift),
        noise_action=tensors["noise_action"],
        u_action=u_action,
        cond_uniform=tensors.get("cond_uniform"),
        u_cond=uniform("timestep_video_cond_sampled", schedule.video_shift),
        noise_cond=tensors.get("noise_video_cond"),
    )


def _relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference over largest expected value; infinite for another shape."""
    if found.shape != expected.shape:
        return float("inf")
    scale = float(expected.double().abs().max())
    difference = float((found.double() - expected.double()).abs().max())
    return difference / scale if scale else difference


def _absolute(found: Tensor, expected: Tensor) -> float:
    """Largest difference; infinite for another shape."""
    return float((found.double() - expected.double()).abs().max()) if found.shape == expected.shape else float("inf")


def _training_rows(reference: _Reference, variant: str) -> Iterator[Row]:
    """One recorded training step against ours."""
    expected = reference.tensors(reference.files["train"][variant])
    model, batch, run = reference.model(variant), reference.batch, f"train {variant}"
    draws = _draws(expected, model.config)
    frames, tokens, actions = model.config.latent_grid[0], model.config.tokens_per_frame, batch.action.shape[1]
    if "attention_mask" in expected:
        mask = torch.from_numpy(allowed(variant, "train", frames, tokens, actions))
        yield Row(run, "attention_mask", _absolute(mask, expected["attention_mask"]), 0.0)
    found: dict[str, Tensor | None] = {}
    with torch.no_grad():
        terms = model.training_terms(batch, draws, all_frames=True)
    height, width = batch.first.shape[2:]
    found["pred_action"], found["loss_action_per_sample"] = terms.pred_action, terms.action_per_sample
    found["weight_action"], found["weight_video"] = terms.action_weight, terms.video_weight
    found["loss_video_per_sample"] = terms.video_per_sample
    if terms.pred_video is not None:
        found["pred_video"] = model.video.unpatchify(terms.pred_video, height, width)
    for name, value in found.items():
        if value is not None and name in expected:
            yield Row(run, name, _relative(value, expected[name]), PREDICTION_RTOL)
    yield from _loss_rows(reference, variant, model, batch, draws, expected)
    yield from _unpadded_rows(reference, variant, model, batch, draws)


def _loss_rows(
    reference: _Reference, variant: str, model: FastWAM, batch: Batch, draws: Draws, expected: dict[str, Tensor]
) -> Iterator[Row]:
    """Loss totals, gradient tensors and gradient norms."""
    run = f"train {variant}"
    losses = model.training_losses(batch, draws)
    losses.total.backward()  # type: ignore[no-untyped-call]
    parameters = dict(model.named_parameters())
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()}
    for name, value in expected.items():
        if name.startswith("grad."):
            yield Row(run, name, _relative(gradients[name.removeprefix("grad.")], value), GRADIENT_RTOL)
    scalars = reference.scalars.get(_record_name(reference, variant), {})
    for name, value in (("loss_total", losses.total), ("loss_video", losses.video), ("loss_action", losses.action)):
        if name in scalars:
            yield Row(run, name, _relative(value.detach(), torch.tensor(scalars[name])), PREDICTION_RTOL)
    norms = {name: gradient.double().norm() for name, gradient in gradients.items()}
    if "grad_norm_total" in scalars:
        total = torch.stack(list(norms.values())).norm()
        yield Row(run, "grad_norm_total", _relative(total, torch.tensor(scalars["grad_norm_total"])), GRADIENT_RTOL)
    recorded = scalars.get("grad_norms", {})
    if recorded:
        errors = [_norm_error(norms, name, value, scalars["grad_norm_total"]) for name, value in recorded.items()]
        yield Row(run, f"grad_norms ({len(recorded)} parameters)", max(errors), GRADIENT_RTOL)


def _unpadded_rows(reference: _Reference, variant: str, model: FastWAM, batch: Batch, draws: Draws) -> Iterator[Row]:
    """Losses of the same step with nothing padded, where they were recorded."""
    scalars = reference.scalars.get(f"{_record_name(reference, variant)}_nopad", {})
    if not scalars or batch.future_is_pad is None:
        return
    whole = replace(
        batch,
        future_is_pad=torch.zeros_like(batch.future_is_pad),
        action_is_pad=torch.zeros_like(batch.action_is_pad),
    )
    with torch.no_grad():
        losses = model.training_losses(whole, draws)
    for name, value in (("loss_video", losses.video), ("loss_action", losses.action)):
        if name in scalars:
            yield Row(
                f"train {variant}, no padding", name, _relative(value, torch.tensor(scalars[name])), PREDICTION_RTOL
            )


def _record_name(reference: _Reference, variant: str) -> str:
    """A training run's key in the scalars file: its tensor file's name without `train_` and suffix."""
    return Path(reference.files["train"][variant]).stem.removeprefix("train_")


def _norm_error(norms: dict[str, Tensor], name: str, value: float, total: float) -> float:
    """Relative error of one gradient norm; norms below 1e-6 of the total are round-off and compared with the total."""
    if name not in norms:
        return float("inf")
    return abs(float(norms[name]) - value) / (value if value > 1e-6 * total else total)


def _sampling_rows(reference: _Reference, run: str) -> Iterator[Row]:
    """One recorded sampling run against ours."""
    expected = reference.tensors(reference.files["infer"][run])
    variant = run if run in reference.files["train"] else run.split("_")[0]
    model, batch = reference.model(variant), reference.batch
    sample = int(reference.raw.get("infer", {}).get("sample", 0))
    rows = slice(sample, sample + 1)
    steps = len(expected["timesteps_action"])
    shift = _shift_of(expected, steps, model.config)
    seen: dict[tuple[str, int], Tensor] = {}

    def observe(name: str, index: int, value: Tensor) -> None:
        seen[name, index] = value.clone()

    result = model.sample(
        batch.first[rows], batch.context[rows], batch.proprio[rows], steps=steps, shift=shift,
        noise=expected["init_noise_action"], noise_video=expected.get("init_noise_video"),
        video="final_video_latents" in expected, observe=observe,
    )  # fmt: skip
    title = f"infer {run}"
    grid = flow.euler_grid(steps, shift, model.config.schedule.num_train_timesteps)
    for stream in ("action", "video"):
        for name, value in (("timesteps", grid.timesteps), ("deltas", grid.deltas)):
            if f"{name}_{stream}" in expected:
                yield Row(title, f"{name}_{stream}", _relative(value, expected[f"{name}_{stream}"]), 1e-6)
    for i in range(model.config.video_expert.num_layers):
        for part in ("k", "v"):
            if f"kv_cache.{i}.{part}" in expected:
                error = _relative(seen[f"cache_{part}", i].flatten(2), expected[f"kv_cache.{i}.{part}"])
                yield Row(title, f"kv_cache.{i}.{part}", error, PREDICTION_RTOL)
    velocities = torch.stack([seen["velocity_action", i][0] for i in range(steps)])
    actions = torch.stack([seen["action", i][0] for i in range(steps)])
    yield Row(title, "velocity_action_steps", _absolute(velocities, expected["velocity_action_steps"]), SAMPLE_ATOL)
    yield Row(title, "action_after_step", _absolute(actions, expected["action_after_step"]), SAMPLE_ATOL)
    yield Row(title, "action", _absolute(result.action[0], expected["action"]), SAMPLE_ATOL)
    yield from _video_rows(title, expected, seen, result.latents)


def _video_rows(
    title: str, expected: dict[str, Tensor], seen: dict[tuple[str, int], Tensor], latents: Tensor | None
) -> Iterator[Row]:
    """Recorded video velocities (later frames; frame 0 is overwritten) and the final latents."""
    for name, value in expected.items():
        if name.startswith("velocity_video_step"):
            found = seen["velocity_video", int(name.removeprefix("velocity_video_step"))]
            yield Row(title, name, _absolute(found, value[:, :, 1:]), SAMPLE_ATOL)
    if latents is not None:
        yield Row(title, "final_video_latents", _absolute(latents, expected["final_video_latents"]), SAMPLE_ATOL)


def _shift_of(expected: dict[str, Tensor], steps: int, config: ModelConfig) -> float:
    """The shift of a recorded grid, from its second timestep (the configured one for a single step)."""
    if steps < 2:
        return config.schedule.action_shift
    sigma = float(expected["timesteps_action"][1]) / config.schedule.num_train_timesteps
    u = 1.0 - 1.0 / steps
    return round(sigma * (1.0 - u) / (u * (1.0 - sigma)), 4)
