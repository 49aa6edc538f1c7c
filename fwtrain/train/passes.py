"""The forward and backward passes of one optimizer step, for one of several processes.

The windows of a step are its batches: `optim.accumulation` batches of `optim.batch_size` windows, a function of (seed,
epoch, step). Each of N processes takes the N-th part of every batch and joins the parts of up to N batches of one kind
to a pass, so that a pass has at most `batch_size` windows on any number of processes. All processes run passes of the
same kinds in the same order. Noise is drawn for whole batches and cut like the windows: a sample's draws, and with
them its losses, are those of a single process. Parts are equally large, so means of means are means over the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fwdata.errors import UsageError
from fwtrain.batch import Batch
from fwtrain.data import (
    BatchPlan,
    DataOrder,
    Prefetcher,
    StoreSource,
    Stream,
    WindowReader,
    derived_seed,
    training_order,
    training_reader,
)
from fwtrain.model import Draws, ModelConfig, draw
from fwtrain.recipe import Recipe
from fwtrain.train.parallel import Team


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of a step: batches of one kind, one per process."""

    step: int
    """The optimizer step."""
    batches: tuple[tuple[int, BatchPlan], ...]
    """(place in the step, batch), at most one per process."""
    weight: float
    """Share of the step's batches that are in this pass."""
    last: bool
    """Whether it is the last pass of the step."""


@dataclass(frozen=True)
class Loaded:
    """What this process needs for a pass, on the CPU."""

    part: Pass
    """The pass."""
    batch: Batch
    """This process's windows."""
    draws: Draws
    """Their noises."""


def step_passes(step: int, plans: Sequence[BatchPlan], size: int) -> list[Pass]:
    """The passes of a step on `size` processes."""
    groups: list[list[tuple[int, BatchPlan]]] = []
    for place in enumerate(plans):
        found = next((g for g in groups if len(g) < size and g[0][1].video == place[1].video), None)
        if found is None:
            groups.append([place])
        else:
            found.append(place)
    count = len(groups)
    return [Pass(step, tuple(g), len(g) / len(plans), i == count - 1) for i, g in enumerate(groups)]


def check_share(batch_size: int, size: int) -> None:
    """UsageError when a batch cannot be dealt equally to `size` processes."""
    if batch_size % size:
        raise UsageError(
            f"optim.batch_size {batch_size} cannot be dealt equally to {size} processes; "
            f"use --nproc-per-node with a divisor of {batch_size}, or --set optim.batch_size with a multiple of {size}"
        )


class PassLoader:
    """Fetches the windows of passes and draws their noise. Thread-safe.

    rank of size processes; seed, variant and cond_noise_prob decide the draws. pin: into page-locked memory, for a GPU.
    """

    def __init__(
        self,
        reader: WindowReader,
        seed: int,
        variant: str,
        cond_noise_prob: float,
        rank: int = 0,
        size: int = 1,
        *,
        pin: bool = False,
    ) -> None:
        self._pin = pin
        self._reader, self._seed = reader, seed
        self._variant, self._prob = variant, cond_noise_prob
        self._rank, self._size = rank, size

    def fetch(self, item: Pass) -> Loaded:
        """Read this process's part of a pass. Costs the noise of whole batches, on the CPU."""
        parts = [self._part(item.step, number, plan) for number, plan in item.batches]
        batch, draws = parts[0]
        if len(parts) > 1:
            batch, draws = _joined_batch([batch for batch, _ in parts]), _joined_draws([draws for _, draws in parts])
        return Loaded(item, batch.pinned(), draws.pinned()) if self._pin else Loaded(item, batch, draws)

    def _part(self, step: int, number: int, plan: BatchPlan) -> tuple[Batch, Draws]:
        share = len(plan.windows) // self._size
        rows = slice(self._rank * share, (self._rank + 1) * share)
        batch = self._reader.fetch(plan, rows)
        size = len(plan.windows)
        whole = batch.mapped(lambda value: value.new_empty((size, *value.shape[1:]), device="meta"))
        generator = torch.Generator().manual_seed(derived_seed(self._seed, Stream.NOISE, step, number))
        draws = draw(whole, self._variant, generator, cond_noise_prob=self._prob)
        return batch, draws.rows(rows)


def total_steps(order: DataOrder, recipe: Recipe) -> int:
    """Optimizer steps of a whole run."""
    return recipe.optim.steps or order.steps_per_epoch * (recipe.optim.epochs or 1)


class Feed:
    """What a run reads in its order. Fetching begins at once, so that the first batches, which are the slowest of a
    store in a bucket, come while the model is made.

    begin: the step that the run continues from. Raises UsageError as `check_share` and `training_order` do.
    """

    def __init__(self, source: StoreSource, recipe: Recipe, config: ModelConfig, team: Team, begin: int) -> None:
        check_share(recipe.optim.batch_size, team.size)
        self.team = team
        self.reader: WindowReader = training_reader(source, recipe)
        self.order: DataOrder = training_order(self.reader.index, recipe, source.stores)
        self.total = total_steps(self.order, recipe)
        pin = team.device.type == "cuda"
        loader = PassLoader(
            self.reader, recipe.seed, config.variant, config.cond_noise_prob, team.rank, team.size, pin=pin
        )
        self.batches: Prefetcher[Pass, Loaded] = Prefetcher(loader.fetch, self._passes(begin), recipe.data.workers)
        self.batches.begin()

    def _passes(self, begin: int) -> Iterator[Pass]:
        for step in range(begin, self.total):
            yield from step_passes(step, self.order.step(step), self.team.size)


def _joined_batch(parts: Sequence[Batch]) -> Batch:
    return Batch(
        first=torch.cat([part.first for part in parts]),
        future=_concatenated([part.future for part in parts]),
        future_is_pad=_concatenated([part.future_is_pad for part in parts]),
        context=torch.cat([part.context for part in parts]),
        proprio=torch.cat([part.proprio for part in parts]),
        action=torch.cat([part.action for part in parts]),
        action_is_pad=torch.cat([part.action_is_pad for part in parts]),
    )


def _joined_draws(parts: Sequence[Draws]) -> Draws:
    return Draws(
        noise_video=_concatenated([part.noise_video for part in parts]),
        u_video=_concatenated([part.u_video for part in parts]),
        noise_action=torch.cat([part.noise_action for part in parts]),
        u_action=torch.cat([part.u_action for part in parts]),
        cond_uniform=_concatenated([part.cond_uniform for part in parts]),
        u_cond=_concatenated([part.u_cond for part in parts]),
        noise_cond=_concatenated([part.noise_cond for part in parts]),
        mode_uniform=_concatenated([part.mode_uniform for part in parts]),
    )


def _concatenated(values: Sequence[Tensor | None]) -> Tensor | None:
    """One after the other. What only some parts have (idm's noise of the conditioning video, where no sample of a batch
    is noised) is zero in the others, which do not read it."""
    like = next((value for value in values if value is not None), None)
    return None if like is None else torch.cat([torch.zeros_like(like) if v is None else v for v in values])
