"""The columns of all episodes at some evenly spaced times, of the traces of h1 and a5, for what compares episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.records import EpisodeMeasurement, RowTrace, SizeTrace
from fwdata.evidence.signals import Floats


class KnownPaths(NamedTuple):
    """Those of the episodes that have the first one's columns."""

    episodes: tuple[str, ...]
    """Ids of the n episodes."""
    names: tuple[str, ...]
    """D names, "state " or "action " before each."""
    paths: Floats
    """float64 [n, 32, D]."""


def known_paths(episodes: Sequence[EpisodeMeasurement]) -> KnownPaths | None:
    """None where no episode has traces."""
    found = [(m.episode, *traced) for m in episodes if (traced := named_path(m)) is not None]
    found = [each for each in found if each[1] == found[0][1]]
    if not found:
        return None
    return KnownPaths(
        tuple(name for name, *_ in found), found[0][1], np.stack([path for *_, path in found]).astype(np.float64)
    )


def named_path(measurement: EpisodeMeasurement) -> tuple[tuple[str, ...], NDArray[np.float32]] | None:
    """(names, path [32, D]) of an episode; None without traces."""
    path = next((t.path for t in measurement.traces if isinstance(t, RowTrace)), None)
    names = next((t.names for t in measurement.traces if isinstance(t, SizeTrace)), None)
    return (names, path) if path is not None and names is not None and path.shape[1] == len(names) else None
