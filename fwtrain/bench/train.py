"""`fwtrain bench train`: our training step and action loop beside the same work done another way, on equal weights."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fwdata.encode.vae.net import VaeConfig, WanVae
from fwtrain.batch import Batch
from fwtrain.bench.cases import GRID, Size, random_batch, size_config
from fwtrain.bench.lerobot import core_actions, core_losses, lerobot_core
from fwtrain.bench.timing import RepeatedTiming, Work, interleaved
from fwtrain.bench.unshared import unshared_idm_losses
from fwtrain.data.contract import StoreLike
from fwtrain.model import VARIANTS, FastWAM, Losses, Noise, draw, losses, sample

AGREE = 2e-5
"""Relative difference up to which two ways count as the same work in float32."""


@dataclass(frozen=True)
class Ratio:
    """Our time against another implementation's for the same work."""

    name: str
    """What was run."""
    ours: RepeatedTiming
    """Time of this implementation."""
    other: RepeatedTiming
    """Time of the other one."""
    difference: float | None
    """Largest relative difference of what both return (losses or actions); None: not compared."""

    @property
    def best(self) -> float:
        return self.other.best / self.ours.best

    @property
    def median(self) -> float:
        return self.other.median / self.ours.median


@dataclass(frozen=True)
class VaeCost:
    """What encoding while training would cost, in CPU seconds."""

    encode: float
    """One 9-frame window in the encoder of the real width, with random weights."""
    window: float
    """One training window from cached latents."""

    @property
    def online(self) -> float:
        return (self.encode + self.window) / self.window


class Bench:
    """Models of one size that share their weights, and one batch."""

    def __init__(self, size: Size) -> None:
        config = size_config(size)
        first = FastWAM(config)
        self.models = {"fastwam": first}
        for variant in VARIANTS.keys() - self.models:
            model = FastWAM(config.replace(variant=variant), seed=None)
            model.load_state_dict(first.state_dict(), assign=True)
            self.models[variant] = model
        self.core = lerobot_core(first)
        self.batch = random_batch(config, size.batch)
        self.draws = draw(self.batch, "optional-idm", torch.Generator().manual_seed(0), cond_noise_prob=0.5)

    @property
    def parameters(self) -> int:
        """Of one model."""
        return self.models["fastwam"].num_parameters()

    def ours(self, variant: str, batch: Batch | None = None) -> Callable[[], Losses]:
        """Losses and gradients of our step."""
        return self._step(variant, lambda model: losses(model, batch or self.batch, self.draws))

    def unshared(self) -> Callable[[], Losses]:
        """idm by our blocks, frame 0 computed twice."""
        return self._step("idm", lambda model: unshared_idm_losses(model, self.batch, self.draws))

    def _step(self, variant: str, losses_of: Callable[[FastWAM], Losses]) -> Callable[[], Losses]:
        model = self.models[variant]

        def run() -> Losses:
            model.zero_grad()
            found = losses_of(model)
            found.total.backward()  # type: ignore[no-untyped-call]
            return found

        return run

    def cores(self, variant: str, video_weight: float = 1.0) -> Callable[[], Any]:
        """Losses and gradients of lerobot's core; variants it lacks through its mixture with the official mask."""

        def run() -> Any:
            self.core.zero_grad()
            found = core_losses(self.core, self.batch, self.draws, variant, video_weight=video_weight)
            found.total.backward()  # type: ignore[no-untyped-call]
            return found

        return run


def bench_steps(bench: Bench, repeats: int, done: Callable[[int], None] = lambda _: None) -> list[Ratio]:
    """Forward and backward passes, and the 10-step action loop of one observation."""
    batch, config = bench.batch, bench.models["fastwam"].config
    alone = replace(batch, future=None, future_is_pad=None)
    noise = torch.randn(1, config.action_horizon, config.action_expert.action_dim)
    model = bench.models["fastwam"]

    def our_actions() -> torch.Tensor:
        observed = batch.first[:1], batch.context[:1], batch.proprio[:1]
        return sample(model, *observed, Noise(action=noise), video=False).action

    steps: dict[str, Callable[[], Any]] = {
        "step": bench.ours("fastwam"),
        "step core": bench.cores("fastwam"),
        "idm": bench.ours("idm"),
        "idm unshared": bench.unshared(),
        "idm core": bench.cores("idm"),
        "no-video": bench.ours("no-video"),
        "no-video core": bench.cores("fastwam", video_weight=0.0),
        "action-only": bench.ours("fastwam", alone),
        "actions": our_actions,
        "actions core": lambda: core_actions(bench.core, batch, 0, noise, 10),
    }
    others = [name for name in bench.models if name not in ("fastwam", *steps)]
    steps |= {name: bench.ours(name) for name in others}
    values = {name: _value(work()) for name, work in steps.items()}
    times = interleaved({name: _work(work) for name, work in steps.items()}, repeats, done)

    def ratio(title: str, ours: str, other: str, same: bool = True) -> Ratio:
        gap = float((values[ours] - values[other]).abs().max() / values[other].abs().max()) if same else None
        return Ratio(title, times[ours], times[other], gap)

    return [
        ratio("fastwam step / lerobot's core", "step", "step core"),
        ratio("idm step / not sharing frame 0", "idm", "idm unshared"),
        ratio("idm step / official form in lerobot's blocks", "idm", "idm core"),
        ratio("no-video step / lerobot's core, lambda_video 0", "no-video", "no-video core"),
        ratio("action-only windows / windows with future", "action-only", "step", same=False),
        ratio("10-step action loop / lerobot's cached loop", "actions", "actions core"),
        *(ratio(f"{name} step / fastwam step", name, "step", same=False) for name in others),
    ]


def _work(work: Callable[[], Any]) -> Work:
    return lambda: work()


def _value(result: Any) -> torch.Tensor:
    """The total loss or the sampled actions."""
    found = result if isinstance(result, torch.Tensor) else result.total
    return torch.as_tensor(found).detach().squeeze(0)


def bench_vae(step: RepeatedTiming, size: Size) -> VaeCost:
    """Encode one window of 9 frames of 224 x 448 px once, in float32, with random weights of the real sizes."""
    zeros = (0.0,) * 48
    vae = WanVae(VaeConfig(base_dim=160, decoder_base_dim=256, latents_mean=zeros, latents_std=zeros), decoder=False)
    vae.eval().requires_grad_(False)
    clip = torch.rand(1, 3, 1 + 4 * (GRID[0] - 1), 16 * GRID[1], 16 * GRID[2]) * 2 - 1
    began = time.process_time()
    with torch.inference_mode():
        vae.moments(clip)
    return VaeCost(time.process_time() - began, step.best / size.batch)


def bench_data_wait(store: StoreLike, size: Size, steps: int = 20) -> float:
    """Share of the time the real training loop waits for data on a store, at this model size, one thread."""
    from fwtrain.recipe import load_recipe
    from fwtrain.train.run import train

    shape = {"video": size.video, "action": size.action}
    overrides = [f"model.{name}={{hidden: {width}, ffn: {ffn}}}" for name, (width, ffn) in shape.items()]
    overrides += [f"model.layers={size.layers}", f"model.heads={size.heads}", f"model.head_dim={size.head_dim}"]
    overrides += [f"optim.batch_size={size.batch}", f"optim.steps={steps}", "validation.windows=0"]
    overrides += [f"save_every={steps}", "tensorboard=false", "model.freq_dim=256"]
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(store, load_recipe("tiny", overrides), Path(folder) / "run", device="cpu")
    return outcome.data_wait
