"""Verdicts of the evidence engine as findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fwdata.doctor.findings import DoctorFinding
from fwdata.doctor.remedies import OF_CAMERA, Patient, remedy
from fwdata.evidence import sentences
from fwdata.evidence.detectors.duplicates import DuplicateEpisodes
from fwdata.evidence.detectors.rows import RowQuality
from fwdata.evidence.detectors.text import InstructionNearMisses
from fwdata.evidence.records import FROZEN, DatasetVerdict, EpisodeMeasurement, RowTrace, Verdict

OWN_WORDS = {DuplicateEpisodes.name, InstructionNearMisses.name}
"""Detectors whose verdict is a sentence by itself."""


def convention_findings(
    verdicts: Sequence[DatasetVerdict],
    patient: Patient,
    total: int,
    options: Mapping[str, str],
    accepted: Mapping[str, str],
) -> list[DoctorFinding]:
    """One finding per verdict that some episode contradicts; rows have findings of their own (`fwdata.doctor.rows`).

    total: episodes examined. options: detector -> converter option that would agree. accepted: detector -> the user's
    reason to keep what was decided; such a contradiction is a note.
    """
    found = []
    dead = {v.subject for v in verdicts if v.detector in OF_CAMERA and v.action == "stop"}
    mended = (
        replace(patient, cameras=()) if dead and dead.issuperset(patient.cameras) else patient
    )  # none would be left
    frozen = [v.detector for v in verdicts if v.detector == FROZEN and v.action == "stop"]
    for verdict in sentences.causes(verdicts):
        if not verdict.against or verdict.detector == RowQuality.name:
            continue
        reason = accepted.get(verdict.detector)
        known = sentences.suiting(verdict, verdicts, options)
        command = remedy(mended, verdict, total, sentences.option_for(verdict, known), frozen)
        if sentences.may_be_turned(verdict, verdicts):
            command = patient.looking(verdict.detector)
        sentence = _sentence(verdict, verdicts)
        found.append(beside_the_view(DoctorFinding.of_verdict(verdict, sentence, reason, command), patient))
    return _kept_together(found)


def _kept_together(found: Sequence[DoctorFinding]) -> list[DoctorFinding]:
    """The findings; a command that keeps what stops keeps all of that kind, each of which would stop it alone."""
    kept = [finding for finding in found if finding.severity == "stop" and _keeping(finding) in finding.command]
    every = " ".join(dict.fromkeys(map(_keeping, kept)))
    return [replace(f, command=f.command.replace(_keeping(f), every)) if f in kept else f for f in found]


def _keeping(finding: DoctorFinding) -> str:
    return f"--accept {finding.detector}=WHY"


def beside_the_view(finding: DoctorFinding, patient: Patient) -> DoctorFinding:
    """The finding; a note where it is about a camera that the view leaves out, so that training never sees it."""
    unseen = patient.leaves_out(finding.subject)
    if not unseen:
        return finding
    sentence = f"{finding.sentence}; the view does not stitch {' and '.join(unseen)}"
    return replace(finding, severity="note", sentence=sentence, command="")


def _sentence(verdict: DatasetVerdict, verdicts: Sequence[DatasetVerdict]) -> str:
    if verdict.detector in OWN_WORDS:
        return f"{verdict.measured}: {verdict.detail}"
    left_open = sentences.may_be_turned(verdict, verdicts) or sentences.unmeasured(verdict, verdicts)
    return f"{sentences.contradiction(verdict)}{f'; {left_open}' if left_open else ''}"


class Thinner:
    """Keeps one copy of every distinct verdict, so that measurements of many episodes stay small."""

    def __init__(self) -> None:
        self._known: dict[Verdict, Verdict] = {}
        self._texts: dict[str, str] = {}

    def thin(self, measurement: EpisodeMeasurement, traces: bool) -> EpisodeMeasurement:
        """The measurement without the words of verdicts that agree. traces: keep what comparisons need."""
        verdicts = tuple(self._one(verdict) for verdict in measurement.verdicts)
        kept = measurement.traces if traces else tuple(t for t in measurement.traces if not isinstance(t, RowTrace))
        return replace(measurement, verdicts=verdicts, traces=kept)

    def _one(self, verdict: Verdict) -> Verdict:
        if verdict.verdict == "confirmed" and verdict.value is not None:
            verdict = replace(verdict, detail="", n=0, value=float(f"{verdict.value:.2g}"))
        return self._known.setdefault(verdict, verdict)
