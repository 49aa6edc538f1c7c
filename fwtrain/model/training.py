"""The training step of Fast-WAM: noising, predictions, and losses per sample.

Source: training_loss of src/fastwam/models/wan22/{fastwam,fastwam_joint,fastwam_idm,fastwam_optional_idm}.py of the
official release.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fwtrain.batch import Batch
from fwtrain.model import flow
from fwtrain.model.blocks import KeyValue
from fwtrain.model.draws import Draws
from fwtrain.model.experts import Times
from fwtrain.model.rope import action_table, video_table
from fwtrain.model.text import Text
from fwtrain.variants import Frames, Mode

if TYPE_CHECKING:
    from fwtrain.model.fastwam import FastWAM


class Losses(NamedTuple):
    """Scalar float32 losses of a batch."""

    total: Tensor
    """Sum of both."""
    video: Tensor
    """Video loss with its lambda; 0 without co-training."""
    action: Tensor
    """Action loss with its lambda."""


@dataclass(frozen=True)
class Terms:
    """What the losses are made of, per sample, before lambda and the batch mean."""

    pred_action: Tensor
    """[B, A, a], predicted velocity."""
    action_per_sample: Tensor
    """float32 [B], loss before its weight."""
    action_weight: Tensor
    """float32 [B], weight of the timestep."""
    pred_video: Tensor | None = None
    """Head output [B, f, n, rows * columns * C] of the later frames, or of all frames in their order in time if they
    were asked for; None without co-training."""
    video_per_sample: Tensor | None = None
    """float32 [B], loss before its weight; None without co-training."""
    video_weight: Tensor | None = None
    """float32 [B], weight of the timestep; None without co-training."""


@dataclass(frozen=True)
class VideoInputs:
    """A video pass."""

    patches: Tensor
    """[B, G, n, C * P], in model order."""
    frames: Frames
    """Latent frames of each group."""
    times: Times
    """Time embeddings per frame, [B or 1, G, ...]."""
    target: Tensor | None = None
    """Target velocity of the noised future in patches [B, F - 1, n, C * P]; None where there is none."""
    timestep: Tensor | None = None
    """[B], timestep of the noised future; None where there is none."""


def losses(model: FastWAM, batch: Batch, draws: Draws) -> Losses:
    """Losses of one step; nothing waits for the device. Future tokens are not computed where nothing uses them.

    Raises ValueError if the variant needs future latents or draws that are not given, or shapes do not fit.
    """
    return losses_of(model, loss_terms(model, batch, draws))


def losses_of(model: FastWAM, terms: Terms) -> Losses:
    """Batch means with weights and lambdas."""
    config = model.config
    action = config.lambda_action * (terms.action_per_sample * terms.action_weight).mean()
    if terms.video_per_sample is None or terms.video_weight is None:
        return Losses(action, torch.zeros_like(action), action)
    video = config.lambda_video * (terms.video_per_sample * terms.video_weight).mean()
    return Losses(video + action, video, action)


def loss_terms(model: FastWAM, batch: Batch, draws: Draws, *, all_frames: bool = False) -> Terms:
    """Predictions and per-sample losses; `all_frames` also computes frame 0's unused output, for comparisons.

    Samples of a variant with two modes go through the model in a pass for each mode: those that see the first frame
    alone need no copy, and every sample's values are those of a batch of its own mode. Errors as of `losses`.
    """
    _check(model, batch)
    parts = _parts(model, draws)
    draws = draws.to(model.device)
    made = []
    for part in parts:
        if part.rows is None:
            made.append(_mode_terms(model, part.mode, batch, draws, all_frames))
            continue
        rows = part.rows.to(model.device, non_blocking=True)  # indexing by a tensor of the CPU would wait for the GPU
        made.append(_mode_terms(model, part.mode, batch.rows(rows), draws.rows(rows), all_frames))
    return made[0] if len(made) == 1 else _joined(parts, made)


@dataclass(frozen=True)
class _Part:
    """Samples of one mode. rows: int64 on the CPU, None for all. idle: the pass is there for the other processes."""

    mode: Mode
    rows: Tensor | None = None
    idle: bool = False


def _parts(model: FastWAM, draws: Draws) -> list[_Part]:
    """Which samples are trained in which mode. Looks at the uniforms where they are; on the CPU nothing is waited for.

    Processes that share layers have to call them equally often: where a batch has samples of one mode only, the first
    of them goes through the other mode too, with weight 0.
    """
    modes, share = model.config.rules.modes, model.config.action_idm_prob
    if len(modes) == 1 or share is None:
        return [_Part(modes[0])]
    if draws.mode_uniform is None:
        raise ValueError(f"variant {model.config.variant!r} needs mode_uniform, the draws have none")
    bound = float(np.float32(share))  # the comparison of float32 numbers
    first = [uniform < bound for uniform in draws.mode_uniform.tolist()]
    rows = [[i for i, is_first in enumerate(first) if is_first is wanted] for wanted in (True, False)]
    found = [_Part(mode, torch.tensor(chosen, dtype=torch.int64)) for mode, chosen in zip(modes, rows, strict=True)]
    held = [part for part in found if part.rows is not None and len(part.rows)]
    if len(held) == len(found):
        return found
    parts = [_Part(held[0].mode)]
    if model.sharded and 0 < share < 1:
        parts.append(
            _Part(next(mode for mode in modes if mode != held[0].mode), torch.zeros(1, dtype=torch.int64), True)
        )
    return parts


def _joined(parts: list[_Part], made: list[Terms]) -> Terms:
    """The terms of all samples in their order."""
    if parts[-1].idle:
        whole, idle = made
        video = None
        if whole.video_per_sample is not None and idle.video_per_sample is not None:
            video = whole.video_per_sample + 0 * idle.video_per_sample
        return replace(
            whole, action_per_sample=whole.action_per_sample + 0 * idle.action_per_sample, video_per_sample=video
        )
    order = torch.cat([part.rows for part in parts if part.rows is not None]).argsort()
    back = order.to(made[0].pred_action.device, non_blocking=True)

    def sorted_back(pieces: list[Tensor | None]) -> Tensor | None:
        found = [piece for piece in pieces if piece is not None]
        return torch.cat(found)[back] if found else None

    return Terms(
        pred_action=torch.cat([terms.pred_action for terms in made])[back],
        action_per_sample=torch.cat([terms.action_per_sample for terms in made])[back],
        action_weight=torch.cat([terms.action_weight for terms in made])[back],
        pred_video=sorted_back([terms.pred_video for terms in made]),
        video_per_sample=sorted_back([terms.video_per_sample for terms in made]),
        video_weight=sorted_back([terms.video_weight for terms in made]),
    )


def _mode_terms(model: FastWAM, mode: Mode, batch: Batch, draws: Draws, all_frames: bool) -> Terms:
    """`loss_terms` of samples that are all trained in one mode."""
    config = model.config
    wanted = config.rules.video_loss and config.lambda_video > 0 and not model.video_frozen
    co_training = wanted and batch.future is not None
    context = model.full_context(batch.context, batch.proprio, batch.text_rows)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not model.video_frozen):
        inputs = video_inputs(model, batch, draws, noisy=co_training or "future" in mode.sees, copy=mode.copy)
        keep = inputs.frames.future + int(all_frames) if co_training else 0
        hidden, cache = model.video(
            model.video.embed(inputs.patches),
            inputs.times.projected,
            model.video.text(context),
            rope_of(model, inputs.frames, batch.first),
            inputs.frames,
            inputs.frames.span(mode.sees),
            keep,
        )
    terms = action_terms(model, batch, draws, context, cache)
    return video_terms(model, batch, inputs, hidden, terms) if co_training else terms


def _check(model: FastWAM, batch: Batch) -> None:
    """ValueError in one sentence for a batch that this model cannot read."""
    config, future = model.config, batch.future
    if config.rules.needs_future and future is None:
        raise ValueError(f"variant {config.variant!r} needs future latents, this batch has none")
    found = {
        "latent channels": (batch.first.shape[1], config.video_expert.in_channels),
        "text width": (batch.context.shape[-1], config.video_expert.text_dim),
        "action width": (batch.action.shape[-1], config.action_expert.action_dim),
        "proprioception width": (batch.proprio.shape[-1], config.proprio_dim or batch.proprio.shape[-1]),
    }
    for what, (has, needs) in found.items():
        if has != needs:
            raise ValueError(f"the model has {what} {needs}, this batch has {has}")


def rope_of(model: FastWAM, frames: Frames, first: Tensor) -> Tensor:
    """The rotation table of a video pass over latents shaped like first [B, C, h, w]."""
    later = tuple(range(1, 1 + max(frames.future, frames.copy)))
    positions = later[: frames.future] + (0,) * frames.first + later[: frames.copy]
    config = model.config.video_expert
    rows, columns = first.shape[2] // config.patch_size[1], first.shape[3] // config.patch_size[2]
    return video_table(positions, rows, columns, config.head_dim, first.device)


def video_inputs(model: FastWAM, batch: Batch, draws: Draws, *, noisy: bool, copy: bool) -> VideoInputs:
    """The video tokens of a training step: the noised future if `noisy`, frame 0, the conditioning copy if `copy`."""
    video, schedule = model.video, model.config.schedule
    parts, steps, counts = [video.patchify(batch.first.float().unsqueeze(2))], [], Frames(0)
    zero = torch.zeros(1, device=batch.first.device, dtype=schedule.dtype)
    target = timestep = None
    future = None if batch.future is None else video.patchify(batch.future.float())
    if noisy:
        if draws.noise_video is None or draws.u_video is None or future is None:
            raise ValueError("this step needs video noise and times, the draws have none")
        sigma, timestep = flow.training_times(
            draws.u_video, schedule.video_shift, schedule.num_train_timesteps, schedule.dtype
        )
        x, target = flow.noised(future, video.patchify(draws.noise_video[:, :, 1:]), sigma)
        parts.insert(0, x)
        steps.append(timestep)
        counts = replace(counts, future=x.shape[1])
    steps.append(zero)
    if copy:
        condition, when = _conditioning(model, future, draws)
        parts.append(condition)
        steps.append(when)
        counts = replace(counts, copy=condition.shape[1])
    times = spread(video.times(torch.cat(steps)), [len(step) for step in steps], [part.shape[1] for part in parts])
    patches = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return VideoInputs(patches, counts, times, target, timestep)


def _conditioning(model: FastWAM, future: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor]:
    """The conditioning copy [B, F - 1, n, C * P] of the later frames, noised for some samples, and its times [B]."""
    if draws.cond_uniform is None or future is None:
        raise ValueError(f"variant {model.config.variant!r} needs conditioning draws and future latents")
    schedule = model.config.schedule
    if draws.u_cond is None or draws.noise_cond is None:
        return future, torch.zeros_like(draws.cond_uniform, dtype=schedule.dtype)
    chosen = draws.cond_uniform < model.config.cond_noise_prob
    sigma, timestep = flow.training_times(
        draws.u_cond, schedule.video_shift, schedule.num_train_timesteps, schedule.dtype
    )
    noised, _ = flow.noised(future, model.video.patchify(draws.noise_cond[:, :, 1:]), sigma * chosen)
    return noised, timestep * chosen


def spread(times: Times, rows: list[int], frames: list[int]) -> Times:
    """Rows of timesteps to frames: part i has rows[i] timesteps (B, or 1 for all), each held by frames[i] frames.

    Returns embedded [B or 1, G, D] and projected [B or 1, G, 6, D].
    """
    size = max(rows)

    def assemble(values: Tensor) -> Tensor:
        parts = torch.split(values, rows)
        wide = [
            part.unsqueeze(1).expand(size, count, *part.shape[1:]) for part, count in zip(parts, frames, strict=True)
        ]
        return wide[0] if len(wide) == 1 else torch.cat(wide, 1)

    return Times(assemble(times.embedded), assemble(times.projected))


def action_terms(model: FastWAM, batch: Batch, draws: Draws, context: Text, cache: list[KeyValue]) -> Terms:
    """The action expert's prediction and loss."""
    schedule, action = model.config.schedule, batch.action.float()
    sigma, timestep = flow.training_times(
        draws.u_action, schedule.action_shift, schedule.num_train_timesteps, schedule.dtype
    )
    noisy, target = flow.noised(action, draws.noise_action, sigma)
    expert = model.action
    table = action_table(action.shape[1], model.config.action_expert.head_dim, action.device)
    time = expert.times(timestep).projected.unsqueeze(1)
    pred = expert(noisy, time, expert.text(context), table, cache)
    error = (pred.float() - target).square().mean(2)
    weight = flow.loss_weight(timestep, schedule.action_shift, schedule.num_train_timesteps)
    return Terms(pred, _mean_valid(error, batch.action_is_pad), weight)


