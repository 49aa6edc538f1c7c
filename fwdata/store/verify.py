"""Checking every stored byte against the sha256 recorded when it was written."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fwdata.errors import StoreDamaged
from fwdata.store.attempts import find_attempts
from fwdata.store.caches.identity import find_caches
from fwdata.store.evidence import EVIDENCE, read_evidence, read_part_evidence
from fwdata.store.files import LocalFiles, file_sha256, refuse_url
from fwdata.store.layout import part_name
from fwdata.store.leases import JOBS
from fwdata.store.metadata import is_written_group, read_complete, read_record
from fwdata.store.reader import Store, open_store
from fwdata.store.records import CacheRecord, SealedRecord
from fwdata.store.sources import SOURCES, read_sources
from fwdata.store.view import VIEW, ViewRecord

SEALED = ("stats", "parts/p*", "parts/p*/frames", "latents/*/p*", "text/*/p*")
"""Folders whose zarr.json lists the sha256 of every other file below them."""


UNFINISHED = "is not finished; run the command that writes it again"
"""What is wrong with a folder that has no mark of completion, or that only an attempt is there of."""


@dataclass(frozen=True)
class Finding:
    """Something wrong in a store."""

    key: str
    """Path relative to the store, POSIX."""
    problem: str
    """Completes the sentence "<path> ..."."""


@dataclass
class VerifyReport:
    """What a verification read and found."""

    store: Path
    """The store."""
    files: int = 0
    """Files whose bytes were read."""
    bytes: int = 0
    """Their size."""
    total_files: int = 0
    """Files of the whole store."""
    findings: list[Finding] = field(default_factory=list)
    """One per file that is missing, changed or unknown and per folder that is not finished."""

    @property
    def damaged(self) -> list[str]:
        """The findings as sentences."""
        return [f"{self.store / finding.key} {finding.problem}" for finding in self.findings]

    def add(self, file: Path, problem: str) -> None:
        """One more finding."""
        self.findings.append(Finding(file.relative_to(self.store).as_posix(), problem))


def verify_store(
    path: Path,
    on_plan: Callable[[int], None] = lambda _: None,
    on_file: Callable[[int], None] = lambda _: None,
    sample: float = 1.0,
    seed: int | None = None,
) -> VerifyReport:
    """Check the files of a local store; about 1.5 GB/s. StoreError when it does not open.

    A store or cache that was never finished is reported too: a lost mark of completion looks the same. sample: share of
    the data files whose bytes are read, drawn with `seed` (None: anew every time); metadata are all read, and a missing
    or unknown file is always found.
    """
    refuse_url(path, "`fwdata verify` reads")
    report = VerifyReport(path)
    store = open_store(path)
    known: dict[Path, str] = {}
    unsealed: list[Path] = []
    for folder in sorted(f for pattern in SEALED for f in path.glob(pattern) if f.is_dir()):
        digests = _sealed(folder, report)
        if digests is None:
            unsealed.append(folder)
        else:
            known.update({folder / name: digest for name, digest in digests.items()})
    for attempt in find_attempts(path):
        unsealed.append(attempt.folder)
        if not attempt.final.is_dir():
            report.add(attempt.final, UNFINISHED)
    unsealed.append(path / JOBS)
    files = (p for p in path.rglob("*") if p.is_file() and p not in known)
    rest = sorted(p for p in files if not any(p.is_relative_to(folder) for folder in unsealed))
    report.total_files = len(known) + len(rest)
    on_plan(report.total_files)
    draw = random.Random(seed)
    for file, digest in known.items():
        _check(file, digest, report, sample >= 1 or file.name == "zarr.json" or draw.random() < sample)
        on_file(1)
    for file in rest:
        _check_group(file, report)
        on_file(1)
    for key, problem in _missing(store, path):
        if key not in {finding.key for finding in report.findings}:
            report.add(path / key, problem)
    return report


def _sealed(folder: Path, report: VerifyReport) -> dict[str, str] | None:
    """Digests of a complete folder's files, by name; else None, and what is wrong goes to the report."""
    try:
        record = read_complete(LocalFiles(folder.parent), folder.name, SealedRecord)
    except StoreDamaged as error:
        report.add(folder / "zarr.json", f"is damaged ({error})")
        return None
    if record is None:
        report.add(folder, UNFINISHED)
        return None
    return record.digests


def _check(file: Path, digest: str, report: VerifyReport, read: bool) -> None:
    if not file.is_file():
        report.files += 1
        report.add(file, "is missing")
        return
    if not read:
        return
    report.files += 1
    report.bytes += file.stat().st_size
    if file_sha256(file) != digest:
        report.add(file, "was changed: its sha256 does not match")


