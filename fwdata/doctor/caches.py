"""What is cached beside the episodes, against the current view: latents, text, statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fwdata.doctor.findings import CountedShare, DoctorFinding, listed
from fwdata.errors import StoreError, quoted
from fwdata.evidence.records import Severity
from fwdata.images.stitch import stitch_hash
from fwdata.report.view_store import CacheFit, cache_fits, stitched_hash
from fwdata.store.caches.identity import encode_command, find_caches, latent_settings, text_settings, unlike
from fwdata.store.caches.latents import LatentCache
from fwdata.store.caches.stats import load_statistics, statistics_settings
from fwdata.store.caches.texts import TextCache
from fwdata.store.metadata import read_complete
from fwdata.store.reader import Store
from fwdata.store.records import LatentCacheRecord, TextCacheRecord
from fwdata.store.records.statistics import StatsRecord
from fwdata.wording import counted


def cache_findings(store: Store) -> list[DoctorFinding]:
    """Caches that do not fit, are incomplete, or lack an instruction. Reads metadata and the list of prompts."""
    fits = cache_fits(store, store.manifest)
    usable = {fit.kind for fit in fits if not fit.differs}
    found = [_unfit(store, fit, usable) for fit in fits if fit.differs]
    return [*found, *_latents(store), *_texts(store), *_statistics(store, found)]


def _where(store: Store) -> str:
    return quoted(store.location)


def _unfit(store: Store, fit: CacheFit, usable: set[str]) -> DoctorFinding:
    """It warns where no other cache of the kind fits, as training then refuses the store."""
    other = fit.kind in usable
    severity: Severity = "note" if other or fit.kind == "stitched" else "warn"
    command = "" if other else fit.command
    label = fit.kind if fit.kind in ("statistics", "stitched") else f"{fit.kind} {fit.name}"
    sentence = f"{label} do not fit the current view: {'; '.join(fit.differs)}" + (
        "; another cache fits" if other else ""
    )
    shares = _other_parts(store) if fit.kind == "stitched" else _other_settings(store, fit)
    value = float(len(fit.differs))
    return _of_all(
        store, DoctorFinding(severity, f"{fit.kind}_fit", sentence, fit.name, value, command=command), shares
    )


def _of_all(store: Store, finding: DoctorFinding, shares: tuple[CountedShare, ...]) -> DoctorFinding:
    """A finding about what is cached of every episode."""
    ids = [episode.id for episode in store.episodes]
    return replace(finding, episodes=listed(ids), count=len(ids), shares=shares)


def _other_settings(store: Store, fit: CacheFit) -> tuple[CountedShare, ...]:
    """Settings of a cache that are as in the view, and that are not."""
    manifest = store.manifest
    settings = {"latents": latent_settings, "text": text_settings, "statistics": statistics_settings}[fit.kind](
        manifest
    )
    total = max(_leaves(settings), len(fit.differs))
    counts = {"settings as in the view": total - len(fit.differs), "other settings": len(fit.differs)}
    return tuple(CountedShare(name, count, total) for name, count in counts.items())


def _leaves(settings: Mapping[str, Any]) -> int:
    """How many settings there are, those within others counted one by one."""
    return sum(_leaves(value) if isinstance(value, Mapping) and value else 1 for value in settings.values())


def _other_parts(store: Store) -> tuple[CountedShare, ...]:
    """Parts whose stitched frames are of another view, and of this one."""
    hashes = [stitched_hash(store, part) for part in store.parts]
    other = sum(found is not None and found != stitch_hash(store.manifest.stitch) for found in hashes)
    none, total = hashes.count(None), len(hashes)
    counts = {"of the view": total - other - none, "of another view": other, "not stitched": none}
    return tuple(CountedShare(name, count, total) for name, count in counts.items())


def _latents(store: Store) -> list[DoctorFinding]:
    found = []
    for record in find_caches(store.files, "latents", LatentCacheRecord).values():
        cache = LatentCache(store, record)
        if unlike(record.identity, latent_settings(store.manifest)) or cache.complete:
            continue
        sentence = (
            f"latents {cache.name} hold {cache.num_frames} of {counted(store.num_frames, 'frame')} of the store's "
            "episodes"
        )
        command = encode_command(store.location, record, cache.name)
        shares = tuple(
            CountedShare(part.name, cache.frames_of(part), part.record.frames)
            for part in store.parts
            if cache.frames_of(part) < part.record.frames
        )
        value = float(cache.num_frames)
        lacking = {part.name for part in store.parts if cache.frames_of(part) < part.record.frames}
        ids = [episode.id for episode in store.episodes if episode.part.name in lacking]
        found.append(
            DoctorFinding(
                "warn", "latents_incomplete", sentence, cache.name, value, listed(ids), len(ids), command, shares=shares
            )
        )
    return found


def _texts(store: Store) -> list[DoctorFinding]:
    records = find_caches(store.files, "text", TextCacheRecord).values()
    if not records:
        return []
    wanted: dict[str, list[str]] = {}
    for episode in store.episodes:
        for prompt in dict.fromkeys(store.manifest.render_prompt(text) for text in episode.window_instructions):
            wanted.setdefault(prompt, []).append(episode.id)
    found = []
    for record in records:
        cache = TextCache(store, record)
        missing = [prompt for prompt in wanted if prompt not in set(cache.prompts)]
        if record.identity.get("prompt") != store.manifest.prompt or not missing:
            continue
        sentence = f"text {cache.name} lacks {len(missing)} of {counted(len(wanted), 'prompt')}, e.g. {missing[0]!r}"
        command = encode_command(store.location, record, cache.name)
        ids = list(dict.fromkeys(name for prompt in missing for name in wanted[prompt]))
        value, held = float(len(missing)), len(wanted) - len(missing)
        shares = (
            CountedShare("prompts with rows", held, len(wanted)),
            CountedShare("missing", len(missing), len(wanted)),
        )
        found.append(
            DoctorFinding(
                "warn", "text_incomplete", sentence, cache.name, value, listed(ids), len(ids), command, shares=shares
            )
        )
    return found


def _statistics(store: Store, found: list[DoctorFinding]) -> list[DoctorFinding]:
    """Saved statistics of other episodes than the store holds now."""
    if any(finding.detector == "statistics_fit" for finding in found):
        return []
    try:
        load_statistics(store)
    except StoreError as error:
        finding = DoctorFinding("warn", "statistics_fit", str(error), "stats", command=f"fwdata stats {_where(store)}")
        return [_of_all(store, finding, _other_episodes(store))]
    return []


def _other_episodes(store: Store) -> tuple[CountedShare, ...]:
    """Episodes in the saved statistics, and training episodes that the store holds now."""
    record = read_complete(store.files, "stats", StatsRecord)
    counted = record.statistics.num_episodes if record else 0
    train = sum(episode.split == "train" for episode in store.episodes)
    total = max(counted, train, 1)
    return (CountedShare("in the statistics", counted, total), CountedShare("training episodes now", train, total))
