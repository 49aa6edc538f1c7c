"""A whole training step as other trainers publish theirs: 16 windows per GPU, LIBERO's shapes, every weight trained.

Measured are forward, backward and AdamW on batches that cross from page-locked memory, as in `fwtrain run`; with it the
VAE on as many clips, which a trainer without a cache has in every step. The peers' figures are their own, of their own
cards, and stand beside ours only where the card is of the same kind.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fwdata.encode.vae.net import VaeConfig, WanVae
from fwdata.encode.vae.wan import use_channels_last
from fwdata.errors import UsageError
from fwtrain.batch import Batch
from fwtrain.bench.cases import ACTION_DIM, PROPRIO_DIM, SIZES, random_batch, size_config
from fwtrain.model import Draws, FastWAM, ModelConfig, draw, losses
from fwtrain.model.flops import forward_flops
from fwtrain.recipe import Recipe, load_recipe
from fwtrain.train.build import prepare
from fwtrain.train.memory import CONTEXT_BYTES, GIB, KnownPeaks, MemoryPlan
from fwtrain.train.optim import Optimizer
from fwtrain.train.parallel import Team
from fwtrain.train.plan import CHECKPOINTING, EIGHT_BIT, FSDP

WINDOWS = 16
"""Windows per GPU and step, as both peers publish."""
CLIPS = 4
"""Clips that the VAE encodes at once."""
WARM_UP = 3
"""Steps before the clock starts: kernels are chosen, state is made."""


@dataclass(frozen=True)
class PublishedRate:
    """What another trainer reports of Fast-WAM on LIBERO at 16 windows per GPU."""

    name: str
    """The trainer."""
    card: str
    """The GPU it was measured on."""
    like: tuple[str, ...]
    """Parts of the names of cards of that kind."""
    samples: float
    """Windows per second and GPU."""


PUBLISHED = (
    PublishedRate("EasyWAM", "H100", ("H100", "H800"), 17.3),
    PublishedRate("LoongForge", "A800", ("A800", "A100"), 12.8),
)
PEAKS = {("H100", "H200", "H800"): 989e12, ("A100", "A800"): 312e12, ("L40S",): 362e12, ("4090",): 165.2e12}
"""Dense bf16 FLOP/s by parts of a card's name, from the makers' data sheets."""


@dataclass(frozen=True)
class PeerStep:
    """One measured step."""

    card: str
    """Name of the GPU, or the CPU's architecture."""
    processes: int
    """GPUs that share the work."""
    parameters: int
    """Of the model."""
    setting: str
    """What was needed to fit: options of the recipe, or "as published"."""
    windows: int
    """Per GPU and step."""
    seconds: float
    """Median of the steps."""
    fastest: float
    """The fastest step."""
    vae: float
    """Seconds of the VAE's encoder on as many clips; 0 where it was left out."""
    peak_bytes: int
    """Most GPU memory of this process; 0 on a CPU."""
    mfu: float | None
    """Share of the card's bf16 peak; None for a card whose peak is not known."""

    @property
    def samples(self) -> float:
        """Windows per second and GPU, from cached latents."""
        return self.windows / self.seconds

    @property
    def online_seconds(self) -> float:
        """A step with the VAE in it."""
        return self.seconds + self.vae

    @property
    def online(self) -> float:
        """Windows per second and GPU with the VAE in the step."""
        return self.windows / self.online_seconds

    def ratio(self, peer: PublishedRate) -> float | None:
        """Our rate over a peer's; None on a card of another kind."""
        return self.samples / peer.samples if any(part in self.card for part in peer.like) else None


def bench_peers(
    team: Team, *, full: bool = True, steps: int = 20, vae: bool = True, done: Callable[[int], None] = lambda _: None
) -> PeerStep:
    """Time `steps` training steps of the published model, or (not `full`) of a tiny one.

    Raises UsageError where no setting fits the GPU. done: called with 1 after every step.
    """
    config = ModelConfig.wan22_5b(ACTION_DIM, PROPRIO_DIM) if full else size_config(SIZES["tiny"])
    recipe = fitting(config, team)
    times, parameters, peak = _steps(team, config, recipe, steps, done)  # its model is gone before the VAE comes
    encoded = _vae_seconds(team.device, config, full) if vae else 0.0
    median = statistics.median(times)
    limit = next((flops for parts, flops in PEAKS.items() if any(part in card(team.device) for part in parts)), None)
    work = 3 * WINDOWS * forward_flops(config)
    return PeerStep(
        card=card(team.device),
        processes=team.size,
        parameters=parameters,
        setting=", ".join(_chosen(recipe)) or "as published",
        windows=WINDOWS,
        seconds=median,
        fastest=min(times),
        vae=encoded,
        peak_bytes=peak,
        mfu=None if limit is None else work / median / limit,
    )


