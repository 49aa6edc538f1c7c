"""The typed training batch: what the data side makes and the model reads. Checked once, where it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch


@dataclass(frozen=True)
class Batch:
    """B training windows.

    Letters of the shapes: A action horizon, a action width, p proprioception width, F latent frames, L text tokens.
    """

    first: torch.Tensor
    """float [B, 48, h, w], normalised first-frame latents."""
    future: torch.Tensor | None
    """float [B, 48, F-1, h, w], normalised future latents; None for a batch without video co-training."""
    future_is_pad: torch.Tensor | None
    """bool [B, F-1], True where a future latent lies past the episode's end; None like `future`."""
    context: torch.Tensor
    """float [B, L, Dt], text embeddings, zero rows past each prompt's length."""
    proprio: torch.Tensor
    """float [B, p], normalised state at the window's start."""
    action: torch.Tensor
    """float [B, A, a], normalised action chunk."""
    action_is_pad: torch.Tensor
    """bool [B, A], True past the episode's end."""
    text_rows: int | None = field(init=False, default=None)
    """Context rows before the zero rows that all samples end with. Counted where the batch is made, on the CPU (one
    pass over the context), so that a GPU is never asked; None: made elsewhere, and all rows are computed."""
    text_length: int | None = field(init=False, default=None)
    """L of a batch in page-locked memory, whose context is cut to the used rows (`pinned`); None: the context's."""

    def __post_init__(self) -> None:
        size = len(self.first)
        for name, value in self.tensors().items():
            if value is not None and len(value) != size:
                raise ValueError(f"{name} has {len(value)} samples, first has {size}")
        if (self.future is None) != (self.future_is_pad is None):
            raise ValueError("future and future_is_pad must be given together")
        if self.context.device.type == "cpu":
            object.__setattr__(self, "text_rows", used_rows(self.context))

    def __len__(self) -> int:
        return len(self.first)

    def tensors(self) -> dict[str, torch.Tensor | None]:
        """The tensors by name."""
        return {name: value for name, value in vars(self).items() if not name.startswith("text_")}

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """A batch of changed tensors, without `text_rows`; None stays None."""
        return Batch(
            first=change(self.first),
            future=None if self.future is None else change(self.future),
            future_is_pad=None if self.future_is_pad is None else change(self.future_is_pad),
            context=change(self.context),
            proprio=change(self.proprio),
            action=change(self.action),
            action_is_pad=change(self.action_is_pad),
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """The same batch on a device, its floating-point tensors as `dtype`."""

        def move(value: torch.Tensor) -> torch.Tensor:
            return value.to(device, dtype if value.is_floating_point() else None, non_blocking=True)

        moved = self.mapped(move)
        if self.text_length is not None:
            whole = moved.context.new_zeros(len(self), self.text_length, moved.context.shape[2])
            whole[:, : moved.context.shape[1]] = moved.context
            moved = replace(moved, context=whole)
        object.__setattr__(moved, "text_rows", self.text_rows)
        return moved

    def pinned(self) -> Batch:
        """The same batch in page-locked memory, from which copies to a GPU do not wait.

        Text is cut to its used rows and one zero row: those after it never leave the host, `to` makes them again.
        """
        rows = self.context if self.text_rows is None else self.context[:, : self.text_rows + 1].contiguous()
        locked = replace(self, context=rows).mapped(lambda value: value.pin_memory())
        object.__setattr__(locked, "text_rows", self.text_rows)
        object.__setattr__(locked, "text_length", self.text_length or self.context.shape[1])
        return locked

    def rows(self, index: torch.Tensor | slice) -> Batch:
        """Some of the samples. index: a slice, or int64 on the batch's device (a GPU would wait for one on the CPU)."""
        chosen = self.mapped(lambda value: value[index])
        object.__setattr__(chosen, "text_rows", self.text_rows)
        return chosen

    @property
    def latents(self) -> torch.Tensor:
        """float [B, 48, F, h, w]: first-frame and future latents joined. Raises ValueError without future latents."""
        if self.future is None:
            raise ValueError("this batch has no future latents")
        return torch.cat([self.first.unsqueeze(2), self.future], dim=2)


def used_rows(context: torch.Tensor) -> int:
    """How many of the L rows of [B, L, Dt] come before the zero rows that all samples end with."""
    used = context.any(dim=2).any(dim=0).nonzero()
    return int(used[-1]) + 1 if len(used) else 0
