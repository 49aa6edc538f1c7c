"""The typed training batch: what the data side makes and the model reads. Checked once, where it is made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch


@dataclass(frozen=True)
class Batch:
    """B training windows; A action horizon, a action width, p proprioception width, F latent frames, L text tokens.

    first: float [B, 48, h, w], normalised first-frame latents.
    future: float [B, 48, F-1, h, w], normalised future latents, or None for a batch without video co-training.
    future_is_pad: bool [B, F-1], True where a future latent lies past the episode's end; None like `future`.
    context: float [B, L, Dt], text embeddings, zero rows past each prompt's length.
    proprio: float [B, p], normalised state at the window's start.
    action: float [B, A, a], normalised action chunk.
    action_is_pad: bool [B, A], True past the episode's end.
    """

    first: torch.Tensor
    future: torch.Tensor | None
    future_is_pad: torch.Tensor | None
    context: torch.Tensor
    proprio: torch.Tensor
    action: torch.Tensor
    action_is_pad: torch.Tensor

    def __post_init__(self) -> None:
        size = len(self.first)
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None and len(value) != size:
                raise ValueError(f"{item.name} has {len(value)} samples, first has {size}")
        if (self.future is None) != (self.future_is_pad is None):
            raise ValueError("future and future_is_pad must be given together")

    def __len__(self) -> int:
        return len(self.first)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """The same batch on a device, its floating-point tensors as `dtype`."""

        def move(value: torch.Tensor) -> torch.Tensor:
            return value.to(device, dtype if value.is_floating_point() else None, non_blocking=True)

        values = {item.name: getattr(self, item.name) for item in fields(self)}
        moved: dict[str, Any] = {name: None if value is None else move(value) for name, value in values.items()}
        return Batch(**moved)

    @property
    def latents(self) -> torch.Tensor:
        """float [B, 48, F, h, w]: first-frame and future latents joined. Raises ValueError without future latents."""
        if self.future is None:
            raise ValueError("this batch has no future latents")
        return torch.cat([self.first.unsqueeze(2), self.future], dim=2)
