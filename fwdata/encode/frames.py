"""Stitched frames for the encoder: decoded here, or in worker processes that run ahead of it.

Frames are decoded and stitched in blocks of 32, each block once; which process does it changes no pixel.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fwdata.pipeline.workers import Link, WorkerPool
from fwdata.store.episode import StoredEpisode
from fwdata.store.reader import Store, open_store

FRAME_BLOCK = 32
"""Stitched frames that are decoded together."""

BLOCKS_AHEAD = 4
"""Finished blocks that wait per worker process, 12 MB each for three cameras of 384x320."""

type Block = tuple[int, int]
"""(position of the episode in its part, number of the block in the episode)."""


class FrameSource(Protocol):
    """What an encoder asks: frames of a part's episodes, in the order in which the blocks were announced."""

    def take(self, episode: int, indices: NDArray[np.int64]) -> NDArray[np.uint8]: ...


class BlockFrames(ABC):
    """A FrameSource of blocks; blocks that lie before the latest request are forgotten."""

    def __init__(self) -> None:
        self.kept: dict[Block, NDArray[np.uint8]] = {}

    @abstractmethod
    def get(self, block: Block) -> NDArray[np.uint8]:
        """uint8 [n, H, W, 3], every frame of a block."""

    def forget(self, before: Block) -> None:
        """Let go of the blocks before this one."""
        for block in [block for block in self.kept if block < before]:
            del self.kept[block]

    def take(self, episode: int, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """uint8 [n, H, W, 3]: frames at `indices`, which do not decrease, of an episode of the part."""
        self.forget((episode, int(indices[0]) // FRAME_BLOCK))
        return np.stack([self.get((episode, int(i) // FRAME_BLOCK))[int(i) % FRAME_BLOCK] for i in indices])


class OwnFrames(BlockFrames):
    """Decodes in this process, when a frame is asked for."""

    def __init__(self, episodes: Sequence[StoredEpisode]) -> None:
        super().__init__()
        self._episodes = episodes

    def get(self, block: Block) -> NDArray[np.uint8]:
        """See BlockFrames."""
        found = self.kept.get(block)
        if found is None:
            found = self.kept[block] = stitched_block(self._episodes[block[0]], block[1])
        return found


def stitched_block(episode: StoredEpisode, number: int) -> NDArray[np.uint8]:
    """uint8 [n <= 32, H, W, 3]: one block of an episode."""
    low = number * FRAME_BLOCK
    return episode.stitched(np.arange(low, min(low + FRAME_BLOCK, episode.num_frames)))


class FramesAhead(BlockFrames):
    """Decodes in worker processes, a bounded number of blocks ahead. Use it as a context manager.

    blocks: all that will be asked for, in order. A worker that ends costs one attempt of a block; errors of a worker
    are raised where the block is asked for.
    """

    def __init__(self, store: Path, part: str, blocks: Sequence[Block], workers: int) -> None:
        super().__init__()
        self._tasks = [(store, part, *block) for block in blocks]
        self._workers, self._limit = workers, workers * BLOCKS_AHEAD
        self._changed = threading.Condition()
        self._wanted: Block | None = None
        self._stopped = False
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="stitching", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def get(self, block: Block) -> NDArray[np.uint8]:
        """See BlockFrames; waits for the workers."""
        with self._changed:
            self._wanted = block
            self._changed.notify_all()
            self._changed.wait_for(lambda: block in self.kept or self._failed is not None)
            if block not in self.kept and self._failed is not None:
                raise self._failed
            return self.kept[block]

    def forget(self, before: Block) -> None:
        """See BlockFrames."""
        with self._changed:
            super().forget(before)
            self._changed.notify_all()

    def _work(self) -> None:
        """Runs the workers in the thread that started them: they end with it."""
        try:
            with WorkerPool(self._workers) as pool:
                for episode, number, frames in pool.run(_stitch_in_worker, self._tasks, lambda *values: None):
                    with self._changed:
                        self.kept[episode, number] = frames
                        self._changed.notify_all()
                        self._changed.wait_for(self._may_go_on)
                        if self._stopped:
                            return
        except BaseException as error:  # noqa: BLE001 - raised again where a block is asked for
            with self._changed:
                self._failed = error
                self._changed.notify_all()

    def _may_go_on(self) -> bool:
        return self._stopped or len(self.kept) < self._limit or self._wanted not in self.kept


_opened: dict[Path, Store] = {}
"""The store that a worker process reads, opened once."""


def _stitch_in_worker(store: Path, part: str, episode: int, number: int, *, link: Link) -> tuple[int, int, object]:
    if store not in _opened:
        _opened.clear()
        _opened[store] = open_store(store)
    opened = _opened[store]
    found = next(p for p in opened.parts if p.name == part)
    return episode, number, stitched_block(opened.episodes.of(found)[episode], number)


def needed_blocks(clips: Iterator[tuple[int, NDArray[np.int64]]]) -> list[Block]:
    """The blocks of clips (episode, frame indices) that come in order, each once, in the order they are asked for."""
    found: dict[Block, None] = {}
    for episode, indices in clips:
        for number in range(int(indices[0]) // FRAME_BLOCK, int(indices[-1]) // FRAME_BLOCK + 1):
            found[episode, number] = None
    return sorted(found)
