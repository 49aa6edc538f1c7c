"""lerobot's own Fast-WAM core with our weights, as an independent implementation to compare with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from fwtrain.batch import Batch
from fwtrain.model import Draws, FastWAM, flow


class FakeVae(torch.nn.Module):
    """Latents in, latents out: stands where the core wants its VAE."""

    temporal_downsample_factor = 4
    upsampling_factor = 16


def lerobot_core(model: FastWAM) -> Any:
    """lerobot's core of the same sizes and weights."""
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
    core = Core(video, action, mot, FakeVae(), text_dim=v.text_dim, proprio_dim=model.config.proprio_dim)
    tensors = model.state_dict()
    inner = {name: value for name, value in tensors.items() if name.startswith("mixtures.")}
    core.mot.load_state_dict(inner, strict=True)
    core.proprio_encoder.load_state_dict(
        {name: tensors[f"proprio_encoder.{name}"] for name in ("weight", "bias")}, strict=True
    )
    return core


def core_loss(core: Any, batch: Batch, draws: Draws) -> SimpleNamespace:
    """The core's losses with our draws in place of its own."""
    latents = batch.latents
    schedulers = core.train_video_scheduler, core.train_action_scheduler
    times = [
        flow.shifted(u, s.shift) * s.num_train_timesteps
        for u, s in zip((draws.u_video, draws.u_action), schedulers, strict=True)
    ]
    context, mask = core._append_proprio_to_context(
        batch.context, torch.ones(batch.context.shape[:2], dtype=torch.bool), batch.proprio
    )
    pads = batch.future_is_pad.repeat_interleave(4, dim=1)
    inputs = {
        "context": context, "context_mask": mask, "input_latents": latents, "first_frame_latents": latents[:, :, :1],
        "fuse_vae_embedding_in_latents": True, "action": batch.action, "action_is_pad": batch.action_is_pad,
        "image_is_pad": torch.cat([torch.zeros_like(pads[:, :1]), pads], dim=1),
    }  # fmt: skip
    noisy = schedulers[0].add_noise(latents, draws.noise_video, times[0])
    noisy[:, :, :1] = latents[:, :, :1]
    targets = {
        "latents": noisy, "timestep_video": times[0], "timestep_action": times[1],
        "noisy_action": schedulers[1].add_noise(batch.action, draws.noise_action, times[1]),
    }  # fmt: skip
    pred_video, pred_action = core._run_training_mot(inputs, targets)
    target_video, target_action = draws.noise_video - latents, draws.noise_action - batch.action
    video = core._compute_training_video_loss(inputs, pred_video, target_video, times[0])
    action = core._compute_training_action_loss(inputs, pred_action, target_action, times[1])
    return SimpleNamespace(total=video + action, video=video, action=action)


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
    action: Tensor = result["action"]
    return action
