"""Training steps of a small VAE with a running average of its weights, which is what is kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AveragedTraining:
    """Adam on a network's parameters, betas (0.9, 0.99) and gradients clipped to norm 1, with their running average.

    keep: share of the average that a late step leaves, 0 .. 1; the first steps leave (1 + n) / (10 + n).
    """

    def __init__(self, net: nn.Module, keep: float) -> None:
        self._net, self._keep = net, keep
        self._optimizer = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99))
        self._steps = 0
        self.averaged: dict[str, Tensor] = {name: p.detach().clone() for name, p in net.named_parameters()}

    def step(self, loss: Tensor, learning_rate: float) -> None:
        """One step down the gradient of a loss of the network; the average follows."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._net.parameters(), 1.0)
        self._optimizer.step()
        keep = min(self._keep, (1 + self._steps) / (10 + self._steps))
        for name, p in self._net.named_parameters():
            self.averaged[name].lerp_(p.detach(), 1 - keep)
        self._steps += 1
