"""The training loop. A resumed run equals an uninterrupted one bit for bit.

Nothing random is carried from step to step. Batches, instructions and noise are functions of (seed, epoch, step), the
learning rate of the step; what a checkpoint holds is the weights, AdamW's moments and the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from fwtrain.batch import Batch
from fwtrain.data import (
    BatchPlan,
    DataOrder,
    Prefetcher,
    Source,
    Stream,
    WindowReader,
    derived_seed,
    training_order,
    training_reader,
)
from fwtrain.errors import CheckpointError, TrainingDiverged
from fwtrain.model import FastWAM, draw
from fwtrain.pretrained import initialise
from fwtrain.recipe import Recipe
from fwtrain.train.build import build_model, model_config
from fwtrain.train.checkpoint import Checkpoint, save_checkpoint
from fwtrain.train.folder import RunFolder, RunInfo, refuse_difference
from fwtrain.train.logs import Clock, Sinks
from fwtrain.train.optim import Optimizer, learning_rate
from fwtrain.train.pictures import FuturePictures
from fwtrain.train.validate import ValidationResult, Validator

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Outcome:
    """How a run ended. step of total optimizer steps; finished: all done; loss, video, action: of the last log interval
    (None when nothing was trained); validation: the last one, None without; seconds: of this call."""

    step: int
    total: int
    finished: bool
    loss: float | None
    video: float | None
    action: float | None
    validation: ValidationResult | None
    steps_per_s: float
    samples_per_s: float
    data_wait: float
    seconds: float


class Meter:
    """Losses summed on the device and fetched once per log interval; remembers the first step that was not finite."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(5, device=device)
        self._bad = torch.full((), -1, dtype=torch.int64, device=device)
        self._steps = 0

    def add(self, step: int, losses: torch.Tensor, video_batches: float, norm: torch.Tensor) -> None:
        """losses: float32 [3], total, video, action, summed over the step's batches. No host synchronisation."""
        fine = torch.isfinite(losses).all() & torch.isfinite(norm)
        self._bad = torch.where((self._bad < 0) & ~fine, step, self._bad)
        extra = torch.stack([norm.float(), norm.new_tensor(video_batches)])
        self._sums += torch.cat([losses, extra])
        self._steps += 1

    def state(self) -> list[float]:
        """The sums of the running log interval, so that a resumed run logs what an uninterrupted one logs."""
        return [*self._sums.tolist(), float(self._steps)]

    def load(self, state: list[float]) -> None:
        """Restore what `state` returned."""
        self._sums = torch.tensor(state[:-1], device=self._sums.device)
        self._steps = int(state[-1])

    def first_bad(self) -> int | None:
        """First step with a loss or gradient that is not finite. Waits for the device."""
        bad = int(self._bad)
        return bad if bad >= 0 else None

    def lap(self) -> dict[str, float]:
        """Means since the last lap. video: over the steps' co-training batches only. Waits for the device."""
        total, video, action, norm, co_trained = self._sums.tolist()
        steps = max(self._steps, 1)
        self._sums.zero_()
        self._steps = 0
        return {
            "loss": total / steps,
            "video": video / co_trained if co_trained else 0.0,
            "action": action / steps,
            "grad_norm": norm / steps,
        }


