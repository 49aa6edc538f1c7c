"""Few-step students of a user's own run, and what they cost in accuracy.

A student is a copy of the run whose action expert is trained so that its own K Euler steps end where the teacher's many
steps end, from the same noise and observation: the error at the end point goes back through all K steps. Video expert
and conditioning stay the teacher's, so first-frame keys are shared and video prediction is unchanged. A student is a
run folder like any other; it is meant to be sampled with its K steps.

Sources: X. Liu et al., InstaFlow (arXiv 2309.06380, distillation of a flow's end points, one step); T. Salimans and
J. Ho, Progressive distillation (arXiv 2202.00512, a student's steps against several of the teacher's); N. Boffi et al.,
Flow map matching (arXiv 2406.07507). No weights on the loss and no adversary: pure regression.
"""

from __future__ import annotations

import copy
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fwdata.errors import UsageError
from fwdata.io import write_json
from fwdata.manifest import validate_model
from fwtrain.batch import Batch
from fwtrain.data import StoreSource, Stream, derived_seed, open_source, training_order, training_reader
from fwtrain.data.contract import StoreLike
from fwtrain.errors import RunMismatch, TrainingDiverged
from fwtrain.export.files import whole
from fwtrain.infer.about import weights_digest
from fwtrain.infer.evaluate import EvalResult
from fwtrain.infer.policy import Policy
from fwtrain.infer.worlds import LoopWorld
from fwtrain.model import Denoising, FastWAM, Noise, sample
from fwtrain.model.sampling import sampled
from fwtrain.recipe import Recipe
from fwtrain.train.build import model_config
from fwtrain.train.folder import RunFolder, RunInfo
from fwtrain.train.imported import IMPORTED, record_weights
from fwtrain.train.run import choose_device
from fwtrain.train.validate import Validator
from fwtrain.train.weights import load_trained

SETTINGS = "distil.json"
"""In a student's folder: what it was made with."""
TEACHER_WEIGHTS = "teacher_weights"
"""Setting: digest of the teacher's weights, which another run of the same name and step does not share."""
WARM_UP = 0.05
"""Share of the steps in which the learning rate rises; after it it falls linearly to 0."""
COMPARED = 4
"""Batches on which students and teacher are compared: those that would come next, with noise of their own."""
LATENCY_REPEATS = 5
SAME_SCALING = 1e-4
"""Relative difference of two statistics of the same data, one of them official."""


@dataclass(frozen=True)
class DistilRequest:
    """One distillation."""

    run: Path
    """Run folder of the teacher."""
    out: Path
    """Folder of the students, `steps-K` each."""
    steps: tuple[int, ...]
    """K of every student."""
    checkpoint: str = "last"
    """Of the teacher: "last", "best" or a step."""
    teacher_steps: int = 10
    """Euler steps of the teacher."""
    train_steps: int = 1000
    """Optimizer steps of every student."""
    batch_size: int | None = None
    """Windows per step; None: the run's."""
    lr: float = 1e-4
    """Highest learning rate."""
    device: str = "auto"
    """Where it runs."""


@dataclass(frozen=True)
class DistilRow:
    """One policy of the comparison."""

    name: str
    """Teacher, teacher with fewer steps, or student."""
    steps: int
    """Euler steps that it is sampled with."""
    to_teacher: float
    """Mean absolute distance of its chunks from the teacher's of all steps, normalised units."""
    error: float | None
    """Mean absolute error against recorded actions of validation windows, robot's units; None without such windows."""
    milliseconds: float
    """Median time of one chunk, the observation encoded already."""
    closed: EvalResult | None = None
    """Closed loop; None where none was asked for."""


