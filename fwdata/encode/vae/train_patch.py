"""Trains the patch VAE that ships with the package as `tiny-libero`, on images of the LIBERO simulator.

    python -m fwdata.encode.vae.libero_clips --out CLIPS
    python -m fwdata.encode.vae.train_patch CLIPS --out OUT [--steps N | --minutes M] [--seed S]
    python -m fwdata.encode.vae.train_patch CLIPS --measure OUT

Writes OUT/config.json and OUT/diffusion_pytorch_model.safetensors (float16, atomically), which `load_vae(OUT)` reads,
every `SNAPSHOT_EVERY` steps and at the end, and prints the PSNR of held-out tasks. It begins with the principal
components of patches, in closed form: 27.7 dB before the first step. Then Adam on squared error + a little L1;
`SAMPLE_SHARE` of the batches are of the sample world. The weights written are an exponential moving average.

The shipped weights are the snapshot of step 3000 of a run of --minutes 45, on clips of `libero_clips --tasks 5`, with 3
tries for the first task and 1 for the others: 28.1 dB on single frames of held-out tasks, 24.5 dB on the 8 future
frames of a clip and 24.8 dB with its first; 26.5, 23.3 and 23.6 dB in the sample world.

With --steps the result depends on the seed and the machine's arithmetic alone; with --minutes the learning rate follows
the clock.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fwdata.encode.tensor_files import save_tensors
from fwdata.encode.vae.averaged import AveragedTraining
from fwdata.encode.vae.files import WEIGHTS_NAME
from fwdata.encode.vae.libero_clips import load_clips
from fwdata.encode.vae.net import CHUNK, LATENT_CHANNELS, SPATIAL_STRIDE, TEMPORAL_STRIDE
from fwdata.encode.vae.patch_net import PIXELS, PatchConfig, PatchVae
from fwdata.encode.vae.train_tiny import HELD_OUT_CLIPS, HELD_OUT_SEED, clips, to_model
from fwdata.io import write_atomic

SIZES = PatchConfig((0.0,) * LATENT_CHANNELS, (1.0,) * LATENT_CHANNELS)
LEARNING_RATE = 1e-3
EMA = 0.998
SNAPSHOT_EVERY = 500
SAMPLE_SHARE = 0.2
SAMPLE_CLIPS = 200
LONG_SHARE = 0.4
"""Share of the batches that are a clip of 5 frames instead of single frames."""
SINGLE = 4
"""Single frames per batch."""


@dataclass(frozen=True)
class PatchTraining:
    """What one run is asked for; exactly one of steps and minutes is set."""

    clips: Path
    """Folder of `libero_clips`."""
    out: Path
    """Folder for config.json and the weights."""
    seed: int
    """Of batches and first weights."""
    steps: int | None
    """Optimizer steps."""
    minutes: float | None
    """Wall-clock time instead."""


class ClipBatches:
    """Random windows of simulator and sample-world clips."""

    def __init__(self, folder: Path, random: np.random.Generator) -> None:
        self._random = random
        self.simulator = load_clips(folder / "train")
        self.sample = np.stack(list(clips(random, SAMPLE_CLIPS)))

    def draw(self) -> Tensor:
        """float32 [B, 3, T, H, W] in -1..1, T 1 or 5."""
        known = self.sample if self._random.random() < SAMPLE_SHARE else self.simulator
        frames, count = (1 + CHUNK, 1) if self._random.random() < LONG_SHARE else (1, SINGLE)
        picked = []
        for clip in known[self._random.integers(len(known), size=count)]:
            first = self._random.integers(len(clip) - frames + 1)
            picked.append(clip[first : first + frames])
        return to_model(np.stack(picked))

    def stills(self) -> NDArray[np.uint8]:
        """uint8 [n, 16, 16, 3]: patches of single frames, 1 - `SAMPLE_SHARE` of them of the simulator."""
        mine, other = patches(self.simulator[:, ::4]), patches(self.sample[:, :1])
        count = int(len(mine) * SAMPLE_SHARE / (1 - SAMPLE_SHARE))
        return np.concatenate([mine, other[self._random.integers(len(other), size=count)]])


def patches(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [.., H, W, 3] to [n, 16, 16, 3]."""
    size = SPATIAL_STRIDE
    height, width = frames.shape[-3] // size, frames.shape[-2] // size
    cut = frames.reshape(-1, height, size, width, size, 3).swapaxes(2, 3)
    return cut.reshape(-1, size, size, 3)


