"""A policy to a hub on this machine, and a new run that starts from it; an exported dataset, as lerobot finds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from fake_store import FakeStore
from hub_server import HubServer
from training import recipe

from fwdata.share.lerobot import push_lerobot
from fwtrain.export.push import push_run
from fwtrain.train.run import train


@pytest.mark.slow
def test_a_pushed_policy_has_its_weights_recipe_and_card(hub: HubServer, tmp_path: Path):
    out = tmp_path / "run"
    train(FakeStore(), recipe("optim.steps=2", "save_every=1", "eval_every=1"), out)
    step, sent = push_run(out, "me/policy", "apache-2.0")
    files = hub.repositories["me/policy"]
    assert step == 2 and {"config.json", "model.safetensors", "recipe.yaml", "run.json", "README.md"} <= files.keys()
    assert sent == len(files) - 1 and files["recipe.yaml"] == (out / "recipe.yaml").read_bytes()
    text = files["README.md"].decode()
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "apache-2.0" and head["pipeline_tag"] == "robotics"
    assert "model.init=fastwam:me/policy" in text and "mean absolute action error" in text
    assert push_run(out, "me/policy", "apache-2.0") == (2, 0)
    assert [item.name for item in tmp_path.iterdir()] == ["run"]


def test_a_pushed_dataset_is_tagged_with_its_format(hub: HubServer, tmp_path: Path):
    (tmp_path / "meta").mkdir()
    info = {"codebase_version": "v3.0", "total_episodes": 2, "total_frames": 80, "fps": 20}
    (tmp_path / "meta" / "info.json").write_text(json.dumps(info))
    assert push_lerobot(tmp_path, "me/set", "mit") == 1
    assert hub.tags == [("datasets/me/set", "v3.0")]
    assert b"2 episodes, 80 frames" in hub.repositories["datasets/me/set"]["README.md"]


def test_a_policy_is_not_pushed_to_another_owner_or_by_nobody(hub: HubServer, tmp_path: Path, call, monkeypatch):
    out = tmp_path / "run"
    train(FakeStore(), recipe("optim.steps=1", "save_every=1", "eval_every=1"), out)
    monkeypatch.setattr("huggingface_hub.utils._auth._get_token_from_file", lambda: None)
    code, _, err = call("push", out, "you/policy", "--license", "mit")
    assert code == 2 and "you/policy on the hub: the token may not do this (403: You don't have the rights" in err
    monkeypatch.setenv("HF_TOKEN", "hf_stolen")
    code, _, err = call("push", out, "me/policy", "--license", "mit")
    assert code == 2 and "the token was not accepted (401" in err and err.count("\n") == 1
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = call("push", out, "me/policy", "--license", "mit", "--json")
    assert code == 2 and "there is no token on this machine; log in with `hf auth login`" in err
    assert not hub.repositories and [item.name for item in tmp_path.iterdir()] == ["run"]
