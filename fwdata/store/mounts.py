"""Which files of this machine can be mapped into memory without ending the process when they cannot be read."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

LOCAL = frozenset(["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs", "ramfs", "overlay"])
"""File systems of a machine's own disks and memory, which do not go away while a process runs (mount(8)). Network file
systems do, and those of disks that are pulled out."""

MOUNTS = Path("/proc/self/mountinfo")


def on_own_disk(path: Path) -> bool:
    """Whether a file lies on one of this machine's own disks; False where that cannot be told (systems but Linux)."""
    return _on_own_disk(os.path.realpath(path.parent))


@cache
def _on_own_disk(folder: str) -> bool:
    found, kind = "", ""
    for place, other in _mounts():
        inside = place == "/" or folder == place or folder.startswith(place + "/")
        if inside and len(place) >= len(found):  # the last one mounted there hides those before it
            found, kind = place, other
    return kind in LOCAL


@cache
def _mounts() -> tuple[tuple[str, str], ...]:
    """(folder, kind of file system) of every mount of this process, in the order they were made; proc(5)."""
    try:
        lines = MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        fields, _, rest = line.partition(" - ")
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split(" ")[4])
        found.append((place, rest.split(" ")[0]))
    return tuple(found)
