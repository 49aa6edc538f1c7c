"""What a store behind a URL gives: whole shards and training windows, each against the bare client in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from fwdata.bench.timing import cpu_seconds
from fwdata.errors import UsageError
from fwdata.store.remote import IN_FLIGHT, RemoteFiles
from fwdata.store.remote_clients import connect
from fwdata.store.remote_rows import FarRow, read_far

if TYPE_CHECKING:
    from fwdata.store.array import ChunkedArray
    from fwdata.store.reader import Store

SHARDS = 64
"""Most whole shards that are read."""


class StorageRow(TypedDict):
    """One way of reading."""

    name: str
    """What was read, and how."""
    units: int
    """Shards or rows."""
    bytes: int
    """Bytes of them."""
    seconds: float
    """Time it took."""
    cpu_seconds: float
    """Processor time of this process."""


class BenchStorageJson(TypedDict):
    """The document of `fwdata bench storage --json`."""

    store: str
    """The URL."""
    in_flight: int
    """Requests at once."""
    rows: list[StorageRow]
    """The bare client and fwdata, for whole shards, then for rows."""


@dataclass(frozen=True)
class StorageTiming:
    """One measured way."""

    name: str
    """What was read, and how."""
    units: int
    """Shards or rows."""
    num_bytes: int
    """Bytes of them."""
    seconds: float
    """Time it took."""
    cpu: float
    """Processor time of this process."""

    @property
    def rate(self) -> float:
        """Units per second."""
        return self.units / self.seconds

    def to_json(self) -> StorageRow:
        """The row of the JSON document."""
        return StorageRow(
            name=self.name,
            units=self.units,
            bytes=self.num_bytes,
            seconds=round(self.seconds, 4),
            cpu_seconds=round(self.cpu, 4),
        )


def bench_storage(store: Store, rows: int = 512) -> list[StorageTiming]:
    """Whole latent shards and random latent rows of a store behind a URL, with 16 requests at once: the bare client,
    then fwdata with its checks (sha256 of a shard, CRC-32C of a row). UsageError for a local store or one without
    latents."""
    files = store.files
    if not isinstance(files, RemoteFiles):
        raise UsageError(f"{store.location} is local; fwdata bench read measures that")
    cache = store.latents()
    arrays = [cache.array(part, "future") for part in store.parts if part.record.episodes]
    arrays = [array for array in arrays if len(array)]
    if not arrays:
        raise UsageError(f"{store.location} has no window to read")
    keys = [a.shard_key(n) for a in arrays for n in range(-(-len(a) // a.rows_per_shard))][:SHARDS]
    picks = _pick(arrays, rows)
    client, base = connect(files.url)
    size = int(np.prod(arrays[0].shape[1:])) * arrays[0].dtype.itemsize

    def whole(key: str) -> int:
        return len(client.get(base + key).bytes())

    def checked(key: str) -> int:
        found = files.sha256(key)
        return 0 if found is None else found[1]

    def ranged(pick: tuple[ChunkedArray, int]) -> int:
        array, row = pick
        shard, slot = divmod(row, array.rows_per_shard)
        return len(client.get_range(base + array.shard_key(shard), start=slot * (size + 4), length=size))

    return [
        _timed("whole shards, bare client", whole, keys),
        _timed("whole shards, sha256 of each", checked, keys),
        _timed("single rows, bare client", ranged, picks),
        _rows(picks),
    ]


def _pick(arrays: Sequence[ChunkedArray], rows: int) -> list[tuple[ChunkedArray, int]]:
    random = np.random.default_rng(0)
    chosen = random.integers(0, len(arrays), rows).tolist()
    return [(arrays[n], int(random.integers(0, len(arrays[n])))) for n in chosen]


def _timed[K](name: str, call: Callable[[K], int], keys: Sequence[K]) -> StorageTiming:
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        began, cpu = time.perf_counter(), cpu_seconds()
        size = sum(pool.map(call, keys))
        return StorageTiming(name, len(keys), size, time.perf_counter() - began, cpu_seconds() - cpu)


def _rows(picks: Sequence[tuple[ChunkedArray, int]], batch: int = 32) -> StorageTiming:
    """Rows in batches, as training reads them, none kept on this machine."""
    array = picks[0][0]
    out = np.empty((batch, *array.shape[1:]), array.dtype)
    began, cpu = time.perf_counter(), cpu_seconds()
    for start in range(0, len(picks), batch):
        read_far([FarRow(a, row, body) for (a, row), body in zip(picks[start : start + batch], out, strict=False)])
    seconds = time.perf_counter() - began
    size = len(picks) * out[0].nbytes
    return StorageTiming(f"rows in batches of {batch}, CRC-32C of each", len(picks), size, seconds, cpu_seconds() - cpu)
