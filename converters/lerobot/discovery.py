"""Finding LeRobot datasets below a folder, and the episodes whose files are there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.lerobot import hub
from converters.lerobot.info import INFO, read_info
from converters.lerobot.loose_images import loose_place
from converters.lerobot.meta import Dataset, EpisodeMeta
from converters.lerobot.same_videos import shown_twice
from converters.lerobot.shared_video import overlaps
from converters.lerobot.strays import NUMBERED, numbered_otherwise
from converters.lerobot.tree import tree_of
from converters.shared import archives as packed
from converters.shared.content import HEAD_BYTES, not_content
from converters.shared.links import odd_name, shown_name
from fwdata.api import EpisodeRef, LeftOut, Skipped
from fwdata.errors import BadEpisode, UsageError
from fwdata.wording import counted, verb


@dataclass(frozen=True)
class DatasetFolder:
    """A dataset folder below the root."""

    folder: Path
    """The folder itself."""
    relative: str
    """Its path relative to the root, POSIX; "" for the root itself."""

    def place(self, name: str) -> str:
        """A path inside the dataset, relative to the root."""
        return f"{self.relative}/{name}" if self.relative else name


def list_datasets(root: Path) -> list[DatasetFolder]:
    """Every folder below `root` that holds meta/info.json, sorted by path; hidden and linked folders are left out.

    Raises UsageError when there is none.
    """
    if not root.exists():
        raise UsageError(f"there is no folder {root}")
    if not root.is_dir():
        what = f"{root} is a file; give the dataset's folder, the one that holds meta and data"
        raise UsageError(packed.instead_of_root(root) or what)
    found = []
    for folder, subfolders, _ in os.walk(root):
        path = Path(folder)
        if (path / INFO).exists():
            relative = path.relative_to(root).as_posix()
            odd = odd_name(relative)
            if odd is not None:
                raise UsageError(f"{shown_name(folder)}: {odd}")
            found.append(DatasetFolder(path, "" if relative == "." else relative))
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
    if found:
        return sorted(found, key=lambda dataset: dataset.relative)
    archives = packed_below(root)
    if archives:
        raise UsageError(
            f"{root} holds no {INFO}, but {counted(len(archives), 'archive')}, such as {archives[0]}; unpack "
            "them first, in that "
            f"folder: {packed.command(archives)}"
        )
    above = next((p for p in (root.resolve(), *root.resolve().parents[:3]) if (p / INFO).exists()), None)
    lost = any((root / name).is_dir() for name in ("data", "videos", "meta"))
    hint = f"; fetch it: {hub.fetch_command(root)}" if lost else "; give a LeRobot dataset or a folder of several"
    hint = f"; the dataset's folder is {above}" if above else hint
    linked = linked_datasets(root)
    if linked:
        what = f"{counted(len(linked), 'linked dataset')}, such as {linked[0]}, {verb(len(linked), 'is', 'are')}"
        hint = f"; {what} not entered: give {root / linked[0]} itself"
    raise UsageError(f"{root} holds no {INFO}{hint}")


def packed_below(root: Path) -> tuple[str, ...]:
    """Archives below a folder, also inside datasets; relative to it, POSIX, sorted."""
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in files if packed.is_archive(name)]
    return tuple(sorted(found))


def archives_below(root: Path, places: Sequence[DatasetFolder]) -> tuple[LeftOut, ...]:
    """What to say about archives below a folder of datasets. Cost: one walk over its folders."""
    found = packed_below(root)
    if not found:
        return ()
    listed = {place.place(path) for place in places for path in tree_of(place.folder).paths}
    unpacked = packed.above(path for path in listed if not packed.is_archive(path))
    return packed.left_out(found, unpacked | {place.relative for place in places if place.relative})


def unpack_hint(root: Path) -> str:
    """How to unpack the archives below a folder of which no episode can be read, to append; "" where there are none."""
    found = packed_below(root)
    if not found:
        return ""
    several = counted(len(found), "archive")
    return f"; or unpack the {several} there, such as {found[0]}, in that folder: {packed.command(found)}"


def not_listed(episodes: Sequence[str]) -> tuple[LeftOut, ...]:
    """What to say about episodes that tables hold and the metadata do not list."""
    if not episodes:
        return ()
    reason = "episodes that tables hold and the metadata do not list; --recover reads them"
    return (LeftOut(reason, len(episodes), tuple(episodes[:2]), names=tuple(episodes)),)


def linked_datasets(root: Path) -> list[str]:
    """Links below `root` to folders of datasets, relative to it, sorted; they are not entered."""
    found = []
    for folder, subfolders, _ in os.walk(root):
        path = Path(folder)
        if (path / INFO).exists():
            subfolders.clear()
            continue
        links = [path / name for name in subfolders if (path / name).is_symlink() and (path / name / INFO).exists()]
        found += [link.relative_to(root).as_posix() for link in links]
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
    return sorted(found)


def nested_datasets(place: DatasetFolder) -> list[str]:
    """What to say about datasets inside another one's folder."""
    found = sorted(place.place(path) for path in tree_of(place.folder).nested)
    return (
        [
            f"{counted(len(found), 'dataset')} in its folder {verb(len(found), 'is', 'are')} not entered, such as "
            f"{found[0]}; give them by name"
        ]
        if found
        else []
    )


