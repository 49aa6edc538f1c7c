"""Verdicts on conventions, kept in groups of their own: `evidence` (data set) and `evidence/<part>` (episodes).

They are part of no identity: a part's bytes and every cache's key are the same with and without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from fwdata.evidence.records import ENGINE_VERSION, DatasetVerdict, EpisodeMeasurement
from fwdata.store.files import Files
from fwdata.store.metadata import read_record, write_record
from fwdata.store.records import Count, Record

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


type Scalar = int | float
"""A number as it was written."""


class VerdictRecord(Record):
    """What a detector says of a subject; see `fwdata.evidence.records.Verdict`. Empty fields are left out."""

    detector: str
    """Name of the detector."""
    verdict: Literal["confirmed", "contradicted", "mixed", "no evidence"]
    """Whether the data agree with the decision."""
    subject: str = ""
    """Gripper, camera or column; empty for the whole."""
    value: Scalar | None = None
    """The number that decided."""
    interval: tuple[Scalar, Scalar] | None = None
    """95 % interval of the value."""
    action: Literal["stop", "warn", "note"] = "note"
    """What a contradiction does to a conversion."""
    decided: str = ""
    """What was decided, in words."""
    measured: str = ""
    """What the data say, in words."""
    detail: str = ""
    """Further words."""


class DatasetVerdictRecord(VerdictRecord):
    """The verdict of a data set; see `fwdata.evidence.records.DatasetVerdict`."""

    episodes_for: Count = 0
    """Episodes that agree with the decision."""
    against: Count = 0
    """Episodes that contradict it."""
    abstained: Count = 0
    """Episodes without evidence."""
    episodes: tuple[str, ...] = ()
    """Ids of contradicting episodes, the first ones."""


class ContradictionRecord(VerdictRecord):
    """A contradicted verdict of one episode."""

    n: Count = 0
    """How much evidence it rests on."""


class MeasurementRecord(Record):
    """The verdicts of one episode; keys of the mappings are "detector subject"."""

    id: str
    """Id of the episode."""
    group: str
    """Unit in which scales are compared."""
    confirmed: dict[str, Scalar | None]
    """Values of what agrees."""
    no_evidence: dict[str, str]
    """Why the others do not tell."""
    contradicted: tuple[ContradictionRecord, ...]
    """Contradictions, whole."""


class EvidenceRecord(Record):
    """What the detectors say of a data set."""

    version: int
    """`ENGINE_VERSION` of the detectors that measured."""
    measured_first: int
    """Episodes that were measured before anything was written."""
    first: tuple[DatasetVerdictRecord, ...]
    """Verdicts of those episodes."""
    detectors: tuple[DatasetVerdictRecord, ...]
    """Verdicts of all episodes; those of detectors that look at images are of the first ones."""
    parts: tuple[str, ...]
    """Parts whose episodes are pooled in `detectors`; () before the first part is written."""
    overrides: tuple[OverrideRecord, ...]
    """Contradictions that the user accepted."""

    def first_verdicts(self) -> tuple[DatasetVerdict, ...]:
        """The verdicts of the first episodes."""
        return tuple(DatasetVerdict.from_json(item.to_json()) for item in self.first)

    def verdicts(self) -> tuple[DatasetVerdict, ...]:
        """The verdicts of all episodes."""
        return tuple(DatasetVerdict.from_json(item.to_json()) for item in self.detectors)

    def accepted(self) -> dict[str, str]:
        """Detector -> why its contradiction was accepted."""
        return {override.detector: override.reason for override in self.overrides}


class PartEvidenceRecord(Record):
    """What the detectors say of the episodes of one part."""

    episodes: tuple[MeasurementRecord, ...]
    """One per episode."""

    @classmethod
    def of(cls, measurements: Iterable[EpisodeMeasurement]) -> PartEvidenceRecord:
        """As they are stored."""
        return cls(episodes=tuple(MeasurementRecord.model_validate(m.to_json()) for m in measurements))


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
            first=_records(first),
            detectors=_records(now),
            parts=tuple(parts),
            overrides=overrides,
        ),
    )


def read_part_evidence(files: Files, part: str) -> tuple[EpisodeMeasurement, ...]:
    """The verdicts of a part's episodes; () where nothing was measured. StoreDamaged for another group's metadata."""
    record = read_record(files, f"{EVIDENCE}/{part}", PartEvidenceRecord)
    return tuple(EpisodeMeasurement.from_json(item.to_json()) for item in record.episodes) if record else ()


def write_part_evidence(store: Path, part: str, measurements: Sequence[EpisodeMeasurement]) -> None:
    """Record the verdicts of a part's episodes."""
    write_record(store / EVIDENCE / part, PartEvidenceRecord.of(measurements))


def _records(verdicts: Sequence[DatasetVerdict]) -> tuple[DatasetVerdictRecord, ...]:
    return tuple(DatasetVerdictRecord.model_validate(verdict.to_json()) for verdict in verdicts)
