"""Datasets whose writer was killed: the episodes that can be shown to be complete, from their rows and videos alone.

LeRobot ends the table of rows and writes the table of episodes when it is closed; a recording that is killed leaves
rows without a footer, no table of episodes, and videos that may be cut short.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.lerobot import parquet
from converters.lerobot.entry import EpisodeMeta, VideoPlace
from converters.lerobot.footer import without_footer
from converters.lerobot.info import MAX_INFO_BYTES, Info, inside, read_json
from converters.lerobot.loose_images import loose_place
from converters.lerobot.timelines import timeline
from converters.lerobot.tree import VIDEO_SUFFIXES, Tree
from converters.lerobot.values import integers, numbers
from fwdata.api import Skipped
from fwdata.errors import BadEpisode, UsageError
from fwdata.wording import counted, verb

INSIDE = 0.9
"""Share of values that must lie in the recorded range; a single episode may be newer than the statistics."""

_STATS = "meta/stats.json"
_recovering: ContextVar[bool] = ContextVar("recovering", default=False)
_told: ContextVar[bool] = ContextVar("told", default=False)


@contextmanager
def recovering(on: bool, *, told: bool = False) -> Iterator[None]:
    """Load datasets inside as far as complete episodes can be shown to exist, whatever their metadata lack.

    told: the instruction is given (option task), so that no table of tasks is needed.
    """
    tokens = _recovering.set(on), _told.set(told)
    try:
        yield
    finally:
        _recovering.reset(tokens[0])
        _told.reset(tokens[1])


def is_told() -> bool:
    """Whether the instruction is given, so that no table of tasks is needed."""
    return _told.get()


def is_recovering() -> bool:
    """Whether a `recovering` block is entered."""
    return _recovering.get()


@dataclass(frozen=True)
class Recovered:
    """What was found besides the listed episodes."""

    entries: tuple[EpisodeMeta, ...]
    """Listed and recovered episodes, by index."""
    problems: tuple[Skipped, ...]
    """Episodes with rows that are not complete, each with the reason."""
    warnings: tuple[str, ...]
    """How many were recovered."""


def recover(folder: Path, info: Info, tree: Tree, listed: Sequence[EpisodeMeta]) -> Recovered:
    """Add the episodes that the tables hold and the metadata do not list. Reads two columns of every table."""
    known, read = {entry.index for entry in listed}, {entry.data_file for entry in listed}
    found: dict[int, EpisodeMeta] = {}
    problems: list[Skipped] = []
    for name in tree.tables:
        try:
            rows = _rows(inside(folder, name), name, parquet.columns_of(info))
            _check_order(folder, info, name)
        except (BadEpisode, UsageError) as error:
            if name not in read:  # else reading that episode says so
                problems.append(Skipped(name, str(error)))
            continue
        for index, frames in rows.items():
            if index in known:
                continue
            if not np.array_equal(frames, np.arange(len(frames))):
                problems.append(Skipped(f"{name}#episode_{index:06d}", "its frame_index does not count 0, 1, 2, .."))
                continue
            found.setdefault(index, EpisodeMeta(index, len(frames), (), "", name, {}))
    entries = sorted([*listed, *found.values()], key=lambda entry: entry.index)
    placed = with_loose(folder, info, tree, _placed(folder, info, tree, entries, set(found)))
    count, loose = len(found), sum(any(place.images for place in entry.videos.values()) for entry in placed)
    warnings = (
        [
            f"{counted(count, 'episode')} that the metadata do not list {verb(count, 'was', 'were')} recovered "
            "from the tables"
        ]
        if count
        else []
    )
    if loose:
        apart = "" if loose == len(placed) else "; --video pixels stores them beside those that are video"
        warnings.append(
            f"images of {counted(loose, 'episode')} were not encoded yet, read one by one from images/{apart}"
        )
    return Recovered(tuple(placed), tuple(problems), tuple(warnings))


def _rows(path: Path, name: str, columns: parquet.TableColumns) -> dict[int, NDArray[np.int64]]:
    """Episode -> frame_index of its rows in a table; BadEpisode when it cannot be read."""
    with parquet.open_parquet(path, name, columns) as file:
        keys = ["episode_index", "frame_index"]
        table = parquet.read_columns(file, name, keys, range(file.metadata.num_row_groups))
    episodes, frames = (integers(table, name, key) for key in keys)
    return {int(index): frames[episodes == index] for index in np.unique(episodes)}


def _check_order(folder: Path, info: Info, name: str) -> None:
    """BadEpisode where a table without footer holds values that meta/stats.json has for another column.

    The pages of two columns of one type look alike; their order is that of info.json, unless the values say otherwise.
    Those of the last episode are not looked at where there is another: the statistics may be older.
    """
    path = folder / name
    try:
        stats = read_json(inside(folder, _STATS), _STATS, MAX_INFO_BYTES) if without_footer(path) else None
    except UsageError:
        return
    if not isinstance(stats, dict):
        return
    with parquet.open_parquet(path, name, parquet.columns_of(info)) as file:
        keys = [key for key in info.vectors() if key in stats and key in file.schema_arrow.names]
        table = parquet.read_columns(
            file, name, list(dict.fromkeys(["episode_index", *keys])), range(file.metadata.num_row_groups)
        )
    episodes = integers(table, name, "episode_index")
    looked_at = episodes < episodes.max(initial=0) if np.unique(episodes).size > 1 else np.ones(len(table), np.bool_)
    for key in keys:
        low, high = (_numbers(stats[key], end) for end in ("min", "max"))
        size = info.features[key].size
        if low is None or high is None or not low.size == high.size == size:
            continue
        values = numbers(table, name, key, size)[looked_at]
        room = 1e-6 + 0.01 * (high - low)
        inside_range = float(((values >= low - room) & (values <= high + room)).mean())
        if inside_range < INSIDE:
            raise BadEpisode(
                f"{name}: only {inside_range:.0%} of the values of {key} lie in the range of {_STATS}; its columns "
                "have another order than meta/info.json says"
            )


def _numbers(entry: Any, key: str) -> NDArray[np.float64] | None:
    try:
        return np.asarray(entry[key], np.float64).reshape(-1)
    except (TypeError, ValueError, KeyError):
        return None


def _placed(
    folder: Path, info: Info, tree: Tree, entries: Sequence[EpisodeMeta], recovered: set[int]
) -> list[EpisodeMeta]:
    """The episodes with places of their videos; one whose frames are not all there gets the reason instead."""
    if not info.shared_files:
        return [
            replace(e, videos={key: VideoPlace(info.video_file(key, e.index)) for key in info.videos()})
            if e.index in recovered
            else e
            for e in entries
        ]
    videos: dict[int, dict[str, VideoPlace]] = {entry.index: dict(entry.videos) for entry in entries}
    lacking: dict[int, dict[str, str]] = {index: {} for index in recovered}
    for key in info.videos():
        found, reasons = _tiled(key, entries, recovered, _lengths(folder, key, tree), info.fps)
        for index, place in found.items():
            videos[index][key] = place
        for index, reason in reasons.items():
            lacking[index][key] = reason
    return [replace(e, videos=videos[e.index], lacking=lacking.get(e.index, {})) for e in entries]


def with_loose(folder: Path, info: Info, tree: Tree, entries: Sequence[EpisodeMeta]) -> list[EpisodeMeta]:
    """The episodes with images that were not encoded yet, a file each, or that were not moved to the others' video yet,
    where that has none of them."""
    found = []
    for entry in entries:
        without = [key for key in info.videos() if key not in entry.videos or not tree.holds(entry.videos[key].file)]
        left = {key: loose_place(tree, key, entry) or _own_video(folder, tree, key, entry) for key in without}
        loose = {key: place for key, place in left.items() if place is not None}
        lacking = {key: reason for key, reason in entry.lacking.items() if key not in loose}
        found.append(replace(entry, videos={**entry.videos, **loose}, lacking=lacking) if loose else entry)
    return found


def _own_video(folder: Path, tree: Tree, key: str, entry: EpisodeMeta) -> VideoPlace | None:
    """The video of an episode that lerobot has encoded to a folder of its own, `tmp.../CAMERA_002.mp4`, to append it to
    the shared one, where it has a frame for every row; else None."""
    named = [path for path in tree.by_stem.get(f"{key}_{entry.index:03d}", ()) if path.startswith("tmp")]
    whole = [name for name, frames in _frames(folder, named).items() if frames == entry.length]
    return VideoPlace(whole[0]) if len(whole) == 1 else None


def _lengths(folder: Path, key: str, tree: Tree) -> dict[str, int | str]:
    """Frames of a camera's videos, or why one cannot be read, by file in order."""
    return _frames(folder, sorted(p for p in tree.paths if p.endswith(VIDEO_SUFFIXES) and key in p.split("/")))


