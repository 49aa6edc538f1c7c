"""Measure one episode with every detector, and pool many."""

from __future__ import annotations

from collections.abc import Sequence

from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import DatasetVerdict, EpisodeMeasurement, Trace, Verdict
from fwdata.evidence.registry import all_detectors

BY_MOTION = ("camera_up_down", "camera_left_right", "wrist_left_right", "camera_quarter_turn")
"""Detectors that compare what an image shows of motion with that of the joints in the same row."""


def measure(
    episode: EpisodeInput, light: bool = False, rows: EpisodeMeasurement | None = None, compared: bool = True
) -> EpisodeMeasurement:
    """All verdicts of one episode. light: of the detectors that look at thumbnails, the light ones only.

    rows: what was measured of the same episode's rows before; those detectors' verdicts are taken from it, and their
    traces left out. compared: with the traces of detectors that compare all episodes, which a conversion makes of its
    store at the end. Cost: see docs/evidence.md; nothing is decoded or read.
    """
    verdicts: list[Verdict] = []
    traces: list[Trace] = []
    for detector in all_detectors():
        if light and detector.needs_images and not detector.light:
            continue
        if rows is not None and not detector.needs_images:
            verdicts += rows.of(detector.name)
        elif len(episode.state) >= detector.min_rows:
            verdicts += detector.measure(episode)
            if compared or not detector.compares:
                traces += detector.trace(episode)
    options = episode.claims.options
    return EpisodeMeasurement(episode.id, episode.group, tuple(verdicts), tuple(traces), options)


def measure_rows(episodes: Sequence[EpisodeInput], traced: bool = False) -> list[EpisodeMeasurement]:
    """What `measure` says of the rows of each episode, for its `rows`. traced: with traces, as of episodes that have no
    images; else without.

    One detector after the other sees all of them: that takes half the time of one episode after the other, as a
    detector's code stays in the processor's caches. What an episode computes for several detectors is held meanwhile.
    """
    verdicts: list[list[Verdict]] = [[] for _ in episodes]
    traces: list[list[Trace]] = [[] for _ in episodes]
    for detector in all_detectors():
        if detector.needs_images:
            continue
        detector.prepare([episode for episode in episodes if len(episode.state) >= detector.min_rows])
        for episode, found, told in zip(episodes, verdicts, traces, strict=True):
            if len(episode.state) >= detector.min_rows:
                found += detector.measure(episode)
                if traced:
                    told += detector.trace(episode)
    return [
        EpisodeMeasurement(each.id, each.group, tuple(found), tuple(told), each.claims.options)
        for each, found, told in zip(episodes, verdicts, traces, strict=True)
    ]


def compared_traces(episodes: Sequence[EpisodeInput]) -> list[tuple[Trace, ...]]:
    """What detectors compare of all episodes of a store with each other, of each of these; see `unclaimed`.

    One detector after the other sees all: its code stays in the processor's caches.
    """
    traces: list[list[Trace]] = [[] for _ in episodes]
    for detector in all_detectors():
        if detector.compares:
            for episode, told in zip(episodes, traces, strict=True):
                told += detector.trace(episode)
    return [tuple(told) for told in traces]


def pool(episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
    """The verdicts of a data set, detectors in order."""
    return in_step(tuple(verdict for detector in all_detectors() for verdict in detector.pool(episodes)))


def in_step(verdicts: tuple[DatasetVerdict, ...]) -> tuple[DatasetVerdict, ...]:
    """The same, but no evidence of how a camera lies by motion that it shows some rows late: what it would be turned to
    for is the delay."""
    late = {v.subject: v.measured for v in verdicts if v.detector == "camera_delay" and v.action == "stop"}
    return tuple(
        DatasetVerdict(
            v.detector,
            "no evidence",
            v.subject,
            abstained=v.episodes_for + v.against + v.abstained,
            decided=v.decided,
            detail=f"{late[v.subject]}, by which motion shows no direction",
        )
        if v.detector in BY_MOTION and v.subject in late and v.against
        else v
        for v in verdicts
    )
