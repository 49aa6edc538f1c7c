"""The documents of `fwtrain bench .. --json`."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from fwtrain.bench.computed import Computed, Gpu
from fwtrain.bench.latency import Stage
from fwtrain.bench.peers import PublishedRate
from fwtrain.bench.timing import RepeatedTiming


class RatioJson(TypedDict):
    """Our time against another implementation's for the same work."""

    name: str
    """What was run."""
    ours: RepeatedTiming
    """Time of this implementation."""
    other: RepeatedTiming
    """Time of the other one."""
    difference: float | None
    """Largest relative difference of what both return; null: not compared."""
    ratio_best: float
    """Their time over ours, fastest runs."""
    ratio_median: float
    """Their time over ours, median runs."""


class VaeCostJson(TypedDict):
    """What encoding while training would cost, in CPU seconds."""

    encode: float
    """One 9-frame window in the encoder of the real width."""
    window: float
    """One training window from cached latents."""
    online: float
    """Their sum over the second: so many times as long takes a step that encodes."""


class BenchTrainJson(TypedDict):
    """The document of `fwtrain bench train --json`."""

    size: str
    """Size of the model."""
    parameters: int
    """Its parameters."""
    batch: int
    """Windows per step."""
    threads: int
    """CPU threads."""
    dtype: str
    """What it computed in."""
    ratios: list[RatioJson]
    """The comparisons."""
    vae: NotRequired[VaeCostJson]
    """With --vae."""
    data_wait: NotRequired[float]
    """With --store: share of the time that training waited for data, 0 .. 1."""


class BenchComputedJson(TypedDict):
    """The document of `fwtrain bench train --computed --json`."""

    measured: bool
    """False: from counts and data sheets."""
    flop_utilisation: float
    """Assumed share of the bf16 peak."""
    bandwidth_utilisation: float
    """Assumed share of the memory bandwidth."""
    gpus: list[Gpu]
    """The GPUs."""
    rows: list[Computed]
    """Every variant on each."""


class BenchPeersJson(TypedDict):
    """The document of `fwtrain bench train --peers --json`."""

    card: str
    """Name of the GPU, or the CPU's architecture."""
    processes: int
    """GPUs that share the work."""
    parameters: int
    """Of the model."""
    setting: str
    """What was needed to fit."""
    windows: int
    """Per GPU and step."""
    seconds: float
    """Median of the steps."""
    fastest: float
    """The fastest step."""
    vae: float
    """Seconds of the VAE's encoder on as many clips; 0: left out."""
    peak_bytes: int
    """Most GPU memory of this process; 0 on a CPU."""
    mfu: float | None
    """Share of the card's bf16 peak; null: the peak is not known."""
    samples_per_second_per_gpu: float
    """Windows per second and GPU, from cached latents."""
    samples_per_second_per_gpu_with_vae: float
    """The same with the VAE in the step."""
    published: list[PublishedRate]
    """What other trainers report."""
    ratios: dict[str, float | None]
    """Trainer -> our rate over its; null on a card of another kind."""


class BenchLatencyJson(TypedDict):
    """The document of `fwtrain bench latency --json`."""

    size: str
    """Size of the model."""
    device: str
    """Where it ran."""
    batch: int
    """Observations per call."""
    steps: int
    """Denoising steps."""
    stages: list[Stage]
    """Median times."""
