"""Where a dataset's rows and images really are, and which of its cameras and sizes are not as meta/info.json says.

Published datasets are renamed, merged, cut and partly downloaded: path patterns that name other folders, tables of
episodes that point to the wrong parquet file, cameras that were never recorded. What the files say counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from converters.lerobot import parquet
from converters.lerobot.doubled import DoubledRows
from converters.lerobot.entry import EpisodeMeta, VideoPlace
from converters.lerobot.images import image_bytes, is_deep
from converters.lerobot.info import EXPORTED, Info, inside
from converters.lerobot.numbered import numbered_tables, numbered_videos
from converters.lerobot.timelines import is_deep as is_deep_video
from converters.lerobot.tree import Tree, is_video
from converters.lerobot.video_files import by_frames, placed_by_frames
from fwdata.api import BadEpisode
from fwdata.errors import UsageError
from fwdata.wording import counted

_agreed: ContextVar[bool] = ContextVar("agreed", default=False)


@contextmanager
def agreed(on: bool) -> Iterator[None]:
    """Load datasets inside without the first and the last table, whose features were found to be as info.json says.

    So an episode that no process survives costs its own reading only, and none but the discovery looks at it.
    """
    token = _agreed.set(on)
    try:
        yield
    finally:
        _agreed.reset(token)


def is_agreed() -> bool:
    """Whether an `agreed` block is entered."""
    return _agreed.get()


@dataclass(frozen=True)
class DatasetSurvey:
    """A dataset's metadata corrected by its files."""

    info: Info
    """Cameras without any file are marked as absent; sizes are those of the tables."""
    entries: tuple[EpisodeMeta, ...]
    """With the paths where the files are; those that are nowhere keep the path of the metadata."""
    warnings: tuple[str, ...]
    """What differs from the metadata, one sentence for each kind."""
    ambiguous: Mapping[int, str]
    """Episodes whose rows are in several tables that differ, or in parts -> a sentence that names them."""
    unlisted: tuple[str, ...] = ()
    """Episodes that tables hold and the metadata do not list, as `EpisodeRef.source` would call them."""


def survey(
    folder: Path, info: Info, tree: Tree, entries: Sequence[EpisodeMeta], columns: parquet.TableColumns | None = None
) -> DatasetSurvey:
    """Look at the names of a dataset's files, and in v3.0 at the column episode_index of its tables.

    columns: read tables without a footer as well, see `converters.lerobot.recover`.
    """
    moved: dict[str, dict[int, str]] = {"tables": {}, "videos": {}}
    rows = _rows_of(folder, tree, columns) if info.shared_files else {}
    keys, doubled = info.videos(), DoubledRows(folder, columns)
    tables_by, videos_by = (
        ({}, {}) if info.shared_files else (numbered_tables(entries, tree), numbered_videos(entries, keys, tree))
    )
    located = []
    for entry in entries:
        data = doubled.table(entry, rows.get(entry.index, {})) if rows else _table(entry, tree)
        data = data if tree.holds(data) else tables_by.get(entry.index, data)
        videos = {key: replace(place, file=_video(place, key, keys, tree)) for key, place in entry.videos.items()}
        videos = {
            key: place if tree.holds(place.file) else replace(place, file=videos_by.get((entry.index, key), place.file))
            for key, place in videos.items()
        }
        pairs = [("tables", entry.data_file, data)]
        pairs += [("videos", place.file, videos[key].file) for key, place in entry.videos.items()]
        for kind, said, found in pairs:
            if said != found:
                moved[kind].setdefault(entry.index, f"episode {entry.index}: {found} instead of {said}")
        located.append(replace(entry, data_file=data, videos=videos))
    warnings = [
        f"{kind} of {counted(len(told), 'episode')} are not where the metadata say, and were found by "
        f"{'the column episode_index' if kind == 'tables' and info.shared_files else 'their names'} "
        f"({next(iter(told.values()))})"
        for kind, told in moved.items()
        if told
    ]
    if info.shared_files:
        located, framed = by_frames(folder, keys, located, tree)
        located, placed = placed_by_frames(folder, keys, located, tree, info.fps)
        warnings += framed + placed
    tables = list(dict.fromkeys(e.data_file for e in located if tree.holds(e.data_file)))
    ends = [] if is_agreed() else _ends(tables)
    firsts = _first_images(folder, info, ends)
    absent = _absent_videos(keys, located, tree) | _absent_images(firsts)
    sizes = _sizes(folder, info, ends)
    warnings += doubled.warnings()
    warnings += [_left_out(key, tree) for key in absent]
    warnings += [
        f"{key} has {size} values in a row of {tables[0]}, meta/info.json says {info.features[key].size}; all are kept"
        for key, size in sizes.items()
    ]
    unlisted, unread = (
        ([], []) if is_agreed() or columns else _unlisted(folder, located, tree, shared=info.shared_files)
    )
    return DatasetSurvey(
        _corrected(info, absent, _deep(folder, info, firsts, located, tree), sizes),
        tuple(located),
        (*warnings, *_said_unread(unread)),
        doubled.ambiguous,
        tuple(unlisted),
    )


