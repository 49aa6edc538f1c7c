"""Single episodes whose images do not move with their joints as those of the others do (d2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from fwdata.evidence.detector import Detector
from fwdata.evidence.neighbours import NextDoor, next_door
from fwdata.evidence.own_lags import MOST, reach_of, scores_of, weights_of
from fwdata.evidence.records import MAX_LISTED, DatasetVerdict, EpisodeMeasurement, MotionTrace
from fwdata.evidence.signals import Floats, centred, correlation, medians, middle, non_negative_fit, shifted

FEWEST, WELL, WORSE, ALIKE = 5, 0.7, 0.35, 0.2
"""Episodes of a camera that are compared, how well the joints explain its images in most, how much worse in one that is
reported, and how near to the others what explains it instead must come.

Of 115 camera episodes of which most are explained so well, none is worse by more than 0.23."""

SHORTEST, TURNS = 30, 8
"""Rows of an episode that is reported, and parts of it by which its joints are shifted, round from its end to its
start, for joints that are not those of its images.

Of 1,160 clean camera episodes whose objects and ways differ, 14 are so much worse: 5 are shorter, and in the other 9
their own joints, with weights of their own, explain the images best. Of 201 in reverse, or of others, none is so."""

OWN_ENOUGH, IN_REVERSE = 0.6, 0.85
"""Correlation of the images with their own joints, by weights of their own, from which on only the joints in reverse
count against them, and those only where they fit so well: where all joints start and stop together, as a script moves
them, those of any episode have humps that fit. Of 66 cameras of such made sets, 11 were reported: their own joints
reach 0.61 to 0.98, those in reverse 0.81. Of 518 planted faults 463 are still found, of 512 before."""

OWN = "images that move with the joints"


class OtherMotion(Detector):
    """d2: the joints explain the images of an episode as well as those of others. Its traces are those of d1."""

    name, code, question, action = "camera_motion", "d2", "images and joints of one episode", "warn"
    advice = "look which rows the images belong to, or leave the episodes out (--exclude)"
    word = "expected"
    needs_images = True

    def pool(self, episodes: Sequence[EpisodeMeasurement]) -> tuple[DatasetVerdict, ...]:
        """One verdict per camera of at least 5 episodes that show motion."""
        found: dict[str, list[tuple[str, MotionTrace]]] = {}
        groups = {measurement.episode: measurement.group for measurement in episodes}
        for measurement in episodes:
            for trace in measurement.motion_traces():
                found.setdefault(trace.camera, []).append((measurement.episode, trace))
        judged = (self._one(camera, traced, groups) for camera, traced in found.items())
        return tuple(verdict for verdict in judged if verdict is not None)

    def _one(
        self, camera: str, traced: Sequence[tuple[str, MotionTrace]], groups: Mapping[str, str]
    ) -> DatasetVerdict | None:
        width = max(trace.speeds.shape[1] for _, trace in traced)
        reach = reach_of([trace for _, trace in traced])
        used = [(n, t) for n, t in traced if t.speeds.shape[1] == width and len(t.energy) > 2 * reach + 8]
        if len(used) < FEWEST:
            return None
        names, traces = [name for name, _ in used], [trace for _, trace in used]
        beside = next_door([(groups[name], name) for name in names], traces)
        if beside is not None:
            return self._beside(camera, names, beside)
        scores = scores_of(traces, reach, np.ones(len(traces), np.bool_))
        for _ in range(2):  # without those that would spoil the weights of others
            lag = int(np.argmax(medians(scores)))
            usual = middle(scores[:, lag])
            odd = scores[:, lag] < usual - WORSE
            scores = scores_of(traces, reach, ~odd) if odd.any() and (~odd).sum() >= FEWEST else scores
        odd = scores[:, lag] < usual - WORSE
        if usual < WELL or odd.sum() > MOST * len(traces):
            return None
        simulated = np.array([trace.simulated for trace in traces])
        late = simulated & (scores.max(axis=1) >= usual - ALIKE)  # d1 reports them with their lag
        partner = _exchanged(traces, np.flatnonzero(odd & ~late).tolist(), usual - ALIKE, lag - reach)
        told = [
            p for p in np.flatnonzero(odd & ~late).tolist() if p in partner or not _has_its_own(traces, p, lag - reach)
        ]
        places = sorted(told, key=lambda place: place not in partner)
        instead = [_with_partner(p, partner, names) or _instead(traces, p, usual, names) for p in places[:1]]
        return self._told(camera, names, places, instead, scores[:, lag])

    def _beside(self, camera: str, names: Sequence[str], found: NextDoor) -> DatasetVerdict:
        odd = [names[place] for place in found.places]
        whose = "the next episode" if found.step > 0 else "the episode before"
        return DatasetVerdict(
            self.name,
            "contradicted",
            camera,
            value=found.other,
            episodes_for=len(names) - len(odd),
            against=len(odd),
            action="warn",
            decided=OWN,
            measured=f"images that move with the joints of {whose}",
            detail=f"r {found.other:.2f}, with their own {found.own:.2f}, from {odd[0]} on",
            episodes=tuple(odd[:MAX_LISTED]),
        )

    def _told(
        self, camera: str, names: Sequence[str], places: Sequence[int], instead: Sequence[str], scores: Floats
    ) -> DatasetVerdict:
        bad = len(places) > 0
        usual = middle(scores)
        return DatasetVerdict(
            self.name,
            "contradicted" if bad else "confirmed",
            camera,
            value=float(scores[places[0]]) if bad else usual,
            episodes_for=len(names) - len(places),
            against=len(places),
            action="warn" if bad else "note",
            decided=OWN,
            measured="images that do not" if bad else OWN,
            detail=f"r {scores[places[0]]:.2f} in {names[places[0]]}, {usual:.2f} in others{instead[0]}" if bad else "",
            episodes=tuple(names[place] for place in places[:MAX_LISTED]),
        )


def _exchanged(traces: Sequence[MotionTrace], odd: Sequence[int], least: float, lag: int) -> dict[int, int]:
    """Episode -> the other one of two whose images fit each other's joints, of those that do not fit their own, by the
    weights of all others: by chance one fits another's joints, but hardly both each other's."""
    kept = [trace for place, trace in enumerate(traces) if place not in odd]
    if len(odd) < 2 or len(kept) < 2:
        return {}
    weights, found = weights_of(kept), dict[int, int]()
    for one, other in combinations(odd, 2):
        if one not in found and other not in found and len(traces[one].energy) >= SHORTEST:
            ways = ((one, other), (other, one))
            fits = (_fit(*shifted(*_as_long(traces[b].speeds @ weights, traces[a].energy), lag)) for a, b in ways)
            if min(fits) >= least:
                found[one], found[other] = other, one
    return found


def _with_partner(place: int, partner: Mapping[int, int], names: Sequence[str]) -> str:
    """Whose images an episode has; "" where it has not exchanged them with another."""
    return f"; {names[place]} and {names[partner[place]]} have each other's images" if place in partner else ""


def _as_long(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """The rows that both have."""
    rows = min(len(one), len(other))
    return one[:rows], other[:rows]


def _has_its_own(traces: Sequence[MotionTrace], place: int, lag: int) -> bool:
    """Whether the images of an episode are too few to tell, or move with its own joints better than with these in
    reverse, and well enough, or better than with them shifted in time or those of another episode, each with the
    weights that fit best: an arm that moves in another part of what a camera sees, or a thing that comes near to it,
    has other weights than most."""
    energy, speeds = traces[place].energy, traces[place].speeds
    if len(energy) < SHORTEST:
        return True
    lags = range(-abs(lag) - 1, abs(lag) + 2)
    own = _own_fit(speeds, energy, lags)
    reverse = _own_fit(speeds[::-1], energy, lags)
    if own >= OWN_ENOUGH:
        return reverse < max(own, IN_REVERSE)
    if reverse >= own:
        return False
    others = [traces[other].speeds for other in range(len(traces)) if other != place]
    turned = [np.roll(speeds, len(speeds) * turn // TURNS, axis=0) for turn in range(1, TURNS)]
    return all(own > _own_fit(each, energy, lags) for each in (*turned, *others))


def _own_fit(speeds: Floats, energy: Floats, lags: range) -> float:
    """The highest correlation of the energy with any weights of the speeds at one of the lags; what is missing of
    shorter speeds stands still."""
    rows = len(energy)
    speeds = np.concatenate([speeds[:rows], np.zeros((max(0, rows - len(speeds)), speeds.shape[1]))])
    best = 0.0
    for lag in lags:
        left, right = shifted(speeds, energy, lag)
        moved = centred(left)
        weights = non_negative_fit(moved.T @ moved, moved.T @ right)
        best = max(best, correlation(left @ weights, right))
    return best


def _instead(traces: Sequence[MotionTrace], place: int, usual: float, names: Sequence[str]) -> str:
    """What explains the images of an episode instead: its own joints backwards, or those of another; "" for nothing."""
    energy, others = traces[place].energy, np.arange(len(traces)) != place
    weights = weights_of([trace for trace, used in zip(traces, others, strict=True) if used])
    if _fit(traces[place].speeds @ weights, energy[::-1]) >= usual - ALIKE:
        return "; in reverse order they do"
    fits = np.array([_fit(trace.speeds @ weights, energy) for trace in traces])
    best = int(np.argmax(np.where(others, fits, -1.0)))
    return f"; they fit the rows of {names[best]} (r {fits[best]:.2f})" if fits[best] >= usual - ALIKE else ""


def _fit(explained: Floats, energy: Floats) -> float:
    return correlation(*_as_long(explained, energy))


DETECTORS = (OtherMotion(),)
