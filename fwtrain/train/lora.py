"""Low-rank adapters (Hu et al., arXiv 2106.09685) through `peft`: put into a model for training, merged for use."""

from __future__ import annotations

import re

import torch

from fwdata.errors import UsageError, needed_for
from fwtrain.data import Stream, derived_seed
from fwtrain.model import FastWAM
from fwtrain.recipe import LoraRecipe


def add_adapters(model: FastWAM, lora: LoraRecipe, seed: int) -> None:
    """Freeze the model and add adapters, whose first weights are a function of (lora, seed) and change no output.

    A layer `x` becomes `x.base_layer`, `x.lora_A.default` and `x.lora_B.default`. Raises UsageError without peft, or
    where `lora.full` names nothing.
    """
    with needed_for("lora.rank above 0"):
        from peft import LoraConfig, inject_adapter_in_model
    layers = "|".join(re.escape(name) for name in lora.targets)
    targets = rf"mixtures\.({'|'.join(lora.experts)})\.blocks\.\d+\.({layers})"
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, lora_dropout=0.0, bias="none")
    for name in lora.full:
        if not any(parameter.startswith(name) for parameter, _ in model.named_parameters()):
            raise UsageError(f"recipe key lora.full: no parameter of the model begins with {name!r}")
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, Stream.INIT, 1))
        inject_adapter_in_model(config, model)
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
