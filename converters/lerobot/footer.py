"""Parquet files without a footer: what a writer that was killed leaves behind.

A parquet file is a run of pages and, at its end, a footer that says where they are. A writer that holds the file open
writes the footer last, so that a killed recording has all its pages and cannot be opened. The pages are found again by
their headers (Thrift, compact protocol), and a footer is made from that of an empty table of the same columns. What
pages mean is checked by their readers: values, counts and checksums must agree, or the rows are not used.
Source: github.com/apache/parquet-format, parquet.thrift; thrift-compact-protocol.md.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = b"PAR1"
MAX_DEPTH = 16
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)

type Value = tuple[int, Any]
"""(type of the compact protocol, content): a struct's content is {field: Value}, a list's [element type, contents]."""


class ThriftReader:
    """Reads values of the compact protocol; ValueError for bytes that are none."""

    def __init__(self, data: bytes | memoryview, at: int) -> None:
        self.data, self.at = data, at

    def _byte(self) -> int:
        if self.at >= len(self.data):
            raise ValueError("the bytes end inside a header")
        self.at += 1
        return self.data[self.at - 1]

    def _varint(self) -> int:
        found = shift = 0
        while True:
            byte = self._byte()
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
            shift += 7
            if shift > 63:
                raise ValueError("a number has more than 64 bits")

    def _whole(self) -> int:
        found = self._varint()
        return (found >> 1) ^ -(found & 1)

    def _raw(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise ValueError("a text is longer than the file")
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def struct(self, depth: int = 0) -> dict[int, Value]:
        """Fields by number."""
        if depth > MAX_DEPTH:
            raise ValueError("structures are nested too deeply")
        fields: dict[int, Value] = {}
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._whole()
            fields[number] = (head & 15, self._content(head & 15, depth))
        return fields

    def _content(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self._byte()
        if kind in (_I16, _I32, _I64):
            return self._whole()
        if kind == _DOUBLE:
            return self._raw(8)
        if kind == _BINARY:
            return self._raw(self._varint())
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            if count > len(self.data) - self.at:
                raise ValueError("a list is longer than the file")
            return [head & 15, [self._content(head & 15, depth + 1) for _ in range(count)]]
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError(f"type {kind} is not used by parquet")


def encoded(fields: dict[int, Value]) -> bytes:
    """A struct in the compact protocol."""
    out, last = bytearray(), 0
    for number, (kind, content) in sorted(fields.items()):
        kind = (_TRUE if content else _FALSE) if kind in (_TRUE, _FALSE) else kind
        step = number - last
        out += bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + _varint(number << 1)
        out += b"" if kind in (_TRUE, _FALSE) else _bytes(kind, content)
        last = number
    return bytes(out) + b"\0"


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _bytes(kind: int, content: Any) -> bytes:
    if kind in (_TRUE, _FALSE):
        return bytes([_TRUE if content else _FALSE])
    if kind == _BYTE:
        return bytes([content])
    if kind in (_I16, _I32, _I64):
        return _varint((content << 1) ^ (content >> 63))
    if kind == _BINARY:
        return _varint(len(content)) + bytes(content)
    if kind in (_LIST, _SET):
        element, items = content
        head = bytes([len(items) << 4 | element]) if len(items) < 15 else bytes([0xF0 | element]) + _varint(len(items))
        return head + b"".join(_bytes(element, item) for item in items)
    return encoded(content) if kind == _STRUCT else bytes(content)


MAX_TORN_BYTES = 1 << 30
"""Largest file without a footer; it is held in memory."""


def without_footer(path: Path) -> bool:
    """Whether a file begins as parquet and does not end as such."""
    with path.open("rb") as file:
        begin = file.read(len(MAGIC))
        file.seek(0, io.SEEK_END)
        if begin != MAGIC or file.tell() <= 2 * len(MAGIC):
            return False
        file.seek(-len(MAGIC), io.SEEK_END)
        return file.read() != MAGIC


def with_footer(path: Path, columns: Sequence[tuple[str, str, tuple[int, ...]]]) -> pa.BufferReader:
    """The file with a footer made for its whole row groups. ValueError when there is none, or columns do not fit.

    columns: (key, dtype, shape) in order.
    """
    import pyarrow as pa

    if path.stat().st_size > MAX_TORN_BYTES:
        raise ValueError(f"it has no footer and more than {MAX_TORN_BYTES >> 20} MiB")
    data = path.read_bytes()
    footer = footer_of(data, pa.schema([(key, _arrow_type(dtype, shape)) for key, dtype, shape in columns]))
    if footer is None:
        raise ValueError("it has no footer, and no row group is complete")
    return pa.BufferReader(data + footer)


def _arrow_type(dtype: str, shape: tuple[int, ...]) -> pa.DataType:
    """How LeRobot stores a feature: one number as such, several as a list of fixed size, an image as its bytes."""
    import pyarrow as pa

    if dtype == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kind = pa.string() if dtype == "string" else pa.type_for_alias(dtype)
    if len(shape) > 1:
        raise ValueError(f"columns of shape {list(shape)} are not recovered")
    return kind if shape in ((), (1,)) else pa.list_(kind, shape[0])


@dataclass(frozen=True)
class Page:
    """One page: where its header begins, where it ends, and how many values it holds (None: a dictionary)."""

    start: int
    """Byte of the header."""
    stop: int
    """Byte behind the content."""
    values: int | None
    """Values of a data page; None for a dictionary page."""
    plain: int
    """Bytes of header and uncompressed content."""
    content: int
    """Byte behind the header."""


def pages_of(data: bytes | memoryview) -> list[Page]:
    """The whole pages of a file, in order; a page that is cut short ends the list."""
    found: list[Page] = []
    at = len(MAGIC)
    while at < len(data):
        reader = ThriftReader(data, at)
        try:
            header = reader.struct()
            kind, plain, packed = (header[number][1] for number in (1, 2, 3))
            values = {0: (5, 1), 2: None, 3: (8, 1)}[kind]
            count = header[values[0]][1][values[1]][1] if values else None
        except (ValueError, KeyError, TypeError, IndexError):
            break
        stop = reader.at + packed
        if not (packed >= 0 and plain >= 0 and stop <= len(data)):
            break
        found.append(Page(at, stop, count, reader.at - at + plain, reader.at))
        at = stop
    return found


def footer_of(data: bytes | memoryview, schema: pa.Schema) -> bytes | None:
    """A footer for the whole row groups of a file of this schema, with the magic at the end; None where there is none.

    Row groups must hold every column's chunk, each begun by a dictionary page (or a data page, for booleans) and of as
    many values as the first one's rows need. ValueError when the pages are not those of the schema.
    """
    template, widths, boolean = _template(schema)
    pages, at = pages_of(data), 0
    codec = _codec(data, pages)
    groups: list[dict[int, Value]] = []
    while True:
        chunks, rows = [], None
        for width, plain in zip(widths, boolean, strict=True):
            taken = _chunk(pages, at, width, None if rows is None else rows * width, plain)
            if taken is None:
                break
            rows = sum(page.values or 0 for page in taken) // width
            at += len(taken)
            chunks.append(taken)
        if len(chunks) < len(widths) or not rows:
            break
        groups.append(_group(template[4][1][1][0], chunks, rows, len(groups), codec))
    if not groups:
        return None
    template[3] = (_I64, sum(group[3][1] for group in groups))
    template[4] = (_LIST, [_STRUCT, groups])
    footer = encoded(template)
    return footer + len(footer).to_bytes(4, "little") + MAGIC


def _chunk(pages: Sequence[Page], at: int, width: int, wanted: int | None, plain: bool) -> list[Page] | None:
    """Pages of one column in one row group from position `at`; None where the file ends before.

    wanted: values that it must have; None for the first column, which ends where the next dictionary begins.
    """
    taken: list[Page] = []
    count = 0
    for page in pages[at:]:
        if page.values is None and taken:
            break
        if not taken and (page.values is None) == plain:
            raise ValueError("the pages are not those of the columns in meta/info.json")
        taken.append(page)
        count += page.values or 0
        if wanted is not None and count >= wanted:
            break
    if (wanted is not None and count > wanted) or count % width:
        raise ValueError("the pages are not those of the columns in meta/info.json")
    return taken if count and (wanted is None or count == wanted) else None


def _template(schema: pa.Schema) -> tuple[dict[int, Value], list[int], list[bool]]:
    """(footer of a table of one row, values of a row and whether a boolean, for each column of leaves)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {field.name: [_sample(field.type)] for field in schema}
    buffer = io.BytesIO()
    pq.write_table(pa.table(row, schema), buffer, compression="snappy", use_dictionary=True)
    data = buffer.getvalue()
    footer = ThriftReader(data, len(data) - 8 - int.from_bytes(data[-8:-4], "little")).struct()
    columns = footer[4][1][1][0][1][1][1]
    return footer, [column[3][1][5][1] for column in columns], [column[3][1][1][1] == 0 for column in columns]


