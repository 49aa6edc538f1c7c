"""What a check says: one typed record per finding, and the report that orders and counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Self, TypedDict

from fwdata.errors import EXIT_OK, EXIT_UNEXPECTED, EXIT_USAGE
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, DatasetVerdictJson, Severity

ORDER: tuple[Severity, ...] = ("stop", "warn", "note")
"""Severities, the gravest first."""

type FailOn = Literal["warn", "stop"]

EXAMPLES = 2
"""Findings of one kind that are printed in full; the others are counted."""


class FindingJson(TypedDict):
    """A finding as `fwdata doctor --json` prints it; see `DoctorFinding`."""

    severity: Severity
    """stop, warn or note."""
    detector: str
    """Name of the detector or check."""
    subject: str
    """Gripper, camera, column or cache; empty for the data set."""
    sentence: str
    """What is wrong, with the measured number."""
    value: float | None
    """The number that decided, six significant digits; null: none."""
    episodes: list[str]
    """Ids of the episodes concerned, at most 12."""
    count: int
    """Episodes concerned in all."""
    command: str
    """The command that fixes it; empty where nothing has to be done."""
    row: int | None
    """Row of the first listed episode to look at; null: the whole episode."""


class CheckupJson(TypedDict):
    """The document of `fwdata doctor --json`."""

    where: str
    """The store or the recordings that were looked at."""
    kind: str
    """"store" or "recordings"."""
    episodes: int
    """Episodes that were looked at."""
    frames: int
    """Their rows."""
    images_of: dict[str, int]
    """Camera -> episodes whose images were looked at."""
    counts: dict[Severity, int]
    """Findings by severity."""
    findings: list[FindingJson]
    """The findings, the gravest first."""
    not_verified: list[str]
    """What could not be measured, one sentence each."""
    verdicts: list[DatasetVerdictJson]
    """What every detector says of all episodes together, as `fwdata inspect --json` prints it."""


@dataclass(frozen=True)
class CountedShare:
    """So many of so many, for a plot of a finding that no episode shows."""

    name: str
    """What is counted: a part, a kind of reason."""
    count: int
    """How many of them."""
    total: int
    """Of how many."""


@dataclass(frozen=True)
class DoctorFinding:
    """One thing that is wrong, or worth a look."""

    severity: Severity
    """stop: training on it is wasted; warn: look at it before training; note: unusual, and often right."""
    detector: str
    """Name of the detector or check, e.g. "gripper_polarity"; findings are grouped by it."""
    sentence: str
    """What is wrong, with the measured number."""
    subject: str = ""
    """Gripper, camera, column or cache it is about; empty for the data set."""
    value: float | None = None
    """The number that decided; the sentence says what it is."""
    episodes: tuple[str, ...] = ()
    """Ids of the episodes concerned, at most 12."""
    count: int = 0
    """Episodes concerned in all; 0 where it is about the data set."""
    command: str = ""
    """The command that fixes it; empty where nothing has to be done."""
    row: int | None = None
    """Row of the first listed episode to look at; None: the whole episode."""

    shares: tuple[CountedShare, ...] = ()
    """What the page plots where no episode shows the finding; not in `--json`, whose sentence has the numbers."""

    @classmethod
    def of_verdict(cls, verdict: DatasetVerdict, sentence: str, accepted: str | None, command: str) -> Self:
        """A verdict that contradicts a decision. accepted: why the user took it all the same, which needs no command;
        None: it was not accepted."""
        return cls(
            "note" if accepted else verdict.action,
            verdict.detector,
            sentence + (f"; accepted: {accepted}" if accepted else ""),
            verdict.subject,
            verdict.value,
            verdict.episodes,
            verdict.against,
            "" if accepted else command,
        )

    def to_json(self) -> FindingJson:
        """As `--json` prints it; empty fields stay, so that every finding has the same keys."""
        return {
            "severity": self.severity,
            "detector": self.detector,
            "subject": self.subject,
            "sentence": self.sentence,
            "value": None if self.value is None else float(f"{self.value:.6g}"),
            "episodes": list(self.episodes),
            "count": self.count,
            "command": self.command,
            "row": self.row,
        }


@dataclass(frozen=True)
class FindingGroup:
    """All findings of one detector at one severity."""

    severity: Severity
    """Severity of every one of them."""
    detector: str
    """Name of the detector or check."""
    findings: tuple[DoctorFinding, ...]
    """In the order they were found; at least one."""

    @property
    def count(self) -> int:
        """Episodes concerned, as far as they are counted."""
        return max(finding.count for finding in self.findings)


@dataclass(frozen=True)
class Checkup:
    """What was examined, and what was found."""

    where: str
    """The store or the folder of recordings."""
    kind: Literal["store", "recordings"]
    """What it is."""
    episodes: int
    """Episodes examined."""
    frames: int
    """Their rows."""
    findings: tuple[DoctorFinding, ...]
    """The gravest first."""
    not_verified: tuple[str, ...] = ()
    """What could not be measured, one sentence each."""
    looked_at: dict[str, int] = field(default_factory=dict)
    """Camera -> episodes whose images were looked at."""
    verdicts: tuple[DatasetVerdict, ...] = ()
    """What every detector says of all episodes together."""

    def groups(self) -> tuple[FindingGroup, ...]:
        """Findings by severity and detector, the gravest first, detectors with most episodes first."""
        found: dict[tuple[Severity, str], list[DoctorFinding]] = {}
        for finding in self.findings:
            found.setdefault((finding.severity, finding.detector), []).append(finding)
        groups = [FindingGroup(severity, name, tuple(items)) for (severity, name), items in found.items()]
        return tuple(sorted(groups, key=lambda group: (ORDER.index(group.severity), -group.count, group.detector)))

    def counts(self) -> dict[Severity, int]:
        """Findings by severity."""
        return {severity: sum(f.severity == severity for f in self.findings) for severity in ORDER}

    def exit_code(self, fail_on: FailOn) -> int:
        """2 with a finding that stops; 1 with one that warns, where `fail_on` is "warn"; else 0."""
        counts = self.counts()
        if counts["stop"]:
            return EXIT_USAGE
        return EXIT_UNEXPECTED if fail_on == "warn" and counts["warn"] else EXIT_OK

    def to_json(self) -> CheckupJson:
        """The document of `--json`."""
        return {
            "where": self.where,
            "kind": self.kind,
            "episodes": self.episodes,
            "frames": self.frames,
            "images_of": self.looked_at,
            "counts": self.counts(),
            "findings": [finding.to_json() for finding in self.findings],
            "not_verified": list(self.not_verified),
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
        }


def listed(episodes: Sequence[str]) -> tuple[str, ...]:
    """The first ids of a list, as a finding keeps them."""
    return tuple(episodes[:MAX_LISTED])
