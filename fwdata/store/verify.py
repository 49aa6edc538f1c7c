"""Checking every stored byte against the sha256 recorded when it was written."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fwdata.errors import StoreDamaged, quoted
from fwdata.store.attempts import attempted
from fwdata.store.caches.identity import find_caches
from fwdata.store.evidence import EVIDENCE, read_evidence, read_part_evidence
from fwdata.store.files import Files, Listing
from fwdata.store.layout import may_be_sealed, part_name
from fwdata.store.leases import JOBS
from fwdata.store.metadata import is_written_group, read_complete, read_record
from fwdata.store.reader import Store, open_store
from fwdata.store.records import CacheRecord, SealedRecord, ViewRecord
from fwdata.store.sources import SOURCES, read_sources
from fwdata.store.view import VIEW

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

    location: str
    """Path or URL of the store."""
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
        return [f"{self.location}/{finding.key} {finding.problem}" for finding in self.findings]

    def add(self, key: str, problem: str) -> None:
        """One more finding."""
        self.findings.append(Finding(key, problem))


def verify_store(
    location: str | Path,
    on_plan: Callable[[int], None] = lambda _: None,
    on_file: Callable[[int], None] = lambda _: None,
    sample: float = 1.0,
    seed: int | None = None,
) -> VerifyReport:
    """Check the files of a store; about 1.5 GB/s where it is local. StoreError when it does not open.

    A store or cache that was never finished is reported too: a lost mark of completion looks the same. sample: share of
    the data files whose bytes are read, drawn with `seed` (None: anew every time); metadata are all read, and a missing
    or unknown file is always found.
    """
    store = open_store(location)
    files, report = store.files, VerifyReport(store.location)
    listing = files.listing()
    known: dict[str, str] = {}
    sealed = sorted(filter(may_be_sealed, listing.folders))
    files.read_ahead(f"{folder}/zarr.json" for folder in sealed)
    unsealed: list[str] = [JOBS]
    for folder in sealed:
        digests = _sealed(files, folder, report)
        if digests is None:
            unsealed.append(folder)
        else:
            known.update({f"{folder}/{name}": digest for name, digest in digests.items()})
    for folder in sorted(listing.folders):
        final = attempted(folder)
        if final is not None:
            unsealed.append(folder)
            if final not in listing.folders:
                report.add(final, UNFINISHED)
    outside = tuple(f"{folder}/" for folder in unsealed)
    rest = [key for key in listing.sizes if key not in known and not key.startswith(outside)]
    report.total_files = len(known) + len(rest)
    on_plan(report.total_files)
    _check_known(files, known, listing, report, _drawn(known, sample, seed), on_file)
    files.read_ahead(key for key in rest if key.endswith("zarr.json"))
    for key in rest:
        _check_group(files, key, listing.sizes[key], report)
        on_file(1)
    for key, problem in _missing(store, listing):
        if key not in {finding.key for finding in report.findings}:
            report.add(key, problem)
    return report


def _drawn(known: dict[str, str], sample: float, seed: int | None) -> set[str]:
    draw = random.Random(seed)
    return {key for key in known if sample >= 1 or key.endswith("zarr.json") or draw.random() < sample}


def _sealed(files: Files, folder: str, report: VerifyReport) -> dict[str, str] | None:
    """Digests of a complete folder's files, by name; else None, and what is wrong goes to the report."""
    try:
        record = read_complete(files, folder, SealedRecord)
    except StoreDamaged as error:
        report.add(f"{folder}/zarr.json", f"is damaged ({error})")
        return None
    if record is None:
        report.add(folder, UNFINISHED)
        return None
    return record.digests


def _check_known(
    files: Files,
    known: dict[str, str],
    listing: Listing,
    report: VerifyReport,
    drawn: set[str],
    on_file: Callable[[int], None],
) -> None:
    """Files that a digest covers: all must be there, those that were drawn are read."""

    def digest_of(key: str) -> tuple[str, int] | None:
        return files.sha256(key) if key in drawn and key in listing.sizes else None

    for (key, digest), found in zip(known.items(), files.each(digest_of, known), strict=True):
        on_file(1)
        if key not in listing.sizes:
            report.files += 1
            report.add(key, "is missing")
        elif found is not None:
            report.files += 1
            report.bytes += found[1]
            if found[0] != digest:
                report.add(key, "was changed: its sha256 does not match")