def video_terms(model: FastWAM, batch: Batch, inputs: VideoInputs, hidden: Tensor, terms: Terms) -> Terms:
    """`terms` with the video prediction and loss of the later frames."""
    schedule, later = model.config.schedule, inputs.frames.future
    if inputs.target is None or inputs.timestep is None or batch.future_is_pad is None:
        raise ValueError("the video loss needs future latents and their padding")
    frames = hidden.shape[1]
    embedded = inputs.times.embedded[:, : 1 if frames == later else frames]
    pred = model.video.velocity(hidden, embedded)
    target = model.video.head_order(inputs.target)
    error = (pred[:, :later].view(target.shape).float() - target).square().mean((2, 3, 4))
    weight = flow.loss_weight(inputs.timestep, schedule.video_shift, schedule.num_train_timesteps)
    in_time = pred if frames == later else torch.cat([pred[:, later:], pred[:, :later]], 1)
    return replace(
        terms,
        pred_video=in_time,
        video_per_sample=_mean_valid(error, batch.future_is_pad),
        video_weight=weight,
    )


def _mean_valid(error: Tensor, is_pad: Tensor) -> Tensor:
    """[B] from [B, T]: mean over the steps that are not padded, 0 if all are."""
    valid = (~is_pad).to(error.dtype)
    return (error * valid).sum(1) / valid.sum(1).clamp(min=1.0)
