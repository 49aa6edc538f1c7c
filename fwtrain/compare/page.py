"""What a comparison writes: results.json, comparison.svg and report.html."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from fwdata.io import write_atomic, write_json
from fwdata.report import Range, RangePanel, Report, range_plot, standalone
from fwdata.report.markup import BLANK
from fwdata.wording import counted, verb
from fwtrain.compare.plan import ClosedLoopSettings, ComparisonPlan
from fwtrain.compare.run import CellResult
from fwtrain.compare.summary import Summary, sentences, summarise
from fwtrain.infer.evaluate import EvalResult
from fwtrain.infer.intervals import Interval
from fwtrain.infer.trials.loop import Unfinished
from fwtrain.recipe import Recipe
from fwtrain.train.folder import REPORT

RESULTS, PLOT = "results.json", "comparison.svg"
WORLDS = {"sample": "sample world"}
"""What pages call worlds; a benchmark has its own name."""


def write_comparison(plan: ComparisonPlan, results: Sequence[CellResult]) -> Path:
    """Write the three files, each whole or not at all, from the results so far; returns the page's path."""
    summaries = summarise(results)
    write_json(plan.out / RESULTS, to_json(plan, summaries))
    panels = plot_panels(summaries, plan.env)
    if panels:
        write_atomic(plan.out / PLOT, standalone(range_plot(panels)).encode())
    return _page(plan, summaries, panels).write(plan.out / REPORT)


class IntervalJson(TypedDict):
    """A value with its 95 % interval; null where nothing bounds it."""

    value: float | None
    """The estimate."""
    low: float | None
    """Lower bound."""
    high: float | None
    """Upper bound."""


class ComparedRunJson(TypedDict):
    """One run of an arm."""

    seed: int
    """Its seed."""
    folder: str
    """Its folder below that of the comparison."""
    steps: int
    """Optimizer steps trained."""
    validation: dict[str, float]
    """The last validation's numbers by name; empty without."""
    closed_loop: EvalResult | None
    """Result of the closed loop; null without a world, or where no trial could be finished."""
    unfinished: list[Unfinished]
    """Trials of a benchmark whose environment was lost; the same command tries them again."""
    warnings: list[str]
    """What may make the success rate mean something else."""


class ArmJson(TypedDict):
    """One arm over all its seeds; see `Summary`."""

    name: str
    """What tables call it."""
    variant: str
    """Name of the variant."""
    lambda_video: float
    """Weight of the video loss."""
    success: IntervalJson | None
    """Success rate of the closed loop; null without a world."""
    score: IntervalJson | None
    """Open-loop action error, normalised units; null without validation."""
    action_mae: IntervalJson | None
    """The same in the robot's units."""
    video_by_horizon: tuple[float, ...] | None
    """Video loss of each later latent frame; null without a video loss."""
    success_against_first: IntervalJson | None
    """`success` minus the first arm's; null for the first."""
    score_against_first: IntervalJson | None
    """`score` minus the first arm's; null for the first."""
    runs: list[ComparedRunJson]
    """Its runs."""


class MachineJson(TypedDict):
    """What a comparison ran on."""

    torch: str
    """Version of torch."""
    threads: int
    """Threads of one operator of torch."""
    cpu: str
    """Processor, as the operating system names it; may be empty."""


class ComparisonJson(TypedDict):
    """A comparison as one document."""

    recipe: Recipe
    """The base recipe."""
    seeds: list[int]
    """Seeds that every arm is trained with."""
    closed_loop: ClosedLoopSettings
    """Settings of the closed loop."""
    complete: bool
    """Whether all runs are done."""
    machine: MachineJson
    """What it ran on."""
    arms: list[ArmJson]
    """The arms; the first is the one others are compared with."""
    findings: list[str]
    """Sentences for people."""


