"""`fwtrain distil`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.console import emit_json, print_table, progress_bar, say, warn
from fwdata.errors import EXIT_QUARANTINED, UsageError
from fwtrain.cli._common import Device, Json, RunArgument, Threads, WhichCheckpoint
from fwtrain.cli.evaluate import benchmark_plan, refuse_options
from fwtrain.cli.sample_loop import EPISODES, EXECUTE, usual_execute

if TYPE_CHECKING:
    from fwtrain.infer.trials.loop import Unfinished
    from fwtrain.infer.trials.plan import EvalPlan
    from fwtrain.train.distil import DistilRow

EXAMPLES = """Example: fwtrain distil runs/rt --store data/rt.zarr --steps 1,2,4 --env sample

fwtrain distil runs/lb --store data/lb.zarr --steps 1,2 --env libero --suite goal --trials 10"""

RunStore = Annotated[str, typer.Option(metavar="STORE", help="The run's store, with latents, text and statistics.")]
StudentsFolder = Annotated[Path | None, typer.Option(help="Folder of the students (default RUN/distil).")]
StudentSteps = Annotated[str, typer.Option(help="Denoising steps of every student, comma separated.")]
TeacherSteps = Annotated[int, typer.Option(help="Denoising steps of the teacher.")]
TrainSteps = Annotated[int, typer.Option(help="Optimizer steps of every student.")]
BatchSize = Annotated[int | None, typer.Option(help="Windows per optimizer step (default: the run's).")]
LearningRate = Annotated[float, typer.Option(help="Highest learning rate.")]
LoopWorld = Annotated[
    str, typer.Option(help="World of the closed loop: sample, libero, a module with a BENCHMARK, or none.")
]
LoopEpisodes = Annotated[
    int | None, typer.Option(min=1, help=f"Sample world: episodes of every policy (default {EPISODES}).")
]
LoopExecute = Annotated[
    int | None,
    typer.Option(help=f"Actions of a chunk carried out before looking again (default {EXECUTE}, or protocol's)."),
]
LoopSuites = Annotated[str | None, typer.Option(help="Benchmark: suites, as fwtrain eval takes them.")]
LoopTasks = Annotated[str | None, typer.Option(help="Benchmark: only these tasks.")]
LoopTrials = Annotated[str | None, typer.Option(help="Benchmark: trials per task, a count or a range.")]
LoopProtocol = Annotated[str | None, typer.Option(help="Benchmark: fastwam (default), lerobot or openvla.")]
LoopWorkers = Annotated[int | None, typer.Option(min=1, help="Benchmark: environments side by side (default 1).")]
LoopLimit = Annotated[int | None, typer.Option(help="Benchmark: steps per trial instead of the protocol's.")]
LoopResolution = Annotated[int | None, typer.Option(help="Benchmark: pixels that cameras are rendered with.")]


def loop_plan(
    env: str,
    episodes: int | None,
    execute: int | None,
    suite: str | None,
    tasks: str | None,
    trials: str | None,
    protocol: str | None,
    workers: int | None,
    limit: int | None,
    resolution: int | None,
) -> EvalPlan | None:
    """The trials of a benchmark that options ask for; None where env is the sample world or none.

    UsageError for an option that was given and that env does not have, and as `benchmark_plan`.
    """
    from fwtrain.infer.trials.plan import ProtocolChanges

    benchmark_only = {
        "--suite": suite, "--tasks": tasks, "--trials": trials, "--protocol": protocol, "--workers": workers,
        "--limit": limit, "--resolution": resolution,
    }  # fmt: skip
    if env == "none":
        refuse_options(env, {**benchmark_only, "--episodes": episodes, "--execute": execute})
        return None
    if env == "sample":
        refuse_options(env, benchmark_only)
        return None
    refuse_options(env, {"--episodes": episodes})
    changes = ProtocolChanges(execute=execute, limit=limit, resolution=resolution)
    return benchmark_plan(env, suite, protocol, tasks, trials, changes)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("distil", epilog=EXAMPLES)(distil_command)


def distil_command(
    run: RunArgument,
    store: RunStore,
    out: StudentsFolder = None,
    steps: StudentSteps = "1,2,4",
    teacher_steps: TeacherSteps = 10,
    train_steps: TrainSteps = 1000,
    batch_size: BatchSize = None,
    lr: LearningRate = 1e-4,
    env: LoopWorld = "none",
    episodes: LoopEpisodes = None,
    execute: LoopExecute = None,
    suite: LoopSuites = None,
    tasks: LoopTasks = None,
    trials: LoopTrials = None,
    protocol: LoopProtocol = None,
    workers: LoopWorkers = None,
    limit: LoopLimit = None,
    resolution: LoopResolution = None,
    checkpoint: WhichCheckpoint = "last",
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train few-step students of a run and compare errors, success and latency with the teacher's.

    A student is a run folder OUT/steps-K: eval, serve and export take it; sample it with --steps K. Finished students
    are kept, and so are finished trials of a benchmark, in OUT/eval. Exit code 3: some environments crashed.
    """
    import fwdata
    from fwdata.report.place import refuse_no_folder
    from fwtrain.infer.worlds import BenchmarkLoopWorld, SampleLoopWorld
    from fwtrain.train.distil import DistilRequest, distil
    from fwtrain.train.run import set_threads

    counts = _step_counts(steps)
    folder = out or run / "distil"
    refuse_no_folder(folder, "--out")
    loop: SampleLoopWorld | BenchmarkLoopWorld | None = None
    plan = loop_plan(env, episodes, execute, suite, tasks, trials, protocol, workers, limit, resolution)
    if plan is not None:
        loop = BenchmarkLoopWorld(plan, folder / "eval", workers or 1)
    elif env == "sample":
        carried = usual_execute(run) if execute is None else execute
        loop = SampleLoopWorld(EPISODES if episodes is None else episodes, carried)
    set_threads(threads)
    asked = DistilRequest(run, folder, counts, checkpoint, teacher_steps, train_steps, batch_size, lr, device)
    with progress_bar("distilling", "steps") as bar:
        bar.start(train_steps * sum(not (folder / f"steps-{count}").exists() for count in counts))
        rows = distil(fwdata.open(store), asked, loop=loop, note=say, progress=bar.advance)
    _answer(run, folder, rows, as_json)
    for sentence in loop.warnings if isinstance(loop, BenchmarkLoopWorld) else ():
        warn(sentence)
    end_unfinished(loop.unfinished if isinstance(loop, BenchmarkLoopWorld) else ())


