"""A model on disk: `config.json` and `model.safetensors`, under the official parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fwdata.encode.tensor_files import TensorFiles, save_tensors
from fwdata.errors import StoreDamaged, UsageError
from fwdata.io import write_atomic
from fwtrain.model.config import ModelConfig
from fwtrain.model.fastwam import FastWAM

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
_SHOWN = 3


def save_model(model: FastWAM, folder: Path | str) -> None:
    """Write both files into `folder` (made if absent), each whole or absent."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}
    save_tensors(target / WEIGHTS_NAME, tensors, {"format": "pt"})
    write_atomic(target / CONFIG_NAME, (model.config.to_json() + "\n").encode())


def load_model(folder: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> FastWAM:
    """The model saved in a folder. dtype: None keeps the stored type.

    Raises UsageError for a folder without a model, StoreDamaged for unreadable or unfitting weights.
    """
    source = Path(folder)
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (source / name).is_file():
            raise UsageError(f"{source} is not a model folder: it has no {name}; expected what save_model writes")
    config = ModelConfig.from_json((source / CONFIG_NAME).read_text(encoding="utf-8"), str(source / CONFIG_NAME))
    tensors = TensorFiles.open(source / WEIGHTS_NAME)
    stored = tensors[next(iter(tensors))].dtype if tensors else torch.float32
    model = FastWAM(config, seed=None, device=device, dtype=dtype or stored)
    load_exactly(model, tensors, str(source / WEIGHTS_NAME))
    return model


@torch.no_grad()
def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], where: str, skip: tuple[str, ...] = ()) -> None:
    """Copy tensors, read one at a time, into all parameters of a module but those whose names start with `skip`.

    StoreDamaged names what is missing, unknown, of another shape, quantised or not finite.
    """
    parameters = {name: p for name, p in module.named_parameters() if not (skip and name.startswith(skip))}
    missing, unknown = sorted(parameters.keys() - tensors.keys()), sorted(tensors.keys() - parameters.keys())
    if missing or unknown:
        parts = [_list(missing, "misses"), _list(unknown, "has unknown")]
        lora = any("lora" in name.lower() for name in unknown)
        advice = "; a LoRA adapter is merged with its model first" if lora else ""
        raise StoreDamaged(f"{where} does not fit the model: it {' and '.join(filter(None, parts))}{advice}")
    for name, parameter in parameters.items():
        value = tensors[name]
        if parameter.shape != value.shape:
            raise StoreDamaged(
                f"{where}: {name} has shape {tuple(value.shape)}, the model needs {tuple(parameter.shape)}"
            )
        if not value.is_floating_point() or value.element_size() < 2:
            raise StoreDamaged(f"{where}: {name} is quantised ({value.dtype}); expected bf16, float16 or float32")
        parameter.copy_(value)
        if not (parameter.is_meta or bool(torch.isfinite(parameter).all())):
            raise StoreDamaged(f"{where}: {name} holds values that are not finite; download or write the file again")


def _list(names: list[str], verb: str) -> str:
    """`misses 5 tensors (a, b, c, ...)`, or an empty string."""
    if not names:
        return ""
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{verb} {len(names)} tensor{'s' * (len(names) > 1)} ({', '.join(names[:_SHOWN])}{more})"
