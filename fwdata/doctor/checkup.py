"""A checkup of a store: every episode examined, and what is cached beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from fwdata.doctor.caches import cache_findings
from fwdata.doctor.conventions import beside_the_view
from fwdata.doctor.examine import IMAGE_EPISODES, UNSETTLED, Examination, examine
from fwdata.doctor.findings import ORDER, Checkup, CountedShare, DoctorFinding, listed
from fwdata.doctor.remedies import Patient, flags_of, remedy
from fwdata.evidence import sentences
from fwdata.evidence.records import DatasetVerdict, Severity
from fwdata.pipeline.stored_episode import episode_input
from fwdata.store.evidence import DatasetEvidence, read_evidence
from fwdata.store.reader import Store
from fwdata.warning_kinds import group_warnings
from fwdata.wording import counted, verb


class LeftOutLike(Protocol):
    """A recording that is left out, as plans, parts and discoveries know it."""

    @property
    def source(self) -> str: ...
    @property
    def reason(self) -> str: ...


type Advance = Callable[[int], None]
"""Called with the number of episodes that were examined since."""


def check_store(store: Store, advance: Advance = lambda _: None) -> Checkup:
    """Examine a store. Reads all rows once and the images of at most 20 episodes; writes nothing.

    Memory: one episode at a time, and some 2 kB of each (1.6 measured). StoreDamaged where a checksum does not hold.
    """
    stitch, given = store.manifest.stitch, flags_of(store.manifest)
    record = read_evidence(store.files)
    accepted = record.accepted() if record else {}
    sizes = stitch.cameras, given, stitch.camera_size, store.cameras
    picked = (*(("exclude", name) for name in store.plan.exclude), *(("only", name) for name in store.plan.only))
    patient = Patient(store.location, store.source, True, *sizes, accepted, picked)
    examination = Examination(patient, store.manifest, len(store.episodes), accepted)
    shown = spread(len(store.episodes), IMAGE_EPISODES)
    for episode in store.episodes:
        seen = episode_input(store, episode, episode.index in shown)
        said = [text for text in episode.details.metadata.warnings if UNSETTLED.search(text)]
        examination.add(examine(seen, episode.valid(), store.manifest, said), episode.split == "train")
        advance(1)
    found, _ = examination.findings()
    verdicts = _with_recorded(examination.verdicts, record) if examination.verdicts else ()
    found += [
        *_unfinished(store, patient),
        *_recorded(record, found, patient),
        *cache_findings(store),
        *_left_out(store, patient),
        *_mixed(store, patient),
    ]
    return Checkup(
        store.location,
        "store",
        len(store.episodes),
        examination.frames,
        in_order(found),
        sentences.not_verified(verdicts),
        dict(examination.looked_at),
        verdicts,
    )


def spread(count: int, most: int) -> frozenset[int]:
    """At most `most` of the numbers 0 .. count - 1, evenly spread."""
    return frozenset(np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist())


def in_order(findings: Sequence[DoctorFinding]) -> tuple[DoctorFinding, ...]:
    """The gravest first, otherwise as found; commands of conversions say what else would stop them."""
    stopping = [finding for finding in findings if finding.severity == "stop"]
    told = (replace(finding, command=_with_what_stops(finding, stopping)) for finding in findings)
    return tuple(sorted(told, key=lambda finding: ORDER.index(finding.severity)))


def _with_what_stops(finding: DoctorFinding, stopping: Sequence[DoctorFinding]) -> str:
    """A finding's command; of a conversion with a remark that names the findings which would stop it."""
    command = finding.command
    if not command.startswith("fwdata convert "):
        return command
    settled = {other.detector for other in stopping if other.command == command or _accepts(command, other.detector)}
    names = [each.detector for each in stopping if each.detector not in {finding.detector, *settled}]
    if not names:
        return command
    mark = ";" if "  # " in command else "  #"
    return f"{command}{mark} stopped by {' and '.join(dict.fromkeys(names))} too: add the options of its fix"


def _accepts(command: str, detector: str) -> bool:
    return f"--accept {detector}=" in command


def _recorded(record: DatasetEvidence | None, found: Sequence[DoctorFinding], patient: Patient) -> list[DoctorFinding]:
    """Contradictions that the conversion recorded and that the store itself does not show any more."""
    seen = {(finding.detector, finding.subject) for finding in found}
    again = []
    for verdict in sentences.causes(record.verdicts()) if record else ():
        if verdict.verdict != "contradicted" or verdict.action == "note" or (verdict.detector, verdict.subject) in seen:
            continue
        reason = record.accepted().get(verdict.detector) if record else None
        sentence = f"recorded when it was converted: {sentences.contradiction(verdict)}"
        command = remedy(patient, verdict, verdict.episodes_for + verdict.against)
        again.append(beside_the_view(DoctorFinding.of_verdict(verdict, sentence, reason, command), patient))
    return again


