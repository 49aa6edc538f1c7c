"""Finding R1 Lite recordings: files of one recording, what lies beside them, and what a dataset's json says.

Only the small json files are read, and the index of recordings that may be parts of one.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from converters.r1lite.bags import SUFFIXES
from converters.r1lite.splits import Joining, SplitFiles, plain_stem, shown_as, stem_of
from converters.shared import archives as packed
from converters.shared import galaxea_text as text
from converters.shared.content import not_content
from converters.shared.links import is_file_inside, not_followed, odd_name, shown_name
from fwdata.api import EpisodeRef, Skipped, UsageError
from fwdata.wording import counted, verb

_VENDOR_NAME = re.compile(r"[A-Za-z0-9]+_[0-9]{17}(_RAW)?(_[0-9]{1,4})?")
_RECORDER_NAME = re.compile(
    r"(?i)(?:rec|records?|recordings?|bags?|rosbag2?|mcap|raw|data|ep|episodes?|takes?|parts?|splits?|runs?|trials?|"
    r"sessions?|demos?|demonstrations?|teleop)?[\d_.\-TZ ]*"
)
"""What recorders and operators call the folder of one recording, or of a day."""
_COMPRESSED = (".mcap.zstd", ".mcap.zst", ".db3.zstd", ".db3.zst")


@dataclass
class BagListing:
    """What one walk over a folder found; all paths relative to the base, POSIX."""

    files: dict[str, int] = field(default_factory=dict)
    """Recording files -> size in bytes."""
    jsons: set[str] = field(default_factory=set)
    """Every JSON file."""
    skipped: list[Skipped] = field(default_factory=list)
    """Files that cannot be converted as they are (compressed ones), with the reason."""
    ignored: list[str] = field(default_factory=list)
    """Folders and links that were not entered, with the reason."""
    endings: Counter[str] = field(default_factory=Counter)
    """Number of other files by ending."""
    archives: list[str] = field(default_factory=list)
    """Zip, tar, 7z and rar archives, and unfinished downloads."""


@dataclass(frozen=True)
class BagRecording:
    """One recording, and the files that describe it; all paths relative to the base, POSIX."""

    files: tuple[str, ...]
    """Its bag files in order."""
    name: str
    """What episode ids call it."""
    sidecar: str | None
    """The JSON file of this recording alone; None where there is none."""
    meta: str | None
    """The dataset's JSON file that lists it; None where none does."""
    entry: int | None
    """Its number in `meta`; None without one."""
    entry_digest: str
    """`GalaxeaEntry.digest` of it; "" without one."""

    @property
    def folder(self) -> str:
        """Its folder, relative to the base; `.` for the base itself."""
        return self.files[0].rpartition("/")[0] or "."


def base_folder(root: Path) -> Path:
    """The folder that paths are relative to: the root, or its parent where the root is one file."""
    return root.parent if root.is_file() else root


def list_files(root: Path) -> BagListing:
    """Walk `root` (a folder or one file) once; opens nothing. Links that lead out of the root are not followed."""
    listing, base = BagListing(), base_folder(root)
    if root.is_file():
        if root.suffix not in SUFFIXES:
            what = f"{root} is not a recording: its name must end in {', '.join(SUFFIXES)}"
            raise UsageError(packed.instead_of_root(root) or what)
        listing.files[root.name] = root.stat().st_size
        for name in sorted(os.listdir(base)):  # noqa: PTH208 (names only)
            if name.endswith(".json"):
                listing.jsons.add(name)
    else:
        _walk(base, "", base.resolve(), listing)
    _look_above(base, listing)
    return listing


def _walk(base: Path, relative: str, real: Path, listing: BagListing) -> None:
    try:
        entries = sorted(os.scandir(base / relative), key=lambda e: e.name)
    except OSError as error:
        listing.ignored.append(f"{relative or '.'} ({error.strerror})")
        return
    for entry in entries:
        path = relative + entry.name
        if entry.name.startswith("."):
            continue
        if (odd := odd_name(entry.name)) is not None:
            listing.ignored.append(f"{shown_name(path)} ({odd})")
        elif entry.is_symlink() and not is_file_inside(entry.path, real):
            listing.ignored.append(f"{path} ({not_followed(entry.path, path)})")
        elif entry.is_dir():
            _walk(base, f"{path}/", real, listing)
        elif entry.is_file():
            _take(entry, path, listing)
        else:
            listing.ignored.append(f"{path} (neither a file nor a folder)")


