"""Results per arm over seeds, with 95 % intervals, and what can be concluded from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fwtrain.compare.plan import ComparisonArm
from fwtrain.compare.run import CellResult
from fwtrain.infer import intervals
from fwtrain.infer.intervals import Interval


@dataclass(frozen=True)
class Summary:
    """One arm over all its seeds."""

    arm: ComparisonArm
    """The arm."""
    runs: tuple[CellResult, ...]
    """Its runs, in the order of their seeds."""
    success: Interval | None
    """Success rate of the closed loop with Wilson's interval, the episodes of all seeds pooled (which leaves out that
    episodes of one run are alike); None without a world."""
    score: Interval | None
    """Mean over seeds of the open-loop action error in normalised units, with Student's interval; None without
    validation."""
    mae: Interval | None
    """The same in the robot's units."""
    video_by_horizon: tuple[float, ...] | None
    """Mean over seeds of the video loss of each later latent frame; None without a video loss."""
    versus_success: Interval | None
    """Success rate minus the first arm's, paired by seed and scene; None for the first arm."""
    versus_score: Interval | None
    """`score` minus the first arm's, paired by seed; None for the first arm."""


def summarise(results: Sequence[CellResult]) -> list[Summary]:
    """One summary per arm that has a result, in the order of the results."""
    by_arm: dict[ComparisonArm, list[CellResult]] = {}
    for item in results:
        by_arm.setdefault(item.cell.arm, []).append(item)
    first = next(iter(by_arm.values()), [])
    return [_summary(arm, runs, None if runs is first else first) for arm, runs in by_arm.items()]


def _summary(arm: ComparisonArm, runs: Sequence[CellResult], first: Sequence[CellResult] | None) -> Summary:
    names = sorted(name for name in runs[0].validation if name.startswith("video."))
    return Summary(
        arm=arm,
        runs=tuple(runs),
        success=_success(runs),
        score=_mean(runs, "score"),
        mae=_mean(runs, "action_mae"),
        video_by_horizon=tuple(float(np.mean([run.validation[n] for run in runs])) for n in names) or None,
        versus_success=_versus_success(runs, first) if first else None,
        versus_score=_versus_score(runs, first) if first else None,
    )


def _success(runs: Sequence[CellResult]) -> Interval | None:
    closed = [run.closed for run in runs if run.closed is not None]
    if not closed:
        return None
    return intervals.wilson(sum(item.successes for item in closed), sum(item.episodes for item in closed))


def _mean(runs: Sequence[CellResult], name: str) -> Interval | None:
    values = [run.validation[name] for run in runs if name in run.validation]
    return intervals.mean(values) if values else None


def _versus_success(runs: Sequence[CellResult], first: Sequence[CellResult]) -> Interval | None:
    base = {run.cell.seed: run.closed.outcomes for run in first if run.closed is not None}
    found = [(run.closed.outcomes, base[run.cell.seed]) for run in runs if run.closed and run.cell.seed in base]
    pairs = [(one, other) for one, other in found if one and other]  # none where trials are not finished
    if not pairs:
        return None
    one, other = np.array(pairs, np.bool_).transpose(1, 0, 2).reshape(2, -1)
    return intervals.paired_rates(one, other)


def _versus_score(runs: Sequence[CellResult], first: Sequence[CellResult]) -> Interval | None:
    base = {run.cell.seed: run.validation.get("score") for run in first}
    pairs = [(run.validation.get("score"), base.get(run.cell.seed)) for run in runs]
    differences = [one - other for one, other in pairs if one is not None and other is not None]
    return intervals.mean(differences) if differences else None


def sentences(summaries: Sequence[Summary]) -> list[str]:
    """What the numbers show and what they do not, one sentence per arm and quantity."""
    found = []
    for item in summaries[1:]:
        pair = f"{item.arm.name} against {summaries[0].arm.name}"
        if item.versus_success is not None:
            difference = item.versus_success
            percent = [f"{100 * value:+.0f}" for value in (difference.value, difference.low, difference.high)]
            text = "{} points ({} to {})".format(*percent)
            found.append(f"{pair}, closed-loop success: {text}. {_verdict(difference, 'more', 'fewer', 'successes')}")
        if item.versus_score is not None:
            difference = item.versus_score
            bounded = np.isfinite([difference.low, difference.high]).all()
            bounds = f" ({difference.low:+.4f} to {difference.high:+.4f})" if bounded else ""
            text = f"{difference.value:+.4f}{bounds}"
            found.append(f"{pair}, action error: {text}. {_verdict(difference, 'larger', 'smaller', 'error')}")
    return found


def _verdict(difference: Interval, more: str, less: str, what: str) -> str:
    if not np.isfinite([difference.low, difference.high]).all():
        return "One seed bounds nothing: no difference is shown."
    if not difference.excludes_zero:
        return "The interval includes 0: no difference is shown."
    return f"The interval excludes 0: {more if difference.value > 0 else less} {what}."
