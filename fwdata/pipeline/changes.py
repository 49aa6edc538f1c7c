"""What changed since a store was converted: recordings whose files have other bytes, and the converter's version.

A file is the same while its size and the time of its last change are those recorded; where the time differs its bytes
are compared by sha256. Stores of earlier releases recorded no times: there the size alone decides. Of a file that lists
many recordings only what it says of each counts, where the converter and the store tell that; of other shared files the
content is compared, see `fwdata.pipeline.same_content`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fwdata.errors import UsageError
from fwdata.pipeline.plan import read_plan
from fwdata.pipeline.registry import converter_version
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import CombinedDiscovery, RootedRecording
from fwdata.store.files import LocalFiles, file_sha256
from fwdata.store.metadata import has_record, read_part
from fwdata.store.reader import open_store
from fwdata.store.records import EpisodeRecord, PartRecord, PartSources
from fwdata.store.sources import read_sources, write_sources


@dataclass(frozen=True)
class ChangedRecording:
    """A recording that is not the one that was converted."""

    part: str
    """The part that holds it."""
    id: str
    """The episode's id."""
    source: str
    """Where it is from."""
    files: tuple[str, ...]
    """A phrase for each file that differs, e.g. "data/a.hdf5: 120 bytes, recorded are 96"."""
    grown: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Those of them that are there and were: size in bytes and time in nanoseconds that they have now."""


@dataclass
class SourceCheck:
    """The recordings found, compared with what a store recorded."""

    changed: list[ChangedRecording] = field(default_factory=list)
    """Recordings whose files have other bytes."""
    same: int = 0
    """Recordings whose files have the bytes that were converted."""
    touched: dict[str, dict[str, int]] = field(default_factory=dict)
    """By part: times, in nanoseconds, of files whose bytes are as recorded though their time is not."""
    grown: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """By part: size and time of files that changed, though not in what they hold of the part's recordings."""


def outdated_parts(request: ConvertRequest) -> dict[str, int]:
    """Parts of the store that an older version of the converter made, with that version; empty for a new store.

    UsageError where a newer version than the installed one made a part.
    """
    files = LocalFiles(request.out)
    plan = read_plan(request.out)
    listed = [entry.name for entry in plan.parts] if plan else []
    written = [name for name in listed if (request.out / "parts" / name / "zarr.json").is_file()]
    if not written:
        return {}  # a new store: the converter is imported by the workers alone
    found = {name: read_sources(files, name).version for name in written}
    now = converter_version(request.source)
    newer = {name: version for name, version in found.items() if version > now}
    if newer:
        name, version = next(iter(newer.items()))
        raise UsageError(
            f"{request.out}/parts/{name} was made by version {version} of converter {request.source!r}, installed is "
            f"version {now}; update it"
        )
    return {name: version for name, version in found.items() if version < now}


def outdated_sentence(request: ConvertRequest, parts: Mapping[str, int]) -> str:
    """What to say of a store that an older version made."""
    versions = ", ".join(str(version) for version in sorted(set(parts.values())))
    return (
        f"{request.out} was made by version {versions} of converter {request.source!r}, installed is version "
        f"{converter_version(request.source)}; convert its recordings again with --update, or keep the store as it is"
    )


def check_sources(request: ConvertRequest, found: CombinedDiscovery, *, thorough: bool = False) -> SourceCheck:
    """Compare the recordings found with those that were converted; those that are gone are not looked at.

    thorough: also compare the bytes of files whose time is not recorded. Cost: one stat per file, and reading the files
    whose time differs.
    """
    check, digests = SourceCheck(), _Digests()
    if has_record(LocalFiles(request.out), ""):
        for part in open_store(request.out).parts:
            _check_part(request, found, part.name, part.record, thorough, digests, check)
    return check


def part_differs(request: ConvertRequest, found: CombinedDiscovery, name: str) -> bool:
    """Whether a part that is not in use yet was made from other bytes than those found now."""
    check = SourceCheck()
    made = read_part(LocalFiles(request.out), name)
    if made is not None:
        _check_part(request, found, name, made[0], False, _Digests(), check)
    return bool(check.changed)


def _check_part(
    request: ConvertRequest,
    found: CombinedDiscovery,
    name: str,
    part: PartRecord,
    thorough: bool,
    digests: _Digests,
    check: SourceCheck,
) -> None:
    """Add what differs in one part to `check`."""
    by_id = {recording.id: recording for recording in found.recordings}
    recorded = read_sources(LocalFiles(request.out), name)
    for record in part.episodes:
        recording = by_id.get(record.id)
        if recording is None:
            continue
        touched: dict[str, int] = {}
        grown: dict[str, tuple[int, int]] = {}
        differ = tuple(_differing(recording, record, recorded, thorough, digests, touched, grown))
        if differ:
            check.changed.append(ChangedRecording(name, record.id, record.source, differ, grown))
            continue
        check.same += 1
        if touched:
            check.touched.setdefault(name, {}).update(touched)


class _Digests:
    """sha256 of files that many recordings share, read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        if path not in self._known:
            self._known[path] = file_sha256(path)
        return self._known[path]


def _differing(
    recording: RootedRecording,
    episode: EpisodeRecord,
    recorded: PartSources,
    thorough: bool,
    digests: _Digests,
    touched: dict[str, int],
    grown: dict[str, tuple[int, int]],
) -> Iterator[str]:
    """A phrase for each file of a recording that differs; the times of files that were only touched go to `touched`,
    size and time of the others to `grown`."""
    root, known, entries = recording.root.path, set[str](), recording.stored().entries
    base = root.parent if root.is_file() else root
    for file in episode.files:
        name = file.path
        known.add(name)
        path = base / name.removeprefix(recording.root.prefix)
        try:
            status = path.stat()
        except OSError:
            yield f"{name}: is missing"
            continue
        if name in entries and recorded.entries.get(name, {}).get(episode.id) == entries[name]:
            continue
        time, size = recorded.mtime_ns.get(name), recorded.bytes.get(name, file.bytes)
        if (status.st_size, status.st_mtime_ns) == (size, time):
            continue
        grown[name] = status.st_size, status.st_mtime_ns
        if status.st_size != file.bytes:
            yield f"{name}: {status.st_size} bytes, recorded are {file.bytes}"
        elif time is None and not thorough:
            del grown[name]
        elif (digest := digests.of(path)) != file.sha256:
            yield f"{name}: sha256 {digest[:12]}.., recorded is {file.sha256[:12]}.."
        else:
            del grown[name]
            touched[name] = status.st_mtime_ns
    if recorded.mtime_ns:  # else an earlier release recorded it, which may have known fewer files
        yield from (f"{name}: was not there" for name in recording.stored().files if name not in known)


def record_touched(request: ConvertRequest, check: SourceCheck) -> None:
    """Record the times of files that were only touched or grew, so that they are not compared again. Lock held."""
    files = LocalFiles(request.out)
    for part in {**check.touched, **check.grown}:
        record, grown = read_sources(files, part), check.grown.get(part, {})
        times = {**check.touched.get(part, {}), **{name: time for name, (_, time) in grown.items()}}
        update: dict[str, object] = {"mtime_ns": {**record.mtime_ns, **times}}
        if grown:
            update["bytes"] = {**record.bytes, **{name: size for name, (size, _) in grown.items()}}
        write_sources(request.out, record.model_copy(update=update))
