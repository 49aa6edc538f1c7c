"""How much memory a recipe needs, without running it.

State is arithmetic: weights, float32 masters, gradients, moments. Activations are not a formula but a run of the real
training step on tensors without data (torch's meta device): every storage it makes is counted while it lives, so that
the peak is that of the code as it is, at any size, in seconds. Attention and RMS norm count as the fused GPU kernels.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fwtrain.batch import Batch
from fwtrain.model import Draws, FastWAM, ModelConfig, losses
from fwtrain.recipe import Recipe
from fwtrain.train.build import DTYPES, prepare
from fwtrain.train.moments import BLOCK, fits_eight_bit
from fwtrain.train.optim import GROUP_BYTES

GIB = 1 << 30
CONTEXT_BYTES, FRAGMENTATION = int(1.5 * GIB), 0.05
"""What a process needs on a GPU besides tensors, and the share an allocator loses: allowances, not measurements."""


SHORT = (4, 6)
"""Layers of the two models that stand for a deep one: its peak lies on the line through theirs."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one process at the peak of a step, or of validation."""

    weights: int
    """Parameters as they are held; a shard under fsdp."""
    masters: int
    """float32 masters of bf16 parameters that are trained; a shard under fsdp."""
    gradients: int
    """Gradients that are there during the whole step; a shard under fsdp."""
    moments: int
    """AdamW's two moments; a shard under fsdp."""
    activations: int
    """Peak of everything that a forward and backward pass makes besides."""
    gathered: int
    """Whole layers under fsdp, two at most, and the float32 gradients of one on their way between processes."""
    update: int
    """What the optimizer's step needs while there are no activations."""
    validation: int
    """All weights under fsdp, which validation gathers, and its activations."""
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
        step = self.gathered + self.gradients + max(self.activations, self.update)
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
    peaks: dict[tuple[object, ...], int] = field(default_factory=dict)
    """Results of `step_peak`, in bytes."""


type PeakKind = Literal["with gradients", "without gradients", "validation"]


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

    def at(self, batch_size: int) -> Memory:
        """Memory of one process when each of its passes has `batch_size` windows, all with future latents."""
        parts = self.processes if self._sharded else 1
        every = list(self.model.parameters())
        trained = [p for p in every if p.requires_grad]
        moments = self.recipe.optim.moments
        # one pass a step in one process: gradients appear as activations go; else they are there from the start
        together = self.processes == 1 and self.recipe.optim.accumulation == 1
        return Memory(
            weights=_bytes(every) // parts,
            masters=4 * _count(p for p in trained if p.dtype != torch.float32) // parts,
            gradients=0 if together else _bytes(trained) // parts,
            moments=sum(moment_bytes(p, moments) for p in trained) // parts,
            activations=self._peak(batch_size, "with gradients" if together else "without gradients"),
            gathered=self._gathered() if self._sharded else 0,
            update=_update_bytes(trained, moments, parts) + (_bytes(trained) if together else 0),
            validation=self._validation(batch_size, _bytes(every)) if self._sharded else 0,
            parameters=_count(every),
            trained=_count(trained),
        )

    def checkpoint_bytes(self) -> int:
        """Bytes of one checkpoint: trained weights, their float32 masters and moments, of all processes."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        masters = 4 * _count(p for p in trained if p.dtype != torch.float32)
        return _bytes(trained) + masters + sum(moment_bytes(p, self.recipe.optim.moments) for p in trained)

    def largest_batch(self, gib: float, limit: int = 256) -> int:
        """The most windows per pass that fit a GPU of `gib` (GiB), 0 when not even one does."""
        return self.most_windows(usable(gib) / GIB, limit)

    def most_windows(self, gib: float, limit: int = 256) -> int:
        """The most windows per pass whose tensors fit `gib` (GiB).

        Memory grows faster with the batch once activations outweigh the gradients: it is counted at 1, 8 and 16
        windows, taken from the chord between 1 and 8, and continued as a line beyond.
        """
        room = gib * GIB
        one = self.at(1).total
        if one > room:
            return 0
        eight = self.at(8).total
        if eight > room:
            return 1 + int((room - one) / ((eight - one) / 7))
        slope = max((self.at(16).total - eight) / 8, 1.0)
        return min(limit, 8 + int((room - eight) / slope))

    def _kind(self) -> tuple[object, ...]:
        """What decides which parameters are trained."""
        lora = self.recipe.lora
        return self.recipe.precision, self.recipe.video_frozen, lora.model_dump_json() if lora else None

    def _model(self, config: ModelConfig) -> FastWAM:
        key = (*self._kind(), config.video_expert.num_layers)
        found = self._known.models.get(key)
        if found is None:
            found = FastWAM(config, seed=None, device="meta", dtype=DTYPES[self.recipe.precision])
            prepare(found, self.recipe)
            self._known.models[key] = found
        found.gradient_checkpointing = self.recipe.gradient_checkpointing
        return found

    def _peak(self, batch_size: int, what: PeakKind) -> int:
        again = self.recipe.gradient_checkpointing and what != "validation"
        key = (*self._kind(), again, batch_size, what)
        if key not in self._known.peaks:
            self._known.peaks[key] = self._deep_peak(batch_size, what)
        return self._known.peaks[key]

    def _deep_peak(self, batch_size: int, what: PeakKind) -> int:
        """Peak of the whole model: measured, or continued from two shallow ones (within 3 % at 30 layers)."""
        layers = self.config.video_expert.num_layers
        if layers <= max(SHORT):
            return step_peak(self._model(self.config), batch_size, what)
        low, high = (step_peak(self._model(self._shallow(count)), batch_size, what) for count in SHORT)
        return round(high + (high - low) * (layers - SHORT[1]) / (SHORT[1] - SHORT[0]))

    def _shallow(self, layers: int) -> ModelConfig:
        """The configuration with fewer layers."""
        experts = {name: getattr(self.config, name) for name in ("video_expert", "action_expert")}
        fewer = {name: expert.model_copy(update={"num_layers": layers}) for name, expert in experts.items()}
        return self.config.model_copy(update=fewer)

    def _validation(self, batch_size: int, weights: int) -> int:
        """What validation needs besides this process's shard: all weights, and a forward pass."""
        return self._peak(batch_size, "validation") + weights

    def _gathered(self) -> int:
        """Weights outside the layers, and the largest two layers (one is fetched while one computes); of a bf16 model
        the float32 gradients of the largest besides, which are summed over the processes in float32."""
        blocks = [*self.model.video.layers, *self.model.action.layers]
        layers = sorted(_bytes(block.parameters()) for block in blocks)
        counts = [_count(p for p in block.parameters() if p.requires_grad) for block in blocks]
        reduced = 0 if self.recipe.precision == "fp32" else 4 * max(counts)
        return _bytes(self.model.parameters()) - sum(layers[:-2]) + reduced


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


