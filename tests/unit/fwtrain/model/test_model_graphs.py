"""The action loop as a captured graph. Without a GPU a capture is played: it reruns the loop on the captured inputs."""

from __future__ import annotations

import pytest
import torch
from gpu_figures import MARKS, ON_GPU
from gpu_figures import device as device
from model_case import lively, random_batch, small_config

from fwtrain.model import VARIANTS, Denoising, FastWAM, Graphs, Noise, sampling
from fwtrain.model.graphs import GRAPHS_KEPT, Captured


def played(loop, inputs):
    """A capture without a GPU: like a graph's, its memory is fixed, and all it knows of a call are those inputs."""
    kept = [value.clone() for value in inputs]
    output = loop(kept)
    return Captured(kept, lambda: output.copy_(loop(kept)), output)


class Counted:
    """A played capture that counts."""

    def __init__(self) -> None:
        self.captures = 0

    def __call__(self, loop, inputs):
        self.captures += 1
        return played(loop, inputs)


def act(model: FastWAM, size: int, seed: int, steps: int = 3, shift: float | None = None):
    batch = random_batch(model.config, size, seed)
    context = torch.randn(batch.context.shape, generator=torch.Generator().manual_seed(seed))  # no zero rows: no bias
    generator = torch.Generator().manual_seed(seed)
    where = model.device
    seen = batch.first.to(where), context.to(where), batch.proprio.to(where)
    how = Denoising(steps=steps, video_shift=shift, action_shift=shift)
    return sampling.sample(model, *seen, Noise(generator=generator), how, video=False).action


@pytest.mark.parametrize("variant", VARIANTS)
def test_replayed_calls_equal_plain_ones(variant):
    model, counted = lively(small_config(variant)), Counted()
    calls = [(1, 0), (2, 1), (1, 2), (2, 3), (1, 0)]
    plain = [act(model, *call) for call in calls]
    model.graphs = Graphs(counted)
    for call, expected in zip(calls, plain, strict=True):
        assert torch.equal(act(model, *call), expected)
    assert counted.captures == (0 if variant == "joint" else 2)  # per batch size; joint has no such loop


def test_another_grid_or_mode_is_another_graph():
    model, counted = lively(small_config()), Counted()
    plain = act(model, 1, 0, shift=2.0)
    model.graphs = Graphs(counted)
    first = act(model, 1, 0)
    assert torch.equal(act(model, 1, 0, shift=2.0), plain)
    assert not torch.equal(first, plain)
    with torch.inference_mode():
        act(model, 1, 0)
    act(model, 1, 0, steps=2)
    assert counted.captures == 4


def test_an_answer_stays_as_it_is_and_old_graphs_go():
    model, counted = lively(small_config()), Counted()
    model.graphs = Graphs(counted)
    first = act(model, 1, 0)
    kept = first.clone()
    act(model, 1, 1)
    assert torch.equal(first, kept)
    for size in range(2, GRAPHS_KEPT + 2):
        act(model, size, 0, steps=1)
    before = counted.captures
    act(model, GRAPHS_KEPT + 1, 0, steps=1)
    assert counted.captures == before
    act(model, 1, 0)
    assert counted.captures == before + 1


def test_who_looks_at_the_steps_or_their_gradients_gets_the_plain_loop():
    model, counted, seen = lively(small_config()), Counted(), []
    model.graphs = Graphs(counted)
    batch = random_batch(model.config)
    seen_at = batch.first, batch.context, batch.proprio
    sampling.sample(model, *seen_at, how=Denoising(steps=2), observe=lambda name, i, value: seen.append(name))
    assert seen.count("action") == 2 and counted.captures == 0


@pytest.mark.parametrize("variant", [pytest.param(name, marks=MARKS) for name in ("fastwam", "idm")])
def test_a_real_capture_equals_the_plain_loop(variant, device):
    model = lively(small_config(variant)).to(device)
    plain = [act(model, 1, seed) for seed in (0, 1)]
    model.graphs = Graphs() if ON_GPU else Graphs(played)
    for seed in (0, 1):
        torch.testing.assert_close(act(model, 1, seed), plain[seed], rtol=1e-5, atol=1e-5)
