"""How much memory a recipe needs, without running it.

State is arithmetic: weights, float32 masters, gradients, moments. Activations are counted in the real training step on
tensors without data (`fwtrain.train.peaks`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fwtrain.model import FastWAM, ModelConfig
from fwtrain.recipe import Recipe
from fwtrain.train.build import DTYPES, prepare
from fwtrain.train.moments import BLOCK, fits_eight_bit
from fwtrain.train.optim import GROUP_BYTES
from fwtrain.train.peaks import (
    SHORT,
    PassPeaks,
    Peak,
    ShapeMemo,
    Timeline,
    count_pass,
    count_sampling,
    deep_peaks,
    pass_peaks,
)
from fwtrain.train.validate import ROWS_ON_GPU

GIB = 1 << 30
CONTEXT_BYTES, FRAGMENTATION = int(1.5 * GIB), 0.05
"""What a process needs on a GPU besides tensors, and the share an allocator loses: allowances, not measurements."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one process at the peak of a step, or of validation."""

    weights: int
    """Parameters as they are held; a shard under fsdp."""
    masters: int
    """float32 masters of bf16 parameters that are trained; a shard under fsdp."""
    gradients: int
    """Gradients that are there during the whole step; a shard under fsdp. Of a variant with two modes besides those of
    the samples in one mode, whole, which autograd holds until those of the other have come."""
    moments: int
    """AdamW's two moments; a shard under fsdp."""
    activations: int
    """Peak of everything that a forward and backward pass makes besides."""
    gathered: int
    """Whole layers under fsdp: three at most, or two and the float32 gradients of one between processes."""
    update: int
    """What the optimizer's step needs while there are no activations."""
    validation: int
    """What validation needs besides the state: its activations, of sampling or of the losses, whichever are more, and
    under fsdp all weights, which it gathers besides the process's shard."""
    parameters: int
    """Parameters of the model."""
    trained: int
    """How many of them are trained."""

    @property
    def state(self) -> int:
        """Held all the time."""
        return self.weights + self.masters + self.moments

    @property
    def total(self) -> int:
        """The peak of a step or of validation, whichever is higher."""
        step = self.gradients + max(self.gathered + self.activations, self.update)
        return self.state + max(step, self.validation)

    def fits(self, gib: float) -> bool:
        """Whether a GPU of that size holds it, with CONTEXT_BYTES and FRAGMENTATION set aside."""
        return self.total <= usable(gib)


def usable(gib: float) -> int:
    """Bytes of a GPU that tensors can have."""
    return int(gib * GIB * (1 - FRAGMENTATION)) - CONTEXT_BYTES


@dataclass
class KnownPeaks:
    """What plans of one configuration share."""

    models: dict[tuple[object, ...], FastWAM] = field(default_factory=dict)
    """Models without data, by what is trained and their depth."""
    peaks: dict[tuple[object, ...], PassPeaks] = field(default_factory=dict)
    """Peaks by what is trained, checkpointing, and whether the pass goes backward."""
    sampling: dict[tuple[object, ...], Peak] = field(default_factory=dict)
    """Peaks of sampling by what is trained."""
    warm: set[tuple[object, ...]] = field(default_factory=set)
    """What was trained in passes that were counted before."""
    memo: ShapeMemo = field(default_factory=ShapeMemo)
    """Shapes that operations make."""


