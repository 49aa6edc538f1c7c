"""LIBERO images: pixels streamed from HDF5, turned and resized. Which way they are turned: `orientation`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from converters.shared.hdf5 import (
    MAX_FRAME_BYTES,
    check_written,
    dataset,
    find,
    group_keys,
    naming_file,
    open_recording,
)
from converters.shared.plain_rows import PlainRows, RowsPlace, place_of, plain_rows, rows_at
from fwdata.errors import BadEpisode
from fwdata.images.jpeg import MAX_SIDE
from fwdata.wording import counted

if TYPE_CHECKING:
    import h5py

type Operation = Literal["rot180", "flip_vertical", "none", "mirror"]

WRIST = "eye_in_hand_rgb"
BLOCK_FRAMES = 64
READ_BYTES = 48 << 20
"""Pixels that are read at once: a compressed chunk that spans many frames is not decompressed for every block."""
PLAIN_BYTES = 3 << 19
"""Pixels that are read at once where they are not in chunks: few, so that they stay in the processor's caches."""

type Size = tuple[int, int]


@dataclass(frozen=True)
class DemoImages:
    """One camera's images as a file holds them."""

    key: str
    """Their dataset in the file."""
    rows: int
    """Frames of it."""
    size: Size
    """(height, width) in pixels."""
    place: RowsPlace | None
    """Where they lie in the file; None where HDF5 must read them."""


def recorded_images(path: Path, file: h5py.File, key: str, rows: int) -> DemoImages:
    """The images of a dataset of an open file; BadEpisode where it does not hold `rows` RGB images."""
    node = image_dataset(file, key, rows)
    height, width = node.shape[1:3]
    return DemoImages(key, rows, (int(height), int(width)), place_of(path, node, file))


