"""Episodes of a simulator whose joints step further from row to row than in all others: rows are missing (h14)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, Verdict
from fwdata.evidence.signals import CONSTANT, middle, percentile

OTHERS, MOST = 6, 1 / 3
"""Episodes of a group that the others are compared with, and share of them that may be exceptions."""

LARGEST, USUAL = 99.0, 90.0
"""Percentiles, over the rows that move, of the largest step of a joint in a row."""

ALIKE, ABOVE, ALSO = 1.3, 1.5, 1.3
"""A planner drives to one top speed: ratio of the largest steps of the others, by how much those of an exception are
above all of them, and its usual ones above their median. Of 62 recordings of the sample world and RoboTwin's own the
largest steps are within 1.11 of each other; with every second row left out 1.64 times as large at least."""

ONE = "the top speed of the other episodes"


class StepSize(Detector):
    """h14: no episode of a simulator drives its joints much faster than all others do, as where rows were left out."""

    name, code, question, action = "step_size", "h14", "rows of one rate", "warn"
    advice = "convert them apart with a rate of their own (--only, fps.hz of a manifest), or leave them out (--exclude)"
    word = "expected"

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """What `pool` compares, as values of verdicts that agree: the largest steps, and the usual ones."""
        if not episode.claims.simulated:
            return ()
        grippers = {column for claim in episode.claims.grippers for column in claim.state}
        joints = [column for column in range(episode.state.shape[1]) if column not in grippers]
        steps = episode.columns.steps[joints].max(axis=0, initial=0.0)
        moving = steps[steps > CONSTANT]
        if len(moving) < self.min_rows or not np.isfinite(moving).all():
            return ()
        found = (("", LARGEST), ("usual", USUAL))
        return tuple(
            self.verdict("confirmed", "", subject=subject, value=float(percentile(moving, share)), n=len(moving))
            for subject, share in found
        )

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict for all groups whose episodes have one top speed; none where there is no such group."""
        groups: dict[str, list[tuple[str, float, float]]] = {}
        for measurement in episodes:
            sizes = {verdict.subject: verdict.value or 0.0 for verdict in measurement.of(self.name)}
            if len(sizes) == 2:
                groups.setdefault(measurement.group, []).append((measurement.episode, sizes[""], sizes["usual"]))
        told = [(group, odd) for group in groups.values() if (odd := _exceptions(group)) is not None]
        if not told:
            return ()
        odd = [each for _, found in told for each in found]
        return (
            DatasetVerdict(
                self.name,
                "contradicted" if odd else "confirmed",
                value=odd[0][1] if odd else 1.0,
                episodes_for=sum(len(group) for group, _ in told) - len(odd),
                against=len(odd),
                action="warn" if odd else "note",
                decided=ONE,
                measured="a higher one, as where every second row is missing" if odd else ONE,
                detail=f"steps {odd[0][1]:.2f} times as large in {odd[0][0]}" if odd else "",
                episodes=tuple(name for name, _ in odd[:MAX_LISTED]),
            ),
        )


def _exceptions(group: Sequence[tuple[str, float, float]]) -> list[tuple[str, float]] | None:
    """(id, ratio of its largest steps to the others') of those that are faster; None where the others' differ."""
    order = sorted(group, key=lambda each: each[1])
    ratios = [high[1] / low[1] for low, high in pairwise(order)]
    cut = int(np.argmax(ratios)) + 1 if ratios and max(ratios) >= ABOVE else len(order)
    usual, odd = order[:cut], order[cut:]
    if len(usual) < OTHERS or len(odd) > MOST * len(order) or usual[-1][1] > ALIKE * usual[0][1]:
        return None
    typical, top = (middle(np.array([each[place] for each in usual])) for place in (2, 1))
    if any(each[2] < ALSO * typical for each in odd):
        return None
    return [(name, largest / top) for name, largest, _ in odd]


DETECTORS = (StepSize(),)
