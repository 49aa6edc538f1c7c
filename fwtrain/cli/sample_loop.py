"""`fwtrain eval --env sample`: closed loops in the sample world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fwdata.console import progress_bar
from fwdata.wording import counted
from fwtrain.cli._common import answer, sampling_text
from fwtrain.cli.policy_loading import PolicyLoading

if TYPE_CHECKING:
    from fwtrain.infer.evaluate import EvalResult
    from fwtrain.model import Denoising

EPISODES, EXECUTE, STEPS = 20, 24, 10
"""Defaults in the sample world; benchmarks have protocols."""


def usual_execute(run: Path) -> int:
    """Actions of a chunk carried out in the sample world where no number is asked for, as many as the run predicts at
    most."""
    from fwtrain.train.folder import RunFolder

    return min(EXECUTE, RunFolder(run).info().manifest.window.action_horizon)


def eval_in_sample_world(
    loading: PolicyLoading,
    episodes: int | None,
    seed: int | None,
    execute: int | None,
    steps: int | None,
    record: Path | None,
    as_json: bool,
) -> None:
    """Episodes of the sample world: the result on stdout and, with `record`, in that folder."""
    from fwdata.io import write_json
    from fwdata.report.place import refuse_no_folder
    from fwtrain.errors import Interrupted
    from fwtrain.infer.evaluate import evaluate_sample
    from fwtrain.train.report import renew_run_report
    from fwtrain.train.report_loops import RESULT

    if record is not None:
        refuse_no_folder(record, "--record")
    count, scenes = EPISODES if episodes is None else episodes, 0 if seed is None else seed
    carried = usual_execute(loading.run) if execute is None else execute
    denoising = STEPS if steps is None else steps
    policy, sampling = loading.policy(scenes, denoising, carried)
    with progress_bar("closed loop", "episodes") as bar:
        bar.start(count)
        try:
            result = evaluate_sample(
                policy, count, scenes, execute=carried, steps=denoising, done=bar.advance, record=record
            )
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted; episodes of the sample world are not kept one by one: the same command starts over"
            ) from None
    data = {
        "run": str(loading.run),
        "env": "sample",
        "untrained": loading.untrained,
        "successes": result.successes,
        "episodes": result.episodes,
        "rate": result.rate,
        "interval": result.interval,
        "mean_steps": result.mean_steps,
        "sampling": sampling,
        "by_task": {task: {"successes": wins, "episodes": count} for task, (wins, count) in result.by_task.items()},
    }
    if record is not None:
        which = f"untrained, seed {scenes}" if loading.untrained else loading.checkpoint()
        write_json(record / RESULT, {**data, "checkpoint": which})
        renew_run_report(loading.run, record)
    answer(data, as_json, lambda: _eval_text(result, loading.untrained, sampling))


def _eval_text(result: EvalResult, untrained: bool, sampling: Denoising) -> str:
    low, high = result.interval
    which = "untrained" if untrained else "trained"
    lines = [
        f"{which}: {result.successes} of {counted(result.episodes, 'episode')} solved, {result.rate:.0%} "
        f"(95 % interval {low:.0%} to {high:.0%}), {result.mean_steps:.1f} steps on average"
    ]
    lines += [f"  {task}: {wins} of {count}" for task, (wins, count) in sorted(result.by_task.items())]
    lines.append(f"  sampled with {sampling_text(sampling)}")
    return "\n".join(lines)
