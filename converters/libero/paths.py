"""LIBERO on disk: which files are task files, and what their names and folders say about them.

    <root>/<suite>/<task>_demo.hdf5              as downloaded; one file per task, one level deep
    <root>/<suite>_no_noops/<task>_demo.hdf5     regenerated without no-ops, same file names

Nothing is opened here.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.libero.published import SUITE_OF_TASK, SUITE_TASKS
from converters.libero.task_name import split_task
from converters.shared.archives import instead_of_root, is_set_aside
from converters.shared.links import is_file_inside, not_followed, odd_name, shown_name
from fwdata.errors import UsageError

UNKNOWN = "unknown"
ENDINGS = (".hdf5", ".h5")
_SUITE_FOLDER = re.compile(r"libero[_-](?P<suite>spatial|object|goal|10|90)(?:[_-].*)?", re.IGNORECASE)
_LEVELS = 4


@dataclass(frozen=True)
class TaskFile:
    """One HDF5 file, and what its place says."""

    path: str
    """Relative to the base folder, POSIX."""
    num_bytes: int
    """Size of the file in bytes."""
    folder: str
    """Name of the suite's folder (`libero_goal_no_noops`), else the suite, else "unknown"; part of every id."""
    suite: str
    """Canonical suite; "unknown" where neither folder nor task gives it."""
    task: str
    """File name without `_demo` and ending."""
    scene: str | None
    """Scene prefix of the task; None where it has none."""


@dataclass(frozen=True)
class Hdf5Listing:
    """What one walk over a folder found."""

    files: tuple[TaskFile, ...]
    """HDF5 files in the order of conversion."""
    ignored: tuple[str, ...]
    """What was not entered, with the reason."""
    endings: Counter[str]
    """Number of other files by ending."""
    empty: tuple[str, ...] = ()
    """Folders named like a suite that hold no task file."""
    archives: tuple[str, ...] = ()
    """Zip and tar files among the files."""


def suite_of_task(task: str) -> str | None:
    """The suite a task name belongs to, where the name alone tells."""
    scene = split_task(task)[0]
    return SUITE_OF_TASK.get(task) or ("libero_90" if scene and task.startswith(scene) else None)


def place(folders: Sequence[str], path: str, num_bytes: int) -> TaskFile:
    """What folder names (outermost first, those above the root included) and the file's name tell."""
    task = Path(path).stem.removesuffix("_demo")
    found = next((m for m in map(_SUITE_FOLDER.fullmatch, reversed(folders[-_LEVELS:])) if m), None)
    suite = f"libero_{found['suite'].lower()}" if found else suite_of_task(task) or UNKNOWN
    return TaskFile(path, num_bytes, found[0] if found else suite, suite, task, split_task(task)[0])


def base_folder(root: Path) -> Path:
    """The folder that paths are relative to: the root, or its parent where the root is one file."""
    return root.parent if root.is_file() else root


def list_files(root: Path) -> Hdf5Listing:
    """Walk `root` (a folder of any level, or one file) once; opens no file.

    Symbolic links to folders, and to files outside the root, are not followed but listed. Raises UsageError when the
    root does not exist or is a file of another kind.
    """
    if not root.exists():
        raise UsageError(f"there is no {root}; give the folder that holds the LIBERO suites, or one task file")
    if root.is_file():
        if root.suffix.lower() not in ENDINGS:
            what = f"{root} is no LIBERO task file: expected a folder, or a file named <task>_demo.hdf5"
            raise UsageError(instead_of_root(root) or what)
        folders = root.resolve().parent.parts[1:]
        return Hdf5Listing((place(folders, root.name, root.stat().st_size),), (), Counter())
    files: list[TaskFile] = []
    ignored: list[str] = []
    archives: list[str] = []
    endings: Counter[str] = Counter()
    suites: set[str] = set()
    real = root.resolve()
    pending = [(root, "", real.parts[1:])]
    while pending:
        folder, relative, names = pending.pop()
        if _SUITE_FOLDER.fullmatch(names[-1] if names else ""):
            suites.add(names[-1])
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            ignored.append(f"{relative or '.'} ({error.strerror})")
            continue
        for entry in entries:
            if entry.name.startswith("."):  # hidden, .cache, ._* of macOS
                continue
            path = relative + entry.name
            reason = _unused(entry, path, real)
            if reason:
                ignored.append(f"{shown_name(path)} ({reason})")
            elif entry.is_dir(follow_symlinks=False):
                pending.append((Path(entry.path), f"{path}/", (*names, entry.name)))
            elif entry.is_file():
                ending = Path(entry.name).suffix.lower()
                if ending in ENDINGS:
                    files.append(place(names, path, entry.stat().st_size))
                else:
                    endings[ending or "no ending"] += 1
                    archives += [path] if is_set_aside(entry.name) else []
    empty = tuple(sorted(suites - {file.folder for file in files}))
    return Hdf5Listing(
        tuple(sorted(files, key=_order)), tuple(sorted(ignored)), endings, empty, tuple(sorted(archives))
    )


def _order(file: TaskFile) -> tuple[int, str, str]:
    suites = [*SUITE_TASKS, UNKNOWN]
    return suites.index(file.suite), file.folder, file.path


def _unused(entry: os.DirEntry[str], path: str, real: Path) -> str | None:
    odd = odd_name(entry.name)
    if odd:
        return odd
    if entry.is_symlink():
        return None if is_file_inside(entry.path, real) else not_followed(entry.path, path)
    return None if entry.is_file() or entry.is_dir() else "neither a file nor a folder"
