"""Success rates of finished trials by task and suite, with intervals, as JSON, text and the published table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from fwtrain.infer.intervals import Interval, wilson
from fwtrain.infer.trials.plan import EvalPlan
from fwtrain.infer.trials.records import TrialRecord

SHORT = {"libero_spatial": "Spatial", "libero_object": "Object", "libero_goal": "Goal", "libero_10": "Long"}
"""Columns of the published table; other suites keep their names."""


class TallyJson(TypedDict):
    """Successes among trials; the last three are absent before the first trial."""

    successes: int
    """Trials that solved their task."""
    trials: int
    """Finished trials."""
    planned: int
    """Trials that were asked for."""
    rate: NotRequired[float]
    """Success rate, 0 .. 1."""
    interval: NotRequired[list[float]]
    """Its 95 % Wilson interval, [low, high]."""
    mean_steps: NotRequired[float]
    """Steps of the policy on average, limits included."""


class SuiteTallyJson(TallyJson):
    """A suite's trials."""

    by_task: dict[str, TallyJson]
    """By name of the task."""


class EvalSummaryJson(TallyJson):
    """All trials of an evaluation."""

    average: float | None
    """Mean of the suites' rates; null where a suite has no finished trial."""
    by_suite: dict[str, SuiteTallyJson]
    """By name of the suite."""


@dataclass(frozen=True)
class Tally:
    """Trials that belong together."""

    successes: int
    """Trials that solved their task."""
    trials: int
    """Finished trials."""
    planned: int
    """Trials that were asked for."""
    steps: float
    """Steps of the policy on average, limits included."""

    @property
    def interval(self) -> Interval:
        """Success rate with its 95 % Wilson interval."""
        return wilson(self.successes, self.trials)

    def to_json(self) -> TallyJson:
        """Counts, and rate and interval where there are trials."""
        counts: TallyJson = {"successes": self.successes, "trials": self.trials, "planned": self.planned}
        if not self.trials:
            return counts
        found = self.interval
        return {**counts, "rate": found.value, "interval": [found.low, found.high], "mean_steps": self.steps}


@dataclass(frozen=True)
class EvalSummary:
    """Tallies of an evaluation."""

    suites: Mapping[str, Tally]
    """By suite."""
    tasks: Mapping[tuple[str, str], Tally]
    """By (suite, task)."""
    all: Tally
    """Of all trials."""

    @property
    def average(self) -> float | None:
        """Mean of the suites' rates, the published headline; None where a suite has no finished trial."""
        if not self.suites or not all(tally.trials for tally in self.suites.values()):
            return None
        return sum(tally.interval.value for tally in self.suites.values()) / len(self.suites)


def summarise(plan: EvalPlan, records: Iterable[TrialRecord]) -> EvalSummary:
    """Count the plan's trials among finished ones."""
    by_task: dict[tuple[str, str], list[TrialRecord]] = {(t.suite, t.task.name): [] for t in plan.tasks}
    for record in records:
        if record.trial in plan.trials and (record.suite, record.task) in by_task:
            by_task[record.suite, record.task].append(record)
    planned = len(plan.trials)
    suites = {
        suite: _tally([r for key, rs in by_task.items() if key[0] == suite for r in rs], planned * count)
        for suite, count in _count(suite for suite, _ in by_task).items()
    }
    tasks = {key: _tally(found, planned) for key, found in by_task.items()}
    return EvalSummary(suites, tasks, _tally([r for rs in by_task.values() for r in rs], planned * len(by_task)))


def _count(names: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found


def _tally(records: Sequence[TrialRecord], planned: int) -> Tally:
    steps = sum(record.steps for record in records) / len(records) if records else 0.0
    return Tally(sum(record.success for record in records), len(records), planned, steps)


def rate_text(tally: Tally) -> str:
    """`9 of 10, 90.0 % (59.6 to 98.2)`."""
    if not tally.trials:
        return f"0 of {tally.planned} trials finished"
    found = tally.interval
    short = "" if tally.trials == tally.planned else f" of {tally.planned} planned"
    return (
        f"{tally.successes} of {tally.trials}{short}, {100 * found.value:.1f} % "
        f"({100 * found.low:.1f} to {100 * found.high:.1f})"
    )


def published_table(summary: EvalSummary, row: str) -> str:
    """Markdown in the form of the paper's table: a column per suite and their average, percent."""
    heads = ["Method", *(SHORT.get(suite, suite) for suite in summary.suites), "Average"]
    rates = [100 * t.interval.value if t.trials else None for t in summary.suites.values()]
    average = summary.average
    cells = [*rates, None if average is None else 100 * average]
    return "\n".join(
        (
            f"| {' | '.join(heads)} |",
            f"|{'---|' * len(heads)}",
            f"| {row} | {' | '.join('-' if cell is None else f'{cell:.1f}' for cell in cells)} |",
        )
    )


def summary_json(summary: EvalSummary) -> EvalSummaryJson:
    """Tallies by suite and task."""
    return {
        **summary.all.to_json(),
        "average": summary.average,
        "by_suite": {
            suite: {
                **tally.to_json(),
                "by_task": {name: t.to_json() for (of, name), t in summary.tasks.items() if of == suite},
            }
            for suite, tally in summary.suites.items()
        },
    }
