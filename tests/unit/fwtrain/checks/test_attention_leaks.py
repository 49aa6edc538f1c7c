"""Where information flows, by gradients, on the user's own configuration; and that a broken rule is caught."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from model_case import small_config
from training import SMALL

from fwtrain import variants
from fwtrain.checks.attention_leaks import check_reach, shrunk
from fwtrain.model import VARIANTS, ModelConfig, sampling
from fwtrain.recipe import recipe_names
from fwtrain.variants import FIRST_FRAME, IDM, JOINT

pytestmark = pytest.mark.usefixtures("memory_store")


def found(config):
    """{(phase, query, key): whether a gradient arrives}."""
    return {(c.phase, c.query, c.key): c.largest > 0 for c in check_reach(config)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_sees_what_it_may_and_nothing_else(variant):
    cells = check_reach(small_config(variant))
    assert [c for c in cells if not c.ok] == []
    modes = VARIANTS[variant].mode_names
    names = {""} if len(modes) == 1 else {f" {mode}" for mode in modes}
    assert {c.phase for c in cells} == {phase + name for phase in ("train", "sample") for name in names}


def test_future_latents_reach_actions_only_where_the_variant_says():
    leak = {v: found(small_config(v)) for v in ("fastwam", "joint", "idm", "no-video")}
    both = found(small_config("optional-idm"))
    assert both["sample idm", "action", "future"] and not both["sample first-frame", "action", "future"]
    assert both["train idm", "action", "copy"] and not both["train first-frame", "action", "copy"]
    assert {v: seen["sample", "action", "future"] for v, seen in leak.items()} == {
        "fastwam": False, "joint": True, "idm": True, "no-video": False
    }  # fmt: skip
    assert {v: seen["train", "action", "future"] for v, seen in leak.items()} == {
        "fastwam": False, "joint": True, "idm": False, "no-video": False
    }  # fmt: skip
    assert leak["idm"]["train", "action", "copy"]
    assert not any(
        seen[p, q, "action"] for seen in leak.values() for p, q, k in seen if k == "action" and q != "action"
    )


def wire(monkeypatch, variant, *modes):
    """Give a variant the wiring of another, under the names of its own modes."""
    own = VARIANTS[variant]
    named = tuple(replace(mode, name=name) for mode, name in zip(modes, own.mode_names, strict=True))
    keys = {key: 0.5 for key in own.probabilities if key != "cond_noise_prob" or any(m.copy for m in modes)}
    monkeypatch.setitem(VARIANTS, variant, replace(own, modes=named, probabilities=keys))


@pytest.mark.parametrize(
    ("variant", "broken", "expected"),
    [
        ("fastwam", JOINT, ("train", "action", "future")),
        ("fastwam", JOINT, ("sample", "action", "future")),
        ("joint", FIRST_FRAME, ("train", "action", "future")),
        ("idm", FIRST_FRAME, ("train", "action", "copy")),
    ],
)
def test_a_broken_variant_is_caught(monkeypatch, variant, broken, expected):
    wire(monkeypatch, variant, broken)
    wrong = {(c.phase, c.query, c.key) for c in check_reach(small_config(variant)) if not c.ok}
    assert expected in wrong


def test_modes_that_are_swapped_are_caught(monkeypatch):
    wire(monkeypatch, "optional-idm", FIRST_FRAME, IDM)
    wrong = {(c.phase, c.query, c.key) for c in check_reach(small_config("optional-idm")) if not c.ok}
    assert {("train idm", "action", "copy"), ("sample first-frame", "action", "future")} <= wrong


def test_a_first_frame_that_sees_the_future_is_caught(monkeypatch):
    monkeypatch.setitem(variants.VIDEO_SEES, "first", ("future", "first"))
    variants.video_calls.cache_clear()
    try:
        wrong = {(c.phase, c.query, c.key) for c in check_reach(small_config()) if not c.ok}
    finally:
        variants.video_calls.cache_clear()
    assert {("train", "first", "future"), ("train", "action", "future")} <= wrong
    assert ("train", "future", "action") not in wrong


def test_a_sampler_that_loses_the_given_first_frame_is_caught(monkeypatch):
    plain = sampling._denoise_video
    monkeypatch.setattr(sampling, "_denoise_video", lambda run, state: plain(run, state).roll(1, 2))
    assert ("sample", "first", "future") in {
        (c.phase, c.query, c.key) for c in check_reach(small_config()) if not c.ok
    }  # fmt: skip


def test_the_published_size_keeps_its_structure():
    small = shrunk(ModelConfig.wan22_5b(7, 8, variant="idm"))
    assert (small.video_expert.num_layers, small.video_expert.num_heads, small.latent_grid[0]) == (30, 24, 3)
    assert small.variant == "idm"
    assert all(c.ok for c in check_reach(small_config(layers=1, variant="idm")))
    assert all(c.ok for c in check_reach(small_config().replace(proprio_dim=None)))
    assert all(c.ok for c in check_reach(small_config(lambda_video=0.0)))


@pytest.mark.slow  # 30 layers, 24 heads
@pytest.mark.parametrize("name", recipe_names())
def test_every_built_in_recipe_is_tight(call, name):
    code, out, _ = call("check-mask", "--recipe", name, "--threads", 1, "--json")
    assert code == 0
    assert json.loads(out)["ok"]


def test_the_command_prints_a_table_and_ends_with_1_on_a_leak(call, monkeypatch):
    code, out, _ = call("check-mask", "--variant", "joint", "--threads", 1)
    assert code == 0
    assert "joint: 3 layers, 4 heads, 3 latent frames" in out
    wire(monkeypatch, "fastwam", JOINT)
    code, out, err = call("check-mask", "--recipe", "tiny", "--threads", 1)
    assert code == 1
    assert "LEAK" in out
    assert "pairs are wrong: train: action sees future" in err
    code, out, err = call("check-mask", "--threads", 1)
    assert code == 2 and not out and "--recipe" in err and "libero" in err
    code, _, err = call("check-mask", "--recipe", "tiny", "--variant", "idm")
    assert code == 2
    assert "exclude each other" in err


@pytest.mark.slow
def test_a_runs_own_model_is_checked(call, tmp_path, monkeypatch):
    flags = [part for override in (*SMALL, "model.variant=idm") for part in ("--set", override)]
    code, _, err = call("run", "s.zarr", "--recipe", "tiny", "--out", tmp_path, *flags, "--steps", 1, "--threads", 1)
    assert code == 0, err
    code, out, _ = call("check-mask", "--run", tmp_path, "--threads", 1, "--json")
    assert code == 0
    assert json.loads(out)["ok"]
    code, out, _ = call("check-mask", "--run", tmp_path, "--threads", 1)
    assert code == 0
    assert out.startswith("idm: ")
    wire(monkeypatch, "idm", FIRST_FRAME)
    code, _, err = call("check-mask", "--run", tmp_path, "--threads", 1)
    assert code == 1
    assert "train: action does not see copy" in err
    code, _, err = call("check-mask", "--run", tmp_path, "--set", "model.layers=1")
    assert code == 2
    assert "--set changes a recipe" in err
    code, _, err = call("check-mask", "--run", tmp_path / "none")
    assert code == 2
    assert "is not a run folder" in err
