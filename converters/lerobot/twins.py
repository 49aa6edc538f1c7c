"""Datasets below one folder that hold the same recordings: a backup beside its original, an older version, a copy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converters.lerobot import hub
from converters.lerobot.discovery import DatasetFolder
from converters.lerobot.meta import Dataset, EpisodeMeta, load_dataset
from converters.lerobot.parquet import column_names, read_span
from converters.lerobot.values import Floats, numbers
from fwdata.errors import BadEpisode, UsageError
from fwdata.wording import counted

SAMPLED = 3
"""Episodes whose rows are compared before two datasets are called the same."""

_COPY = re.compile(r"(^|[_\-. ])(old|backup|bak|copy|orig|original|v\d[\d.]*)($|[_\-. /])", re.IGNORECASE)


@dataclass(frozen=True)
class Twin:
    """A dataset whose recordings another one holds."""

    place: DatasetFolder
    """The copy."""
    original: DatasetFolder
    """The dataset that is kept."""
    episodes: frozenset[int]
    """Indices of the episodes that both have, with equal rows."""
    complete: bool
    """Whether the copy has no other episodes."""

    def sentence(self) -> str:
        """Why the copy, or its episodes, are left out."""
        return (
            f"{self.place.relative or 'it'} holds the same recordings as {self.original.relative or 'another dataset'} "
            f"({counted(len(self.episodes), 'episode')} with equal rows): a backup or a copy, left out; "
            "--copies keep takes both"
        )


def twins(places: Sequence[DatasetFolder]) -> list[Twin]:
    """Datasets that are copies of others, each with the one that is kept.

    Kept is the one without "old", "backup" and the like in its name, then the snapshot of the main branch in the hub's
    cache, then the newer version, then the first. Two are the same when episodes of equal number and length have equal
    rows. Cost: nothing for datasets that share no lengths, the rows of three episodes for others, those of all episodes
    for copies.
    """
    loaded: list[tuple[DatasetFolder, Dataset]] = []
    for place in places:
        try:
            loaded.append((place, load_dataset(place.folder)))
        except UsageError:
            continue
    loaded.sort(
        key=lambda pair: (
            bool(_COPY.search(pair[0].folder.name)),
            hub.is_outdated(pair[0].folder),
            _older(pair[1]),
            pair[0].relative,
        )
    )
    found: list[Twin] = []
    kept: list[tuple[DatasetFolder, Dataset]] = []
    for place, dataset in loaded:
        match = next((t for other in kept if (t := _twin(place, dataset, *other)) is not None), None)
        if match is None:
            kept.append((place, dataset))
        else:
            found.append(match)
    return found


def _older(dataset: Dataset) -> tuple[int, ...]:
    return tuple(-int(part) for part in dataset.info.version.strip("v").split("."))


def _twin(place: DatasetFolder, dataset: Dataset, original: DatasetFolder, other: Dataset) -> Twin | None:
    """The twin of two datasets that are one, else None; those of other cameras or another rate are not."""
    one, two = dataset.info, other.info
    if (one.robot, one.fps, {*one.image_features()}) != (two.robot, two.fps, {*two.image_features()}):
        return None
    shared = [
        entry
        for entry in dataset.episodes.values()
        if entry.index in other.episodes and other.episodes[entry.index].length == entry.length
    ]
    sample = [shared[i] for i in np.linspace(0, len(shared) - 1, min(SAMPLED, len(shared))).round().astype(int)]
    if not sample or not all(_equal(dataset, entry, other, other.episodes[entry.index]) for entry in sample):
        return None
    same = frozenset(e.index for e in shared if _equal(dataset, e, other, other.episodes[e.index]))
    return Twin(place, original, same, len(same) == len(dataset.episodes))


def _equal(one: Dataset, first: EpisodeMeta, other: Dataset, second: EpisodeMeta) -> bool:
    """Whether two episodes have equal numbers in all the features of numbers that both have (more than bookkeeping)."""
    try:
        left, right = _rows(one, first), _rows(other, second)
    except BadEpisode:
        return False
    keys = left.keys() & right.keys()
    moving = [key for key in keys if np.ptp(left[key], axis=0).any()]
    return bool(moving) and all(
        left[key].shape == right[key].shape and np.allclose(left[key], right[key], rtol=0, atol=1e-6) for key in keys
    )


_BOOKKEEPING = frozenset({"timestamp", "frame_index", "episode_index", "index", "task_index"})


def _rows(dataset: Dataset, entry: EpisodeMeta) -> dict[str, Floats]:
    span = dataset.span(entry)
    there = set(column_names(span))
    keys = [
        f.key for f in dataset.info.features.values() if f.is_numbers and f.key in there and f.key not in _BOOKKEEPING
    ]
    keys = [key for key in keys if not key.endswith("index")]
    table = read_span(span, keys)
    return {key: numbers(table, span.name, key, dataset.info.features[key].size) for key in keys}
