"""Datasets that `fwdata export lerobot` wrote with copied videos: these hold frames that no row has.

meta/fwdata_videos.json says how many frames each file has. Where a file has as many, nothing was lost or added, and
every episode is where its times say.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from converters.lerobot.info import inside, read_json
from fwdata.errors import UsageError

VIDEOS = "meta/fwdata_videos.json"
_MAX_BYTES = 64 << 20


def counted_frames(folder: Path, name: str) -> int | None:
    """Frames that the export wrote to a file; None for a dataset of another writer."""
    try:
        status = inside(folder, VIDEOS).stat()
    except (OSError, UsageError):
        return None
    count = _counts(folder, status.st_mtime_ns, status.st_size).get(name)
    return count if isinstance(count, int) else None


@lru_cache(maxsize=16)
def _counts(folder: Path, mtime_ns: int, size: int) -> Mapping[str, object]:
    try:
        found = read_json(folder / VIDEOS, VIDEOS, _MAX_BYTES)
    except UsageError:
        return {}
    return found if isinstance(found, dict) else {}
