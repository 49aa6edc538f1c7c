"""Compare this implementation with a recorded run of the official one (folders of format `fwtrain-reference-v1`).

A folder holds a model description `config.json`, its weights under official names, one batch, and for every recorded
training variant and sampler the random draws that went in and the tensors that came out. Of what may come out,
whatever is there is compared; names that are not known here are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fwdata.errors import StoreDamaged, UsageError
from fwtrain.batch import Batch
from fwtrain.checks.reference_folder import RecordedScalars, RecordedTensors, ReferenceFolder, recorded_draws
from fwtrain.model import (
    Denoising,
    Draws,
    FastWAM,
    Losses,
    ModelConfig,
    Noise,
    allowed,
    flow,
    loss_terms,
    losses,
    sample,
)

PREDICTION_RTOL, GRADIENT_RTOL, SAMPLE_ATOL, GRID_RTOL = 1e-4, 1e-3, 1e-4, 1e-6


@dataclass(frozen=True)
class ReferenceRow:
    """One comparison with a recorded quantity."""

    run: str
    """Name of the recorded run."""
    quantity: str
    """What was compared."""
    error: float
    """The largest |found - expected|, divided by the largest |expected| where the tolerance is relative; for several
    tensors the largest of theirs. Infinite for what this implementation has in no or another shape, NaN where one side
    is."""
    tolerance: float
    """Largest error that passes."""

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance


def check_reference(folder: Path | str) -> list[ReferenceRow]:
    """Every comparison the folder allows, float32 on the CPU, in seconds for a tiny model.

    Raises UsageError if the folder is not a reference of this format or records nothing, ManifestError for a wrong
    description, StoreDamaged if a file of it cannot be read, lacks what a run needs or does not fit the description.
    """
    reference = ReferenceFolder(Path(folder))
    rows: list[ReferenceRow] = []
    for run in reference.files.train:
        rows += _training_rows(reference, run)
    for run in reference.files.infer:
        rows += _sampling_rows(reference, run)
    if not rows:
        raise UsageError(f"{folder} records no training step and no sampling run: there is nothing to compare")
    return rows


def not_compared(folder: Path | str) -> list[str]:
    """Recordings in the folder that its description does not list."""
    return ReferenceFolder(Path(folder)).unlisted()


def _relative(found: Tensor | None, expected: Tensor) -> float:
    """Largest difference over largest expected value."""
    scale = float(expected.double().abs().max()) if expected.numel() else 0.0
    difference = _absolute(found, expected)
    return difference / scale if scale else difference


def _absolute(found: Tensor | None, expected: Tensor) -> float:
    """Largest difference; infinite for another shape or nothing."""
    if found is None or found.shape != expected.shape or not expected.numel():
        return float("inf")
    return float((found.double() - expected.double()).abs().max())


def _training_rows(reference: ReferenceFolder, run: str) -> Iterator[ReferenceRow]:
    """One recorded training step against ours."""
    expected, model, batch, title = (
        reference.tensors(reference.files.train[run]),
        reference.model(run),
        reference.batch,
        f"train {run}",
    )
    draws = recorded_draws(expected, model.config, batch)
    frames, tokens, actions = model.config.latent_grid[0], model.config.tokens_per_frame, batch.action.shape[1]
    if "attention_mask" in expected:
        masks = [
            torch.from_numpy(allowed(model.config.variant, "train", frames, tokens, actions, mode))
            for mode in model.config.rules.mode_names
        ]
        mask = masks[0] if draws.mode_uniform is None else torch.stack([masks[int(i)] for i in _modes(model, draws)])
        yield ReferenceRow(title, "attention_mask", _absolute(mask, expected["attention_mask"]), 0.0)
    with torch.no_grad():
        terms = loss_terms(model, batch, draws, all_frames=True)
    found = {
        "pred_action": terms.pred_action,
        "loss_action_per_sample": terms.action_per_sample,
        "weight_action": terms.action_weight,
    }
    if terms.pred_video is not None and terms.video_per_sample is not None and terms.video_weight is not None:
        found["pred_video"] = model.video.unpatchify(terms.pred_video, *batch.first.shape[2:])
        found["loss_video_per_sample"], found["weight_video"] = terms.video_per_sample, terms.video_weight
    found |= _conditioning(model.config, draws)
    if draws.mode_uniform is not None:
        found["action_sees_full_copy"] = ~_modes(model, draws)
    for name, value in found.items():
        if name in expected:
            yield ReferenceRow(title, name, _relative(value, expected[name]), PREDICTION_RTOL)
    yield from _loss_rows(title, model, batch, draws, expected, reference.recorded_scalars(run))
    unpadded = replace(
        batch,
        future_is_pad=torch.zeros(len(batch), frames - 1, dtype=torch.bool),
        action_is_pad=torch.zeros_like(batch.action_is_pad),
    )
    scalars = reference.recorded_scalars(run, "_nopad")
    if scalars.values or scalars.norms:
        yield from _loss_rows(f"{title}, no padding", model, unpadded, draws, {}, scalars)


def _modes(model: FastWAM, draws: Draws) -> Tensor:
    """bool [B]: False for samples trained in the variant's first mode, True for those in its second."""
    if draws.mode_uniform is None or model.config.action_idm_prob is None:
        raise ValueError(f"variant {model.config.variant!r} has one mode")
    return draws.mode_uniform >= model.config.action_idm_prob