def _said_unread(unread: Sequence[str]) -> list[str]:
    """Sentences about tables that no listed episode is in and that cannot be read: two, and how many more."""
    told = [f"{text}; the metadata list no episode of it" for text in unread[:2]]
    more = [f"{len(unread) - 2} more tables of which the metadata list no episode cannot be read"] if unread[2:] else []
    return told + more


def _unlisted(folder: Path, entries: Sequence[EpisodeMeta], tree: Tree, *, shared: bool) -> tuple[list[str], list[str]]:
    """(Episodes of tables that the metadata do not list, why tables that no episode is in cannot be read)."""
    known, named = {entry.index for entry in entries}, {entry.data_file for entry in entries}
    found: dict[int, str] = {}
    unread: list[str] = []
    for name in tree.tables:
        if name in named and not shared:
            continue
        try:
            episodes = parquet.episodes_in(inside(folder, name), name)
        except (BadEpisode, UsageError) as error:
            unread += [] if name in named else [str(error)]
            continue
        for index in episodes.keys() - known:
            found.setdefault(index, f"{name}#episode_{index:06d}")
    return [found[index] for index in sorted(found)], unread


def _rows_of(folder: Path, tree: Tree, columns: parquet.TableColumns | None) -> dict[int, dict[str, int]]:
    """Episode -> tables that hold rows of it and how many, of all tables that can be read."""
    found: dict[int, dict[str, int]] = {}
    for name in tree.tables:
        try:
            episodes = parquet.episodes_in(inside(folder, name), name, columns)
        except (BadEpisode, UsageError):  # reported for each episode that is read from it
            continue
        for episode, count in episodes.items():
            found.setdefault(episode, {})[name] = count
    return found


def _table(entry: EpisodeMeta, tree: Tree) -> str:
    """The table of an episode alone: as the metadata say where it is there, else the only one of that name."""
    said = entry.data_file
    if tree.holds(said):
        return said
    others = [p for p in tree.by_stem.get(PurePosixPath(said).stem, ()) if p.lower().endswith(".parquet")]
    return others[0] if len(others) == 1 else said


def _video(place: VideoPlace, key: str, keys: Sequence[str], tree: Tree) -> str:
    """The video of a camera: as the metadata say where it is there, else the only one of that name and camera."""
    said = place.file
    if tree.holds(said):
        return said
    path = PurePosixPath(said)
    named = [PurePosixPath(p) for p in tree.by_stem.get(path.stem, ()) if is_video(p)]
    short = key.rpartition(".")[2]
    found = [p for p in named if key in p.parts] or [p for p in named if short in p.parts]
    if not found and len(keys) == 1:
        found = named
    if len(found) > 1:
        chunk = {part for part in path.parts if part.startswith("chunk-")}
        found = [p for p in found if chunk & set(p.parts)]
    return found[0].as_posix() if len(found) == 1 else said


