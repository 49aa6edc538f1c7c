"""Checking every stored byte against the sha256 recorded when it was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fwdata.errors import StoreDamaged
from fwdata.store.files import LocalFiles, file_sha256, read_attributes
from fwdata.store.reader import open_store


@dataclass
class VerifyReport:
    """What was checked. damaged: one line per file that is missing, changed or should not be there."""

    files: int = 0
    bytes: int = 0
    damaged: list[str] = field(default_factory=list)


def _sealed_folders(root: Path) -> list[Path]:
    """Folders whose zarr.json lists the sha256 of every file below them."""
    parts = sorted(root.glob("parts/p*"))
    stitched = sorted(root.glob("parts/p*/frames"))
    caches = sorted([*root.glob("latents/*/p*"), *root.glob("text/*/p*")])
    return [*parts, *stitched, *caches]


def verify_store(
    path: Path, on_plan: Callable[[int], None] = lambda _: None, on_file: Callable[[int], None] = lambda _: None
) -> VerifyReport:
    """Check all complete parts and caches of a local store; about 1.5 GB/s. StoreError when it does not open."""
    report = VerifyReport()
    open_store(path)
    sealed: list[tuple[Path, dict[str, Any]]] = []
    for folder in _sealed_folders(path):
        try:
            attributes = read_attributes(LocalFiles(folder), "")
        except StoreDamaged as error:
            report.damaged.append(str(error))
            continue
        if attributes is not None and attributes.get("state") == "complete":
            sealed.append((folder, attributes["digests"]))
    on_plan(sum(len(digests) for _, digests in sealed))
    for folder, digests in sealed:
        for name, digest in digests.items():
            _check(folder / name, digest, report)
            on_file(1)
    return report


def _check(file: Path, digest: str, report: VerifyReport) -> None:
    report.files += 1
    if not file.is_file():
        report.damaged.append(f"{file} is missing")
        return
    report.bytes += file.stat().st_size
    if file_sha256(file) != digest:
        report.damaged.append(f"{file} was changed: its sha256 does not match")
