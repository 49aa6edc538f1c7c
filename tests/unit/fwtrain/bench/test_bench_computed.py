"""Counted FLOPs against the published cost model; the tables of `fwtrain bench`."""

from __future__ import annotations

import json

import pytest

from fwtrain.bench.cases import SIZES, Size
from fwtrain.bench.computed import computed
from fwtrain.model import VARIANTS, ModelConfig
from fwtrain.model.flops import chunk_flops, forward_flops
from fwtrain.variants import title

pytestmark = pytest.mark.usefixtures("memory_store")

SEPARATE_ROWS = 129
"""The published counts have every zero row of the text as a key of its own."""


@pytest.mark.parametrize(("grid", "tflop"), [((3, 14, 28), 2.90), ((3, 24, 20), 3.50)])
@pytest.mark.parametrize("variant", ["fastwam", "joint"])
def test_training_flops_are_the_published_ones(variant, grid, tflop):
    config = ModelConfig.wan22_5b(7, 8, variant=variant, latent_grid=grid)
    assert forward_flops(config, SEPARATE_ROWS) / 1e12 == pytest.approx(tflop, rel=0.03)  # without times per token


def test_less_is_computed_where_less_is_needed():
    flops = {v: forward_flops(ModelConfig.wan22_5b(7, 8, variant=v)) for v in ("fastwam", "joint", "idm", "no-video")}
    assert flops["no-video"] < 0.4 * flops["fastwam"] < flops["joint"] < flops["idm"]
    assert flops["idm"] / 1e12 < 0.85 * 5.62  # the release computes frame 0 twice and all text rows
    chunks = {v: chunk_flops(ModelConfig.wan22_5b(7, 8, variant=v)) for v in flops}
    assert chunks["fastwam"] == chunks["no-video"] < chunks["joint"] < chunks["idm"]


@pytest.mark.slow
def test_the_table_is_marked_as_computed(call):
    code, out, err = call("bench", "train", "--computed")
    assert code == 0
    assert "COMPUTED, not measured" in out
    assert "assumed: 20% of the bf16 peak" in err
    code, out, _ = call("bench", "train", "--computed", "--json")
    data = json.loads(out)
    assert data["measured"] is False
    assert len(data["rows"]) == len(computed()) == 12
    assert [row["variant"] for row in data["rows"]][6:10:2] == ["optional-idm (idm)", "optional-idm (first-frame)"]
    code, _, err = call("bench", "train", "--size", "50M")
    assert code == 2
    assert "did you mean '50m'" in err


@pytest.mark.slow
def test_latency_prints_every_stage_of_every_variant(call, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", Size((24, 48), (16, 32), 2, 2, 12, 10, 2))
    flags = ("bench", "latency", "--steps", 2, "--repeats", 1, "--device", "cpu")
    code, out, _ = call(*flags, "--batch", 2, "--json")
    assert code == 0
    stages = json.loads(out)["stages"]
    named = [title(rules, mode) for rules in VARIANTS.values() for mode in rules.mode_names]
    assert [(s["variant"], s["stage"]) for s in stages] == [
        (name, stage) for name in named for stage in ("text", "prefill", "step", "chunk")
    ]
    assert all(s["seconds"] > 0 for s in stages if s["stage"] in ("text", "chunk"))
    assert all(s["seconds"] >= 0 for s in stages)  # a step is the difference of two chunks, a prefill of two of these
    code, out, _ = call(*flags, "--variant", "idm")
    assert code == 0
    assert "idm" in out
    assert "joint" not in out
    assert call("bench", "latency", "--steps", 1)[0] == 2
    assert "did you mean 'joint'" in call("bench", "latency", "--variant", "jiont")[2]
