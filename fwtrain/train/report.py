"""A run on one page: RUN/report.html, from the files of the run folder alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fwdata.report import Panel, Report
from fwdata.report.images import light_copy
from fwdata.report.markup import show
from fwtrain.model import FastWAM
from fwtrain.train.folder import REPORT, RunFolder
from fwtrain.train.logs import read_images, read_log
from fwtrain.train.report_loops import LoopResult, add_loops, find_loops

if TYPE_CHECKING:
    from fwdata.report.plots import Values

EARLIER = 3
"""Validations whose images are shown, folded away, besides the newest."""


def write_run_report(folder: RunFolder) -> Path:
    """Write the page and return its path. Raises UsageError when this is not a run folder. Takes less than a second."""
    train, validations = read_log(folder.path), read_log(folder.path, "val")
    report = Report(f"{folder.recipe().name} trained in {folder.path.resolve().name}")
    loops = find_loops(folder.path)
    _result(report, folder, train, validations, loops)
    add_loops(report, loops)
    _curves(report, train, validations)
    _validation(report, folder, validations)
    _images(report, folder)
    report.heading("What was trained")
    _facts(report, folder, train)
    with report.folded("Recipe"):
        report.code((folder.path / "recipe.yaml").read_text(encoding="utf-8"))
    return report.write(folder.path / REPORT)


def renew_run_report(run: Path, shown: Path) -> None:
    """Write the page of a run again where `shown`, a closed loop's folder, lies in the run folder and is part of it."""
    if shown.resolve().parent == run.resolve():
        write_run_report(RunFolder(run))


def _result(
    report: Report,
    folder: RunFolder,
    train: list[dict[str, float]],
    validations: list[dict[str, float]],
    loops: Sequence[LoopResult],
) -> None:
    """What came of it, in a few facts, success first."""
    last, best = folder.latest(), folder.best()
    facts: dict[str, object] = {
        f"closed loop in {loop.world}, {'before training' if loop.untrained else loop.checkpoint}": loop.text
        for loop in sorted(loops, key=lambda loop: loop.untrained)  # the trained policy first
    }
    facts["newest checkpoint"] = f"step {last.step}" if last else "none yet"
    if validations:
        first, now = validations[0], validations[-1]
        earlier = f" ({show(first['action_mae'])} at step {first['step']})" if len(validations) > 1 else ""
        error = f"{show(now['action_mae'])} at step {now['step']}{earlier}"
        facts["mean absolute action error, held-out episodes"] = f"{error}, in the robot's units"
    if best is not None:
        facts["best checkpoint"] = f"step {best.step}"
    if train:
        facts["training loss"] = f"{show(train[-1]['loss'])} at step {train[-1]['step']}"
        facts["speed"] = (
            f"{show(_median(train, 'steps_per_s'))} steps/s, {show(_median(train, 'samples_per_s'))} windows/s"
        )
        facts["waiting for data"] = f"{_median(train, 'data_wait'):.1%} of the time"
    report.facts(facts)


def _median(rows: list[dict[str, float]], name: str) -> float:
    return statistics.median(row[name] for row in rows if name in row) if any(name in row for row in rows) else 0.0


def _facts(report: Report, folder: RunFolder, train: list[dict[str, float]]) -> None:
    recipe, info = folder.recipe(), folder.info()
    windows = recipe.optim.batch_size * recipe.optim.accumulation
    longer = "".join(f"; continued at step {row['step']}" for row in read_log(folder.path, "longer"))
    length = f"{recipe.optim.steps:,} steps" if recipe.optim.steps else f"{recipe.optim.epochs} epochs"
    reached = f"; {train[-1]['epoch']:.3g} epochs at step {train[-1]['step']}" if train and "epoch" in train[-1] else ""
    seconds = info.manifest.window.action_horizon / info.fps
    report.facts(
        {
            "recipe": f"{recipe.name}: {recipe.description}" if recipe.description else recipe.name,
            "variant": info.model.variant,
            "parameters": FastWAM(info.model, seed=None, device="meta").num_parameters(),
            "plan": f"{length} of {windows} windows{longer}{reached}",
            "schedule": f"warm-up over {recipe.optim.warmup_fraction:.0%} of the steps to {recipe.optim.lr:g}, then a "
            f"cosine to {recipe.optim.lr * recipe.optim.min_lr_ratio:g}",
            "actions": f"{info.manifest.window.action_horizon} at {info.fps:.4g} Hz, {seconds:.2f} s ahead",
            "weights of the losses": f"video {info.model.lambda_video:g}, action {info.model.lambda_action:g}",
            "data": f"{info.source}, {info.episodes['train']} training and {info.episodes['val']} validation episodes",
            "stores": ", ".join(f"{s.name} (weight {s.weight:g})" for s in info.stores) or "one",
            "latents": f"{info.latents.name} (VAE {info.latents.spec})",
            "text": f"{info.text.name} (encoder {info.text.spec})",
        }
    )


