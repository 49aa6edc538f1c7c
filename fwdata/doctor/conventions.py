"""Verdicts of the evidence engine as findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fwdata.doctor.findings import DoctorFinding
from fwdata.doctor.remedies import Patient, remedy
from fwdata.evidence import sentences
from fwdata.evidence.detectors.duplicates import DuplicateEpisodes
from fwdata.evidence.detectors.rows import RowQuality
from fwdata.evidence.detectors.text import InstructionNearMisses
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, RowTrace, Verdict

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
    for verdict in verdicts:
        if not verdict.against or verdict.detector == RowQuality.name:
            continue
        reason = accepted.get(verdict.detector)
        known = sentences.suiting(verdict, verdicts, options)
        command = remedy(patient, verdict, total, sentences.option_for(verdict, known))
        found.append(DoctorFinding.of_verdict(verdict, _sentence(verdict), reason, command))
    return found


def _sentence(verdict: DatasetVerdict) -> str:
    if verdict.detector in OWN_WORDS:
        return f"{verdict.measured}: {verdict.detail}"
    return sentences.contradiction(verdict)


def not_verified(verdicts: Sequence[DatasetVerdict]) -> tuple[str, ...]:
    """The line that counts what could not be measured, where there is one."""
    line = sentences.not_verified(verdicts)
    return (line,) if line else ()


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
