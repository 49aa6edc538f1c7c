"""Recipes: files, overrides, and what may change when a run continues."""

from __future__ import annotations

import pytest

from fwdata.errors import ManifestError, UsageError
from fwtrain.recipe import load_recipe, parse_recipe, recipe_names
from fwtrain.recipe_changes import FREE_TO_CHANGE, differences, flatten


def test_every_built_in_recipe_loads_and_survives_its_own_yaml():
    assert recipe_names() == ["generic", "libero", "r1lite", "robotwin", "tiny"]
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert parse_recipe(recipe.to_yaml(), name) == recipe


@pytest.mark.parametrize(("name", "batch", "steps"), [("robotwin", 1024, 30000), ("libero", 128, 20000)])
def test_published_hyper_parameters(name: str, batch: int, steps: int):
    recipe = load_recipe(name)
    optim, model = recipe.optim, recipe.model
    assert optim.batch_size * optim.accumulation == batch
    assert (optim.steps, optim.lr, optim.betas, optim.eps) == (steps, 1e-4, (0.9, 0.95), 1e-8)
    assert (optim.weight_decay, optim.warmup_fraction, optim.min_lr_ratio, optim.clip) == (0.01, 0.05, 0.01, None)
    assert (model.preset, model.variant, model.video_shift, model.action_shift) == ("wan2.2-5b", "fastwam", 5.0, None)
    assert (recipe.precision, recipe.seed) == ("bf16", 42)


def test_override_reads_yaml_values_and_replaces_the_length():
    recipe = load_recipe(
        "tiny", ["optim.lr=3e-4", "optim.epochs=2", "data.latents=other", "optim.betas=[0.8, 0.9]", "keep_last=null"]
    )
    assert recipe.optim.lr == 3e-4
    assert (recipe.optim.epochs, recipe.optim.steps) == (2, None)
    assert recipe.optim.betas == (0.8, 0.9)
    assert recipe.data.latents == "other"
    assert recipe.keep_last is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning=1", "unknown key 'optim.learning'"),
        ("optim.lrr=1", "did you mean 'optim.lr'"),
        ("optimm.lr=1", "did you mean 'optim'"),
        ("seed.x=1", "'seed' is a single value"),
        ("optim.lr=fast", "optim.lr"),
        ("optim.lr=-1", "optim.lr"),
        ("model.preset=wan2.2-5b", "remove video, action, layers, heads, head_dim"),
        ("model.variant=fast", "model.variant"),
        ("precision=fp16", "precision"),
    ],
)
def test_wrong_override_is_one_sentence_naming_the_key(override: str, message: str):
    with pytest.raises(ManifestError) as error:
        load_recipe("tiny", ["seed=1", override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_override_without_equals_sign():
    with pytest.raises(UsageError, match="key=value"):
        load_recipe("tiny", ["seed"])


def test_unknown_recipe_names_the_closest(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'robotwin'"):
        load_recipe("robottwin")
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\noptim: {steps: 1, epochs: 1}\nmodel: {preset: wan2.2-5b}\n")
    with pytest.raises(ManifestError, match="exactly one of steps and epochs"):
        load_recipe(str(path))
    path.write_text("- a\n")
    with pytest.raises(ManifestError, match="mapping"):
        load_recipe(str(path))


def test_differences_name_old_and_new_value_and_ignore_what_changes_no_weight():
    recipe = load_recipe("tiny")
    assert differences(recipe, load_recipe("tiny", ["optim.lr=0.5"])) == ["optim.lr: 0.001 -> 0.5"]
    assert differences(recipe, load_recipe("tiny", ["save_every=7", "data.workers=3"])) == []
    assert set(flatten(recipe)) >= FREE_TO_CHANGE
