"""Whether a run fits the GPU, asked before its first step; and what to change where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fwdata.errors import UsageError
from fwtrain.model import ModelConfig
from fwtrain.recipe import Recipe, override
from fwtrain.train.memory import CONTEXT_BYTES, GIB, KnownPeaks, MemoryPlan
from fwtrain.train.plan import pass_size, settings_of


def windows_per_pass(recipe: Recipe, processes: int) -> int:
    """The most windows that one process has in a pass (see `fwtrain.train.passes`)."""
    joined = min(recipe.optim.accumulation, processes)
    return max(1, recipe.optim.batch_size * joined // processes)


def check_memory(recipe: Recipe, config: ModelConfig, processes: int, device: torch.device) -> None:
    """Compare what a run is computed to need with what its GPU has free; does nothing on a CPU.

    UsageError with the settings that fit when it needs more.
    """
    if device.type != "cuda":
        return
    free, total = torch.cuda.mem_get_info(device)
    known = KnownPeaks()
    needed = _needed(recipe, config, processes, known)
    usable = free - CONTEXT_BYTES - total // 20
    if needed > usable:
        raise UsageError(
            f"this run is computed to need {needed / GIB:.1f} GiB on each GPU, {device} has {free / GIB:.1f} of "
            f"{total / GIB:.1f} GiB free; {advice(recipe, config, processes, usable / GIB, known)}"
        )


def _needed(recipe: Recipe, config: ModelConfig, processes: int, known: KnownPeaks) -> int:
    """Bytes of tensors on each GPU at the peak of the run. Every process validates whole batches."""
    plan = MemoryPlan(recipe, config, processes, known)
    return plan.at(windows_per_pass(recipe, processes), recipe.optim.batch_size).total


def advice(recipe: Recipe, config: ModelConfig, processes: int, gib: float, known: KnownPeaks) -> str:
    """The first settings that fit `gib` of tensors, in the order of `fwtrain plan`, as options to add."""
    windows = recipe.optim.batch_size * recipe.optim.accumulation
    for setting in settings_of(recipe, processes):
        tried = override(recipe, setting.overrides)
        most = MemoryPlan(tried, config, processes if setting.shared else 1, known).most_windows(gib)
        batch = pass_size(windows, most, processes)
        if batch:
            sets = [*setting.overrides, f"optim.batch_size={batch}", f"optim.accumulation={windows // batch}"]
            return "use " + " ".join(f"--set {value}" for value in sets)
    return "no setting of this model fits: use a smaller model, more GPUs or a larger one (see `fwtrain plan`)"


@contextmanager
def explain_out_of_memory(recipe: Recipe, config: ModelConfig, processes: int, device: torch.device) -> Iterator[None]:
    """Turn an allocation that fails on the GPU into one sentence."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ")[0]
        needed = _needed(recipe, config, processes, KnownPeaks())
        raise UsageError(
            f"out of GPU memory on {device} ({reason}); the run is computed to need {needed / GIB:.1f} GiB on each "
            "GPU, so another program may hold the rest: free it, or choose smaller settings from `fwtrain plan`"
        ) from None
