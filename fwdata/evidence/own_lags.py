"""Episodes whose camera is late or early although that of the others is not: single ones, or a part of them (d1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fwdata.evidence.camera_lags import Overlaps
from fwdata.evidence.records import DatasetVerdict, MotionTrace
from fwdata.evidence.signals import Floats, lagged_each, middle, non_negative_fit, non_negative_fits

APART, GAIN, SCORE = 2, 0.2, 0.5
"""Rows by which an episode's images are out of step, how much better that lag explains them, and how well.

Of 196 clean episodes of simulators none gains more than 0.09."""

AGREE, MOST = 4, 1 / 3
"""Episodes that must agree on one lag for others to be exceptions, and the largest share of these."""

OFF, DEVIATIONS = 0.12, 5.0
"""Seconds, and robust standard deviations, by which the lag of one episode's state behind its action is off that of
the others; true episodes differ by up to 0.04 (G1) and 0.06 s (the two-arm robot) from their median."""

FEWEST, BETWEEN, AROUND, CLUSTERED = 3, 2.0, 1.5, 0.8
"""Episodes of either part at least, rows between both and around each, and the share of episodes that lie there.

None of 2,000 draws of 6 to 10 clean episodes of the sample world's head camera, Unitree G1 and the two-arm robot parts
so."""

BETWEEN_MOUNTED = 3.5
"""The same rows for a camera on an arm. Of 720 draws of 10 clean episodes of the sample world's wrist cameras, which
measure -1 to 2 rows each, 135 part by 2 rows, 20 by 3, 2 by 3.5; where half is 6 rows late or early 192 of 288 do."""

CLEARER, ROUNDS, STARTS = 0.025, 4, (-6, -4, -2, 0, 2, 4, 6)
"""How much better its own lag explains a part than the other's (median), how often lags and weights are found, and the
lags in rows of all from which that begins: from none, parts whose joints differ do not come apart."""

RIDGE, LEAST = 1e-9, 1e-12
"""Share of the joints' own products, and what, is added to them so that joints that move alike have weights."""

LONGEST_SECONDS = 0.5
"""Longest lag that is tried: motion that comes back looks alike after longer ones."""


class OwnLag(NamedTuple):
    """An episode that is out of step with the others."""

    place: int
    """Which of the traces it is."""
    lag: float
    """Rows by which its image is behind the state."""
    score: float
    """Correlation of its image energy with what the joints explain, at that lag."""
    expected: float
    """The same without a lag."""


def exceptions(traces: Sequence[MotionTrace]) -> tuple[OwnLag, ...]:
    """Episodes whose images fit another lag much better than none; () where they are many, or others few.

    The weights of the joints are those of the other episodes without a lag, so that each episode only chooses its own.
    Cost: some 5 us per lag and episode.
    """
    width = max(t.speeds.shape[1] for t in traces)
    reach = reach_of(traces)
    places = [i for i, t in enumerate(traces) if t.speeds.shape[1] == width and len(t.energy) > 2 * reach + 8]
    if len(places) <= AGREE:
        return ()
    used = [traces[place] for place in places]
    kept = np.ones(len(used), np.bool_)
    for _ in range(2):
        scores = scores_of(used, reach, kept)
        own = scores.argmax(axis=1) - reach
        near = np.abs(own) < APART
        if near.sum() < AGREE:
            return ()
        if (near == kept).all():
            break  # the scores are those without the others already
        kept = near
    best, expected = scores.max(axis=1), scores[:, reach]
    found = [
        OwnLag(places[i], float(own[i]), float(best[i]), float(expected[i]))
        for i in np.flatnonzero(~kept & (best >= SCORE) & (best - expected >= GAIN))
    ]
    return tuple(found) if len(found) <= MOST * len(used) else ()


def parted(traces: Sequence[MotionTrace]) -> tuple[tuple[OwnLag, ...], tuple[OwnLag, ...]]:
    """(episodes that are nearer to no lag, those of another one) where the lags fall into two parts; both empty else.

    Weights of the joints and own lags are found in turns, as neither is known where half of the episodes are out of
    step. `expected` is the correlation at the other part's lag. Cost: 4 ms for ten episodes of ten joints.
    """
    width, reach = max(t.speeds.shape[1] for t in traces), reach_of(traces)
    places = [i for i, t in enumerate(traces) if t.speeds.shape[1] == width and len(t.energy) > 4 * reach]
    if len(places) < 2 * FEWEST:
        return (), ()
    shown = _AtLags([traces[place] for place in places], reach)
    if (shown.most() >= SCORE).sum() < 2 * FEWEST:
        return (), ()
    starts = sorted({min(max(start, -reach), reach) for start in STARTS}, key=abs)
    scores = shown.settled(np.array(starts))
    own = scores.argmax(axis=1) - reach
    good = np.flatnonzero(scores.max(axis=1) >= SCORE)
    parts = _two_parts(own[good].astype(np.float64), BETWEEN_MOUNTED if traces[0].mounted else BETWEEN)
    if parts is None:
        return (), ()
    near, far = sorted(parts, key=abs)
    found = []
    nearer = np.abs(own[good] - near) <= np.abs(own[good] - far)  # no episode is of both parts
    for here, other, sides in ((near, far, nearer), (far, near, ~nearer)):
        members = good[sides & (np.abs(own[good] - here) <= AROUND)]
        lags, best, else_ = own[members], scores[members].max(axis=1), scores[members, reach + round(other)]
        gain = middle(best - else_) if len(members) else 0.0
        if len(members) < FEWEST or gain < CLEARER:
            return (), ()
        rows = zip(members, lags, best, else_, strict=True)
        found.append(tuple(OwnLag(places[i], float(k), float(b), float(e)) for i, k, b, e in rows))
    return (found[0], found[1]) if len(found[0]) + len(found[1]) >= CLUSTERED * len(good) else ((), ())