def _check_group(files: Files, key: str, size: int, report: VerifyReport) -> None:
    """A file that no digest covers must be group metadata exactly as it was written."""
    report.files += 1
    folder, _, name = key.rpartition("/")
    if name != "zarr.json":
        report.bytes += size
        report.add(key, "does not belong to the store")
        return
    data = files.read(key) or b""
    report.bytes += len(data)
    try:
        if not is_written_group(files, folder, data):
            report.add(key, "was changed: it is not as it was written")
    except (ValueError, StoreDamaged):
        report.add(key, "was changed: it is not as it was written")


def _missing(store: Store, listing: Listing) -> Iterator[tuple[str, str]]:
    """What the plan and the caches' own metadata name and the store lacks: (key, problem)."""
    folders, sizes = listing.folders, listing.sizes
    try:
        planned = [part.name for part in store.plan.parts]
        parts = [part.name for part in store.parts if part.record.episodes]
        found = {kind: find_caches(store.files, kind, CacheRecord) for kind in ("latents", "text")}
        caches = [(kind, record.key()) for kind, records in found.items() for record in records.values()]
    except StoreDamaged:
        if "plan/zarr.json" not in sizes:
            yield "plan/zarr.json", f"is missing; run `fwdata repair {quoted(store.location)} --from RAW`"
        return  # else it was found already
    for name in planned:
        if f"parts/{name}" not in folders:
            yield f"parts/{name}", "is missing; run the same `fwdata convert` again"
    if SOURCES in folders or VIEW in folders:
        recorded = [name for name in planned if SOURCES in folders and f"parts/{name}" in folders]
        yield from _missing_records(store, listing, recorded)
    if EVIDENCE in folders:
        yield from _missing_evidence(store, listing)
    if any(f"parts/{name}/frames" in folders for name in parts):
        for name in parts:
            if f"parts/{name}/frames" not in folders:
                yield (
                    f"parts/{name}/frames",
                    f"is missing, other parts have it; run `fwdata stitch {quoted(store.location)}`",
                )
    for kind, key in caches:
        for name in parts if kind == "latents" else []:
            if f"{kind}/{key}/{name}" not in folders:
                yield f"{kind}/{key}/{name}", "is missing; run the same `fwdata encode-latents` again"
        if kind == "text" and (lacking := _missing_text(listing, f"{kind}/{key}/")):
            yield f"{kind}/{key}/{lacking}", "is missing; run the same `fwdata encode-text` again"


def _missing_evidence(store: Store, listing: Listing) -> Iterator[tuple[str, str]]:
    """Verdicts that were recorded and are absent."""
    if f"{EVIDENCE}/zarr.json" not in listing.sizes:
        yield (
            f"{EVIDENCE}/zarr.json",
            f"is missing; `fwdata doctor {quoted(store.location)}` measures the conventions again",
        )
        return
    try:
        record = read_evidence(store.files)
    except StoreDamaged as error:
        yield f"{EVIDENCE}/zarr.json", f"was changed: {error}"
        return
    held = {part.name: {episode.id for episode in part.record.episodes} for part in store.parts}
    for name in record.parts if record is not None else ():
        key = f"{EVIDENCE}/{name}/zarr.json"
        if key not in listing.sizes:
            yield key, f"is missing; `fwdata doctor {quoted(store.location)}` measures the conventions again"
            continue
        try:
            measured = {item.episode for item in read_part_evidence(store.files, name)}
        except StoreDamaged as error:
            yield key, f"was changed: {error}"
            continue
        if name in held and not measured <= held[name]:
            yield key, "was changed: it holds the verdicts of other episodes"


def _missing_records(store: Store, listing: Listing, parts: list[str]) -> Iterator[tuple[str, str]]:
    """Records of what parts were made from, and of the view, that are absent or another part's."""
    for name in parts:
        key = f"{SOURCES}/{name}/zarr.json"
        if key not in listing.sizes:
            yield key, "is missing; the same `fwdata convert` writes it again"
            continue
        try:
            read_sources(store.files, name)
        except StoreDamaged as error:
            yield key, f"was changed: {error}"
    if f"{VIEW}/zarr.json" not in listing.sizes:
        yield f"{VIEW}/zarr.json", "is missing; the same `fwdata convert` writes it again"
        return
    try:
        read_record(store.files, VIEW, ViewRecord)
    except StoreDamaged as error:
        yield f"{VIEW}/zarr.json", f"was changed: {error}"


def _missing_text(listing: Listing, base: str) -> str | None:
    """The first part that the numbering of a text cache's parts leaves out; the first of all when there is none."""
    have = {name for key in listing.folders if key.startswith(base) and "/" not in (name := key.removeprefix(base))}
    have = {name for name in have if name.startswith("p")}
    return next((part_name(i) for i in range(max(1, len(have))) if part_name(i) not in have), None)