def _line(rows: list[dict[str, float]], name: str) -> Values:
    kept = [row for row in rows if name in row]
    return [row["step"] for row in kept], [row[name] for row in kept]


def _curves(report: Report, train: list[dict[str, float]], validations: list[dict[str, float]]) -> None:
    report.heading("Losses")
    if not train:
        report.text("Nothing was logged yet.")
        return
    lines = {
        f"{name}, {kind}": _line(rows, name)
        for name in ("video", "action")
        for kind, rows in (("training", train), ("validation", validations))
        if any(row.get(name) for row in rows)
    }
    report.plot("Loss", lines, "step", "loss", log=True)
    panels = [
        Panel("gradient norm", {"": _line(train, "grad_norm")}, includes=(0.0,)),
        Panel("learning rate", {"": _line(train, "lr")}, includes=(0.0,)),
        Panel("windows per second", {"": _line(train, "samples_per_s")}, includes=(0.0,)),
        Panel("waiting for data, share of time", {"": _line(train, "data_wait")}, includes=(0.0, 0.1)),
    ]
    report.multiples("Course", panels, "step")


def _validation(report: Report, folder: RunFolder, validations: list[dict[str, float]]) -> None:
    report.heading("Validation")
    if not validations:
        report.text("No validation: the store has no validation episodes, it is switched off, or none was due yet.")
        return
    report.text(
        "On windows of held-out episodes, with the same noise at every step. Score: mean absolute action error of "
        "sampled chunks in normalised units, by which the best checkpoint is kept; action errors in the robot's units."
    )
    horizon = sorted({name for row in validations for name in row if name.startswith("video.")})
    columns = ["step", "score", "action_mae", "action_rmse", "loss", "action", "video", *horizon]
    heads = ["step", "score", "mean abs. error", "rmse", "loss", "action loss", "video loss"]
    heads += [f"video loss, latent frame {name.removeprefix('video.')}" for name in horizon]
    report.table(heads, [[row.get(name) for name in columns] for row in validations])
    if len(validations) > 1:
        shown = {"score": "score", **dict(zip(horizon, heads[7:], strict=True))}
        report.multiples(
            "Over training", [Panel(shown[n], {"": _line(validations, n)}, includes=(0.0,)) for n in shown], "step"
        )
    names, last = folder.info().action.names, validations[-1]
    with report.folded(f"Error of every action dimension at step {last['step']}"):
        rows = [(name, last.get(f"mae.{name}")) for name in names]
        report.table(("dimension", "mean absolute error, robot units"), rows)


def _images(report: Report, folder: RunFolder) -> None:
    found = [item for item in read_images(folder.path) if item[1].is_file()]
    if not found:
        return
    report.heading("Predicted futures")
    report.text("True and predicted frames of held-out windows, both decoded from latents.")
    by_step: dict[int, list[tuple[bytes, str]]] = {}
    for step, path, caption in found:
        by_step.setdefault(step, []).append((light_copy(path.read_bytes()), caption))
    newest, *older = sorted(by_step, reverse=True)
    report.heading(f"Step {newest}", 3)
    report.images(by_step[newest])
    if older:
        with report.folded("Earlier validations"):
            for step in older[:EARLIER]:
                report.heading(f"Step {step}", 3)
                report.images(by_step[step])
