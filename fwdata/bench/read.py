"""Random training windows: the store's reader against memory-mapped bytes and zarr-python."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fwdata.bench.timing import Timing, best
from fwdata.errors import UsageError
from fwdata.store.layout import LATENT_SHARD

if TYPE_CHECKING:
    from fwdata.store.reader import Store


def bench_read(store: Store, batch: int = 16, batches: int = 200, repeats: int = 3) -> list[Timing]:
    """Random training windows (first-frame and future latents) per CPU second: the store's checked reader, against
    `numpy.memmap` of the same bytes without any check, and zarr-python.

    UsageError when the store has no latents.
    """
    import zarr

    cache = store.latents()
    starts = [(e, s) for e in store.episodes for s in cache.starts(e)]
    if not starts:
        raise UsageError(f"{store.location} has no window to read")
    rng = np.random.default_rng(0)
    picks = [[starts[i] for i in rng.integers(0, len(starts), batch)] for _ in range(batches)]

    def checked() -> int:
        for pick in picks:
            for episode, start in pick:
                cache.first(episode, [start])
                cache.future(episode, [start])
        return batch * batches

    part = store.parts[0]
    future = cache.shape[1:]
    rows = len(cache.starts(store.episodes[0]))
    window = (cache.shape[0], cache.window.latent_frames, *future)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "windows.bin"
        flat = np.memmap(path, np.float16, "w+", shape=(max(rows, LATENT_SHARD), *window))
        wanted = rng.integers(0, len(flat), (batches, batch))

        def unchecked() -> int:
            for pick in wanted:
                np.ascontiguousarray(flat[pick])
            return batch * batches

        memmap = best("numpy.memmap, unchecked", unchecked, repeats)

    key = f"{store.location}/latents/{cache.name}-{cache.fingerprint}/{part.name}"
    first, later = zarr.open_array(f"{key}/first", mode="r"), zarr.open_array(f"{key}/future", mode="r")
    few = rng.integers(0, later.shape[0], 64)

    def peer() -> int:
        for row in few:
            np.asarray(first[int(row)])
            np.asarray(later[int(row)])
        return len(few)

    return [memmap, best("fwdata reader, every checksum", checked, repeats), best("zarr-python", peer, repeats)]
