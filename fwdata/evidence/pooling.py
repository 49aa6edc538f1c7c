"""From episodes to a data set: at least three episodes with evidence and nine in ten of one opinion, else mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, PooledOutcome, Severity, Verdict
from fwdata.evidence.signals import middle

MIN_EPISODES = 3
AGREEMENT = 0.9

type EpisodeVerdict = tuple[str, Verdict]
"""(episode id, its verdict)."""


def by_agreement(
    episodes: Sequence[EpisodeMeasurement], detector: str, min_episodes: int = MIN_EPISODES
) -> tuple[DatasetVerdict, ...]:
    """One data set verdict per subject of a detector.

    min_episodes: with fewer episodes of evidence a contradiction warns at most.
    """
    judged: dict[str, list[EpisodeVerdict]] = {}
    for measurement in episodes:
        for verdict in measurement.of(detector):
            judged.setdefault(verdict.subject, []).append((measurement.episode, verdict))
    return tuple(_pooled(detector, subject, found, min_episodes) for subject, found in judged.items())


def agreed(episodes_for: int, against: int) -> PooledOutcome:
    """The verdict of so many episodes for and against."""
    evidence = episodes_for + against
    if not evidence:
        return "no evidence"
    if max(episodes_for, against) >= AGREEMENT * evidence:
        return "confirmed" if episodes_for > against else "contradicted"
    return "mixed"


def outliers(episodes_for: int, against: int) -> bool:
    """Whether the contradicting episodes are exceptions (one, or at most a tenth), to be left out one by one."""
    evidence = episodes_for + against
    return (
        0 < against < evidence and evidence >= MIN_EPISODES and (against == 1 or against <= (1 - AGREEMENT) * evidence)
    )


def _pooled(detector: str, subject: str, judged: Sequence[EpisodeVerdict], min_episodes: int) -> DatasetVerdict:
    by: dict[str, list[EpisodeVerdict]] = {"confirmed": [], "contradicted": [], "no evidence": []}
    for each in judged:
        by[each[1].verdict].append(each)
    good, against, silent = ([verdict for _, verdict in found] for found in by.values())
    outcome = agreed(len(good), len(against))
    shown = {"confirmed": good, "no evidence": silent}.get(outcome) or against
    words = against or shown  # exceptions tell what they measure, also where the others are right
    values = [verdict.value for verdict in shown if verdict.value is not None]
    return DatasetVerdict(
        detector=detector,
        verdict=outcome,
        subject=subject,
        value=middle(np.asarray(values, np.float64)) if values else None,
        episodes_for=len(good),
        against=len(against),
        abstained=len(silent),
        action=severity(shown, len(good), len(against), min_episodes),
        decided=_common(verdict.decided for verdict in shown),
        measured=_common(verdict.measured for verdict in words),
        detail=_common(verdict.detail for verdict in words),
        episodes=tuple(episode for episode, _ in by["contradicted"][:MAX_LISTED]),
    )


def severity(shown: Sequence[Verdict], episodes_for: int, against: int, min_episodes: int) -> Severity:
    """What the pooled verdict does: the detector's own severity, a warning at most where evidence is thin."""
    if not against:
        return "note"
    own: Severity = "stop" if any(v.action == "stop" for v in shown) else "warn"
    if all(v.action == "note" for v in shown):
        own = "note"
    thin = episodes_for + against < min_episodes or outliers(episodes_for, against)
    return "warn" if own == "stop" and thin else own


def _common(words: Iterable[str]) -> str:
    """The most frequent of some texts, the first among equals."""
    texts = [text for text in words if text]
    if len(set(texts)) < 2:
        return texts[0] if texts else ""
    return Counter(texts).most_common(1)[0][0]
