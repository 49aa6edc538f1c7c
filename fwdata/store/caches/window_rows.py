"""Latents of training windows, any number in one call, into memory of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from fwdata.errors import StoreError
from fwdata.store.row_reader import RowReader, Verify

if TYPE_CHECKING:
    from fwdata.store.array import ChunkedArray
    from fwdata.store.episode import Part, StoredEpisode


class LatentArrays(Protocol):
    """What is asked of a latent cache."""

    @property
    def name(self) -> str: ...
    @property
    def stride(self) -> int: ...
    def array(self, part: Part, name: str) -> ChunkedArray: ...
    def first_window(self, episode: StoredEpisode) -> int: ...


type Owner = tuple[LatentArrays, StoredEpisode]


class WindowRows:
    """First-frame and future latents of the windows of some episodes, of one cache or of several of equal shape.

    owners: the cache and the episode behind every episode number that `read` takes. A part is looked up when one of its
    windows is read first. Thread-safe and picklable; safe to use after a fork.
    """

    def __init__(self, owners: Sequence[Owner], verify: Verify = "always") -> None:
        self._owners, self._verify = list(owners), verify
        parts: dict[tuple[int, str], int] = {}
        self._parts: list[tuple[LatentArrays, Part]] = []
        for cache, episode in self._owners:
            if (id(cache), episode.part.name) not in parts:
                parts[id(cache), episode.part.name] = len(self._parts)
                self._parts.append((cache, episode.part))
        self._part = np.array([parts[id(cache), e.part.name] for cache, e in self._owners], np.int64)
        self._length = np.array([e.num_frames for _, e in self._owners], np.uint64)
        self._frame = np.array([e.start for _, e in self._owners], np.int64)
        self._window = np.full(len(self._owners), -1, np.int64)
        self._stride = self._owners[0][0].stride if self._owners else 1
        self._ready = np.zeros(len(self._parts), np.bool_)
        self._waiting = len(self._parts)
        self._first, self._future = RowReader(verify), RowReader(verify)
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def __reduce__(self) -> tuple[type[WindowRows], tuple[list[Owner], Verify]]:
        return WindowRows, (self._owners, self._verify)

    def read(
        self,
        episode: NDArray[np.int64],
        start: NDArray[np.int64],
        out_first: NDArray[np.float16],
        out_future: NDArray[np.float16] | None = None,
    ) -> None:
        """Fill the buffers with the latents of n windows.

        episode: int64 [n], episode numbers. start: int64 [n], first frames. out_first: float16 [n, C, h, w].
        out_future: float16 [n, C, f-1, h, w], or None when future latents are not needed. Both C-contiguous.
        About 20 us a window of 24x20 latents when they are in the page cache. Raises IndexError for a frame outside its
        episode, StoreError for a window without future latents or a part that is not encoded yet, StoreDamaged for
        bytes whose checksum does not hold. Also IndexError for an episode number that is none of the owners', and
        ValueError for arrays or buffers of another form.
        """
        _check_numbers(episode, start)
        _check_buffers(len(episode), out_first, out_future)
        unknown = _outside(episode, len(self._owners))
        if unknown is not None:
            raise IndexError(f"episodes are numbered 0..{len(self._owners) - 1}, asked for {episode[unknown]}")
        outside = _outside(start, self._length[episode])
        if outside is not None:
            self._refuse_frame(int(episode[outside]), int(start[outside]))
        part = self._part[episode]
        if self._waiting and not self._ready[part].all():
            for number in np.unique(part[~self._ready[part]]).tolist():
                self._open(number)
        self._check_shapes(out_first, out_future)
        self._first.read(part, self._frame[episode] + start, out_first)
        if out_future is not None:
            step, rest = (start, None) if self._stride == 1 else np.divmod(start, self._stride)
            if rest is not None and rest.any():
                wrong = int(np.flatnonzero(rest)[0])
                self._refuse_start(int(episode[wrong]), int(start[wrong]))
            self._future.read(part, self._window[episode] + step, out_future)

    def _open(self, number: int) -> None:
        cache, part = self._parts[number]
        first, future = cache.array(part, "first"), cache.array(part, "future")
        self._first.add(number, first)
        self._future.add(number, future)
        self._shapes = self._shapes or (first.shape[1:], future.shape[1:])
        for position in np.flatnonzero(self._part == number).tolist():
            self._window[position] = cache.first_window(self._owners[position][1])
        self._ready[number] = True
        self._waiting = int(np.count_nonzero(~self._ready))

    def _check_shapes(self, *buffers: NDArray[np.float16] | None) -> None:
        """ValueError for a buffer whose rows have another shape: of equal size, they would be filled all the same."""
        for buffer, shape in zip(buffers, self._shapes or (), strict=False):
            if buffer is not None and buffer.shape[1:] != shape:
                raise ValueError(f"a buffer's rows must have the shape {shape} of latents, found {buffer.shape[1:]}")

    def _refuse_frame(self, number: int, frame: int) -> None:
        episode = self._owners[number][1]
        raise IndexError(f"episode {episode.id} has frames 0..{episode.num_frames - 1}, asked for {frame}")

    def _refuse_start(self, number: int, frame: int) -> None:
        cache, episode = self._owners[number]
        raise StoreError(
            f"episode {episode.id} has no future latents at frame {frame}: latent cache {cache.name!r} has window "
            f"starts 0, {cache.stride}, .. below {episode.num_frames}"
        )


def _outside(numbers: NDArray[np.int64], below: int | NDArray[np.uint64]) -> int | None:
    """Position of the first number that is negative or not below its bound."""
    wrong = numbers.astype(np.int64, copy=False).view(np.uint64) >= below  # negative ones are the largest
    return int(np.flatnonzero(wrong)[0]) if np.count_nonzero(wrong) else None


def _check_numbers(episode: NDArray[np.int64], start: NDArray[np.int64]) -> None:
    if episode.ndim != 1 or episode.shape != start.shape or (episode.dtype.kind, start.dtype.kind) != ("i", "i"):
        found = f"{episode.dtype} {list(episode.shape)} and {start.dtype} {list(start.shape)}"
        raise ValueError(f"episode and start must be int64 [n] of one length, found {found}")


def _check_buffers(windows: int, *buffers: NDArray[np.float16] | None) -> None:
    for buffer in buffers:
        if buffer is None:
            continue
        if buffer.dtype != np.float16 or not buffer.flags.c_contiguous or len(buffer) != windows:
            raise ValueError(f"a buffer for {windows} windows must be C-contiguous float16 with {windows} rows")
