"""Values of parquet columns as numpy: numbers and whole numbers, in whatever lists and types they were written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import BadEpisode
from fwdata.wording import counted

if TYPE_CHECKING:
    import pyarrow as pa

type Floats = NDArray[np.float64]


def numbers(table: pa.Table, name: str, key: str, size: int) -> Floats:
    """A column as float64 [T, size]; plain numbers count as vectors of one, lists in lists as one row.

    BadEpisode for nulls, other lengths and what holds no numbers.
    """
    import pyarrow as pa

    array = _stored(table.column(key))
    width, rows = 1, len(array)
    while _is_list(array.type):
        if array.null_count:
            first = next(row for row, cell in enumerate(array) if not cell.is_valid) // width
            raise BadEpisode(
                f"{name}: {key} has {counted(array.null_count, 'row')} without values, the first is row {first} of "
                "the episode; "
                "leave the episode out, or fetch the table again"
            )
        edges = _edges(array)
        lengths = np.unique(np.diff(edges)) if len(array) else np.array([size])
        if len(lengths) != 1:
            raise BadEpisode(f"{name}: {key} has rows of {lengths.min()} to {lengths.max()} numbers, expected {size}")
        width *= int(lengths[0])
        array = _stored(array.values.slice(int(edges[0]), int(edges[-1] - edges[0])))
    if not _is_number(array.type) and not pa.types.is_decimal(array.type):
        expected = "numbers" if width == size else f"{size} numbers in a row"
        raise BadEpisode(f"{name}: {key} holds {_short(array.type)}, expected {expected}")
    if width != size and rows:
        raise BadEpisode(f"{name}: {key} has {width} numbers in a row, {size} are declared in meta/info.json")
    if array.null_count:
        raise BadEpisode(f"{name}: {key} has {array.null_count} missing values")
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    return np.asarray(_plain(array), np.float64).reshape(-1, size)


def seconds(table: pa.Table, name: str, key: str) -> Floats:
    """A column of times, float64 [T] in s; durations and dates of the file count from their own zero. BadEpisode."""
    import pyarrow as pa

    array = _stored(table.column(key))
    if not (pa.types.is_duration(array.type) or pa.types.is_timestamp(array.type)) or array.null_count:
        return numbers(table, name, key, 1)[:, 0]
    ticks = np.asarray(_plain(array.cast(pa.int64())), np.int64)
    found: Floats = (ticks - ticks[:1]) / _TICKS[array.type.unit]
    return found


_TICKS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def numbers_in(kind: pa.DataType) -> int | None:
    """Numbers in a row of a column of this type; None where only its rows tell, 0 for one that holds none."""
    import pyarrow as pa

    kind, size = getattr(kind, "storage_type", kind), 1
    while _is_list(kind):
        if not _fixed(kind):
            return None
        size, kind = size * int(kind.list_size), kind.value_type
    return size if _is_number(kind) or pa.types.is_decimal(kind) else 0


def number_type(kind: pa.DataType) -> str:
    """The type of the numbers of a column, whatever they are listed in."""
    while hasattr(kind, "storage_type") or hasattr(kind, "value_type"):
        kind = kind.storage_type if hasattr(kind, "storage_type") else kind.value_type
    return str(kind)


def _stored(column: pa.Array | pa.ChunkedArray) -> Any:
    """One array of a column as it is stored: without extension types, dictionaries and list views."""
    import pyarrow as pa

    array = column
    if isinstance(column, pa.ChunkedArray):
        array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _stored(array.storage)
    if pa.types.is_dictionary(kind):
        return array.dictionary_decode()
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.array(array.to_pylist(), pa.large_list(kind.value_type))  # pyarrow 26 casts slices wrongly
    return array


def _short(kind: pa.DataType) -> str:
    """A type in a few words."""
    text = str(kind)
    return text if len(text) <= 40 else f"{text[:36]} .."


def integers(table: pa.Table, name: str, key: str) -> NDArray[np.int64]:
    """A column of whole numbers, int64 [T]; BadEpisode for anything else."""
    import pyarrow as pa

    array = _stored(table.column(key))
    kind = array.type
    fractions = pa.types.is_floating(kind) or pa.types.is_decimal(kind)  # as pandas leaves those that were joined
    if _is_list(kind) or (fractions and not array.null_count):
        return _whole(numbers(table, name, key, 1)[:, 0], name, key)
    if not pa.types.is_integer(kind) or array.null_count:
        raise BadEpisode(f"{name}: {key} must be whole numbers, found {kind} with {array.null_count} missing values")
    return np.asarray(_plain(array), np.int64)


def _whole(values: Floats, name: str, key: str) -> NDArray[np.int64]:
    """Fractions that are whole numbers, as int64; BadEpisode for others."""
    if not (np.isfinite(values) & (np.abs(values) < 2**53) & (values == np.rint(values))).all():
        raise BadEpisode(f"{name}: {key} must be whole numbers, found fractions; download the table again")
    return values.astype(np.int64)


def _plain(array: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Numbers without nulls as numpy, without pandas and `pyarrow.compute`.

    pyarrow's own `to_numpy` imports the first, casts and filters the second: two seconds and a quarter second of CPU.
    """
    import pyarrow as pa

    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_boolean(whole.type):
        bits = np.frombuffer(whole.buffers()[1] or b"", np.uint8)
        return np.unpackbits(bits, bitorder="little")[whole.offset :][: len(whole)].astype(np.bool_)
    found: NDArray[Any] = np.from_dlpack(whole)
    return found


def _edges(array: Any) -> NDArray[np.int64]:
    """int64 [T + 1]: where the numbers of each row of a list column begin among `array.values`."""
    if _fixed(array.type):
        return np.arange(array.offset, array.offset + len(array) + 1, dtype=np.int64) * int(array.type.list_size)
    return _plain(array.offsets).astype(np.int64)


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    return any(
        is_one(kind)
        for is_one in (
            types.is_list,
            types.is_large_list,
            types.is_fixed_size_list,
            types.is_list_view,
            types.is_large_list_view,
        )
    )


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _fixed(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(kind))
