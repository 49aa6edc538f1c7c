"""Tasks and episodes of a LeRobot dataset: JSON lines in v2.x, parquet tables in v3.0."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import ENOENT
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG
from typing import Any, TypeGuard

from converters.lerobot import hub
from converters.lerobot.entry import BAD, GOOD, said_failed
from converters.lerobot.entry import EpisodeMeta as EpisodeMeta
from converters.lerobot.entry import VideoPlace as VideoPlace
from converters.lerobot.info import INFO, Info, counted, inside, read_info
from converters.lerobot.json_lines import json_lines
from converters.lerobot.parquet import (
    OR_RECOVER,
    Span,
    TableColumns,
    columns_of,
    find_rows,
    open_parquet,
    read_columns,
)
from converters.lerobot.recover import is_recovering, is_told, recover
from converters.lerobot.shared_video import Slot, rate_of_places, slots_of
from converters.lerobot.survey import is_agreed, survey
from converters.lerobot.tree import Tree, tree_of
from fwdata.api import Skipped
from fwdata.errors import BadEpisode, UsageError

MAX_META_BYTES = 1 << 30
MAX_EPISODES = 5_000_000
_EPISODES_V2 = "meta/episodes.jsonl"
_TASKS = {True: "meta/tasks.parquet", False: "meta/tasks.jsonl"}


@dataclass(frozen=True)
class Dataset:
    """One dataset folder, corrected by its files (see `converters.lerobot.survey`)."""

    folder: Path
    """The dataset's folder."""
    info: Info
    """What info.json says."""
    tasks: Mapping[int, str]
    """Text by task_index."""
    episodes: Mapping[int, EpisodeMeta]
    """Usable episodes by index."""
    problems: tuple[Skipped, ...]
    """Episodes that were left out, each with its reason."""
    warnings: tuple[str, ...]
    """Sentences about metadata that disagree with each other or with the files."""
    stamp: int
    """Changes whenever a metadata file changes; key of what is kept in memory about the dataset."""
    shared: Mapping[tuple[str, str], tuple[Slot, ...]]
    """Episodes that share a video (v3.0), by (feature key, file), in order of their first frames; {} before v3.0."""
    ambiguous: Mapping[int, str]
    """Episodes whose rows are in several tables, so that none can be taken -> a sentence that names them."""
    columns: TableColumns | None = None
    """Columns of tables whose Parquet footer is missing (option recover); None: every file has its footer."""
    unlisted: tuple[str, ...] = ()
    """See `DatasetSurvey.unlisted`."""
    video_hz: float = 0.0
    """Frames per second that places in shared videos are counted with, see `rate_of_places`; else the label."""

    def path(self, name: str) -> Path:
        """A file of the dataset; BadEpisode where a link leads out of it."""
        try:
            return inside(self.folder, name)
        except UsageError as error:
            raise BadEpisode(str(error)) from None

    def span(self, entry: EpisodeMeta) -> Span:
        """Where an episode's rows are; BadEpisode as of `find_rows`."""
        path, shared = self.path(entry.data_file), self.info.shared_files
        return find_rows(path, entry.data_file, entry.index, entry.length, shared, self.columns)


def load_dataset(folder: Path) -> Dataset:
    """Metadata of a dataset folder, kept until one of its files changes.

    Raises UsageError naming the file when they cannot be read at all. Cost: some 10 us per episode.
    """
    info, tree = read_info(folder), tree_of(folder)
    stamps = tuple(_stamps(folder, info))
    tables = _table_stamps(folder, info, tree)
    return _load(folder, info.version, stamps, tree, tables, (is_recovering(), is_agreed(), is_told()))


def corrected_info(folder: Path) -> Info:
    """info.json as the dataset's files correct it, or alone where other metadata cannot be read. UsageError for it."""
    info = read_info(folder)
    try:
        return load_dataset(folder).info
    except UsageError:
        return info


def _table_stamps(folder: Path, info: Info, tree: Tree) -> tuple[tuple[int, int], ...]:
    """When the tables that the survey reads were changed: all in v3.0, the first and the last in v2.x."""
    found = []
    for name in tree.tables if info.shared_files else (*tree.tables[:1], *tree.tables[-1:]):
        try:
            status = inside(folder, name).stat()
        except (OSError, UsageError):
            continue
        found.append((status.st_mtime_ns, status.st_size))
    return tuple(found)


