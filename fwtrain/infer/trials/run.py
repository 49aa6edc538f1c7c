"""An evaluation from its plan to its folder: trials, films, result and report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fwdata.errors import UsageError
from fwdata.io import folder_lock, made_folder, write_json
from fwdata.report.films import film_frames
from fwdata.report.images import contact_sheet
from fwdata.report.markup import BLANK
from fwdata.report.page import Report
from fwtrain.infer.policy import Policy
from fwtrain.infer.trials.films import Film, chosen_trials, make_films
from fwtrain.infer.trials.loop import TrialLoop, Unfinished
from fwtrain.infer.trials.plan import Deployed, EvalPlan, EvalSettings, PolicyAbout, check_fit, doubts
from fwtrain.infer.trials.records import REPORT, RESULT, EvalFolder
from fwtrain.infer.trials.summary import (
    EvalSummary,
    EvalSummaryJson,
    Tally,
    published_table,
    rate_text,
    summarise,
    summary_json,
)

GPU_ROWS = 8


@dataclass(frozen=True)
class FilmRequest:
    """Which finished trials are filmed."""

    trials: tuple[int, ...] = ()
    """Numbers of trials, of every task."""
    failures: int = 0
    """The first so many failures of every task."""


class TrialsResult(EvalSummaryJson, EvalSettings):
    """OUT/result.json of an evaluation."""

    protocol_changed: list[str]
    """Values of the protocol that were given on the command line."""
    initial_states_sha256: dict[str, str]
    """SUITE/TASK -> sha256 of its initial states."""
    unfinished: list[Unfinished]
    """Trials whose environment was lost; a rerun tries them again."""
    films: list[str]
    """Films that are there."""
    warnings: list[str]
    """What does not hold but stops nothing."""
    env_cpu_seconds_per_trial: float
    """CPU time of the environment, mean."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation came to, earlier runs in the same folder included."""

    plan: EvalPlan
    """What was asked."""
    settings: EvalSettings
    """All that decides the outcome."""
    summary: EvalSummary
    """Rates by task and suite."""
    unfinished: Sequence[Unfinished]
    """Trials whose environment was lost; a rerun tries them again."""
    films: Sequence[Film]
    """Films that are there."""
    warnings: Sequence[str]
    """What does not hold but stops nothing."""
    env_cpu_seconds: float
    """Mean CPU seconds of the environment per trial."""

    def to_json(self) -> TrialsResult:
        """As `--json` prints it and result.json keeps it."""
        states = {f"{task.suite}/{task.task.name}": task.states.sha256 for task in self.plan.tasks}
        return {
            **self.settings,
            "protocol_changed": list(self.plan.changed),
            **summary_json(self.summary),
            "initial_states_sha256": states,
            "unfinished": list(self.unfinished),
            "films": [str(film.path) for film in self.films],
            "warnings": list(self.warnings),
            "env_cpu_seconds_per_trial": self.env_cpu_seconds,
        }


def usual_rows(policy: Deployed) -> int:
    """Observations per batch where no number is asked for: 8 for a policy on a GPU of this process, else 1.

    On a CPU a row costs about the same in any batch, and rows that nobody waits for would cost as much; a server makes
    its own batches.
    """
    return GPU_ROWS if isinstance(policy, Policy) and policy.model.device.type == "cuda" else 1


