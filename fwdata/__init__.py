"""fwdata: raw robot recordings to one unified Zarr v3 store, and the latents, text and statistics cached with it.

import fwdata
store = fwdata.open("data/robotwin.zarr")
episode = store.episodes[0]
episode.stitched([0, 4, 8])        # uint8 [3, H, W, 3]
episode.action()                    # float32 [T, Da]
store.latents().first(episode, [0])  # float16 [1, 48, h, w]
fwdata.WindowDataset("data/robotwin.zarr")  # training windows for a PyTorch DataLoader
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from fwdata.errors import FwdataError, StoreError, needed_for

if TYPE_CHECKING:
    from fwdata.dataset import WindowDataset
    from fwdata.store.caches.identity import differing
    from fwdata.store.caches.stats import Statistics, merge_statistics
    from fwdata.store.compatibility import Described, check_joinable, difference, recording_key
    from fwdata.store.episode import StoredEpisode as Episode
    from fwdata.store.reader import Store
    from fwdata.window import Window, WindowSpec

__version__ = "0.1.0"

__all__ = [
    "Described",
    "Episode",
    "FwdataError",
    "Statistics",
    "Store",
    "StoreError",
    "Window",
    "WindowDataset",
    "WindowSpec",
    "check_joinable",
    "difference",
    "differing",
    "merge_statistics",
    "open",
    "recording_key",
]

_HOMES = {
    "Described": "fwdata.store.compatibility",
    "Statistics": "fwdata.store.caches.stats",
    "Store": "fwdata.store.reader",
    "WindowDataset": "fwdata.dataset",
    "Window": "fwdata.window",
    "WindowSpec": "fwdata.window",
    "check_joinable": "fwdata.store.compatibility",
    "difference": "fwdata.store.compatibility",
    "differing": "fwdata.store.caches.identity",
    "merge_statistics": "fwdata.store.caches.stats",
    "recording_key": "fwdata.store.compatibility",
}
"""Public name -> module that holds it, imported when asked for: `import fwdata` loads no library."""


def open(location: str | Path) -> Store:
    """Open a store by local path or URL; see `fwdata.store.reader.Store`. Imports neither torch nor zarr."""
    from fwdata.store.reader import open_store

    return open_store(location)


def __getattr__(name: str) -> object:
    if name == "Episode":
        from fwdata.store.episode import StoredEpisode

        return StoredEpisode
    if name in _HOMES:
        with needed_for(f"fwdata.{name}"):
            return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fwdata' has no attribute {name!r}")
