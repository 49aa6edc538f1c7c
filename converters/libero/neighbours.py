"""What a file, or another demonstration of it, tells about every one of it: read once, not for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from converters.shared.hdf5 import FileState, file_state

if TYPE_CHECKING:
    import h5py

MAX_KEPT = 256
"""Answers that a process keeps."""
RECENT_NS = 100_000_000
"""Since its last change, a file may be changed again within one step of the clock of its file system, unseen."""

type Key = tuple[Callable[..., Any], tuple[str, ...], FileState]

_kept: dict[Key, Any] = {}


def kept_of_file[T](file: h5py.File, read: Callable[..., T], *names: str) -> T:
    """`read(file, *names)`, kept in this process until size or time of the file changes; what it raises is not kept."""
    state = file_state(file)
    key = read, names, state
    if key in _kept:
        known: T = _kept[key]
        return known
    found = read(file, *names)
    if 0 <= time.time_ns() - state.changed_ns < RECENT_NS:
        return found
    while len(_kept) >= MAX_KEPT:
        _kept.pop(next(iter(_kept)))  # the oldest
    _kept[key] = found
    return found
