"""lerobot's own Fast-WAM core with our weights: an independent implementation to compare values and speed with.

The core knows the base variant only. Its blocks and mixture take any boolean mask, so the other variants are driven as
in the official release: the token order [noisy video, (conditioning video), action] and the mask of
`fwtrain.model.allowed`, every token with its own timestep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from fwtrain.batch import Batch
from fwtrain.model import VARIANTS, Draws, FastWAM, allowed, flow
from fwtrain.model.rope import video_angles

VIDEO_FRAMES_PER_LATENT = 4


class LatentsOnly(torch.nn.Module):
    """Stands where the core wants its VAE."""

    temporal_downsample_factor = VIDEO_FRAMES_PER_LATENT
    upsampling_factor = 16


@dataclass(frozen=True)
class CoreLosses:
    """What the LeRobot core returns for one batch."""

    total: Tensor
    """Scalar, the weighted sum of both losses."""
    video: Tensor
    """Scalar, the video loss."""
    action: Tensor
    """Scalar, the action loss."""
    pred_video: Tensor
    """[B, C, F, h, w], predicted video velocities."""
    pred_action: Tensor
    """[B, A, a], predicted action velocities."""


def lerobot_core(model: FastWAM) -> Any:
    """lerobot's core of the same sizes and weights, which are copied. Its `lambda`s are those of the configuration."""
    from lerobot.policies.fastwam.wan.modular import ActionDiT, MoT
    from lerobot.policies.fastwam.wan.modular import FastWAM as Core
    from lerobot.policies.fastwam.wan.video_dit import WanVideoDiT

    v, a = model.config.video_expert, model.config.action_expert
    video = WanVideoDiT(
        hidden_dim=v.hidden_dim, in_dim=v.in_channels, ffn_dim=v.ffn_dim, out_dim=v.out_channels, text_dim=v.text_dim,
        freq_dim=v.freq_dim, eps=v.eps, patch_size=v.patch_size, num_heads=v.num_heads, attn_head_dim=v.head_dim,
        num_layers=v.num_layers, seperated_timestep=True, fuse_vae_embedding_in_latents=True,
        video_attention_mask_mode="first_frame_causal",
    )  # fmt: skip
    action = ActionDiT(
        hidden_dim=a.hidden_dim, action_dim=a.action_dim, ffn_dim=a.ffn_dim, text_dim=a.text_dim, freq_dim=a.freq_dim,
        eps=a.eps, num_heads=a.num_heads, attn_head_dim=a.head_dim, num_layers=a.num_layers,
    )  # fmt: skip
    mot = MoT({"video": video, "action": action}, mot_checkpoint_mixed_attn=False)
    schedule = model.config.schedule
    core = Core(
        video, action, mot, LatentsOnly(), text_dim=v.text_dim, proprio_dim=model.config.proprio_dim,
        video_train_shift=schedule.video_shift, video_infer_shift=schedule.video_shift,
        action_train_shift=schedule.action_shift, action_infer_shift=schedule.action_shift,
    )  # fmt: skip
    tensors = model.state_dict()
    inner = {name: value for name, value in tensors.items() if name.startswith("mixtures.")}
    core.mot.load_state_dict(inner, strict=True)
    if core.proprio_encoder is not None:
        proprio = {name: tensors[f"proprio_encoder.{name}"] for name in ("weight", "bias")}
        core.proprio_encoder.load_state_dict(proprio, strict=True)
    return core


def core_losses(
    core: Any, batch: Batch, draws: Draws, variant: str = "fastwam", *, video_weight: float = 1.0
) -> CoreLosses:
    """The core's losses and predictions for our draws; pred_video [B, C, F, h, w]. Needs future latents."""
    inputs, targets = _inputs(core, batch, draws)
    if variant in ("fastwam", "no-video"):
        pred_video, pred_action = core._run_training_mot(inputs, targets)
    else:
        pred_video, pred_action = _mixture(core, variant, batch, draws, inputs, targets)
    target_action = draws.noise_action - batch.action
    video = core._compute_training_video_loss(
        inputs, pred_video, _need(draws.noise_video) - batch.latents, targets["timestep_video"]
    )
    action = core._compute_training_action_loss(inputs, pred_action, target_action, targets["timestep_action"])
    return CoreLosses(video_weight * video + action, video, action, pred_video, pred_action)


