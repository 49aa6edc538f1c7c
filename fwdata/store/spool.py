"""Frames and buffers of an episode in flight, in memory up to a limit, then in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fwdata.io import naming

PIECE_BYTES = 2**20
"""Small buffers are handed out joined, about so many bytes at a time."""


class FrameMemory:
    """Memory for the frames of one camera, one episode after another.

    What is allocated anew for every episode goes back to the system meanwhile, and comes back page by page. Whoever
    looks at the frames of an episode must be done before those of the next one are asked for.
    """

    def __init__(self, most: int) -> None:
        """most: bytes that are kept."""
        self._most = most
        self._bytes = np.empty(0, np.uint8)

    def room(self, frames: int, height: int, width: int) -> NDArray[np.uint8] | None:
        """uint8 [frames, height, width, 3], which the next call hands out again; None where that is too much."""
        size = frames * height * width * 3
        if size > self._most:
            return None
        if size > len(self._bytes):
            self._bytes = np.empty(0, np.uint8)  # lets go of the old before the new is made
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size].reshape(frames, height, width, 3)


class HeldBuffers:
    """Buffers in order, unchanged until `close` lets go of them, to be read again once or more.

    folder: of the temporary file. memory: bytes that are held without one; buffers are not copied for it.
    """

    def __init__(self, folder: Path, memory: int) -> None:
        self._folder, self._memory = folder, memory
        self._kept: list[bytes | memoryview] = []
        self._file: IO[bytes] | None = None
        self.lengths: list[int] = []
        self.bytes = 0

    def add(self, data: bytes | memoryview) -> None:
        """Take in one buffer."""
        self.lengths.append(len(data))
        self.bytes += len(data)
        with naming(self._folder):
            if self._file is None and self.bytes > self._memory:
                self._file = tempfile.TemporaryFile(dir=str(self._folder))  # noqa: SIM115 - closed by close()
                self._file.writelines(self._kept)
                self._kept = []
            if self._file is None:
                self._kept.append(data)
            else:
                self._file.write(data)

    def pieces(self) -> Iterator[bytes | memoryview]:
        """All buffers again, whole ones, joined to pieces of about PIECE_BYTES."""
        if self._file is not None:
            self._file.seek(0)
        first, size = 0, 0
        for number, length in enumerate(self.lengths, 1):
            size += length
            if size >= PIECE_BYTES or number == len(self.lengths):
                kept = self._kept[first:number]
                if self._file is not None:
                    yield self._file.read(size)
                else:
                    yield kept[0] if len(kept) == 1 else b"".join(kept)
                first, size = number, 0

    def close(self) -> None:
        """Let go of the buffers, and remove the temporary file."""
        self._kept = []
        if self._file is not None:
            self._file.close()


def frame_bytes(block: NDArray[np.uint8]) -> bytes | memoryview:
    """The bytes of a block of frames, copied unless it owns them and cannot be written to."""
    flags = block.flags
    kept = flags.c_contiguous and flags.owndata and not flags.writeable
    return memoryview(block.reshape(-1)) if kept else block.tobytes()


def is_memory(block: NDArray[np.uint8], memory: NDArray[np.uint8]) -> bool:
    """Whether a block of frames is this contiguous memory."""
    return block.shape == memory.shape and block.flags.c_contiguous and _address(block) == _address(memory)


def _address(block: NDArray[np.uint8]) -> int:
    found: int = block.__array_interface__["data"][0]
    return found
