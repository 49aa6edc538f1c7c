"""The verdicts of a store's parts pooled into those of its data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import batched
from pathlib import Path

import numpy as np

from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.measure import compared_traces
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, Trace
from fwdata.evidence.registry import all_detectors
from fwdata.store.episode import Part
from fwdata.store.evidence import read_evidence, read_part_evidence, write_evidence
from fwdata.store.files import LocalFiles
from fwdata.store.reader import Store, open_store

MAX_COMPARED_ROWS = 2_000_000
"""Rows of a store up to which all its episodes are compared for duplicates."""

AT_ONCE = 32
"""Episodes that are looked at together, and held meanwhile."""


def pool_store(out: Path, accepted: Mapping[str, str], measured: Mapping[str, EpisodeMeasurement]) -> None:
    """Pool the verdicts of all parts and record them, unless that is done.

    measured: by episode, what this run measured, with the words and traces that parts do not keep. Cost: reads the rows
    of the store once, up to `MAX_COMPARED_ROWS`.
    """
    record = read_evidence(LocalFiles(out))
    assert record is not None
    store, first = open_store(out), record.first_verdicts()
    parts = [part.name for part in store.parts]
    if list(record.parts) == parts and record.accepted() == dict(accepted):
        return
    measurements: list[EpisodeMeasurement] = []
    for part in store.parts:
        kept = [episode.id for episode in part.record.episodes]
        if measured.keys() >= set(kept):
            measurements += [measured[name] for name in kept]
        else:
            found = (m for m in read_part_evidence(store.files, part.name) if m.episode in set(kept))
            measurements += [measured.get(m.episode, m) for m in found]
    verdicts: list[DatasetVerdict] = []
    comparing = [detector for detector in all_detectors() if detector.compares]
    traced = _traced(store, [detector.name for detector in comparing], {m.episode: m for m in measurements})
    known = (*first, *record.verdicts())
    for detector in all_detectors():
        before = [v for v in known if v.detector == detector.name]
        if detector in comparing:
            verdicts += detector.pool(traced) or before
        else:
            verdicts += _with_words(detector.pool(measurements), before, keep=detector.needs_images)
    write_evidence(out, record.measured_first, first, verdicts, accepted, parts)


def _traced(
    store: Store, detectors: Sequence[str], measured: Mapping[str, EpisodeMeasurement]
) -> list[EpisodeMeasurement]:
    """What detectors compare of all episodes of a store with each other; [] for a store that is too large. Rows are
    read of parts that this run has not compared as it wrote them."""
    if store.num_frames > MAX_COMPARED_ROWS:
        return []
    none, told = EpisodeMeasurement("", "", ()), dict[str, tuple[Trace, ...]]()
    parts = [part for part in store.parts if part.record.episodes]
    for part in parts:
        traces = {e.id: measured[e.id].compared() for e in part.record.episodes if e.id in measured}
        if len(traces) == len(part.record.episodes) and all(traces.values()):
            told |= traces
    each = (e for part in parts if part.record.episodes[0].id not in told for e in _rows_of(store, part))
    for inputs in batched(each, AT_ONCE):
        told |= zip((e.id for e in inputs), compared_traces(inputs), strict=True)
    return [
        EpisodeMeasurement(e.id, part.record.group, measured.get(e.id, none).of_all(detectors), told[e.id])
        for part in parts
        for e in part.record.episodes
    ]


def _rows_of(store: Store, part: Part) -> Iterator[EpisodeInput]:
    """The episodes of a part that holds any, of whose rows a table holds all: read once, not for every episode."""
    states, actions = (part.array(f"lowdim/{key}") for key in ("state", "action"))
    state, action = states.rows(0, len(states)), actions.rows(0, len(actions))
    names = store.state_names, store.action_names
    for e in part.record.episodes:
        rows = slice(e.start, e.start + e.length)
        times = np.arange(e.length) / store.fps  # no detector compares them
        yield EpisodeInput(e.id, part.record.group, state[rows], action[rows], *names, times, store.fps, e.instruction)


def _with_words(pooled: Sequence[DatasetVerdict], before: Sequence[DatasetVerdict], keep: bool) -> list[DatasetVerdict]:
    """Pooled verdicts of brief records, with the words of those before where theirs are left out.

    keep: verdicts stay where nothing is measured now: images of parts that an earlier run wrote are not read again.
    """
    words = {verdict.subject: verdict for verdict in before}
    seen = {verdict.subject for verdict in pooled}
    found = [v for v in words.values() if v.subject not in seen and (keep or v.verdict == "contradicted")]
    for verdict in pooled:
        known = words.get(verdict.subject)
        if keep and known is not None and verdict.verdict == "no evidence" and known.verdict != "no evidence":
            verdict = known
        elif known is not None:
            same = known.verdict == verdict.verdict
            verdict = replace(
                verdict,
                decided=verdict.decided or known.decided,
                measured=verdict.measured or (known.measured if same else ""),
                detail=verdict.detail or (known.detail if same else ""),
            )
        found.append(verdict)
    return found