class _AtLags:
    """What the images of n episodes have to do with their D joints, at each of L lags from -reach to reach."""

    def __init__(self, traces: Sequence[MotionTrace], reach: int) -> None:
        overlaps = [Overlaps(trace, reach) for trace in traces]
        self._reach = reach
        self._grams = np.stack([each.grams() for each in overlaps])
        self._moments = np.stack([each.moments for each in overlaps])
        self._squares = np.stack([each.squares for each in overlaps])

    def most(self) -> Floats:
        """float64 [n], the highest correlation that any weights give at any lag, which no fit to others exceeds."""
        width = self._grams.shape[-1]
        ridge = RIDGE * np.trace(self._grams, axis1=2, axis2=3) + LEAST
        ridged = self._grams + ridge[..., None, None] * np.eye(width)
        weights = np.linalg.solve(ridged, self._moments[..., None])[..., 0]
        shares = _ratio((weights * self._moments).sum(axis=2), self._squares)
        found: Floats = np.sqrt(np.maximum(shares.max(axis=1), 0.0))
        return found

    def settled(self, starts: NDArray[np.int64]) -> Floats:
        """float64 [n, L], as `scores_of`, once weights and lags were found in turns: from the best of the lags that all
        begin with."""
        count = len(self._grams)
        own, episodes = starts[:, None].repeat(count, axis=1), np.arange(count)
        for _ in range(ROUNDS):
            grams, moments = (held[episodes, own + self._reach] for held in (self._grams, self._moments))
            left, right = (each.sum(axis=1, keepdims=True) - each for each in (grams, moments))
            weights = non_negative_fits(left.reshape(-1, *left.shape[2:]), right.reshape(-1, right.shape[2]))
            scores = self._scores(weights.reshape(right.shape))
            before, own = own, scores.argmax(axis=2) - self._reach
            if (own == before).all():
                break
        best: Floats = scores[scores.max(axis=2).mean(axis=1).argmax()]
        return best

    def _scores(self, weights: Floats) -> Floats:
        """float64 [S, n, L], correlations by weights [S, n, D]."""
        each = weights.swapaxes(0, 1)[:, None]  # [n, 1, S, D]
        explained = ((each @ self._grams) * each).sum(axis=3)
        covered = (self._moments[:, :, None] * each).sum(axis=3)
        found = _ratio(covered, np.sqrt(np.maximum(explained, 0.0) * self._squares[:, :, None]))
        return found.transpose(2, 0, 1)


def _ratio(above: Floats, below: Floats) -> Floats:
    """0 where nothing varies."""
    found: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > LEAST)
    return found


def _two_parts(lags: Floats, between: float) -> tuple[float, float] | None:
    """Medians of the two parts that lags [n] in rows fall into, the lower first; None where they are not far apart."""
    if len(lags) < 2 * FEWEST:
        return None
    ordered = np.sort(lags)
    cuts = range(FEWEST, len(ordered) - FEWEST + 1)
    halves = [(ordered[:cut], ordered[cut:]) for cut in cuts]
    low, high = min(halves, key=lambda parts: sum(np.abs(part - middle(part)).sum() for part in parts))
    return (middle(low), middle(high)) if middle(high) - middle(low) >= between else None


def odd_lags(lags: Floats) -> NDArray[np.int64]:
    """Which of the lags [n] in s, one per episode, are far off the others'; none of fewer than five, or where they
    are many."""
    if len(lags) <= AGREE:
        return np.empty(0, np.int64)
    off = np.abs(lags - middle(lags))
    found = np.flatnonzero(off > max(OFF, DEVIATIONS * 1.4826 * middle(off)))
    return found if len(found) <= MOST * len(lags) else np.empty(0, np.int64)


