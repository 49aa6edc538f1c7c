"""Optimizer, learning-rate schedule, and float32 master weights for bf16 models.

AdamW is torch's fused kernel, called as a function: on one CPU thread it takes 2.8 ms for 210 tensors of a tiny model
against 9.7 ms for foreach and 10.4 ms for the plain loop, and it is the fastest one on GPUs too. `torch.optim.AdamW`
around it would import the compiler first, 6 s of CPU time at every start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from fwtrain.errors import CheckpointError
from fwtrain.recipe import OptimRecipe
from fwtrain.train.moments import Moments, fits_eight_bit, restored, whole_shape, zeros
from fwtrain.train.parallel import Team, local
from fwtrain.train.shards import SavedTensors
from fwtrain.train.tensors import TensorPart

GROUP_BYTES = 256 << 20
"""float32 bytes of the tensors that are updated together: bounds what a step needs besides its state."""


def learning_rate(step: int, total: int, recipe: OptimRecipe) -> float:
    """Rate of optimizer step `step` (0-based) of `total`: linear warm-up, then cosine to lr * min_lr_ratio.

    With w = floor(warmup_fraction * total): lr * (1/w + (1 - 1/w) k/w) for k < w, afterwards the half cosine
    (fastwam/trainer.py).
    """
    peak, warmup = recipe.lr, math.floor(recipe.warmup_fraction * total)
    if step < warmup:
        return peak * (1 / warmup + (1 - 1 / warmup) * step / warmup)
    lowest = recipe.min_lr_ratio * peak
    return lowest + (peak - lowest) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


class Optimizer:
    """AdamW over a model's trainable parameters, in float32 whatever the model's dtype.

    For a bf16 model it keeps float32 master weights (as the official launcher does): gradients are cast up, the step
    is taken on the masters, the result is rounded back into the model. Memory per parameter: 12 B fp32 model (weights
    and two moments) or 14 B bf16 model, plus the gradients; 8-bit moments take 2 B in place of 8 B. One parameter
    group, weight decay on every tensor. Tensors without a gradient in a step (the video head in an action-only batch)
    are left as they are, and those that never get one take no memory for moments. Of parameters split between the
    processes of `team` it holds and updates this process's rows.
    """

    def __init__(self, model: nn.Module, recipe: OptimRecipe, team: Team | None = None) -> None:
        self._recipe = recipe
        self._team = team or Team(torch.device("cpu"))
        self._params = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._masters = {
            name: local(p.detach()).float() for name, p in self._params.items() if p.dtype != torch.float32
        }
        self._moments: dict[str, Moments] = {}

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for param in self._params.values():
            param.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> Tensor:
        """Clip (when the recipe says so) and take one step at rate `lr`. Returns the unclipped gradient norm, 0-d
        float32 on the model's device (no host synchronisation)."""
        grads: dict[str, Tensor] = {}
        for name, param in self._params.items():
            if param.grad is not None:
                grads[name] = local(param.grad)
                param.grad = None
        for name in grads.keys() - self._moments.keys():
            self._moments[name] = self._fresh(name)
        norm = self._team.norm(total_norm(list(grads.values())))
        scale = None if self._recipe.clip is None else torch.clamp(self._recipe.clip / (norm + 1e-6), max=1.0)
        for names in _groups(grads):
            # The gradient itself when it is float32; contiguous, since the fused kernel ignores strides.
            wide = [grads.pop(name).float().contiguous() for name in names]
            if scale is not None:
                torch._foreach_mul_(wide, scale)
            self._update(names, wide, lr)
        return norm

    def _update(self, names: list[str], grads: list[Tensor], lr: float) -> None:
        masters = [self._master(name) for name in names]
        states = [self._moments[name] for name in names]
        unpacked = [state.unpacked() for state in states]
        recipe = self._recipe
        adamw(
            masters,
            grads,
            [first for first, _ in unpacked],
            [second for _, second in unpacked],
            [],
            [state.step for state in states],
            fused=True,
            amsgrad=False,
            maximize=False,
            lr=lr,
            beta1=recipe.betas[0],
            beta2=recipe.betas[1],
            weight_decay=recipe.weight_decay,
            eps=recipe.eps,
        )
        for name, state, moments in zip(names, states, unpacked, strict=True):
            state.store(*moments)
            if name in self._masters:
                local(self._params[name]).copy_(self._masters[name])

    def _fresh(self, name: str) -> Moments:
        return zeros(self._master(name), self._params[name].shape, eight_bit=self._recipe.moments == "8bit")

    def _master(self, name: str) -> Tensor:
        """The float32 tensor that a step changes: of a float32 model the parameter itself."""
        return self._masters[name] if name in self._masters else local(self._params[name]).detach()

    def parts(self) -> Iterator[TensorPart]:
        """Everything a resumed run needs: `master.<name>` (bf16 models), `exp_avg.<name>`, `exp_avg_sq.<name>`,
        `step.<name>`, and with 8-bit moments `exp_avg_scale.<name>`, `exp_avg_sq_scale.<name>`."""
        for name, param in self._params.items():
            if name in self._masters:
                yield TensorPart(f"master.{name}", self._masters[name], param.shape)
            state = self._moments.get(name)
            for key, tensor in state.tensors() if state is not None else ():
                yield TensorPart(f"{key}.{name}", tensor, whole_shape(key, param.shape))

    def load(self, tensors: SavedTensors) -> None:
        """Restore what `parts` yielded; of a tensor that is split, this process's rows are read.

        Raises CheckpointError for a tensor of another model, shape or precision.
        """
        by_name: dict[str, dict[str, str]] = {name: {} for name in self._params}
        for full in tensors:
            key, _, name = full.partition(".")
            if name not in by_name:
                raise CheckpointError(f"the checkpoint's optimizer state has tensor {full}, which this model has not")
            by_name[name][key] = full
        for name, keys in by_name.items():
            for key, full in keys.items():
                if tensors.shape(full) != whole_shape(key, self._params[name].shape):
                    raise CheckpointError(
                        f"the checkpoint's optimizer state {full} has shape {tensors.shape(full)}, "
                        f"this model has {tuple(self._params[name].shape)}"
                    )
            held = self._team.held(self._params[name].shape)
            self._load_one(name, {key: tensors.rows(full, held.start, held.stop) for key, full in keys.items()})

    @torch.no_grad()
    def _load_one(self, name: str, state: dict[str, Tensor]) -> None:
        """state: this process's rows by key."""
        shape = self._params[name].shape
        master = self._masters.get(name)
        if master is not None:
            if "master" not in state:
                raise CheckpointError(
                    f"the checkpoint has no float32 weights of {name}; it was made at another precision"
                )
            master.copy_(state.pop("master"))
            local(self._params[name]).copy_(master)
        if not state:
            return
        if ("exp_avg_scale" in state) != (self._recipe.moments == "8bit" and fits_eight_bit(shape)):
            raise CheckpointError(
                f"the checkpoint's optimizer state of {name} was not made with optim.moments={self._recipe.moments}"
            )
        device = self._master(name).device
        try:
            self._moments[name] = restored({key: tensor.to(device, copy=True) for key, tensor in state.items()})
        except KeyError as error:
            raise CheckpointError(f"the checkpoint's optimizer state of {name} lacks {error.args[0]}") from None


def total_norm(grads: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together, 0-d float32, summed in float32."""
    if not grads:
        return torch.zeros(())
    total: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads, 2, dtype=torch.float32)))
    return total


def _groups(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Names in order, cut where a group's float32 copies would pass GROUP_BYTES; not those without elements."""
    groups: list[list[str]] = []
    room = 0
    for name, tensor in tensors.items():
        size = 4 * tensor.numel()
        if size == 0:
            continue
        if size > room:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(name)
        room -= size
    return groups
