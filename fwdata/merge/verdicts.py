"""Verdicts on conventions in a merged store: those of the inputs' episodes, pooled anew over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fwdata.errors import quoted
from fwdata.evidence import sentences
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, PooledOutcome
from fwdata.store.evidence import EVIDENCE, read_evidence, read_part_evidence, write_evidence
from fwdata.store.files import LocalFiles
from fwdata.store.metadata import has_record, holds_record, write_record
from fwdata.store.pooling import pool_store
from fwdata.store.reader import Store
from fwdata.store.records.evidence import PartEvidenceRecord

GRAVITY: tuple[PooledOutcome, ...] = ("no evidence", "confirmed", "mixed", "contradicted")
"""Outcomes, the gravest last: of verdicts that cannot be pooled anew the gravest input's is kept."""


@dataclass(frozen=True)
class MovedVerdicts:
    """The verdicts of one part of an input."""

    store: Store
    """The input."""
    store_name: str
    """Its unique name, which keeps its groups apart from another's."""
    part: str
    """Name of the part there."""
    target: str
    """Name of the part in the merged store."""
    ids: Mapping[str, str]
    """New id of every recording of the input whose id changes."""

    def record(self) -> PartEvidenceRecord:
        """As it is written in the merged store; no episode where the input was not measured."""
        found = (self._moved(m) for m in read_part_evidence(self.store.files, self.part))
        return PartEvidenceRecord.of(found)

    def _moved(self, measured: EpisodeMeasurement) -> EpisodeMeasurement:
        name = self.ids.get(measured.episode, measured.episode)
        return replace(measured, episode=name, group=f"{self.store_name}/{measured.group}")


@dataclass(frozen=True)
class MergedVerdicts:
    """What the inputs of a merge say about their conventions."""

    parts: Mapping[str, PartEvidenceRecord]
    """By part of the merged store."""
    before: tuple[DatasetVerdict, ...]
    """Verdicts of the inputs, the gravest of each detector and subject."""
    accepted: Mapping[str, str]
    """Detector -> why its contradiction was accepted, the first input's reason where several have one."""
    measured_first: int
    """Episodes that were measured before the inputs were written."""


def merged_verdicts(parts: Sequence[MovedVerdicts]) -> tuple[MergedVerdicts | None, list[str]]:
    """(verdicts of a merged store or None where no input was measured, sentences for the user)."""
    stores = {part.store_name: part for part in parts}
    records = {name: read_evidence(part.store.files) for name, part in stores.items()}
    measured = {name: record for name, record in records.items() if record is not None}
    if not measured:
        return None, []
    lacking = [stores[name].store.location for name in records if name not in measured]
    notes = [
        f"conventions of {location} were not measured; `fwdata doctor {quoted(location)}` does" for location in lacking
    ]
    before: dict[tuple[str, str], DatasetVerdict] = {}
    accepted: dict[str, str] = {}
    for name, record in measured.items():
        accepted = {**record.accepted(), **accepted}
        for verdict in record.verdicts():
            key = verdict.detector, verdict.subject
            ids = stores[name].ids
            moved = replace(verdict, episodes=tuple(ids.get(episode, episode) for episode in verdict.episodes))
            known = before.get(key)
            if known is None or GRAVITY.index(moved.verdict) > GRAVITY.index(known.verdict):
                before[key] = moved
    kept = {part.target: part.record() for part in parts}
    first = sum(record.measured_first for record in measured.values())
    return MergedVerdicts(kept, tuple(before.values()), accepted, first), notes


def write_verdicts(out: Path, found: MergedVerdicts) -> list[str]:
    """Write the verdicts of a merged store whose parts are there, unless they are; a sentence for each new warning.

    Cost: reads the rows of the store once, as `pool_store` does. The caller holds the store's write lock.
    """
    files = LocalFiles(out)
    if not has_record(files, EVIDENCE):  # not pooled yet
        write_evidence(out, found.measured_first, (), found.before, found.accepted)
    for name, record in found.parts.items():
        if not holds_record(files, f"{EVIDENCE}/{name}", record):
            write_record(out / EVIDENCE / name, record)
    have = read_evidence(files)
    if have is None or sorted(have.parts) != sorted(found.parts):
        pool_store(out, found.accepted, {})
        have = read_evidence(files)
    known = {(v.detector, v.subject) for v in found.before if v.verdict == "contradicted"}
    new = [v for v in have.verdicts() if (v.detector, v.subject) not in known] if have else []
    return [f"together: {text}" for text in sentences.warnings(new, found.accepted)]
