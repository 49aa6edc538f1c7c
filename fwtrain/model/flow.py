"""Flow matching: times, noise levels, loss weights and Euler steps, all in float32 with float64 constants.

u in [0, 1] -> sigma = s u / (1 + (s - 1) u) with shift s -> timestep t = 1000 sigma.
x_sigma = (1 - sigma) x + sigma eps, and the velocity target is eps - x.
Source: schedulers/scheduler_continuous.py of the official Fast-WAM release; there t and the Euler state are rounded to
the model's type, here they stay float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

WEIGHT_EPS = 1e-10


def shifted[T: (float, Tensor)](u: T, shift: float) -> T:
    """sigma of a uniform u: s u / (1 + (s - 1) u)."""
    return shift * u / (1.0 + (shift - 1.0) * u)


def unshifted[T: (float, Tensor)](sigma: T, shift: float) -> T:
    """The u that `shifted` maps to sigma."""
    return sigma / (shift - (shift - 1.0) * sigma)


@lru_cache
def weight_constants(shift: float, timesteps: int) -> tuple[float, float]:
    """(y_min, c) of the bell weight: minimum, and mean above it, over t_k = T phi(k / T), k = 1..T, float64."""
    u = np.linspace(1.0, 0.0, timesteps + 1, dtype=np.float64)[:-1]
    t = shift * u / (1.0 + (shift - 1.0) * u) * timesteps
    bell = np.exp(-2.0 * ((t - timesteps / 2.0) / timesteps) ** 2)
    low = float(bell.min())
    return low, float((bell - low).mean())


def loss_weight(timestep: Tensor, shift: float, timesteps: int = 1000) -> Tensor:
    """float32, shape of `timestep` (0..timesteps): the bell weight, mean 1 under the training distribution."""
    low, mean = weight_constants(shift, timesteps)
    scaled = (timestep.float() - timesteps / 2.0) / timesteps
    return (torch.exp(-2.0 * scaled.square()) - low) / (mean + WEIGHT_EPS)


def noised(sample: Tensor, noise: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(x_sigma, target), float32: one sigma per sample (leading axis). target = noise - sample."""
    target = noise - sample
    return torch.addcmul(sample, target, sigma.view(-1, *[1] * (sample.ndim - 1))), target


@dataclass(frozen=True)
class Grid:
    """Euler grid, float32 CPU: `timesteps` [n], `deltas` [n] (sigma_{i+1} - sigma_i; the last sigma is 0)."""

    timesteps: Tensor
    deltas: Tensor

    def __len__(self) -> int:
        return len(self.timesteps)


def euler_grid(steps: int, shift: float, timesteps: int = 1000) -> Grid:
    """`steps` Euler steps from sigma 1 to 0 with a shift; ValueError for fewer than one step or a shift not above 0."""
    if steps < 1 or shift <= 0:
        raise ValueError(f"sampling needs at least 1 step and a shift above 0, found {steps} steps and shift {shift}")
    sigma = shifted(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float32), shift)
    return Grid(sigma[:-1] * float(timesteps), sigma[1:] - sigma[:-1])


def euler_step(sample: Tensor, velocity: Tensor, delta: float) -> Tensor:
    """float32: sample + delta * velocity."""
    return sample.add(velocity.float(), alpha=delta)


def sinusoid(timestep: Tensor, width: int) -> Tensor:
    """float32 [len(timestep), width]: cosines then sines of t * 10000^(-i / (width / 2)), products in float64."""
    half = width // 2
    rates = torch.pow(10000.0, torch.arange(half, dtype=torch.float64, device=timestep.device).div_(-half))
    angle = torch.outer(timestep.double(), rates)
    return torch.cat([angle.cos(), angle.sin()], dim=1).float()
