"""Trains and judges the runs of a comparison. A finished run is not done again; a stopped one continues."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from fwdata.console import Bar, progress_bar
from fwdata.envs.sample import SampleEnv
from fwdata.io import plain_json, write_json
from fwtrain.compare.plan import ComparedRun, ComparisonPlan
from fwtrain.data import open_source
from fwtrain.data.contract import StoreLike
from fwtrain.errors import Interrupted
from fwtrain.infer.evaluate import EvalResult, evaluate_sample
from fwtrain.infer.policy import Policy
from fwtrain.infer.trials.loop import Unfinished
from fwtrain.infer.trials.plan import check_fit
from fwtrain.infer.worlds import BenchmarkLoopWorld
from fwtrain.train.build import model_config
from fwtrain.train.folder import RunFolder, RunInfo
from fwtrain.train.logs import read_log
from fwtrain.train.report import write_run_report
from fwtrain.train.report_loops import COMPARED
from fwtrain.train.run import train

EVALUATION = "evaluation.json"
"""In a run folder: its closed-loop result, and the settings and checkpoint it holds for."""


@dataclass(frozen=True)
class CellResult:
    """Result of one run."""

    cell: ComparedRun
    """The run."""
    validation: dict[str, float]
    """The last validation's numbers by name; empty without validation episodes."""
    closed: EvalResult | None
    """Result of the closed loop; None without a world."""
    steps: int
    """Optimizer steps trained."""
    unfinished: tuple[Unfinished, ...] = ()
    """Trials of a benchmark whose environment was lost; the same command tries them again."""
    warnings: tuple[str, ...] = ()
    """What may make the success rate mean something else."""


@dataclass(frozen=True)
class CellState:
    """How far a run is."""

    cell: ComparedRun
    """The run."""
    step: int
    """Step of its newest checkpoint; 0 before the first."""
    total: int | None
    """Steps of the whole run; None: not known before it begins (a length in epochs)."""
    judged: bool
    """Whether it is trained and evaluated."""


def states(plan: ComparisonPlan) -> list[CellState]:
    """How far every run of a comparison is; reads the folder alone."""
    return [_state(plan, cell) for cell in plan.cells]


def _state(plan: ComparisonPlan, cell: ComparedRun) -> CellState:
    folder = RunFolder(plan.folder(cell))
    newest = folder.latest()
    if newest is None:
        return CellState(cell, 0, plan.base.optim.steps, False)
    total = newest.state()["total"]
    judged = newest.step == total and (plan.env == "none" or _known(plan, cell, newest.step) is not None)
    return CellState(cell, newest.step, total, judged)


def run_comparison(
    store: StoreLike,
    plan: ComparisonPlan,
    *,
    device: str = "auto",
    should_stop: Callable[[], bool] = lambda: False,
    note: Callable[[str], None] = lambda _: None,
    finished: Callable[[list[CellResult]], object] = lambda _: None,
    progress: bool = False,
) -> list[CellResult]:
    """Every run's result, in the plan's order. finished: called with all results so far after every run.

    Raises Interrupted when `should_stop` asked for the end: what was done is kept, the same call continues; RunMismatch
    when `plan.out` holds runs of another comparison; UsageError for a store whose robot the world does not have; what
    training raises.
    """
    _check_world(store, plan)
    for cell in plan.cells:  # all of them before any is trained
        folder = RunFolder(plan.folder(cell))
        if folder.exists:
            folder.prepare(plan.recipe(cell), resume=True, fresh=False, longer=False)  # refuses other recipes
    results: list[CellResult] = []
    clock = _Clock()
    for number, cell in enumerate(plan.cells, 1):
        judged = _state(plan, cell).judged
        note(f"[{number}/{len(plan.cells)}] {cell.arm.name}, seed {cell.seed}{clock.left(plan, results)}")
        began = time.perf_counter()
        results.append(_one(store, plan, cell, device, should_stop, note, progress))
        if not judged:
            clock.add(cell.arm.name, time.perf_counter() - began)
        finished(results)
    return results


def _check_world(store: StoreLike, plan: ComparisonPlan) -> None:
    """UsageError for a robot that the world does not have, before anything is trained."""
    if plan.env == "sample":
        SampleEnv(store.source)
    if plan.benchmark is not None:
        recipe = plan.recipe(plan.cells[0])
        source = open_source(store, recipe)
        check_fit(RunInfo.of(source, model_config(recipe, source)), plan.benchmark)