def _absent_videos(keys: Iterable[str], entries: Sequence[EpisodeMeta], tree: Tree) -> dict[str, None]:
    """Cameras of which no episode has a file, or a link to one that is not here, where another camera has some:
    metadata alone say nothing."""
    there = {key for entry in entries for key, place in entry.videos.items() if tree.holds(place.file)}
    files = {key: [entry.videos[key].file for entry in entries if key in entry.videos] for key in keys}
    lacking = dict.fromkeys(key for entry in entries for key in entry.lacking)  # of recovered ones, which say why
    there |= {key for key in lacking if there and _videos_of(key, tree)}
    return {key: None for key in keys if there and key not in there and not any(map(tree.links, files[key]))}


def _videos_of(key: str, tree: Tree) -> int:
    """Number of videos in folders of a camera's name."""
    return sum(is_video(path) and key in path.split("/") for path in tree.paths)


def _left_out(key: str, tree: Tree) -> str:
    """A sentence about a camera that is left out."""
    if files := _videos_of(key, tree):
        videos = counted(files, "video")
        return f"the metadata give no place of any episode in the {videos} of camera {key}; it is left out"
    return f"camera {key} is listed in meta/info.json and has no images; it is left out"


def _absent_images(firsts: Sequence[Mapping[str, Any]]) -> dict[str, None]:
    """Image features that the first and the last table have no column or no image for."""
    return {key: None for key in (firsts[0] if firsts else ()) if all(values[key] is None for values in firsts)}


def _first_images(folder: Path, info: Info, ends: Sequence[str]) -> list[dict[str, object]]:
    """The first value of every image feature in the first and the last table; [] where one cannot be read."""
    keys = [key for key in info.image_features() if info.features[key].dtype == "image"]
    try:
        return [parquet.first_values(inside(folder, name), name, keys) for name in ends] if keys else []
    except (BadEpisode, UsageError):
        return []


def _deep(
    folder: Path, info: Info, firsts: Sequence[Mapping[str, object]], entries: Sequence[EpisodeMeta], tree: Tree
) -> list[str]:
    """Features whose images or videos are grey with more than 8 bits: distances whatever they are called and declared.

    The header of one video is read of every camera whose pixel format info.json lacks; own exports hold cameras alone.
    """
    found = [key for key in (firsts[0] if firsts else ()) if all(is_deep(image_bytes(each[key])) for each in firsts)]
    untold = [] if is_agreed() or (folder / EXPORTED).is_file() else info.videos()
    for key in untold:
        if info.features[key].pixels_as:
            continue
        name = next((e.videos[key].file for e in entries if key in e.videos and tree.holds(e.videos[key].file)), None)
        try:
            found += [key] if name is not None and is_deep_video(inside(folder, name), name) else []
        except (BadEpisode, UsageError):
            continue  # said where an episode is read
    return found


def _sizes(folder: Path, info: Info, ends: Sequence[str]) -> dict[str, int]:
    """Features of numbers whose rows have another size in the first and the last table than meta/info.json says."""
    keys = [f.key for f in info.features.values() if f.is_numbers]
    try:
        found = [parquet.widths(inside(folder, name), name, keys) for name in ends]
    except (BadEpisode, UsageError):
        return {}
    if not found:
        return {}
    agreed = {key: size for key, size in found[0].items() if all(other.get(key) == size for other in found)}
    return {key: size for key, size in agreed.items() if size != info.features[key].size}


def _ends(tables: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([tables[0], tables[-1]])) if tables else []


def _corrected(info: Info, absent: Iterable[str], deep: Iterable[str], sizes: Mapping[str, int]) -> Info:
    features = dict(info.features)
    for key in deep:
        features[key] = replace(features[key], depth=True)
    for key in absent:
        features[key] = replace(features[key], absent=True)
    for key, size in sizes.items():
        features[key] = replace(features[key], shape=(size,))
    return replace(info, features=features)
