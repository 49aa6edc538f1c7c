"""Verdicts on conventions, kept in groups of their own: `evidence` (data set) and `evidence/<part>` (episodes).

They are part of no identity: a part's bytes and every cache's key are the same with and without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fwdata.evidence.records import ENGINE_VERSION, DatasetVerdict, EpisodeMeasurement
from fwdata.store.files import Files
from fwdata.store.metadata import checked_record, read_raw, read_record, write_raw
from fwdata.store.records import JsonObject
from fwdata.store.records.evidence import EvidenceRecord, PartEvidenceRecord

EVIDENCE = "evidence"
"""Group of the verdicts."""


@dataclass(frozen=True)
class DatasetEvidence:
    """What the detectors say of a data set; see `fwdata.store.records.evidence.EvidenceRecord`."""

    measured_first: int
    """Episodes that were measured before anything was written."""
    first: tuple[DatasetVerdict, ...]
    """Verdicts of those episodes."""
    now: tuple[DatasetVerdict, ...]
    """Verdicts of all episodes."""
    parts: tuple[str, ...]
    """Parts whose episodes are pooled in `now`."""
    reasons: Mapping[str, str]
    """Detector -> why its contradiction was accepted."""

    @classmethod
    def of(cls, data: JsonObject) -> DatasetEvidence:
        """From the plain JSON of an `EvidenceRecord`."""
        first, now = (tuple(map(DatasetVerdict.from_json, data[key])) for key in ("first", "detectors"))
        reasons = {override["detector"]: override["reason"] for override in data["overrides"]}
        return cls(data["measured_first"], first, now, tuple(data["parts"]), reasons)

    def first_verdicts(self) -> tuple[DatasetVerdict, ...]:
        """The verdicts of the first episodes."""
        return self.first

    def verdicts(self) -> tuple[DatasetVerdict, ...]:
        """The verdicts of all episodes."""
        return self.now

    def accepted(self) -> dict[str, str]:
        """Detector -> why its contradiction was accepted."""
        return dict(self.reasons)


_written: JsonObject = {}
"""The record that this process wrote last: reading it back, as a conversion does three times, needs no check of its
fields, for which pydantic would make a schema (5 ms)."""


def read_evidence(files: Files) -> DatasetEvidence | None:
    """The verdicts of a store's data set; None where nothing was measured. StoreDamaged for a record that does not
    match its sha256, or has a missing or wrong field."""
    found = read_raw(files, EVIDENCE)
    if found is None:
        return None
    if found[0] == _written:
        return _as_written()
    checked_record(EvidenceRecord, found[0], f"{files.location}/{EVIDENCE}/zarr.json")
    return DatasetEvidence.of(found[0])


@cache
def _as_written() -> DatasetEvidence:
    return DatasetEvidence.of(_written)


def write_evidence(
    store: Path,
    episodes: int,
    first: Sequence[DatasetVerdict],
    now: Sequence[DatasetVerdict],
    accepted: Mapping[str, str],
    parts: Sequence[str] = (),
) -> None:
    """Record the verdicts of a data set, as an `EvidenceRecord`, which is not made, as in `write_part_evidence`.

    first: of the `episodes` that were measured before anything was written.
    parts: that are pooled in `now`.
    """
    global _written
    (store / EVIDENCE).mkdir(parents=True, exist_ok=True)
    begun = [verdict.to_json() for verdict in first]
    _written = {
        "version": ENGINE_VERSION,
        "measured_first": episodes,
        "first": begun,
        "detectors": begun if now is first else [verdict.to_json() for verdict in now],
        "parts": list(parts),
        "overrides": [{"detector": name, "by": "--accept", "reason": why} for name, why in accepted.items()],
    }
    _as_written.cache_clear()
    write_raw(store / EVIDENCE, _written)


def read_part_evidence(files: Files, part: str) -> tuple[EpisodeMeasurement, ...]:
    """The verdicts of a part's episodes; () where nothing was measured. StoreDamaged for another group's metadata."""
    record = read_record(files, f"{EVIDENCE}/{part}", PartEvidenceRecord)
    return tuple(EpisodeMeasurement.from_json(item.to_json()) for item in record.episodes) if record else ()


def write_part_evidence(store: Path, part: str, measurements: Sequence[EpisodeMeasurement]) -> None:
    """Record the verdicts of a part's episodes, as a `PartEvidenceRecord`: one that is not made, as checking what was
    made here takes longer than writing it."""
    write_raw(store / EVIDENCE / part, {"episodes": [measurement.to_json() for measurement in measurements]})
