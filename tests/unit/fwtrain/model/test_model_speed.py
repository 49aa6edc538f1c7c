"""What the hot path must not do: wait for the device, take boolean masks, use float64 tables, break graphs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from model_case import lively, random_batch, small_config

from fwtrain.model import VARIANTS, FastWAM, draw, training
from fwtrain.model.rope import action_table, video_table
from fwtrain.model.text import merged_text


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_never_asks_for_a_value(variant):
    """Tensors of the meta device have no values: anything that waited for one would raise."""
    config = small_config(variant)
    batch = random_batch(config)
    draws = draw(batch, variant, torch.Generator().manual_seed(1))
    model = FastWAM(config, seed=None, device="meta")
    losses = training.losses(model, batch.to("meta"), draws)
    losses.total.backward()
    assert losses.total.is_meta
    assert model.action.head.weight.grad is not None


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_has_no_boolean_mask_and_self_attention_none(variant, device, monkeypatch):
    config = small_config(variant)
    batch = random_batch(config)
    draws = draw(batch, variant, torch.Generator().manual_seed(1))
    plain, masks = F.scaled_dot_product_attention, []

    def watched(q, k, v, attn_mask=None):
        masks.append((k.shape[2], attn_mask))
        return plain(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    model = lively(config) if device == "cpu" else FastWAM(config, seed=None, device="meta")
    training.losses(model, batch.to(device), draws)
    used = [mask for _, mask in masks if mask is not None]
    assert all(mask.dtype == torch.float32 and mask.shape[:3] == (1, 1, 1) for mask in used)
    assert bool(used) == (device == "cpu")  # elsewhere a bias would rule out flash kernels
    assert all(mask.shape[3] == keys == 5 for keys, mask in masks if mask is not None)  # text only: 3 + zero + state


def test_zero_text_rows_are_computed_once_on_every_device():
    """A GPU is not asked how many rows are in use; a batch that was made on the CPU knows."""
    config = small_config()
    batch = random_batch(config)
    draws = draw(batch, "fastwam", torch.Generator().manual_seed(1))
    for device in ("cpu", "meta"):
        model, seen = FastWAM(config, seed=None, device=device), []
        for expert in (model.video, model.action):
            expert.text_embedding.register_forward_pre_hook(
                lambda module, args, seen=seen: seen.append(args[0].shape[1])
            )
        training.losses(model, batch.to(device), draws)
        assert seen == [5, 5]  # 3 in use, one zero row for 4, the state
    assert batch.to("meta").to("meta").text_rows == 3
    assert replace(batch, context=torch.ones_like(batch.context)).text_rows == 7
    assert random_batch(config).to("meta", torch.float16).context.dtype == torch.float16


@pytest.mark.parametrize("variant", VARIANTS)
def test_repeated_zero_rows_equal_ordinary_ones(variant, monkeypatch):
    """The way of a GPU, on the CPU: the finished key and value repeated, no bias."""
    model, batch = lively(small_config(variant)), random_batch(small_config(variant))
    draws = draw(batch, variant, torch.Generator().manual_seed(1))

    def losses_and_gradients(change):
        monkeypatch.setattr("fwtrain.model.fastwam.merged_text", change)
        losses = training.losses(model, batch, draws)
        model.zero_grad()
        losses.total.backward()
        return losses, {name: p.grad for name, p in model.named_parameters()}

    def repeated(context, token, used):
        assert used == 3
        return merged_text(context, token, used)._replace(bias=None)

    plain, grads = losses_and_gradients(lambda context, token, used: merged_text(context, token, context.shape[1]))
    merged, same = losses_and_gradients(repeated)
    torch.testing.assert_close(merged.total, plain.total, rtol=1e-6, atol=1e-6)
    for name, value in grads.items():
        torch.testing.assert_close(value, same[name], rtol=1e-4, atol=1e-5, msg=name)


def test_windows_without_future_never_touch_future_tokens():
    config = small_config()
    batch = random_batch(config)
    model, seen = lively(config), []
    model.video.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    draws = draw(batch, "fastwam", torch.Generator().manual_seed(1))
    training.losses(model, replace(batch, future=None, future_is_pad=None), draws)
    training.losses(model, batch, draws)
    assert seen == [1, 3]


def test_tables_are_single_precision():
    device = torch.device("cpu")
    assert video_table((0, 1), 2, 2, 12, device).dtype == torch.complex64
    assert action_table(4, 12, device).dtype == torch.complex64
    assert video_table((0, 1), 2, 2, 12, device) is video_table((0, 1), 2, 2, 12, device)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("variant", ["fastwam", "idm"])
def test_layers_are_captured_whole(variant):
    model = lively(small_config(variant))
    batch = random_batch(model.config)
    draws = draw(batch, variant, torch.Generator().manual_seed(1))
    plain = training.losses(model, batch, draws).total
    model.compile_layers(backend="eager", fullgraph=True)
    torch.testing.assert_close(training.losses(model, batch, draws).total, plain)