def step_peak(model: FastWAM, batch_size: int, what: PeakKind) -> int:
    """Peak bytes of what a pass makes, batch and noise included, on a model without data.

    what: a forward and backward pass "with gradients" that appear while activations are freed, or "without gradients",
    each dropped at once (they have memory of their own); "validation" is a forward pass alone.
    """
    for parameter in model.parameters():
        parameter.grad = None
    drop = what == "without gradients"
    hooks = [_drop(p) for p in model.parameters() if p.requires_grad] if drop else []
    held = [*model.parameters(), *model.buffers()]
    try:
        with PeakTracker(held) as tracker, torch.set_grad_enabled(what != "validation"):
            batch, draws = empty_inputs(model.config, batch_size)
            total = model(losses, batch, draws).total
            if what != "validation":
                total.backward()
        return int(tracker.peak)
    finally:
        for hook in hooks:
            hook()
        for parameter in model.parameters():
            parameter.grad = None


def _drop(parameter: Tensor) -> Callable[[], None]:
    def drop(tensor: Tensor) -> None:
        tensor.grad = None

    hook = parameter.register_post_accumulate_grad_hook(drop)  # type: ignore[no-untyped-call]
    remove: Callable[[], None] = hook.remove
    return remove


def empty_inputs(config: ModelConfig, batch_size: int, device: str = "meta") -> tuple[Batch, Draws]:
    """A co-training batch and its draws: data-less on "meta", else of normal numbers."""
    generator = None if device == "meta" else torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(batch_size, *shape, generator=generator, device=device)

    frames, height, width = config.latent_grid
    channels, horizon, dims = config.video_expert.in_channels, config.action_horizon, config.action_expert.action_dim
    noise = numbers(channels, frames, height, width)
    copy, modes = config.rules.copy, config.rules.modes
    uniform = [torch.rand(batch_size, generator=generator, device=device) for _ in range(4)]
    # all samples in the mode that costs most; on the CPU, because tensors without data cannot choose
    mode = torch.full((batch_size,), 0.0 if modes[0].copy else 1.0) if len(modes) > 1 else None
    batch = Batch(
        first=numbers(channels, height, width).half(),
        future=numbers(channels, frames - 1, height, width).half(),
        future_is_pad=torch.zeros(batch_size, frames - 1, dtype=torch.bool, device=device),
        context=numbers(config.context_len, config.video_expert.text_dim),
        proprio=numbers(config.proprio_dim or 1),
        action=numbers(horizon, dims),
        action_is_pad=torch.zeros(batch_size, horizon, dtype=torch.bool, device=device),
    )
    draws = Draws(
        noise_video=noise,
        u_video=uniform[0],
        noise_action=numbers(horizon, dims),
        u_action=uniform[1],
        cond_uniform=uniform[2] if copy else None,
        u_cond=uniform[3] if copy else None,
        noise_cond=numbers(channels, frames, height, width) if copy else None,
        mode_uniform=mode,
    )
    return batch, draws


class PeakTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages made while it is active, from birth to death; not those of `held`, there before."""

    def __init__(self, held: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {tensor.untyped_storage()._cdata for tensor in held}
        self.live = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, object] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._end, key, size)

    def _end(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
