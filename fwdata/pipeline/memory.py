"""Memory of worker processes: what is freed is kept for the next recording."""

from __future__ import annotations

import contextlib
import ctypes
import sys

KEPT, SMALL = 16 << 20, 4 << 20
"""Bytes at the end of the heap that a worker keeps though they are free, and of the largest block that lies there."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

_own = False


def be_worker() -> None:
    """Say that this process is a worker, whose memory nobody else uses."""
    global _own
    _own = True


def keep_freed() -> None:
    """Have the C library keep what a worker frees; nothing in other processes, and where it is not glibc.

    Arrays of some 100 KB come and go with every recording. As glibc starts, the memory of each goes back to the system
    and is fetched page by page again: 107,000 page faults for 80 LIBERO recordings, 10,000 with this.
    """
    if _own and sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(_M_TRIM_THRESHOLD, KEPT)
            library.mallopt(_M_MMAP_THRESHOLD, SMALL)