def to_json(plan: ComparisonPlan, summaries: Sequence[Summary]) -> ComparisonJson:
    """Everything as one JSON document; an interval that bounds nothing is null."""
    runs = [run for item in summaries for run in item.runs]
    return {
        "recipe": plan.base,
        "seeds": list(plan.seeds),
        "closed_loop": plan.settings(),
        "complete": len(runs) == len(plan.cells) and not any(run.unfinished for run in runs),
        "machine": {"torch": torch.__version__, "threads": torch.get_num_threads(), "cpu": platform.processor()},
        "arms": [_arm_json(item) for item in summaries],
        "findings": sentences(summaries),
    }


def _arm_json(item: Summary) -> ArmJson:
    return {
        "name": item.arm.name,
        "variant": item.arm.variant,
        "lambda_video": item.arm.lambda_video,
        "success": _interval(item.success),
        "score": _interval(item.score),
        "action_mae": _interval(item.mae),
        "video_by_horizon": item.video_by_horizon,
        "success_against_first": _interval(item.versus_success),
        "score_against_first": _interval(item.versus_score),
        "runs": [
            {
                "seed": run.cell.seed,
                "folder": f"runs/{run.cell.name}",
                "steps": run.steps,
                "validation": run.validation,
                "closed_loop": run.closed,
                "unfinished": list(run.unfinished),
                "warnings": list(run.warnings),
            }
            for run in item.runs
        ],
    }


def _interval(found: Interval | None) -> IntervalJson | None:
    if found is None:
        return None
    value, low, high = (x if np.isfinite(x) else None for x in (found.value, found.low, found.high))
    return {"value": value, "low": low, "high": high}


def plot_panels(summaries: Sequence[Summary], env: str = "sample") -> list[RangePanel]:
    """Closed loop and open loop side by side; a panel without any value is left out."""
    success = {
        s.arm.name: _range(s.success, 100, [100 * run.closed.rate for run in s.runs if run.closed]) for s in summaries
    }
    scores = [[run.validation["score"] for run in s.runs if "score" in run.validation] for s in summaries]
    score = {s.arm.name: _range(s.score, 1, values) for s, values in zip(summaries, scores, strict=True)}
    panels = [
        RangePanel(
            f"Closed-loop success, {WORLDS.get(env, env.partition(':')[0])}", "% of episodes", success, (0, 100)
        ),
        RangePanel("Open-loop action error, held out", "normalised units", score),
    ]
    return [panel for panel in panels if any(panel.rows.values())]


def _range(found: Interval | None, scale: float, points: Sequence[float]) -> Range | None:
    return None if found is None else Range(found.value * scale, found.low * scale, found.high * scale, points)


def _page(plan: ComparisonPlan, summaries: Sequence[Summary], panels: Sequence[RangePanel]) -> Report:
    report = Report("Controlled comparison")
    done = sum(len(item.runs) for item in summaries)
    if done < len(plan.cells):
        report.text(f"Not complete: {done} of {len(plan.cells)} runs so far.")
    report.text("\n".join(sentences(summaries)) or "One arm: nothing to compare.")
    _doubts(report, summaries)
    if panels:
        report.ranges("95 % intervals; small dots are single seeds", panels)
    _table(report, HEADER, table_rows(summaries))
    report.text(
        "Success: all episodes of all seeds pooled, Wilson's interval, which takes episodes as independent. Action "
        "error: mean absolute error of sampled chunks in normalised units, Student's interval over seeds. Differences "
        f"against {summaries[0].arm.name}, with 95 % intervals: of success over pairs of the same seed and scene "
        "(Newcombe's), of the action error over seeds (paired, Student's). Nothing is corrected for looking at several "
        "arms."
    )
    if plan.benchmark is not None:
        _by_task(report, summaries)
    _budget(report, plan)
    _runs(report, summaries)
    return report