def _need(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("the core needs future latents and video noise")
    return value


def _inputs(core: Any, batch: Batch, draws: Draws) -> tuple[dict[str, object], dict[str, Tensor]]:
    """What the core's training step is given, made with its own schedulers."""
    latents = batch.latents
    schedulers = core.train_video_scheduler, core.train_action_scheduler
    times = [
        flow.shifted(u, s.shift) * s.num_train_timesteps
        for u, s in zip((_need(draws.u_video), draws.u_action), schedulers, strict=True)
    ]
    mask = torch.ones(batch.context.shape[:2], dtype=torch.bool)
    context, mask = core._append_proprio_to_context(batch.context, mask, batch.proprio)
    pads = _need(batch.future_is_pad).repeat_interleave(VIDEO_FRAMES_PER_LATENT, dim=1)
    inputs = {
        "context": context, "context_mask": mask, "input_latents": latents, "first_frame_latents": latents[:, :, :1],
        "fuse_vae_embedding_in_latents": True, "action": batch.action, "action_is_pad": batch.action_is_pad,
        "image_is_pad": torch.cat([torch.zeros_like(pads[:, :1]), pads], dim=1),
    }  # fmt: skip
    noisy = schedulers[0].add_noise(latents, _need(draws.noise_video), times[0])
    noisy[:, :, :1] = latents[:, :, :1]
    targets = {
        "latents": noisy, "timestep_video": times[0], "timestep_action": times[1],
        "noisy_action": schedulers[1].add_noise(batch.action, draws.noise_action, times[1]),
    }  # fmt: skip
    return inputs, targets


def _conditioning(core: Any, batch: Batch, draws: Draws, probability: float) -> tuple[Tensor, Tensor]:
    """idm's second video [B, C, F, h, w] and its timesteps [B]."""
    scheduler, latents = core.train_video_scheduler, batch.latents
    if draws.u_cond is None or draws.noise_cond is None:
        return latents, torch.zeros(len(batch))
    times = flow.shifted(draws.u_cond, scheduler.shift) * scheduler.num_train_timesteps
    times = torch.where(_need(draws.cond_uniform) < probability, times, torch.zeros_like(times))
    noisy = scheduler.add_noise(latents, draws.noise_cond, times)
    noisy[:, :, :1] = latents[:, :, :1]
    return noisy, times


def _mixture(
    core: Any, variant: str, batch: Batch, draws: Draws, inputs: dict[str, object], targets: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """The core's mixture over the official token order with a boolean mask; one or two videos."""
    videos = [(targets["latents"], targets["timestep_video"])]
    if VARIANTS[variant].copy:
        videos.append(_conditioning(core, batch, draws, 0.5))
    before = [
        core.video_expert.pre_dit(
            x=x, timestep=t, context=inputs["context"], context_mask=inputs["context_mask"], action=None,
            fuse_vae_embedding_in_latents=True,
        )
        for x, t in videos
    ]  # fmt: skip
    action = core.action_expert.pre_dit(
        action_tokens=targets["noisy_action"], timestep=targets["timestep_action"], context=inputs["context"],
        context_mask=inputs["context_mask"],
    )  # fmt: skip
    frames, (height, width) = batch.latents.shape[2], batch.first.shape[2:]
    tokens = int(before[0]["meta"]["tokens_per_frame"])
    _, rows, columns = core.video_expert.patch_size
    angle = video_angles(
        tuple(range(frames)), height // rows, width // columns, core.video_expert.blocks[0].attn_head_dim
    )
    table = torch.polar(torch.ones_like(angle), angle).unsqueeze(1)
    mask = torch.from_numpy(allowed(variant, "train", frames, tokens, batch.action.shape[1]))

    def joined(key: str) -> Tensor:
        return torch.cat([item[key] for item in before], 1)

    out = core.mot(
        embeds_all={"video": joined("tokens"), "action": action["tokens"]},
        attention_mask=mask,
        freqs_all={"video": torch.cat([table] * len(videos)), "action": action["freqs"]},
        context_all={
            "video": {"context": before[0]["context"], "mask": joined("context_mask")},
            "action": {"context": action["context"], "mask": action["context_mask"]},
        },
        t_mod_all={"video": joined("t_mod"), "action": action["t_mod"]},
    )
    pred_video = core.video_expert.post_dit(out["video"][:, : frames * tokens], before[0])
    return pred_video, cast(Tensor, core.action_expert.post_dit(out["action"], action))


@torch.no_grad()
def core_actions(core: Any, batch: Batch, row: int, noise: Tensor, steps: int) -> Tensor:
    """The core's cached action sampling for one row of a batch, [A, a]."""
    rows = slice(row, row + 1)
    latents = batch.first[rows].unsqueeze(2)
    core._normalize_infer_input_image = lambda image: (image, 16 * latents.shape[3], 16 * latents.shape[4])
    core._encode_input_image_latents_tensor = lambda input_image, tiled: latents
    core._make_action_latents = lambda horizon, seed, device: noise
    core._prepare_infer_context = lambda prompt, context, mask, proprio: core._append_proprio_to_context(
        context, mask, proprio
    )
    context = batch.context[rows]
    result = core.infer_action(
        None, torch.zeros(1), noise.shape[1], proprio=batch.proprio[rows], context=context,
        context_mask=torch.ones(context.shape[:2], dtype=torch.bool), num_inference_steps=steps,
    )  # fmt: skip
    return cast(Tensor, result["action"])
