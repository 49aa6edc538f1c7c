"""`fwtrain eval`: closed loops in the sample world and in benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fwdata.console import progress_bar, warn
from fwdata.errors import EXIT_QUARANTINED, UsageError
from fwtrain.cli._common import Json, PolicyOptions, Vae, answer, with_policy_options
from fwtrain.cli.policy_loading import PolicyLoading
from fwtrain.cli.sample_loop import EPISODES, EXECUTE, STEPS, eval_in_sample_world

if TYPE_CHECKING:
    from fwtrain.infer.trials.plan import EvalPlan, ProtocolChanges
    from fwtrain.infer.trials.run import Evaluation

EXAMPLES = """Example: fwtrain eval runs/rt --env sample --episodes 20

fwtrain eval runs/lb --env libero --suite spatial,object,goal,10 --workers 4 --out eval/lb"""

World = Annotated[str, typer.Option(help="World to act in: sample, libero, or a module with a BENCHMARK.")]
SampleEpisodes = Annotated[int | None, typer.Option(help=f"Sample world: episodes to run (default {EPISODES}).")]
Suites = Annotated[str | None, typer.Option(help="Benchmark: suites, comma-separated: spatial, object, goal, 10, 90.")]
TaskNames = Annotated[str | None, typer.Option(help="Benchmark: only these tasks, numbers or names, comma-separated.")]
TrialNumbers = Annotated[
    str | None,
    typer.Option(help="Benchmark: trials per task, a count or a range like 10-19 (default: protocol's)."),
]
Protocol = Annotated[str | None, typer.Option(help="Benchmark: fastwam (default), lerobot or openvla.")]
Workers = Annotated[
    int | None, typer.Option(help="Benchmark: environments side by side, 2.2 GB of memory each (default 1).")
]
TrialsFolder = Annotated[
    Path | None, typer.Option(help="Benchmark: folder of the trials; run again to continue (default RUN/eval).")
]
BatchRows = Annotated[
    int | None,
    typer.Option(
        metavar="ROWS",
        help="Benchmark: rows per batch of the policy, whatever --workers is (default 1 on a CPU, 8 on a GPU).",
    ),
]
ExactRows = Annotated[bool, typer.Option("--exact", help="Benchmark: the same as --batch 1.")]
FilmNumbers = Annotated[
    str | None, typer.Option(metavar="NUMBERS", help="Benchmark: film these trials of every task, as 0,3.")
]
FilmFailures = Annotated[int, typer.Option(min=0, help="Benchmark: film the first N failures of every task.")]
StepLimit = Annotated[int | None, typer.Option(help="Benchmark: steps per trial instead of the protocol's.")]
WaitSteps = Annotated[int | None, typer.Option(help="Benchmark: steps of waiting before the first look.")]
Resolution = Annotated[int | None, typer.Option(help="Benchmark: pixels that cameras are rendered with.")]
EnvSeed = Annotated[int | None, typer.Option(help="Benchmark: seed of the environment.")]
InitStates = Annotated[Path | None, typer.Option(help="Benchmark: folder of initial states (.npz or .pruned_init).")]
HangAfter = Annotated[float | None, typer.Option(help="Benchmark: seconds without an answer that end an environment.")]
NoiseSeed = Annotated[
    int | None, typer.Option(help="Seed of scenes and noise (default 0; benchmark: noise, the protocol's).")
]
Untrained = Annotated[bool, typer.Option("--untrained", help="Fresh random weights instead of the trained.")]
Execute = Annotated[
    int | None,
    typer.Option(help=f"Actions of a chunk carried out before looking again (default {EXECUTE}, or protocol's)."),
]
DenoisingSteps = Annotated[int | None, typer.Option(help=f"Denoising steps (default {STEPS}, or the protocol's).")]
RecordFolder = Annotated[
    Path | None,
    typer.Option(help="Sample world: folder of the result and a few films; one in RUN is shown on the run's page."),
]
ServerAddress = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Ask a fwtrain serve of the run instead of loading it; ws://.. too."),
]
TokenFile = Annotated[Path | None, typer.Option(help="With --server: file with the secret it asks for.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("eval", epilog=EXAMPLES)(eval_command)


@with_policy_options
def eval_command(
    policy: PolicyOptions,
    env: World = "sample",
    episodes: SampleEpisodes = None,
    suite: Suites = None,
    tasks: TaskNames = None,
    trials: TrialNumbers = None,
    protocol: Protocol = None,
    workers: Workers = None,
    out: TrialsFolder = None,
    batch: BatchRows = None,
    exact: ExactRows = False,
    films: FilmNumbers = None,
    film_failures: FilmFailures = 0,
    limit: StepLimit = None,
    wait_steps: WaitSteps = None,
    resolution: Resolution = None,
    env_seed: EnvSeed = None,
    init_states: InitStates = None,
    hang_after: HangAfter = None,
    seed: NoiseSeed = None,
    untrained: Untrained = False,
    execute: Execute = None,
    steps: DenoisingSteps = None,
    vae: Vae = None,
    record: RecordFolder = None,
    server: ServerAddress = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Act in closed loop and report the success rate.

    In a benchmark every trial can be repeated alone: its scene, initial state and noise depend on its number, not on
    what ran before. Finished trials are kept in --out and never run again. Exit code 3: some environments crashed.
    """
    from fwtrain.infer.trials.plan import ProtocolChanges
    from fwtrain.infer.trials.run import FilmRequest

    loading = PolicyLoading(policy, vae, untrained, steps, server, token_file)
    loading.refuse_unused()
    benchmark_only = {
        "--suite": suite, "--tasks": tasks, "--trials": trials, "--protocol": protocol, "--workers": workers,
        "--out": out, "--batch": batch, "--exact": exact or None, "--films": films,
        "--film-failures": film_failures or None,
        "--limit": limit, "--wait-steps": wait_steps, "--resolution": resolution, "--env-seed": env_seed,
        "--init-states": init_states, "--hang-after": hang_after,
    }  # fmt: skip
    if env == "sample":
        refuse_options(env, benchmark_only)
        eval_in_sample_world(loading, episodes, seed, execute, steps, record, as_json)
        return
    refuse_options(env, {"--episodes": episodes, "--record": record})
    changes = ProtocolChanges(execute, steps, seed, limit, wait_steps, resolution, env_seed)
    plan = benchmark_plan(env, suite, protocol, tasks, trials, changes, init_states)
    filmed, rows = FilmRequest(_film_numbers(films), film_failures), _rows_per_batch(batch, exact, server)
    _in_benchmark(
        loading, plan, out or policy.run / "eval", 1 if workers is None else workers, rows, hang_after, filmed, as_json
    )


