"""Buffers of an episode in flight, in memory up to a limit, then in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PIECE_BYTES = 2**20
"""Small buffers are handed out joined, about so many bytes at a time."""


class HeldBuffers:
    """Immutable buffers in order, to be read again once or more; `close` lets go of them.

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
