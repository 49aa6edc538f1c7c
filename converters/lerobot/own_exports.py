"""Datasets that `fwdata export lerobot` wrote, which say more about themselves than others do.

meta/fwdata.json holds the true rate, of which info.json's is a whole number. Copied videos hold frames that no row has:
meta/fwdata_videos.json says how many each file has. Where a file has as many, nothing was lost or added, and every
episode is where its times say. meta/fwdata_episodes.jsonl lists the rows that are not valid, which LeRobot cannot say.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.lerobot.info import EXPORTED, Info, inside, read_json
from converters.lerobot.json_lines import json_lines
from fwdata.errors import UsageError

VIDEOS, EPISODES = "meta/fwdata_videos.json", "meta/fwdata_episodes.jsonl"
_MAX_BYTES = 64 << 20


def counted_frames(folder: Path, name: str) -> int | None:
    """Frames that the export wrote to a file; None for a dataset of another writer."""
    count = _said(folder, VIDEOS).get(name)
    return count if isinstance(count, int) else None


def true_rate(folder: Path, info: Info) -> float | None:
    """Rows per second (Hz) of the store that was exported; None for a dataset of another writer, and for one whose
    info.json was given another rate since."""
    said = _said(folder, EXPORTED)
    rate = said.get("fps")
    if said.get("fps_label") != info.fps or not isinstance(rate, int | float) or not isfinite(rate):
        return None
    return float(rate) if max(1, round(rate)) == info.fps else None


def valid_rows(folder: Path, episode: int, invalid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool [rows], False for rows that are invalid already, and for those that the exported store marked so."""
    valid = ~invalid
    try:
        status = inside(folder, EPISODES).stat()
        found = _invalid(folder, status.st_mtime_ns, status.st_size).get(episode, ()) if _said(folder, EXPORTED) else ()
    except (OSError, UsageError):
        return valid
    if found and max(found) < len(valid):
        valid[list(found)] = False
    return valid


@lru_cache(maxsize=32)
def _invalid(folder: Path, mtime_ns: int, size: int) -> dict[int, tuple[int, ...]]:
    """Invalid rows by episode, of those that have some."""
    listed = {}
    for _, line in json_lines(folder / EPISODES, EPISODES):
        if isinstance(line, str):
            continue
        index, found = line.get("episode_index"), line.get("invalid_frames")
        if isinstance(index, int) and isinstance(found, list) and found:
            listed[index] = tuple(row for row in found if isinstance(row, int) and row >= 0)
    return listed


def _said(folder: Path, name: str) -> Mapping[str, object]:
    """A file of the export; empty where there is none, or not one of JSON."""
    try:
        status = inside(folder, name).stat()
    except (OSError, UsageError):
        return {}
    return _read(folder, name, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=32)
def _read(folder: Path, name: str, mtime_ns: int, size: int) -> Mapping[str, object]:
    try:
        found = read_json(folder / name, name, _MAX_BYTES)
    except UsageError:
        return {}
    return found if isinstance(found, dict) else {}
