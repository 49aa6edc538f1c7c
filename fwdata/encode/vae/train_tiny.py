"""Trains the tiny VAE that ships with the package, on images of the sample world.

    python -m fwdata.encode.vae.train_tiny --out OUT [--steps N | --minutes M] [--seed S] [--start FOLDER]

Writes OUT/config.json and OUT/diffusion_pytorch_model.safetensors (float16, atomically), in the layout that
`load_vae(OUT)` and diffusers' `AutoencoderKLWan.from_pretrained` read. With --steps the result depends on the seed and
the machine's arithmetic alone; with --minutes the learning rate follows the clock.

Loss: weighted L1 + 2 x squared error + L1 of image gradients + a small KL term. Coloured pixels (buttons, hands)
weigh up to 6 times as much as the table: they are few and all that matters for control. Clips are single frames first,
then also 5 and 9 frames. The weights written are an exponential moving average, and latents_mean and
latents_std are measured with them on fresh images. A run that is stopped leaves the snapshot of its last full
thousand steps.

The shipped weights: 4500 steps with seed 0, then, after the world's scenes had changed, 1300 more with --start and seed
1; 25.7 dB on held-out single frames and 23.0 dB on held-out 9-frame clips (mean squared error over 64 of each).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fwdata.encode.tensor_files import save_tensors
from fwdata.encode.vae.averaged import AveragedTraining
from fwdata.encode.vae.files import WEIGHTS_NAME, find_weights
from fwdata.encode.vae.net import LATENT_CHANNELS, SPATIAL_STRIDE, TEMPORAL_STRIDE, VaeConfig, WanVae
from fwdata.envs.sample import random_clips
from fwdata.errors import UsageError
from fwdata.images.stitch import stitch
from fwdata.io import write_atomic
from fwdata.manifest import load_manifest

SIZES = VaeConfig(12, 12, (0.0,) * LATENT_CHANNELS, (1.0,) * LATENT_CHANNELS, num_res_blocks=1)
LEARNING_RATE = 2e-3
KL_WEIGHT = 1e-4
EMA = 0.995
POOL = 640
MEASURED_CLIPS = 100
HELD_OUT_CLIPS = 64
SNAPSHOT_EVERY = 1000
BATCHES = ((1, 8), (5, 2), (9, 1))
"""(frames per clip, clips per batch)."""
HELD_OUT_SEED = 10_000_019


@dataclass(frozen=True)
class TinyVaeOptions:
    """What one run is asked for; exactly one of steps and minutes is set."""

    out: Path
    """File of the weights."""
    seed: int
    """Seed of the weights and of the images."""
    steps: int | None
    """Length in optimizer steps; None: by minutes."""
    minutes: float | None
    """Length in minutes; None: by steps."""
    start: Path | None
    """Weights to continue from; None: random ones."""


def clips(rng: np.random.Generator, count: int) -> Iterator[NDArray[np.uint8]]:
    """Stitched clips of the sample world, uint8 [9, 96, 64, 3] each. About 15 ms per clip."""
    spec = load_manifest("robotwin-sample").stitch
    for frames in random_clips(rng, count):
        yield stitch(frames, spec)


class Pool:
    """A changing set of clips: drawing a batch replaces `fresh` of them, so that no image is seen for long."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self._rng = rng
        self._clips = np.stack(list(clips(rng, size)))

    def batch(self, frames: int, count: int, fresh: int) -> Tensor:
        """float32 [count, 3, frames, 96, 64] in -1..1: windows at random offsets of `count` clips."""
        for clip in clips(self._rng, fresh):
            self._clips[self._rng.integers(len(self._clips))] = clip
        chosen = self._rng.choice(len(self._clips), count, replace=False)
        starts = self._rng.integers(self._clips.shape[1] - frames + 1, size=count)
        picked = np.stack([self._clips[c, s : s + frames] for c, s in zip(chosen, starts, strict=True)])
        return to_model(picked)


