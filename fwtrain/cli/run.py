"""`fwtrain run`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from fwdata.console import say
from fwdata.errors import UsageError
from fwdata.wording import counted
from fwtrain.cli._common import Device, Json, RecipeName, Threads, answer, need_recipe

if TYPE_CHECKING:
    from fwtrain.recipe import Recipe
    from fwtrain.train.loop import TrainingOutcome
    from fwtrain.train.run import Planned

StorePaths = Annotated[list[str], typer.Argument(metavar="STORE..", help="Stores with latents and text; one or more.")]
RunFolder = Annotated[Path, typer.Option(help="Run folder. A stopped run in it continues.")]
Steps = Annotated[
    int | None,
    typer.Option(help="Optimizer steps, in place of the recipe's; more than a finished run had: it continues."),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")]
Parity = Annotated[str | None, typer.Option(help="official: round to bf16 what the official run rounds.")]
Freeze = Annotated[str | None, typer.Option(help="video: train the action expert alone (recipe key freeze).")]
StoreWeights = Annotated[
    str | None, typer.Option(metavar="W,W..", help="With several stores, how often each is drawn (data.weights).")
]
Resume = Annotated[bool, typer.Option("--resume", help="Insist on continuing an existing run.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete the run in --out and start again.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check store, recipe and folder, say what would be trained, write nothing."),
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="On a GPU: only kernels that give the same bits every time, slower; an operation without one is an "
        "error. A CPU needs no such switch.",
    ),
]
StopSeconds = Annotated[
    float,
    typer.Option(help="With several processes: seconds from a signal until the last save is given up."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("run", epilog="Example: fwtrain run data/rt.zarr --recipe tiny --out runs/rt --set optim.lr=5e-4")(
        run_command
    )


def run_command(
    stores: StorePaths,
    out: RunFolder,
    recipe: RecipeName = None,
    steps: Steps = None,
    overrides: Overrides = None,
    parity: Parity = None,
    freeze: Freeze = None,
    weights: StoreWeights = None,
    resume: Resume = False,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    deterministic: Deterministic = False,
    stop_seconds: StopSeconds = 25.0,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train a recipe on a store, or on several of one robot.

    Ctrl-C or SIGTERM saves and stops; the same command continues.

    On several GPUs: torchrun --nproc-per-node 8 -m fwtrain run STORE --recipe R --out OUT --set parallel=fsdp (or ddp).
    """
    from fwtrain.recipe import load_recipe

    recipe = need_recipe(recipe)
    if resume and fresh:
        raise UsageError("--resume and --fresh exclude each other")
    weighed = None if weights is None else f"[{weights}]"
    flags = {"optim.steps": steps, "parity": parity, "freeze": freeze, "data.weights": weighed}
    extra = [f"{key}={value}" for key, value in flags.items() if value is not None]
    chosen = load_recipe(recipe, [*(overrides or []), *extra])
    import fwdata
    from fwtrain.train.run import be_deterministic, choose_device, plan_run, set_threads, stop_on_signals, train

    set_threads(threads)
    if deterministic:
        be_deterministic()
    if dry_run:
        choose_device(device)
        planned = plan_run([fwdata.open(store) for store in stores], chosen, out, resume=resume, fresh=fresh)
        answer({**asdict(planned), "out": str(out)}, as_json, lambda: _planned_text(planned, chosen))
        return
    with stop_on_signals(stop_seconds) as stop:
        opened = [fwdata.open(store) for store in stores]
        outcome = train(
            *(opened, chosen, out),
            resume=resume,
            fresh=fresh,
            device=device,
            should_stop=stop,
            deadline=stop.deadline,
            note=say,
            progress=True,
        )
    _end(outcome, out, stop_seconds, as_json)


def _end(outcome: TrainingOutcome, out: Path, stop_seconds: float, as_json: bool) -> None:
    """Print what a run came to; Interrupted where it was stopped."""
    from fwtrain.errors import Interrupted
    from fwtrain.train.parallel import first_process

    if not outcome.finished:
        raise Interrupted(_stopped_text(outcome, stop_seconds))
    if first_process():
        answer(_outcome_json(outcome, out), as_json, lambda: _outcome_text(outcome, out))


