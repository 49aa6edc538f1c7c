"""`fwtrain distil`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.console import emit_json, print_table, progress_bar, say
from fwdata.errors import UsageError
from fwtrain.cli._common import Device, Json, RunArgument, Threads, WhichCheckpoint

if TYPE_CHECKING:
    from fwtrain.train.distil import DistilRow

EXAMPLE = "Example: fwtrain distil runs/rt --store data/rt.zarr --steps 1,2,4 --env sample"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("distil", epilog=EXAMPLE)(distil_command)


def distil_command(
    run: RunArgument,
    store: Annotated[str, typer.Option(metavar="STORE", help="The run's store, with latents, text and statistics.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the students (default RUN/distil).")] = None,
    steps: Annotated[str, typer.Option(help="Denoising steps of every student, comma separated.")] = "1,2,4",
    teacher_steps: Annotated[int, typer.Option(help="Denoising steps of the teacher.")] = 10,
    train_steps: Annotated[int, typer.Option(help="Optimizer steps of every student.")] = 1000,
    batch_size: Annotated[int | None, typer.Option(help="Windows per optimizer step (default: the run's).")] = None,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-4,
    env: Annotated[str, typer.Option(help="World of the closed loop: sample, or none.")] = "none",
    episodes: Annotated[int, typer.Option(min=1, help="Closed-loop episodes of every policy.")] = 20,
    execute: Annotated[int, typer.Option(help="Actions of a chunk carried out before looking again.")] = 24,
    checkpoint: WhichCheckpoint = "last",
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train few-step students of a run and compare errors, success and latency with the teacher's.

    A student is a run folder OUT/steps-K: eval, serve and export take it; sample it with --steps K. Finished students
    are kept.
    """
    import fwdata
    from fwtrain.train.distil import DistilRequest, distil, table
    from fwtrain.train.run import set_threads

    words = [word.strip() for word in steps.split(",") if word.strip()]
    if not all(word.isdigit() for word in words):
        raise UsageError(f"--steps takes numbers like 1,2,4, found {steps!r}")
    if env not in ("sample", "none"):
        raise UsageError(f"--env {env!r} is unknown; known: sample, none; other worlds: fwtrain eval OUT/steps-K")
    set_threads(threads)
    counts = tuple(dict.fromkeys(map(int, words)))
    asked = DistilRequest(
        run, out or run / "distil", counts, checkpoint, teacher_steps, train_steps, batch_size, lr, device
    )
    with progress_bar("distilling", "steps") as bar:
        bar.start(train_steps * sum(not (asked.out / f"steps-{count}").exists() for count in counts))
        rows = distil(
            fwdata.open(store),
            asked,
            episodes=episodes if env == "sample" else 0,
            execute=execute,
            note=say,
            progress=bar.advance,
        )
    if as_json:
        emit_json({"run": str(run), "out": str(asked.out), "rows": table(rows)})
        return
    header = ("policy", "steps", "distance to teacher", "error", "ms per chunk", "success")
    print_table(str(asked.out), header, [_cells(row) for row in rows])


def _cells(row: DistilRow) -> tuple[str, ...]:
    closed = "-"
    if row.closed is not None:
        low, high = (100 * value for value in row.closed.interval)
        closed = f"{row.closed.successes} of {row.closed.episodes} ({low:.0f} to {high:.0f} %)"
    error = "-" if row.error is None else f"{row.error:.4g}"
    return row.name, str(row.steps), f"{row.to_teacher:.4f}", error, f"{row.milliseconds:.1f}", closed
