"""Flow matching: times, noise levels, loss weights and Euler steps, all in float32 with float64 constants.

u in [0, 1] -> sigma = s u / (1 + (s - 1) u) with shift s -> timestep t = 1000 sigma.
x_sigma = (1 - sigma) x + sigma eps, and the velocity target is eps - x.
Source: schedulers/scheduler_continuous.py of the official Fast-WAM release. There t, sigma, noised values, targets,
the Euler grid and the Euler state are rounded to the model's type, bfloat16: `dtype` asks for that (parity with the
official run); the default keeps float32.
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


def training_times(
    u: Tensor, shift: float, timesteps: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """(sigma, t) of uniforms u. In bfloat16 t is rounded first and sigma is the rounded t / timesteps."""
    sigma = shifted(u, shift)
    t = sigma * float(timesteps)
    if dtype == torch.float32:
        return sigma, t
    t = t.to(dtype)
    return t / float(timesteps), t


def noised(sample: Tensor, noise: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(x_sigma, target) in sigma's type: one sigma per sample (leading axis). target = noise - sample.

    Other types than float32 round after every operation, as the official code does.
    """
    if sigma.dtype != torch.float32:
        sample, noise, sigma = sample.to(sigma.dtype), noise.to(sigma.dtype), sigma.view(-1, *[1] * (sample.ndim - 1))
        return (1 - sigma) * sample + sigma * noise, noise - sample
    target = noise - sample
    return torch.addcmul(sample, target, sigma.view(-1, *[1] * (sample.ndim - 1))), target


@dataclass(frozen=True)
class Grid:
    """Euler grid of n steps, on the CPU."""

    timesteps: Tensor
    """[n], descending."""
    deltas: Tensor
    """[n], sigma_{i+1} - sigma_i; the last sigma is 0."""

    def __len__(self) -> int:
        return len(self.timesteps)


def euler_grid(steps: int, shift: float, timesteps: int = 1000, dtype: torch.dtype = torch.float32) -> Grid:
    """`steps` Euler steps from sigma 1 to 0 with a shift, made in float32 and rounded to `dtype`.

    ValueError for fewer than one step or a shift not above 0.
    """
    if steps < 1 or shift <= 0:
        raise ValueError(f"sampling needs at least 1 step and a shift above 0, found {steps} steps and shift {shift}")
    sigma = shifted(torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float32), shift)
    return Grid((sigma[:-1] * float(timesteps)).to(dtype), (sigma[1:] - sigma[:-1]).to(dtype))


def euler_step(sample: Tensor, velocity: Tensor, delta: float) -> Tensor:
    """sample + delta * velocity in sample's type; other types than float32 also round the product."""
    if sample.dtype != torch.float32:
        return sample + velocity.to(sample.dtype) * delta
    return sample.add(velocity.float(), alpha=delta)


def sinusoid(timestep: Tensor, width: int) -> Tensor:
    """[len(timestep), width] in timestep's type, made in float64: cos, then sin, of t * 10000^(-i / (width / 2))."""
    half = width // 2
    rates = torch.pow(10000.0, torch.arange(half, dtype=torch.float64, device=timestep.device).div_(-half))
    angle = torch.outer(timestep.double(), rates)
    return torch.cat([angle.cos(), angle.sin()], dim=1).to(timestep.dtype)
