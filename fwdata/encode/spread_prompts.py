"""Encoding a share of a store's prompts beside other processes and machines, 128 prompts per unit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from fwdata.encode.devices import compute_devices
from fwdata.encode.prompts import TextReport, store_prompts, text_identity, text_job
from fwdata.encode.text.encoders import LimitedTextEncoder, TextEncoder, load_text_encoder
from fwdata.io import among_writers
from fwdata.pipeline.jobs import Job, UnitRecord
from fwdata.pipeline.units import Spread, UnitPool, Units, unit_pool
from fwdata.pipeline.workers import Link, LocalLink, Task, WorkerPool
from fwdata.store.caches.texts import TextSpec, begin_texts, find_texts, missing_texts, write_text_part
from fwdata.store.files import LocalFiles, shared_write
from fwdata.store.metadata import read_complete
from fwdata.store.records import JsonObject, TextPartRecord
from fwdata.store.writable import open_writable


@dataclass(frozen=True)
class TextRequest:
    """One `fwdata encode-text` call of several; the fields are the arguments of `fwdata.encode.prompts.encode_text`."""

    store: Path
    """The store."""
    encoder: str
    """What `load_text_encoder` takes."""
    name: str = "default"
    """Name of the cache."""
    which: Literal["canonical", "all"] = "canonical"
    """One instruction per episode, or every wording."""
    device: str = "cpu"
    """See `fwdata.encode.devices.compute_devices`, of which the first one works."""
    short: bool = False
    """Pad prompts to their own length, rounded up."""


@lru_cache(maxsize=1)
def _loaded(encoder: str, device: str, short: bool) -> TextEncoder:
    """The encoder of this process, loaded once."""
    return load_text_encoder(encoder, device=compute_devices(device)[0], short=short)


def look_at_encoder(request: TextRequest, *, link: Link) -> tuple[JsonObject, TextSpec]:
    """(identity, what a cache says of it) of the encoder where this runs; it stays loaded."""
    loaded = _loaded(request.encoder, request.device, request.short)
    if isinstance(loaded, LimitedTextEncoder):
        loaded.need(store_prompts(open_writable(request.store), request.which))
    return loaded.identity(), TextSpec(request.encoder, loaded.dim, loaded.max_tokens)


def _encode_unit(request: TextRequest, key: str, part: str, prompts: tuple[str, ...], *, link: Link) -> int:
    """One part; returns how many prompts."""
    loaded = _loaded(request.encoder, request.device, request.short)
    write_text_part(request.store, key, part, prompts, loaded.encode, loaded.dim, link.report)
    return len(prompts)


def encode_text_share(
    request: TextRequest, spread: Spread, on_prompt: Callable[[int], None] = lambda _: None
) -> TextReport:
    """Encode the prompts of a shard, or all of them on a Ray cluster, beside other processes that encode others.

    See `fwdata.encode.prompts.encode_text`. Whoever is first cuts the missing prompts into parts, the others follow.
    """
    spread.check()
    began = time.monotonic()
    with unit_pool(spread, WorkerPool(0), gpus=True) as pool:
        if spread.engine == "local":
            identity, spec = look_at_encoder(request, link=LocalLink(lambda *values: None))
        else:
            ((identity, spec),) = pool.run(look_at_encoder, [(request,)], lambda *values: None)
        with shared_write(request.store), among_writers():
            report = _encode(request, spread, pool, identity, spec, on_prompt)
    _loaded.cache_clear()
    return TextReport(report.name, report.prompts, report.encoded, time.monotonic() - began, report.units)


def _encode(
    request: TextRequest,
    spread: Spread,
    pool: UnitPool,
    encoder: JsonObject,
    spec: TextSpec,
    on_prompt: Callable[[int], None],
) -> TextReport:
    store = open_writable(request.store)
    identity = text_identity(store.manifest, encoder)
    prompts = store_prompts(store, request.which)
    record = find_texts(store, request.name, identity, spec)
    missing = missing_texts(store, record, prompts)
    units = [UnitRecord(name=part, weight=len(own), prompts=own) for part, own in missing]
    folder, whole = f"text/{record.key()}/{{unit}}", {**identity, "which": request.which}
    job = Job.join(request.store, text_job(request.name), "encode-text", folder, whole, units)
    begin_texts(store, record)
    sealed = {unit.name: unit.prompts for unit in job.record.units}

    def task(name: str) -> Task:
        return request, record.key(), name, sealed[name]

    def pending() -> list[str]:
        files = LocalFiles(request.store)
        return [n for n in sealed if read_complete(files, f"text/{record.key()}/{n}", TextPartRecord) is None]

    counts, units_report = Units(job, _encode_unit, task, pending).run(spread, pool, on_prompt)
    if not units_report.left:
        job.end()
    return TextReport(request.name, len(prompts), sum(counts), 0.0, units_report)