def _stamps(folder: Path, info: Info) -> Iterator[tuple[str, int, int]]:
    names = [INFO, _TASKS[info.shared_files]]
    if info.shared_files:
        names += [p.relative_to(folder).as_posix() for p in sorted((folder / "meta/episodes").glob("*/*.parquet"))]
    else:
        names.append(_EPISODES_V2)
    for name in names:
        try:
            status = inside(folder, name).stat()
        except OSError as error:
            if (is_recovering() and name != INFO) or (is_told() and name in _TASKS.values()):
                continue
            if error.errno == ENOENT:
                raise UsageError(_absent(folder, name)) from None
            raise UsageError(f"{name} cannot be read: {error.strerror}") from None
        if not S_ISREG(status.st_mode):
            raise UsageError(f"{name} cannot be read: it is not a regular file")
        if status.st_size > MAX_META_BYTES:
            raise UsageError(f"{name} holds {status.st_size >> 20} MiB, at most {MAX_META_BYTES >> 20} MiB are read")
        yield name, status.st_mtime_ns, status.st_size


def _absent(folder: Path, name: str) -> str:
    """What to do about a file of metadata that is not there."""
    fetch = f"fetch it: {hub.fetch_command(folder)}"
    killed = "" if name == INFO else ", or add --recover where the recording was killed"
    lost = "instruction" if name in _TASKS.values() else "episode"
    killed += ", or give the instruction with --task" if name in _TASKS.values() else ""
    return f"{name} is missing, without which no {lost} is known: the download is incomplete; {fetch}{killed}"


@lru_cache(maxsize=64)
def _load(
    folder: Path,
    version: str,
    stamps: tuple[tuple[str, int, int], ...],
    tree: Tree,
    tables: tuple[tuple[int, int], ...],
    modes: tuple[bool, bool, bool],
) -> Dataset:
    """Kept by what it depends on. modes: `is_recovering`, `is_agreed`, `is_told`."""
    recovering, *_ = modes
    info = read_info(folder)
    files = [name for name, _, _ in stamps]
    problems, warnings = list[Skipped](), list[str]()
    columns = columns_of(info) if recovering else None
    if recovering:
        tasks, entries = _what_is_left(folder, info, tree, files, problems, warnings)
        extra = recover(folder, info, tree, entries)
        entries = list(extra.entries)
        problems += extra.problems
        warnings += extra.warnings
    else:
        try:
            tasks, entries = _listed(folder, info, tree, files, problems, warnings)
        except BadEpisode as error:
            raise UsageError(str(error)) from None
    found = survey(folder, info, tree, entries, columns)
    episodes = _by_index(found.entries, problems)
    warnings += [*_totals(info, entries), *found.warnings]
    video_hz = rate_of_places(tuple(episodes.values()), found.info.fps) if info.shared_files else found.info.fps
    shared = slots_of(episodes.values(), video_hz) if info.shared_files else {}
    stamp = hash((stamps, tables, recovering))
    return Dataset(
        folder,
        found.info,
        tasks,
        episodes,
        tuple(problems),
        tuple(warnings),
        stamp,
        shared,
        found.ambiguous,
        columns,
        found.unlisted,
        video_hz,
    )


def _listed(
    folder: Path, info: Info, tree: Tree, files: Sequence[str], problems: list[Skipped], warnings: list[str]
) -> tuple[dict[int, str], list[EpisodeMeta]]:
    """Tasks and episodes of the metadata; BadEpisode or UsageError when they cannot be read."""
    without = is_told() and not (folder / _TASKS[info.shared_files]).exists()
    if info.shared_files:
        listed = [name for name in files if name.startswith("meta/episodes/")]
        return {} if without else _tasks_v3(folder), list(_episodes_v3(folder, info, listed, problems))
    return {} if without else _tasks_v2(folder, warnings), list(_episodes_v2(folder, info, tree, problems))


