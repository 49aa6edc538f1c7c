"""The files that are in a dataset folder, whatever its metadata say: listed once and kept until a folder changes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from converters.lerobot.info import INFO, stays_inside

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg")
MAX_TREES = 64


def is_video(path: str) -> bool:
    """Whether a file's name is that of a video; cameras write .MP4."""
    return path.lower().endswith(VIDEO_SUFFIXES)


@dataclass(frozen=True, eq=False)
class Tree:
    """Files below a dataset folder, besides those in meta; links are followed as far as they stay inside."""

    folder: Path
    """The dataset's folder."""
    paths: frozenset[str]
    """Relative, POSIX."""
    by_stem: Mapping[str, tuple[str, ...]]
    """Name without folder and ending -> paths, sorted."""
    folders: tuple[tuple[str, int], ...]
    """Every folder that was read, and its time of change in ns."""
    outside: tuple[str, ...]
    """Links that lead out of the dataset or nowhere; not followed."""
    aliases: tuple[str, ...]
    """Links to folders that are listed under their own name, or above."""
    nested: tuple[str, ...] = ()
    """Folders of further datasets, which are not entered."""

    @cached_property
    def tables(self) -> tuple[str, ...]:
        """Parquet files, sorted."""
        return tuple(sorted(path for path in self.paths if path.lower().endswith(".parquet")))

    def holds(self, path: str) -> bool:
        """Whether there is such a file, also by way of a linked folder."""
        if path in self.paths:
            return True
        return any(path.startswith(f"{alias}/") for alias in self.aliases) and (self.folder / path).is_file()

    def links(self, path: str) -> bool:
        """Whether there is a link instead of such a file, or of a folder above it."""
        parts = [path, *map(str, PurePosixPath(path).parents)][:-1]  # without the dataset's folder itself
        return any((self.folder / part).is_symlink() for part in parts)

    def fresh(self) -> bool:
        """Whether no file was added, removed or renamed since."""
        return all(_changed(folder) == stamp for folder, stamp in self.folders)


_trees: dict[Path, Tree] = {}


def tree_of(folder: Path) -> Tree:
    """The files of a dataset folder; the same object until one of its folders changes. Cost: about 5 us a file."""
    known = _trees.get(folder)
    if known is not None and known.fresh():
        return known
    found = _list(folder)
    while len(_trees) >= MAX_TREES:
        _trees.pop(next(iter(_trees)))
    _trees[folder] = found
    return found


def _changed(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return -1


def _list(folder: Path) -> Tree:
    paths: list[str] = []
    folders: list[tuple[str, int]] = []
    outside: list[str] = []
    aliases: list[str] = []
    nested: list[str] = []
    todo, seen = [""], {os.path.realpath(folder)}
    while todo:
        relative = todo.pop()
        here = folder / relative
        folders.append((str(here), _changed(str(here))))
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            path = f"{relative}/{entry.name}" if relative else entry.name
            if entry.name.startswith(".") or path == "meta":
                continue
            if entry.is_symlink() and not stays_inside(Path(entry.path), folder):
                outside.append(path)
            elif entry.is_file():
                paths.append(path)
            elif entry.is_dir() and (here / entry.name / INFO).exists():
                nested += [] if os.path.realpath(entry.path) in seen else [path]
            elif entry.is_dir():
                real = os.path.realpath(entry.path)
                if real in seen:
                    aliases.append(path)
                else:
                    seen.add(real)
                    todo.append(path)
    by_stem: dict[str, list[str]] = {}
    for path in sorted(paths):
        by_stem.setdefault(PurePosixPath(path).stem, []).append(path)
    stems = {stem: tuple(found) for stem, found in by_stem.items()}
    return Tree(folder, frozenset(paths), stems, tuple(folders), tuple(outside), tuple(aliases), tuple(nested))
