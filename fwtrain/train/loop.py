"""The training loop. A resumed run equals an uninterrupted one bit for bit.

Nothing random is carried from step to step. Batches, instructions and noise are functions of (seed, epoch, step), the
learning rate of the step; what a checkpoint holds is the weights, AdamW's moments and the step. Several processes share
every step (`fwtrain.train.parallel`, `fwtrain.train.passes`); its losses differ from one process's by round-off alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from fwtrain.data import DataOrder, StoreSource, WindowReader, trains_video
from fwtrain.errors import TrainingDiverged
from fwtrain.model import FastWAM, Losses, losses
from fwtrain.recipe import Recipe
from fwtrain.train.build import DTYPES, build_model, compile_model, model_config, prepare
from fwtrain.train.checkpoint import Checkpoint, Content, TrainingState, tidy
from fwtrain.train.folder import FROZEN, RunFolder, RunInfo, refuse_difference
from fwtrain.train.images import FutureImages
from fwtrain.train.logs import Clock, Sinks
from fwtrain.train.optim import Optimizer, learning_rate
from fwtrain.train.parallel import Team
from fwtrain.train.passes import Feed, Loaded
from fwtrain.train.saver import STOP_SECONDS, Saver
from fwtrain.train.tensors import checkpoint_tensors
from fwtrain.train.validate import ValidationResult, Validator, why_no_validation
from fwtrain.train.weights import check_file, load_parts, model_parts, write_frozen
from fwtrain.weights.initialise import initialise


@dataclass(frozen=True)
class TrainingOutcome:
    """How a run ended."""

    step: int
    """Optimizer steps done."""
    total: int
    """Steps of the whole run."""
    finished: bool
    """Whether all are done."""
    loss: float | None
    """Mean of the last log interval; None when nothing was trained."""
    video: float | None
    """Video loss of the last log interval; None when nothing was trained."""
    action: float | None
    """Action loss of the last log interval; None when nothing was trained."""
    validation: ValidationResult | None
    """The last validation; None without."""
    best_step: int | None
    """Step with the lowest validation score of the whole run; None without."""
    best_score: float | None
    """That score; None without."""
    saved: int | None
    """The step that the same command continues from; None before the first checkpoint."""
    steps_per_s: float
    """Optimizer steps per second of this call."""
    samples_per_s: float
    """Windows per second of this call."""
    data_wait: float
    """Share of the time, 0 .. 1, that training waited for data."""
    seconds: float
    """Time of this call."""


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
        extra = torch.stack(
            [norm.float(), norm.new_full((), video_batches, dtype=torch.float32)]
        )  # filled on the device
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
        self, source: StoreSource, recipe: Recipe, folder: RunFolder, info: RunInfo, feed: Feed, model: FastWAM
    ) -> None:
        self.source, self.recipe, self.folder, self.info, self.feed = source, recipe, folder, info, feed
        self.team = team = feed.team
        self.device = team.device
        self.reader: WindowReader = feed.reader
        self.order: DataOrder = feed.order
        self.total = feed.total
        self.validator = Validator.of(source, recipe)
        self.futures = FutureImages(source, recipe, self.device)
        # an action-only pass, and a variant without video loss, leave tensors without gradient
        every_tensor = self.order.video_share == 1 and trains_video(recipe)
        self.model, self.wrapped = model, team.distribute(model, every_tensor=every_tensor)
        self.optimizer = Optimizer(model, recipe.optim, team)
        self.frozen: dict[str, int] | None = None  # size and CRC-32 of the file of parameters that no step changes
        self.saver = Saver(folder.checkpoints, team, recipe.keep_last)
        self.step = 0
        self.owes_validation = False  # a stop at a validation step saves at once; the resumed run catches up
        self.meter = Meter(self.device)

    @classmethod
    def start(
        cls, source: StoreSource, recipe: Recipe, folder: RunFolder, team: Team, *, fresh: bool = False
    ) -> Trainer:
        """A new run, or the continuation of the folder's latest checkpoint.

        fresh: a new run in place of the folder's, whose files are removed once nothing can refuse any more.

        Raises RunMismatch when folder or checkpoint come from another model, cache or recipe; CheckpointError for a
        damaged one.
        """
        recipe = folder.settled(recipe, anew=fresh)
        config = model_config(recipe, source)
        info = RunInfo.of(source, config)
        if not fresh:
            team.on_first(lambda: folder.check(info))
        found = None if fresh else team.on_first(folder.latest)
        # batches come while the model is made
        feed = Feed(source, recipe, config, team, found.step if found else 0)
        # weights that are about to be read are not drawn: 6 B numbers take 40 s on a CPU core
        read = found is not None or (recipe.model.init or "").startswith("fastwam:")
        model = build_model(config, None if read else recipe.seed, team.device, DTYPES[recipe.precision])
        if found is None and recipe.model.init is not None:
            initialise(model, recipe.model.init, recipe.model.init_action)
        prepare(model, recipe)
        if recipe.compile:
            compile_model(model)
        trainer = cls(source, recipe, folder, info, feed, model)
        if fresh:
            team.on_first(folder.clear)
        team.on_first(lambda: folder.record(recipe, info))
        team.on_first(lambda: tidy(folder.checkpoints, recipe.keep_last))
        if found is not None:
            trainer._restore(found)
        elif not all(parameter.requires_grad for parameter in model.parameters()):
            trainer.frozen = write_frozen(folder.path / FROZEN, model, team)
        return trainer

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.team.everywhere(lambda: checkpoint.verify(self.team.rank, self.team.size))
        state = checkpoint.state()
        refuse_difference(state["identity"], self.info.identity(), str(checkpoint.path))
        self.frozen = state["frozen"]
        if self.frozen is not None:
            path = self.folder.path / FROZEN
            self.team.on_first(lambda: check_file(path, self.frozen))
            load_parts(self.model, checkpoint_tensors(path), self.team, str(path), trained=False)
        load_parts(self.model, checkpoint.model_tensors(), self.team, str(checkpoint.path), trained=True)
        self.optimizer.load(checkpoint.optimizer_tensors())
        self.step = state["step"]
        self.meter.load(state["meter"])
        self.owes_validation = state["owes_validation"]

    def save(self) -> None:
        """Write a checkpoint of the current step; several processes return when its copy in memory is made.
        TrainingDiverged instead when a loss so far was not finite."""
        self._check_finite()
        self.saver.save(self.step, self._content())

    def _save_and_stop(self, deadline: float | None) -> int | None:
        """The last checkpoint of a run that was asked to stop; the step that the next run continues from."""
        self._check_finite()
        until = time.monotonic() + STOP_SECONDS if deadline is None else deadline
        return self.saver.stop(self.step, self._content, until)

    def _content(self) -> Content:
        state: TrainingState = {
            "total": self.total,
            "identity": self.info.identity(),
            "meter": self.meter.state(),
            "owes_validation": self.owes_validation,
            "frozen": self.frozen,
            "recipe": self.recipe.model_dump(mode="json"),
        }
        parts = model_parts(self.model, trained=True)
        return Content(parts, list(self.optimizer.parts()), self.model.config.to_json(), state)

    def _keep_best(self, score: float) -> None:
        """Save the weights when no validation so far was better."""

        def better() -> bool:
            found = self.folder.best()
            return math.isfinite(score) and (found is None or found.score is None or score < found.score)

        self._check_finite()
        if self.team.on_first(better):
            self.saver.save_best(self.step, score, self._content())

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
        deadline: Callable[[], float | None] = lambda: None,
        note: Callable[[str], None] = lambda _: None,
    ) -> TrainingOutcome:
        """Train until the last step or until `should_stop()` answers True; saves on the way and at the end.

        A stop is asked for after every step and before every pass of a step but the first: what was computed of that
        step is dropped, since nothing random is carried the next run computes it again. deadline: until when several
        processes have then to be done, of `time.monotonic()`; None = STOP_SECONDS from there.

        Raises TrainingDiverged for a loss that is not finite.
        """
        began, first, clock = time.perf_counter(), self.step, Clock()
        values: dict[str, float] = {}
        result: ValidationResult | None = None
        if self.validator is None:
            note(why_no_validation(self.recipe, self.source.store))

        def stop() -> bool:
            return self.step < self.total and self.team.agree(should_stop() or self.saver.failed)

        if self.owes_validation:
            result = self.validate(sinks, note, stop)
        with self.feed.batches as batches:
            stopped = stop()
            while self.step < self.total and not stopped:
                if not self._train_step(batches, stop):
                    stopped = True
                    break
                clock.count(self.recipe.optim.batch_size * len(self.order.step(self.step - 1)))
                stopped = stop()
                if self._due(self.recipe.log_every):
                    values = self._log(sinks, clock.lap(batches.waited))
                paused = time.perf_counter()
                self.owes_validation = self._due(self.recipe.eval_every)
                if self.owes_validation and not stopped:
                    result = self.validate(sinks, note, stop) or result
                    stopped = self.owes_validation
                if self._due(self.recipe.save_every) and not stopped:
                    self.save()
                clock.pause(time.perf_counter() - paused)
            seconds, waited = max(time.perf_counter() - began, 1e-9), batches.waited
        if stopped:
            saved = self._save_and_stop(deadline())
        else:
            self.saver.wait()
            saved = self.step
        return self._outcome(values, result, first, seconds, waited, saved)

    def _outcome(
        self,
        values: dict[str, float],
        result: ValidationResult | None,
        first: int,
        seconds: float,
        waited: float,
        saved: int | None,
    ) -> TrainingOutcome:
        steps, best = self.step - first, self.folder.best()
        return TrainingOutcome(
            step=self.step,
            total=self.total,
            finished=self.step >= self.total,
            loss=values.get("loss"),
            video=values.get("video"),
            action=values.get("action"),
            validation=result,
            best_step=best.step if best else None,
            best_score=best.score if best else None,
            saved=saved,
            steps_per_s=steps / seconds,
            samples_per_s=steps * self.recipe.optim.batch_size * self.recipe.optim.accumulation / seconds,
            data_wait=waited / seconds,
            seconds=seconds,
        )

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.total

    def _train_step(self, loaded: Iterator[Loaded], stop: Callable[[], bool]) -> bool:
        """One optimizer step: forward and backward over its passes, then AdamW. False when it was given up to stop."""
        sums = torch.zeros(3, device=self.device)
        first, last = True, False
        while not last:
            if not first and stop():
                self.optimizer.zero_grad()
                return False
            item = next(loaded)
            weight, first, last = item.part.weight, False, item.part.last
            with self.team.accumulating(self.wrapped, last):
                # targets stay float32; the model casts its inputs
                found: Losses = self.wrapped(losses, item.batch.to(self.device), item.draws)
                (found.total * weight).backward()  # type: ignore[no-untyped-call]
            sums += torch.stack(found).detach().float() * weight
        rate = learning_rate(self.step, self.total, self.recipe.optim)
        norm = self.optimizer.step(rate)
        plans = self.order.step(self.step)
        co_trained = sum(plan.video for plan in plans) / len(plans)
        self.meter.add(self.step, self.team.mean(sums), co_trained, norm)
        self.step += 1
        if self.device.type == "cpu":
            self._check_finite()  # costs nothing here; on other devices it waits for the log interval
        return True

    def _log(self, sinks: Sinks, speed: dict[str, float]) -> dict[str, float]:
        self._check_finite()
        values = self.meter.lap()
        epoch = self.step / self.order.steps_per_epoch
        rate = learning_rate(self.step - 1, self.total, self.recipe.optim)
        sinks.write("train", self.step, {**values, "lr": rate, "epoch": epoch, **speed})
        return values

    def validate(
        self,
        sinks: Sinks,
        note: Callable[[str], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> ValidationResult | None:
        """Validation on the held-out episodes, logged, with images where asked for; None when there are none, or when
        it was given up to stop: then it is still owed. The weights are kept when none before had a better score."""
        self.owes_validation = False
        if self.validator is None:
            return None
        with self.team.gathered(self.model):  # every process validates: it would wait otherwise
            result = self.validator.run(self.model, should_stop)
            if result is None:
                self.owes_validation = True
                return None
            sinks.write("val", self.step, result.values())
            if self.team.first:
                sinks.pictures(self.step, self.futures.make(self.model, note))
        self._keep_best(result.score)
        return result
