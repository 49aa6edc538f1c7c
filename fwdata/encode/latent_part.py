"""Encoding what one part of a store lacks: which clips, in which forwards, written in which order.

A latent depends on its own frames, the weights and the number of clips per forward, and on nothing else: clips of equal
length are batched in a fixed number (the last forward is filled up with its last clip), and neither the place of a clip
in its forward nor what lies beside it changes its bits. So a rerun, other workers and a refined stride give the same
bytes.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fwdata.encode.frames import FramesAhead, FrameSource, OwnFrames, needed_blocks
from fwdata.encode.vae.base import Forward, Vae
from fwdata.errors import StoreError
from fwdata.store.caches.latents import LatentCache, LatentPartWriter
from fwdata.store.episode import Part, StoredEpisode
from fwdata.store.reader import Store

type OnFrame = Callable[[int, int, float], None]
"""Called with (first-frame latents, windows, seconds inside the VAE) that were made."""


@dataclass(frozen=True)
class PartJob:
    """One part to encode; picklable."""

    store: Store
    """The store."""
    part: str
    """Name of the part."""
    key: str
    """Folder of the latent cache below `latents`."""
    shape: tuple[int, int, int]
    """(C, h, w) of one latent frame."""
    stride: int
    """Frames between two windows that get future latents."""
    batch: int = 1
    """Clips per forward."""
    decoders: int = 0
    """Processes that decode and stitch ahead; 0 does it in this one."""
    known: tuple[LatentCache, ...] = ()
    """Caches with another stride and otherwise the same identity, whose latents are taken over."""
    out: Path | None = None
    """Folder of the store that is written; None: the store itself. A measurement writes elsewhere."""


@dataclass(frozen=True)
class _Row:
    """A frame of the part. window: row of the window that starts there, None where none does or it is not needed."""

    row: int
    episode: int
    frame: int
    window: int | None
    clip: NDArray[np.int64]
    """Frames of the episode that are encoded; empty where the latents are known."""


@dataclass
class _Batch:
    """Clips that go through one forward; `done` when it was begun."""

    clips: list[NDArray[np.uint8]] = field(default_factory=list)
    forward: Forward | None = None
    latents: NDArray[np.float16] | None = None

    def take(self, position: int) -> tuple[NDArray[np.float16], float]:
        """Latents of a clip, and the forward's seconds the first time."""
        assert self.forward is not None
        fresh = self.latents is None
        if self.latents is None:
            self.latents = self.forward.result()
        return self.latents[position], self.forward.seconds if fresh else 0.0


class _KnownPart:
    """Latents of a part in a cache with another stride. StoreError when the part is not there as it is now."""

    def __init__(self, cache: LatentCache, part: Part, episodes: list[StoredEpisode]) -> None:
        cache.part_record(part)
        self.stride = cache.stride
        self.firsts, self._futures = cache.array(part, "first"), cache.array(part, "future")
        self._windows = [cache.first_window(episode) for episode in episodes]

    def future(self, episode: int, frame: int) -> NDArray[np.float16]:
        """float16 [C, f-1, h, w]."""
        window = self._windows[episode] + frame // self.stride
        found: NDArray[np.float16] = self._futures.rows(window, window + 1)[0]
        return found


class _Known:
    """Latents of a part in caches with other strides; nothing where that part is in none of them."""

    def __init__(self, caches: tuple[LatentCache, ...], part: Part, episodes: list[StoredEpisode]) -> None:
        self._parts: list[_KnownPart] = []
        for cache in caches:
            with contextlib.suppress(StoreError):  # not encoded yet, or of other episodes
                self._parts.append(_KnownPart(cache, part, episodes))

    def has(self, frame: int, is_start: bool) -> bool:
        """Whether all that is needed of a frame is there."""
        return any(not is_start or frame % part.stride == 0 for part in self._parts)

    def first(self, row: int) -> NDArray[np.float16]:
        """float16 [C, h, w]."""
        found: NDArray[np.float16] = self._parts[0].firsts.rows(row, row + 1)[0]
        return found

    def future(self, episode: int, frame: int) -> NDArray[np.float16]:
        """float16 [C, f-1, h, w]."""
        return next(part for part in self._parts if frame % part.stride == 0).future(episode, frame)


def encode_part(job: PartJob, vae: Vae, on_frame: OnFrame) -> None:
    """Encode what a part lacks. A killed run continues at the next unwritten shard of 256 rows.

    On a CPU it runs on one thread, whose number changes float32 bits. Memory: some blocks of stitched frames and one
    shard.
    """
    writer, starts = encode_rows(job, vae, on_frame)
    writer.commit(starts)