class MemoryPlan:
    """The memory of one recipe at any batch size. processes: several with parallel=fsdp split the state.

    Models are made without memory, and with the measured peaks are shared between plans of one configuration (`known`).
    """

    def __init__(
        self, recipe: Recipe, config: ModelConfig, processes: int = 1, known: KnownPeaks | None = None
    ) -> None:
        self.recipe, self.config, self.processes = recipe, config, processes
        self._known = KnownPeaks() if known is None else known
        self.model = self._model(config)

    @property
    def _sharded(self) -> bool:
        return self.processes > 1 and self.recipe.parallel == "fsdp"

    def at(self, batch_size: int, validated: int | None = None) -> Memory:
        """Memory of one process when each of its passes has `batch_size` windows, all with future latents.

        validated: `optim.batch_size`, of which processes share no part in validation; None: as many as a pass has.
        """
        validation, held_out = 0, self.recipe.validation.windows
        most = min(batch_size if validated is None else validated, held_out, ROWS_ON_GPU)
        if most:
            gathered = _bytes(self._parameters) if self._sharded else 0
            validation = gathered + max(self._peak(most, backward=False), self._sampling(most))
        activations = self._peak(batch_size, with_gradients=self._together)
        return replace(self._state, activations=activations, validation=validation)

    @property
    def _together(self) -> bool:
        """One pass a step in one process: gradients appear as activations go; else they are there from the start."""
        return self._alone and not self._two_modes

    @property
    def _alone(self) -> bool:
        return self.processes == 1 and self.recipe.optim.accumulation == 1

    @property
    def _two_modes(self) -> bool:
        """Whether the samples of a batch can go through the model in two modes, one after the other."""
        share = self.config.action_idm_prob
        return len(self.config.rules.modes) > 1 and share is not None and 0 < share < 1

    @cached_property
    def _parameters(self) -> list[Tensor]:
        return list(self.model.parameters())

    @cached_property
    def _state(self) -> Memory:
        """What does not depend on the batch size."""
        parts = self.processes if self._sharded else 1
        every = self._parameters
        trained = [p for p in every if p.requires_grad]
        moments = self.recipe.optim.moments
        return Memory(
            weights=_bytes(every) // parts,
            masters=4 * _count(p for p in trained if p.dtype != torch.float32) // parts,
            gradients=(0 if self._alone else _bytes(trained) // parts) + (_bytes(trained) if self._two_modes else 0),
            moments=sum(moment_bytes(p, moments) for p in trained) // parts,
            activations=0,
            gathered=self._gathered() if self._sharded else 0,
            update=_update_bytes(trained, moments, parts) + (_bytes(trained) if self._together else 0),
            validation=0,
            parameters=_count(every),
            trained=_count(trained),
        )

    def checkpoint_bytes(self) -> int:
        """Bytes of one checkpoint: trained weights, their float32 masters and moments, of all processes."""
        trained = [p for p in self._parameters if p.requires_grad]
        masters = 4 * _count(p for p in trained if p.dtype != torch.float32)
        return _bytes(trained) + masters + sum(moment_bytes(p, self.recipe.optim.moments) for p in trained)

    def largest_batch(self, gib: float, limit: int = 256) -> int:
        """The most windows per pass that fit a GPU of `gib` (GiB), 0 when not even one does."""
        return self.most_windows(usable(gib) / GIB, limit)

    def most_windows(self, gib: float, limit: int = 256) -> int:
        """The most windows per pass whose tensors fit `gib` (GiB)."""
        return bisect_right(range(1, limit + 1), gib * GIB, key=lambda windows: self.at(windows).total)

    def _kind(self) -> tuple[object, ...]:
        """What decides which parameters are trained."""
        lora = self.recipe.lora
        return self.recipe.precision, self.recipe.video_frozen, lora.model_dump_json() if lora else None

    def _model(self, config: ModelConfig) -> FastWAM:
        key = (*self._kind(), config.video_expert.num_layers)
        found = self._known.models.get(key)
        if found is None:
            found = FastWAM(config, seed=None, device="meta", dtype=DTYPES[self.recipe.precision])
            prepare(found, self.recipe, counted=True)
            self._known.models[key] = found
        found.gradient_checkpointing = self.recipe.gradient_checkpointing
        return found

    def _peak(self, batch_size: int, *, backward: bool = True, with_gradients: bool = False) -> int:
        """Peak of a pass through the whole model."""
        again = self.recipe.gradient_checkpointing and backward
        key = (*self._kind(), again, backward)
        found = self._known.peaks.get(key)
        if found is None:
            found = self._known.peaks[key] = self._pass_peaks(backward)
        return (found.with_gradients if with_gradients else found.without_gradients).at(batch_size)

    def _sampling(self, windows: int) -> int:
        """Peak of sampling the actions of so many windows."""
        key = self._kind()
        if key not in self._known.sampling:
            self._known.sampling[key] = count_sampling(self.model, self._known.memo)
        return self._known.sampling[key].at(windows)

    def _pass_peaks(self, backward: bool) -> PassPeaks:
        """Peaks of a pass: continued from two shallow models, where their layers do not do the same counted."""

        def timeline(config: ModelConfig) -> Timeline:
            return count_pass(self._model(config), backward=backward, memo=self._known.memo)

        if self._kind() not in self._known.warm:  # the process keeps rotation tables: what a pass finds is not its own
            self._known.warm.add(self._kind())
            count_pass(self._model(self._shallow(1)), backward=False, memo=self._known.memo)
        layers, found = self.config.video_expert.num_layers, None
        if layers > SHORT[1]:
            low, high = (timeline(self._shallow(count)) for count in SHORT)
            found = deep_peaks(low, high, layers)
        return found or pass_peaks(timeline(self.config))

    def _shallow(self, layers: int) -> ModelConfig:
        """The configuration with fewer layers."""
        experts = {name: getattr(self.config, name) for name in ("video_expert", "action_expert")}
        fewer = {name: expert.model_copy(update={"num_layers": layers}) for name, expert in experts.items()}
        return self.config.model_copy(update=fewer)

    def _gathered(self) -> int:
        """Weights outside the layers, and the largest two layers: a message, and its copy in a layer's tensors. Besides
        them the message of the next layer in the forward pass, or in the backward pass a layer's gradients, which are
        summed over the processes in float32, and this process's share of the sum."""
        blocks = [*self.model.video.layers, *self.model.action.layers]
        layers = sorted(_bytes(block.parameters()) for block in blocks)
        counts = [_count(p for p in block.parameters() if p.requires_grad) for block in blocks]
        summed = 4 * max(counts) + 4 * max(counts) // self.processes
        return _bytes(self._parameters) - sum(layers[:-2]) + max(layers[-1], summed)


def moment_bytes(parameter: Tensor, kind: str) -> int:
    """AdamW's two moments of a parameter."""
    if kind == "8bit" and fits_eight_bit(parameter.shape):
        rows, width = parameter.shape[0], parameter.shape[1:].numel()
        return 2 * (parameter.numel() + 4 * rows * -(-width // BLOCK))
    return 8 * parameter.numel()


def _update_bytes(trained: Sequence[Tensor], kind: str, parts: int) -> int:
    """float32 gradients, and with 8 bits moments and codes, of the tensors that are updated together."""
    largest = max((p.numel() for p in trained), default=0)
    group = min(max(GROUP_BYTES, 4 * largest // parts), 4 * _count(trained) // parts)
    return group * (6 if kind == "8bit" else 1)


def _bytes(tensors: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _count(tensors: Any) -> int:
    return sum(tensor.numel() for tensor in tensors)
