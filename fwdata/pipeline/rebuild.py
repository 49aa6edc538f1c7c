"""Parts of a store converted again from their recordings.

Nothing is written before the recordings were compared with what the store recorded of them. The parts are converted
into a folder of their own, compared with the recorded content, and only then put in place, file by file.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fwdata.errors import StoreDamaged
from fwdata.io import remove
from fwdata.pipeline.discover import find_recordings
from fwdata.pipeline.lost_plan import part_folders, parts_by_records
from fwdata.pipeline.misfits import found_record, part_misfits, recorded_part
from fwdata.pipeline.part import convert_part
from fwdata.pipeline.plan import PlannedPart, once, parts_again, plan_record
from fwdata.pipeline.request import ConvertRequest
from fwdata.pipeline.roots import CombinedDiscovery
from fwdata.pipeline.run import part_losses
from fwdata.pipeline.same_content import shared_files
from fwdata.pipeline.workers import Task, WorkerPool
from fwdata.store.caches.identity import differences
from fwdata.store.files import LocalFiles, ensure_groups, file_sha256, write_lock
from fwdata.store.metadata import read_part, write_record
from fwdata.store.records import CameraRecord, MadeFromRecord, PartRecord, PlanRecord
from fwdata.store.sources import SOURCES, read_sources, write_sources
from fwdata.wording import counted

STAGING = ".repair.tmp"
"""Folder of a store in which a repair works; a killed repair leaves it, and the next one removes it."""

WITNESSES = ("parts/{part}/frames", "latents/*/{part}")
"""Folders whose metadata name the digest of the part that they were made from."""


@dataclass(frozen=True)
class Survey:
    """The recordings given for a repair, compared with what the store recorded. Nothing was written."""

    request: ConvertRequest
    """The conversion that made the store."""
    found: CombinedDiscovery
    """What the recordings given hold."""
    parts: tuple[PlannedPart, ...]
    """Every part of the store's plan."""
    names: frozenset[str]
    """The parts to rebuild."""
    misfits: tuple[str, ...]
    """One sentence for each recording that is not the one that was converted."""
    grown: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Parts of files that others share, or list others, and that changed -> those files; what they hold decides."""

    def wanted(self) -> list[PlannedPart]:
        """The parts to rebuild."""
        return [part for part in self.parts if part.name in self.names]


@dataclass
class Aside:
    """What a repair has replaced, kept until it has ended well."""

    folder: Path
    """Where it is kept: below the store, so that moving is renaming."""
    _taken: list[tuple[Path, Path | None]] = field(default_factory=list)

    def take(self, path: Path) -> None:
        """Move a file or folder away; one that is absent is noted, and is absent again after `restore`."""
        kept: Path | None = None
        if path.exists() or path.is_symlink():
            self.folder.mkdir(parents=True, exist_ok=True)
            kept = self.folder / str(len(self._taken))
            path.rename(kept)
        self._taken.append((path, kept))

    def copy(self, path: Path) -> None:
        """Keep a copy of a file or folder that will be changed where it is."""
        self.take(path)
        kept = self._taken[-1][1]
        if kept is not None:
            shutil.copytree(kept, path) if kept.is_dir() else shutil.copy2(kept, path)

    def restore(self) -> None:
        """Put everything back as it was."""
        for path, kept in reversed(self._taken):
            remove(path)
            if kept is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                kept.rename(path)
        self._taken.clear()


@contextmanager
def kept_aside(store: Path) -> Iterator[Aside]:
    """An `Aside` that puts back what it took when the block raises an error, and forgets it otherwise.

    StoreBusy when another process writes to the store. A repair that was interrupted or killed is not put back: what
    it has rebuilt stays, and the next one goes on.
    """
    with write_lock(store):
        remove(store / STAGING)  # of a repair that was killed
    aside = Aside(store / STAGING / "aside")
    try:
        yield aside
    except Exception:
        aside.restore()
        raise
    finally:
        remove(store / STAGING)


def survey(request: ConvertRequest, names: Collection[str], *, plan_lost: bool) -> Survey:
    """Compare recordings with what the store recorded of the parts `names`; reads their files once, writes nothing.

    UsageError for folders without recordings, or with none of the store's. Cost: parts of files that changed and that
    others share are converted once into a temporary folder.
    """
    asked = replace(request, out=request.out / STAGING) if plan_lost else request  # a damaged plan asks for nothing
    with WorkerPool(request.workers, request.memory) as pool:
        found = find_recordings(asked, pool)
    parts = parts_again(request, found, cut_anew=plan_lost)
    misfits: list[str] = []
    grown: dict[str, tuple[str, ...]] = {}
    shared = shared_files(found.recordings)
    compared = set(names)
    if plan_lost and (wrong := list(_plan_misfits(request.out, parts, names))):
        recorded = parts_by_records(request.out, found)
        misfits += [] if recorded else wrong
        parts = recorded or parts
        compared |= {part.name for part in recorded or ()}
    for part in parts:
        if part.name in compared:
            differ = list(part_misfits(request.out, part, _planned_bytes(request.out, part, plan_lost), shared))
            misfits += (item.text for item in differ if item.file not in shared)
            if differ and all(item.file in shared for item in differ):
                grown[part.name] = tuple(dict.fromkeys(item.file for item in differ))
    result = Survey(request, found, parts, frozenset(names), tuple(misfits), grown)
    return result if misfits or not grown else replace(result, misfits=tuple(content_misfits(result)))


def content_misfits(found: Survey) -> Iterator[str]:
    """A sentence for each part of files that changed which is not made again as it was recorded."""
    with tempfile.TemporaryDirectory(prefix="fwdata-repair-") as folder:
        staging = Path(folder)
        wanted = [part for part in found.parts if part.name in found.grown]
        _convert_again(found, staging, wanted)
        for part in wanted:
            differ = _differs(found, staging, part)
            if differ:
                files = ", ".join(found.grown[part.name][:2])
                yield f"{part.name}: {files} changed, and so did what was converted of it ({differ[0]})"


def lost_misfits(found: Survey) -> Iterator[str]:
    """A sentence for each part that lost its metadata and of which what is left is not what the recordings make.

    Cost: these parts are converted once into a temporary folder.
    """
    wanted = [part for part in found.wanted() if recorded_part(found.request.out, part) is None]
    if not wanted:
        return
    with tempfile.TemporaryDirectory(prefix="fwdata-repair-") as folder:
        _convert_again(found, Path(folder), wanted)
        for part in wanted:
            try:
                _compare(found, Path(folder), part)
            except StoreDamaged as error:
                yield str(error)


def _plan_misfits(store: Path, parts: tuple[PlannedPart, ...], damaged: Collection[str]) -> Iterator[str]:
    """Why the parts that the recordings make are not the store's."""
    have = {*part_folders(store), *damaged}
    if have != {part.name for part in parts}:
        yield f"the recordings given make {counted(len(parts), 'part')}, {store} has {len(have)}"
    for part in parts:
        if (recorded := found_record(store, f"parts/{part.name}", PartRecord)) and recorded.plan != part.digest:
            yield f"the recordings given for {part.name} have other names or sizes than those that were converted"


