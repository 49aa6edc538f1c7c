"""Rows of parquet files: located by episode, read a few row groups at a time, sizes checked before they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.footer import with_footer, without_footer
from converters.lerobot.info import Info
from converters.lerobot.values import integers, numbers_in
from converters.shared.content import not_content
from fwdata.api import BadEpisode, opening
from fwdata.errors import FwdataError
from fwdata.wording import counted

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_FILE_ROWS = 20_000_000
MAX_EPISODE_ROWS = 1_000_000
MAX_BYTES = 1 << 30
"""Bytes of the columns of one read. Counted while reading: the file's own index is not asked, because pyarrow ends
the process on some damaged ones. A single batch that expands to more ends at the reader's bound of memory."""

MAX_IMAGE_BYTES = 64 << 20
BATCH_ROWS = 32
BATCH_NUMBERS = 8192


@dataclass(frozen=True)
class Span:
    """Rows of one episode in a Parquet file."""

    path: Path
    """The file."""
    name: str
    """How messages call it: relative to the dataset, POSIX."""
    start: int
    """First row."""
    count: int
    """Number of rows."""
    columns: TableColumns | None = None
    """Columns of a file without a footer (option recover); None: the footer describes them."""
    places: NDArray[np.int64] | None = field(default=None, compare=False)
    """int64 [count], rows of the file in the order of frame_index (else index), where they lie otherwise; None: in one
    run."""

    @property
    def stop(self) -> int:
        """The row behind the last one."""
        return self.start + self.count if self.places is None else int(self.places.max()) + 1


type TableColumns = tuple[tuple[str, str, tuple[int, ...]], ...]
"""(key, dtype, shape) of a table's columns in order, for files whose footer is missing; None: they are an error."""


def columns_of(info: Info) -> TableColumns:
    """The columns of a dataset's tables, as LeRobot orders them: those of info.json but the videos."""
    return tuple((f.key, f.dtype, f.shape) for f in info.features.values() if f.dtype != "video")


OR_RECOVER = "; download it again, or add --recover, which reads the complete episodes of a recording that was killed"
"""What to do about a file without a footer."""


@contextmanager
def open_parquet(path: Path, name: str, columns: TableColumns | None = None) -> Iterator[pq.ParquetFile]:
    """Open a parquet file; every failure of reading it but MemoryError becomes a BadEpisode that names the file.

    columns: read a file without footer as far as its row groups are whole; it is held in memory.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    torn = False
    try:
        reason = not_content(path, name)
        if reason is not None:
            raise BadEpisode(reason)
        torn = without_footer(path)
        if torn and columns is None:
            raise BadEpisode(
                f"{name} cannot be read: it has no Parquet footer, so its writer was killed or the download broke off"
                f"{OR_RECOVER}"
            )
        source = with_footer(path, columns) if torn and columns else path
        # without pre_buffer, which hands the reading of a local file to another thread and waits for it
        with opening(path), pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False) as file:
            if file.metadata.num_rows > MAX_FILE_ROWS:
                raise BadEpisode(f"{name} claims {file.metadata.num_rows} rows, at most {MAX_FILE_ROWS} are read")
            yield file
    except (FwdataError, MemoryError):
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".") or type(error).__name__
        fault = "(truncated, damaged, or not a table)"
        if torn:
            fault = "without its footer; meta/info.json may list its columns in another order, or it is damaged"
        raise BadEpisode(
            f"{name} cannot be read as parquet {fault}: {reason}; download it again, or leave its episodes out"
        ) from error


def read_columns(file: pq.ParquetFile, name: str, keys: Sequence[str], groups: Sequence[int]) -> pa.Table:
    """Exactly these columns of some row groups. BadEpisode for missing, doubled and too large ones."""
    import pyarrow as pa

    schema = file.schema_arrow
    for key in keys:
        found = len(schema.get_all_field_indices(key))
        if found != 1:
            raise BadEpisode(f"{name} has {'no column' if not found else f'{found} columns'} {key!r}")
    batches, total = [], 0
    for batch in file.iter_batches(BATCH_NUMBERS, row_groups=list(groups), columns=list(keys), use_threads=False):
        total += batch.nbytes
        if total > MAX_BYTES:
            raise BadEpisode(f"{name}: columns {', '.join(keys[:3])} hold more than {MAX_BYTES >> 20} MiB")
        batches.append(batch.select(list(keys)))
    table = pa.Table.from_batches(batches, pa.schema([schema.field(key) for key in keys]))
    expected = sum(file.metadata.row_group(group).num_rows for group in groups)
    if len(table) != expected:
        raise BadEpisode(f"{name} holds {len(table)} rows, its index lists {expected}; it is damaged")
    return table


def find_rows(
    path: Path, name: str, episode: int, length: int, shared: bool, columns: TableColumns | None = None
) -> Span:
    """Where an episode's rows are. shared: the file may hold other episodes too.

    BadEpisode when the file holds another number of its rows than `length`, or not in one run and frame_index does not
    tell their order. Reads the columns episode_index and frame_index once per file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise BadEpisode(f"{name} cannot be read: {error.strerror}") from None
    rows, numbers, frames = _episode_column(path, name, status.st_mtime_ns, status.st_size, columns)
    if numbers is None and shared:
        raise BadEpisode(f"{name} has no column 'episode_index'; its rows cannot be assigned to episodes")
    if numbers is not None and len(numbers) != rows:
        raise BadEpisode(f"{name} holds {len(numbers)} values of episode_index, its index lists {rows}; it is damaged")
    places = np.arange(rows) if numbers is None else np.flatnonzero(numbers == episode)
    if not shared and len(places) != rows and numbers is not None:
        other = numbers[numbers != episode][0]
        raise BadEpisode(f"{name} holds rows of episode {other}, expected episode {episode} alone")
    if len(places) != length:
        raise BadEpisode(f"{_other_rows(name, numbers, episode, len(places), length)}; {_AGAIN}")
    if not 0 < length <= MAX_EPISODE_ROWS:
        raise BadEpisode(
            f"{name} holds {counted(length, 'row')} of episode {episode}, expected 1 to {MAX_EPISODE_ROWS}"
        )
    ordered = None if frames is None else _by_frame(places, frames)
    if ordered is not None:
        return Span(path, name, int(places[0]), length, columns, ordered)
    if int(places[-1] - places[0]) != length - 1:
        raise BadEpisode(
            f"{name} holds the rows of episode {episode} in more than one run; sort the table by its column index, or "
            "download it again"
        )
    return Span(path, name, int(places[0]), length, columns)