def _with_recorded(measured: Sequence[DatasetVerdict], record: DatasetEvidence | None) -> tuple[DatasetVerdict, ...]:
    """The verdicts, and the conversion's where a store cannot tell: it keeps no quaternion and no camera pose."""
    known = {(verdict.detector, verdict.subject): verdict for verdict in record.verdicts()} if record else {}
    verdicts = []
    for verdict in measured:
        then = known.pop((verdict.detector, verdict.subject), verdict)
        told = verdict.verdict == "no evidence" and then.verdict == "confirmed"
        verdicts.append(_as_recorded(then) if told else verdict)
    return (*verdicts, *(_as_recorded(verdict) for verdict in known.values()))


def _as_recorded(verdict: DatasetVerdict) -> DatasetVerdict:
    detail = f"{verdict.detail}; " if verdict.detail else ""
    return replace(verdict, detail=f"{detail}measured on the recordings, when they were converted")


def _unfinished(store: Store, patient: Patient) -> list[DoctorFinding]:
    """Recordings that were planned and are not in the store, as their conversion was stopped, or runs still."""
    there = {part.name for part in store.parts}
    missing = [item.id for part in store.plan.parts if part.name not in there for item in part.episodes]
    if not missing:
        return []
    sentence = (
        f"{counted(len(missing), 'recording')} {verb(len(missing), 'is', 'are')} still to be converted: the "
        "conversion was stopped, or runs still"
    )
    command = patient.again()
    return [
        DoctorFinding("warn", "unfinished", sentence, "", float(len(missing)), listed(missing), len(missing), command)
    ]


def _left_out(store: Store, patient: Patient) -> list[DoctorFinding]:
    """Recordings that are not in the store: as they cannot be read, or left out on purpose."""
    unread = [item.record for part in store.parts for item in store.left_out(part)]
    quarantined = [*unread, *(item for item in store.plan.skipped if item.damaged)]
    meant = [item for item in store.plan.skipped if not item.damaged]
    found = []
    if quarantined:
        found.append(left_out_finding("quarantined", "warn", quarantined, len(store.episodes), patient))
    if meant:
        found.append(left_out_finding("left_out", "note", meant, len(store.episodes), patient))
    return found


def left_out_finding(
    name: str, severity: Severity, items: Sequence[LeftOutLike], episodes: int, patient: Patient
) -> DoctorFinding:
    """One finding for recordings that were left out, with the most frequent kind of reason. episodes: that were not."""
    kinds = sorted(group_warnings((item.source, item.reason) for item in items), key=lambda kind: -kind.count)
    listing = "; ".join(
        f"{'once' if kind.count == 1 else f'{kind.count} times'}: {kind.text}{'' if kind.same else ', and the like'}"
        for kind in kinds[:3]
    )
    sentence = (
        f"{len(items)} of {counted(len(items) + episodes, 'recording')} {verb(len(items), 'is', 'are')} left out "
        f"({listing})"
    )
    sources = [item.source for item in items]
    command, fetch = "", patient.fetching(kinds[0].text)
    if patient.is_store and name == "quarantined":
        command = f"{fetch} && {patient.retry()}" if fetch else f"{patient.retry()}  # once they can be read"
    elif name == "unreadable":
        command = fetch or patient.option_in(kinds[0].text) or patient.without(sources, len(items) + episodes)
    shares = tuple(CountedShare(kind.text, kind.count, len(items) + episodes) for kind in kinds)
    first = listed(sources)
    return DoctorFinding(severity, name, sentence, "", float(len(items)), first, len(items), command, shares=shares)


def _mixed(store: Store, patient: Patient) -> list[DoctorFinding]:
    """Several robots in one store, whose statistics must not be shared."""
    robots = sorted(store.embodiments)
    if len(robots) < 2:
        return []
    sentence = f"the episodes are of {len(robots)} robots ({', '.join(robots)}), which must not share statistics"
    most = max(robots, key=lambda robot: sum(e.embodiment == robot for p in store.parts for e in p.record.episodes))
    others = [e.id for part in store.parts for e in part.record.episodes if e.embodiment != most]
    command = patient.without(others, len(store.episodes))
    first = {e.embodiment: e.id for part in reversed(store.parts) for e in reversed(part.record.episodes)}
    shown = tuple(first[robot] for robot in robots if robot in first)
    return [DoctorFinding("stop", "embodiments", sentence, "", float(len(robots)), shown, command=command)]