def _take(entry: os.DirEntry[str], path: str, listing: BagListing) -> None:
    suffix = PurePosixPath(path).suffix
    listing.endings[suffix or "no ending"] += 1
    if suffix in SUFFIXES:
        listing.files[path] = entry.stat().st_size
    elif suffix == ".json":
        listing.jsons.add(path)
    elif path.endswith(".bag.active"):
        reason = f"its recording was cut off; run `rosbag reindex {entry.name}` and rename it to .bag"
        listing.skipped.append(Skipped(path, not_content(Path(entry.path), entry.name) or reason))
    elif path.endswith(_COMPRESSED):
        reason = "the whole file is compressed; unpack it with zstd -d first"
        other = None if _is_zstd(entry) else not_content(Path(entry.path), entry.name)
        listing.skipped.append(Skipped(path, other or reason))
    elif suffix.lower() in SUFFIXES:
        listing.skipped.append(Skipped(path, f"its ending is in capitals; rename it to {suffix.lower()}"))
    elif packed.is_set_aside(entry.name):
        listing.archives.append(path)


def _is_zstd(entry: os.DirEntry[str]) -> bool:
    """Whether a file is packed as its ending says, or empty; a pointer or a web page is not."""
    try:
        with Path(entry.path).open("rb") as file:
            return file.read(4) in (b"\x28\xb5\x2f\xfd", b"")
    except OSError:
        return True


def _look_above(base: Path, listing: BagListing) -> None:
    """json files one level up, for a root that is a single recording or its folder."""
    if any("/" not in path for path in listing.files):
        names = {PurePosixPath(path).stem for path in listing.files} | {base.resolve().name}
        for name in (*text.META_NAMES, *(f"{n}.json" for n in sorted(names))):
            if (base / ".." / name).is_file():
                listing.jsons.add(f"../{name}")


def find_recordings(
    root: Path, listing: BagListing, split_files: SplitFiles, keep_pauses: bool
) -> tuple[list[BagRecording], list[Skipped], list[str]]:
    """Recordings in path order, entries of json files that no file belongs to, and warnings.

    keep_pauses: join files that a recorder numbered whatever lies between them.
    """
    base = base_folder(root)
    metas = {path: text.read_meta(base / path) for path in sorted(listing.jsons) if _name(path) in text.META_NAMES}
    metas = {path: entries for path, entries in metas.items() if not path.startswith("../") or listing.files}
    warnings: list[str] = []
    listed = {stem_of(name) for entries in metas.values() for entry in entries for name in (entry.name, entry.path)}
    groups = Joining(base, split_files, keep_pauses, warnings).groups(listing.files, listed)
    found, joined = [], set[tuple[str, int]]()
    for files in groups:
        meta, entry = _entry_of(files, metas)
        if meta is not None and entry is not None:
            joined.add((meta, entry))
        digest = "" if meta is None or entry is None else metas[meta][entry].digest()
        found.append(BagRecording(files, shown_as(files), _sidecar_of(files, listing, base), meta, entry, digest))
    known = {stem_of(name) for meta, number in joined for name in _names(metas[meta][number])}
    absent = [
        Skipped(_joined(meta, entry.path or entry.name), _why_absent(meta, entry, known))
        for meta, entries in metas.items()
        if not meta.startswith("../") and not root.is_file()
        for number, entry in enumerate(entries)
        if (meta, number) not in joined
    ]
    without = [f for f in found if f.meta is None]
    if metas and without:
        warnings.append(
            f"{counted(len(without), 'recording')} {verb(len(without), 'is', 'are')} in no dataset json, the "
            f"first is {without[0].files[0]}; {verb(len(without), 'it has', 'they have')} no "
            "annotations"
        )
    return found, absent, warnings


def _names(entry: text.GalaxeaEntry) -> list[str]:
    return [name for name in (entry.name, entry.path) if name]


def _why_absent(meta: str, entry: text.GalaxeaEntry, known: Collection[str]) -> str:
    """Why an entry of a json file has no recording of its own. known: names that other entries' recordings have."""
    if any(stem_of(name) in known for name in _names(entry)):
        return f"listed in {meta} more than once; its first entry counts"
    return f"listed in {meta}, but the file is not there"


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _joined(meta: str, path: str) -> str:
    folder = meta.rpartition("/")[0]
    return f"{folder}/{path}" if folder and not path.startswith("/") else path


