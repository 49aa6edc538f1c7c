"""Conversion against (a) only reading and decoding the same frames, (b) lerobot's own writer, (c) two workers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from fwdata.api import Camera, Converter, EncodedCamera, VideoCamera
from fwdata.bench.codecs import CodecBench, CodecJson, PixelCodec, bench_codecs, fastest, pixels_as
from fwdata.bench.floor import in_worker, time_floor, two_worker_limit
from fwdata.bench.timing import Timing, timed
from fwdata.bench.whole import Whole, convert_once, measure_start, measure_whole
from fwdata.errors import UsageError
from fwdata.images.colour import ToRgb
from fwdata.images.jpeg import decode_rgb
from fwdata.manifest import Manifest
from fwdata.pipeline.registry import load_converter
from fwdata.report.inspect_store import folder_bytes
from fwdata.store.layout import PART_EPISODES

PEER_ROWS = 48
"""Rows that lerobot's writer is given: it is some ten times slower, and its rate does not depend on the number."""

PARTS_PER_WORKER = 16
"""Parts that whole conversions give each worker, as far as there are recordings for two in each: a set of 50 recordings
would be one part, which nobody can share."""


class WholeJson(TypedDict):
    """One conversion from start to end."""

    wall: float
    """Seconds from start to end."""
    cpu: float
    """CPU seconds of all its processes."""
    peak_memory: int
    """Bytes that the largest of its processes held."""


class SourceBenchJson(TypedDict):
    """What one source came to."""

    source: str
    """The converter."""
    pictures: str
    """Sizes and encodings of the images."""
    frames: int
    """Camera frames that were converted."""
    per_cpu_second: dict[str, float]
    """floor, convert and, where it was measured, lerobot -> camera frames per CPU second."""
    floor_share: float
    """Conversion's rate over the floor's."""
    bytes: dict[str, int]
    """source and store -> bytes."""
    bytes_ratio: float
    """Bytes of the store over those of the recordings."""
    of_lerobot: float | None
    """Conversion's rate over that of lerobot's writer; null: not measured."""
    workers: dict[str, WholeJson]
    """Number of worker processes -> a whole conversion with so many."""
    two_worker_ratio: float | None
    """Seconds on the clock with one worker over those with two; null: not measured."""
    two_worker_limit: float | None
    """The same of only reading and decoding, in one and in two processes: what the machine's cores, which share caches
    and memory, could give just then; null: not measured."""
    startup_seconds: float | None
    """Seconds on the clock of the whole command on two recordings of 16 rows; null where none could be made."""
    startup_cpu_seconds: float | None
    """CPU seconds of all processes of that command; null where it was not run."""
    peak_memory: int | None
    """Bytes that the largest process of the whole conversions held; null: not measured."""
    load_average: float
    """Of the machine, before the first of them."""
    codecs: list[CodecJson]
    """Whole conversions with other codecs of pixels, conventions not measured; empty unless asked for."""


class BenchConvertJson(TypedDict):
    """The document of `fwdata bench convert --json`."""

    unit: str
    """What is counted."""
    rows: list[SourceBenchJson]
    """One per source."""


