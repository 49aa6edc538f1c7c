"""Which file a discovery is reading, reported to the supervising process: one damaged file ends no conversion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

type Watch = Callable[[Path | None], None]
"""Called with a file before it is opened, with None after it is closed; BadEpisode for one not to be opened."""

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Put around the reading of a file, by every function that a converter's `discover` opens files with.

    A file inside which the process ends, or that takes too long, is then known by its name. Raises BadEpisode where it
    has cost two processes; report it as Skipped. Does nothing outside of a supervised discovery.
    """
    watch = _watch.get()
    if watch is not None:
        watch(path)
    try:
        yield
    except MemoryError:  # the process ends of it, and it was this file
        raise
    except BaseException:
        _closed(watch)
        raise
    _closed(watch)


def _closed(watch: Watch | None) -> None:
    if watch is not None:
        watch(None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Tell `watch` about every file opened inside."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)