def _rows_per_batch(batch: int | None, exact: bool, server: str | None) -> int | None:
    """Rows that --batch or --exact asks for; None for the usual. UsageError for options that do not go together."""
    if exact and batch not in {None, 1}:
        raise UsageError("--exact is --batch 1: give one of them")
    if server is not None and batch is not None:
        raise UsageError("--batch has no meaning with --server: the server makes its own batches")
    return 1 if exact else batch


def refuse_options(env: str, options: Mapping[str, object]) -> None:
    """UsageError for an option that was given and that this world does not have."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} has no meaning with --env {env}")


def _film_numbers(text: str | None) -> tuple[int, ...]:
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if not all(word.isdecimal() for word in words):
        raise UsageError(f"--films takes numbers of trials like 0,3, found {text!r}")
    return tuple(map(int, words))


def benchmark_plan(
    env: str,
    suite: str | None,
    protocol: str | None,
    tasks: str | None,
    trials: str | None,
    changes: ProtocolChanges,
    states: Path | None = None,
) -> EvalPlan:
    """A checked request for trials of a benchmark, from options of a command. UsageError for whatever is unknown."""
    from fwdata.envs.benchmarks import load_benchmark
    from fwtrain.infer.trials.plan import plan_evaluation

    suites = [name.strip() for name in (suite or "").split(",") if name.strip()]
    return plan_evaluation(
        env,
        load_benchmark(env),
        suites,
        protocol=protocol,
        tasks=tasks,
        trials=trials,
        changes=changes,
        states=states,
    )


def _in_benchmark(
    loading: PolicyLoading,
    plan: EvalPlan,
    out: Path,
    workers: int,
    rows: int | None,
    hang: float | None,
    films: Any,
    as_json: bool,
) -> None:
    from fwtrain.infer.trials.plan import check_fit, doubts
    from fwtrain.infer.trials.records import EvalFolder
    from fwtrain.infer.trials.run import evaluate_benchmark, usual_rows
    from fwtrain.train.folder import RunFolder
    from fwtrain.train.report import renew_run_report

    info = RunFolder(loading.run).info()
    check_fit(info, plan)  # before weights are read
    EvalFolder(out).refuse_foreign()
    seed = plan.protocol.noise_seed
    policy, sampling = loading.policy(seed, plan.protocol.denoising_steps, plan.protocol.execute)
    if loading.server is not None and sampling.steps != plan.protocol.denoising_steps:
        changed = (*plan.changed, "denoising_steps")
        plan = replace(plan, protocol=replace(plan.protocol, denoising_steps=sampling.steps), changed=changed)
    early = doubts(info, plan, sampling)
    for sentence in early:
        if loading.server is not None or sentence != info.student_warning(sampling.steps):  # loading it said so
            warn(sentence)
    with progress_bar("closed loop", "trials") as bar:
        found = evaluate_benchmark(
            plan,
            policy,
            loading.about(policy, sampling, seed),
            out,
            workers=workers,
            rows=usual_rows(policy) if rows is None else rows,
            hang=hang,
            films=films,
            start=bar.start,
            done=bar.advance,
        )
    renew_run_report(loading.run, out)
    _report(found, out, as_json, early)


def _report(found: Evaluation, out: Path, as_json: bool, said: Sequence[str]) -> None:
    """The result on stdout. said: warnings that were printed before the trials."""
    from fwtrain.infer.trials.loop import unfinished_text
    from fwtrain.infer.trials.run import text

    for sentence in found.warnings:
        if sentence not in said:
            warn(sentence)
    for sentence in unfinished_text(found.unfinished):
        warn(sentence)
    answer({**found.to_json(), "out": str(out)}, as_json, lambda: f"{text(found)}\nreport: {out / 'report.html'}")
    if found.unfinished:
        raise typer.Exit(EXIT_QUARANTINED)
