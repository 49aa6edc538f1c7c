"""What a store holds, as plain JSON."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np

from fwdata.errors import UsageError
from fwdata.evidence.records import DatasetVerdict, DatasetVerdictJson
from fwdata.io import Json
from fwdata.store.caches.identity import find_caches, latent_settings, text_settings, unlike
from fwdata.store.caches.latents import LatentCache
from fwdata.store.caches.stitched import pending_stitches
from fwdata.store.caches.texts import TextCache
from fwdata.store.episode import StoredEpisode
from fwdata.store.evidence import read_evidence
from fwdata.store.files import LocalFiles
from fwdata.store.metadata import has_record
from fwdata.store.reader import Store
from fwdata.store.records import CountRecord, LatentCacheRecord, OriginRecord, TextCacheRecord
from fwdata.store.sources import read_sources
from fwdata.warning_kinds import WarningKind, WarningKindJson, group_warnings

SAMPLED = 2000
"""Most episodes whose own decisions are read."""


class ConverterInfo(TypedDict):
    """Which converter made a store."""

    versions: list[int]
    """Versions that made its parts, ascending."""
    installed: int | None
    """The installed one's version; null: it is not installed here."""
    outdated: bool
    """Whether a part was made by an older version than the installed one."""


class CameraDescription(TypedDict):
    """One camera, as the first part holds it; all null before the first part."""

    height: int | None
    """Pixels."""
    width: int | None
    """Pixels."""
    channel_order: str | None
    """Order of the colours in what is stored."""
    encoding: str | None
    """How it is stored: raw, jpeg or video; several with commas where parts differ."""


class StitchDescription(TypedDict):
    """The stitched image of the current view."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    materialised: bool
    """Whether it is stored (`fwdata stitch`), or made when it is read."""


class LatentsDescription(TypedDict):
    """A latent cache."""

    name: str
    """Its name."""
    fingerprint: str
    """Its identity, short."""
    vae: str
    """What loads its VAE again."""
    stride: int
    """Frames between window starts with future latents."""
    windows: int
    """Window starts with future latents."""
    frames: int
    """First-frame latents."""
    complete: bool
    """Whether every part has latents."""
    differs_from_view: list[str]
    """Settings in which it differs from the current view; empty: it fits."""


class TextDescription(TypedDict):
    """A text cache."""

    name: str
    """Its name."""
    encoder: str
    """What loads its encoder again."""
    prompts: int
    """Distinct prompts."""
    differs_from_view: list[str]
    """Settings in which it differs from the current view; empty: it fits."""


class StoreDescription(TypedDict):
    """The document of `fwdata inspect --json`."""

    layout_version: int
    """Version of the store's layout."""
    source: str
    """Name of the converter."""
    converter: ConverterInfo
    """Its versions."""
    fps: float
    """Rate of the rows, Hz."""
    episodes: int
    """Episodes."""
    frames: int
    """Rows of all episodes."""
    complete: bool
    """Whether every planned part is written."""
    tasks: dict[str, int]
    """Task -> episodes."""
    cameras: dict[str, CameraDescription]
    """By name."""
    stitch_layout: str
    """How cameras are arranged."""
    stitched: StitchDescription
    """The stitched image."""
    state_names: list[str]
    """One name per state column."""
    action_names: list[str]
    """One name per action column."""
    latents: list[LatentsDescription]
    """Latent caches."""
    text: list[TextDescription]
    """Text caches."""
    stats: bool
    """Whether statistics are stored."""
    bytes: int | None
    """Size of all files; null for a store that is not local."""
    merged: list[OriginRecord]
    """Stores it was merged from."""
    decisions: dict[str, Json]
    """What the converter decided about all recordings; each converter's own JSON."""
    decided_per_episode: dict[str, dict[str, float]]
    """Key of the episodes' metadata -> min, median, max of numbers, or episodes by value."""
    evidence: list[DatasetVerdictJson]
    """Verdicts of the detectors."""
    accepted: dict[str, str]
    """Detector -> why its contradiction was accepted (`--accept`)."""
    warning_kinds: list[WarningKindJson]
    """Warnings of the episodes by kind."""
    left_out: list[CountRecord]
    """Recordings that were not taken although nothing is wrong with them."""
    quarantined: list[dict[str, str]]
    """`source` and `reason` of recordings that were not converted."""


