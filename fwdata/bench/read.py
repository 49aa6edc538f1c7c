"""Random training windows: the store's reader against memory-mapped bytes and zarr-python."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fwdata.bench.timing import Timing, best
from fwdata.errors import UsageError
from fwdata.store.codec import crc32c
from fwdata.store.row_reader import OpenShard

if TYPE_CHECKING:
    from fwdata.store.caches.latents import LatentCache
    from fwdata.store.episode import Part
    from fwdata.store.reader import Store

type _Call = tuple[OpenShard, int, NDArray[np.float16]]
type _Shards = dict[tuple[str, int], OpenShard]

MEMMAP_BYTES = 512 << 20
"""Size of the memory-mapped file: larger than a processor's cache, as a store is."""

PEER_WINDOWS = 64
"""Windows read through zarr-python, which is slow."""


def bench_read(
    store: Store, batch: int = 16, batches: int = 384, repeats: int = 3, memmap_bytes: int = MEMMAP_BYTES
) -> list[Timing]:
    """Random training windows (first-frame and future latents) per CPU second, in batches of `batch`.

    First `numpy.memmap` of written bytes of the same size, unchecked, gathered into buffers that are there already;
    then nothing but the system's reads and the checksums of the same rows; then the store's reader into the same
    buffers with every checksum on every read, with a checksum once per row and open file, and one window per call; then
    zarr-python. UsageError when the store has no latents.
    """
    cache = store.latents()
    episodes = [e for e in store.episodes if len(cache.starts(e))]
    if not episodes:
        raise UsageError(f"{store.location} has no window to read")
    starts = [cache.starts(e) for e in episodes]
    owner = np.repeat(np.arange(len(episodes)), [len(s) for s in starts])
    start = np.concatenate(starts)
    random = np.random.default_rng(0)
    picks = [random.integers(0, len(start), batch) for _ in range(batches)]
    channels, *size = cache.shape
    first = np.empty((batch, channels, *size), np.float16)
    future = np.empty((batch, channels, cache.window.latent_frames - 1, *size), np.float16)

    def buffered(verify: Any) -> Callable[[], int]:
        rows = cache.windows(episodes, verify=verify)

        def work() -> int:
            for pick in picks:
                rows.read(owner[pick], start[pick], first, future)
            return batch * batches

        return work

    def single() -> int:
        for pick in picks:
            for number, frame in zip(owner[pick].tolist(), start[pick].tolist(), strict=True):
                cache.first(episodes[number], [frame])
                cache.future(episodes[number], [frame])
        return batch * batches

    window = (channels, cache.window.latent_frames, *size)
    calls: list[_Call] = []
    shards: _Shards = {}
    for pick in picks:
        wanted = [
            (episodes[number], frame) for number, frame in zip(owner[pick].tolist(), start[pick].tolist(), strict=True)
        ]
        calls += _calls(cache, "first", [(e.part, e.start + frame) for e, frame in wanted], first, shards)
        rows = [(e.part, cache.first_window(e) + frame // cache.stride) for e, frame in wanted]
        calls += _calls(cache, "future", rows, future, shards)
    return [
        _memmap(window, batch, batches, repeats, memmap_bytes),
        best("floor: pread and CRC-32C of the same rows", _floor(calls, batch * batches), repeats),
        best("fwdata, every checksum on every read", buffered("always"), repeats),
        best("fwdata, a checksum once per row and file", buffered("first-read"), repeats),
        best("fwdata, one window per call", single, repeats),
        best("zarr-python", _peer(store, cache), repeats),
    ]


def _calls(
    cache: LatentCache, name: str, rows: Sequence[tuple[Part, int]], out: NDArray[np.float16], shards: _Shards
) -> Iterator[_Call]:
    """(open shard, first byte, buffer) of each row. shards: those that are open; others are added."""
    for (part, row), body in zip(rows, out, strict=True):
        array = cache.array(part, name)
        shard, slot = divmod(row, array.rows_per_shard)
        opened = shards.get((array.key, shard)) or shards.setdefault((array.key, shard), OpenShard(array, shard))
        yield opened, opened.offsets[slot], body


def _floor(calls: Sequence[_Call], windows: int) -> Callable[[], int]:
    """Only the calls that read and check rows, with every place known beforehand."""

    def work() -> int:
        for opened, offset, body in calls:
            os.preadv(opened.fd, (body,), offset)
            crc32c(body)
        return windows

    return work


def _memmap(window: tuple[int, ...], batch: int, batches: int, repeats: int, num_bytes: int) -> Timing:
    count = max(batch, num_bytes // (2 * int(np.prod(window))))
    random = np.random.default_rng(1)
    wanted = random.integers(0, count, (batches, batch))
    out = np.empty((batch, *window), np.float16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "windows.bin"
        block = random.standard_normal((min(count, 64), *window), np.float32).astype(np.float16).tobytes()
        with path.open("wb") as file:
            for _ in range(-(-count // 64)):
                file.write(block)
        flat: NDArray[np.float16] = np.memmap(path, np.float16, "r", shape=(count, *window))

        def gather() -> int:
            for pick in wanted:
                np.take(flat, pick, axis=0, out=out, mode="clip")  # the default mode copies twice
            return batch * batches

        return best("numpy.memmap, unchecked, into the same buffers", gather, repeats)


def _peer(store: Store, cache: LatentCache) -> Callable[[], int]:
    import zarr

    part = store.parts[0]
    key = f"{store.location}/latents/{cache.name}-{cache.fingerprint}/{part.name}"
    first, later = zarr.open_array(f"{key}/first", mode="r"), zarr.open_array(f"{key}/future", mode="r")
    few = np.random.default_rng(2).integers(0, later.shape[0], PEER_WINDOWS).tolist()

    def work() -> int:
        for row in few:
            np.asarray(first[row])
            np.asarray(later[row])
        return len(few)

    return work
