"""Start poses: recordings of one simulated robot begin in one pose, and run forward from it (h6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fwdata.evidence.detector import Detector
from fwdata.evidence.episode import EpisodeInput
from fwdata.evidence.pooling import MIN_EPISODES
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, RowTrace, Severity, Verdict
from fwdata.evidence.signals import Floats, known_medians, middle

APART = 0.3
"""Largest difference of a column (rad, or a gripper's 0 .. 1) above which two poses are two: the sample world's begin
within 0.2, RoboTwin's in one."""

ELSEWHERE = 0.6
"""The same between the start of one recording and those of the others, where its end does not explain it."""

BACK = 0.25
"""Share of the distance between two starts within which the end of a recording is the others' start."""

OTHERS = 64
"""Recordings that every one is compared with."""

ONE_POSE = "the robot's start pose in the first row"
REVERSED = "the start pose of others in the last row"


class StartPose(Detector):
    """h6: the first row of a recording is the others' first row, and not their last. Its traces are those of h1."""

    name, code, question, action = "start_pose", "h6", "rows run forward", "stop"
    advice = "record the episodes again with their rows in order, or leave them out (--exclude)"
    word = "expected"
    compares = True

    def measure(self, episode: EpisodeInput) -> tuple[Verdict, ...]:
        """Nothing of one episode alone; that the layout promises one start pose, for `pool`."""
        if not episode.claims.one_start:
            return ()
        return (self.abstain("one recording alone does not tell", decided=ONE_POSE),)

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict for all recordings that promise one start pose and are of one robot."""
        found = [(m.episode, t.path) for m in episodes if m.of(self.name) for t in m.traces if isinstance(t, RowTrace)]
        if len(found) < 2 or len({path.shape for _, path in found}) > 1:
            return super().pool(episodes)
        first = np.stack([path[0] for _, path in found]).astype(np.float64)
        last = np.stack([path[-1] for _, path in found]).astype(np.float64)
        between, back = _to_others(first, first), _to_others(last, first)
        turned = (between > APART) & (back < BACK * between)
        if not turned.any() and _all_reversed(first, last):
            turned[:] = True
        elsewhere = ~turned & (between > ELSEWHERE) & (len(found) - int(turned.sum()) > 1)
        wrong = np.flatnonzero(turned if turned.any() else elsewhere)
        names = [found[index][0] for index in wrong]
        return (self._verdict(names, len(found), bool(turned.any()), float(between[wrong].max(initial=0.0))),)

    def _verdict(self, names: Sequence[str], total: int, turned: bool, apart: float) -> DatasetVerdict:
        if not names:
            return DatasetVerdict(
                self.name, "confirmed", "", 0.0, episodes_for=total, decided=ONE_POSE, measured=ONE_POSE
            )
        action: Severity = "stop" if turned and total >= MIN_EPISODES else "warn"
        measured = REVERSED if turned else "another pose in the first row"
        why = (
            "their rows are in reverse order" if turned else "rows are missing at their start, or the robot is another"
        )
        return DatasetVerdict(
            self.name,
            "contradicted",
            value=apart,
            episodes_for=total - len(names),
            against=len(names),
            action=action,
            decided=ONE_POSE,
            measured=measured,
            detail=f"first rows up to {apart:.2g} rad apart; {why}",
            episodes=tuple(names[:MAX_LISTED]),
        )


def _to_others(poses: Floats, starts: Floats) -> Floats:
    """float64 [n]: largest difference of a column between a pose and the starts of the others, median over these.

    Others are at most `OTHERS` recordings, evenly spread.
    """
    count = len(starts)
    others = np.unique(np.linspace(0, count - 1, min(count, OTHERS)).round().astype(np.int64))
    apart = np.stack([np.abs(poses - starts[other]).max(axis=1) for other in others], axis=1)
    apart[others, np.arange(len(others))] = np.nan
    found: Floats = known_medians(apart, axis=1)
    return found


def _all_reversed(first: Floats, last: Floats) -> bool:
    """Whether all recordings end in one pose and begin in many."""
    starts, ends = _to_others(first, first), _to_others(last, last)
    return bool(middle(starts) > APART and middle(ends) < BACK * middle(starts))


DETECTORS = (StartPose(),)