@dataclass(frozen=True)
class ConvertBench:
    """What one source came to. All rates are camera frames per CPU second."""

    source: str
    """The converter."""
    pictures: str
    """Sizes and encodings of the images, for the table."""
    floor: Timing
    """Only reading and decoding, in a fresh process."""
    conversion: Timing
    """The whole conversion in a fresh process."""
    peer: Timing | None
    """lerobot's writer; None when left out."""
    whole: tuple[Whole, ...]
    """Conversions with some numbers of workers."""
    load: float
    """The machine's load average before the first of them."""
    source_bytes: int
    """Bytes of the recordings."""
    store_bytes: int
    """Bytes of the store they become."""
    startup: tuple[float, float] | None = None
    """Of the whole command on a few short recordings: seconds on the clock, CPU seconds; None: not measured."""
    two_worker_limit: float | None = None
    """Twice the seconds of reading and decoding in one process over those of two that do so at once."""
    codecs: tuple[CodecBench, ...] = ()
    """Whole conversions with other codecs of pixels; empty: not measured."""

    @property
    def bytes_ratio(self) -> float:
        """Bytes of the store over those of the recordings."""
        return self.store_bytes / max(1, self.source_bytes)

    @property
    def of_floor(self) -> float:
        """Conversion's rate over the floor's."""
        return self.conversion.rate / self.floor.rate

    @property
    def of_peer(self) -> float | None:
        """Conversion's rate over that of lerobot's writer."""
        return None if self.peer is None else self.conversion.rate / self.peer.rate

    @property
    def two_worker_ratio(self) -> float | None:
        """Seconds with one worker over those with two; None where not both were measured."""
        walls = {whole.workers: whole.wall for whole in self.whole}
        return walls[1] / walls[2] if {1, 2} <= walls.keys() else None

    @property
    def peak_memory(self) -> int | None:
        """Bytes of the largest process of the whole conversions; None without any."""
        return max((whole.peak_memory for whole in self.whole), default=None)

    def to_json(self) -> SourceBenchJson:
        """Plain JSON."""
        ways = {"floor": self.floor, "convert": self.conversion, "lerobot": self.peer}
        return {
            "source": self.source,
            "pictures": self.pictures,
            "frames": self.conversion.units,
            "per_cpu_second": {name: round(t.rate, 1) for name, t in ways.items() if t is not None},
            "floor_share": round(self.of_floor, 3),
            "bytes": {"source": self.source_bytes, "store": self.store_bytes},
            "bytes_ratio": round(self.bytes_ratio, 3),
            "of_lerobot": None if self.of_peer is None else round(self.of_peer, 1),
            "workers": {
                str(w.workers): {"wall": round(w.wall, 3), "cpu": round(w.cpu, 3), "peak_memory": w.peak_memory}
                for w in self.whole
            },
            "two_worker_ratio": None if self.two_worker_ratio is None else round(self.two_worker_ratio, 3),
            "two_worker_limit": None if self.two_worker_limit is None else round(self.two_worker_limit, 3),
            "startup_seconds": None if self.startup is None else round(self.startup[0], 3),
            "startup_cpu_seconds": None if self.startup is None else round(self.startup[1], 3),
            "peak_memory": self.peak_memory,
            "load_average": self.load,
            "codecs": [
                {
                    "codec": one.codec.name,
                    "floor_share": round(one.conversion.rate / self.floor.rate, 3),
                    "bytes_ratio": round(one.store_bytes / max(1, self.source_bytes), 3),
                }
                for one in self.codecs
            ],
        }


