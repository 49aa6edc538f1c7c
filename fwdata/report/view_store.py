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
from fwdata.store.records import CacheRecord, StitchedRecord
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


def cache_fits(store: Store, manifest: Manifest) -> list[CacheFit]:
    """Every cache of a store held against `manifest`. Reads metadata only."""
    where, found = store.location, []
    for group, command, settings in (
        ("latents", "encode-latents", latent_settings(manifest)),
        ("text", "encode-text", text_settings(manifest)),
    ):
        advice = f"make one beside it with `fwdata {command} {where} --name NEW`"
        for name, record in find_caches(store.files, group, CacheRecord).items():
            found.append(CacheFit(group, name, unlike(record.identity, settings), advice))
    statistics = read_complete(store.files, "stats", StatsRecord)
    if statistics is not None:
        differs = unlike(statistics.identity, statistics_settings(manifest))
        found.append(CacheFit("statistics", "stats", differs, f"make them again with `fwdata stats {quoted(where)}`"))
    return found + _stitched(store, manifest)


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