def _conditioning(config: ModelConfig, draws: Draws) -> dict[str, Tensor]:
    """Which conditioning videos are noised, and their timesteps."""
    if draws.cond_uniform is None:
        return {}
    chosen, schedule = draws.cond_uniform < config.cond_noise_prob, config.schedule
    times = torch.zeros_like(draws.cond_uniform)
    if draws.u_cond is not None:
        times = flow.shifted(draws.u_cond, schedule.video_shift) * schedule.num_train_timesteps * chosen
    return {"cond_is_noised": chosen, "timestep_video_cond": times}


def _loss_rows(
    title: str, model: FastWAM, batch: Batch, draws: Draws, expected: dict[str, Tensor], scalars: RecordedScalars
) -> Iterator[ReferenceRow]:
    """Loss totals, gradient tensors and gradient norms."""
    model.zero_grad()
    found: Losses = losses(model, batch, draws)
    found.total.backward()  # type: ignore[no-untyped-call]
    parameters = dict(model.named_parameters())
    gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()}
    for name, value in expected.items():
        if name.startswith("grad."):
            yield ReferenceRow(title, name, _relative(gradients.get(name.removeprefix("grad.")), value), GRADIENT_RTOL)
    for name, value in (("loss_total", found.total), ("loss_video", found.video), ("loss_action", found.action)):
        if name in scalars.values:
            expected_loss = torch.tensor(scalars.values[name])
            yield ReferenceRow(title, name, _relative(value.detach(), expected_loss), PREDICTION_RTOL)
    norms = {name: gradient.double().norm() for name, gradient in gradients.items()}
    total = torch.stack(list(norms.values())).norm()
    if "grad_norm_total" in scalars.values:
        expected_norm = torch.tensor(scalars.values["grad_norm_total"])
        yield ReferenceRow(title, "grad_norm_total", _relative(total, expected_norm), GRADIENT_RTOL)
    recorded = scalars.norms
    if recorded:
        errors = torch.tensor([_norm_error(norms, name, value, float(total)) for name, value in recorded.items()])
        yield ReferenceRow(title, f"grad_norms ({len(recorded)} parameters)", float(errors.max()), GRADIENT_RTOL)


def _norm_error(norms: dict[str, Tensor], name: str, value: float, total: float) -> float:
    """Relative error of one gradient norm; norms below 1e-6 of the total are round-off and compared with the total."""
    if name not in norms:
        return float("inf")
    return abs(float(norms[name]) - value) / (value if value > 1e-6 * total else total)


_CACHE, _VIDEO_STEP = re.compile(r"kv_cache\.(\d+)\.([kv])"), re.compile(r"velocity_video_step(\d+)")


