"""Verdicts on conventions, kept in groups of their own: `evidence` (data set) and `evidence/<part>` (episodes).

They are part of no identity: a part's bytes and every cache's key are the same with and without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fwdata.evidence.records import ENGINE_VERSION, DatasetVerdict, EpisodeMeasurement
from fwdata.store.files import Files
from fwdata.store.metadata import read_record, write_raw
from fwdata.store.records.evidence import EvidenceRecord, PartEvidenceRecord

EVIDENCE = "evidence"
"""Group of the verdicts."""


def read_evidence(files: Files) -> EvidenceRecord | None:
    """The verdicts of a store's data set; None where nothing was measured."""
    return read_record(files, EVIDENCE, EvidenceRecord)


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
    (store / EVIDENCE).mkdir(parents=True, exist_ok=True)
    write_raw(
        store / EVIDENCE,
        {
            "version": ENGINE_VERSION,
            "measured_first": episodes,
            "first": [verdict.to_json() for verdict in first],
            "detectors": [verdict.to_json() for verdict in now],
            "parts": list(parts),
            "overrides": [{"detector": name, "by": "--accept", "reason": why} for name, why in accepted.items()],
        },
    )


def read_part_evidence(files: Files, part: str) -> tuple[EpisodeMeasurement, ...]:
    """The verdicts of a part's episodes; () where nothing was measured. StoreDamaged for another group's metadata."""
    record = read_record(files, f"{EVIDENCE}/{part}", PartEvidenceRecord)
    return tuple(EpisodeMeasurement.from_json(item.to_json()) for item in record.episodes) if record else ()


def write_part_evidence(store: Path, part: str, measurements: Sequence[EpisodeMeasurement]) -> None:
    """Record the verdicts of a part's episodes, as a `PartEvidenceRecord`: one that is not made, as checking what was
    made here takes longer than writing it."""
    write_raw(store / EVIDENCE / part, {"episodes": [measurement.to_json() for measurement in measurements]})
