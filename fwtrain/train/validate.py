"""Open-loop validation: action chunks sampled on held-out episodes against the recorded ones, in the robot's units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fwtrain.data import BatchPlan, Stream, WindowReader, derived_seed
from fwtrain.model import FastWAM
from fwtrain.normalise import Float32, Normaliser


@dataclass(frozen=True)
class ActionError:
    """Error of sampled action chunks over the steps inside the episodes, robot's units.

    mae, rmse: means over steps and dimensions. by_dimension: float32 [a], mean absolute error. windows: how many.
    """

    mae: float
    rmse: float
    by_dimension: Float32
    windows: int


def action_error(
    model: FastWAM, reader: WindowReader, plans: Sequence[BatchPlan], action: Normaliser, *, seed: int, steps: int
) -> ActionError:
    """Sample every plan's windows with fixed noise and compare.

    Costs one sampling per batch; changes no random state.
    """
    training = model.training
    model.eval()
    total = np.zeros(len(action.scale), np.float64)
    squares, count, windows = 0.0, 0, 0
    for plan in plans:
        batch = reader.fetch(plan)
        generator = torch.Generator().manual_seed(derived_seed(seed, Stream.VALIDATION, plan.number))
        weight = next(model.parameters())
        moved = batch.to(weight.device, weight.dtype)
        with torch.no_grad():
            sampled = model.sample_actions(moved.first, moved.context, moved.proprio, steps=steps, generator=generator)
        error = action.invert(sampled.float().cpu().numpy()) - reader.raw_action(plan)
        inside = error[~batch.action_is_pad.numpy()].astype(np.float64)
        total += np.abs(inside).sum(0)
        squares += float(np.square(inside).sum())
        count += len(inside)
        windows += len(batch)
    model.train(training)
    by_dimension = (total / count).astype(np.float32)
    return ActionError(
        float(by_dimension.mean()), float(np.sqrt(squares / (count * len(total)))), by_dimension, windows
    )
