"""Expected time of full-size training steps and of sampling on GPUs, from counted FLOPs and bytes; nothing is measured.

FLOPs are those of every matrix product (2 per multiply-add), attention included, counted from a configuration. A step
is three forward passes. The time is the larger of FLOPs / (peak x utilisation) and bytes / (bandwidth x utilisation),
plus AdamW's bytes for training; utilisations are assumptions, stated with the result.
"""

from __future__ import annotations

from dataclasses import dataclass

from fwtrain.model import VARIANTS, FastWAM, Mode, ModelConfig
from fwtrain.model.flops import chunk_flops, forward_flops, weight_reads
from fwtrain.train.plan import MFU
from fwtrain.variants import title


@dataclass(frozen=True)
class Gpu:
    """A GPU by its maker's data sheet."""

    name: str
    """What tables call it."""
    flops: float
    """Dense bf16 peak, FLOP/s."""
    bandwidth: float
    """Memory bandwidth, B/s."""


GPUS = (Gpu("H100 SXM", 989e12, 3.35e12), Gpu("A800/A100 SXM 80 GB", 312e12, 2.04e12))
FLOP_USE, BYTE_USE = MFU, 0.7
"""Assumed shares of the peaks: what published trainers of this size reach, and usual for streaming kernels."""
OPTIMIZER_BYTES = 4 * 2 + 4 * 6
"""AdamW per parameter: bf16 gradient and weight, and float32 master and two moments read and written."""


@dataclass(frozen=True)
class Computed:
    """Work and time of one training step and one 10-step action chunk on one GPU, computed and not measured."""

    gpu: str
    """Name of the GPU."""
    variant: str
    """Name of the variant."""
    batch: int
    """Samples of the training step."""
    step_tflop: float
    """TFLOP of the training step."""
    step_seconds: float
    """Seconds of the training step."""
    samples_per_second: float
    """Training samples per second."""
    chunk_tflop: float
    """TFLOP of one action chunk."""
    chunk_seconds: float
    """Seconds of one action chunk."""


def computed(batch: int = 16, steps: int = 10) -> list[Computed]:
    """Every variant in each of its modes at the released size on LIBERO's shapes, for every GPU."""
    return [
        _computed(ModelConfig.wan22_5b(7, 8, variant=variant), mode, gpu, batch, steps)
        for variant, rules in VARIANTS.items()
        for mode in rules.modes
        for gpu in GPUS
    ]


def _computed(config: ModelConfig, mode: Mode, gpu: Gpu, batch: int, steps: int) -> Computed:
    model = FastWAM(config, seed=None, device="meta")
    video = sum(p.numel() for p in model.video.parameters())
    action = sum(p.numel() for p in model.action.parameters())
    step, chunk = 3 * batch * forward_flops(config), chunk_flops(config, steps, mode=mode.name)
    times = weight_reads(mode, steps)
    weights = 2.0 * (times[0] * video + times[1] * action)
    flops, bandwidth = gpu.flops * FLOP_USE, gpu.bandwidth * BYTE_USE
    seconds = max(step / flops, 3 * 2 * (video + action) / bandwidth)
    seconds += OPTIMIZER_BYTES * (video + action) / bandwidth
    return Computed(
        gpu=gpu.name,
        variant=title(config.rules, mode.name),
        batch=batch,
        step_tflop=step / 1e12,
        step_seconds=seconds,
        samples_per_second=batch / seconds,
        chunk_tflop=chunk / 1e12,
        chunk_seconds=max(chunk / flops, weights / bandwidth),
    )