def evaluate_benchmark(
    plan: EvalPlan,
    policy: Deployed,
    about: PolicyAbout,
    out: Path,
    *,
    workers: int = 1,
    rows: int = 1,
    hang: float | None = None,
    films: FilmRequest = FilmRequest(),
    start: Callable[[int], None] = lambda _: None,
    done: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Run the trials of a plan that OUT does not hold yet, and sum up all of them.

    about: what the policy is, for the settings. rows: observations per batch of the policy, part of the settings: it
    decides how results round, the number of workers does not. start: callback, trials still to run; done: callback,
    trials ended. Finished trials are never run again; kill it at any time and run it again. Raises UsageError when the
    run does not fit the environment or OUT was begun with other settings, StoreBusy when another process evaluates
    there, ServerError when a policy server is gone.
    """
    check_fit(policy.info, plan)
    for name, value in (("--workers", workers), ("--batch", rows)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, found {value}")
    if hang is not None and not 0 < hang < math.inf:
        raise UsageError(f"--hang-after must be a number of seconds above 0, found {hang:g}")
    beyond = [number for number in films.trials if number not in plan.trials]
    if beyond:
        raise UsageError(f"--films {beyond[0]} is not one of the trials {plan.trials[0]} to {plan.trials[-1]}")
    EvalFolder(out).refuse_foreign()
    acting: PolicyAbout = {**about, "batch": rows} if rows > 1 else about
    settings: EvalSettings = {**plan.conditions(), "policy": acting}
    with made_folder(out), folder_lock(out):
        folder = EvalFolder(out)
        _refuse_other_states(plan, folder)
        folder.settle(settings)
        loop = TrialLoop(plan, policy, folder, workers=workers, rows=rows, hang=hang, done=done)
        start(loop.remaining)
        unfinished = loop.run()
        records = list(folder.finished())
        made, said = make_films(plan, folder, chosen_trials(plan, records, films.trials, films.failures), hang)
        mine = [r for r in records if r.trial in plan.trials and (r.suite, r.task) in loop.tasks]
        cost = sum(r.env_cpu_seconds for r in mine) / len(mine) if mine else 0.0
        warnings = [*doubts(policy.info, plan, about["sampling"]), *said]
        found = Evaluation(plan, settings, summarise(plan, records), unfinished, made, warnings, round(cost, 2))
        write_json(out / RESULT, found.to_json())
        write_report(found, out)
    return found


def _refuse_other_states(plan: EvalPlan, folder: EvalFolder) -> None:
    """UsageError when the folder holds trials of a task that began with other initial states than the plan's."""
    states = {(task.suite, task.task.name): task.states.sha256 for task in plan.tasks}
    for record in folder.finished():
        now = states.get((record.suite, record.task), record.initial_states)
        if record.initial_states != now:
            raise UsageError(
                f"{folder.path} holds trial {record.trial} of {record.suite}/{record.task}, which began with other "
                f"initial states (sha256 {record.initial_states[:16]}, now {now[:16]}); use another --out, or the "
                "same --init-states to continue"
            )


def facts(found: Evaluation) -> dict[str, str]:
    """Everything that could change a score without a trace, by name."""
    protocol, policy = found.plan.protocol, found.settings["policy"]
    limits = ", ".join(f"{s} {protocol.limits[s]}" for s in found.summary.suites)
    sampling = policy["sampling"]
    return {
        "protocol": protocol.name + (f", changed: {', '.join(found.plan.changed)}" if found.plan.changed else ""),
        "limits (steps)": limits,
        "wait steps": str(protocol.wait_steps),
        "actions carried out of a chunk": str(protocol.execute),
        "denoising steps": str(protocol.denoising_steps),
        "observations per batch": str(policy.get("batch", 1)),
        "arithmetic": policy.get("arithmetic", "the server's"),
        "variant, mode": f"{policy['variant']}, {sampling.mode}",
        "shift (video, actions)": f"{sampling.video_shift}, {sampling.action_shift}",
        "cameras rendered at": f"{protocol.resolution} x {protocol.resolution} pixels, rotated by 180 degrees",
        "environment seed": f"{protocol.env_seed} per {protocol.env_seeding}",
        "noise seed": f"{protocol.noise_seed}, {protocol.noise}",
        "gripper": "sign(1 - 2 g): 1 open to -1, 0 closed to +1",
        "checkpoint": policy["checkpoint"],
        **found.plan.facts,
        "source of the protocol": protocol.source,
        **{f"note {number}": note for number, note in enumerate(protocol.notes, 1)},
    }


def text(found: Evaluation) -> str:
    """The result for people."""
    lines = []
    for suite, tally in found.summary.suites.items():
        lines.append(f"{suite}: {rate_text(tally)}, {tally.steps:.1f} steps on average")
        lines += [f"  {name}: {rate_text(t)}" for (of, name), t in found.summary.tasks.items() if of == suite]
    lines += ["", published_table(found.summary, "this run"), ""]
    lines += [f"{name}: {value}" for name, value in facts(found).items()]
    lines += [
        f"initial states of {t.suite}/{t.task.name}: {len(t.states.states)}, sha256 {t.states.sha256[:16]}"
        for t in found.plan.tasks
    ]
    lines.append(f"environment: {found.env_cpu_seconds:g} CPU seconds per trial")
    return "\n".join(lines)


def write_report(found: Evaluation, out: Path) -> Path:
    """The result as one page, films linked beside it."""
    report = Report(f"Closed loop in {found.plan.env.partition(':')[0]}")
    _success(report, found)
    if found.warnings:
        report.heading("Warnings")
        report.text("\n".join(found.warnings))
    if found.unfinished:
        report.heading("Not finished")
        report.table(
            ("suite", "task", "trial", "reason"), [(u.suite, u.task, u.trial, u.reason) for u in found.unfinished]
        )
    if found.films:
        report.heading("Films")
        for film in found.films:
            frames = film_frames(film.path)
            verdict = "solved" if film.record.success else "failed"
            caption = f"{film.record.instruction}: trial {film.record.trial}, {verdict} in {film.record.steps} steps"
            report.images([(contact_sheet(frames, [""] * len(frames)), caption)])
            report.links({f"{film.path.name}": f"{film.path.parent.name}/{film.path.name}"})
    report.heading("What a score depends on")
    report.facts(facts(found))
    return report.write(out / REPORT)


def _success(report: Report, found: Evaluation) -> None:
    """All trials, suites and tasks, and the row of the published table."""
    summary = found.summary
    report.text(f"Solved {rate_text(summary.all)}; in brackets the 95 % interval (Wilson).")
    if len(summary.suites) > 1:
        report.table(("suite", *COUNTS), [(suite, *_counts(tally)) for suite, tally in summary.suites.items()])
    rows = [(suite, task, *_counts(tally)) for (suite, task), tally in summary.tasks.items()]
    report.table(("suite", "task", *COUNTS), rows)
    with report.folded("Row of the published table, Markdown"):
        report.code(published_table(summary, "this run"))


COUNTS = ("solved", "rate", "95 %")


def _counts(tally: Tally) -> tuple[str, str | None, str | None]:
    """Cells under COUNTS; they do not break on a phone."""
    counts = f"{tally.successes} of {tally.trials}".replace(" ", BLANK)
    if not tally.trials:
        return counts, None, None
    low, high = (f"{100 * bound:.0f}" for bound in (tally.interval.low, tally.interval.high))
    rate = f"{100 * tally.interval.value:.1f} %"
    return counts, rate.replace(" ", BLANK), f"{low} to {high} %".replace(" ", BLANK)