def _what_is_left(
    folder: Path, info: Info, tree: Tree, files: Sequence[str], problems: list[Skipped], warnings: list[str]
) -> tuple[dict[int, str], list[EpisodeMeta]]:
    """The same of a dataset whose writer was killed: what cannot be read is reported and taken from the rows."""
    tasks: dict[int, str] = {}
    entries: list[EpisodeMeta] = []
    try:
        tasks = _tasks_v3(folder) if info.shared_files else _tasks_v2(folder, warnings)
    except (BadEpisode, UsageError, OSError) as error:
        reason = error if (folder / _TASKS[info.shared_files]).exists() else f"{_TASKS[info.shared_files]} is missing"
        told = str(reason).replace(OR_RECOVER, "")
        warnings.append(f"{told}; instructions are those that the metadata list by episode, or option task's")
    try:
        if info.shared_files:
            for name in [name for name in files if name.startswith("meta/episodes/")]:
                entries += list(_episodes_v3(folder, info, [name], problems))
        else:
            entries = list(_episodes_v2(folder, info, tree, problems))
    except (BadEpisode, UsageError, OSError) as error:
        lost = not info.shared_files and not (folder / _EPISODES_V2).exists()
        told = f"{_EPISODES_V2} is missing" if lost else str(error).replace(OR_RECOVER, "")
        warnings.append(f"{told}; its episodes are looked for in the tables")
    return tasks, entries


def _by_index(entries: Iterable[EpisodeMeta], problems: list[Skipped]) -> dict[int, EpisodeMeta]:
    found: dict[int, EpisodeMeta] = {}
    for entry in entries:
        if entry.index in found:
            problems.append(
                Skipped(f"episode {entry.index}", "the metadata list this episode twice; the first is kept")
            )
        found.setdefault(entry.index, entry)
    return dict(sorted(found.items()))


def _totals(info: Info, entries: list[EpisodeMeta]) -> tuple[str, ...]:
    frames = sum(entry.length for entry in entries)
    warnings = []
    for what, stated, found in (
        ("episodes", info.total_episodes, len(entries)),
        ("frames", info.total_frames, frames),
    ):
        if stated is not None and stated != found:
            warnings.append(f"{INFO} says {stated} {what}, the metadata list {found}")
    return tuple(warnings)


def _tasks_v2(folder: Path, warnings: list[str]) -> dict[int, str]:
    name, tasks = _TASKS[False], dict[int, str]()
    for number, found in json_lines(folder / name, name):
        reason = found if isinstance(found, str) else _add_task(tasks, found.get("task_index"), found.get("task"))
        if reason:
            warnings.append(f"{name} line {number} is left out: {reason}")
    return tasks


def _add_task(tasks: dict[int, str], index: object, text: object) -> str | None:
    """Register a task; returns what is wrong with it."""
    index = counted(index)
    if not _whole(index) or not isinstance(text, str):
        return f"expected task_index and task, found {index!r} and {str(text)[:40]!r}"
    if tasks.setdefault(index, text) != text:
        return f"task_index {index} has two texts, {tasks[index][:40]!r} is kept"
    return None


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


def _episodes_v2(folder: Path, info: Info, tree: Tree, problems: list[Skipped]) -> Iterator[EpisodeMeta]:
    name, video_keys = _EPISODES_V2, info.videos()
    if not (folder / name).stat().st_size:
        raise UsageError(f"{name} is empty (0 bytes){OR_RECOVER}")
    for number, found in json_lines(folder / name, name):
        if number > MAX_EPISODES:
            raise UsageError(f"{name} lists more than {MAX_EPISODES} episodes")
        where = f"{name} line {number}"
        if isinstance(found, str):
            problems.append(Skipped(where, found))
            continue
        index, length, tasks = counted(found.get("episode_index")), counted(found.get("length")), found.get("tasks")
        length = _rows_of(folder, info.data_file(index), tree) if _whole(index) and length is None else length
        if not _whole(index) or not _whole(length):
            told = f"None; {length}" if found.get("length") is None and length else repr(length)
            problems.append(Skipped(where, f"expected episode_index and length, found {index!r} and {told}"))
            continue
        yield EpisodeMeta(
            index,
            length,
            _texts(tasks),
            str(found.get("raw_file_name") or ""),
            info.data_file(index),
            {key: VideoPlace(info.video_file(key, index)) for key in video_keys},
            said_failed(found, _texts(tasks)),
        )


def _rows_of(folder: Path, name: str, tree: Tree) -> int | str:
    """Rows of a table of one episode whose metadata do not say them, wherever it lies; why it cannot be read."""
    places = [name] if (folder / name).is_file() else [n for n in tree.tables if n.endswith("/" + Path(name).name)]
    if len(places) != 1:
        return f"{name} is missing, or there twice"
    try:
        with open_parquet(inside(folder, places[0]), places[0]) as file:
            return int(file.metadata.num_rows)
    except (BadEpisode, UsageError) as error:
        return str(error)