def describe(store: Store) -> StoreDescription:
    """Everything `fwdata inspect` shows; reads metadata only (and sizes, for a local store)."""
    height, width = store.manifest.stitch.size
    evidence = read_evidence(store.files)
    decisions = store.record.decisions.to_json()
    if store.plan.warnings:
        decisions["warnings"] = list(store.plan.warnings)
    looked_at = _sample(store)
    return {
        "layout_version": store.layout_version,
        "source": store.source,
        "converter": _converter(store),
        "fps": store.fps,
        "episodes": len(store.episodes),
        "frames": store.num_frames,
        "complete": store.complete,
        "tasks": dict(sorted(Counter(e.task for p in store.parts for e in p.record.episodes).items())),
        "cameras": {name: _camera(store, name) for name in store.cameras},
        "stitch_layout": store.stitch_layout,
        "stitched": {
            "height": height,
            "width": width,
            "materialised": bool(store.parts) and not pending_stitches(store),
        },
        "state_names": list(store.state_names),
        "action_names": list(store.action_names),
        "latents": [_latents(store, r) for r in find_caches(store.files, "latents", LatentCacheRecord).values()],
        "text": [_text(store, r) for r in find_caches(store.files, "text", TextCacheRecord).values()],
        "stats": has_record(store.files, "stats"),
        "bytes": folder_bytes(store.files.root) if isinstance(store.files, LocalFiles) else None,
        "merged": list(store.record.merged),
        "decisions": decisions,
        "decided_per_episode": _per_episode(
            looked_at, [*store.record.per_episode, *(f"camera_sizes.{name}" for name in store.cameras)]
        ),
        "evidence": _sorted_verdicts(evidence.now) if evidence else [],
        "accepted": evidence.accepted() if evidence else {},
        "warning_kinds": [kind.to_json() for kind in _warning_kinds(looked_at)],
        "left_out": list(store.plan.left_out),
        "quarantined": store.quarantined,
    }


def _sorted_verdicts(verdicts: Iterable[DatasetVerdict]) -> list[DatasetVerdictJson]:
    """As they are printed, keys in order."""
    return [cast(DatasetVerdictJson, dict(sorted(verdict.to_json().items()))) for verdict in verdicts]


def warning_kinds(store: Store) -> list[WarningKind]:
    """What discovery and its episodes warned about, grouped by kind, the gravest first; of a large store, of SAMPLED
    evenly spaced episodes."""
    named = {item["reason"] for item in store.quarantined}
    return _warning_kinds(_sample(store), [text for text in store.plan.warnings if text not in named])


def _warning_kinds(looked_at: list[StoredEpisode], found: Iterable[str] = ()) -> list[WarningKind]:
    own = [(e.source, text) for e in looked_at for text in e.details.metadata.warnings]
    return group_warnings([*(("", text) for text in found), *own])


def _sample(store: Store) -> list[StoredEpisode]:
    """All episodes; of a large store, SAMPLED evenly spaced ones. They keep their details, which are read once."""
    step = max(1, -(-len(store.episodes) // SAMPLED))
    return [store.episodes[index] for index in range(0, len(store.episodes), step)]


def _per_episode(episodes: list[StoredEpisode], keys: list[str]) -> dict[str, dict[str, float]]:
    """What the episodes' own metadata say at each key (dotted: `camera_skew_ms.head_rgb.max`, `gaps.length`): how many
    have which value, or min, median and max of numbers."""
    looked_at = [episode.metadata for episode in episodes] if keys else []
    return {key: _summary([_at(found, key) for found in looked_at]) for key in keys}


def _at(metadata: Any, key: str) -> Any:
    for name in key.split("."):
        if isinstance(metadata, list) and name == "length":
            metadata = len(metadata)
        else:
            metadata = metadata.get(name) if isinstance(metadata, dict) else None
    return metadata


def _summary(values: list[Any]) -> dict[str, float]:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if numbers and len(numbers) == len(values):
        return {"min": min(numbers), "median": float(np.median(numbers)), "max": max(numbers)}
    return dict(Counter(str(value) for value in values).most_common())


def _converter(store: Store) -> ConverterInfo:
    """Versions of the converter that made the parts, and the installed one's (null: it is not installed here)."""
    from fwdata.pipeline.registry import converter_version

    made = sorted({read_sources(store.files, part.name).version for part in store.parts})
    try:
        installed = converter_version(store.source)
    except (UsageError, ImportError):
        installed = None
    return {
        "versions": made,
        "installed": installed,
        "outdated": installed is not None and bool(made) and made[0] < installed,
    }


def _camera(store: Store, name: str) -> CameraDescription:
    """Of the first part; where others hold another kind of camera, every encoding is listed."""
    parts = [part.record.cameras[name] for part in store.parts if name in part.record.cameras]
    if not parts:
        return {"height": None, "width": None, "encoding": None, "channel_order": None}
    first = parts[0]
    return {
        "height": first.height,
        "width": first.width,
        "channel_order": first.channel_order,
        "encoding": ", ".join(dict.fromkeys(part.encoding for part in parts)),
    }


def _latents(store: Store, record: LatentCacheRecord) -> LatentsDescription:
    cache = LatentCache(store, record)
    return {
        "name": cache.name,
        "fingerprint": cache.fingerprint,
        "vae": cache.vae,
        "stride": cache.stride,
        "windows": cache.num_windows,
        "frames": cache.num_frames,
        "complete": cache.complete,
        "differs_from_view": unlike(cache.identity, latent_settings(store.manifest)),
    }


def _text(store: Store, record: TextCacheRecord) -> TextDescription:
    cache = TextCache(store, record)
    differs = unlike(cache.identity, text_settings(store.manifest))
    return {
        "name": cache.name,
        "encoder": cache.encoder,
        "prompts": len(cache.prompts),
        "differs_from_view": differs,
    }


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    # a Path for each of tens of thousands of files would take longer than all else of `inspect`
    return sum(os.stat(f"{root}/{name}").st_size for root, _, names in os.walk(folder) for name in names)  # noqa: PTH116