def _check_group(file: Path, report: VerifyReport) -> None:
    """A file that no digest covers must be group metadata exactly as it was written."""
    report.files += 1
    data = file.read_bytes()
    report.bytes += len(data)
    if file.name != "zarr.json":
        report.add(file, "does not belong to the store")
        return
    try:
        if not is_written_group(LocalFiles(file.parent), data):
            report.add(file, "was changed: it is not as it was written")
    except (ValueError, StoreDamaged):
        report.add(file, "was changed: it is not as it was written")


def _missing(store: Store, path: Path) -> Iterator[tuple[str, str]]:
    """What the plan and the caches' own metadata name and the store lacks: (key, problem)."""
    try:
        planned = [part.name for part in store.plan.parts]
        parts = [part.name for part in store.parts if part.record.episodes]
        found = {kind: find_caches(store.files, kind, CacheRecord) for kind in ("latents", "text")}
        caches = [(kind, record.key()) for kind, records in found.items() for record in records.values()]
    except StoreDamaged:
        if not (path / "plan" / "zarr.json").is_file():
            yield "plan/zarr.json", "is missing; run the same `fwdata convert` again"
        return  # else it was found already
    for name in planned:
        if not (path / "parts" / name).is_dir():
            yield f"parts/{name}", "is missing; run the same `fwdata convert` again"
    if (path / SOURCES).is_dir() or (path / VIEW).is_dir():
        recorded = [name for name in planned if (path / SOURCES).is_dir() and (path / "parts" / name).is_dir()]
        yield from _missing_records(store, path, recorded)
    if (path / EVIDENCE).is_dir():
        yield from _missing_evidence(store, path)
    if any((path / "parts" / name / "frames").is_dir() for name in parts):
        for name in parts:
            if not (path / "parts" / name / "frames").is_dir():
                yield f"parts/{name}/frames", "is missing, other parts have it; run `fwdata stitch` again"
    for kind, key in caches:
        for name in parts if kind == "latents" else []:
            if not (path / kind / key / name).is_dir():
                yield f"{kind}/{key}/{name}", "is missing; run the same `fwdata encode-latents` again"
        if kind == "text" and (lacking := _missing_text(path / kind / key)):
            yield f"{kind}/{key}/{lacking}", "is missing; run the same `fwdata encode-text` again"


def _missing_evidence(store: Store, path: Path) -> Iterator[tuple[str, str]]:
    """Verdicts that were recorded and are absent."""
    if not (path / EVIDENCE / "zarr.json").is_file():
        yield f"{EVIDENCE}/zarr.json", "is missing; `fwdata doctor` measures the conventions again"
        return
    try:
        record = read_evidence(store.files)
    except StoreDamaged as error:
        yield f"{EVIDENCE}/zarr.json", f"was changed: {error}"
        return
    held = {part.name: {episode.id for episode in part.record.episodes} for part in store.parts}
    for name in record.parts if record is not None else ():
        key = f"{EVIDENCE}/{name}/zarr.json"
        if not (path / key).is_file():
            yield key, "is missing; `fwdata doctor` measures the conventions again"
            continue
        try:
            measured = {item.episode for item in read_part_evidence(store.files, name)}
        except StoreDamaged as error:
            yield key, f"was changed: {error}"
            continue
        if name in held and not measured <= held[name]:
            yield key, "was changed: it holds the verdicts of other episodes"


def _missing_records(store: Store, path: Path, parts: list[str]) -> Iterator[tuple[str, str]]:
    """Records of what parts were made from, and of the view, that are absent or another part's."""
    for name in parts:
        key = f"{SOURCES}/{name}/zarr.json"
        if not (path / key).is_file():
            yield key, "is missing; the same `fwdata convert` writes it again"
            continue
        try:
            read_sources(store.files, name)
        except StoreDamaged as error:
            yield key, f"was changed: {error}"
    if not (path / VIEW / "zarr.json").is_file():
        yield f"{VIEW}/zarr.json", "is missing; the same `fwdata convert` writes it again"
        return
    try:
        read_record(store.files, VIEW, ViewRecord)
    except StoreDamaged as error:
        yield f"{VIEW}/zarr.json", f"was changed: {error}"


def _missing_text(folder: Path) -> str | None:
    """The first part that the numbering of a text cache's parts leaves out; the first of all when there is none."""
    have = {part.name for part in folder.glob("p*") if part.is_dir()}
    return next((part_name(i) for i in range(max(1, len(have))) if part_name(i) not in have), None)
