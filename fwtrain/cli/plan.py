"""`fwtrain plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fwdata.console import print_table, progress_bar
from fwdata.errors import UsageError
from fwtrain.cli._common import Json, RecipeName, answer, need_recipe, no_collection

if TYPE_CHECKING:
    from fwtrain.train.plan import Recommendation, SettingRow

GPUS = (24, 32, 48, 80)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("plan", epilog="Example: fwtrain plan --recipe libero --gpu 80 --set gradient_checkpointing=true")(
        plan_command
    )


def plan_command(
    recipe: RecipeName = None,
    gpu: Annotated[list[int] | None, typer.Option(help="GPU memory in GiB; several times for several.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")] = None,
    store: Annotated[str | None, typer.Option(help="Store to take sizes from (default: the recipe's dataset).")] = None,
    processes: Annotated[int, typer.Option(help="Processes that share the state under fsdp.")] = 8,
    mfu: Annotated[float, typer.Option(help="Share of the GPU's bf16 peak that training is assumed to use.")] = 0.2,
    as_json: Json = False,
) -> None:
    """One command for every GPU size, alone and with several, and which settings fit. Computed; nothing is run.

    Counts weights, float32 masters, gradients and moments, the peak of a training step's activations, and what
    validation gathers under fsdp, with 1.5 GiB and 5 % of the GPU set aside. Hours are computed from counted FLOPs,
    the GPU's data sheet and --mfu; every window counts as one with future latents.
    """
    recipe = need_recipe(recipe)
    gpus = tuple(gpu or GPUS)
    if min(gpus) < 1 or processes < 1:
        raise UsageError("--gpu and --processes must be at least 1")
    if not 0 < mfu <= 1:
        raise UsageError(f"--mfu must be above 0 and at most 1, found {mfu}")
    with no_collection():
        data, text = _planned(recipe, tuple(overrides or ()), gpus, store, processes, mfu)
    answer(data, as_json, lambda: text)


def _planned(
    recipe: str, overrides: tuple[str, ...], gpus: tuple[int, ...], store: str | None, processes: int, mfu: float
) -> tuple[dict[str, object], str]:
    """The answer as JSON and as text."""
    import fwdata
    from fwtrain.recipe import load_recipe
    from fwtrain.train.build import Sizes, sized_config
    from fwtrain.train.plan import plan_rows, recommend, settings_of

    chosen = load_recipe(recipe, overrides)

    sizes = Sizes.usual(chosen) if store is None else Sizes.planned(fwdata.open(store), chosen)
    config = sized_config(chosen, sizes)
    with progress_bar("plan", "settings") as bar:
        bar.start(len(settings_of(chosen, processes)))
        rows = plan_rows(recipe, overrides, config, gpus, processes=processes, done=bar.advance)
    counts = (1,) if processes == 1 else (1, processes)
    best = [recommend(rows, recipe, overrides, size, count, mfu) for size in gpus for count in counts]
    data: dict[str, object] = {
        "recipe": chosen.name,
        "batch_size": chosen.optim.batch_size,
        "latents": config.latent_grid,
        "gpus": gpus,
        "recommended": [item.to_json() for item in best],
        "settings": [row.to_json() for row in rows],
    }
    return data, _recommended(best, recipe) + "\n\n" + _text(rows, chosen.optim.batch_size, gpus)


def _recommended(items: list[Recommendation], recipe: str) -> str:
    """One block per machine: what it trains, for how long, and the command."""
    lines = [f"recipe {recipe}, hours computed at {items[0].mfu:.0%} of the GPU's bf16 peak"]
    for item in items:
        where = f"{item.processes} x {item.gib} GiB (as {item.gpu.name})"
        if item.setting is None:
            lines.append(f"{where}: nothing fits")
            continue
        took = f"{item.hours:,.1f} h" if item.hours else "hours depend on the store (the recipe counts epochs)"
        lines += [
            f"{where}: {item.setting.name}; {item.batch} windows per pass, {took}, "
            f"checkpoints {item.disk / 2**30:,.0f} GiB on disk, {item.host / 2**30:,.0f} GiB of host memory",
            f"  {item.command}",
        ]
    return "\n".join(lines)


def _text(rows: list[SettingRow], batch_size: int, gpus: tuple[int, ...]) -> str:
    """The table; sizes in GiB."""
    lines: list[str] = []
    header = ("", "processes", "trained", "state", "gradients", f"activations at {batch_size}")
    cells = [
        (
            row.setting.name,
            str(row.processes),
            f"{row.memory.trained / 1e6:,.2f} M",
            *(f"{size / 2**30:.2f}" for size in (row.memory.state, row.memory.gradients, row.memory.activations)),
            *(str(row.batch[gpu] or "-") for gpu in gpus),
        )
        for row in rows
    ]
    title = "GiB on one process, and the most windows per pass that fit (- none)"
    print_table(title, (*header, *(f"{gpu} GiB" for gpu in gpus)), cells, lines.append)
    return "\n".join(lines)