class _Clock:
    """Time left, from the runs done in this call."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    def add(self, arm: str, seconds: float) -> None:
        self._seconds.setdefault(arm, []).append(seconds)

    def left(self, plan: ComparisonPlan, done: list[CellResult]) -> str:
        """`"; about 12 min left"`, empty before the first run is over."""
        if not self._seconds:
            return ""
        every = float(np.mean([seconds for found in self._seconds.values() for seconds in found]))
        left = [state.cell.arm.name for state in states(plan)[len(done) :] if not state.judged]
        seconds = sum(float(np.mean(self._seconds.get(arm, [every]))) for arm in left)
        return f"; about {seconds / 60:.0f} min left" if seconds >= 90 else f"; about {seconds:.0f} s left"


def _one(
    store: StoreLike,
    plan: ComparisonPlan,
    cell: ComparedRun,
    device: str,
    should_stop: Callable[[], bool],
    note: Callable[[str], None],
    progress: bool,
) -> CellResult:
    path = plan.folder(cell)
    if not _state(plan, cell).judged:
        outcome = train(
            store, plan.recipe(cell), path, device=device, should_stop=should_stop, note=note, progress=progress
        )
        if not outcome.finished:
            where = f"step {outcome.step} of {outcome.total} of {cell.name}"
            raise Interrupted(f"stopped and saved at {where}; the same command continues")
    else:
        RunFolder(path).prepare(plan.recipe(cell), resume=True, fresh=False, longer=False)  # refuses other recipes
    step = RunFolder(path).need_checkpoint().step
    validations = read_log(path, "val")
    trained = CellResult(
        cell=cell,
        validation={k: v for k, v in validations[-1].items() if k != "kind"} if validations else {},
        closed=None,
        steps=step,
    )
    return trained if plan.env == "none" else _closed_loop(plan, trained, device, should_stop, progress)


def _closed_loop(
    plan: ComparisonPlan, trained: CellResult, device: str, should_stop: Callable[[], bool], progress: bool
) -> CellResult:
    cell, step = trained.cell, trained.steps
    known = _known(plan, cell, step)
    if known is not None:
        return replace(trained, closed=known[0], warnings=known[1])

    with progress_bar("closed loop", "episodes") if progress else nullcontext() as bar:
        found = _played(plan, trained, device, should_stop, bar)
    folder = RunFolder(plan.folder(cell))
    if plan.benchmark is not None:
        write_run_report(folder)  # which shows the trials
    if not found.unfinished:
        kept = {"step": step, "result": found.closed, "warnings": list(found.warnings)}
        write_json(folder.path / EVALUATION, {**plan.settings(), **kept})
    return found


def _played(
    plan: ComparisonPlan, trained: CellResult, device: str, should_stop: Callable[[], bool], bar: Bar | None
) -> CellResult:
    cell, folder = trained.cell, RunFolder(plan.folder(trained.cell))

    def go_on(ended: int) -> None:
        if bar is not None:
            bar.advance(ended)
        if should_stop():
            kept = "its training is" if plan.benchmark is None else "its training and its finished trials are"
            raise Interrupted(f"stopped while {cell.name} was acting; {kept} kept, the same command continues")

    begin = (lambda _: None) if bar is None else bar.start
    policy = Policy.load(folder.path, device=device)
    if plan.benchmark is None:
        begin(plan.episodes)
        return replace(trained, closed=evaluate_sample(policy, plan.episodes, seed=0, execute=plan.execute, done=go_on))
    world = BenchmarkLoopWorld(plan.benchmark, folder.path / COMPARED, plan.workers, start=begin, done=go_on)
    result = world.play(policy, folder.need_checkpoint(), "policy", plan.benchmark.protocol.denoising_steps)
    return replace(trained, closed=result, unfinished=tuple(world.unfinished), warnings=tuple(world.warnings))


def _known(plan: ComparisonPlan, cell: ComparedRun, step: int) -> tuple[EvalResult, tuple[str, ...]] | None:
    """The closed-loop result on disk with its warnings, if it is of these settings and this checkpoint."""
    path: Path = plan.folder(cell) / EVALUATION
    if not path.is_file():
        return None
    data: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    asked = json.loads(json.dumps({**plan.settings(), "step": step}, default=plain_json))
    if {key: data.get(key) for key in asked} != asked:
        return None
    warnings = TypeAdapter(tuple[str, ...]).validate_python(data.get("warnings", ()))
    return TypeAdapter(EvalResult).validate_python(data["result"]), warnings
