"""Encoding a store's latents: first-frame latents of every frame, future latents of every window start.

A window's clip is its 9 video frames (every 4th of 33 raw frames, clamped at the episode's end). A window's own first
latent has the bits of encoding its first frame alone, so a frame at which a window starts is encoded once, as the
window. Parts are spread over the GPUs of the machine, or over processes on its cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from fwdata.encode.devices import compute_devices, visible
from fwdata.encode.fidelity import reconstruction_psnr
from fwdata.encode.latent_part import OnFrame, PartJob, encode_part
from fwdata.encode.vae.base import Vae
from fwdata.encode.vae.net import PATCH
from fwdata.encode.vae.wan import Dtype, LatentFormat, distance_to_float32, latent_format, load_vae
from fwdata.errors import UsageError, quoted
from fwdata.images.colour import colour_version
from fwdata.images.layouts import nearest_size
from fwdata.images.video import decoder_version
from fwdata.io import check_free
from fwdata.pipeline.jobs import end_job
from fwdata.pipeline.units import ALONE, Spread, UnitsReport
from fwdata.pipeline.workers import Link, WorkerPool
from fwdata.store.caches.identity import find_caches, latent_settings
from fwdata.store.caches.latents import create_latents, publish_latents
from fwdata.store.caches.refinement import BegunRefinement
from fwdata.store.episode import Part
from fwdata.store.files import write_lock
from fwdata.store.metadata import read_complete
from fwdata.store.reader import Store
from fwdata.store.records import JsonObject, LatentCacheRecord, LatentPartRecord
from fwdata.store.writable import open_writable

DISTANCE = "distance_to_float32"
"""Key of a VAE's identity; see `fwdata.encode.vae.wan.distance_to_float32`."""


@dataclass(frozen=True)
class EncodeRequest:
    """One `fwdata encode-latents` call."""

    store: Path
    """The store."""
    vae: str
    """What `fwdata.encode.vae.wan.load_vae` takes."""
    name: str = "default"
    """Name of the cache."""
    stride: int | None = None
    """Frames between windows that get future latents; None: that of the cache, 1 for a new one."""
    device: str = "auto"
    """See `fwdata.encode.devices.compute_devices`."""
    dtype: str = "auto"
    """What the VAE computes in; "auto": as the cache was, for a new one bfloat16 on a GPU and float32 on a CPU."""
    replace: bool = False
    """Remove the cache of that name first."""
    workers: int = 1
    """Processes: on a CPU they encode, beside GPUs they decode and stitch."""
    devices: tuple[str, ...] = ()
    """Numbers of GPUs instead of `device`; "cpu" stands for one process on it."""
    batch: int = 1
    """Clips per forward; another number makes other bits, so it is part of the cache's identity."""
    decoders: int = 0
    """On a CPU: processes per encoding process that decode and stitch ahead of it; changes no bit."""
    spread: Spread = ALONE
    """Which parts are encoded here, and by what; see `fwdata.encode.spread_latents`."""


@dataclass
class EncodeReport:
    """What an encoding did."""

    name: str
    """Name of the cache."""
    fingerprint: str
    """Digest of its identity."""
    first: int = 0
    """First-frame latents encoded in this run (again where a worker ended within a shard)."""
    windows: int = 0
    """Windows encoded in this run."""
    seconds: float = 0.0
    """Wall time of the whole run."""
    busy_seconds: float = 0.0
    """Time that processes spent on parts, summed over them."""
    vae_seconds: float = 0.0
    """Of it inside the VAE: of a GPU by its own clock."""
    units: UnitsReport | None = None
    """Where other processes work on the same cache: what was done here, and what is left."""
    kept: tuple[BegunRefinement, ...] = ()
    """Refinements of the cache to other strides that were begun and not completed, and that are kept."""
    psnr: float | None = None
    """dB of a few images after encoding and decoding; None when nothing was encoded or the VAE has no decoder."""


@dataclass(frozen=True)
class LatentPlan:
    """What an encoding would write."""

    frames: int
    """First-frame latents."""
    windows: int
    """Windows with future latents."""
    bytes: int
    """Size of all latents, float16."""