@dataclass(frozen=True)
class EpisodeListing:
    """Episodes of one dataset whose files exist, and those left out."""

    refs: tuple[EpisodeRef, ...]
    """Episodes to convert, in the order of their indices."""
    skipped: tuple[Skipped, ...]
    """Episodes left out, each with the reason; those beyond option max_episodes are only counted."""
    left_out: Mapping[str, int]
    """Number of episodes left out by kind of reason, those beyond the limit among them."""


@dataclass(frozen=True)
class EpisodeLimits:
    """Which episodes of a dataset an option takes."""

    count: int | None = None
    """Most of them; None: all."""
    chosen: frozenset[int] | None = None
    """Their indices; None: all."""


def references(
    found: DatasetFolder, dataset: Dataset, cameras: Sequence[str], limits: EpisodeLimits, robot: str
) -> EpisodeListing:
    """References to the episodes of one dataset, in order of their index.

    cameras: keys of the features used that are videos; these count as the episode's files. robot: their embodiment.
    num_bytes is the episode's share, by rows, of every file it is read from. Left out too: episodes that claim the same
    frames of a shared video, or whose videos are one and the same file.
    """
    claimed = {**shown_twice(dataset, cameras), **_overlaps(dataset, cameras)}
    shifted = {} if dataset.info.shared_files else numbered_otherwise(dataset, cameras)
    sizes: dict[str, int | str] = {}
    rows = Counter[str]()
    for entry in dataset.episodes.values():
        rows.update(dict.fromkeys(_files(entry, cameras), max(1, entry.length)))
    refs: list[EpisodeRef] = []
    skipped: list[Skipped] = []
    lacking: dict[int, list[str]] = {}
    left_out = Counter[str]()
    for entry in dataset.episodes.values():
        if limits.chosen is not None and entry.index not in limits.chosen:
            left_out["outside of option splits"] += 1
            continue
        if limits.count is not None and len(refs) >= limits.count:
            left_out["beyond option max_episodes"] += 1
            continue
        files = _files(entry, cameras)
        for name in files:
            if name not in sizes:
                sizes[name] = _size(dataset, name)
        reasons = {
            NUMBERED: shifted.get(entry.index),
            "rows in several tables": dataset.ambiguous.get(entry.index),
            MISSING: next((x for n in files if isinstance(x := sizes[n], str)), None),
            UNPLACED: _unplaced(entry, cameras),
            "frames that another episode claims": claimed.get(entry.index),
        }
        kind, reason = next(((kind, text) for kind, text in reasons.items() if text), ("", None))
        if reason is not None:
            left_out[kind] += 1
            absent = [name for name in files if sizes[name] == _missing(name)]
            images = _unencoded(dataset, entry, _without_video(entry, cameras, absent)) if kind in NO_VIDEO else None
            if kind == MISSING and absent and images is None:
                lacking[entry.index] = absent
            reason = images or reason
            skipped.append(Skipped(f"{found.place(entry.data_file)}#episode_{entry.index:06d}", reason))
            continue
        shares = [int(sizes[name]) * max(1, entry.length) / rows[name] for name in files]
        refs.append(_reference(found, dataset, entry, files, max(1, round(sum(shares))), robot))
    if len(lacking) > 1:
        gone = {f"{found.place(dataset.episodes[index].data_file)}#episode_{index:06d}" for index in lacking}
        skipped = [skip for skip in skipped if skip.source not in gone]
        skipped.append(_incomplete(found, lacking, len(sizes), len(dataset.episodes)))
    return EpisodeListing(tuple(refs), tuple(skipped), dict(left_out))