def valued(header: Sequence[str], rows: Sequence[Sequence[object]]) -> tuple[list[str], list[list[object]]]:
    """The table without columns that have no value in any row."""
    kept = [i for i in range(len(header)) if any(row[i] is not None for row in rows)]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _table(report: Report, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table whose counts and intervals stay on one line."""
    names, cells = valued(header, rows)
    together = [
        [cell.replace(" ", BLANK) if isinstance(cell, str) and cell[:1].isdigit() else cell for cell in row]
        for row in cells
    ]
    report.table([name.replace("95 %", f"95{BLANK}%") for name in names], together)


def _budget(report: Report, plan: ComparisonPlan) -> None:
    """What all runs have in common."""
    report.heading("What was compared")
    report.text(
        "Runs of equal budget: same data, batches, order and initial weights for all runs of one seed; they differ in "
        "the variant or in the weight of the video loss alone. Equal means equal steps, not equal time. Every run is "
        "judged at its last step."
    )
    loop = f"{counted(plan.episodes, 'scene')}, the same for every run; {plan.execute} actions of a chunk carried out"
    if plan.benchmark is not None:
        asked = plan.benchmark
        changed = f" with other {', '.join(asked.changed)}" if asked.changed else ""
        loop = f"{plan.env}, protocol {asked.protocol.name}{changed}: {counted(len(asked.tasks), 'task')}, {loop}"
    report.facts(
        {
            "recipe": plan.base.name,
            "optimizer steps": plan.base.optim.steps,
            "windows per step": plan.base.optim.batch_size * plan.base.optim.accumulation,
            "seeds": plan.seeds,
            "closed loop": None if plan.env == "none" else loop,
        }
    )


def _doubts(report: Report, summaries: Sequence[Summary]) -> None:
    """Warnings, each once, and trials that are missing."""
    runs = [run for item in summaries for run in item.runs]
    lines = list(dict.fromkeys(said for run in runs for said in run.warnings))
    lines += [
        f"{run.cell.name}: {counted(len(run.unfinished), 'trial')} {verb(len(run.unfinished), 'is', 'are')} "
        f"not finished; the same command tries {verb(len(run.unfinished), 'it', 'them')} again"
        for run in runs
        if run.unfinished
    ]
    if lines:
        report.text("\n".join(lines))


def _by_task(report: Report, summaries: Sequence[Summary]) -> None:
    """Successes of every arm in every task, all seeds together."""
    report.heading("By task")
    counts = [[run.closed.by_task for run in item.runs if run.closed is not None] for item in summaries]
    names = list(dict.fromkeys(task for found in counts for by_task in found for task in by_task))
    rows = [
        (name, *(" of ".join(str(sum(by[name][i] for by in found if name in by)) for i in (0, 1)) for found in counts))
        for name in names
    ]
    _table(report, ("task", *(item.arm.name for item in summaries)), rows)


HEADER = ("", "success", "95 %", "action error", "95 %", "robot units", "video loss by latent frame")


def table_rows(summaries: Sequence[Summary]) -> list[tuple[object, ...]]:
    """One row per arm under `HEADER`."""
    rows: list[tuple[object, ...]] = []
    for item in summaries:
        closed = [run.closed for run in item.runs if run.closed is not None]
        wins = f"{sum(c.successes for c in closed)} of {sum(c.episodes for c in closed)}" if closed else None
        horizon = ", ".join(f"{value:.3f}" for value in item.video_by_horizon or ())
        rows.append(
            (
                item.arm.name,
                wins,
                f"{item.success.low:.0%} to {item.success.high:.0%}" if item.success else None,
                f"{item.score.value:.4f}" if item.score else None,
                _bounds(item.score),
                f"{item.mae.value:.4f}" if item.mae else None,
                horizon or None,
            )
        )
    return rows


def _bounds(found: Interval | None) -> str | None:
    if found is None or not np.isfinite([found.low, found.high]).all():
        return None
    return f"{found.low:.4f} to {found.high:.4f}"


def _runs(report: Report, summaries: Sequence[Summary]) -> None:
    report.heading("Runs")
    runs = [run for item in summaries for run in item.runs]
    rows = [
        (
            run.cell.arm.name,
            run.cell.seed,
            run.steps,
            f"{run.closed.successes} of {run.closed.episodes}" if run.closed else None,
            run.validation.get("score"),
            run.validation.get("loss"),
        )
        for run in runs
    ]
    _table(report, ("arm", "seed", "steps", "success", "action error", "loss on validation windows"), rows)
    report.links({f"{run.cell.arm.name}, seed {run.cell.seed}": f"runs/{run.cell.name}/{REPORT}" for run in runs})
