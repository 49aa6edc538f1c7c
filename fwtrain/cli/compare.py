"""`fwtrain compare` and `fwtrain report`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.console import emit_json, print_table, say, warn
from fwdata.errors import UsageError
from fwtrain.cli._common import Device, Json, RecipeName, RunArgument, Threads, answer, need_recipe
from fwtrain.cli.distil import (
    LoopEpisodes,
    LoopLimit,
    LoopProtocol,
    LoopResolution,
    LoopSuites,
    LoopTasks,
    LoopTrials,
    LoopWorkers,
    LoopWorld,
    end_unfinished,
    loop_plan,
)
from fwtrain.cli.sample_loop import EPISODES

if TYPE_CHECKING:
    from fwtrain.compare import ComparisonPlan

EXECUTE = 12
"""Actions carried out of a chunk in the sample world."""
EXAMPLES = """Example: fwtrain compare data/rt.zarr --recipe tiny --out compared --seeds 0,1 --lambdas 0.5

fwtrain compare data/lb.zarr --recipe libero --out compared --env libero --suite goal --trials 20 --workers 4"""


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("compare", epilog=EXAMPLES)(compare_command)
    app.command("report", epilog="Example: fwtrain report runs/rt")(report_command)


def compare_command(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Store with latents, text and statistics.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison. A stopped one in it continues.")],
    recipe: RecipeName = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps of every run, in place of the recipe's.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, comma separated; every arm is trained with each.")] = "0,1,2",
    variants: Annotated[
        str | None,
        typer.Option(help="Variants, comma separated (default: all); the first is the one others are compared with."),
    ] = None,
    lambdas: Annotated[str, typer.Option(help="Further weights of the video loss, comma separated.")] = "",
    env: LoopWorld = "sample",
    episodes: LoopEpisodes = None,
    execute: Annotated[
        int | None,
        typer.Option(help=f"Actions of a chunk carried out before looking again (default {EXECUTE}, or protocol's)."),
    ] = None,
    suite: LoopSuites = None,
    tasks: LoopTasks = None,
    trials: LoopTrials = None,
    protocol: LoopProtocol = None,
    workers: LoopWorkers = None,
    limit: LoopLimit = None,
    resolution: LoopResolution = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and how far they are.")] = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train variants and video-loss weights on equal budgets and compare them, with seeds and intervals.

    Every run is judged in the sample world, or by trials of a benchmark as fwtrain eval runs them. Finished runs and
    trials are kept; Ctrl-C or SIGTERM saves and stops, the same command continues. Exit code 3: some environments
    crashed.
    """
    from fwtrain.compare import make_plan
    from fwtrain.recipe import load_recipe

    recipe = need_recipe(recipe)
    extra = [f"optim.steps={steps}"] if steps is not None else []
    plan = make_plan(
        load_recipe(recipe, [*(overrides or []), *extra]),
        out,
        variants=None if variants is None else _listed(variants, "--variants", str),
        lambdas=_listed(lambdas, "--lambdas", float),
        seeds=_listed(seeds, "--seeds", int),
        env=env,
        episodes=EPISODES if episodes is None else episodes,
        execute=EXECUTE if execute is None else execute,
        benchmark=loop_plan(env, episodes, execute, suite, tasks, trials, protocol, workers, limit, resolution),
        workers=workers or 1,
    )
    if dry_run:
        import fwdata

        fwdata.open(store)  # says now what is wrong with it
        _show_states(plan, as_json)
    else:
        _compare(store, plan, device, threads, as_json)


def _compare(store: str, plan: ComparisonPlan, device: str, threads: int | None, as_json: bool) -> None:
    import fwdata
    from fwtrain.compare import run_comparison, summarise
    from fwtrain.compare.page import HEADER, table_rows, to_json, valued, write_comparison
    from fwtrain.compare.summary import sentences
    from fwtrain.train.run import set_threads, stop_on_signals

    set_threads(threads)
    with stop_on_signals() as stop:
        results = run_comparison(
            fwdata.open(store),
            plan,
            device=device,
            should_stop=stop,
            note=say,
            finished=lambda found: write_comparison(plan, found),
            progress=True,
        )
    summaries = summarise(results)
    for sentence in dict.fromkeys(said for found in results for said in found.warnings):
        warn(sentence)
    if as_json:
        emit_json({**to_json(plan, summaries), "report": str(plan.out / "report.html")})
    else:
        header, cells = valued(HEADER, table_rows(summaries))
        rows = [tuple("" if v is None else str(v) for v in row) for row in cells]
        print_table(str(plan.out), tuple(header), rows)
        print("\n".join([*sentences(summaries), f"report: {plan.out / 'report.html'}"]))
    end_unfinished([lost for found in results for lost in found.unfinished])


def _show_states(plan: ComparisonPlan, as_json: bool) -> None:
    from fwtrain.compare.run import states

    rows = [
        {"run": s.cell.name, "variant": s.cell.arm.variant, "lambda_video": s.cell.arm.lambda_video,
         "seed": s.cell.seed, "step": s.step, "total": s.total, "done": s.judged}
        for s in states(plan)
    ]  # fmt: skip
    if as_json:
        emit_json({"out": str(plan.out), "runs": rows})
        return
    cells: list[tuple[str, ...]] = [
        (str(r["run"]), f"{r['step']} of {r['total'] or '?'}", "done" if r["done"] else "to do") for r in rows
    ]
    print_table(str(plan.out), ("run", "steps", ""), cells)


def _listed[T](text: str, option: str, kind: Callable[[str], T]) -> list[T]:
    """A comma-separated list; UsageError names the part that is wrong."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(kind(part))
        except ValueError:
            raise UsageError(f"{option} takes values separated by commas, found {part!r}") from None
    return found


def report_command(run: RunArgument, as_json: Json = False) -> None:
    """Write RUN/report.html: losses, validation, and images of predicted futures on one page."""
    from fwtrain.train.folder import RunFolder
    from fwtrain.train.report import write_run_report

    path = write_run_report(RunFolder(run))
    answer({"report": str(path)}, as_json, lambda: str(path))