def distil(
    store: StoreLike,
    asked: DistilRequest,
    *,
    loop: LoopWorld | None = None,
    note: Callable[[str], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[DistilRow]:
    """Train the students that are not there yet, and compare all with their teacher.

    loop: closed loop that all of them act in, None for none. note: callback, a sentence per student; progress:
    callback, optimizer steps done. A finished student is not trained again. Raises UsageError for numbers out of range
    or a run of another robot than the closed loop's world, RunMismatch for students made with other settings,
    TrainingDiverged for a loss that is not finite.
    """
    _check(asked)
    folder = RunFolder(asked.run)
    folder.info()  # says what is not a run folder
    checkpoint, recipe = folder.need_checkpoint(asked.checkpoint), folder.recipe()
    if loop is not None:
        loop.check(folder.info())
    source, device = open_source(store, recipe), choose_device(asked.device)
    _check_store(folder, source)
    settings: dict[str, object] = {
        "teacher": asked.run.name, "teacher_step": checkpoint.step, TEACHER_WEIGHTS: weights_digest(checkpoint),
        "teacher_steps": asked.teacher_steps,
        "train_steps": asked.train_steps, "batch_size": asked.batch_size or recipe.optim.batch_size, "lr": asked.lr,
    }  # fmt: skip
    for count in asked.steps:  # all of them before any is trained
        _refuse_other(asked.out / f"steps-{count}", settings)
    teacher = load_trained(folder, checkpoint, device).eval().requires_grad_(False)
    batches = _Batches(source, recipe, asked.batch_size or recipe.optim.batch_size)
    for count in asked.steps:
        out = asked.out / f"steps-{count}"
        if not out.exists():
            note(f"training the student of {_steps(count)}")
            student = _train(teacher, batches, asked, count, progress)
            _keep(student, folder, recipe, settings, count, out)
    rows = _compare(teacher, source, batches, recipe, asked, device)
    return rows if loop is None else [_in_closed_loop(row, asked, loop, note) for row in rows]


def _check(asked: DistilRequest) -> None:
    if not asked.steps or min(asked.steps) < 1 or max(asked.steps) >= asked.teacher_steps:
        raise UsageError(
            f"--steps names numbers of steps from 1 to {asked.teacher_steps - 1}, below the teacher's "
            f"{asked.teacher_steps}; found {', '.join(map(str, asked.steps)) or 'none'}"
        )
    given = {"--train-steps": asked.train_steps, "--lr": asked.lr, "--batch-size": asked.batch_size}
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"{name} must be a number above 0, found {value:g}")


def _check_store(folder: RunFolder, source: StoreSource) -> None:
    """RunMismatch for a store that is not the run's: its windows are normalised or encoded otherwise than in training.

    An imported run knows no caches of a store, so that its model and its statistics are compared alone.
    """
    info = folder.info()
    found = RunInfo.of(source, model_config(folder.recipe(), source))
    for field in type(info.model).model_fields:
        have, need = getattr(found.model, field), getattr(info.model, field)
        if have != need:
            raise RunMismatch(
                f"{folder.path} has a model of {field} {need}, this store makes {have}; use the store of the run"
            )
    for kind, mine, theirs in (("state", info.state, found.state), ("action", info.action, found.action)):
        for what in ("scale", "offset"):
            want, have = (np.asarray(getattr(scaling, what), np.float64) for scaling in (mine, theirs))
            far = np.flatnonzero(~np.isclose(have, want, rtol=SAME_SCALING, atol=SAME_SCALING))
            if len(far):
                raise RunMismatch(
                    f"{folder.path} normalises {kind} {theirs.names[far[0]]} with {what} {want[far[0]]:g}, this store "
                    f"with {have[far[0]]:g}; use the store of the run"
                )
    for kind, cache, now in (("latents", info.latents, found.latents), ("text", info.text, found.text)):
        if cache.fingerprint not in (IMPORTED, now.fingerprint):
            raise RunMismatch(
                f"{folder.path} was trained on {kind} {cache.fingerprint}, this store has {now.fingerprint}; "
                "use the store of the run"
            )


def _refuse_other(out: Path, settings: Mapping[str, object]) -> None:
    """RunMismatch when a student is there that was made with other settings. Older ones do not record which weights
    their teacher had."""
    if not out.exists():
        return
    path = out / SETTINGS
    made = json.loads(path.read_bytes()) if path.is_file() else {}
    for key, value in settings.items():
        if made.get(key, value if key == TEACHER_WEIGHTS else None) != value:
            raise RunMismatch(f"{out} was made with {key} {made.get(key)}, now it is {value}; use another --out")


class _Batches:
    """Training windows of the run's store in the order in which the run dealt them, in batches of another size."""

    def __init__(self, source: StoreSource, recipe: Recipe, size: int) -> None:
        data = recipe.model_dump(mode="json")
        data["optim"] |= {"batch_size": size, "accumulation": 1}
        changed = validate_model(Recipe, data, f"recipe {recipe.name}")
        self._reader = training_reader(source, changed)
        self._order = training_order(self._reader.index, changed, source.stores)
        self.seed = recipe.seed

    def batch(self, step: int) -> Batch:
        """On the CPU."""
        return self._reader.fetch(self._order.step(step)[0])

    def generator(self, step: int) -> torch.Generator:
        """Of a step's noise."""
        return torch.Generator().manual_seed(derived_seed(self.seed, Stream.NOISE, step, 1))


def _drawn(model: FastWAM, batch: Batch, generator: torch.Generator) -> Noise:
    """Starting points of a batch, the same for teacher and student."""
    noise = Noise(generator=generator)
    actions = noise.actions(model.config, len(batch))
    return Noise(actions, noise.videos(model.config, batch.first))


def _train(
    teacher: FastWAM, batches: _Batches, asked: DistilRequest, count: int, progress: Callable[[int], None]
) -> FastWAM:
    student = copy.deepcopy(teacher)
    weights = list(student.action.requires_grad_(True).parameters())
    exact = [weight.detach().float().clone() for weight in weights]  # bfloat16 has no room for small updates
    optimizer = torch.optim.AdamW(exact, lr=asked.lr, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(asked.train_steps):
        batch = batches.batch(step)
        noise = _drawn(teacher, batch, batches.generator(step))
        moved = batch.to(teacher.device, teacher.action.head.weight.dtype)
        inputs = (moved.first, moved.context, moved.proprio, noise)
        wanted = sample(teacher, *inputs, Denoising(steps=asked.teacher_steps), video=False).action
        found = sampled(student, *inputs, Denoising(steps=count), video=False).action
        inside = (~moved.action_is_pad).unsqueeze(-1)
        loss = ((found - wanted).square() * inside).sum() / inside.sum().clamp_min(1) / found.shape[-1]
        if not bool(torch.isfinite(loss)):
            raise TrainingDiverged(
                f"the loss of the student of {_steps(count)} is not finite at optimizer step {step}; lower --lr"
            )
        for group in optimizer.param_groups:
            group["lr"] = asked.lr * _rate(step / asked.train_steps)
        found_grads = torch.autograd.grad(loss, weights, allow_unused=True)
        for weight, grad in zip(exact, found_grads, strict=True):
            weight.grad = None if grad is None else grad.float()
        torch.nn.utils.clip_grad_norm_(exact, 1.0)
        optimizer.step()
        with torch.no_grad():
            for weight, value in zip(weights, exact, strict=True):
                weight.copy_(value)
        progress(1)
    return student.eval().requires_grad_(False)


def _steps(count: int) -> str:
    return f"{count} step{'s' if count > 1 else ''}"


def _rate(progress: float) -> float:
    return min((progress + 1e-3) / WARM_UP, (1 - progress) / (1 - WARM_UP))


def _keep(
    student: FastWAM, teacher: RunFolder, recipe: Recipe, settings: Mapping[str, object], count: int, out: Path
) -> None:
    """Write a student as a run folder, whole or not at all."""
    described = {**recipe.model_dump(mode="json"), "description": f"student of {count} steps of {teacher.path.name}"}
    own = validate_model(Recipe, {**described, "freeze": None, "lora": None}, f"recipe {recipe.name}")
    with whole(out) as temporary:
        info = teacher.info().model_copy(update={"student_steps": count})
        record_weights(temporary, own, info, student.requires_grad_(True))
        write_json(temporary / SETTINGS, {**settings, "steps": count})


def _compare(
    teacher: FastWAM,
    source: StoreSource,
    batches: _Batches,
    recipe: Recipe,
    asked: DistilRequest,
    device: torch.device,
) -> list[DistilRow]:
    """The teacher, the teacher with the students' numbers of steps, and the students."""
    models = [("teacher", asked.teacher_steps, teacher), *(("teacher", count, teacher) for count in asked.steps)]
    for count in asked.steps:
        folder = RunFolder(asked.out / f"steps-{count}")
        student = load_trained(folder, folder.need_checkpoint(), device).eval().requires_grad_(False)
        models.append(("student", count, student))
    rows = []
    for name, count, model in models:
        data = recipe.model_dump(mode="json")
        data["validation"]["steps"] = count
        validator = Validator.of(source, validate_model(Recipe, data, f"recipe {recipe.name}"))
        found = None if validator is None else validator.run(model)
        distance, seconds = _distance(teacher, model, batches, asked, count)
        rows.append(DistilRow(name, count, distance, None if found is None else found.action_error.mae, seconds * 1e3))
    return rows


def _distance(
    teacher: FastWAM, model: FastWAM, batches: _Batches, asked: DistilRequest, count: int
) -> tuple[float, float]:
    """Mean absolute distance from the teacher's chunks on the batches after training's, and the seconds of a chunk."""
    total = seconds = 0.0
    for step in range(asked.train_steps, asked.train_steps + COMPARED):
        batch = batches.batch(step)
        noise = _drawn(teacher, batch, batches.generator(step))
        moved = batch.to(teacher.device, teacher.action.head.weight.dtype)
        inputs = (moved.first, moved.context, moved.proprio, noise)
        wanted = sample(teacher, *inputs, Denoising(steps=asked.teacher_steps), video=False).action
        found = sample(model, *inputs, Denoising(steps=count), video=False).action
        inside = ~moved.action_is_pad
        total += float((found - wanted).abs()[inside].mean()) / COMPARED
        seconds = seconds or _seconds(model, moved, count)
    return total, seconds


def _seconds(model: FastWAM, batch: Batch, count: int) -> float:
    """Median time of one chunk of a known instruction."""
    read = [model.read_instruction(batch.context[0])]
    noise, how = Noise(generator=torch.Generator().manual_seed(0)), Denoising(steps=count)

    def chunk() -> float:
        began = time.perf_counter()
        sample(model, batch.first[:1], read, batch.proprio[:1], noise, how, video=False).action.cpu()
        return time.perf_counter() - began

    chunk()
    return statistics.median(chunk() for _ in range(LATENCY_REPEATS))


def _in_closed_loop(row: DistilRow, asked: DistilRequest, loop: LoopWorld, note: Callable[[str], None]) -> DistilRow:
    path, which = (asked.run, asked.checkpoint) if row.name == "teacher" else (asked.out / f"steps-{row.steps}", "last")
    note(f"closed loop of the {row.name} with {_steps(row.steps)}")
    policy = Policy.load(path, checkpoint=which, device=asked.device, sampling=Denoising(steps=row.steps))
    return replace(row, closed=loop.play(policy, RunFolder(path).need_checkpoint(which), row.name, row.steps))


def table(rows: Sequence[DistilRow]) -> list[dict[str, object]]:
    """The rows as JSON."""
    return [
        {
            "policy": row.name,
            "steps": row.steps,
            "distance_to_teacher": row.to_teacher,
            "error": row.error,
            "milliseconds": row.milliseconds,
            **({} if row.closed is None else _closed(row.closed)),
        }
        for row in rows
    ]


def _closed(found: EvalResult) -> dict[str, object]:
    return {
        "successes": found.successes,
        "episodes": found.episodes,
        "rate": found.rate,
        "interval": list(found.interval),
    }
