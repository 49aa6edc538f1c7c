"""Which caches of a store fit a view, and what differs in those that do not."""

from __future__ import annotations

from dataclasses import dataclass

from fwdata.errors import quoted
from fwdata.images.stitch import stitch_hash
from fwdata.manifest import Manifest
from fwdata.store.caches.identity import encode_command, find_caches, latent_settings, text_settings, unlike
from fwdata.store.caches.stats import statistics_settings
from fwdata.store.episode import Part
from fwdata.store.metadata import read_complete
from fwdata.store.reader import Store
from fwdata.store.records import LatentCacheRecord, StitchedRecord, TextCacheRecord
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
    command: str
    """What makes one that fits: beside it, or in its place for statistics and stitched frames."""

    @property
    def advice(self) -> str:
        """What to run where it does not fit."""
        if self.kind == "stitched":
            return f"they are stitched when read; `{self.command}` replaces them"
        how = "make them again" if self.kind == "statistics" else "make one beside it"
        return f"{how} with `{self.command}`"


def cache_fits(store: Store, manifest: Manifest) -> list[CacheFit]:
    """Every cache of a store held against `manifest`. Reads metadata only."""
    where, found = store.location, []
    latents = find_caches(store.files, "latents", LatentCacheRecord)
    texts = find_caches(store.files, "text", TextCacheRecord)
    for group, settings, records in (
        ("latents", latent_settings(manifest), latents.values()),
        ("text", text_settings(manifest), texts.values()),
    ):
        for record in records:
            beside = encode_command(where, record, "NEW")
            found.append(CacheFit(group, record.name, unlike(record.identity, settings), beside))
    statistics = read_complete(store.files, "stats", StatsRecord)
    if statistics is not None:
        differs = unlike(statistics.identity, statistics_settings(manifest))
        found.append(CacheFit("statistics", "stats", differs, f"fwdata stats {quoted(where)}"))
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
    return [CacheFit("stitched", "frames", differs, f"fwdata stitch {quoted(store.location)}")]