def _entry_of(files: Sequence[str], metas: dict[str, tuple[text.GalaxeaEntry, ...]]) -> tuple[str | None, int | None]:
    """The nearest json file that lists a recording: by its path, else by its name below the json's folder."""
    folder = files[0].rpartition("/")[0]
    own = {stem_of(path) for path in files} | {plain_stem(stem_of(files[0])), folder.rpartition("/")[2]} - {""}
    near = [m for m in metas if _is_below(folder, m.rpartition("/")[0])]
    for meta in sorted(near, key=lambda m: -1 if m.startswith("../") else m.count("/"), reverse=True):
        below = meta.rpartition("/")[0]
        by_path = [i for i, e in enumerate(metas[meta]) if e.path and _join(below, e.path) in (*files, folder)]
        by_name = [i for i, e in enumerate(metas[meta]) if {stem_of(e.name), stem_of(e.path)} & own]
        for numbers in (by_path, by_name):
            if numbers:
                return meta, numbers[0]
    return None, None


def _is_below(folder: str, parent: str) -> bool:
    return parent in ("", "..") or folder == parent or folder.startswith(f"{parent}/")


def _join(folder: str, path: str) -> str:
    return str(PurePosixPath(folder) / path.replace("\\", "/"))


def _sidecar_of(files: Sequence[str], listing: BagListing, base: Path) -> str | None:
    """`X.json` beside the folder `X` that holds the recording, or beside the recording itself."""
    folder, _, _ = files[0].rpartition("/")
    above, _, name = folder.rpartition("/")
    stem = str(PurePosixPath(files[0]).with_suffix(""))
    candidates = [f"{above}/{name}.json" if above else f"{name}.json"] if folder else []
    plain = f"{folder}/{plain_stem(_name(stem))}" if folder else plain_stem(stem)
    candidates += [f"{stem}.json", f"{plain}.json"]
    if not folder:
        candidates += [f"../{base.resolve().name}.json", f"../{stem}.json"]
    return next((c for c in candidates if c in listing.jsons and _name(c) not in text.META_NAMES), None)


def folder_task(base: Path, folder: str) -> str:
    """A task from the folder names above a recording, nearest first; vendor names (serial and time) say nothing.

    What recorders call their folders (rec, rosbag2_2026_01_05) is taken only where no folder above says more.
    """
    names = [*PurePosixPath(folder).parts, ""] if folder != "." else [""]
    names[-1:] = []
    every = (*reversed(names), base.resolve().name)
    tasks = [(name, "" if _VENDOR_NAME.fullmatch(name) else text.coarse_task(name)) for name in every]
    found = [(name, task) for name, task in tasks if task]
    telling = [task for name, task in found if not _RECORDER_NAME.fullmatch(name)]
    return next(iter([*telling, *(task for _, task in found)]), "")


def nothing_found(root: Path, listing: BagListing) -> str:
    """One sentence: what was searched for, what lay there instead."""
    skipped = [f"{each.source}: {each.reason}" for each in listing.skipped]
    advice = "give the folder that holds the recordings"
    found = packed.instead(listing.endings, listing.archives, listing.ignored, advice, skipped)
    return f"no {', '.join(SUFFIXES)} file below {root} {found}"


def references(listing: BagListing, found: Sequence[BagRecording], group: Sequence[str]) -> tuple[EpisodeRef, ...]:
    """References with unique ids: the recording's name, with its folder where two have the same."""
    names = Counter(f.name for f in found)
    refs = []
    for recording, part in zip(found, group, strict=True):
        path = PurePosixPath(recording.files[0])
        unique = recording.name if names[recording.name] == 1 else f"{path.with_suffix('')}@{path.suffix[1:]}"
        hints: dict[str, str | int | float | bool] = {"name": recording.name, "parts": len(recording.files)}
        if recording.meta is not None and recording.entry is not None:
            hints |= {"meta": recording.meta, "entry": recording.entry}
        if recording.sidecar is not None:
            hints["sidecar"] = recording.sidecar
        beside = dict.fromkeys(path for path in (recording.meta, recording.sidecar) if path)
        size = sum(listing.files[path] for path in recording.files)
        entries = {recording.meta: recording.entry_digest} if recording.meta and recording.entry_digest else {}
        every = (*recording.files, *beside)
        refs.append(EpisodeRef(unique, recording.files[0], every, part, size, hints, entries=entries))
    return tuple(refs)