def encode_rows(
    job: PartJob, vae: Vae, on_frame: OnFrame, limit: int | None = None
) -> tuple[LatentPartWriter, NDArray[np.int64]]:
    """Encode what a part lacks, at most `limit` rows of it, without marking it complete.

    Returns the writer and the window starts, int64 [m], rows of the part.
    """
    torch.set_num_threads(1)
    window = job.store.manifest.window
    part = next(part for part in job.store.parts if part.name == job.part)
    episodes = list(job.store.episodes.of(part))
    starts = [window.starts(e.num_frames, job.stride) for e in episodes]
    total = sum(len(s) for s in starts)
    root = job.out or Path(job.store.location)
    writer = LatentPartWriter(root, job.key, part, job.shape, window.latent_frames - 1, total)
    known = _Known(job.known, part, episodes)
    rows = list(_missing_rows(job, episodes, known, writer))[:limit]
    blocks = needed_blocks((row.episode, row.clip) for row in rows if len(row.clip))
    with contextlib.ExitStack() as stack:
        frames: FrameSource = OwnFrames(episodes)
        if job.decoders and blocks:
            ahead = FramesAhead(Path(job.store.location), part.name, blocks, job.decoders)
            frames = stack.enter_context(ahead)
        _PartForwards(job, vae, frames, known, writer, on_frame).run(rows)
    return writer, np.concatenate([s + e.start for s, e in zip(starts, episodes, strict=True)])


def _missing_rows(
    job: PartJob, episodes: list[StoredEpisode], known: _Known, writer: LatentPartWriter
) -> Iterator[_Row]:
    """The part's frames whose latents are not on disk yet, in order."""
    window, next_window = job.store.manifest.window, 0
    for position, episode in enumerate(episodes):
        for frame in range(episode.num_frames):
            row, is_start = episode.start + frame, frame % job.stride == 0
            if row >= writer.next_first or (is_start and next_window >= writer.next_future):
                clip = window.video_indices(frame, episode.num_frames) if is_start else np.array([frame], np.int64)
                if known.has(frame, is_start):
                    clip = clip[:0]
                yield _Row(row, position, frame, next_window if is_start else None, clip)
            next_window += is_start


class _PartForwards:
    """Forwards of a part under way; rows are written in their order."""

    def __init__(
        self,
        job: PartJob,
        vae: Vae,
        frames: FrameSource,
        known: _Known,
        writer: LatentPartWriter,
        on_frame: OnFrame,
    ) -> None:
        self._job, self._vae, self._frames, self._known = job, vae, frames, known
        self._writer, self._on_frame = writer, on_frame
        self._open: dict[int, _Batch] = {}
        self._waiting: deque[tuple[_Row, _Batch | None, int]] = deque()
        self._under_way = 0

    def run(self, rows: list[_Row]) -> None:
        """Encode and write every row."""
        for row in rows:
            if len(row.clip):
                self._add(row)
            else:
                self._waiting.append((row, None, 0))
            self._write(everything=False)
        for batch in self._open.values():
            self._submit(batch)
        self._open.clear()
        self._write(everything=True)

    def _add(self, row: _Row) -> None:
        batch = self._open.setdefault(len(row.clip), _Batch())
        self._waiting.append((row, batch, len(batch.clips)))
        batch.clips.append(self._frames.take(row.episode, row.clip))
        if len(batch.clips) == self._job.batch:
            self._submit(self._open.pop(len(row.clip)))

    def _submit(self, batch: _Batch) -> None:
        """Begin a forward of exactly `batch` clips."""
        filled = batch.clips + [batch.clips[-1]] * (self._job.batch - len(batch.clips))
        batch.forward = self._vae.submit(filled)
        batch.clips = []
        self._under_way += 1

    def _write(self, everything: bool) -> None:
        """Write rows whose forward is over, or is not one of the latest `ahead`."""
        while self._waiting:
            row, batch, position = self._waiting[0]
            if batch is not None and batch.latents is None:
                if batch.forward is None or (not everything and self._under_way <= self._vae.ahead):
                    return
                self._under_way -= 1
            self._waiting.popleft()
            self._put(row, batch, position)

    def _put(self, row: _Row, batch: _Batch | None, position: int) -> None:
        if batch is None:
            self._writer.add_first(row.row, self._known.first(row.row))
            if row.window is not None:
                self._writer.add_future(row.window, self._known.future(row.episode, row.frame))
            return
        latents, seconds = batch.take(position)
        self._writer.add_first(row.row, latents[:, 0])
        if row.window is not None:
            self._writer.add_future(row.window, latents[:, 1:])
        self._on_frame(1, int(row.window is not None), seconds)
