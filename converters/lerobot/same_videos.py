"""Episodes whose video files are one and the same file, byte for byte: all but one show the images of another episode.

Left by uploads and copies that went wrong. Videos that stand still are alike for a good reason and are not looked at,
and neither are episodes that are there twice, rows and all, or that are in other places of alike files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.lerobot import parquet, video
from converters.lerobot.entry import EpisodeMeta
from converters.lerobot.meta import Dataset
from converters.lerobot.timelines import timeline
from fwdata.errors import BadEpisode

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

STILL = 1.0
"""Grey levels, mean over the image, that a video changes at most from its first to its last frame."""


def shown_twice(dataset: Dataset, cameras: Iterable[str]) -> dict[int, str]:
    """Episodes whose video is that of others -> a sentence about both. Cost: a look at every file's size; files of
    equal size are read.
    """
    found: dict[int, str] = {}
    for key in cameras:
        episodes: dict[str, list[EpisodeMeta]] = {}
        for entry in dataset.episodes.values():
            if key in entry.videos and not entry.videos[key].images:
                episodes.setdefault(entry.videos[key].file, []).append(entry)
        for names in _alike(dataset, {n: sum(e.length for e in held) for n, held in episodes.items()}):
            holders = [entry for name in names for entry in episodes[name]]
            if _apart(holders, key, dataset.video_hz):
                continue
            if _is_still(dataset, names[0], holders[0].length) or _same_rows(dataset, [episodes[n][0] for n in names]):
                continue
            numbers = [str(entry.index) for name in names for entry in episodes[name][:1]]
            sentence = (
                f"{' and '.join(names[:2])} are the same file, byte for byte, but episodes {', '.join(numbers)} have "
                "other rows: all but one of them would get another's images, and nothing tells which; fetch the videos "
                "again, or leave the episodes out"
            )
            for entry in holders:
                found.setdefault(entry.index, sentence)
    return found


def _apart(entries: Iterable[EpisodeMeta], key: str, fps: float) -> bool:
    """Whether episodes of alike files are in other places of them, so that none has another's images: what was exported
    as kept begins at a keyframe, which may be that of two episodes."""
    places = sorted((round((entry.videos[key].start_s or 0) * fps), entry.length) for entry in entries)
    return all(first + length <= after for (first, length), (after, _) in pairwise(places))


def _alike(dataset: Dataset, rows: Mapping[str, int]) -> list[list[str]]:
    """Groups of files of equal content; rows: file -> rows that it is for, as another count tells by itself."""
    sizes: dict[tuple[int, int], list[str]] = {}
    for name, count in rows.items():
        try:
            sizes.setdefault((dataset.path(name).stat().st_size, count), []).append(name)
        except (BadEpisode, OSError):
            continue  # said where the episode's files are looked for
    groups: dict[tuple[str, int], list[str]] = {}
    for (size, count), same in sizes.items():
        for name in same if size and len(same) > 1 else ():
            path = dataset.path(name)
            groups.setdefault((_digest(path, path.stat().st_mtime_ns, size), count), []).append(name)
    return [same for same in groups.values() if len(same) > 1]


@lru_cache(maxsize=4096)
def _digest(path: Path, mtime_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_still(dataset: Dataset, name: str, rows: int) -> bool:
    """Whether a video's first and last frames are alike, or cannot be seen."""
    path = dataset.path(name)
    try:
        last = min(rows, len(timeline(path, name).times)) - 1
        first, *others = (np.asarray(frame.to_ndarray(format="gray"), np.int16) for frame in _frames(path, name, last))
    except (BadEpisode, ValueError):
        return True
    return all(float(np.abs(first - other).mean()) <= STILL for other in others)


def _frames(path: Path, name: str, last: int) -> list[VideoFrame]:
    return [next(video.decode(video.VideoPixels(path, name, np.array([rank])))) for rank in (0, last // 2, last)]


def _same_rows(dataset: Dataset, entries: Sequence[EpisodeMeta]) -> bool:
    """Whether episodes have equal rows; also where one cannot be read, which is said elsewhere."""
    try:
        first, *others = (dataset.span(entry) for entry in entries)
        return all(parquet.alike(first, other, ("index", "episode_index")) for other in others)
    except BadEpisode:
        return True
