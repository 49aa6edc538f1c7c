"""Records of verdicts on conventions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from fwdata.evidence.records import EpisodeMeasurement
from fwdata.store.records.base import Count, Record


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


class PartEvidenceRecord(Record):
    """What the detectors say of the episodes of one part."""

    episodes: tuple[MeasurementRecord, ...]
    """One per episode."""

    @classmethod
    def of(cls, measurements: Iterable[EpisodeMeasurement]) -> PartEvidenceRecord:
        """As they are stored."""
        return cls(episodes=tuple(MeasurementRecord.model_validate(m.to_json()) for m in measurements))