def plan_latents(request: EncodeRequest) -> LatentPlan:
    """Count what a store's latents come to. No weights are loaded, except those of a VAE that is a plugin."""
    store = open_writable(request.store)
    window = store.manifest.window
    found = None if request.replace else find_caches(store.files, "latents", LatentCacheRecord).get(request.name)
    stride = request.stride or (found.stride if found is not None else 1)
    windows = sum(len(window.starts(e.num_frames, stride)) for e in store.episodes)
    channels, height, width = latent_shape(store, latent_format(request.vae))
    latent_bytes = channels * height * width * np.dtype(np.float16).itemsize
    total = latent_bytes * (store.num_frames + windows * (window.latent_frames - 1))
    return LatentPlan(store.num_frames, windows, total)


def latent_identity(store: Store, vae: JsonObject, stride: int, batch: int = 1) -> JsonObject:
    """Every setting that can change a bit of a latent cache; its digest is the cache's fingerprint.

    Images of recorded video are made when they are read: what makes them is part of it.
    """
    settings = {"vae": vae, "stride": stride, **latent_settings(store.manifest)}
    if batch > 1:
        settings["batch"] = batch
    if not store.has_video:
        return settings
    cameras = [camera for part in store.parts for camera in part.record.cameras.values()]
    colour = colour_version(header.pix_fmt for camera in cameras for header in camera.headers)
    return {**settings, "video": {"colour": colour, "decoder": decoder_version()}}


def latent_shape(store: Store, vae: Vae | LatentFormat) -> tuple[int, int, int]:
    """(channels, h, w) of one latent frame of a store's stitched image. UsageError when the image does not fit."""
    stitch = store.manifest.stitch
    height, width = stitch.size
    step = vae.spatial_stride * PATCH
    if height % step or width % step:
        near = nearest_size(stitch.layout, len(stitch.cameras), stitch.camera_size, stitch.size, step)
        size = f"stitch.size=[{near[0]},{near[1]}]" if near else "stitch.size=[H,W]"
        raise UsageError(
            f"the stitched size {height}x{width} must be a multiple of {step} (VAE stride {vae.spatial_stride}, model "
            f"patch {PATCH}); change it with `fwdata view {quoted(store.location)} --set {quoted(size)}`"
        )
    return vae.channels, height // vae.spatial_stride, width // vae.spatial_stride


def job_name(cache: str) -> str:
    """Name of the job that encodes a cache."""
    return f"encode-latents-{cache}"


def pending_parts(store: Store, key: str) -> list[Part]:
    """Parts that have episodes and are not wholly encoded under a cache key."""
    found = []
    for part in store.parts:
        record = read_complete(store.files, f"latents/{key}/{part.name}", LatentPartRecord)
        if part.record.episodes and (record is None or record.source != part.digest):
            found.append(part)
    return found


def encode_latents(request: EncodeRequest, on_plan: Callable[[int], None], on_frame: OnFrame) -> EncodeReport:
    """Encode every latent a store lacks; running it again continues, and writes nothing when all is done.

    A cache of that name whose stride is a multiple of the one asked for is refined: its latents are taken over, and it
    is read until the finer one is complete. Refinements to other strides that were not completed are taken over too,
    and stay where they have windows that this one lacks. on_plan: called with the number of frames in the parts to
    encode. on_frame: see `fwdata.encode.latent_part`. StaleCache when the cache of that name was made with other
    settings (the differences are named); UsageError for a VAE that cannot be found or downloaded, or a device that
    cannot be used.
    """
    if request.stride is not None and request.stride < 1:
        raise UsageError(f"--stride must be at least 1, found {request.stride}")
    if request.batch < 1:
        raise UsageError(f"--batch must be at least 1, found {request.batch}")
    began = time.monotonic()
    store = open_writable(request.store)
    check_free(request.store)
    devices = compute_devices(request.device, request.devices)
    found = None if request.replace else find_caches(store.files, "latents", LatentCacheRecord).get(request.name)
    dtype = default_dtype(request.dtype, devices[0], found)
    vae = load_vae(request.vae, device=devices[0], dtype=dtype)
    latent_shape(store, vae)
    own_identity = vae_identity(vae, devices, found)
    with write_lock(request.store):
        store = open_writable(request.store)  # again: the view may have changed until now
        stride = request.stride or (found.stride if found is not None else 1)
        identity = latent_identity(store, own_identity, stride, request.batch)
        shape = latent_shape(store, vae)
        target = create_latents(store, request.name, identity, request.vae, shape, request.replace)
        known = target.known(store)
        parts = pending_parts(store, target.key)
        on_plan(sum(p.record.frames for p in parts))
        report = EncodeReport(request.name, target.record.fingerprint, kept=target.kept)

        def count(first: int, windows: int, spent: float) -> None:
            report.first, report.windows = report.first + first, report.windows + windows
            report.vae_seconds += spent
            on_frame(first, windows, spent)

        jobs = [PartJob(store, part.name, target.key, shape, stride, request.batch, known=known) for part in parts]
        for busy in _encode_parts(request, devices, dtype, jobs, vae, count):
            report.busy_seconds += busy
        publish_latents(request.store, target)
        end_job(request.store, job_name(request.name))
    if report.first and isinstance(vae, Vae):
        report.psnr = reconstruction_psnr(store, request.vae, devices[0], dtype)
    report.seconds = time.monotonic() - began
    return report


