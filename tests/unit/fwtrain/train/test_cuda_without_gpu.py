"""What a GPU would be asked to do, on tensors that have a device and no data: no copy that waits, no read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from fake_cuda import Waits
from torch._subclasses.fake_tensor import FakeTensorMode

from fwtrain.model import VARIANTS, FastWAM, ModelConfig
from fwtrain.model.training import losses
from fwtrain.recipe import load_recipe
from fwtrain.train.build import prepare
from fwtrain.train.loop import Meter
from fwtrain.train.moments import code_list, code_values
from fwtrain.train.optim import Optimizer
from fwtrain.train.peaks import empty_inputs


def one_step(
    variant: str, layers: int, *overrides: str, modes: list[float] | None = None
) -> tuple[list[str], torch.Tensor]:
    """The waits of a whole optimizer step of the published widths on fake CUDA tensors, and its gradient norm.

    modes: uniforms that choose the mode of each of 4 samples.
    """
    recipe = load_recipe("robotwin", ["model.init=null", *overrides])
    config = ModelConfig.wan22_5b(14, 14, latent_grid=(3, 24, 20), variant=variant)
    experts = {name: getattr(config, name) for name in ("video_expert", "action_expert")}
    few = {name: expert.model_copy(update={"num_layers": layers}) for name, expert in experts.items()}
    config = config.model_copy(update=few)
    batch, draws = empty_inputs(config, 4, device="cpu")
    if modes is not None:
        draws = replace(draws, mode_uniform=torch.tensor(modes))
    for signed in (True, False):
        code_list(signed)  # computed on the CPU, once
    code_values.cache_clear()  # a table of another fake device
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = FastWAM(config, seed=None, device="cuda", dtype=torch.bfloat16)
        prepare(model, recipe, counted=recipe.lora is not None)  # peft moves modules, which fake tensors cannot
        cuda = batch.to("cuda", torch.bfloat16)
        optimizer, meter = Optimizer(model, recipe.optim), Meter(torch.device("cuda"))
        for step in range(2):  # state is made in the first
            with Waits() as waits:
                found = model(losses, cuda, draws)
                for parameter in model.parameters():  # a backward pass needs a driver; its kernels are the forward's
                    parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
                norm = optimizer.step(1e-4)
                meter.add(step, torch.stack(found).detach().float(), 1.0, norm)
        assert found.total.device.type == norm.device.type == "cuda"
    code_values.cache_clear()
    return waits.found, norm


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [(), ("optim.moments=8bit", "gradient_checkpointing=true"), ("freeze=video",), ("lora.rank=16",)]
)
def test_a_step_never_waits_for_the_device(overrides: tuple[str, ...]) -> None:
    assert one_step("fastwam", 2, *overrides)[0] == []


@pytest.mark.slow
def test_samples_of_two_modes_in_a_batch_do_not_wait() -> None:
    """As in nearly every batch of a variant with two modes; a batch of one mode is not cut."""
    assert one_step("optional-idm", 2, modes=[0.0, 1.0, 1.0, 0.0])[0] == []


@pytest.mark.parametrize("layers", [pytest.param(3, marks=pytest.mark.slow), pytest.param(30, marks=pytest.mark.fault)])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_no_variant_waits_at_full_width(variant: str, layers: int) -> None:
    """A first layer, one between and a last; at all 30 layers under -m fault."""
    assert one_step(variant, layers)[0] == []


def test_the_detector_sees_a_read_and_a_blocking_copy() -> None:
    def seen(work: Callable[[torch.Tensor], object]) -> list[str]:
        with FakeTensorMode(allow_non_fake_inputs=True):
            tensor = torch.empty(3, device="cuda")
            with Waits() as waits:
                work(tensor)
        return waits.found

    assert seen(lambda t: t.to("cpu"))
    assert seen(lambda t: t.new_tensor(2.0))
    assert seen(lambda t: t[torch.tensor([0, 2])])
    with pytest.raises(torch._subclasses.fake_tensor.DynamicOutputShapeException):
        seen(lambda t: t.nonzero())  # a size that only the data tell
    assert not seen(lambda t: t.to("cpu", non_blocking=True))
    assert not seen(lambda t: t + 1)
