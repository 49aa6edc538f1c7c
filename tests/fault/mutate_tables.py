"""Seeded damage to the columns of Parquet files: what a writer with a fault could leave, readable as Parquet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fault.mutate import Rng

type ColumnChange = Callable[[pa.ChunkedArray, Rng], pa.Array | None]
"""Another column in the place of one; None drops it."""


def parquet(path: Path, rng: Rng) -> str:
    """Change one column of a Parquet file, or its rows; the rest is written as it was."""
    table = pq.read_table(path)
    kinds = [*COLUMNS, *ROWS]
    kind = kinds[int(rng.integers(len(kinds)))]
    name = table.schema.names[int(rng.integers(table.num_columns))]
    if kind in ROWS:
        changed, name = ROWS[kind](table, rng), "all columns"
    else:
        at = table.schema.names.index(name)
        column = COLUMNS[kind](table.column(name), rng)
        changed = table.remove_column(at) if column is None else table.set_column(at, name, column)
    pq.write_table(changed, path)
    return f"parquet: {kind} ({name})"


def _with(change: Callable[[list[object], int], None]) -> ColumnChange:
    """One value changed; the type is found anew."""

    def changed(column: pa.ChunkedArray, rng: Rng) -> pa.Array:
        values = column.to_pylist()
        change(values, int(rng.integers(len(values))))
        return pa.array(values)

    return changed


def _null(values: list[object], row: int) -> None:
    values[row] = None


def _not_finite(values: list[object], row: int) -> None:
    value = values[row]
    if isinstance(value, list):
        values[row] = [float("nan"), *value[1:]]
    elif isinstance(value, float):
        values[row] = float("inf")


def _longer_cell(values: list[object], row: int) -> None:
    value = values[row]
    values[row] = [*value, *value[-1:]] if isinstance(value, list) else value


def _empty_cell(values: list[object], row: int) -> None:
    if isinstance(values[row], list):
        values[row] = []


def _repeated(values: list[object], row: int) -> None:
    values[row] = values[row - 1]


def _huge(values: list[object], row: int) -> None:
    if isinstance(values[row], int):
        values[row] = 2**62


def _negative(values: list[object], row: int) -> None:
    if isinstance(values[row], int):
        values[row] = -1


def _text(column: pa.ChunkedArray, rng: Rng) -> pa.Array:
    return pa.array([str(value) for value in column.to_pylist()])


def _halves(column: pa.ChunkedArray, rng: Rng) -> pa.Array:
    """Whole numbers, or a list's, become fractions."""
    values = [v + 0.5 if isinstance(v, int) else v for v in column.to_pylist()]
    return pa.array(values)


def _whole(column: pa.ChunkedArray, rng: Rng) -> pa.Array:
    """Fractions, or a list's, are cut off."""
    cells = column.to_pylist()
    return pa.array([[int(x) for x in v] if isinstance(v, list) and isinstance(v[0], float) else v for v in cells])


def _nested(column: pa.ChunkedArray, rng: Rng) -> pa.Array:
    return pa.array([[[value]] for value in column.to_pylist()])


def _shifted(column: pa.ChunkedArray, rng: Rng) -> pa.Array:
    values = column.to_pylist()
    return pa.array([*values[1:], values[0]])


def _all_null(column: pa.ChunkedArray, rng: Rng) -> pa.Array:
    return pa.nulls(len(column), column.type)


COLUMNS: dict[str, ColumnChange] = {
    "column dropped": lambda column, rng: None,
    "column of text": _text,
    "column of fractions": _halves,
    "column of whole numbers": _whole,
    "column nested": _nested,
    "column shifted by a row": _shifted,
    "column without values": _all_null,
    "a value missing": _with(_null),
    "a value that is not finite": _with(_not_finite),
    "a list that is longer": _with(_longer_cell),
    "a list that is empty": _with(_empty_cell),
    "a value repeated": _with(_repeated),
    "a huge number": _with(_huge),
    "a negative number": _with(_negative),
}

ROWS: dict[str, Callable[[pa.Table, Rng], pa.Table]] = {
    "one row less": lambda table, rng: table.slice(0, len(table) - 1),
    "first row lost": lambda table, rng: table.slice(1),
    "one row more": lambda table, rng: pa.concat_tables([table, table.slice(len(table) - 1)]),
    "reversed": lambda table, rng: table.take(pa.array(np.arange(len(table))[::-1])),
    "no rows": lambda table, rng: table.slice(0, 0),
    "two million rows": lambda table, rng: (
        table.take(pa.array(np.zeros(2_000_000, np.int64))) if table.nbytes < 5_000 else table.slice(0, 1)
    ),
    "a column twice": lambda table, rng: table.append_column(table.schema.names[0], table.column(0)),
}
