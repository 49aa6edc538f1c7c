"""The splits of meta/info.json, such as `{"train": "0:40", "test": "40:50"}`: episodes that are to be held out."""

from __future__ import annotations

from collections.abc import Sequence

from converters.lerobot.info import INFO, Info
from converters.lerobot.meta import Dataset
from fwdata.errors import UsageError, did_you_mean


def episodes_of(info: Info, names: Sequence[str]) -> frozenset[int] | None:
    """Indices of the episodes of these splits; None where none is named. UsageError for one that is not there."""
    for name in names:
        if name not in info.splits:
            there = ", ".join(_listed(info)) or "none"
            raise UsageError(
                f"option splits: {INFO} has no split {name!r}{did_you_mean(name, info.splits)}; it has {there}"
            )
    spans = [range(*info.splits[name]) for name in names]
    return frozenset().union(*spans) if spans else None


def notes(dataset: Dataset, names: Sequence[str]) -> list[str]:
    """A sentence where episodes are held out by a split and no option says which are taken."""
    info = dataset.info
    spans = list(info.splits.values())
    whole = any(all(first <= index < stop for index in dataset.episodes) for first, stop in spans)
    if names or not spans or (whole and len(set(spans)) == 1):
        return []
    return [
        f"{INFO} has splits that are not used, {', '.join(_listed(info))}: all episodes are taken; --splits takes some "
        "alone"
    ]


def _listed(info: Info) -> list[str]:
    return [f"{name} ({first}:{stop})" for name, (first, stop) in info.splits.items()]