MISSING, UNPLACED = "files missing or without content", "no place of a video in the metadata"
NO_VIDEO = (MISSING, UNPLACED)
"""Kinds of reason for which episodes are left out."""


def _without_video(entry: EpisodeMeta, cameras: Iterable[str], absent: Sequence[str]) -> list[str]:
    """Cameras of which an episode has no video, by the metadata or in the folder."""
    return [key for key in cameras if key not in entry.videos or entry.videos[key].file in absent]


def _incomplete(found: DatasetFolder, lacking: Mapping[int, Sequence[str]], files: int, episodes: int) -> Skipped:
    """One entry for a download of which parts are missing. lacking: episode -> its missing files."""
    names = list(dict.fromkeys(name for absent in lacking.values() for name in absent))
    listed = ", ".join(names[:2]) + (", .." if len(names) > 2 else "")
    reason = (
        f"incomplete download: {len(names)} of {counted(files, 'file')} {verb(len(names), 'is', 'are')} "
        f"missing ({listed}), of {len(lacking)} of {episodes} "
        f"episodes; fetch {verb(len(names), 'it', 'them')}: {hub.fetch_command(found.folder)}"
    )
    return Skipped(found.relative or "dataset", reason)


def _overlaps(dataset: Dataset, cameras: Iterable[str]) -> dict[int, str]:
    """Episodes that claim frames of another one in a shared video (v3.0) -> a sentence about both."""
    found: dict[int, str] = {}
    for (key, name), slots in dataset.shared.items():
        if key in cameras:
            for episode, sentence in overlaps(slots, name, dataset.video_hz).items():
                found.setdefault(episode, sentence)
    return found


def _files(entry: EpisodeMeta, cameras: Iterable[str]) -> list[str]:
    return list(
        dict.fromkeys(
            [entry.data_file, *(n for key in cameras if key in entry.videos for n in entry.videos[key].files)]
        )
    )


def _unplaced(entry: EpisodeMeta, cameras: Iterable[str]) -> str | None:
    """Why an episode has no video of one of the cameras used: its metadata are null or missing."""
    missing = [key for key in cameras if key not in entry.videos]
    if not missing:
        return None
    told = f"the metadata give no video of camera {missing[0]} for episode {entry.index}"
    return entry.lacking.get(missing[0], told)


def _size(dataset: Dataset, name: str) -> int | str:
    """Bytes of a file, or why it is of no use."""
    try:
        path = dataset.path(name)
        if path.is_file():
            size = path.stat().st_size
            reason = not_content(path, name) if size < HEAD_BYTES else None
            return size if reason is None else reason
    except BadEpisode as error:
        return str(error)
    except OSError:
        pass
    return _missing(name)


def _unencoded(dataset: Dataset, entry: EpisodeMeta, keys: Iterable[str]) -> str | None:
    """What to do where the images of videos that are not there lie beside them, one by one."""
    tree = tree_of(dataset.folder)
    for key in keys:
        place = loose_place(tree, key, entry)
        if place is not None:
            return (
                f"its video of camera {key} is missing and its {counted(len(place.images), 'image')} "
                f"{verb(len(place.images), 'is', 'are')} in {place.file.rpartition('/')[0]}: the recording was killed "
                "before they were encoded; add --recover, which reads them"
            )
    return None


def _missing(name: str) -> str:
    return f"{name} is missing; download it again"


def _differs(dataset: Dataset) -> dict[str, str]:
    """The hint that features are not as meta/info.json says, so that whoever reads an episode has to look as well."""
    return {"features": "corrected"} if dataset.info != read_info(dataset.folder) else {}


def _reference(
    found: DatasetFolder, dataset: Dataset, entry: EpisodeMeta, files: Sequence[str], num_bytes: int, robot: str
) -> EpisodeRef:
    name = f"episode_{entry.index:06d}"
    shared = f"#{name}" if dataset.info.shared_files else ""
    return EpisodeRef(
        id=found.place(name),
        source=found.place(entry.data_file) + shared,
        files=tuple(found.place(file) for file in files),
        group=found.relative or "dataset",
        num_bytes=num_bytes,
        hints={"dataset": found.relative, "episode": entry.index, "length": entry.length, **_differs(dataset)},
        num_frames=entry.length,
        embodiment=robot,
    )