def two_parts(lags: Floats) -> NDArray[np.int64]:
    """Which of the lags [n] in s, one per episode, are the smaller part of two that lie far apart, each close together;
    the later lags of two equal parts, none where there are no such parts of at least three episodes."""
    order = np.argsort(lags, kind="stable")
    values, last = lags[order], len(lags) - PART
    if last < PART:
        return np.empty(0, np.int64)
    gaps = np.diff(values)[PART - 1 : last]
    place = PART + int(np.argmax(gaps))
    spread = max(values[place - 1] - values[0], values[-1] - values[place])
    if gaps.max() < max(PART_GAP, PART_SPREADS * spread):
        return np.empty(0, np.int64)
    return np.sort(order[place:] if 2 * place >= len(lags) else order[:place])


PART, PART_GAP, PART_SPREADS = 3, 0.05, 5.0
"""Episodes of a part, seconds between two parts, and how many times the spread within one that is at least: of 120,000
draws of 7 to 20 lags of one distribution (normal, Laplace, t, even) 11 have two parts."""


def typical(found: Sequence[OwnLag]) -> float:
    """Their median lag in rows."""
    return middle(np.asarray([each.lag for each in found], np.float64))


def reach_of(traces: Sequence[MotionTrace]) -> int:
    """Rows that an episode is shifted by at most: 0.5 s, less in short episodes."""
    rows = middle(np.asarray([len(t.energy) for t in traces], np.float64))
    return max(6, min(round(LONGEST_SECONDS * traces[0].hz), int(rows) // 5))


def weights_of(traces: Sequence[MotionTrace]) -> Floats:
    """float64 [D], weights of the joints that explain the images of some episodes without a lag."""
    zero, products = np.zeros(traces[0].speeds.shape[1]), [t.products for t in traces]
    return non_negative_fit(
        sum((gram for gram, _, _ in products), np.diag(zero)), sum((m for _, m, _ in products), zero)
    )


def scores_of(traces: Sequence[MotionTrace], reach: int, kept: NDArray[np.bool_]) -> Floats:
    """float64 [n, 2 reach + 1]: correlation of each episode at every lag, by the weights of the other kept ones."""
    if kept.all():
        return _scores_of_all(tuple(traces), reach)
    return _lagged_scores(traces, reach, _weights_without(traces, kept))


@lru_cache(maxsize=8)
def _scores_of_all(traces: tuple[MotionTrace, ...], reach: int) -> Floats:
    """The same where all are kept, as both detectors ask of every camera first."""
    return _lagged_scores(traces, reach, _weights_without(traces, np.ones(len(traces), np.bool_)))


def scores_in_step(traces: Sequence[MotionTrace]) -> Floats:
    """float64 [n], the same without a lag and of all, from the products alone."""
    weights = _weights_without(traces, np.ones(len(traces), np.bool_))
    grams, moments, squares = (np.stack(each) for each in zip(*(t.products for t in traces), strict=True))
    explained = ((grams @ weights[..., None])[..., 0] * weights).sum(axis=1)
    return _ratio((moments * weights).sum(axis=1), np.sqrt(np.maximum(explained, 0.0) * squares))


def _weights_without(traces: Sequence[MotionTrace], kept: NDArray[np.bool_]) -> Floats:
    """float64 [n, D], weights of the joints by the other kept ones of n episodes."""
    grams, moments = (np.stack([t.products[place] for t in traces]) for place in (0, 1))
    left = grams[kept].sum(axis=0) - grams * kept[:, None, None]
    right = moments[kept].sum(axis=0) - moments * kept[:, None]
    return non_negative_fits(left, right)


def _lagged_scores(traces: Sequence[MotionTrace], reach: int, weights: Floats) -> Floats:
    """float64 [n, 2 reach + 1]: correlation of each episode at every lag, by weights [n, D]."""
    pairs = [((t.speeds @ each)[:, None], t.energy[:, None]) for t, each in zip(traces, weights, strict=True)]
    return np.stack([each[:, 0] for each in lagged_each(pairs, [range(-reach, reach + 1)] * len(pairs))])


SLIGHTLY = 1.5
"""Rows by which one camera alone is not called early where another one is in step."""


def beside_steady(verdicts: Sequence[DatasetVerdict]) -> tuple[DatasetVerdict, ...]:
    """The same, but no evidence for a camera all of whose images seem a row or so early while another one is in step:
    lossy video of small motion looks so, and no camera shows what is to come."""
    steady = next((v.subject for v in verdicts if v.verdict == "confirmed"), None)
    return tuple(v if steady is None or not _slightly_early(v) else _silenced(v, steady) for v in verdicts)


def _slightly_early(verdict: DatasetVerdict) -> bool:
    early = verdict.value is not None and -SLIGHTLY < verdict.value < 0
    return early and verdict.verdict == "contradicted" and not verdict.episodes_for


def _silenced(verdict: DatasetVerdict, steady: str) -> DatasetVerdict:
    reason = f"{verdict.measured}, and {steady} is in step"
    name, subject = verdict.detector, verdict.subject
    return DatasetVerdict(
        name, "no evidence", subject, abstained=verdict.against, decided=verdict.decided, detail=reason
    )