def _texts(found: object) -> tuple[str, ...]:
    return tuple(item for item in (found if isinstance(found, list) else [found]) if isinstance(item, str))


def _tasks_v3(folder: Path) -> dict[int, str]:
    """The text is a column, or the table's pandas index, whose column may have lost its name."""
    name = _TASKS[True]
    with open_parquet(folder / name, name) as file:
        columns = [c for c in ("task", "__index_level_0__") if c in file.schema_arrow.names]
        if not columns:
            raise UsageError(f"{name} has no column 'task', found {', '.join(file.schema_arrow.names)}")
        table = read_columns(file, name, ["task_index", columns[0]], range(file.metadata.num_row_groups))
        indices, texts = (column.to_pylist() for column in table.columns)
    tasks: dict[int, str] = {}
    for index, text in zip(indices, texts, strict=True):
        reason = _add_task(tasks, index, text)
        if reason:
            raise UsageError(f"{name}: {reason}")
    return tasks


def _episodes_v3(folder: Path, info: Info, files: Sequence[str], problems: list[Skipped]) -> Iterator[EpisodeMeta]:
    if not files:
        raise UsageError(
            "meta/episodes holds no parquet file: the download is incomplete, or the recording was killed; fetch it: "
            f"{hub.fetch_command(folder)}, or add --recover"
        )
    video_keys = info.videos()
    for name in files:
        keys, optional = ["episode_index"], ["length", *_RANGE, "data/chunk_index", "data/file_index", "tasks"]
        optional += ["raw_file_name", *sorted(GOOD | BAD)]
        for video in video_keys:
            optional += [f"videos/{video}/{field}" for field in _PLACE]
        with open_parquet(folder / name, name) as file:
            there = set(file.schema_arrow.names)
            keys += [key for key in optional if key in there]
            listed, stated = file.metadata.num_rows, info.total_episodes
            if listed > (MAX_EPISODES if stated is None else 2 * stated + 1000):
                raise UsageError(f"{name} lists {listed} episodes, {INFO} says {stated}; download it again")
            table = read_columns(file, name, keys, range(file.metadata.num_row_groups))
        for start in range(0, len(table), 1000):
            for row in table.slice(start, 1000).to_pylist():
                entry = _entry_v3(info, row, video_keys)
                if isinstance(entry, str):
                    problems.append(Skipped(f"{name} episode {row['episode_index']!r}", entry))
                else:
                    yield entry


_PLACE = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
_OR_FROM_ROWS = "; --recover takes it from the rows"
_RANGE = ("dataset_from_index", "dataset_to_index")
"""First row of an episode in the dataset, and the one behind its last."""


def _entry_v3(info: Info, row: Mapping[str, Any], video_keys: Iterable[str]) -> EpisodeMeta | str:
    """An episode, or what is wrong with it. A camera whose place is null or missing is not in it."""
    row = {key: value if key.endswith("timestamp") else counted(value) for key, value in row.items()}
    index, length = row["episode_index"], row.get("length")
    first, behind = (row.get(key) for key in _RANGE)
    if length is None and _whole(first) and _whole(behind):
        length = behind - first
    if not _whole(index) or not _whole(length):
        return (
            f"expected episode_index and length, found {index!r} and {length!r}{_OR_FROM_ROWS if _whole(index) else ''}"
        )
    videos = {}
    for key in video_keys:
        chunk, number, start, stop = (row.get(f"videos/{key}/{field}") for field in _PLACE)
        if chunk is None or number is None or start is None:
            continue
        if not (_whole(chunk) and _whole(number) and _seconds(start)):
            return (
                f"camera {key}: expected chunk_index, file_index and from_timestamp, found {chunk}, {number}, {start}"
            )
        end = float(stop) if _seconds(stop) else None
        videos[key] = VideoPlace(info.video_file(key, index, chunk, number), max(0.0, float(start)), end)
    chunk, number = row.get("data/chunk_index"), row.get("data/file_index")
    data = info.data_file(index, chunk if _whole(chunk) else 0, number if _whole(number) else 0)
    tasks, raw = _texts(row.get("tasks")), str(row.get("raw_file_name") or "")
    return EpisodeMeta(index, length, tasks, raw, data, videos, said_failed(row, tasks))


def _seconds(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e-3 <= value < 1e9
