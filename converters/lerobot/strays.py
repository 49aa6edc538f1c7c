"""Videos that no listed episode has: they may show that the files count otherwise than the episodes.

A video names its episode by its file name alone. Where files count from 1, or an episode was removed and only tables
were numbered again, every episode has a video, of another one; where all are of one length, nothing else tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from converters.lerobot.meta import Dataset
from converters.lerobot.numbered import number_of
from converters.lerobot.timelines import timeline
from converters.lerobot.tree import is_video, tree_of
from fwdata.api import LeftOut
from fwdata.errors import BadEpisode

TELLING = 3
"""Different lengths of episodes from which their numbers of frames tell that videos are their own."""

NUMBERED = "videos that are numbered otherwise"
"""Kind of reason for which episodes are left out."""

_UNLISTED = "videos that the metadata do not list"


def numbered_otherwise(dataset: Dataset, cameras: Iterable[str]) -> dict[int, str]:
    """Episodes whose videos are numbered one off, as from 1 -> a sentence; none where numbers of frames tell that they
    are right. Cost: a look at the names of all files; where some are over, a pass over the packets of the videos."""
    found: dict[int, str] = {}
    for key, extra in _strays(dataset, cameras).items():
        files = _files(dataset, key)
        there = {index for index, name in files.items() if tree_of(dataset.folder).holds(name)}
        numbers = there | extra.keys()
        if not numbers:
            continue
        shift = min(numbers) - min(files)
        if abs(shift) != 1 or numbers != {index + shift for index in files} or _by_frames(dataset, key):
            continue
        sentence = (
            f"the videos of camera {key} are numbered {min(numbers)} to {max(numbers)}, the episodes {min(files)} to "
            f"{max(files)}, and their numbers of frames do not show which belong together, so that all could be those "
            f"of the {'next' if shift < 0 else 'previous'} episode; give the files the numbers of their episodes, or "
            "leave the camera out"
        )
        for index in files:
            found.setdefault(index, sentence)
    return found


def unlisted_videos(dataset: Dataset, place: str, cameras: Iterable[str]) -> tuple[LeftOut, ...]:
    """What to say about videos that the metadata do not list; those of tables that are not listed either are theirs.

    place: path of the dataset below the root, with its "/", or "".
    """
    found = {key: extra for key, extra in _strays(dataset, cameras).items() if extra}
    names = tuple(f"{place}{name}" for extra in found.values() for name in extra.values())
    if not names:
        return ()
    told = dataset.info.shared_files or all(_by_frames(dataset, key) for key in found)
    doubt = "" if told else "; where an episode was removed and the others were numbered again, images are another's"
    return (LeftOut(f"{_UNLISTED}{doubt}", len(names), names[:2]),)


def _files(dataset: Dataset, key: str) -> dict[int, str]:
    """Episode -> its video, by the metadata."""
    return {entry.index: entry.videos[key].file for entry in dataset.episodes.values() if key in entry.videos}


def _strays(dataset: Dataset, cameras: Iterable[str]) -> dict[str, dict[int, str]]:
    """Camera -> number -> video beside its own and called like them, that no episode has."""
    every = {place.file for entry in dataset.episodes.values() for place in entry.videos.values()}
    tables = {int(name.rpartition("_")[2]) for name in dataset.unlisted}
    tree = tree_of(dataset.folder)
    found: dict[str, dict[int, str]] = {}
    for key in cameras:
        own = {_form(name) for name in _files(dataset, key).values() if tree.holds(name)}
        others = {name: number_of(name) for name in tree.paths - every if is_video(name) and _form(name) in own}
        shared = dataset.info.shared_files
        extra = {n: name for name, n in sorted(others.items()) if n is not None and not (tables and shared)}
        found[key] = {n: name for n, name in extra.items() if shared or n not in tables}
    return found


def _form(name: str) -> tuple[str, str]:
    """What the videos of a camera have in common: their folder, and their name without its number."""
    path = PurePosixPath(name)
    return path.parent.as_posix(), re.sub(r"[0-9]+(?=[^0-9]*$)", "#", path.stem)


def _by_frames(dataset: Dataset, key: str) -> bool:
    """Whether the numbers of frames tell that each video is that of its episode."""
    lengths: Mapping[int, int] = {entry.index: entry.length for entry in dataset.episodes.values()}
    counted = set[int]()
    for index, name in _files(dataset, key).items():
        if not tree_of(dataset.folder).holds(name):
            continue
        try:
            frames = len(timeline(dataset.path(name), name).times)
        except BadEpisode:
            continue
        if frames != lengths[index]:
            return False
        counted.add(frames)
    return len(counted) >= TELLING
