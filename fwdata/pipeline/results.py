"""What a conversion did, and what its store holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fwdata.api import LeftOut
from fwdata.evidence.records import DatasetVerdict
from fwdata.pipeline.changes import ChangedRecording
from fwdata.pipeline.part import RecordingOutcome
from fwdata.pipeline.units import UnitsReport
from fwdata.store.evidence import read_evidence
from fwdata.store.locations import StoreUrl
from fwdata.store.reader import open_store


@dataclass(frozen=True)
class RecordingRow:
    """One recording of a store."""

    source: str
    """The recording, as the store calls it."""
    outcome: Literal["converted", "quarantined", "skipped"]
    """"skipped" was decided by its name or header, "quarantined" when it was read."""
    frames: int = 0
    """0 unless converted."""
    reason: str = ""
    """Why it was left out; "" where it was converted."""
    warnings: tuple[str, ...] = ()
    """Of recordings converted in this run (`new`)."""
    new: bool = False
    """Whether this run converted or quarantined it."""


@dataclass
class ConvertReport:
    """What a conversion did."""

    out: Path | StoreUrl
    """The store."""
    episodes: int = 0
    """Episodes of the whole store."""
    frames: int = 0
    """Rows of the whole store."""
    new_episodes: int = 0
    """Episodes written by this run."""
    new_frames: int = 0
    """Rows written by this run."""
    seconds: float = 0.0
    """Time of this run."""
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    """(source, reason) of everything left out, earlier runs included."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about recordings that were converted in this run."""
    left_out: list[LeftOut] = field(default_factory=list)
    """Recordings that were not taken although nothing is wrong with them, counted by reason."""
    rows: list[RecordingRow] = field(default_factory=list)
    """Every recording, in conversion order, then those skipped; earlier runs included."""
    view_changes: list[str] = field(default_factory=list)
    """What the manifest changed in the view of a store that was there."""
    changed: list[ChangedRecording] = field(default_factory=list)
    """Recordings with other bytes than those converted, which `update` converts again."""
    updated: list[str] = field(default_factory=list)
    """Sources of those that were."""
    outdated: str = ""
    """A sentence, where an older version of the converter made the store, which is then left as it is."""
    evidence: tuple[DatasetVerdict, ...] = ()
    """Verdicts of the data set on every convention; () where nothing was measured."""
    accepted: dict[str, str] = field(default_factory=dict)
    """Detector -> why its contradiction is kept."""
    units: UnitsReport | None = None
    """Where other processes work on the same store: what was done here, and what is left."""


def store_report(out: Path, warnings: Sequence[str], new: dict[str, RecordingOutcome], seconds: float) -> ConvertReport:
    """The report of a store. warnings: of discovery; new: what this run converted or left out, by source."""
    store = open_store(out)
    evidence = read_evidence(store.files)
    rows: list[RecordingRow] = []
    for part in store.parts:
        for episode in part.record.episodes:
            source = episode.source
            said = new[source].warnings if source in new else ()
            rows.append(RecordingRow(source, "converted", episode.length, "", said, source in new))
        left_out = (item.record for item in store.left_out(part))
        rows += [RecordingRow(item.source, "quarantined", 0, item.reason, (), item.source in new) for item in left_out]
    rows += [RecordingRow(item.source, "skipped", 0, item.reason) for item in store.plan.skipped]
    converted = [row for row in rows if row.new and row.outcome == "converted"]
    return ConvertReport(
        out=out,
        episodes=len(store.episodes),
        frames=store.num_frames,
        new_episodes=len(converted),
        new_frames=sum(row.frames for row in converted),
        seconds=seconds,
        quarantined=[(q["source"], q["reason"]) for q in store.quarantined],
        warnings=[*warnings, *(f"{row.source}: {text}" for row in converted for text in row.warnings)],
        rows=rows,
        evidence=evidence.verdicts() if evidence else (),
        accepted=evidence.accepted() if evidence else {},
    )
