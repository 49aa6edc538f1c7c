"""Files that are named otherwise than the path patterns of meta/info.json say: found by the numbers in their names.

Taken only where none of a kind is under its own name, every episode has exactly one file of its number and no file is
over: counting from 1 would show every episode another's images.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from converters.lerobot.entry import EpisodeMeta
from converters.lerobot.tree import Tree, is_video

_NUMBER = re.compile(r"([0-9]+)[^0-9]*$")


def numbered_tables(entries: Sequence[EpisodeMeta], tree: Tree) -> dict[int, str]:
    """Episode -> its table; {} where the metadata's patterns fit or the numbers do not tell."""
    if any(tree.holds(entry.data_file) for entry in entries):
        return {}
    return _one_each(entries, tree.tables)


def numbered_videos(entries: Sequence[EpisodeMeta], keys: Sequence[str], tree: Tree) -> dict[tuple[int, str], str]:
    """(Episode, camera) -> its video, of the cameras of which no file is where the metadata say."""
    found: dict[tuple[int, str], str] = {}
    there = [path for path in tree.paths if is_video(path)]
    for key in keys:
        if any(key in e.videos and tree.holds(e.videos[key].file) for e in entries):
            continue
        own = there if len(keys) == 1 else _of_camera(key, keys, there)
        found |= {(index, key): path for index, path in _one_each(entries, own).items()}
    return found


def _of_camera(key: str, keys: Sequence[str], paths: Sequence[str]) -> list[str]:
    """The videos that a camera's whole or short name is in, where no other camera's is."""
    for names in (keys, [k.rpartition(".")[2] for k in keys]):
        name, others = names[keys.index(key)], [n for n, k in zip(names, keys, strict=True) if k != key]
        longer = [n for n in others if name in n]  # "wrist" is in "left_wrist" too
        found = [path for path in paths if name in path and not any(n in path for n in longer)]
        if found:
            return found
    return []


def _one_each(entries: Sequence[EpisodeMeta], paths: Iterable[str]) -> dict[int, str]:
    found: dict[int, str] = {}
    for path in paths:
        number = number_of(path)
        if number is None or number in found:
            return {}
        found[number] = path
    return found if found.keys() == {entry.index for entry in entries} else {}


def number_of(path: str) -> int | None:
    """The last number in the name of a file; None where there is none."""
    match = _NUMBER.search(PurePosixPath(path).stem)
    return None if match is None else int(match[1])