class Trainer:
    """One run: its model, optimizer, data order and step. Make it with `Trainer.start`."""

    def __init__(
        self, source: Source, recipe: Recipe, folder: RunFolder, info: RunInfo, device: torch.device, model: FastWAM
    ) -> None:
        self.source, self.recipe, self.folder, self.info, self.device = source, recipe, folder, info, device
        self.reader: WindowReader = training_reader(source, recipe)
        self.order: DataOrder = training_order(self.reader.index, recipe)
        self.validator = Validator.of(source, recipe)
        self.pictures = FuturePictures(source, recipe, device)
        self.model = model
        self.optimizer = Optimizer(model, recipe.optim)
        self.total = recipe.optim.steps or self.order.steps_per_epoch * (recipe.optim.epochs or 1)
        self.step = 0
        self.owes_validation = False  # a stop at a validation step saves at once; the resumed run catches up
        self.meter = Meter(device)

    @classmethod
    def start(cls, source: Source, recipe: Recipe, folder: RunFolder, device: torch.device | str = "cpu") -> Trainer:
        """A new run, or the continuation of the folder's latest checkpoint.

        Raises RunMismatch when folder or checkpoint come from another model, cache or recipe; CheckpointError for a
        damaged one.
        """
        device = torch.device(device)
        config = model_config(recipe, source)
        info = RunInfo.of(source, config)
        folder.check(info)
        model = build_model(config, recipe.seed, device, DTYPES[recipe.precision])
        found = folder.latest()
        if found is None and recipe.model.init is not None:
            initialise(model, recipe.model.init, recipe.model.init_action)
        trainer = cls(source, recipe, folder, info, device, model)
        folder.record(recipe, info)
        if found is not None:
            trainer._restore(found)
        return trainer

    def _restore(self, checkpoint: Checkpoint) -> None:
        checkpoint.verify()
        state = checkpoint.state()
        refuse_difference(state["identity"], self.info.identity(), str(checkpoint.path))
        try:
            self.model.load_state_dict(checkpoint.model_tensors(), strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"{checkpoint.path} is of another model: {str(error).splitlines()[-1]}") from None
        self.optimizer.load(checkpoint.optimizer_tensors())
        self.step = int(state["step"])
        self.meter.load(state["meter"])
        self.owes_validation = bool(state["owes_validation"])

    def save(self) -> None:
        """Write a checkpoint of the current step. TrainingDiverged instead when a loss so far was not finite."""
        self._check_finite()
        save_checkpoint(
            self.folder.checkpoints,
            self.step,
            self.model,
            dict(self.optimizer.tensors()),
            {
                "total": self.total,
                "identity": self.info.identity(),
                "meter": self.meter.state(),
                "owes_validation": self.owes_validation,
                "recipe": self.recipe.model_dump(mode="json"),
            },
            self.recipe.keep_last,
        )

    def _check_finite(self) -> None:
        bad = self.meter.first_bad()
        if bad is None:
            return
        where = " | ".join(self.reader.describe(plan) for plan in self.order.step(bad))
        kept = self.folder.latest()
        last = f"the last good checkpoint is {kept.path}" if kept else "no checkpoint was written yet"
        raise TrainingDiverged(
            f"loss or gradient is not finite at step {bad + 1}, on the windows of {where}; {last}; "
            "check these episodes, or lower optim.lr"
        )

    def run(
        self,
        sinks: Sinks,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        note: Callable[[str], None] = lambda _: None,
    ) -> Outcome:
        """Train until the last step or until `should_stop()` answers True after a step; saves on the way and at the
        end.

        Raises TrainingDiverged for a loss that is not finite.
        """
        began, first, clock = time.perf_counter(), self.step, Clock()
        values: dict[str, float] = {}
        result: ValidationResult | None = None
        if self.validator is None:
            note("no validation: the store has no validation episodes that can be used (or validation.windows is 0)")
        if self.owes_validation:
            result = self.validate(sinks, note)
        with Prefetcher(self.reader.fetch, self._plans(), self.recipe.data.workers) as batches:
            stopped = self.step < self.total and should_stop()
            while self.step < self.total and not stopped:
                self._train_step(batches)
                clock.count(self.recipe.optim.batch_size * len(self.order.step(self.step - 1)))
                stopped = self.step < self.total and should_stop()
                if self._due(self.recipe.log_every):
                    values = self._log(sinks, clock.lap(batches.waited))
                paused = time.perf_counter()
                self.owes_validation = self._due(self.recipe.eval_every)
                if self.owes_validation and not stopped:
                    result = self.validate(sinks, note) or result
                if self._due(self.recipe.save_every) or stopped:
                    self.save()
                clock.pause(time.perf_counter() - paused)
            seconds, waited = max(time.perf_counter() - began, 1e-9), batches.waited
        return self._outcome(values, result, first, seconds, waited)

    def _outcome(
        self, values: dict[str, float], result: ValidationResult | None, first: int, seconds: float, waited: float
    ) -> Outcome:
        steps = self.step - first
        return Outcome(
            step=self.step,
            total=self.total,
            finished=self.step >= self.total,
            loss=values.get("loss"),
            video=values.get("video"),
            action=values.get("action"),
            validation=result,
            steps_per_s=steps / seconds,
            samples_per_s=steps * self.recipe.optim.batch_size * self.recipe.optim.accumulation / seconds,
            data_wait=waited / seconds,
            seconds=seconds,
        )

    def _plans(self) -> Iterator[BatchPlan]:
        for step in range(self.step, self.total):
            yield from self.order.step(step)

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.total

    def _train_step(self, batches: Iterator[Batch]) -> None:
        """One optimizer step: forward and backward over its batches, then AdamW."""
        plans = self.order.step(self.step)
        sums = torch.zeros(3, device=self.device)
        for number in range(len(plans)):
            batch = next(batches)
            generator = torch.Generator().manual_seed(derived_seed(self.recipe.seed, Stream.NOISE, self.step, number))
            config = self.model.config
            draws = draw(batch, config.variant, generator, cond_noise_prob=config.cond_noise_prob)
            losses = self.model(batch.to(self.device), draws)  # targets stay float32; the model casts its inputs
            (losses.total / len(plans)).backward()
            parts = torch.stack([losses.total, losses.video, losses.action]).detach().float()
            sums += parts / len(plans)
        rate = learning_rate(self.step, self.total, self.recipe.optim)
        norm = self.optimizer.step(rate)
        self.optimizer.zero_grad()
        co_trained = sum(plan.video for plan in plans) / len(plans)
        self.meter.add(self.step, sums, co_trained, norm)
        self.step += 1
        if self.device.type == "cpu":
            self._check_finite()  # costs nothing here; on other devices it waits for the log interval

    def _log(self, sinks: Sinks, speed: dict[str, float]) -> dict[str, float]:
        self._check_finite()
        values = self.meter.lap()
        epoch = self.step / self.order.steps_per_epoch
        rate = learning_rate(self.step - 1, self.total, self.recipe.optim)
        sinks.write("train", self.step, {**values, "lr": rate, "epoch": epoch, **speed})
        return values

    def validate(self, sinks: Sinks, note: Callable[[str], None] = lambda _: None) -> ValidationResult | None:
        """Validation on the held-out episodes, logged, with pictures where asked for; None when there are none."""
        self.owes_validation = False
        if self.validator is None:
            return None
        result = self.validator.run(self.model)
        sinks.write("val", self.step, result.values())
        if not math.isfinite(result.score):
            self._check_finite()
        sinks.pictures(self.step, self.pictures.make(self.model, note))
        return result
