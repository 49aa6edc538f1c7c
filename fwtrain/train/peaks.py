"""The most memory that a pass holds, at any batch size and depth, from short runs without data.

The real training step runs on torch's meta device, and every storage it makes is counted while it lives: the peak is
that of the code as it is. Attention and RMS norm count as the fused GPU kernels.

A run has `WINDOWS` windows, more than any other size of a model, so that a tensor's shape tells how much of it grows
with the batch: each moment of the run is `fixed + windows * per_window`, and the peak at a batch size is the largest of
these. A deep model is continued from two shallow ones, moment by moment: what is held in the first, second, last but
one and last layer is a line in the depth, and what is held in between lies between those of its neighbours.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fwtrain.batch import Batch
from fwtrain.model import Denoising, Draws, FastWAM, ModelConfig, Noise, losses, sample

WINDOWS = 262147
"""Windows of the counted run; a prime, so that no product of other sizes is a multiple of it."""

CONSTANTS = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
"""Arguments of an operation that can be compared."""


SHORT = (3, 4)
"""Layers of the two models that stand for a deep one."""

type Moment = tuple[int, int, int]
"""What is held when a storage has been made: bytes per window, bytes besides, complete gradients among the latter."""

type Stretch = tuple[str, str, int]
"""A part of a pass that every layer has: "forward" or "backward", expert, how often the layer had it before."""

type Timeline = dict[Stretch, dict[int, list[Moment]]]
"""Moments of a pass by stretch and layer."""


@dataclass(frozen=True)
class Peak:
    """The most bytes held at once, as a function of the batch size."""

    lines: tuple[tuple[int, int], ...]
    """(bytes per window, bytes besides) of the moments that can be the peak."""

    @classmethod
    def of(cls, lines: Iterable[tuple[int, int]]) -> Peak:
        """Of all moments. Leaves out what another exceeds in both."""
        kept: list[tuple[int, int]] = []
        for per_window, fixed in sorted(lines, reverse=True):
            if not kept or fixed > kept[-1][1]:
                kept.append((per_window, fixed))
        return cls(tuple(kept))

    def at(self, batch_size: int) -> int:
        """Bytes at the peak with `batch_size` windows."""
        return max((fixed + per_window * batch_size for per_window, fixed in self.lines), default=0)


@dataclass(frozen=True)
class PassPeaks:
    """Peaks of everything that a pass makes, batch and noise included."""

    with_gradients: Peak
    """Parameters' gradients appear while activations are freed, and stay."""
    without_gradients: Peak
    """Each parameter's gradient is dropped as soon as it is complete: it has memory of its own."""

    @classmethod
    def of(cls, moments: Sequence[Moment]) -> PassPeaks:
        """Of all moments of a pass."""
        kept = Peak.of((per_window, fixed) for per_window, fixed, _ in moments)
        return cls(kept, Peak.of((per_window, fixed - gradients) for per_window, fixed, gradients in moments))


def pass_peaks(timeline: Timeline) -> PassPeaks:
    """Peaks of the pass that was counted."""
    return PassPeaks.of([moment for layers in timeline.values() for moments in layers.values() for moment in moments])


def deep_peaks(low: Timeline, high: Timeline, layers: int) -> PassPeaks | None:
    """Peaks of a model of `layers` layers from those of `SHORT`; None where their layers do not do the same."""
    if low.keys() != high.keys():
        return None
    found, more = [], layers - SHORT[1]
    for stretch, shallow in low.items():
        # the second of three layers is the second of four, and the last but one
        for mine, other in ((0, 0), (1, 1), (1, 2), (2, 3)):
            first, second = shallow.get(mine, []), high[stretch].get(other, [])
            if len(first) != len(second):
                return None
            for (a, b, c), (d, e, f) in zip(first, second, strict=True):
                found.append((d + (d - a) * more, e + (e - b) * more, f + (f - c) * more))
    return PassPeaks.of(found)


def count_pass(model: FastWAM, *, backward: bool, memo: ShapeMemo | None = None) -> Timeline:
    """Moments of a forward pass, and of the backward pass where asked for, on a model without data."""
    tracker = PeakTracker([*model.parameters(), *model.buffers()], memo or ShapeMemo())
    trained = [p for p in model.parameters() if p.requires_grad] if backward else []
    hooks: list[Any] = [p.register_post_accumulate_grad_hook(tracker.complete) for p in trained]  # type: ignore[no-untyped-call]
    for name, expert in (("video", model.video), ("action", model.action)):
        for layer, block in enumerate(expert.layers):
            hooks.append(block.register_forward_pre_hook(partial(tracker.enter, "forward", name, layer)))
            hooks.append(block.register_forward_hook(partial(tracker.leave, name, layer)))
    try:
        with tracker, torch.set_grad_enabled(backward):
            batch, draws = empty_inputs(model.config, WINDOWS)  # held to the end, as by the training loop
            total = model(losses, batch, draws).total
            if backward:
                total.backward()
        return tracker.timeline
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in trained:
            parameter.grad = None


def count_sampling(model: FastWAM, memo: ShapeMemo | None = None) -> Peak:
    """Peak of sampling actions as validation does, what is observed included, on a model without data.

    Of two steps: each further one keeps its modulations besides, 4 MB at the published size.
    """
    tracker = PeakTracker([*model.parameters(), *model.buffers()], memo or ShapeMemo())
    with tracker, torch.no_grad():
        batch, draws = empty_inputs(model.config, WINDOWS)
        noise, two = Noise(draws.noise_action, draws.noise_video), Denoising(steps=2)
        model(sample, batch.first, batch.context, batch.proprio, noise, two, video=False)
    return pass_peaks(tracker.timeline).without_gradients


class PeakTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages made while it is active, from birth to death; not those of `held`, there before."""

    def __init__(self, held: Sequence[Tensor], memo: ShapeMemo) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._moments: list[Moment] = []
        self._layer = ("", "", 0)
        self.timeline: Timeline = {("", "", 0): {0: self._moments}}
        self._memo = memo
        self._held = {tensor.untyped_storage()._cdata for tensor in held}
        self._live: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._fixed = self._per_window = self._gradients = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would keep its compiler away from every call below, which takes longer than the call."""
        return False

    def enter(self, direction: str, expert: str, layer: int, *_: object) -> None:
        """A layer begins."""
        if self._layer == (direction, expert, layer):
            return
        self._layer, self._moments, before = (direction, expert, layer), [], 0
        while layer in self.timeline.setdefault((direction, expert, before), {}):
            before += 1
        self.timeline[direction, expert, before][layer] = self._moments

    def leave(self, expert: str, layer: int, _: object, __: object, out: object) -> None:
        """A layer ends: its backward pass begins with what made its results."""
        for leaf in tree_leaves(out):
            node = leaf.grad_fn if isinstance(leaf, Tensor) else None
            if node is not None:
                node.register_prehook(partial(self.enter, "backward", expert, layer))

    def complete(self, parameter: Tensor) -> None:
        """A parameter's gradient is complete."""
        if parameter.grad is not None:
            self._gradients += parameter.grad.untyped_storage().nbytes()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, object] | None = None
    ) -> Any:
        out = self._memo.call(func, args, kwargs or {})
        for leaf in (out,) if isinstance(out, Tensor) else tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._held or key in self._live:
            return
        fixed, per_window = _growth(tensor.shape, tensor.itemsize)
        if fixed + per_window * WINDOWS != storage.nbytes():  # a part of its storage
            per_window, fixed = divmod(storage.nbytes(), WINDOWS)
        self._live[key] = weakref.ref(storage, partial(self._end, key, fixed, per_window))
        self._fixed += fixed
        self._per_window += per_window
        self._moments.append((self._per_window, self._fixed, self._gradients))

    def _end(self, key: int, fixed: int, per_window: int, _: object) -> None:
        del self._live[key]
        self._fixed -= fixed
        self._per_window -= per_window


def _growth(shape: Sequence[int], itemsize: int) -> tuple[int, int]:
    """Bytes of a tensor as (fixed, per window): an axis has `windows * n + m` entries, where n is 0 of all but one."""
    fixed, per_window = itemsize, 0
    for size in shape:
        times, more = divmod(size, WINDOWS)
        fixed, per_window = fixed * more, per_window * more + fixed * times
    return fixed, per_window


class _NotComparableError(Exception):
    """An argument that no key can be made of."""


@dataclass
class ShapeMemo:
    """Calls operations on tensors without data; one that it has seen with such arguments is not worked out again.

    torch works out in Python what most operations make, which takes most of a run's time; layers repeat it.
    """

    _made: dict[tuple[object, ...], Callable[[], Any]] = field(default_factory=dict)
    _changing: dict[object, bool] = field(default_factory=dict)

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, object]) -> Any:
        """`func(*args, **kwargs)`."""
        key = self._key(func, args, kwargs)
        if key is None:
            return func(*args, **kwargs)
        found = self._made.get(key)
        if found is not None:
            return found()
        out = func(*args, **kwargs)
        again = _maker(out, args, kwargs)
        if again is not None:
            self._made[key] = again
        return out

    def _key(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, object]) -> tuple[object, ...] | None:
        """What decides the shapes of the result; None where more does, or where it shares memory with arguments."""
        changing = self._changing.get(func)
        if changing is None:
            schema = func._schema
            changing = any(value.alias_info is not None for value in (*schema.arguments, *schema.returns))
            self._changing[func] = changing
        if changing:
            return None
        try:
            return (func, _comparable(args), *((name, _comparable(value)) for name, value in kwargs.items()))
        except _NotComparableError:
            return None


def _comparable(value: object) -> object:
    if isinstance(value, Tensor) and value.is_meta:
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple(map(_comparable, value))
    if isinstance(value, CONSTANTS):
        return type(value), value  # 1 and 1.0 and True are equal
    raise _NotComparableError


def _maker(out: Any, args: object, kwargs: object) -> Callable[[], Any] | None:
    """Makes tensors like those of `out` again; None where they share memory or hold data."""
    tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    inputs = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
    made = {tensor.untyped_storage()._cdata for tensor in tensors}
    new = len(made) == len(tensors) and not made & inputs
    if not new or not isinstance(out, (Tensor, tuple, list)) or not all(tensor.is_meta for tensor in tensors):
        return None
    one = partial(torch.empty_strided, device="meta")
    like = [(tuple(t.shape), t.stride(), t.dtype) for t in tensors]
    if any(
        one(size, stride, dtype=dtype).untyped_storage().nbytes() != tensor.untyped_storage().nbytes()
        for tensor, (size, stride, dtype) in zip(tensors, like, strict=True)
    ):
        return None
    if isinstance(out, Tensor):
        size, stride, dtype = like[0]
        return lambda: one(size, stride, dtype=dtype)
    kind, rest = type(out), [None if isinstance(item, Tensor) else item for item in out]
    places = [place for place, item in enumerate(out) if isinstance(item, Tensor)]
    if len(places) != len(tensors):  # tensors within lists
        return None

    def several() -> Any:  # holds none of the tensors themselves
        items: list[Any] = list(rest)
        for place, (size, stride, dtype) in zip(places, like, strict=True):
            items[place] = one(size, stride, dtype=dtype)
        return kind(items)

    return several


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
