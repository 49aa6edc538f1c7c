"""The `fwtrain` command. Results go to stdout (one JSON document with --json), messages and progress to stderr.

Exit codes: 0 done; 1 unexpected or diverged; 2 wrong usage or input; 4 a damaged or stale store; 130 interrupted (state
saved, the same command continues).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fwdata.cli._common import emit_json, fail, print_table, progress_bar, run_app, say
from fwdata.errors import EXIT_UNEXPECTED, UsageError

if TYPE_CHECKING:
    from fwtrain.evaluate import EvalResult
    from fwtrain.predict import Prediction
    from fwtrain.train.loop import Outcome

app = typer.Typer(
    help="Train Fast-WAM from cached latents and use the result.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: all physical cores, up to 8).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, as written by fwtrain run.")]


def _answer(data: dict[str, Any], as_json: bool, text: Callable[[], str]) -> None:
    """The result on stdout."""
    if as_json:
        emit_json(data)
    else:
        print(text())


@app.command("run", epilog="Example: fwtrain run data/rt.zarr --recipe tiny --out runs/rt --set optim.lr=5e-4")
def run_command(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Store with latents, text and statistics.")],
    out: Annotated[Path, typer.Option(help="Run folder. A stopped run in it continues.")],
    recipe: Annotated[str, typer.Option(help="Recipe name (see fwtrain recipes) or path of a .yaml file.")] = "tiny",
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, in place of the recipe's.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Insist on continuing an existing run.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the run in --out and start again.")] = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train a recipe on a store. Ctrl-C or SIGTERM saves and stops; the same command continues."""
    from fwtrain.recipe import load_recipe

    if resume and fresh:
        raise UsageError("--resume and --fresh exclude each other")
    extra = [f"optim.steps={steps}"] if steps is not None else []
    chosen = load_recipe(recipe, [*(overrides or []), *extra])
    import fwdata
    from fwtrain.errors import Interrupted
    from fwtrain.train.run import set_threads, stop_on_signals, train

    set_threads(threads)
    with stop_on_signals() as stop:
        outcome = train(
            fwdata.open(store),
            chosen,
            out,
            resume=resume,
            fresh=fresh,
            device=device,
            should_stop=stop,
            note=say,
            progress=True,
        )
    if not outcome.finished:
        raise Interrupted(f"stopped and saved at step {outcome.step} of {outcome.total}; the same command continues")
    _answer(_outcome_json(outcome, out), as_json, lambda: _outcome_text(outcome, out))


def _outcome_json(outcome: Outcome, out: Path) -> dict[str, Any]:
    error = outcome.action_error
    return {
        "run": str(out),
        "step": outcome.step,
        "total": outcome.total,
        "loss": outcome.loss,
        "video_loss": outcome.video,
        "action_loss": outcome.action,
        "val_action_mae": error.mae if error else None,
        "val_action_rmse": error.rmse if error else None,
        "steps_per_s": outcome.steps_per_s,
        "samples_per_s": outcome.samples_per_s,
        "data_wait": outcome.data_wait,
        "seconds": outcome.seconds,
    }


def _outcome_text(outcome: Outcome, out: Path) -> str:
    if outcome.loss is None:
        return f"{out} is complete at step {outcome.step}"
    error = outcome.action_error
    lines = [
        f"{out}: {outcome.step} steps, "
        f"loss {outcome.loss:.4f} (video {outcome.video:.4f}, action {outcome.action:.4f})",
        f"{outcome.seconds:.1f} s, {outcome.steps_per_s:.2f} steps/s, {outcome.samples_per_s:.1f} samples/s, "
        f"data wait {outcome.data_wait:.1%}",
    ]
    if error:
        lines.append(f"validation: mean absolute action error {error.mae:.4g}, rmse {error.rmse:.4g} (robot units)")
    return "\n".join(lines)


@app.command("predict", epilog="Example: fwtrain predict runs/rt --store data/rt.zarr --episode 0 --frame 10")
def predict_command(
    run: RunArgument,
    store: Annotated[str, typer.Option(help="Store with the run's latents and text.")],
    episode: Annotated[int, typer.Option(help="Episode index.")] = 0,
    frame: Annotated[int, typer.Option(help="Frame the chunk starts at.")] = 0,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the starting noise.")] = 0,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Print the action chunk at one recorded frame, in robot units, beside the recorded actions."""
    import fwdata
    from fwtrain.predict import predict
    from fwtrain.train.run import set_threads

    set_threads(threads)
    result = predict(run, fwdata.open(store), episode, frame, steps=steps, seed=seed, device=device)
    _answer(result.to_json(), as_json, lambda: _chunk_text(result))


LINE_WIDTH = 120


def _chunk_text(result: Prediction) -> str:
    """Blocks of columns that fit a line; a row per step, `predicted (recorded)` per dimension."""
    cells = [[f"{value:.4f}" for value in row] for row in result.action]
    for step, row in enumerate(result.recorded):
        cells[step] = [f"{have} ({value:.4f})" for have, value in zip(cells[step], row, strict=True)]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(result.names)]
    lines = [f"episode {result.episode}, frame {result.frame}: {result.instruction}"]
    first = 0
    while first < len(widths):
        last = first + 1
        while last < len(widths) and 4 + sum(width + 2 for width in widths[first : last + 1]) <= LINE_WIDTH:
            last += 1
        block = range(first, last)
        lines += ["", "step" + "".join("  " + result.names[i].rjust(widths[i]) for i in block)]
        lines += [
            f"{step:4d}" + "".join("  " + row[i].rjust(widths[i]) for i in block) for step, row in enumerate(cells)
        ]
        first = last
    steps = len(result.recorded)
    lines += [
        "",
        f"predicted (recorded), robot units; mean absolute error {result.mae:.4g} over {steps} recorded steps",
    ]
    return "\n".join(lines)


