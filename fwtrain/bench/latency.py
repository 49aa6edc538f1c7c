"""`fwtrain bench latency`: where the time of one action chunk goes, stage by stage, for every variant.

`vae`: the first frame's latents, real width with random weights, where asked for. `text`: the text embedding and every
layer's cross-attention keys of an instruction, made once and kept over calls (the text encoder itself is not in it).
`prefill`: what a chunk does before its first step and not again. `step`: one denoising step. `chunk`: the whole call.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from fwdata.encode.vae.net import VaeConfig, WanVae
from fwdata.errors import UsageError
from fwtrain.bench.cases import GRID, Size, random_batch, size_config
from fwtrain.model import Denoising, FastWAM, Graphs, Noise, sample
from fwtrain.train.build import compile_model
from fwtrain.variants import title


@dataclass(frozen=True)
class Stage:
    """Median time of one stage of acting."""

    variant: str
    """Name of the variant, with its mode where it has several."""
    stage: str
    """What is run."""
    seconds: float
    """Median of one run."""
    times: int
    """How often one chunk of a known instruction runs it."""


def bench_latency(
    size: Size,
    variants: tuple[str, ...],
    *,
    steps: int = 10,
    batch: int = 1,
    repeats: int = 5,
    device: torch.device,
    compiled: bool = False,
) -> list[Stage]:
    """Stages of the variants on random weights: CPU time in float32, or wall time on another device in bfloat16.

    steps: at least 2, because a step's time is the difference between chunks of `steps` and of 1. compiled: layers
    through `torch.compile`. UsageError for fewer steps.
    """
    if steps < 2:
        raise UsageError(f"--steps must be at least 2 to tell a step from the prefill, found {steps}")
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    found: list[Stage] = []
    for variant in variants:
        model = FastWAM(size_config(size, variant), device=device, dtype=dtype).eval()
        model.graphs = Graphs() if device.type == "cuda" else None
        if compiled:
            compile_model(model)
        for mode in model.config.rules.mode_names:
            found += _stages(model, mode, steps, batch, repeats)
    return found


def _stages(model: FastWAM, mode: str, steps: int, batch: int, repeats: int) -> list[Stage]:
    variant, device = title(model.config.rules, mode), model.device
    inputs = random_batch(model.config, batch)
    moved = replace(inputs, future=None, future_is_pad=None).to(device, model.action.head.weight.dtype)
    read = [model.read_instruction(row) for row in inputs.context]

    def chunk(count: int) -> Callable[[], object]:
        noise, how = Noise(generator=torch.Generator().manual_seed(0)), Denoising(steps=count, mode=mode)
        return lambda: sample(model, moved.first, read, moved.proprio, noise, how, video=False)

    whole, one = measure([chunk(steps), chunk(1)], repeats, device)
    text = measure([lambda: model.read_instruction(inputs.context[0])], repeats, device)[0]
    step = max(0.0, whole - one) / (steps - 1)  # below zero only where the machine's noise exceeds the steps
    return [
        Stage(variant, "text", text, 0),
        Stage(variant, "prefill", max(0.0, one - step), 1),  # joint does nothing once: the difference is noise
        Stage(variant, "step", step, steps),
        Stage(variant, "chunk", whole, 1),
    ]


def bench_first_frame(device: torch.device, repeats: int = 1) -> Stage:
    """The VAE encoder of the real width (random weights) on one 224 x 448 frame."""
    zeros = (0.0,) * 48
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    vae = WanVae(VaeConfig(base_dim=160, decoder_base_dim=256, latents_mean=zeros, latents_std=zeros), decoder=False)
    vae = vae.to(device, dtype).eval().requires_grad_(False)
    frame = torch.rand(1, 3, 1, 16 * GRID[1], 16 * GRID[2], device=device, dtype=dtype) * 2 - 1
    with torch.inference_mode():
        return Stage("all", "vae", measure([lambda: vae.moments(frame)], repeats, device)[0], 1)


def measure(works: list[Callable[[], object]], repeats: int, device: torch.device) -> list[float]:
    """Median seconds of every work, taking turns after a run to warm up: CPU time, or wall time on another device."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(repeats + 1):
        for work, kept in zip(works, seconds, strict=True):
            began = clock()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            kept.append(clock() - began)
    return [statistics.median(kept[1:]) for kept in seconds]