def _planned_bytes(store: Path, part: PlannedPart, plan_lost: bool) -> dict[str, int]:
    """Size of each planned recording of a part, by id."""
    if plan_lost:
        return {recording.id: recording.ref.num_bytes for recording in part.recordings}
    plan = found_record(store, "plan", PlanRecord)
    entries = plan.parts if plan else ()
    return {name: size for entry in entries if entry.name == part.name for name, size in entry.sizes().items()}


def rebuild(found: Survey, aside: Aside, *, plan_lost: bool) -> None:
    """Convert the parts of a survey again and put them in place. The caller holds the store's write lock.

    StoreDamaged, before anything of the store is touched, when a rebuilt part has not the recorded content.
    """
    store, staging = found.request.out, found.request.out / STAGING
    wanted = found.wanted()
    if wanted:
        _convert_again(found, staging, wanted)
    for part in wanted:
        _compare(found, staging, part)
    for part in wanted:
        _install(staging / "parts" / part.name, store / "parts" / part.name, aside)
        if (store / SOURCES).is_dir():  # else the store is of an earlier release
            _install(staging / SOURCES / part.name, store / SOURCES / part.name, aside)
    if plan_lost:
        aside.take(store / "plan" / "zarr.json")
        write_record(store / "plan", plan_record([part.entry() for part in found.parts], found.found))


