"""Verdicts on conventions, kept in groups of their own: `evidence` (data set) and `evidence/<part>` (episodes).

They are part of no identity: a part's bytes and every cache's key are the same with and without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fwdata.errors import StoreDamaged
from fwdata.evidence.records import ENGINE_VERSION, DatasetVerdict, EpisodeMeasurement
from fwdata.store.files import Files
from fwdata.store.metadata import read_record, write_record
from fwdata.store.records import JsonObject, Record

EVIDENCE = "evidence"
"""Group of the verdicts."""


class OverrideRecord(Record):
    """A contradiction that the user accepted."""

    detector: str
    """Name of the detector."""
    by: str
    """How it was accepted."""
    reason: str
    """Why, in the user's words."""


class EvidenceRecord(Record):
    """What the detectors say of a data set."""

    version: int
    """`ENGINE_VERSION` of the detectors that measured."""
    measured_first: int
    """Episodes that were measured before anything was written."""
    first: tuple[JsonObject, ...]
    """Verdicts of those episodes, as `DatasetVerdict.to_json` writes them."""
    detectors: tuple[JsonObject, ...]
    """Verdicts of all episodes; those of detectors that look at images are of the first ones."""
    parts: tuple[str, ...]
    """Parts whose episodes are pooled in `detectors`; () before the first part is written."""
    overrides: tuple[OverrideRecord, ...]
    """Contradictions that the user accepted."""

    def first_verdicts(self) -> tuple[DatasetVerdict, ...]:
        """The verdicts of the first episodes."""
        return tuple(DatasetVerdict.from_json(item) for item in self.first)

    def verdicts(self) -> tuple[DatasetVerdict, ...]:
        """The verdicts of all episodes."""
        return tuple(DatasetVerdict.from_json(item) for item in self.detectors)

    def accepted(self) -> dict[str, str]:
        """Detector -> why its contradiction was accepted."""
        return {override.detector: override.reason for override in self.overrides}


class PartEvidenceRecord(Record):
    """What the detectors say of the episodes of one part."""

    episodes: tuple[JsonObject, ...]
    """One per episode, as `EpisodeMeasurement.to_json` writes them."""


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
    """Record the verdicts of a data set. first: of the `episodes` that were measured before anything was written.

    parts: that are pooled in `now`.
    """
    (store / EVIDENCE).mkdir(parents=True, exist_ok=True)
    overrides = tuple(OverrideRecord(detector=name, by="--accept", reason=why) for name, why in accepted.items())
    write_record(
        store / EVIDENCE,
        EvidenceRecord(
            version=ENGINE_VERSION,
            measured_first=episodes,
            first=tuple(verdict.to_json() for verdict in first),
            detectors=tuple(verdict.to_json() for verdict in now),
            parts=tuple(parts),
            overrides=overrides,
        ),
    )


def read_part_evidence(files: Files, part: str) -> tuple[EpisodeMeasurement, ...]:
    """The verdicts of a part's episodes; () where nothing was measured. StoreDamaged for another group's metadata."""
    record = read_record(files, f"{EVIDENCE}/{part}", PartEvidenceRecord)
    try:
        return tuple(EpisodeMeasurement.from_json(item) for item in record.episodes) if record else ()
    except (AttributeError, KeyError, TypeError):
        raise StoreDamaged(f"{files.location}/{EVIDENCE}/{part}/zarr.json does not hold verdicts") from None


def write_part_evidence(store: Path, part: str, measurements: Sequence[EpisodeMeasurement]) -> None:
    """Record the verdicts of a part's episodes."""
    write_record(store / EVIDENCE / part, PartEvidenceRecord(episodes=tuple(dict(m.to_json()) for m in measurements)))