@dataclass(frozen=True, eq=False)
class DemoPixels:
    """One camera's images; calling it opens a fresh pass over uint8 [n <= 64, H, W, 3] blocks. Picklable."""

    path: Path
    """The HDF5 file."""
    key: str
    """The images' dataset in it."""
    rows: int
    """Recorded frames, which the dataset must have."""
    kept: NDArray[np.int64]
    """int64 [T], ascending indices of the recorded frames that are rows of the episode."""
    operation: Operation
    """How every image is turned."""
    size: Size | None = None
    """(height, width) that the turned images are resized to; None keeps them as they are."""
    place: RowsPlace | None = None
    """Where the images lie in the file, if in one piece: read without opening it as HDF5 again."""

    def __call__(self) -> Iterator[NDArray[np.uint8]]:
        """The blocks cannot be written to, so that they are stored without a copy."""
        for turned in self._turned():
            shown = (
                _copied(turned, np.empty(turned.shape, np.uint8)) if self.size is None else resize(turned, self.size)
            )
            shown.flags.writeable = False
            yield shown

    def into(self, memory: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """See `fwdata.cameras.FillsMemory`."""
        row = 0
        for turned in self._turned():
            small = turned if self.size is None else resize(turned, self.size)
            fits = row + len(small) <= len(memory)
            target = memory[row : row + len(small)] if fits else np.empty(small.shape, np.uint8)
            row += len(small)
            yield _copied(small, target)

    def _turned(self) -> Iterator[NDArray[np.uint8]]:
        """The kept frames in order, turned, at the recorded size; a block is gone when the next one is asked for."""
        if self.place is not None:
            with naming_file(self.path), rows_at(self.path, self.place, _few(self.place.shape)) as plain:
                if plain is not None:
                    yield from self._plain(plain, _few(self.place.shape))
                    return
        with open_recording(self.path) as file:
            node = image_dataset(file, self.key, self.rows)
            with plain_rows(self.path, node, _few(node.shape)) as plain:
                if plain is not None:
                    yield from self._plain(plain, _few(node.shape))
                    return
            for low, high, wanted in self._pieces(max(1, READ_BYTES // _frame_bytes(node.shape))):
                yield from self._blocks(node[low:high], wanted)

    def _plain(self, plain: PlainRows, few: int) -> Iterator[NDArray[np.uint8]]:
        for low, high, wanted in self._pieces(few):
            yield from self._blocks(plain.read(low, high), wanted)

    def _pieces(self, step: int) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """(first, end, which of them are kept) of frames that are read at once; those without any are passed over."""
        for low in range(0, self.rows, step):
            wanted = self.kept[(self.kept >= low) & (self.kept < low + step)] - low
            if len(wanted):
                yield low, min(low + step, self.rows), wanted

    def _blocks(self, read: NDArray[np.uint8], wanted: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        for first in range(0, len(wanted), BLOCK_FRAMES):
            rows = wanted[first : first + BLOCK_FRAMES]
            whole = int(rows[-1] - rows[0]) == len(rows) - 1
            yield turn(read[rows[0] : rows[-1] + 1] if whole else read[rows], self.operation)

    def usual(self) -> NDArray[np.uint8]:
        """All images of the pass at once, as h5py and numpy give them without more ado: what reading costs otherwise.

        uint8 [T, H, W, 3]. Not for conversions: its memory grows with the recording.
        """
        with open_recording(self.path) as file:
            turned = np.ascontiguousarray(turn(image_dataset(file, self.key, self.rows)[()], self.operation))
        if len(self.kept) < self.rows:
            turned = turned[self.kept]
        return turned if self.size is None else resize(turned, self.size)


def _frame_bytes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[1:], dtype=np.int64))


def _few(shape: tuple[int, ...]) -> int:
    """Frames of a dataset of this shape that are read at once where they are not in chunks."""
    return max(1, min(BLOCK_FRAMES, PLAIN_BYTES // _frame_bytes(shape)))


def turn(frames: NDArray[np.uint8], operation: Operation) -> NDArray[np.uint8]:
    """Turn frames [n, H, W, 3]; a view where possible."""
    if operation == "rot180":
        return frames[:, ::-1, ::-1]
    if operation == "flip_vertical":
        return frames[:, ::-1]
    return frames[:, :, ::-1] if operation == "mirror" else frames


def _copied(frames: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The target, which is given the frames [n, H, W, 3]; mirrored ones colour by colour, six times as fast."""
    if frames.strides[2] > 0:
        target[...] = frames
        return target
    for colour in range(3):
        target[..., colour] = frames[..., colour]
    return target


def resize(frames: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Frames [n, H, W, 3] at (height, width) pixels: bilinear with antialias, as Pillow does it; aspect not kept."""
    from PIL import Image

    shown = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    small = [np.asarray(p.resize((size[1], size[0]), Image.Resampling.BILINEAR)) for p in shown]
    return np.stack(small)


def image_dataset(file: h5py.File, key: str, rows: int) -> h5py.Dataset:
    """The dataset, if it holds `rows` RGB images; BadEpisode otherwise."""
    node = dataset(file, key)
    if node is None:
        raise BadEpisode(
            f"{key} is missing{_others(file, key)}; to convert without it, use a manifest whose cameras do not name it"
        )
    if node.ndim != 4 or node.dtype != np.uint8 or node.shape[3] != 3:
        raise BadEpisode(f"{key} must be uint8 of shape (frames, H, W, 3), found {node.dtype} of shape {node.shape}")
    if node.shape[0] != rows:
        raise BadEpisode(
            f"{key} has {counted(node.shape[0], 'frame')}, the actions have {rows}; refusing to cut either"
        )
    if not all(0 < side <= MAX_SIDE for side in node.shape[1:3]) or np.prod(node.shape[1:]) > MAX_FRAME_BYTES:
        raise BadEpisode(f"{key} has images of {node.shape[1]} x {node.shape[2]} pixels; 1 to {MAX_SIDE} is plausible")
    check_written(node, key)
    return node


def _others(file: h5py.File, key: str) -> str:
    """The images that lie where a camera's are missing; "" for none."""
    where, held = key.rpartition("/")[0], []
    for name in group_keys(file, where):
        with suppress(BadEpisode):
            held += [name] if getattr(find(file, f"{where}/{name}"), "ndim", 0) == 4 else []
    return f" (images there: {', '.join(held[:4])})" if held else ""
