"""Which caches of a store fit a view, and what differs in those that do not."""

from __future__ import annotations

from dataclasses import dataclass

from fwdata.errors import quoted
from fwdata.images.stitch import stitch_hash
from fwdata.manifest import Manifest
from fwdata.store.caches.identity import find_caches, latent_settings, text_settings, unlike
from fwdata.store.caches.stats import statistics_settings
from fwdata.store.episode import Part
from fwdata.store.metadata import read_complete
from fwdata.store.reader import Store
from fwdata.store.records import CacheRecord, JsonObject, LatentCacheRecord, StitchedRecord, TextCacheRecord
from fwdata.store.records.statistics import StatsRecord


@dataclass(frozen=True)
class CacheFit:
    """Whether one cache fits a view."""

    kind: str
    """ "latents", "text", "statistics" or "stitched"."""
    name: str
    """The cache's name; a part's for stitched frames."""
    differs: list[str]
    """What differs, a phrase for each setting; empty where it fits."""
    advice: str
    """What to run where it does not."""
    command: str = ""
    """The command in it, which makes another cache with the same encoder; empty where `advice` is one of its own."""


def cache_fits(store: Store, manifest: Manifest) -> list[CacheFit]:
    """Every cache of a store held against `manifest`. Reads metadata only."""
    where, found = store.location, list[CacheFit]()
    for latents in find_caches(store.files, "latents", LatentCacheRecord).values():
        again = (
            f"fwdata encode-latents {quoted(where)} --name NEW --vae {quoted(latents.vae)} --stride {latents.stride}"
        )
        found.append(_beside("latents", latents, latent_settings(manifest), again))
    for text in find_caches(store.files, "text", TextCacheRecord).values():
        again = f"fwdata encode-text {quoted(where)} --name NEW --encoder {quoted(text.encoder)}"
        found.append(_beside("text", text, text_settings(manifest), again))
    statistics = read_complete(store.files, "stats", StatsRecord)
    if statistics is not None:
        differs = unlike(statistics.identity, statistics_settings(manifest))
        found.append(CacheFit("statistics", "stats", differs, f"make them again with `fwdata stats {quoted(where)}`"))
    return found + _stitched(store, manifest)


def _beside(kind: str, record: CacheRecord, settings: JsonObject, command: str) -> CacheFit:
    """A cache that stays where it does not fit; `command` makes one beside it."""
    return CacheFit(
        kind, record.name, unlike(record.identity, settings), f"make one beside it with `{command}`", command
    )


def stitched_hash(store: Store, part: Part) -> str | None:
    """What a part's stitched frames were made with; None where it has none."""
    record = read_complete(store.files, f"parts/{part.name}/frames", StitchedRecord)
    return None if record is None else record.stitch_hash


def _stitched(store: Store, manifest: Manifest) -> list[CacheFit]:
    """Stitched frames of all parts as one entry, where there are any."""
    hashes = [found for part in store.parts if (found := stitched_hash(store, part)) is not None]
    if not hashes:
        return []
    now = stitch_hash(manifest.stitch)
    others = sum(value != now for value in hashes)
    differs = [f"stitching of {others} of {len(hashes)} parts is not {now}"] if others else []
    advice = f"they are stitched when read; `fwdata stitch {quoted(store.location)}` replaces them"
    return [CacheFit("stitched", "frames", differs, advice)]