def bench_convert(
    source: str,
    raw: Path,
    manifest: Manifest,
    *,
    repeats: int = 3,
    peer: bool = True,
    workers: tuple[int, ...] = (1, 2),
    evidence: bool = True,
    short: Path | None = None,
    codecs: bool = False,
) -> ConvertBench:
    """Measure the conversion of a folder of recordings.

    Floor and conversion take turns, each in a fresh worker process (`fwdata.bench.floor` says why), and the fastest run
    of each counts, so that other programs disturb both alike.
    workers: whole conversions timed on the clock; needs idle cores to say anything. evidence: conventions are measured
    too, of 20 recordings by every detector. short: a few short recordings of the source, to time the command's start
    with. codecs: convert by every one of `fwdata.bench.codecs` in turn, too. UsageError when nothing is found, and for
    codecs of recordings that hold no pixels.
    """
    converter = load_converter(manifest)
    episodes = converter.discover(raw).episodes
    if not episodes:
        raise UsageError(f"there is no recording below {raw} to measure with")
    kinds = {camera.encoding for camera in converter.read(raw, episodes[0]).cameras.values()}
    if codecs and "raw" not in kinds:
        raise UsageError(f"--codecs compares codecs of pixels; the recordings of {source} hold {', '.join(kinds)}")
    floors, conversions, others = [], [], []
    for _ in range(repeats):
        floors.append(in_worker(time_floor, manifest, raw))
        conversions.append(in_worker(_convert, manifest, raw, source, evidence))
        if codecs:
            others.append(bench_codecs(lambda codec: in_worker(_convert, manifest, raw, source, False, codec)))
    load = os.getloadavg()[0]
    part_episodes = max(2, min(PART_EPISODES, len(episodes) // (PARTS_PER_WORKER * max(workers, default=1))))
    return ConvertBench(
        source=source,
        pictures=_image_text(converter, raw),
        floor=min(floors, key=lambda t: t.cpu_seconds),
        conversion=min((timing for timing, _ in conversions), key=lambda t: t.cpu_seconds),
        peer=_lerobot(converter, raw) if peer else None,
        whole=tuple(measure_whole(source, raw, manifest, count, evidence, part_episodes) for count in workers),
        load=load,
        source_bytes=folder_bytes(raw) if raw.is_dir() else raw.stat().st_size,
        store_bytes=conversions[-1][1],
        startup=None if short is None else measure_start(source, short),
        two_worker_limit=two_worker_limit(manifest, raw) if {1, 2} <= set(workers) else None,
        codecs=fastest(others) if others else (),
    )


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fwdata-bench-") as folder:
        yield Path(folder)


def _convert(
    manifest: Manifest, raw: Path, source: str, evidence: bool, codec: PixelCodec | None = None
) -> tuple[Timing, int]:
    """One conversion in this process, in camera frames, and the bytes of the store. codec: of pixels, None: our own."""
    with nullcontext() if codec is None else pixels_as(codec):
        once = convert_once(source, raw, manifest, 0, evidence)
    return Timing("fwdata convert", once.rows * len(manifest.cameras), once.cpu), once.store_bytes


def _image_text(converter: Converter, raw: Path) -> str:
    cameras = converter.read(raw, converter.discover(raw).episodes[0]).cameras
    sizes = {f"{c.width}x{c.height} {c.encoding}": None for c in cameras.values()}
    return f"{len(cameras)} x {', '.join(sizes)}"


def _lerobot(converter: Converter, raw: Path) -> Timing:
    """The first rows of the recordings written as video by LeRobotDataset, reading and decoding them included."""
    from fwdata.export.lerobot import quiet, write_dataset

    refs = converter.discover(raw).episodes
    first = converter.read(raw, refs[0])
    features: dict[str, object] = {
        key: {"dtype": "float32", "shape": (len(names),), "names": list(names)}
        for key, names in (("observation.state", first.state_names), ("action", first.action_names))
    }
    for name, camera in first.cameras.items():
        shape = (camera.height, camera.width, 3)
        features[f"observation.images.{name}"] = {
            "dtype": "video",
            "shape": shape,
            "names": ["height", "width", "channels"],
        }

    def frames() -> Iterator[dict[str, object]]:
        episode = converter.read(raw, refs[0])
        views = {f"observation.images.{name}": _pixels(camera) for name, camera in episode.cameras.items()}
        for state, action in islice(zip(episode.state, episode.action, strict=True), PEER_ROWS):
            shown = {key: next(view) for key, view in views.items()}
            yield {"observation.state": state, "action": action, **shown, "task": episode.instructions[0]}

    def work() -> int:
        with _scratch() as folder:
            write_dataset(folder / "dataset", features, 15, "bench", [frames()])
        return min(PEER_ROWS, len(first.state)) * len(first.cameras)

    with quiet():
        work()  # its first call loads libraries
        return timed("lerobot's writer", work)


def _pixels(camera: Camera) -> Iterator[np.ndarray[Any, Any]]:
    """Decoded frames, one at a time."""
    if isinstance(camera, EncodedCamera):
        for frame in camera.frames():
            yield decode_rgb(frame.data, frame.red_blue_swapped)
    elif isinstance(camera, VideoCamera):
        to_rgb = ToRgb()
        for shown in camera.frames():
            yield to_rgb(shown)
    else:
        for block in camera.frames():
            yield from block
