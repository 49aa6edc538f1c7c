"""Encoding speed: the whole path against the time the VAE alone needs, and against diffusers one clip at a time."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fwdata.encode.devices import compute_devices
from fwdata.encode.latent_part import PartJob, encode_rows
from fwdata.encode.latents import default_dtype, latent_shape
from fwdata.encode.vae.base import Vae
from fwdata.encode.vae.files import find_weights
from fwdata.encode.vae.net import VaeConfig
from fwdata.encode.vae.wan import DTYPES, LatentVae, load_vae
from fwdata.errors import UsageError
from fwdata.store.episode import StoredEpisode
from fwdata.store.reader import Store


@dataclass(frozen=True)
class EncodeTiming:
    """One way of encoding the same rows."""

    name: str
    """What was done."""
    windows: int
    """Windows with future latents."""
    frames: int
    """Frames that were encoded alone."""
    seconds: float
    """Wall time."""
    vae_seconds: float
    """Of it inside the VAE; on a GPU by its own clock."""
    cpu_seconds: float
    """CPU time of the encoding process, without the processes that decode ahead of it."""

    @property
    def rate(self) -> float:
        """Windows per second, the single frames between them included."""
        return self.windows / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class EncodeBench:
    """What was measured, all in one process on one device."""

    device: str
    """Name of the GPU, or "cpu"."""
    dtype: str
    """What the VAE computed in."""
    vae: EncodeTiming
    """The VAE alone: every clip is in memory before the clock starts."""
    ours: EncodeTiming
    """Decoding, stitching, the VAE and writing."""
    diffusers: EncodeTiming | None
    """Decoding and stitching, then AutoencoderKLWan in the same dtype, one clip after another; None without it."""

    def of_vae(self, way: EncodeTiming) -> float:
        """Share of the VAE's own speed that a way reaches: by wall time on a GPU, on a CPU by CPU time of the encoding
        process, in which other programs do not count."""
        if self.device == "cpu":
            return self.vae.cpu_seconds / max(way.cpu_seconds, 1e-9)
        return self.vae.seconds / max(way.seconds, 1e-9)


def bench_encode(
    store: Store,
    vae: str,
    *,
    stride: int = 4,
    rows: int = 128,
    device: str = "auto",
    dtype: str = "auto",
    batch: int = 1,
    decoders: int = 1,
    peer: bool = True,
) -> EncodeBench:
    """Encode the first `rows` frames of a store in several ways; the store is only read.

    Raises UsageError for a store without episodes, and as `load_vae` does.
    """
    name = compute_devices(device)[0]
    loaded = load_vae(vae, device=name, dtype=default_dtype(dtype, name))
    if not len(store.episodes):
        raise UsageError(f"{store.files.location} holds no episode; there is nothing to encode")
    part = store.episodes[0].part
    episodes = list(store.episodes.of(part))
    todo = _clips(store, episodes, stride)[:rows]
    windows = sum(len(indices) > 1 for _, indices in todo)
    torch.set_num_threads(1)
    clips = [episode.stitched(indices) for episode, indices in todo]
    for clip in {len(clip): clip for clip in clips}.values():
        loaded.submit([clip] * batch).result()  # what is slow the first time only
    alone = _time_vae(loaded, clips, batch, windows)
    with tempfile.TemporaryDirectory(prefix="fwdata-bench-") as folder:
        shape = latent_shape(store, loaded)
        job = PartJob(store, part.name, "bench", shape, stride, batch, decoders, out=Path(folder))
        spent = [0.0]
        began, cpu = time.perf_counter(), time.process_time()
        encode_rows(job, loaded, lambda first, window, seconds: spent.append(seconds), limit=rows)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        ours = EncodeTiming("fwdata", windows, len(todo) - windows, took, sum(spent), cpu)
    theirs = None
    config = loaded.config if isinstance(loaded, LatentVae) else None
    if peer and isinstance(config, VaeConfig) and importlib.util.find_spec("diffusers") is not None:
        theirs = _time_diffusers(loaded, config, vae, todo, windows)
    where = torch.cuda.get_device_name(name) if loaded.on_gpu else "cpu"
    return EncodeBench(where, loaded.dtype, alone, ours, theirs)


def _clips(store: Store, episodes: list[StoredEpisode], stride: int) -> list[tuple[StoredEpisode, NDArray[np.int64]]]:
    """(episode, frames) of every clip of some episodes, in the order in which they are encoded."""
    window = store.manifest.window
    return [
        (e, window.video_indices(t, e.num_frames) if t % stride == 0 else np.array([t], np.int64))
        for e in episodes
        for t in range(e.num_frames)
    ]


def _time_vae(vae: Vae, clips: list[NDArray[np.uint8]], batch: int, windows: int) -> EncodeTiming:
    """Forward after forward, as many under way as when encoding."""
    groups = [
        same[i : i + batch]
        for same in ([c for c in clips if len(c) > 1], [c for c in clips if len(c) == 1])
        for i in range(0, len(same), batch)
    ]
    pending, spent = [], 0.0
    began, cpu = time.perf_counter(), time.process_time()
    for group in groups:
        pending.append(vae.submit(group + [group[-1]] * (batch - len(group))))
        if len(pending) > vae.ahead:
            done = pending.pop(0)
            done.result()
            spent += done.seconds
    for done in pending:
        done.result()
        spent += done.seconds
    return EncodeTiming(
        "VAE alone", windows, len(clips) - windows, time.perf_counter() - began, spent, time.process_time() - cpu
    )


def _time_diffusers(
    vae: Vae, config: VaeConfig, spec: str, todo: list[tuple[StoredEpisode, NDArray[np.int64]]], windows: int
) -> EncodeTiming:
    from diffusers import AutoencoderKLWan

    theirs = AutoencoderKLWan(
        base_dim=config.base_dim,
        decoder_base_dim=config.decoder_base_dim,
        z_dim=config.z_dim,
        dim_mult=list(config.dim_mult),
        num_res_blocks=config.num_res_blocks,
        temperal_downsample=list(config.temperal_downsample),
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
    )
    theirs.load_state_dict(find_weights(spec, decoder=True).tensors)
    theirs = theirs.to(vae.device, DTYPES[vae.dtype]).eval()
    spent = 0.0
    began, cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for episode, indices in todo:
            frames = torch.from_numpy(episode.stitched(indices)).to(vae.device)
            x = frames.permute(3, 0, 1, 2)[None].to(DTYPES[vae.dtype]) / 127.5 - 1.0
            start = time.perf_counter()
            theirs.encode(x).latent_dist.mode().float().cpu()
            spent += time.perf_counter() - start
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return EncodeTiming("diffusers, one at a time", windows, len(todo) - windows, took, spent, cpu)