def _sampling_rows(reference: ReferenceFolder, run: str) -> Iterator[ReferenceRow]:
    """One recorded sampling run against ours."""
    expected, model, batch = reference.tensors(reference.files.infer[run]), reference.model(run), reference.batch
    config, rows = model.config, slice(reference.sample, reference.sample + 1)
    steps = len(expected.shaped("timesteps_action", None))
    mode, shift = reference.mode(run, config.rules), _shift_of(expected, config)
    seen: dict[tuple[str, int], Tensor] = {}

    def observe(name: str, index: int, value: Tensor) -> None:
        seen[name, index] = value.clone()

    noise_video = (1, config.video_expert.in_channels, *config.latent_grid)
    with_video = any("video" in name for name in expected)
    needs_video = with_video or mode.sampler != "first-frame"
    noise = Noise(
        action=expected.shaped("init_noise_action", 1, *batch.action.shape[1:]),
        video=expected.shaped("init_noise_video", *noise_video) if needs_video else None,
    )
    how = Denoising(steps=steps, mode=mode.name, video_shift=shift, action_shift=shift)
    result = sample(
        model, batch.first[rows], batch.context[rows], batch.proprio[rows], noise, how,
        video=with_video, observe=observe,
    )  # fmt: skip
    title = f"infer {run}"
    yield from _grid_rows(title, expected, config, shift)
    for name, value in expected.items():
        cache, step = _CACHE.fullmatch(name), _VIDEO_STEP.fullmatch(name)
        if cache:
            kept = seen.get((f"cache_{cache[2]}", int(cache[1])))
            # ours holds the first frame last
            official = None if kept is None else kept.roll(config.tokens_per_frame, 1).flatten(2)
            yield ReferenceRow(title, name, _relative(official, value), PREDICTION_RTOL)
        elif step:  # frame 0 is overwritten after every step
            yield ReferenceRow(
                title, name, _absolute(seen.get(("velocity_video", int(step[1]))), value[:, :, 1:]), SAMPLE_ATOL
            )
    found = {
        "velocity_action_steps": torch.stack([seen["velocity_action", i][0] for i in range(steps)]),
        "action_after_step": torch.stack([seen["action", i][0] for i in range(steps)]),
        "action": result.action[0],
        "final_video_latents": result.latents,
    }
    for name, tensor in found.items():
        if name in expected:
            yield ReferenceRow(title, name, _absolute(tensor, expected[name]), SAMPLE_ATOL)


def _grid_rows(
    title: str, expected: RecordedTensors, config: ModelConfig, shift: float | None
) -> Iterator[ReferenceRow]:
    schedule = config.schedule
    for stream, own in (("action", schedule.action_shift), ("video", schedule.video_shift)):
        if f"timesteps_{stream}" in expected:
            steps = len(expected.shaped(f"timesteps_{stream}", None))
            grid = flow.euler_grid(steps, shift or own, schedule.num_train_timesteps)
            for name, value in ((f"timesteps_{stream}", grid.timesteps), (f"deltas_{stream}", grid.deltas)):
                if name in expected:
                    yield ReferenceRow(title, name, _relative(value, expected[name]), GRID_RTOL)


def _shift_of(expected: RecordedTensors, config: ModelConfig) -> float | None:
    """The shift that recorded grids have in place of the configured ones; None where each has its own.

    Of every recorded grid: an override may be equal to the configured shift of one stream and not of the other.
    """
    schedule = config.schedule
    for stream, own in (("action", schedule.action_shift), ("video", schedule.video_shift)):
        if stream == "action" or f"timesteps_{stream}" in expected:
            found = _grid_shift(expected, f"timesteps_{stream}", own, schedule.num_train_timesteps)
            if found != own:
                return found
    return None


def _grid_shift(expected: RecordedTensors, name: str, own: float, timesteps: int) -> float:
    """The shift of one recorded grid, from its second timestep; `own` where it is the configured grid."""
    found = expected.shaped(name, None).double()
    steps = len(found)
    if not steps:
        raise StoreDamaged(f"{expected.path}: {name} is empty; record it again")
    if steps == 1 or torch.allclose(found, flow.euler_grid(steps, own, timesteps).timesteps.double(), rtol=1e-5):
        return own
    sigma, u = float(found[1]) / timesteps, 1.0 - 1.0 / steps
    if not 0 < sigma < 1:
        raise StoreDamaged(
            f"{expected.path}: {name} is not a grid of {steps} steps over {timesteps} timesteps, its second is "
            f"{float(found[1]):g}; record it again"
        )
    return round(sigma * (1.0 - u) / (u * (1.0 - sigma)), 4)
