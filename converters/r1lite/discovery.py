"""Finding R1 Lite recordings: files of one recording, what lies beside them, and what a dataset's json says.

No recording is opened; only the small json files are read.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from converters.r1lite.bags import SUFFIXES
from converters.shared import archives as packed
from converters.shared import galaxea_text as text
from converters.shared.links import is_file_inside, odd_name, shown_name
from fwdata.api import EpisodeRef, Skipped, UsageError

type SplitFiles = Literal["merge", "separate"]

_DATE = r"(?:[0-9]{4}[_-][0-9]{2}[_-][0-9]{2}[-_T][0-9]{2}[_-][0-9]{2}[_-][0-9]{2}|[0-9]{8}[-_T][0-9]{6})"
_SPLITS = (
    re.compile(rf"(?P<number>[0-9]{{1,4}})_(?P<stem>(?:.+?_)?)(?P<date>{_DATE})"),  # rosbag2 since 2026: 0_rec_DATE
    re.compile(rf"(?P<stem>(?:.+_)?)(?P<date>{_DATE})_(?P<number>[0-9]{{1,4}})"),  # rosbag record --split: rec_DATE_0
    re.compile(r"(?P<stem>.+)(?P<date>)_(?P<number>[0-9]{1,4})"),  # rosbag2 before: rec_0
)
_DATED = re.compile(rf"(?:.*[_-])?{_DATE}")
_VENDOR_NAME = re.compile(r"[A-Za-z0-9]+_[0-9]{17}(_RAW)?(_[0-9]{1,4})?")
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
    """Zip, tar, 7z and rar archives."""


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
            raise UsageError(f"{root} is not a recording: its name must end in {', '.join(SUFFIXES)}")
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
            listing.ignored.append(f"{path} (a symbolic link)")
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
        listing.skipped.append(Skipped(path, reason))
    elif packed.is_archive(entry.name):
        listing.archives.append(path)
    elif path.endswith(_COMPRESSED):
        listing.skipped.append(Skipped(path, "the whole file is compressed; unpack it with zstd -d first"))


def _look_above(base: Path, listing: BagListing) -> None:
    """json files one level up, for a root that is a single recording or its folder."""
    if any("/" not in path for path in listing.files):
        names = {PurePosixPath(path).stem for path in listing.files} | {base.resolve().name}
        for name in (*text.META_NAMES, *(f"{n}.json" for n in sorted(names))):
            if (base / ".." / name).is_file():
                listing.jsons.add(f"../{name}")


def find_recordings(
    root: Path, listing: BagListing, split_files: SplitFiles
) -> tuple[list[BagRecording], list[Skipped], list[str]]:
    """Recordings in path order, entries of json files that no file belongs to, and warnings."""
    base = base_folder(root)
    metas = {path: text.read_meta(base / path) for path in sorted(listing.jsons) if _name(path) in text.META_NAMES}
    metas = {path: entries for path, entries in metas.items() if not path.startswith("../") or listing.files}
    warnings: list[str] = []
    groups = _group_parts(listing, metas, split_files, warnings)
    found, joined = [], set[tuple[str, int]]()
    for files in groups:
        meta, entry = _entry_of(files, metas)
        if meta is not None and entry is not None:
            joined.add((meta, entry))
        found.append(BagRecording(files, _display_name(files), _sidecar_of(files, listing, base), meta, entry))
    absent = [
        Skipped(_joined(meta, entry.path or entry.name), f"listed in {meta}, but the file is not there")
        for meta, entries in metas.items()
        if not meta.startswith("../") and not root.is_file()
        for number, entry in enumerate(entries)
        if (meta, number) not in joined
    ]
    without = [f for f in found if f.meta is None]
    if metas and without:
        warnings.append(
            f"{len(without)} recordings are in no dataset json, the first is {without[0].files[0]}; they have no "
            "annotations"
        )
    return found, absent, warnings


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _joined(meta: str, path: str) -> str:
    folder = meta.rpartition("/")[0]
    return f"{folder}/{path}" if folder and not path.startswith("/") else path


def _group_parts(
    listing: BagListing, metas: dict[str, tuple[text.GalaxeaEntry, ...]], split_files: SplitFiles, warnings: list[str]
) -> list[tuple[str, ...]]:
    """Files that belong to one recording, unless listed one by one: numbered from 0, of one folder, name and kind."""
    listed = {_stem(name) for entries in metas.values() for entry in entries for name in (entry.name, entry.path)}
    parts: dict[tuple[str, str, str, bool], list[tuple[str, int, str]]] = defaultdict(list)
    groups: list[tuple[str, ...]] = []
    for path in sorted(listing.files):
        pure = PurePosixPath(path)
        split = _split_name(pure.stem)
        if split is None or split_files == "separate":
            groups.append((path,))
        else:
            key = (str(pure.parent), split.stem, pure.suffix, bool(split.date))
            parts[key].append((split.date, split.number, path))
    joined: list[tuple[str, ...]] = []
    for (folder, stem, _, _), members in parts.items():
        if len(members) > 1 and all(_stem(path) in listed for _, _, path in members):
            groups += [(path,) for _, _, path in members]
            continue
        for take in _takes(sorted(members)):
            numbers = [number for _, number, _ in take]
            if numbers != list(range(len(numbers))) and len(numbers) > 1:
                warnings.append(f"{folder}/{stem}: split files {numbers} do not count up from 0; some may be absent")
            files = tuple(path for _, _, path in take)
            groups.append(files)
            joined += [files] if len(files) > 1 else []
    if joined:
        warnings.append(
            f"{len(joined)} recordings are joined from {sum(map(len, joined))} split files, the first from "
            f"{' and '.join(_name(path) for path in joined[0][:2])}{', ..' if len(joined[0]) > 2 else ''}; option "
            "split_files = separate takes each file as a recording"
        )
    return sorted(groups)


def _takes(members: Sequence[tuple[str, int, str]]) -> list[list[tuple[str, int, str]]]:
    """Files (date, number, path) in order, parted where the number starts again: another take of the same name."""
    takes: list[list[tuple[str, int, str]]] = []
    for member in members:
        if not takes or (member[0] and member[1] <= takes[-1][-1][1]):
            takes.append([])
        takes[-1].append(member)
    return takes


@dataclass(frozen=True)
class _Split:
    """What the name of one file of a split recording tells."""

    stem: str
    """Name of the recording, without number and date."""
    number: int
    """Which file of it this is."""
    date: str
    """When the file was begun, as written; "" where the name has none."""


def _split_name(name: str) -> _Split | None:
    """The parts of a file name without ending; None where it is not the name of a split file."""
    for form in _SPLITS[:2]:
        match = form.fullmatch(name)
        if match:
            return _Split(match["stem"].rstrip("_"), int(match["number"]), match["date"])
    match = None if _DATED.fullmatch(name) else _SPLITS[2].fullmatch(name)  # a date is not a split number
    return _Split(match["stem"], int(match["number"]), "") if match else None


def _plain_stem(name: str) -> str:
    """A file's name without its split number."""
    split = _split_name(name)
    if split is None:
        return name
    return "_".join(part for part in (split.stem, split.date) if part)