def components(stills: NDArray[np.uint8]) -> tuple[Tensor, Tensor, Tensor]:
    """(mean [768], encoding [48, 768], decoding [768, 48]) of the leading principal components, codes of variance 1."""
    count, total, square = 0, torch.zeros(PIXELS), torch.zeros(PIXELS, PIXELS)
    for some in np.array_split(stills, max(1, len(stills) // 4096)):
        flat = F.pixel_unshuffle(to_model(some[:, None])[:, :, 0], SPATIAL_STRIDE).flatten(1)
        count, total, square = count + len(flat), total + flat.sum(0), square + flat.T @ flat
    mean = total / count
    values, vectors = torch.linalg.eigh(square / count - torch.outer(mean, mean))
    spread = values[-LATENT_CHANNELS:].flip(0).clamp_min(1e-8).sqrt()
    basis = vectors[:, -LATENT_CHANNELS:].flip(1)
    return mean, (basis / spread).T.contiguous(), basis * spread


def first_network(stills: NDArray[np.uint8]) -> PatchVae:
    """The linear code and nothing else; a chunk of 4 frames has the code of their mean."""
    net = PatchVae(SIZES)
    mean, encode, decode = components(stills)
    assert net.decoder is not None
    with torch.no_grad():
        for layer in (net.encoder.correct, net.decoder.write):
            layer.weight.zero_()
            layer.bias.zero_()  # type: ignore[union-attr]
        for layer, frames in ((net.encoder.code_first, 1), (net.encoder.code_chunk, CHUNK)):
            layer.weight.copy_((encode / frames).repeat(1, frames)[..., None, None])
            layer.bias.copy_(-encode @ mean)  # type: ignore[union-attr]
        for layer, frames in ((net.decoder.paint_first, 1), (net.decoder.paint_chunk, CHUNK)):
            layer.weight.copy_(decode.repeat(frames, 1)[..., None, None])
            layer.bias.copy_(mean.repeat(frames))  # type: ignore[union-attr]
    return net


def loss_of(net: PatchVae, x: Tensor) -> Tensor:
    """Scalar training loss of a batch [B, 3, T, H, W]."""
    error = net.decoded(net.moments(x)[0]) - x
    return error.square().mean() + 0.02 * error.abs().mean()


def learning_rate(progress: float) -> float:
    """Linear warm-up over the first 2 %, then a cosine to 1 % of the peak."""
    return LEARNING_RATE * min(progress / 0.02 + 1e-3, 1.0) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(asked: PatchTraining) -> PatchVae:
    """The averaged network. Prints a line every 100 steps and the PSNR at every snapshot."""
    torch.manual_seed(asked.seed)
    batches = ClipBatches(asked.clips, np.random.default_rng(asked.seed))
    net = first_network(batches.stills())
    training = AveragedTraining(net, EMA)
    start, step, progress = time.monotonic(), 0, 0.0
    while progress < 1.0:
        if step % SNAPSHOT_EVERY == 0:
            snapshot(training.averaged, batches, asked, f"step {step}")
        loss = loss_of(net, batches.draw())
        training.step(loss, learning_rate(progress))
        step += 1
        minutes = (time.monotonic() - start) / 60
        progress = step / asked.steps if asked.steps else minutes / (asked.minutes or 1.0)
        if step % 100 == 0:
            print(f"step {step}  {minutes:.1f} min  loss {loss.item():.5f}", flush=True)
    return snapshot(training.averaged, batches, asked, f"finished after {step} steps")


def snapshot(averaged: dict[str, Tensor], batches: ClipBatches, asked: PatchTraining, when: str) -> PatchVae:
    """Write the averaged weights, rounded to float16 as they are shipped, with their latents' mean and spread."""
    net = PatchVae(SIZES)
    net.load_state_dict({name: value.half().float() for name, value in averaged.items()})
    net.eval()
    shown = batches.simulator[:, :9]
    with torch.inference_mode():
        latents = torch.cat([net.moments(to_model(clip[None]))[0][0].flatten(1) for clip in shown], dim=1).double()
    mean, std = latents.mean(1).tolist(), latents.std(1).clamp_min(1e-3).tolist()
    net.config = replace(
        net.config, latents_mean=tuple(round(v, 6) for v in mean), latents_std=tuple(round(v, 6) for v in std)
    )
    write(net, asked.out)
    print(when, json.dumps(psnr(net, asked.clips)), flush=True)
    return net


def write(net: PatchVae, out: Path) -> None:
    """Both files, each under a temporary name first and then moved into place."""
    out.mkdir(parents=True, exist_ok=True)
    strides = {"scale_factor_spatial": SPATIAL_STRIDE, "scale_factor_temporal": TEMPORAL_STRIDE}
    fields = {"_class_name": "PatchVae", **asdict(net.config), **strides}
    save_tensors(out / WEIGHTS_NAME, {name: value.half().contiguous() for name, value in net.state_dict().items()})
    write_atomic(out / "config.json", (json.dumps(fields, indent=1) + "\n").encode())


def psnr(net: PatchVae, folder: Path) -> dict[str, float]:
    """PSNR in dB (mean squared error over all clips) of held-out tasks and of the sample world.

    1 frame and 9 frames of a clip, and its 8 future frames without the first: all, and of LIBERO's cameras each.
    """
    result: dict[str, float] = {}
    held_out = [clip[k : k + 9] for clip in load_clips(folder / "held_out") for k in (0, 8, 16)]
    sample = list(clips(np.random.default_rng(HELD_OUT_SEED), HELD_OUT_CLIPS))
    with torch.inference_mode():
        for name, known in (("libero", held_out), ("sample", sample)):
            errors: dict[str, list[float]] = {}
            for clip in known:
                x = to_model(clip[None, :9])
                error = (net.decoded(net.moments(x)[0]).clamp(-1.0, 1.0) - x)[0].square() / 4.0
                parts = {"1_frames": error[:, :1], "9_frames": error, "future": error[:, 1:]}
                if name == "libero":
                    half = error.shape[-1] // 2
                    parts |= {"future_scene": error[:, 1:, :, :half], "future_wrist": error[:, 1:, :, half:]}
                for part, values in parts.items():
                    errors.setdefault(part, []).append(values.mean().item())
            result |= {f"{name}_{part}": _decibels(values) for part, values in errors.items()}
    return result


def _decibels(errors: Sequence[float]) -> float:
    return round(-10 * math.log10(float(np.mean(errors))), 2)


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m fwdata.encode.vae.train_patch", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("clips", type=Path, metavar="CLIPS", help="folder that libero_clips wrote")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="folder for config.json and the weights")
    where.add_argument("--measure", type=Path, metavar="VAE", help="only print the PSNR of an earlier result")
    parser.add_argument("--seed", type=int, default=0)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="optimizer steps (default 6000)")
    length.add_argument("--minutes", type=float, help="wall-clock time instead of a number of steps")
    given = parser.parse_args(arguments)
    if (given.steps is not None and given.steps < 1) or (given.minutes is not None and given.minutes <= 0):
        parser.error("--steps and --minutes must be positive")
    torch.set_num_threads(1)
    if given.measure is not None:
        from fwdata.encode.vae.wan import LatentVae, load_vae

        measured = load_vae(str(given.measure), decoder=True)
        assert isinstance(measured, LatentVae) and isinstance(measured.net, PatchVae)
        print(json.dumps(psnr(measured.net, given.clips)))
        return 0
    steps = None if given.minutes else given.steps or 6000
    train(PatchTraining(given.clips, given.out, given.seed, steps, given.minutes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
