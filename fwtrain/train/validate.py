"""Validation on held-out episodes: action error of sampled chunks, the training losses, video loss by horizon.

Everything is a function of the weights: windows, noises and noise levels are the same at every step and for every
variant, so that numbers compare between steps and runs. Nothing here changes a random state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fwdata.normalise import Float32, Normaliser
from fwtrain.batch import Batch
from fwtrain.data import BatchPlan, StoreSource, Stream, WindowReader, derived_seed, validation_plans
from fwtrain.data.contract import StoreLike
from fwtrain.data.stores import command_word
from fwtrain.model import Denoising, Draws, FastWAM, Noise, Sample, Terms, draw, loss_terms, sample
from fwtrain.recipe import Recipe

ACTION_LEVELS, VIDEO_LEVELS = 0.7548776662466927, 0.5698402909980532
"""Steps of the additive recurrence that spreads noise levels evenly over windows (M. Roberts' R2 sequence)."""


ROWS_ON_GPU = 8
"""Windows that a GPU validates at once: sampling keeps the keys and values of all layers, which a pass of training with
gradient checkpointing does not."""


@dataclass(frozen=True)
class ActionError:
    """Error of sampled action chunks over the steps inside the episodes."""

    mae: float
    """Mean absolute error over steps and dimensions, robot's units."""
    rmse: float
    """Root mean square error over steps and dimensions, robot's units."""
    by_dimension: Float32
    """float32 [a], mean absolute error, robot's units."""
    normalised: float
    """Mean absolute error of normalised actions, in which every dimension counts alike."""
    windows: int
    """Windows that were sampled."""


@dataclass(frozen=True)
class ValidationResult:
    """What one validation found."""

    action_error: ActionError
    """Error of sampled actions."""
    names: tuple[str, ...]
    """One name per action dimension."""
    loss: float
    """Training loss on the validation windows, with its lambdas."""
    video: float
    """Its video part; 0 without a video loss."""
    action: float
    """Its action part."""
    video_by_horizon: Float32 | None
    """float32 [F - 1], weighted video loss of each later latent frame, before lambda; None without a video loss."""

    @property
    def score(self) -> float:
        """What the best checkpoint has the least of: the mean absolute action error in normalised units.

        It is what deployment depends on, means the same for every variant, and no dimension dominates by its unit.
        """
        return self.action_error.normalised

    def values(self) -> dict[str, float]:
        """The numbers as they are logged: `video.1` is the next latent frame's video loss, `mae.NAME` a dimension's."""
        error = self.action_error
        horizon = () if self.video_by_horizon is None else self.video_by_horizon.tolist()
        return {
            "score": self.score,
            "action_mae": error.mae,
            "action_rmse": error.rmse,
            "loss": self.loss,
            "video": self.video,
            "action": self.action,
            **{f"video.{frame}": value for frame, value in enumerate(horizon, 1)},
            **{f"mae.{name}": value for name, value in zip(self.names, error.by_dimension.tolist(), strict=True)},
        }


def why_no_validation(recipe: Recipe, store: StoreLike) -> str:
    """Why a run of a store has no validator, and what to do."""
    if not recipe.validation.windows:
        return "no validation: validation.windows is 0"
    return (
        "no validation: the store holds out no episode with a window that this run can use; "
        f"`fwdata view {command_word(store)} --set split.val=0.25` holds out a quarter of the episodes, for a new run"
    )


class Validator:
    """The validation windows of a run. Make it with `Validator.of`."""

    def __init__(
        self,
        reader: WindowReader,
        plans: Sequence[BatchPlan],
        action: Normaliser,
        names: tuple[str, ...],
        recipe: Recipe,
    ) -> None:
        self.reader, self.plans = reader, plans
        self._action, self._names, self._recipe = action, names, recipe

    @classmethod
    def of(cls, source: StoreSource, recipe: Recipe) -> Validator | None:
        """None when the store has no validation window that the recipe's variant can use, or validation is off."""
        found = validation_plans(source, recipe)
        if found is None:
            return None
        return cls(*found, source.action, tuple(source.store.action_names), recipe)

    def run(self, model: FastWAM, stop: Callable[[], bool] = lambda: False) -> ValidationResult | None:
        """Validate; costs one sampling and one forward pass per batch of windows (at most `validation.windows`).

        None when `stop()` answered True before a batch.
        """
        training = model.training
        model.eval()
        chunks, losses = _ChunkSums(len(self._names)), _LossSums()
        first = 0
        with torch.no_grad():
            for plan in self.plans:
                if stop():
                    model.train(training)
                    return None
                batch = self.reader.fetch(plan)
                noise, drawn = self._noise(model, plan, batch), self._drawn(model, plan, batch, first)
                truth = self.reader.raw_action(plan)
                for rows in _cuts(len(batch), ROWS_ON_GPU if model.device.type == "cuda" else None):
                    part = batch.rows(rows)
                    self._sample(model, part, noise.rows(rows), truth[rows], chunks)
                    self._losses(model, part.to(model.device), drawn.rows(rows), losses)
                first += len(batch)
        model.train(training)
        wanted = self._recipe.model
        video, action = wanted.lambda_video * losses.video / first, wanted.lambda_action * losses.action / first
        return ValidationResult(chunks.error(first), self._names, video + action, video, action, losses.by_horizon())

    def _noise(self, model: FastWAM, plan: BatchPlan, batch: Batch) -> Noise:
        """What sampling starts from, of the whole batch."""
        generator = torch.Generator().manual_seed(derived_seed(self._recipe.seed, Stream.VALIDATION, plan.number))
        drawn, config = Noise(generator=generator), model.config
        action = drawn.actions(config, len(batch))
        by_video = config.rules.mode(None).sampler != "first-frame"
        return Noise(action, drawn.videos(config, batch.first) if by_video else None)

    def _sample(self, model: FastWAM, batch: Batch, noise: Noise, truth: Float32, sums: _ChunkSums) -> None:
        moved, how = batch.to(model.device), Denoising(steps=self._recipe.validation.steps)
        found: Sample = model(sample, moved.first, moved.context, moved.proprio, noise, how, video=False)
        normalised = found.action.float().cpu().numpy()
        inside = ~batch.action_is_pad.numpy()
        sums.add(
            (self._action.invert(normalised) - truth)[inside],
            (normalised - batch.action.numpy())[inside],
        )

    def _drawn(self, model: FastWAM, plan: BatchPlan, batch: Batch, first: int) -> Draws:
        """What the losses are noised with, of the whole batch; first: place of its first window among all."""
        seed = derived_seed(self._recipe.seed, Stream.VALIDATION, plan.number, 1)
        config = model.config
        drawn = draw(batch, config.variant, torch.Generator().manual_seed(seed), cond_noise_prob=config.cond_noise_prob)
        return replace(
            drawn,
            u_action=_levels(first, len(batch), ACTION_LEVELS),
            u_video=None if drawn.u_video is None else _levels(first, len(batch), VIDEO_LEVELS),
        )

    def _losses(self, model: FastWAM, batch: Batch, drawn: Draws, sums: _LossSums) -> None:
        drawn = drawn.to(model.device)
        terms: Terms = model(loss_terms, batch, drawn)
        sums.action += float((terms.action_per_sample * terms.action_weight).sum())
        if terms.video_per_sample is not None and terms.video_weight is not None and terms.pred_video is not None:
            sums.video += float((terms.video_per_sample * terms.video_weight).sum())
            sums.add_frames(_frame_errors(model, batch, drawn, terms.pred_video) * terms.video_weight[:, None], batch)


def _cuts(count: int, most: int | None) -> list[slice]:
    """`count` rows in parts of at most `most`; None: all at once."""
    return [slice(low, low + (most or count)) for low in range(0, count, most or count)]


def _levels(first: int, count: int, step: float) -> Tensor:
    """float32 [count] in [0, 1): noise levels u of windows first, first + 1, .., evenly spread over all windows."""
    places = np.arange(first, first + count, dtype=np.float64)
    return torch.from_numpy(((0.5 + places * step) % 1.0).astype(np.float32))


def _frame_errors(model: FastWAM, batch: Batch, drawn: Draws, pred: Tensor) -> Tensor:
    """float32 [B, F - 1]: mean squared error of the predicted velocity of every later latent frame."""
    if batch.future is None or drawn.noise_video is None:
        raise ValueError("the video loss by horizon needs future latents and their noise")
    velocity = model.video.unpatchify(pred.float(), *batch.future.shape[3:])
    target = drawn.noise_video[:, :, 1:] - batch.future.float()
    return (velocity - target).square().mean((1, 3, 4))


class _ChunkSums:
    """Sums of action errors over steps inside the episodes."""

    def __init__(self, width: int) -> None:
        self._absolute = np.zeros(width, np.float64)
        self._squares = self._normalised = 0.0
        self._count = 0

    def add(self, error: Float32, normalised: Float32) -> None:
        """Both float32 [steps, a]."""
        self._absolute += np.abs(error, dtype=np.float64).sum(0)
        self._squares += float(np.square(error, dtype=np.float64).sum())
        self._normalised += float(np.abs(normalised, dtype=np.float64).sum())
        self._count += len(error)

    def error(self, windows: int) -> ActionError:
        by_dimension = (self._absolute / self._count).astype(np.float32)
        values = self._count * len(self._absolute)
        return ActionError(
            mae=float(by_dimension.mean()),
            rmse=float(np.sqrt(self._squares / values)),
            by_dimension=by_dimension,
            normalised=self._normalised / values,
            windows=windows,
        )


class _LossSums:
    """Sums of weighted losses over windows, and over the later latent frames that lie inside the episodes."""

    def __init__(self) -> None:
        self.video = self.action = 0.0
        self._frames: Tensor | None = None
        self._counts: Tensor | None = None

    def add_frames(self, errors: Tensor, batch: Batch) -> None:
        """errors: float32 [B, F - 1]."""
        if batch.future_is_pad is None:
            raise ValueError("future latents come with their padding")
        valid = (~batch.future_is_pad).double()
        frames, counts = (errors.double() * valid).sum(0).cpu(), valid.sum(0).cpu()
        self._frames = frames if self._frames is None else self._frames + frames
        self._counts = counts if self._counts is None else self._counts + counts

    def by_horizon(self) -> Float32 | None:
        if self._frames is None or self._counts is None:
            return None
        means: Float32 = (self._frames / self._counts.clamp(min=1.0)).numpy().astype(np.float32)
        return means
