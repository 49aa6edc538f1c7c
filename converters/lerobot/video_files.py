"""Shared videos (v3.0) whose numbers in the metadata are stale: found again by their numbers of frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from converters.lerobot import video
from converters.lerobot.entry import EpisodeMeta
from converters.lerobot.info import inside
from converters.lerobot.tree import Tree, is_video
from fwdata.errors import BadEpisode, UsageError


def by_frames(
    folder: Path, keys: Iterable[str], entries: Sequence[EpisodeMeta], tree: Tree
) -> tuple[list[EpisodeMeta], list[str]]:
    """The episodes with the videos that have their frames, and a sentence for every camera that was corrected.

    Where a camera's episodes name a file that is not there, or two runs of them the start of one file, its files in
    order must have as many frames as the runs have rows; else all is left as it is.
    """
    files: dict[tuple[int, str], str] = {}
    told = []
    for key in keys:
        runs = _runs(key, entries)
        named = [run[0].videos[key].file for run in runs]
        if len(set(named)) == len(named) and all(map(tree.holds, named)):
            continue
        there = sorted(p for p in tree.paths if is_video(p) and key in p.split("/"))
        rows = [sum(entry.length for entry in run) for run in runs]
        if len(there) != len(runs) or _frames(folder, there) != rows:
            continue
        moved = [(run, said, found) for run, said, found in zip(runs, named, there, strict=True) if said != found]
        files |= {(entry.index, key): found for run, _, found in moved for entry in run}
        run, said, found = moved[0]
        count = sum(len(run) for run, _, _ in moved)
        told.append(
            f"videos of camera {key} of {count} episodes are not those that the metadata name, and were "
            f"found by their numbers of frames (episode {run[0].index}: {found} instead of {said})"
        )
    return [_with(entry, files) for entry in entries], told


def _runs(key: str, entries: Sequence[EpisodeMeta]) -> list[list[EpisodeMeta]]:
    """Episodes, by index, that follow each other in one file of a camera."""
    runs: list[list[EpisodeMeta]] = []
    last = ("", 0.0)
    for entry in sorted(entries, key=lambda entry: entry.index):
        place = entry.videos.get(key)
        if place is None or place.start_s is None:
            continue
        if place.file != last[0] or place.start_s < last[1]:
            runs.append([])
        runs[-1].append(entry)
        last = (place.file, place.start_s)
    return runs


def _frames(folder: Path, names: Sequence[str]) -> list[int]:
    """Frames of each file, -1 where it cannot be read."""
    found = []
    for name in names:
        try:
            found.append(len(video.timeline(inside(folder, name), name).times))
        except (BadEpisode, UsageError):
            found.append(-1)
    return found


def _with(entry: EpisodeMeta, files: dict[tuple[int, str], str]) -> EpisodeMeta:
    videos = {
        key: replace(place, file=files.get((entry.index, key), place.file)) for key, place in entry.videos.items()
    }
    return replace(entry, videos=videos)
