"""Opening a store to add caches to it."""

from __future__ import annotations

from pathlib import Path

from fwdata.errors import UsageError
from fwdata.io import refuse_url
from fwdata.store.reader import Store, open_store


def open_writable(path: Path) -> Store:
    """A wholly converted local store, to add caches to. UsageError for a URL, an unfinished or an empty store."""
    refuse_url(path, "caches are written to local stores only")
    store = open_store(path)
    if not store.complete:
        raise UsageError(
            f"{path} is not wholly converted yet; finish it by running the same `fwdata convert` (or merge) again"
        )
    if not len(store.episodes):
        raise UsageError(f"{path} holds no episode; nothing to encode")
    return store