def to_model(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [B, T, H, W, 3] to float32 [B, 3, T, H, W] in -1..1."""
    return torch.from_numpy(pixels).permute(0, 4, 1, 2, 3).float().div(127.5).sub(1.0).contiguous()


def loss_of(net: WanVae, x: Tensor) -> Tensor:
    """Scalar training loss of a batch [B, 3, T, H, W]; the latent is sampled from the posterior."""
    mean, log_variance = net.moments(x)
    log_variance = log_variance.clamp(-12.0, 6.0)
    y = net.decoded(mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean))
    colour = x.amax(1, keepdim=True) - x.amin(1, keepdim=True)
    weight = 1.0 + 5.0 * (colour - 0.3).clamp(0.0, 1.0)
    weight = weight / weight.mean()
    error = y - x
    pixel_loss = (weight * (error.abs() + 2.0 * error.square())).mean()
    edges = error.diff(dim=3).abs().mean() + error.diff(dim=4).abs().mean()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
    return pixel_loss + 0.5 * edges + KL_WEIGHT * kl


def clip_kind(progress: float, further: bool, rng: np.random.Generator) -> tuple[int, int]:
    """(frames, clips) of the next batch: 50 / 35 / 15 % of 1, 5, 9 frames, after 30 % of the run on single frames.

    A run that goes on from earlier weights (further) draws 30 / 40 / 30 % throughout.
    """
    share = rng.random()
    single, five = (0.3, 0.7) if further else (0.5, 0.85)
    if share < single or (progress < 0.3 and not further):
        return BATCHES[0]
    return BATCHES[1] if share < five else BATCHES[2]


def learning_rate(progress: float, further: bool) -> float:
    """Linear warm-up over the first 2 %, then a cosine to 1 % of the peak; half the peak for a run that goes on."""
    peak = LEARNING_RATE / 2 if further else LEARNING_RATE
    return peak * (min(progress / 0.02, 1.0) + 1e-3) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def first_network(options: TinyVaeOptions) -> WanVae:
    """The network to train: fresh, with little posterior noise, or with the weights of an earlier run."""
    if options.start is not None:
        weights = find_weights(str(options.start), decoder=True)
        if not isinstance(weights.config, VaeConfig):
            raise UsageError(f"--start {options.start} is a VAE of another architecture")
        net = WanVae(weights.config)
        net.load_state_dict(weights.tensors)
        return net.train()
    net = WanVae(SIZES)
    with torch.no_grad():
        net.quant_conv.bias[LATENT_CHANNELS:] = -4.0  # type: ignore[index]
    return net.train()


def train(options: TinyVaeOptions) -> WanVae:
    """The averaged network. Prints a line every 100 steps."""
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    net, further = first_network(options), options.start is not None
    training = AveragedTraining(net, EMA)
    pool = Pool(rng, POOL)
    start, step, progress = time.monotonic(), 0, 0.0
    while progress < 1.0:
        x = pool.batch(*clip_kind(progress, further, rng), fresh=1 if step % 3 == 0 else 0)
        loss = loss_of(net, x)
        training.step(loss, learning_rate(progress, further))
        step += 1
        minutes = (time.monotonic() - start) / 60
        progress = step / options.steps if options.steps else minutes / (options.minutes or 1.0)
        if step % 100 == 0:
            print(f"step {step}  {minutes:.1f} min  frames {x.shape[2]}  loss {loss.item():.4f}", flush=True)
        if step % SNAPSHOT_EVERY == 0:
            save_with_constants(finished(training.averaged), options)
    print(f"finished after {step} steps")
    return finished(training.averaged)


def finished(averaged: dict[str, Tensor]) -> WanVae:
    """Network for inference with the averaged weights, rounded to float16 as they are shipped."""
    net = WanVae(SIZES)
    net.load_state_dict({name: value.half().float() for name, value in averaged.items()})
    return net.eval()


def measured(net: WanVae, seed: int) -> VaeConfig:
    """The configuration with latents_mean and latents_std of 9-frame clips that training did not see."""
    rng = np.random.default_rng([seed, 1])
    with torch.inference_mode():
        means = [net.moments(to_model(clip[None]))[0][0].flatten(1) for clip in clips(rng, MEASURED_CLIPS)]
    values = torch.cat(means, dim=1).double()
    mean, std = values.mean(1).tolist(), values.std(1).clamp_min(1e-3).tolist()
    return replace(
        net.config, latents_mean=tuple(round(v, 6) for v in mean), latents_std=tuple(round(v, 6) for v in std)
    )


def save_with_constants(net: WanVae, options: TinyVaeOptions) -> None:
    """Measure the normalisation and write both files."""
    write(net, measured(net, options.seed), options.out)


def psnr(net: WanVae) -> dict[str, float]:
    """Held-out peak signal-to-noise ratio in dB of posterior-mean reconstructions, of 1- and 9-frame clips."""
    result = {}
    held_out = list(clips(np.random.default_rng(HELD_OUT_SEED), HELD_OUT_CLIPS))
    with torch.inference_mode():
        for frames in (1, 9):
            errors = []
            for clip in held_out:
                x = to_model(clip[None, :frames])
                y = net.decoded(net.moments(x)[0]).clamp(-1.0, 1.0)
                errors.append(F.mse_loss(y, x).item() / 4.0)
            result[f"psnr_{frames}_frames"] = round(-10 * math.log10(float(np.mean(errors))), 2)
    return result


def write(net: WanVae, config: VaeConfig, out: Path) -> None:
    """Both files, each under a temporary name first and then moved into place."""
    out.mkdir(parents=True, exist_ok=True)
    fields = {
        "_class_name": "AutoencoderKLWan",
        **asdict(config),
        "attn_scales": [],
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": SPATIAL_STRIDE,
        "scale_factor_temporal": TEMPORAL_STRIDE,
    }
    tensors = {name: value.half().contiguous() for name, value in net.state_dict().items()}
    save_tensors(out / WEIGHTS_NAME, tensors)
    write_atomic(out / "config.json", (json.dumps(fields, indent=1) + "\n").encode())


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m fwdata.encode.vae.train_tiny", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for config.json and the weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="folder of an earlier run whose weights to go on from")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="optimizer steps (default 4500)")
    length.add_argument("--minutes", type=float, help="wall-clock time instead of a number of steps")
    given = parser.parse_args(arguments)
    if (given.steps is not None and given.steps < 1) or (given.minutes is not None and given.minutes <= 0):
        parser.error("--steps and --minutes must be positive")
    steps = None if given.minutes else given.steps or 4500
    torch.set_num_threads(1)
    options = TinyVaeOptions(given.out, given.seed, steps, given.minutes, given.start)
    net = train(options)
    save_with_constants(net, options)
    print(json.dumps(psnr(net)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