@app.command("eval", epilog="Example: fwtrain eval runs/rt --env sample --episodes 20")
def eval_command(
    run: RunArgument,
    env: Annotated[str, typer.Option(help="World to act in: sample.")] = "sample",
    episodes: Annotated[int, typer.Option(help="Episodes to run.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of scenes and noise.")] = 0,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Fresh random weights instead of the trained.")
    ] = False,
    execute: Annotated[int, typer.Option(help="Actions of a chunk carried out before looking again.")] = 24,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 10,
    vae: Annotated[str | None, typer.Option(help="VAE, where the one of the run's latents has moved.")] = None,
    record: Annotated[Path | None, typer.Option(help="Folder for the pictures of a few episodes (npz).")] = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Act in closed loop and report the success rate."""
    if env != "sample":
        raise UsageError(f"--env {env!r} is unknown; known: sample")
    from fwtrain.evaluate import evaluate_sample
    from fwtrain.policy import Policy
    from fwtrain.train.run import set_threads

    set_threads(threads)
    policy = Policy.load(run, vae, untrained=untrained, seed=seed, device=device)
    with progress_bar("closed loop", "episodes") as bar:
        bar.start(episodes)
        result = evaluate_sample(policy, episodes, seed, execute=execute, steps=steps, done=bar.advance, record=record)
    data = {
        "run": str(run),
        "env": env,
        "untrained": untrained,
        "successes": result.successes,
        "episodes": result.episodes,
        "rate": result.rate,
        "interval": result.interval,
        "mean_steps": result.mean_steps,
        "by_task": {task: {"successes": wins, "episodes": count} for task, (wins, count) in result.by_task.items()},
    }
    _answer(data, as_json, lambda: _eval_text(result, untrained))


def _eval_text(result: EvalResult, untrained: bool) -> str:
    low, high = result.interval
    which = "untrained" if untrained else "trained"
    lines = [
        f"{which}: {result.successes} of {result.episodes} episodes solved, {result.rate:.0%} "
        f"(95 % interval {low:.0%} to {high:.0%}), {result.mean_steps:.1f} steps on average"
    ]
    lines += [f"  {task}: {wins} of {count}" for task, (wins, count) in sorted(result.by_task.items())]
    return "\n".join(lines)


@app.command("recipes", epilog="Example: fwtrain recipes --json")
def recipes_command(as_json: Json = False) -> None:
    """List the built-in recipes."""
    from fwtrain.recipe import load_recipe, recipe_names

    found = {name: load_recipe(name) for name in recipe_names()}
    data = {"recipes": [item.model_dump(mode="json") for item in found.values()]}
    _answer(data, as_json, lambda: "\n".join(f"{name:10s} {item.description}" for name, item in found.items()))


@app.command("check-reference", epilog="Example: fwtrain check-reference tests/data/fastwam_golden/model")
def check_reference_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Reference folder.")],
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare the model with reference values and print the largest errors; exit code 1 above tolerance."""
    from fwtrain.reference import check_reference
    from fwtrain.train.run import set_threads

    set_threads(threads)
    rows = check_reference(folder)
    good = all(row.ok for row in rows)
    if as_json:
        emit_json({"ok": good, "rows": [{**asdict(row), "ok": row.ok} for row in rows]})
    else:
        cells: list[tuple[str, ...]] = [
            (row.run, row.quantity, f"{row.error:.2e}", f"{row.tolerance:.0e}", "" if row.ok else "ABOVE")
            for row in rows
        ]
        print_table(str(folder), ("run", "quantity", "error", "tolerance", ""), cells)
    if not good:
        fail(f"{sum(not row.ok for row in rows)} of {len(rows)} comparisons are above tolerance", EXIT_UNEXPECTED)


def main() -> None:
    """Entry point. Turns a FwdataError into one sentence and its exit code.

    Idle OpenMP threads must not spin: on cores shared with other work, two spinning threads made a training step 11 to
    18 times slower (42 s against 3.7 s for ten steps beside two busy processes). Read when torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run_app(app)
