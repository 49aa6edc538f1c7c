"""What about recordings given for a repair is not as it was converted, by what the store recorded of their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fwdata.errors import StoreDamaged
from fwdata.pipeline.plan import PlannedPart
from fwdata.pipeline.roots import RootedRecording
from fwdata.store.files import LocalFiles
from fwdata.store.metadata import read_record
from fwdata.store.records import FileRecord, PartRecord, PartSources, Record
from fwdata.store.sources import SOURCES, source_files


@dataclass(frozen=True)
class Misfit:
    """Something about a recording that is not as it was converted."""

    text: str
    """One sentence."""
    file: str = ""
    """The file that has other bytes; "" where that is not what is wrong."""


def part_misfits(
    store: Path, part: PlannedPart, planned: Mapping[str, int], shared: frozenset[str]
) -> Iterator[Misfit]:
    """What is absent of a part, or another than the one that was converted."""
    recorded = recorded_part(store, part)
    by_id = {recording.id: recording for recording in part.recordings}
    by_source = {recording.source for recording in part.recordings}
    for record in () if recorded is None else recorded.episodes:
        recording = by_id.get(record.id)
        if recording is None:
            yield Misfit(f"{part.name}: recording {record.source} is missing from the recordings given")
        else:
            yield from file_misfits(part, recording, record.files)
    if recorded is None:
        lost = (source for source in part.missing if source not in by_source)
        yield from (Misfit(f"{part.name}: recording {source} is missing from the recordings given") for source in lost)
        for name, recording in by_id.items():
            if recording.ref.num_bytes != planned[name]:
                files = recording.stored().files
                yield Misfit(
                    f"{part.name}: {recording.source} differs: it has {recording.ref.num_bytes} bytes, "
                    f"recorded are {planned[name]}",
                    files[0] if shared.issuperset(files) else "",
                )
            else:
                yield from _other_bytes(store, part, recording, shared)


def _other_bytes(
    store: Path, part: PlannedPart, recording: RootedRecording, shared: frozenset[str]
) -> Iterator[Misfit]:
    """Files of a recording, of a part that lost its metadata, with other bytes than its record in `sources` tells."""
    record = found_record(store, f"{SOURCES}/{part.name}", PartSources)
    digests = {} if record is None else record.digests
    known = [path for path in recording.stored().files if path in digests and path not in shared]
    if known:
        files = [FileRecord(path=path, bytes=0, sha256=digests[path]) for path in known]
        told = file_misfits(part, recording, files)
        yield from (misfit for misfit in told if misfit.file in known)


def file_misfits(part: PlannedPart, recording: RootedRecording, files: Sequence[FileRecord]) -> Iterator[Misfit]:
    """What is wrong with the files of a recording, by what was recorded of them. Cost: they are read once."""
    try:
        given = {f.path: f.sha256 for f in source_files(recording.root.path, recording.ref, recording.root.prefix)}
    except OSError as error:
        yield Misfit(f"{part.name}: {recording.source} cannot be read: {error.strerror}")
        return
    recorded = {f.path: f.sha256 for f in files}
    for path in {**recorded, **given}:
        if path not in given:
            yield Misfit(f"{part.name}: {path} is missing from the recordings given")
        elif path not in recorded:
            yield Misfit(f"{part.name}: {path} was not there when the store was converted")
        elif recorded[path] != given[path]:
            have, want = given[path][:12], recorded[path][:12]
            yield Misfit(f"{part.name}: {path} differs: it has sha256 {have}.., recorded is {want}..", path)


def recorded_part(store: Path, part: PlannedPart) -> PartRecord | None:
    """A part's own metadata; None where they are lost, damaged, or those of another part."""
    found = found_record(store, f"parts/{part.name}", PartRecord)
    return found if found is not None and found.plan == part.digest else None


def found_record[R: Record](store: Path, key: str, model: type[R]) -> R | None:
    try:
        return read_record(LocalFiles(store), key, model)
    except StoreDamaged:
        return None
