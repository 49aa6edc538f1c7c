"""Rotary positions over interleaved channel pairs, as unit complex64 tables computed once in float64.

Source: Wan2.2 wan/modules/model.py (video: pairs split into frame, row, column axes) and action_dit.py of Fast-WAM
(one axis). The axis split is that of Wan and diffusers: rows and columns 2 * (d // 6) channels each, frames the rest.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

BASE = 10000.0


def _angles(positions: Tensor, channels: int) -> Tensor:
    """float64 [len(positions), channels / 2]: position * BASE^(-2j / channels)."""
    rates = BASE ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    return torch.outer(positions.double(), rates)


def video_angles(frames: tuple[int, ...], rows: int, columns: int, head_dim: int) -> Tensor:
    """float64 [len(frames) * rows * columns, head_dim / 2]: the angle of every token's channel pairs."""
    side = 2 * (head_dim // 6)
    grid = (len(frames), rows, columns)
    axes = [
        _angles(torch.tensor(frames), head_dim - 2 * side)[:, None, None].expand(*grid, -1),
        _angles(torch.arange(rows), side)[None, :, None].expand(*grid, -1),
        _angles(torch.arange(columns), side)[None, None, :].expand(*grid, -1),
    ]
    return torch.cat(axes, dim=-1).flatten(0, 2)


@lru_cache(maxsize=64)
def video_table(frames: tuple[int, ...], rows: int, columns: int, head_dim: int, device: torch.device) -> Tensor:
    """complex64 [len(frames) * rows * columns, 1, head_dim / 2] for tokens in (frame, row, column) order.

    frames: the frame position of every frame held, in any order and with repeats.
    """
    with torch.inference_mode(False):
        return _unit(video_angles(frames, rows, columns, head_dim), device)


@lru_cache(maxsize=64)
def action_table(steps: int, head_dim: int, device: torch.device) -> Tensor:
    """complex64 [steps, 1, head_dim / 2]."""
    with torch.inference_mode(False):
        return _unit(_angles(torch.arange(steps), head_dim), device)


def _unit(angle: Tensor, device: torch.device) -> Tensor:
    return torch.complex(angle.cos(), angle.sin()).to(device, torch.complex64).unsqueeze(1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """x [B, S, N, d] with its channel pairs turned by the table [S, 1, d / 2], in float32, returned in x's type."""
    if torch.compiler.is_compiling():  # inductor fuses the real form and has no complex kernels
        (a, b), (cos, sin) = x.float().view(*x.shape[:-1], -1, 2).unbind(-1), torch.view_as_real(table).unbind(-1)
        return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).type_as(x)
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * table).flatten(-2).type_as(x)
