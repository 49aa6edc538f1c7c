"""Benchmarks: each compares with a physical limit measured in the same run, on one core."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fwdata.api import Converter, EncodedCamera
from fwdata.errors import UsageError
from fwdata.jpeg import decode_rgb
from fwdata.pipeline.plan import ConvertRequest, load_converter
from fwdata.pipeline.run import convert
from fwdata.store.layout import LATENT_SHARD

if TYPE_CHECKING:
    from fwdata.manifest import Manifest
    from fwdata.store.reader import Store


@dataclass(frozen=True)
class Timing:
    """One measured way of doing the same work. rate: units per second of CPU time; best of `repeats` runs."""

    name: str
    units: int
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Units per CPU second."""
        return self.units / self.cpu_seconds


def _best(name: str, work: Callable[[], int], repeats: int) -> Timing:
    best, units = float("inf"), 0
    for _ in range(repeats):
        began = time.process_time()
        units = work()
        best = min(best, time.process_time() - began)
    return Timing(name, units, best)


def bench_convert(source: str, raw: Path, manifest: Manifest, repeats: int = 3) -> list[Timing]:
    """Camera frames per CPU second of converting a folder, against only reading and decoding the same frames."""
    converter = load_converter(manifest)

    def floor() -> int:
        return _read_and_decode(converter, raw)

    def conversion() -> int:
        with tempfile.TemporaryDirectory() as folder:
            request = ConvertRequest(source, raw, Path(folder) / "store.zarr", manifest)
            report = convert(request, lambda plan: None, lambda episodes, frames: None)
        return report.frames * len(manifest.cameras)

    return [_best("read and decode only", floor, repeats), _best("fwdata convert", conversion, repeats)]


def _read_and_decode(converter: Converter, raw: Path) -> int:
    count = 0
    for ref in converter.discover(raw).episodes:
        for camera in converter.read(raw, ref).cameras.values():
            if isinstance(camera, EncodedCamera):
                for frame in camera.frames():
                    decode_rgb(frame.data, frame.red_blue_swapped)
                    count += 1
            else:
                count += sum(len(block) for block in camera.frames())
    return count


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

        memmap = _best("numpy.memmap, unchecked", unchecked, repeats)

    key = f"{store.location}/latents/{cache.name}-{cache.fingerprint}/{part.name}"
    first, later = zarr.open_array(f"{key}/first", mode="r"), zarr.open_array(f"{key}/future", mode="r")
    few = rng.integers(0, later.shape[0], 64)

    def peer() -> int:
        for row in few:
            np.asarray(first[int(row)])
            np.asarray(later[int(row)])
        return len(few)

    return [memmap, _best("fwdata reader, every checksum", checked, repeats), _best("zarr-python", peer, repeats)]
