"""Verdicts of a store that were lost, measured again from the store itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from fwdata.evidence.measure import measure, pool
from fwdata.evidence.records import EpisodeMeasurement
from fwdata.pipeline.stored_episode import episode_input
from fwdata.store.evidence import read_evidence, write_evidence, write_part_evidence
from fwdata.store.pooling import pool_store
from fwdata.store.reader import Store, open_store

IMAGE_EPISODES = 20
"""Episodes whose images are decoded again, evenly spread over the store."""


def measure_again(path: Path, parts: Collection[str], *, pooled_lost: bool) -> None:
    """Measure the episodes of these parts again and record their verdicts. The caller holds the store's write lock.

    pooled_lost: the verdicts of the data set are lost too, and with them the reasons that the user accepted; all parts
    are measured for them. What only the recordings tell (a quaternion beside the rotation) is not measured again.
    """
    store = open_store(path)
    measured = _measured(store, {part.name for part in store.parts} if pooled_lost else parts)
    for part in store.parts:
        if part.name in parts:
            write_part_evidence(path, part.name, [measured[episode.id] for episode in part.record.episodes])
    record = None if pooled_lost else read_evidence(store.files)
    if record is None:
        verdicts = pool(list(measured.values()))
        write_evidence(path, len(measured), verdicts, verdicts, {})
        pool_store(path, {}, {name: found.uncompared() for name, found in measured.items()})
        return
    kept = record.measured_first, record.first_verdicts(), record.verdicts(), record.accepted()
    write_evidence(path, *kept)
    pool_store(path, record.accepted(), {name: found.uncompared() for name, found in measured.items()})


def _measured(store: Store, parts: Collection[str]) -> Mapping[str, EpisodeMeasurement]:
    count = len(store.episodes)
    shown = set(np.unique(np.linspace(0, count - 1, min(count, IMAGE_EPISODES)).round().astype(int)).tolist())
    wanted = (episode for episode in store.episodes if episode.part.name in parts)
    return {episode.id: measure(episode_input(store, episode, episode.index in shown)) for episode in wanted}
