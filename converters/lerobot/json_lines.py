"""JSON lines of metadata, and files that hold the same objects as an array or over several lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from converters.shared.content import not_content
from fwdata.errors import UsageError

MAX_LINE = 64 << 20
"""Bytes of a line, and of a file that holds no lines."""


def json_lines(path: Path, name: str) -> Iterator[tuple[int, dict[str, object] | str]]:
    """(line number, object or why it is none) of every line that is not empty.

    A JSON array, or objects that take several lines each, count as one line for every object.
    """
    reason = not_content(path, name)
    if reason is not None and path.stat().st_size:
        raise UsageError(reason)
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE):
                number += 1
                if not line.strip():
                    continue
                found = _object(line)
                if number == 1 and isinstance(found, str) and (documents := _documents(path)):
                    yield from enumerate(documents, 1)
                    return
                yield number, found
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from None


def _object(line: bytes) -> dict[str, object] | str:
    """The object of a line, or why it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not valid JSON ({' '.join(str(error).split())})"
    return found if isinstance(found, dict) else f"a {type(found).__name__}, not an object"


def _documents(path: Path) -> list[dict[str, object]]:
    """The objects of a file that is no JSON lines: an array of them, or one after the other; [] where it is neither."""
    if path.stat().st_size > MAX_LINE:
        return []
    found: list[object] = []
    try:
        text = path.read_text("utf-8-sig").strip()
        while text:
            value, end = json.JSONDecoder().raw_decode(text)
            found.append(value)
            text = text[end:].lstrip()
    except (ValueError, RecursionError):
        return []
    if len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    objects = [value for value in found if isinstance(value, dict)]
    return objects if len(objects) == len(found) else []