def _convert_again(found: Survey, staging: Path, wanted: Sequence[PlannedPart]) -> None:
    """Convert parts into a folder of their own. Those of files that changed keep what was recorded of these files."""
    (staging / "parts").mkdir(parents=True)
    ensure_groups(staging, staging / SOURCES)  # two workers that make it at once get in each other's way
    shutil.copyfile(found.request.out / "zarr.json", staging / "zarr.json")
    request = replace(found.request, out=staging)
    with WorkerPool(request.workers, request.memory) as pool:
        tasks: list[Task] = [(request, part, {}) for part in _as_held(found, wanted)]
        list(pool.run(convert_part, tasks, lambda *_: None, part_losses(staging)))
    for part in wanted:
        made, recorded = read_part(LocalFiles(staging), part.name), recorded_part(found.request.out, part)
        if made is not None and recorded is not None and recorded.quarantined:
            left_out = made[0].model_copy(update={"quarantined": recorded.quarantined})
            write_record(staging / "parts" / part.name, left_out)
            made = left_out, made[1]
        if part.name not in found.grown or made is None:
            continue
        if recorded is None:
            _keep_files_of_others(found, staging, part, made[0])
            continue
        files = {episode.id: episode.files for episode in recorded.episodes}
        sizes = {f.path: f.bytes for e in made[0].episodes for f in e.files if f.path in found.grown[part.name]}
        episodes = tuple(e.model_copy(update={"files": files.get(e.id, e.files)}) for e in made[0].episodes)
        cameras = {name: _as_recorded(camera, recorded.cameras.get(name)) for name, camera in made[0].cameras.items()}
        write_record(
            staging / "parts" / part.name, made[0].model_copy(update={"episodes": episodes, "cameras": cameras})
        )
        sources = read_sources(LocalFiles(staging), part.name)
        write_sources(staging, sources.model_copy(update={"bytes": sizes}))


def _as_held(found: Survey, wanted: Sequence[PlannedPart]) -> list[PlannedPart]:
    """The parts with the recordings that they hold, and not those that were left out and may have been fixed since.

    A part that lost its metadata is not to hold what a later part took by a second try.
    """
    recorded = {part.name: recorded_part(found.request.out, part) for part in found.parts}
    held = {name: {e.id for e in record.episodes} for name, record in recorded.items() if record is not None}
    lost = once([part for part in wanted if part.name not in held], frozenset[str]().union(*held.values()))
    anew = {part.name: part for part in lost}
    for part in wanted:
        if part.name in held:
            taken = tuple(r for r in part.recordings if r.id in held[part.name])
            anew[part.name] = replace(part, recordings=taken, missing=())
    return [anew[part.name] for part in wanted]