def _steps(
    team: Team, config: ModelConfig, recipe: Recipe, steps: int, done: Callable[[int], None]
) -> tuple[list[float], int, int]:
    """Seconds of every step, parameters of the model, and the most GPU memory in bytes."""
    model = FastWAM(config, seed=0, device=team.device, dtype=torch.bfloat16)
    prepare(model, recipe)
    parameters = model.num_parameters()
    wrapped = team.distribute(model, every_tensor=True)
    optimizer = Optimizer(model, recipe.optim, team)
    batch, draws = _inputs(config, team.device)

    def step() -> None:
        found = wrapped(losses, batch.to(team.device), draws)
        found.total.backward()
        optimizer.step(1e-5)

    times = _timed(step, steps, team.device, done)
    peak = torch.cuda.max_memory_allocated(team.device) if team.device.type == "cuda" else 0
    return times, parameters, peak


def fitting(config: ModelConfig, team: Team) -> Recipe:
    """The first recipe that fits the GPU: as published, with 8-bit moments, with layers computed again besides."""
    shared = (FSDP,) if team.size > 1 else ()
    known, tried = KnownPeaks(), []
    for extra in ((), (EIGHT_BIT,), (CHECKPOINTING, EIGHT_BIT)):
        recipe = load_recipe("libero", ["model.init=null", f"optim.batch_size={WINDOWS * team.size}", *shared, *extra])
        if team.device.type != "cuda":
            return recipe
        free, total = torch.cuda.mem_get_info(team.device)
        need = MemoryPlan(recipe, config, team.size, known).at(WINDOWS).total
        if need <= free - CONTEXT_BYTES - total // 20:
            return recipe
        tried.append(f"{need / GIB:.0f}")
    raise UsageError(
        f"a step of {WINDOWS} windows is computed to need {' / '.join(tried)} GiB on each GPU (as published / 8-bit "
        f"moments / checkpointing too), {team.device} has {free / GIB:.0f} free; use more GPUs: "
        "torchrun --nproc-per-node N -m fwtrain bench train --peers"
    )


def card(device: torch.device) -> str:
    """Name of the GPU, or the CPU's architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"


def _chosen(recipe: Recipe) -> list[str]:
    words = [(recipe.optim.moments == "8bit", "8-bit moments"), (recipe.gradient_checkpointing, "checkpointing")]
    return [word for wanted, word in words if wanted]


def _inputs(config: ModelConfig, device: torch.device) -> tuple[Batch, Draws]:
    batch = random_batch(config, WINDOWS)
    draws = draw(batch, config.variant, torch.Generator().manual_seed(0))
    return (batch.pinned(), draws.pinned()) if device.type == "cuda" else (batch, draws)


def _timed(work: Callable[[], None], steps: int, device: torch.device, done: Callable[[int], None]) -> list[float]:
    """Wall seconds of every step; on a GPU from an idle device to an idle device."""
    seconds = []
    for number in range(WARM_UP + steps):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - began)
            done(1)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def _vae_seconds(device: torch.device, config: ModelConfig, full: bool) -> float:
    """The encoder of the real width (or a thin one) in bfloat16 on a step's clips, CLIPS at once; random weights."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    zeros, width = (0.0,) * 48, 160 if full else 8
    vae = WanVae(
        VaeConfig(base_dim=width, decoder_base_dim=width, latents_mean=zeros, latents_std=zeros), decoder=False
    )
    vae = vae.to(device, torch.bfloat16).eval()
    use_channels_last(vae)
    frames, height, width = config.latent_grid
    shape = (CLIPS, 3, 1 + 4 * (frames - 1), 16 * height, 16 * width) if full else (CLIPS, 3, 5, 32, 32)
    clip = torch.zeros(shape, device=device, dtype=torch.bfloat16)

    def encode() -> None:
        for _ in range(WINDOWS // CLIPS):
            vae.moments(clip)

    return statistics.median(_timed(encode, 3, device, lambda _: None))