def _stopped_text(outcome: TrainingOutcome, seconds: float) -> str:
    if outcome.saved == outcome.step:
        return f"stopped and saved at step {outcome.step} of {outcome.total}; the same command continues"
    continues = "begins again" if outcome.saved is None else f"continues from step {outcome.saved}"
    return (
        f"stopped at step {outcome.step} of {outcome.total}, which could not be saved within {seconds:g} s "
        f"(--stop-seconds); the same command {continues}"
    )


def _planned_text(planned: Planned, recipe: Recipe) -> str:
    left = "nothing is left to do" if planned.step >= planned.total else f"steps {planned.step} to {planned.total}"
    epochs = planned.total * planned.windows_per_step / max(planned.windows, 1)
    checked = f"{planned.validation_windows} held-out windows" if planned.validation_windows else "no validation"
    return (
        f"{planned.out}: {left} of recipe {recipe.name}, {recipe.model.variant}, {planned.parameters:,} parameters\n"
        f"{counted(planned.windows, 'window')} of {counted(planned.episodes, 'episode')}, "
        f"{planned.video_share:.0%} with video; "
        f"{planned.windows_per_step} a step, {epochs:.1f} epochs; {checked}"
    )


class OutcomeJson(TypedDict):
    """The document of `fwtrain run --json`; null where nothing was trained or validated."""

    run: str
    """Folder of the run."""
    step: int
    """Optimizer steps done."""
    total: int
    """Steps of the whole run."""
    loss: float | None
    """Mean of the last log interval."""
    video_loss: float | None
    """Its video part."""
    action_loss: float | None
    """Its action part."""
    val_action_mae: float | None
    """Mean absolute error of sampled actions, robot's units."""
    val_action_rmse: float | None
    """Root mean square error of sampled actions, robot's units."""
    validation: dict[str, float] | None
    """All numbers of the last validation by name."""
    best_step: int | None
    """Step with the lowest validation score."""
    best_score: float | None
    """That score."""
    steps_per_s: float
    """Optimizer steps per second."""
    samples_per_s: float
    """Windows per second."""
    data_wait: float
    """Share of the time that training waited for data, 0 .. 1."""
    seconds: float
    """Time of this call."""


def _outcome_json(outcome: TrainingOutcome, out: Path) -> OutcomeJson:
    result = outcome.validation
    return {
        "run": str(out),
        "step": outcome.step,
        "total": outcome.total,
        "loss": outcome.loss,
        "video_loss": outcome.video,
        "action_loss": outcome.action,
        "val_action_mae": result.action_error.mae if result else None,
        "val_action_rmse": result.action_error.rmse if result else None,
        "validation": result.values() if result else None,
        "best_step": outcome.best_step,
        "best_score": outcome.best_score,
        "steps_per_s": outcome.steps_per_s,
        "samples_per_s": outcome.samples_per_s,
        "data_wait": outcome.data_wait,
        "seconds": outcome.seconds,
    }


def _outcome_text(outcome: TrainingOutcome, out: Path) -> str:
    if outcome.loss is None:
        return (
            f"{out} is complete at step {outcome.step}, nothing was trained; for more steps: the same command with a "
            "larger --steps"
        )
    result = outcome.validation
    video = f"{outcome.video:.4f}" if outcome.video else "none of this step's windows"
    lines = [
        f"{out}: {counted(outcome.step, 'step')}, loss {outcome.loss:.4f} (video {video}, action {outcome.action:.4f})",
        f"{outcome.seconds:.1f} s, {outcome.steps_per_s:.2f} steps/s, {outcome.samples_per_s:.1f} samples/s, "
        f"data wait {outcome.data_wait:.1%}",
    ]
    if result:
        error = result.action_error
        lines.append(
            f"validation: mean absolute action error {error.mae:.4g}, rmse {error.rmse:.4g} (robot units); "
            f"score {result.score:.4g}, loss {result.loss:.4f}"
        )
    if outcome.best_step is not None:
        lines.append(f"best validation score {outcome.best_score:.4g} at step {outcome.best_step}: --checkpoint best")
    lines.append(f"report: {out / 'report.html'}")
    return "\n".join(lines)
