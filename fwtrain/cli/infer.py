"""`fwtrain predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fwtrain.cli._common import Json, PolicyOptions, answer, sampling_text, with_policy_options

if TYPE_CHECKING:
    from fwtrain.infer.predict import Prediction


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("predict", epilog="Example: fwtrain predict runs/rt --store data/rt.zarr --episode 0 --frame 10")(
        predict_command
    )


@with_policy_options
def predict_command(
    policy: PolicyOptions,
    store: Annotated[str, typer.Option(help="Store with the run's latents and text.")],
    episode: Annotated[int, typer.Option(help="Episode index.")] = 0,
    frame: Annotated[int, typer.Option(help="Frame the chunk starts at.")] = 0,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the starting noise.")] = 0,
    as_json: Json = False,
) -> None:
    """Print the action chunk at one recorded frame, in robot units, beside the recorded actions."""
    import fwdata
    from fwtrain.infer.predict import predict

    sampling = policy.sampling(steps)
    result = predict(
        policy.run,
        fwdata.open(store),
        episode,
        frame,
        seed=seed,
        checkpoint=policy.checkpoint,
        device=policy.device,
        sampling=sampling,
    )
    answer(result.to_json(), as_json, lambda: _chunk_text(result))


LINE_WIDTH = 120


def _chunk_text(result: Prediction) -> str:
    """Blocks of columns that fit a line; a row per step, `predicted (recorded)` per dimension."""
    cells = [[f"{value:.4f}" for value in row] for row in result.action]
    for step, row in enumerate(result.recorded):
        cells[step] = [f"{have} ({value:.4f})" for have, value in zip(cells[step], row, strict=True)]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(result.names)]
    lines = [f"store {result.store}, episode {result.episode}, frame {result.frame}: {result.instruction}"]
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
        f"sampled with {sampling_text(result.sampling)}",
    ]
    return "\n".join(lines)