def _stem(path: str) -> str:
    """File name without folder and ending, of a POSIX or a Windows path."""
    name = PureWindowsPath(path).name
    return name.rpartition(".")[0] if name.endswith(SUFFIXES) else name


def _entry_of(files: Sequence[str], metas: dict[str, tuple[text.GalaxeaEntry, ...]]) -> tuple[str | None, int | None]:
    """The nearest json file that lists a recording: by its path, else by its name below the json's folder."""
    folder = files[0].rpartition("/")[0]
    own = {_stem(path) for path in files} | {_plain_stem(_stem(files[0])), folder.rpartition("/")[2]} - {""}
    near = [m for m in metas if _is_below(folder, m.rpartition("/")[0])]
    for meta in sorted(near, key=lambda m: -1 if m.startswith("../") else m.count("/"), reverse=True):
        below = meta.rpartition("/")[0]
        by_path = [i for i, e in enumerate(metas[meta]) if e.path and _join(below, e.path) in (*files, folder)]
        by_name = [i for i, e in enumerate(metas[meta]) if {_stem(e.name), _stem(e.path)} & own]
        for numbers in (by_path, by_name):
            if numbers:
                return meta, numbers[0]
    return None, None


def _is_below(folder: str, parent: str) -> bool:
    return parent in ("", "..") or folder == parent or folder.startswith(f"{parent}/")


def _join(folder: str, path: str) -> str:
    return str(PurePosixPath(folder) / path.replace("\\", "/"))


def _display_name(files: Sequence[str]) -> str:
    name = PurePosixPath(files[0]).stem
    return _plain_stem(name) if len(files) > 1 else name


def _sidecar_of(files: Sequence[str], listing: BagListing, base: Path) -> str | None:
    """`X.json` beside the folder `X` that holds the recording, or beside the recording itself."""
    folder, _, _ = files[0].rpartition("/")
    above, _, name = folder.rpartition("/")
    stem = str(PurePosixPath(files[0]).with_suffix(""))
    candidates = [f"{above}/{name}.json" if above else f"{name}.json"] if folder else []
    plain = f"{folder}/{_plain_stem(_name(stem))}" if folder else _plain_stem(stem)
    candidates += [f"{stem}.json", f"{plain}.json"]
    if not folder:
        candidates += [f"../{base.resolve().name}.json", f"../{stem}.json"]
    return next((c for c in candidates if c in listing.jsons and _name(c) not in text.META_NAMES), None)


def folder_task(base: Path, folder: str) -> str:
    """A task from the folder names above a recording, nearest first; vendor names (serial and time) say nothing."""
    names = [*PurePosixPath(folder).parts, ""] if folder != "." else [""]
    names[-1:] = []
    for name in (*reversed(names), base.resolve().name):
        task = "" if _VENDOR_NAME.fullmatch(name) else text.coarse_task(name)
        if task:
            return task
    return ""


def nothing_found(root: Path, listing: BagListing) -> str:
    """One sentence: what was searched for, what lay there instead."""
    parts = [f"{count} {ending}" for ending, count in listing.endings.most_common(3)]
    found = f"files found instead: {', '.join(parts)}" if parts else "the folder holds no files"
    if listing.skipped:
        found = f"{listing.skipped[0].source}: {listing.skipped[0].reason}"
    advice = "give the folder that holds the recordings"
    if listing.archives:
        advice = f"unpack the archives first, in that folder: {packed.command(listing.archives)}"
    return f"no {', '.join(SUFFIXES)} file below {root} ({found}); {advice}"


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
        refs.append(EpisodeRef(unique, recording.files[0], (*recording.files, *beside), part, size, hints))
    return tuple(refs)
