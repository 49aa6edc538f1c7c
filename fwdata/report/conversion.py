"""The documents of `fwdata convert --json` and `--dry-run --json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

from fwdata.api import Json
from fwdata.evidence.records import DatasetVerdictJson
from fwdata.warning_kinds import WarningKind, WarningKindJson, group_warnings

if TYPE_CHECKING:
    from fwdata.api import LeftOut
    from fwdata.pipeline.changes import ChangedRecording
    from fwdata.pipeline.estimate import DryRun
    from fwdata.pipeline.results import ConvertReport


class ReasonJson(TypedDict):
    """A recording that is not in the store."""

    source: str
    """The recording, as the store calls it."""
    reason: str
    """Why, one sentence."""


class ChangedJson(TypedDict):
    """A recording with other bytes than those that were converted."""

    source: str
    """The recording, as the store calls it."""
    files: list[str]
    """A phrase for each file that differs."""


class LeftOutJson(TypedDict):
    """Recordings that were not taken although nothing is wrong with them, for one reason."""

    reason: str
    """What they are and why they are not taken."""
    count: int
    """How many there are."""
    examples: list[str]
    """One or two of them."""
    asked: bool
    """Whether an option of the user leaves them out."""


class RecordingJson(TypedDict):
    """One recording of a store."""

    source: str
    """The recording, as the store calls it."""
    outcome: Literal["converted", "quarantined", "skipped"]
    """"skipped" was decided by its name or header, "quarantined" when it was read."""
    frames: int
    """Rows; 0 unless converted."""
    reason: str
    """Why it was left out; "" where it was converted."""
    warnings: list[str]
    """Of recordings converted in this run."""
    new: bool
    """Whether this run converted or quarantined it."""


class ConversionJson(TypedDict):
    """The document of `fwdata convert --json`."""

    out: str
    """The store."""
    episodes: int
    """Episodes of the whole store."""
    frames: int
    """Rows of the whole store."""
    new_episodes: int
    """Episodes written by this run."""
    new_frames: int
    """Rows written by this run."""
    seconds: float
    """Time of this run."""
    quarantined: list[ReasonJson]
    """Everything left out, earlier runs included."""
    warnings: list[str]
    """Sentences about recordings that were converted in this run."""
    warning_kinds: list[WarningKindJson]
    """The same, grouped by kind."""
    left_out: list[LeftOutJson]
    """What was not taken, by reason."""
    evidence: list[DatasetVerdictJson]
    """Verdicts of the data set."""
    view_changed: list[str]
    """What the manifest changed in the view of a store that was there."""
    changed: list[ChangedJson]
    """Recordings that `--update` converts again."""
    updated: list[str]
    """Sources of those that were."""
    outdated: str | None
    """A sentence where an older version of the converter made the store; null: it did not."""
    recordings: list[RecordingJson]
    """Every recording of the store, earlier runs included."""


class ExpectedJson(TypedDict):
    """What a conversion is expected to take."""

    store_bytes: int
    """Size of the whole store."""
    seconds: float
    """Time of what is not written yet, with the workers asked for."""
    basis: str
    """What both are estimated from."""


class GroupJson(TypedDict):
    """Recordings of one natural unit (task, suite, dataset)."""

    name: str
    """Name of the unit."""
    episodes: int
    """Recordings."""
    frames: int
    """Their rows."""
    frames_known: bool
    """Whether `frames` is known; else it is estimated."""
    seconds: float
    """Their length at the manifest's rate."""
    bytes: int
    """Their size."""


class DryRunJson(TypedDict):
    """The document of `fwdata convert --dry-run --json`."""

    episodes: int
    """Recordings found."""
    frames: int
    """Their rows, known or estimated."""
    parts: int
    """Parts of the whole store."""
    pending_parts: int
    """Parts that are not written yet."""
    bytes: int
    """Size of the recordings."""
    expected: ExpectedJson
    """Size and time."""
    groups: list[GroupJson]
    """By natural unit."""
    skipped: list[ReasonJson]
    """Recordings that cannot be converted."""
    decisions: dict[str, Json]
    """What the converter decided; each converter's own JSON."""
    warnings: list[str]
    """Sentences about recordings that are converted."""
    looked_at: int
    """Recordings that were read; what is wrong with others only the conversion says."""
    left_out: list[LeftOutJson]
    """What is not taken, by reason."""
    changed: list[ChangedJson]
    """Recordings that `--update` converts again."""
    outdated: str | None
    """A sentence where an older version of the converter made the store; null: it did not."""
    evidence: list[DatasetVerdictJson]
    """What the first episodes show."""


def report_json(report: ConvertReport) -> ConversionJson:
    """A conversion's report as a document."""
    return {
        "out": str(report.out),
        "episodes": report.episodes,
        "frames": report.frames,
        "new_episodes": report.new_episodes,
        "new_frames": report.new_frames,
        "seconds": round(report.seconds, 3),
        "quarantined": _reasons(report.quarantined),
        "warnings": report.warnings,
        "warning_kinds": [kind.to_json() for kind in warning_kinds(report)],
        "left_out": _left_out(report.left_out),
        "evidence": [verdict.to_json() for verdict in report.evidence],
        "view_changed": report.view_changes,
        "changed": _changed(report.changed),
        "updated": report.updated,
        "outdated": report.outdated or None,
        "recordings": [
            {
                "source": row.source,
                "outcome": row.outcome,
                "frames": row.frames,
                "reason": row.reason,
                "warnings": list(row.warnings),
                "new": row.new,
            }
            for row in report.rows
        ],
    }


def dry_run_json(plan: DryRun) -> DryRunJson:
    """What a conversion would do, as a document."""
    return {
        "episodes": plan.episodes,
        "frames": plan.frames,
        "parts": plan.parts,
        "pending_parts": plan.pending_parts,
        "bytes": plan.bytes,
        "expected": {
            "store_bytes": plan.store_bytes,
            "seconds": round(plan.expected_seconds, 1),
            "basis": plan.basis,
        },
        "groups": [
            {
                "name": group.name,
                "episodes": group.episodes,
                "frames": group.frames,
                "frames_known": group.frames_known,
                "seconds": group.seconds,
                "bytes": group.bytes,
            }
            for group in plan.groups
        ],
        "skipped": _reasons(plan.skipped),
        "decisions": plan.decisions,
        "warnings": [f"{source}: {text}" if source else text for source, text in plan.warnings],
        "looked_at": plan.looked_at,
        "left_out": _left_out(plan.left_out),
        "changed": _changed(plan.changed),
        "outdated": plan.outdated or None,
        "evidence": [verdict.to_json() for verdict in plan.evidence],
    }


def warning_kinds(report: ConvertReport) -> list[WarningKind]:
    """The warnings of a conversion, those of its recordings grouped by kind."""
    own = [(row.source, text) for row in report.rows if row.new for text in row.warnings]
    said = {f"{source}: {text}" for source, text in own}
    return group_warnings([*(("", text) for text in report.warnings if text not in said), *own])


def _reasons(items: Sequence[tuple[str, str]]) -> list[ReasonJson]:
    return [{"source": source, "reason": reason} for source, reason in items]


def _changed(items: Sequence[ChangedRecording]) -> list[ChangedJson]:
    return [{"source": item.source, "files": list(item.files)} for item in items]


def _left_out(items: Sequence[LeftOut]) -> list[LeftOutJson]:
    return [
        {"reason": left.reason, "count": left.count, "examples": list(left.examples), "asked": left.asked}
        for left in items
    ]
