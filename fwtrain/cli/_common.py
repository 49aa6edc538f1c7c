"""What the commands share: options, and the result on stdout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fwdata.console import emit_json
from fwdata.errors import UsageError

if TYPE_CHECKING:
    from fwtrain.model import Denoising

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads (default: all physical cores, up to 8).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Compiled = Annotated[bool, typer.Option("--compile", help="Layers through torch.compile.")]
WhichCheckpoint = Annotated[
    str, typer.Option("--checkpoint", metavar="WHICH", help="last, best (by validation), or a step.")
]
RecipeName = Annotated[
    str | None, typer.Option(help="Recipe name (see fwtrain recipes) or path of a .yaml file; required.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, as written by fwtrain run.")]
Mode = Annotated[
    str | None, typer.Option(metavar="MODE", help="Of a variant with several: idm or first-frame (default: the first).")
]
Shift = Annotated[
    str | None,
    typer.Option(
        metavar="SHIFT",
        help="Time shift of the sampling grids, as upstream's sigma_shift: one number for both streams, or "
        "VIDEO,ACTION (default: those the run was trained with; others sample on another grid).",
    ),
]


def need_recipe(name: str | None) -> str:
    """The recipe that was named. UsageError with the known ones where none was."""
    from fwtrain.recipe import recipe_names

    if name is None:
        raise UsageError(f"choose a recipe with --recipe: {', '.join(recipe_names())}, or the path of a .yaml file")
    return name


def sampling_of(steps: int, mode: str | None, shift: str | None) -> Denoising:
    """The options as one record. UsageError for no step at all and for a shift that is not one or two numbers."""
    from fwtrain.model import Denoising

    if steps < 1:
        raise UsageError(f"--steps must be at least 1, found {steps}")
    video = action = None
    if shift is not None:
        try:
            video, action = (float(part) for part in (shift if "," in shift else f"{shift},{shift}").split(","))
        except ValueError:
            raise UsageError(f"--shift takes one number, or VIDEO,ACTION, found {shift!r}") from None
    return Denoising(steps=steps, mode=mode, video_shift=video, action_shift=action)


def sampling_text(sampling: Denoising) -> str:
    """`mode idm, 10 steps, shift 5 (video) and 1 (actions)`."""
    return (
        f"mode {sampling.mode}, {sampling.steps} steps, "
        f"shift {sampling.video_shift:g} (video) and {sampling.action_shift:g} (actions)"
    )


def answer(data: dict[str, Any], as_json: bool, text: Callable[[], str]) -> None:
    """The result on stdout."""
    if as_json:
        emit_json(data)
    else:
        print(text())
