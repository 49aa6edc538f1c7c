"""Shared videos (v3.0) whose places in the metadata are stale or null: found again by their numbers of frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from converters.lerobot.entry import EpisodeMeta, VideoPlace
from converters.lerobot.info import inside
from converters.lerobot.timelines import timeline
from converters.lerobot.tree import Tree, is_video
from fwdata.errors import BadEpisode, UsageError
from fwdata.wording import counted


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
        there = _files(key, tree)
        rows = [sum(entry.length for entry in run) for run in runs]
        if len(there) != len(runs) or _frames(folder, there) != rows:
            continue
        moved = [(run, said, found) for run, said, found in zip(runs, named, there, strict=True) if said != found]
        files |= {(entry.index, key): found for run, _, found in moved for entry in run}
        run, said, found = moved[0]
        count = sum(len(run) for run, _, _ in moved)
        told.append(
            f"videos of camera {key} of {counted(count, 'episode')} are not those that the metadata name, and were "
            f"found by their numbers of frames (episode {run[0].index}: {found} instead of {said})"
        )
    return [_with(entry, files) for entry in entries], told


def placed_by_frames(
    folder: Path, keys: Iterable[str], entries: Sequence[EpisodeMeta], tree: Tree, fps: float
) -> tuple[list[EpisodeMeta], list[str]]:
    """The episodes with the places of videos that are null in the metadata, and a sentence for every such camera.

    A camera's files in order must have exactly the frames of all episodes in order, each episode in one file, and the
    places that are known must be those; else all is left as it is.
    """
    placed = {entry.index: dict(entry.videos) for entry in entries}
    told = []
    for key in keys:
        without = [entry.index for entry in entries if key not in entry.videos and key not in entry.lacking]
        files = _files(key, tree) if without and len(placed) == len(entries) else []
        found = _tiled(key, entries, dict(zip(files, _frames(folder, files), strict=True)), fps) if files else {}
        if not found:
            continue
        for index in without:
            placed[index][key] = found[index]
        told.append(
            f"the metadata give no place of camera {key} for {counted(len(without), 'episode')}; its videos "
            "have exactly the "
            f"frames of all episodes in order, and so were placed (episode {without[0]}: {found[without[0]].file})"
        )
    return [replace(entry, videos=placed[entry.index]) if told else entry for entry in entries], told


def _files(key: str, tree: Tree) -> list[str]:
    """The videos of a camera, in order."""
    return sorted(p for p in tree.paths if is_video(p) and key in p.split("/"))


def _tiled(key: str, entries: Sequence[EpisodeMeta], frames: dict[str, int], fps: float) -> dict[int, VideoPlace]:
    """Episode -> its place, where the episodes fill the files exactly and no known place differs; else {}."""
    places, left = {}, list(frames.items())
    at = 0
    for entry in sorted(entries, key=lambda entry: entry.index):
        if not left or at + entry.length > left[0][1]:
            return {}
        name, count = left[0]
        known = entry.videos.get(key)
        if known is not None and (known.file != name or round((known.start_s or 0.0) * fps) != at):
            return {}
        places[entry.index] = VideoPlace(name, at / fps, (at + entry.length) / fps)
        at += entry.length
        if at == count:
            left, at = left[1:], 0
    return {} if left else places


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
            found.append(len(timeline(inside(folder, name), name).times))
        except (BadEpisode, UsageError):
            found.append(-1)
    return found


def _with(entry: EpisodeMeta, files: dict[tuple[int, str], str]) -> EpisodeMeta:
    videos = {
        key: replace(place, file=files.get((entry.index, key), place.file)) for key, place in entry.videos.items()
    }
    return replace(entry, videos=videos)