def _sample(kind: pa.DataType) -> Any:
    """A value of a type."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind):
        return [_sample(kind.value_type)] * kind.list_size
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_sample(kind.value_type)]
    if pa.types.is_struct(kind):
        return {field.name: _sample(field.type) for field in kind}
    if pa.types.is_binary(kind):
        return b"x"
    return "x" if pa.types.is_string(kind) else pa.scalar(1).cast(kind).as_py()


_LEFT_OUT = frozenset({8, 10, 11, *range(12, 18)})
"""Fields of a column that describe the template's own values: statistics, indices, bloom filters."""


_CODECS = {b"\x1f\x8b": 2, b"\x28\xb5\x2f\xfd": 6}
"""What compressed content begins with -> codec: gzip and zstd. Snappy (1) begins with its size, of the others no sign
is left."""


def _codec(data: bytes | memoryview, pages: Sequence[Page]) -> int:
    """How most pages are compressed, by those of dictionaries, whose whole content is. ValueError where nothing of
    them shows it."""
    found = Counter[int]()
    for page in (page for page in pages if page.values is None):
        size, packed = page.plain - (page.content - page.start), page.stop - page.content
        begin = bytes(data[page.content : page.content + 5])
        said = 1 if begin.startswith(_varint(size)) else 0 if packed == size else None
        said = next((codec for sign, codec in _CODECS.items() if begin.startswith(sign)), said)
        found.update([] if said is None else [said])
    if any(page.values is None for page in pages) and not found:
        raise ValueError("it has no footer, and its pages are neither plain nor packed by snappy, gzip or zstd")
    return found.most_common(1)[0][0] if found else 1


def _group(
    template: dict[int, Value], chunks: Sequence[Sequence[Page]], rows: int, number: int, codec: int
) -> dict[int, Value]:
    """A row group of these chunks."""
    columns: list[dict[int, Value]] = []
    size = whole = 0
    for column, pages in zip(template[1][1][1], chunks, strict=True):
        first, last = pages[0], pages[-1]
        begin = next(page.start for page in pages if page.values is not None)
        meta = {key: value for key, value in column[3][1].items() if key not in _LEFT_OUT}
        packed, plain = last.stop - first.start, sum(page.plain for page in pages)
        meta[4], meta[5] = (_I32, codec), (_I64, sum(page.values or 0 for page in pages))
        meta[6], meta[7], meta[9] = (_I64, plain), (_I64, packed), (_I64, begin)
        if first.values is None:
            meta[11] = (_I64, first.start)
        columns.append({2: (_I64, 0), 3: (_STRUCT, meta)})
        size, whole = size + packed, whole + plain
    return {
        1: (_LIST, [_STRUCT, columns]),
        2: (_I64, whole),
        3: (_I64, rows),
        5: (_I64, chunks[0][0].start),
        6: (_I64, size),
        7: (_I16, number),
    }