def _keep_files_of_others(found: Survey, staging: Path, part: PlannedPart, made: PartRecord) -> None:
    """Record of the shared files of a part that lost its metadata what other parts record of them, as it did."""
    others = (recorded_part(found.request.out, other) for other in found.parts if other.name != part.name)
    files = {f.path: f for record in others if record for episode in record.episodes for f in episode.files}
    then = {
        f.path: f.bytes for e in made.episodes for f in e.files if f.path in files and files[f.path].sha256 != f.sha256
    }
    episodes = tuple(
        e.model_copy(update={"files": tuple(files.get(f.path, f) for f in e.files)}) for e in made.episodes
    )
    if then:
        write_record(staging / "parts" / part.name, made.model_copy(update={"episodes": episodes}))
        sources = read_sources(LocalFiles(staging), part.name)
        write_sources(staging, sources.model_copy(update={"bytes": then}))


def _as_recorded(made: CameraRecord, recorded: CameraRecord | None) -> CameraRecord:
    """A camera's record with the recorded templates for writing its files, which follow from the length of a video."""
    if recorded is None or len(recorded.headers) != len(made.headers):
        return made
    pairs = zip(made.headers, recorded.headers, strict=True)
    headers = tuple(new.model_copy(update={"init": old.init}) for new, old in pairs)
    return made.model_copy(update={"headers": headers}) if headers else made


def _differs(found: Survey, staging: Path, part: PlannedPart) -> list[str]:
    """What of a part converted again is not as the store recorded it; [] where nothing is, or no record is left."""
    made, recorded = read_part(LocalFiles(staging), part.name), recorded_part(found.request.out, part)
    assert made is not None
    return [] if recorded is None else differences(recorded.to_json(), made[0].to_json())


def _compare(found: Survey, staging: Path, part: PlannedPart) -> None:
    """StoreDamaged when a part converted again has not the content that the store recorded."""
    store, differ = found.request.out, _differs(found, staging, part)
    where = f"{store}/parts/{part.name}"
    if differ:
        raise StoreDamaged(
            f"{where} cannot be rebuilt: the recordings are those that were converted, and yet {differ[0]} "
            f"({len(differ)} differ), as another version writes it; nothing was changed; convert them to a new "
            "store"
        )
    if recorded_part(store, part) is not None:
        return
    read = read_part(LocalFiles(staging), part.name)
    assert read is not None
    made, digest = read
    folders = [folder for pattern in WITNESSES for folder in store.glob(pattern.format(part=part.name))]
    witnesses = [found_record(store, folder.relative_to(store).as_posix(), MadeFromRecord) for folder in folders]
    sources = [witness.source for witness in witnesses if witness]
    if digest in sources:
        return
    old, new = store / "parts" / part.name, staging / "parts" / part.name
    files = [f for f in made.digests if f.startswith(("lowdim/state/c/", "lowdim/action/c/", "cameras/"))]
    left = [f for f in files if "/c/" in f and (old / f).is_file()]
    same = sum(file_sha256(old / f) == file_sha256(new / f) for f in left)
    if part.name in found.grown and not left:
        raise StoreDamaged(
            f"{where} has lost its metadata and all its files, and the recordings given have grown since, so that "
            "nothing shows that they are those it was made from; nothing was changed: run the same `fwdata convert` "
            "again, which makes the part anew"
        )
    enough = len(left) if part.name in found.grown else len(left) / 2
    if same < enough or (not left and sources):
        what = f"{len(left) - same} of the {len(left)} files left of it" if left else "the caches made from it"
        raise StoreDamaged(
            f"{where} has lost its metadata, and {what} do not agree with what the recordings given make: they are "
            "other recordings; nothing was changed, give those it was made from"
        )


def _install(made: Path, target: Path, aside: Aside) -> None:
    """Move what differs, the part's own metadata last, so that it is never complete with a file that is not."""
    if not target.exists():
        aside.take(target)
        made.rename(target)
        return
    for leftover in sorted(target.rglob(".*.tmp")):
        aside.take(leftover)
    files = sorted(path for path in made.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path == made / "zarr.json"):
        old = target / path.relative_to(made)
        if old.is_file() and file_sha256(old) == file_sha256(path):
            continue
        aside.take(old)
        old.parent.mkdir(parents=True, exist_ok=True)
        path.replace(old)