def _frames(folder: Path, names: Sequence[str]) -> dict[str, int | str]:
    found: dict[str, int | str] = {}
    for name in names:
        try:
            found[name] = len(timeline(inside(folder, name), name).times)
        except (BadEpisode, UsageError) as error:
            found[name] = str(error)
    return found


def _tiled(
    key: str, entries: Sequence[EpisodeMeta], recovered: set[int], lengths: Mapping[str, int | str], fps: float
) -> tuple[dict[int, VideoPlace], dict[int, str]]:
    """Places of the recovered episodes: each follows the one before, in the same file or at the start of the next.

    Also a sentence for every episode that gets none: the video ends inside of it, or of one before. The lost frames may
    then be those of an episode that has a place, which is unsure.
    """
    files = list(lengths)
    at, frame = 0, 0
    found: dict[int, VideoPlace] = {}
    reasons: dict[int, str] = {}
    for entry in entries:
        if entry.index not in recovered:
            place = entry.videos.get(key)
            if place is not None and place.file in lengths:
                at, frame = files.index(place.file), round((place.start_s or 0.0) * fps) + entry.length
            continue
        while at < len(files) and (frames := lengths[files[at]]) != 0 and isinstance(frames, int) and frame >= frames:
            at, frame = at + 1, 0
        if reasons:
            reasons[entry.index] = (
                f"where images of camera {key} of episode {entry.index} begin is not known, as those of episode "
                f"{next(iter(reasons))} are not all there"
            )
            continue
        none = f"no video of camera {key} holds images of episode {entry.index}: the recording broke off before them"
        frames = lengths[files[at]] if at < len(files) else none
        if isinstance(frames, str):
            reasons[entry.index] = frames
        elif frame + entry.length > frames:
            reasons[entry.index] = (
                f"{files[at]} holds {counted(frames, 'frame')}, {frames - frame} of them behind the episodes "
                "before, episode "
                f"{entry.index} has {counted(entry.length, 'row')}: the video broke off or lost frames"
            )
            found = {index: replace(place, unsure=place.file == files[at]) for index, place in found.items()}
        else:
            found[entry.index] = VideoPlace(files[at], frame / fps)
            frame += entry.length
    if not reasons:
        for index in [index for index, place in found.items() if place.file == files[-1]][:-1]:
            found[index] = replace(found[index], followed=True)
    return found, reasons
