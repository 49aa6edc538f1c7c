"""The random numbers of one training step, drawn on the CPU in float32 so that they depend on the generator alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fwtrain.batch import Batch
from fwtrain.variants import COND_NOISE, VARIANTS


@dataclass(frozen=True)
class Draws:
    """Noises and uniforms of B samples, float32, in the official order."""

    noise_video: Tensor | None
    """[B, C, F, h, w] (frame 0 is drawn and not used); None without video tokens."""
    u_video: Tensor | None
    """[B], uniforms of the video's timesteps; None without video tokens."""
    noise_action: Tensor
    """[B, A, a]."""
    u_action: Tensor
    """[B], uniforms of the action's timesteps."""
    cond_uniform: Tensor | None = None
    """[B], a sample's conditioning video is noised where it is below `cond_noise_prob`; None without a copy."""
    u_cond: Tensor | None = None
    """[B], uniforms of the conditioning video's timesteps; None if no conditioning video is noised."""
    noise_cond: Tensor | None = None
    """[B, C, F, h, w]; None if no conditioning video is noised."""
    mode_uniform: Tensor | None = None
    """[B], a sample is trained in the first mode where it is below `action_idm_prob`; None with one mode."""

    def to(self, device: torch.device | str) -> Draws:
        """The same numbers on a device."""
        return self.mapped(lambda value: value.to(device, non_blocking=True))

    def pinned(self) -> Draws:
        """The same numbers in page-locked memory, from which copies to a GPU do not wait."""
        return self.mapped(lambda value: value.pin_memory())

    def rows(self, index: Tensor | slice) -> Draws:
        """The draws of some samples."""
        return self.mapped(lambda value: value[index])

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Draws:
        """Changed draws; None stays None."""

        def changed(value: Tensor | None) -> Tensor | None:
            return None if value is None else change(value)

        return Draws(
            noise_video=changed(self.noise_video),
            u_video=changed(self.u_video),
            noise_action=change(self.noise_action),
            u_action=change(self.u_action),
            cond_uniform=changed(self.cond_uniform),
            u_cond=changed(self.u_cond),
            noise_cond=changed(self.noise_cond),
            mode_uniform=changed(self.mode_uniform),
        )


def draw(batch: Batch, variant: str, generator: torch.Generator, *, cond_noise_prob: float | None = None) -> Draws:
    """The draws of one step for a batch on any device; `generator` is a CPU generator and advances.

    cond_noise_prob: None for the variant's default.

    Video numbers are drawn only where the variant trains on video and the batch has future latents. As in the official
    code, u_cond and noise_cond are drawn for the whole batch if at least one conditioning video is noised.
    """
    rules, size = VARIANTS[variant], len(batch)
    noise_video = u_video = cond = u_cond = noise_cond = mode = None
    b, c, h, w = batch.first.shape
    shape = (b, c, 1 if batch.future is None else 1 + batch.future.shape[2], h, w)
    if batch.future is not None and rules.video_loss:
        noise_video = torch.randn(shape, generator=generator)
        u_video = torch.rand(size, generator=generator)
    noise_action = torch.randn(batch.action.shape, generator=generator)
    u_action = torch.rand(size, generator=generator)
    if rules.copy:
        cond = torch.rand(size, generator=generator)
        share = rules.probabilities[COND_NOISE] if cond_noise_prob is None else cond_noise_prob
        if bool((cond < share).any()):
            u_cond = torch.rand(size, generator=generator)
            noise_cond = torch.randn(shape, generator=generator)
    if len(rules.modes) > 1:
        mode = torch.rand(size, generator=generator)
    return Draws(noise_video, u_video, noise_action, u_action, cond, u_cond, noise_cond, mode)