def _by_frame(places: NDArray[np.int64], frames: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """An episode's rows in the order of frame_index; None where they lie so, or where that counts otherwise."""
    if int(places[-1] - places[0]) == len(places) - 1 and (np.diff(frames[places]) == 1).all():
        return None
    order = np.argsort(frames[places], kind="stable")
    return places[order] if (np.diff(frames[places][order]) == 1).all() else None


_AGAIN = "download the dataset's tables and its folder meta again, from one revision, or leave the episode out"


def _other_rows(name: str, numbers: NDArray[np.int64] | None, episode: int, found: int, length: int) -> str:
    """What a table holds in place of the rows that the metadata promise."""
    if numbers is None or found or not len(numbers):
        return f"{name} holds {counted(found, 'row')} of episode {episode}, the metadata say {length}"
    low, high = int(numbers.min()), int(numbers.max())
    others = f"episode {low}" if low == high else f"episodes {low} to {high}"
    return (
        f"{name} holds 0 rows of episode {episode}, the metadata say {length}; its column episode_index names {others}"
    )


@lru_cache(maxsize=8)
def _episode_column(
    path: Path, name: str, mtime_ns: int, size: int, columns: TableColumns | None
) -> tuple[int, NDArray[np.int64] | None, NDArray[np.int64] | None]:
    """(rows, episode_index, frame_index or else index) of a file; None for what it has not, or does not count."""
    with open_parquet(path, name, columns) as file:
        rows = int(file.metadata.num_rows)
        if not file.schema_arrow.get_all_field_indices("episode_index"):
            return rows, None, None
        counts = [k for k in ("frame_index", "index") if len(file.schema_arrow.get_all_field_indices(k)) == 1][:1]
        keys = ["episode_index", *counts]
        table = read_columns(file, name, keys, range(file.metadata.num_row_groups))
        episodes = integers(table, name, "episode_index")
        try:
            return rows, episodes, integers(table, name, counts[0]) if counts else None
        except BadEpisode:  # reported for each episode that is read
            return rows, episodes, None


def episodes_in(path: Path, name: str, columns: TableColumns | None = None) -> Mapping[int, int]:
    """Episode -> rows that a table holds of it; {} without a column episode_index. BadEpisode as of `open_parquet`.

    Reads that column once per file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise BadEpisode(f"{name} cannot be read: {error.strerror}") from None
    return _episodes_in(path, name, status.st_mtime_ns, status.st_size, columns)


@lru_cache(maxsize=4096)
def _episodes_in(path: Path, name: str, mtime_ns: int, size: int, columns: TableColumns | None) -> Mapping[int, int]:
    _, numbers, _ = _episode_column(path, name, mtime_ns, size, columns)
    if numbers is None:
        return {}
    episodes, counts = np.unique(numbers, return_counts=True)
    return dict(zip(episodes.tolist(), counts.tolist(), strict=True))


def alike(one: Span, other: Span, numbered: Sequence[str] = ("index",)) -> bool:
    """Whether two tables hold the same rows of an episode, in the columns that both have but those in `numbered`."""
    keys = [key for key in column_names(one) if key in column_names(other) and key not in numbered]
    return bool(read_span(one, keys).equals(read_span(other, keys)))


def widths(path: Path, name: str, keys: Sequence[str], columns: TableColumns | None = None) -> dict[str, int]:
    """Numbers in a row of the columns that a table has, by its first row. BadEpisode as of `open_parquet`."""
    with open_parquet(path, name, columns) as file:
        found: dict[str, int] = {}
        for key in keys:
            places = file.schema_arrow.get_all_field_indices(key)
            if len(places) != 1:
                continue
            size = numbers_in(file.schema_arrow.field(places[0]).type)
            if size is None and (first := _first(file, key)) is not None:
                size = int(np.size(first))
            found |= {key: size} if size else {}
        return found


def first_values(path: Path, name: str, keys: Sequence[str], columns: TableColumns | None = None) -> dict[str, object]:
    """Column -> its first value; None where a table does not have it or it is null. BadEpisode as of `open_parquet`."""
    with open_parquet(path, name, columns) as file:
        return {key: _first(file, key) if key in file.schema_arrow.names else None for key in keys}


def _first(file: pq.ParquetFile, key: str) -> Any:
    """The first value of a column; a missing image is {bytes: None, path: None} as well as None."""
    for batch in file.iter_batches(1, columns=[key], use_threads=False):
        value = batch.column(0)[0].as_py()
        empty = isinstance(value, dict) and not any(value.values())
        return None if empty else value
    return None


def _groups(file: pq.ParquetFile, span: Span) -> tuple[list[int], int]:
    """Row groups that hold a span's rows, and the file's row at which the first of them begins."""
    groups: list[int] = []
    first = start = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if start < span.stop and span.start < start + rows:
            first = first if groups else start
            groups.append(group)
        start += rows
    return groups, first


def read_span(span: Span, keys: Sequence[str]) -> pa.Table:
    """These columns of an episode's rows. BadEpisode with the file and key."""
    with open_parquet(span.path, span.name, span.columns) as file:
        groups, first = _groups(file, span)
        table = read_columns(file, span.name, keys, groups)
    return table.slice(span.start - first, span.count) if span.places is None else table.take(span.places - first)


def column_names(span: Span) -> list[str]:
    """Names of the columns of the span's file, read once while it stays the same."""
    try:
        status = span.path.stat()
    except OSError as error:
        raise BadEpisode(f"{span.name} cannot be read: {error.strerror}") from None
    return list(_column_names(span.path, span.name, status.st_mtime_ns, status.st_size, span.columns))


@lru_cache(maxsize=64)
def _column_names(path: Path, name: str, mtime_ns: int, size: int, columns: TableColumns | None) -> tuple[str, ...]:
    with open_parquet(path, name, columns) as file:
        return tuple(file.schema_arrow.names)


def read_images(span: Span, key: str) -> Iterator[bytes]:
    """Encoded images of an image feature, one per row; a batch of rows is in memory, all of them where they are sorted.

    LeRobot stores {bytes, path}; plain binary columns are read too. BadEpisode names the frame without bytes.
    """
    if span.places is None:
        yield from (_image(cell, span, key, row - span.start) for row, cell in _cells(span, key))
        return
    frames = {row: frame for frame, row in enumerate(span.places.tolist())}
    found = {frames[row]: _image(cell, span, key, frames[row]) for row, cell in _cells(span, key) if row in frames}
    yield from (found[frame] for frame in range(span.count))


def _cells(span: Span, key: str) -> Iterator[tuple[int, Any]]:
    """(row of the file, value) of a column from the first to the last row of a span."""
    with open_parquet(span.path, span.name, span.columns) as file:
        if len(file.schema_arrow.get_all_field_indices(key)) != 1:
            raise BadEpisode(f"{span.name} has no column {key!r}")
        groups, row = _groups(file, span)
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=[key], use_threads=False):
            for offset in range(max(span.start - row, 0), min(span.stop - row, len(batch))):
                yield row + offset, batch.column(key)[offset].as_py()
            row += len(batch)


_EMBED = "fetch the table again, or write the images' bytes into it (embed_external_files of the library datasets)"


def _image(cell: Any, span: Span, key: str, frame: int) -> bytes:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes) or not data:
        path = cell.get("path") if isinstance(cell, dict) else None
        found = f"only the path {path!r}" if path else "no bytes"
        raise BadEpisode(f"{span.name}: {key} frame {frame} holds no image, found {found}; {_EMBED}")
    if len(data) > MAX_IMAGE_BYTES:
        raise BadEpisode(f"{span.name}: {key} frame {frame} holds {len(data) >> 20} MiB, more than any image")
    return data
