"""What encoding a store's latents comes to: windows, bytes and hours at several strides, before anything is encoded.

Hours come from a few windows of the store through the VAE where its weights are at hand; else from counted operations
at a throughput that is stated.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from fwdata.encode.devices import compute_devices
from fwdata.encode.hub import WAN22_DIFFUSERS_ID, is_cached, is_hub_id
from fwdata.encode.latents import EncodeRequest, default_dtype, latent_shape, plan_latents
from fwdata.encode.vae.base import Vae
from fwdata.encode.vae.files import EMBEDDED, ORIGINAL_NAMES, WEIGHTS_NAME
from fwdata.encode.vae.net import TEMPORAL_STRIDE
from fwdata.encode.vae.wan import load_vae
from fwdata.errors import UsageError
from fwdata.plugins import VAES
from fwdata.store.episode import StoredEpisode
from fwdata.store.writable import open_writable

ASSUMED_TFLOPS = 200.0
"""Throughput of one H100 in bfloat16 that hours without a measurement assume: a fifth of its dense peak."""

FRAME_OPERATIONS, CHUNK_OPERATIONS = 4.648e6, 13.967e6
"""Operations per pixel of a clip's first frame, and of every four frames after it, counted with torch's FlopCounterMode
on the released sizes at 224x448 and 384x320."""

SAMPLES = 3
"""Clips of each length that a measurement encodes, after one that is not counted."""


@dataclass(frozen=True)
class Cost:
    """Time of one forward, and where it comes from."""

    window: float
    """Seconds of a window's clip."""
    frame: float
    """Seconds of a single frame."""
    devices: int
    """Forwards that run at once: GPUs, or processes on a CPU."""
    measured: bool
    """Whether it was measured here, with this VAE."""
    basis: str
    """How it was found, for people."""

    def hours(self, frames: int, windows: int) -> float:
        """Hours of an encoding: a frame at which a window starts is encoded as the window."""
        return (windows * self.window + (frames - windows) * self.frame) / self.devices / 3600


@dataclass(frozen=True)
class StrideEstimate:
    """What one stride comes to."""

    stride: int
    """Frames between two windows with future latents."""
    frames: int
    """First-frame latents: every frame of the store."""
    windows: int
    """Windows with future latents."""
    video_share: float
    """Share of the training windows that get the video loss; all of them get the action loss."""
    bytes: int
    """Size of the whole cache."""
    hours: float
    """Time to encode all of it."""


class LatentPlanJson(TypedDict):
    """The document of `fwdata plan --json`."""

    cost: Cost
    """Time of one forward, and where it comes from."""
    strides: list[StrideEstimate]
    """What each stride comes to."""


def estimate_latents(
    store: Path,
    vae: str,
    strides: Sequence[int],
    *,
    device: str = "auto",
    dtype: str = "auto",
    devices: int | None = None,
    workers: int = 1,
) -> tuple[Cost, list[StrideEstimate]]:
    """Estimate encoding a store at several strides. devices: GPUs to plan for, None for those that are here.

    Raises UsageError for a stride below 1 or a VAE that is not one. Cost: a few forwards where the weights are at hand.
    """
    wrong = [stride for stride in strides if stride < 1]
    if wrong or not strides:
        raise UsageError(f"--stride must be numbers of at least 1 such as 1,2,4, found {wrong[0] if wrong else 'none'}")
    if at_hand(vae):
        cost = _measured(store, vae, device, dtype, devices, workers)
    else:
        cost = _computed(store, vae, devices or 1)
    found = []
    for stride in strides:
        plan = plan_latents(EncodeRequest(store, vae, stride=stride))
        share = plan.windows / plan.frames if plan.frames else 0.0
        hours = cost.hours(plan.frames, plan.windows)
        found.append(StrideEstimate(stride, plan.frames, plan.windows, share, plan.bytes, hours))
    return cost, found


def at_hand(vae: str) -> bool:
    """Whether a VAE can be loaded without downloading it."""
    if vae in EMBEDDED or vae in VAES.names() or Path(vae).exists():
        return True
    hub_id = WAN22_DIFFUSERS_ID if vae == "wan2.2" else vae
    return is_hub_id(hub_id) and any(is_cached(hub_id, name) for name in (f"vae/{WEIGHTS_NAME}", *ORIGINAL_NAMES))


def _measured(store: Path, vae: str, device: str, dtype: str, devices: int | None, workers: int) -> Cost:
    """Seconds of a few clips of the store's first episode, on the first device."""
    opened = open_writable(store)
    if not len(opened.episodes):
        raise UsageError(f"{store} holds no episode; there is nothing to encode")
    names = compute_devices(device)
    loaded = load_vae(vae, device=names[0], dtype=default_dtype(dtype, names[0]))
    latent_shape(opened, loaded)
    torch.set_num_threads(1)  # as when it encodes
    episode = opened.episodes[0]
    window = _seconds(loaded, episode, opened.manifest.window.video_indices(0, episode.num_frames))
    frame = _seconds(loaded, episode, np.zeros(1, np.int64))
    where = torch.cuda.get_device_name(names[0]) if loaded.on_gpu else "one CPU thread"
    count = (devices or len(names)) if loaded.on_gpu else workers
    basis = f"{SAMPLES} windows and {SAMPLES} frames of this store, {loaded.dtype}, on {where}; decoding runs beside it"
    return Cost(window, frame, count, True, basis)


def _seconds(vae: Vae, episode: StoredEpisode, indices: NDArray[np.int64]) -> float:
    clip = episode.stitched(indices)
    vae.encode(clip)
    began = time.perf_counter()
    for _ in range(SAMPLES):
        vae.encode(clip)
    return (time.perf_counter() - began) / SAMPLES


def _computed(store: Path, vae: str, devices: int) -> Cost:
    if vae != "wan2.2" and not is_hub_id(vae):
        raise UsageError(f"--vae {vae!r} is neither tiny nor wan2.2, a path that exists or a hub id")
    manifest = open_writable(store).manifest
    height, width = manifest.stitch.size
    counted = [vae_operations(frames, height, width) for frames in (manifest.window.num_video_frames, 1)]
    basis = (
        f"computed, not measured: {counted[0] / 1e12:.2f} TFLOP a window and {counted[1] / 1e12:.2f} a frame of "
        f"{height}x{width} at an assumed {ASSUMED_TFLOPS:.0f} TFLOP/s per GPU (H100, bfloat16, a fifth of its peak); "
        f"the weights of {vae} are not on this machine"
    )
    window, frame = (operations / (ASSUMED_TFLOPS * 1e12) for operations in counted)
    return Cost(window, frame, devices, False, basis)


def vae_operations(frames: int, height: int, width: int) -> float:
    """Floating-point operations of encoding a clip of 1 + 4k frames with the released VAE; within 0.1 % of a count."""
    chunks = (frames - 1) // TEMPORAL_STRIDE
    return (FRAME_OPERATIONS + chunks * CHUNK_OPERATIONS) * height * width
