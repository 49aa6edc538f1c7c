"""Encoding a share of a store's latents beside other processes and machines, one part per unit."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fwdata.encode.devices import compute_devices
from fwdata.encode.fidelity import reconstruction_psnr
from fwdata.encode.latent_part import OnFrame, PartJob
from fwdata.encode.latents import (
    EncodeReport,
    EncodeRequest,
    default_dtype,
    encode_in_worker,
    job_name,
    latent_identity,
    latent_shape,
    loaded_vae,
    local_pool,
    pending_parts,
    vae_identity,
)
from fwdata.encode.vae.base import Vae
from fwdata.encode.vae.wan import Dtype
from fwdata.io import among_writers
from fwdata.pipeline.jobs import Job, UnitRecord
from fwdata.pipeline.units import UnitPool, Units, unit_pool
from fwdata.pipeline.workers import Link, LocalLink, Task, WorkerPool
from fwdata.store.caches.identity import find_caches
from fwdata.store.caches.latents import begin_target, find_target, publish_latents
from fwdata.store.files import shared_write
from fwdata.store.records import JsonObject, LatentCacheRecord
from fwdata.store.writable import open_writable


@dataclass(frozen=True)
class VaeFacts:
    """What a VAE is where it works; the machine that plans may have another device."""

    shape: tuple[int, int, int]
    """(C, h, w) of one latent frame."""
    identity: JsonObject
    """Its part of the cache's identity."""
    devices: tuple[str, ...]
    """torch's names of the devices of that machine."""
    dtype: Dtype
    """What it computes in."""


def look_at_vae(request: EncodeRequest, *, link: Link) -> VaeFacts:
    """Load the VAE where this runs; it stays loaded for the parts that are encoded by this process."""
    store = open_writable(request.store)
    devices = compute_devices(request.device, request.devices)
    found = find_caches(store.files, "latents", LatentCacheRecord).get(request.name)
    dtype = default_dtype(request.dtype, devices[0], found)
    vae = loaded_vae(request.vae, devices[0], dtype)
    return VaeFacts(latent_shape(store, vae), vae_identity(vae, devices, found), devices, dtype)


def encode_share(request: EncodeRequest, on_frame: OnFrame) -> EncodeReport:
    """Encode the parts of a shard, or all of them on a Ray cluster, beside other processes that encode others.

    The cache is complete with its last part, whoever encodes it. Raises as `fwdata.encode.latents.encode_latents`.
    """
    request.spread.check()
    request.spread.refuse("--replace", request.replace)
    began = time.monotonic()
    with unit_pool(request.spread, WorkerPool(0), gpus=True) as pool:
        alone = request.spread.engine == "local"
        facts: VaeFacts
        if alone:
            facts = look_at_vae(request, link=LocalLink(lambda *values: None))
        else:
            (facts,) = pool.run(look_at_vae, [(request,)], lambda *values: None)
        with shared_write(request.store), among_writers():
            report = _encode(request, facts, pool, on_frame)
    if report.first and alone and report.units is not None and not report.units.left:
        vae = loaded_vae(request.vae, facts.devices[0], facts.dtype)
        if isinstance(vae, Vae):
            store = open_writable(request.store)
            report.psnr = reconstruction_psnr(store, request.vae, facts.devices[0], facts.dtype)
    report.seconds = time.monotonic() - began
    return report


def _encode(request: EncodeRequest, facts: VaeFacts, pool: UnitPool, on_frame: OnFrame) -> EncodeReport:
    """Seal or join the job, do this share of it, and publish the cache when it is complete. The store is held."""
    store = open_writable(request.store)
    found = find_caches(store.files, "latents", LatentCacheRecord).get(request.name)
    stride = request.stride or (found.stride if found is not None else 1)
    identity = latent_identity(store, facts.identity, stride, request.batch)
    target = find_target(store, request.name, identity, request.vae, facts.shape)
    parts = [part for part in store.parts if part.record.episodes]
    units = [UnitRecord(name=part.name, weight=part.record.frames) for part in parts]
    folder = f"latents/{target.key}/{{unit}}"
    job = Job.join(request.store, job_name(request.name), "encode-latents", folder, identity, units)
    begin_target(store, target)
    known = target.known(store)
    report = EncodeReport(request.name, target.record.fingerprint, kept=target.kept)

    def count(first: int, windows: int, spent: float) -> None:
        report.first, report.windows = report.first + first, report.windows + windows
        report.vae_seconds += spent
        on_frame(first, windows, spent)

    here, where, decoders = local_pool(request, facts.devices, len(parts))
    if request.spread.engine != "local":
        where, decoders = facts.devices[0], 0

    def task(name: str) -> Task:
        part = PartJob(store, name, target.key, facts.shape, stride, request.batch, decoders, known)
        return request.vae, where, facts.dtype, part

    def pending() -> list[str]:
        return [part.name for part in pending_parts(store, target.key)]

    work = Units(job, encode_in_worker, task, pending)
    if request.spread.engine == "local":
        with here:
            seconds, report.units = work.run(request.spread, here, count)
    else:
        seconds, report.units = work.run(request.spread, pool, count)
    report.busy_seconds = sum(seconds)
    if not report.units.left:
        publish_latents(request.store, target)
        job.end()
    return report
