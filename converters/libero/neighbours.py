"""What other demonstrations of a file tell, where one tells nothing itself: read once, not for every demonstration."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from converters.shared.hdf5 import FileState, file_state

if TYPE_CHECKING:
    import h5py

MAX_KEPT = 256
"""Answers that a process keeps."""

type Key = tuple[Callable[[h5py.File, str], Any], str, FileState]

_kept: dict[Key, Any] = {}


def kept_of_file[T](file: h5py.File, demo: str, read: Callable[[h5py.File, str], T]) -> T:
    """`read(file, demo)`, kept in this process until size or time of the file changes; what it raises is not kept."""
    key = read, demo, file_state(file)
    if key in _kept:
        known: T = _kept[key]
        return known
    found = read(file, demo)
    while len(_kept) >= MAX_KEPT:
        _kept.pop(next(iter(_kept)))  # the oldest
    _kept[key] = found
    return found
