"""Low-rank adapters (Hu et al., arXiv 2106.09685) through `peft`: put into a model for training, merged for use."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from fwdata.errors import UsageError, needed_for
from fwtrain.data import Stream, derived_seed
from fwtrain.model import FastWAM
from fwtrain.model.blocks import Linear, TensorPlacement
from fwtrain.recipe import LoraRecipe


def add_adapters(model: FastWAM, lora: LoraRecipe, seed: int) -> None:
    """Freeze the model and add adapters, whose first weights are a function of (lora, seed) and change no output.

    A layer `x` becomes `x.base_layer`, `x.lora_A.default` and `x.lora_B.default`. Raises UsageError without peft, or
    where `lora.full` names nothing.
    """
    with needed_for("lora.rank above 0"):
        from peft import LoraConfig, inject_adapter_in_model
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=_targets(lora), lora_dropout=0.0, bias="none"
    )
    _freeze(model, lora)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, Stream.INIT, 1))
        inject_adapter_in_model(config, model)
    _train_adapters(model, lora)


def add_counted_adapters(model: FastWAM, lora: LoraRecipe) -> None:
    """What `add_adapters` adds, for a model without data whose memory is counted: without peft, which takes seconds to
    import. Raises UsageError where `lora.full` names nothing."""
    _freeze(model, lora)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and re.fullmatch(_targets(lora), name):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, CountedAdapter(module, lora))
    _train_adapters(model, lora)


class CountedAdapter(nn.Module):
    """A linear layer with an adapter, with the parameters and operations of peft's."""

    def __init__(self, base: nn.Linear, lora: LoraRecipe) -> None:
        super().__init__()
        place = TensorPlacement(device=base.weight.device, dtype=base.weight.dtype)
        self.base_layer, self.scaling = base, lora.alpha / lora.rank
        self.lora_A = nn.ModuleDict({"default": Linear(base.in_features, lora.rank, bias=False, **place)})
        self.lora_B = nn.ModuleDict({"default": Linear(lora.rank, base.out_features, bias=False, **place)})

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        whole: Tensor = self.base_layer(x)
        adapted: Tensor = whole + self.lora_B["default"](self.lora_A["default"](x)) * self.scaling
        return adapted


def _targets(lora: LoraRecipe) -> str:
    """Pattern of the names of the layers that get adapters."""
    layers = "|".join(re.escape(name) for name in lora.targets)
    return rf"mixtures\.({'|'.join(lora.experts)})\.blocks\.\d+\.({layers})"


def _freeze(model: FastWAM, lora: LoraRecipe) -> None:
    for name in lora.full:
        if not any(parameter.startswith(name) for parameter, _ in model.named_parameters()):
            raise UsageError(f"recipe key lora.full: no parameter of the model begins with {name!r}")
    model.requires_grad_(False)


def _train_adapters(model: FastWAM, lora: LoraRecipe) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith(lora.full))


@torch.no_grad()
def merge_adapters(model: FastWAM) -> None:
    """Add every adapter to its layer and remove it, so that the model has its official names again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module.get_base_layer())
    model.requires_grad_(True)
