"""Encoding a store's instructions: every distinct prompt once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fwdata.manifest import Manifest
from fwdata.pipeline.jobs import end_job
from fwdata.pipeline.units import UnitsReport
from fwdata.store.caches.identity import text_settings
from fwdata.store.caches.texts import TextSpec, write_texts
from fwdata.store.files import write_lock
from fwdata.store.reader import Store
from fwdata.store.records import JsonObject
from fwdata.store.writable import open_writable


@dataclass(frozen=True)
class TextReport:
    """What a text encoding did."""

    name: str
    """Name of the text cache."""
    prompts: int
    """Distinct prompts of the store."""
    encoded: int
    """Those new in this run."""
    seconds: float
    """Time of the whole call."""
    units: UnitsReport | None = None
    """Where other processes work on the same cache: what was done here, and what is left."""


def text_job(cache: str) -> str:
    """Name of the job that encodes a cache."""
    return f"encode-text-{cache}"


def text_identity(manifest: Manifest, encoder: JsonObject) -> JsonObject:
    """Every setting that can change a bit of a text cache; its digest is the cache's fingerprint."""
    return {"encoder": encoder, **text_settings(manifest)}


def store_prompts(store: Store, which: Literal["canonical", "all"]) -> list[str]:
    """Distinct prompts (template applied) in episode order: what each episode's windows train on, or all wordings."""
    found: dict[str, None] = {}
    for episode in store.episodes:
        spoken = episode.window_instructions
        for text in spoken if which == "canonical" else (*spoken, *episode.instructions):
            found[store.manifest.render_prompt(text)] = None
    return list(found)


def encode_text(
    path: Path,
    encoder: str,
    *,
    name: str = "default",
    which: Literal["canonical", "all"] = "canonical",
    replace: bool = False,
    device: str = "cpu",
    short: bool = False,
    on_plan: Callable[[int], None] = lambda _: None,
    on_prompt: Callable[[int], None] = lambda _: None,
) -> TextReport:
    """Encode the prompts a store's text cache lacks; running it again continues.

    encoder: "tiny", "umt5-xxl", a local folder or a hub id. which: "canonical" encodes one instruction per episode,
    "all" every wording. device: see `fwdata.encode.devices.compute_devices`, of which the first one works. short: pad
    prompts to their own length, rounded up, as part of the identity. The encoder's memory is free again afterwards.
    StaleCache when the cache of that name was made with other settings, UsageError for an encoder
    that cannot be found or downloaded, or a store that is not wholly converted.
    """
    from fwdata.encode.devices import compute_devices, release
    from fwdata.encode.text.encoders import LimitedTextEncoder, load_text_encoder

    began = time.monotonic()
    store = open_writable(path)
    prompts = store_prompts(store, which)
    loaded = load_text_encoder(encoder, device=compute_devices(device)[0], short=short)
    if isinstance(loaded, LimitedTextEncoder):
        loaded.need(prompts)
    on_plan(len(prompts))
    with write_lock(path):
        encoded = write_texts(
            store,
            name,
            text_identity(store.manifest, loaded.identity()),
            TextSpec(encoder, loaded.dim, loaded.max_tokens),
            prompts,
            loaded.encode,
            replace,
            on_prompt,
        )
        end_job(path, text_job(name))
    del loaded
    release()
    return TextReport(name, len(prompts), encoded, time.monotonic() - began)