def vae_identity(vae: Vae, devices: Sequence[str], found: LatentCacheRecord | None) -> JsonObject:
    """The VAE's part of the identity; of bfloat16 on a GPU with its measured distance from float32.

    A cache that is continued keeps the distance it was begun with, which takes no part in the comparison.
    """
    identity = dict(vae.identity())
    if "device" not in identity:
        return identity
    names = sorted({torch.cuda.get_device_name(device) for device in devices})
    if len(names) > 1:
        raise UsageError(f"latents of {' and '.join(names)} differ in bits; choose GPUs of one kind with --devices")
    if vae.dtype == "float32":
        return identity
    have = found.identity.get("vae") if found is not None else None
    recorded = have.get(DISTANCE) if isinstance(have, dict) else None
    return {**identity, DISTANCE: distance_to_float32(vae) if recorded is None else recorded}


def _encode_parts(
    request: EncodeRequest,
    devices: Sequence[str],
    dtype: Dtype,
    jobs: list[PartJob],
    vae: Vae,
    count: OnFrame,
) -> Iterator[float]:
    """Encode parts here, or in one worker process per GPU or core; yields the busy seconds of each."""
    pool, where, decoders = local_pool(request, devices, len(jobs))
    if pool.workers:
        del vae  # every worker has its own
        tasks = [(request.vae, where, dtype, replace(job, decoders=decoders)) for job in jobs]
        with pool:
            yield from pool.run(encode_in_worker, tasks, count)
        return
    for job in jobs:
        began = time.monotonic()
        encode_part(replace(job, decoders=decoders), vae, count)
        yield time.monotonic() - began


def local_pool(request: EncodeRequest, devices: Sequence[str], parts: int) -> tuple[WorkerPool, str, int]:
    """(pool, device of each worker, its decoding processes): one worker per GPU or core; none where one is enough."""
    on_gpu = devices[0].startswith("cuda")
    spread = len(devices) if on_gpu or len(devices) > 1 else request.workers
    decoders = request.workers // len(devices) if on_gpu else request.decoders
    if spread > 1 and parts > 1:
        places = [visible(device) for device in devices] if len(devices) > 1 else ()
        return WorkerPool(min(spread, parts), places=places), "cuda:0" if on_gpu else "cpu", decoders
    return WorkerPool(0), devices[0], decoders


@lru_cache(maxsize=1)
def loaded_vae(spec: str, device: str, dtype: Dtype) -> Vae:
    """The VAE of a worker process, loaded once."""
    return load_vae(spec, device=device, dtype=dtype)


def encode_in_worker(spec: str, device: str, dtype: Dtype, job: PartJob, *, link: Link) -> float:
    """One part in a worker process. Returns its busy seconds."""
    vae = loaded_vae(spec, device, dtype)
    began = time.monotonic()
    encode_part(job, vae, link.report)
    return time.monotonic() - began


def default_dtype(name: str, device: str, found: LatentCacheRecord | None = None) -> Dtype:
    """The dtype to compute in. "auto": that of a cache that is continued, else bfloat16 on a GPU, float32 on a CPU."""
    if name == "auto":
        usual = "bfloat16" if device.startswith("cuda") else "float32"
        name = usual if found is None else found.compute_dtype
    known: dict[str, Dtype] = {"float32": "float32", "bfloat16": "bfloat16"}
    if name not in known:
        raise UsageError(f"--dtype must be auto, float32 or bfloat16, found {name!r}")
    return known[name]