def end_unfinished(lost: Sequence[Unfinished]) -> None:
    """Exit code 3 with a sentence per trial that an environment's crash ended."""
    from fwtrain.infer.trials.loop import unfinished_text

    for sentence in unfinished_text(lost):
        warn(sentence)
    if lost:
        raise typer.Exit(EXIT_QUARANTINED)


def _step_counts(text: str) -> tuple[int, ...]:
    """The numbers of --steps, each once."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() for word in words):
        raise UsageError(f"--steps takes numbers like 1,2,4, found {text!r}")
    return tuple(dict.fromkeys(map(int, words)))


def _answer(run: Path, folder: Path, rows: list[DistilRow], as_json: bool) -> None:
    from fwtrain.train.distil import table

    if as_json:
        emit_json({"run": str(run), "out": str(folder), "rows": table(rows)})
        return
    header = ("policy", "steps", "distance to teacher", "error", "ms per chunk", "success")
    print_table(str(folder), header, [_cells(row) for row in rows])


def _cells(row: DistilRow) -> tuple[str, ...]:
    closed = "-"
    if row.closed is not None:
        low, high = (100 * value for value in row.closed.interval)
        closed = f"{row.closed.successes} of {row.closed.episodes} ({low:.0f} to {high:.0f} %)"
    error = "-" if row.error is None else f"{row.error:.4g}"
    return row.name, str(row.steps), f"{row.to_teacher:.4f}", error, f"{row.milliseconds:.1f}", closed
