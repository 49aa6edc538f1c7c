"""A run as a folder for RoboTwin, under a fake task environment and the control flow of RoboTwin's scripts."""

from __future__ import annotations

import ast
import importlib
import json
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from fake_store import FakeStore, FakeText
from robotwin_harness import CAMERAS, COLOURS, FakeTaskEnv, classic_episode, xpolicylab_episode, xpolicylab_observation
from serving import PictureVae, server, small_policy
from training import recipe, side_by_side

from fwdata.envs.base import Observation
from fwdata.errors import UsageError
from fwtrain import cli
from fwtrain.export import export_robotwin
from fwtrain.infer.policy import Policy
from fwtrain.recipe import DeployRecipe
from fwtrain.serve.server import PolicyServer, background
from fwtrain.train.run import train

DEPLOY = DeployRecipe(execute=24, gripper_clip=(6, 13))
NAME = "fwtrain_policy"


class Watched(Policy):
    """Keeps the observations it was asked with."""

    seen: list[Observation]

    def encode(self, observation: Observation) -> Any:
        self.seen.append(observation)
        return super().encode(observation)


def watched() -> Watched:
    policy = small_policy(deploy=DEPLOY)
    policy.__class__ = Watched
    assert isinstance(policy, Watched)
    policy.seen = []
    return policy


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("robotwin") / "run"
    train(FakeStore(), recipe("optim.steps=1", "deploy={execute: 24, gripper_clip: [6, 13]}"), out)
    return out


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory) -> Path:
    """The exported folder."""
    return export_robotwin(run, tmp_path_factory.mktemp("policy") / NAME).out


@pytest.fixture
def policy(folder: Path, monkeypatch) -> ModuleType:
    """The folder, imported by its name as RoboTwin does."""
    monkeypatch.syspath_prepend(str(folder.parent))
    for name in [name for name in sys.modules if name.split(".")[0] == NAME]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module(NAME)


@pytest.fixture(scope="module")
def served():
    """(policy, "host:port") of a server that most tests use."""
    found = watched()
    with background(server(found)) as (host, port):
        yield found, f"{host}:{port}"


def arguments(folder: Path, address: str, **overrides: Any) -> dict[str, Any]:
    """What RoboTwin's script makes of the folder's YAML and the command line."""
    found = yaml.safe_load((folder / "deploy_policy.yml").read_text())
    assert found["policy_name"] == NAME and found["seed"] == 0 and found["instruction_type"] == "unseen"
    quick = {"reconnect_seconds": 0, "left_arm_dim": 6, "right_arm_dim": 6, "task_name": "lift"}
    return {**found, **quick, "server": address, **overrides}


@pytest.mark.parametrize(
    ("options", "skip", "rendered_at"),
    [
        ({"whole_chunk": True}, False, [0, 24, 48]),
        ({"whole_chunk": False}, True, [0, 24, 48]),  # None inside a chunk
        ({"whole_chunk": False}, False, list(range(58))),  # a script without the flag renders for every action
        ({"execute": 10}, True, [0, 10, 20, 30, 40, 50]),
    ],
)
def test_chunks_end_where_the_server_says_and_the_limit_needs_no_multiple(
    policy, folder, served, options, skip, rendered_at
):
    env = FakeTaskEnv(step_lim=58)
    model = policy.get_model(arguments(folder, served[1], **options))
    before = len(served[0].seen)
    drawn = np.random.get_state()[1].copy()
    assert not classic_episode(policy, model, env, skip_get_obs_within_replan=skip)
    assert (np.random.get_state()[1] == drawn).all()  # RoboTwin draws its instructions from it
    assert env.take_action_cnt == 58 and env.silent == 0 and env.rendered_at == rendered_at
    step = options.get("execute", 24)
    assert len(served[0].seen) - before == len(range(0, 58, step))
    assert {action.dtype for action in env.actions} == {np.dtype(np.float64)}
    chunks = [expected(served[0], at)[:step] for at in range(0, 58, step)]
    assert np.stack(env.actions) == pytest.approx(np.concatenate(chunks)[:58], abs=1e-6)


def expected(policy: Policy, at: int) -> np.ndarray:
    """What the policy itself answers to the environment's observation after `at` actions."""
    found = FakeTaskEnv(take_action_cnt=at).get_obs()
    cameras = {name: found["observation"][name]["rgb"] for name in CAMERAS}
    state = found["joint_action"]["vector"].astype(np.float32)
    return policy.commands(Policy.act(policy, cameras, state, "lift the block", seed=42, steps=2))


def test_the_server_sees_rgb_the_state_and_the_instruction(policy, folder, served):
    env = FakeTaskEnv(step_lim=1, instruction="stack the bowls")
    classic_episode(policy, policy.get_model(arguments(folder, served[1])), env)
    observation = served[0].seen[-1]
    for name in CAMERAS:
        assert observation.cameras[name].shape == (240, 320, 3)
        assert (observation.cameras[name] == np.asarray(COLOURS[name], np.uint8)).all()
    assert observation.state == pytest.approx(np.linspace(-0.5, 0.5, 14), abs=1e-7)
    assert observation.instruction == "stack the bowls"


@pytest.mark.parametrize("whole_chunk", [True, False])
def test_success_inside_a_chunk_ends_the_episode_and_reset_empties_the_queue(policy, folder, served, whole_chunk):
    model = policy.get_model(arguments(folder, served[1], whole_chunk=whole_chunk))
    env = FakeTaskEnv(succeed_at=7)
    assert classic_episode(policy, model, env, skip_get_obs_within_replan=True)
    assert env.take_action_cnt == 7 and env.silent == 0 and env.rendered == 1
    assert not model.should_request_observation()
    policy.reset_model(model)
    assert model.should_request_observation()
    later = FakeTaskEnv(step_lim=3)
    classic_episode(policy, model, later, skip_get_obs_within_replan=True)
    assert later.rendered == 1 and (later.actions[0] == env.actions[0]).all()


def test_an_observation_that_was_not_given_is_asked_for(policy, folder, served):
    env = FakeTaskEnv()
    policy.eval(env, policy.get_model(arguments(folder, served[1])), None)
    assert env.rendered == 1 and env.take_action_cnt == 24


def test_a_server_that_is_gone_is_one_sentence_and_one_that_comes_back_is_used(policy, folder):
    error = policy.deploy_policy.RoboTwinPolicyError
    made = watched()
    with background(server(made)) as (host, port):
        model = policy.get_model(arguments(folder, f"{host}:{port}"))
        policy.eval(FakeTaskEnv(), model, None)
    with pytest.raises(error, match=rf"the policy server at ws://{host}:{port} cannot be reached .*fwtrain serve RUN"):
        policy.eval(FakeTaskEnv(), model, None)
    again = PolicyServer(made, port=port, steps=2)
    with background(again):
        env = FakeTaskEnv(step_lim=30)
        classic_episode(policy, model, env)
        assert env.take_action_cnt == 30
    policy.reset_model(model)
    with background(PolicyServer(made, port=port, steps=3)), pytest.raises(error, match="serves another policy"):
        policy.eval(FakeTaskEnv(), model, None)


def test_threads_of_the_connection_do_not_keep_the_process_alive(policy, folder, served, monkeypatch):
    """websockets 12 starts its reading thread as the kind of the thread that connects."""
    connect, kinds = policy.deploy_policy.connect, []

    def watch(*args: Any, **options: Any) -> Any:
        kinds.append(threading.current_thread().daemon)
        return connect(*args, **options)

    monkeypatch.setattr(policy.deploy_policy, "connect", watch)
    policy.get_model(arguments(folder, served[1]))
    assert kinds == [True]


def test_what_does_not_fit_is_refused_in_one_sentence(policy, folder, served, monkeypatch, tmp_path: Path):
    error = policy.deploy_policy.RoboTwinPolicyError
    with pytest.raises(error, match=r"execute is 25, the server sends 24 actions .* --execute 25"):
        policy.get_model(arguments(folder, served[1], execute=25))
    with pytest.raises(error, match="execute must be a whole number from 1, found 0"):
        policy.get_model(arguments(folder, served[1], execute=0))
    for changes, words in (
        ({"whole_chunk": "false"}, "whole_chunk must be True or False, found 'false'"),
        ({"server": 8000}, "server must be a text, found 8000"),
        ({"device": abs}, "device must be a text, found <built-in function abs>"),
        ({"timeout_seconds": "20 s"}, "timeout_seconds must be a number of seconds from 0, found '20 s'"),
        ({"token_file": str(tmp_path / "absent")}, "token_file .*absent cannot be read"),
        ({"record": str(tmp_path / "absent" / "log")}, "record .*log cannot be written"),
    ):
        with pytest.raises(error, match=words):
            policy.get_model(arguments(folder, served[1], **changes))
    model = policy.get_model(arguments(folder, served[1]))
    for change, message in (
        (lambda o: o["observation"].pop("left_camera"), r"no left_camera\.rgb; the task config needs"),
        (lambda o: o["joint_action"].pop("vector"), r"no joint_action\.vector"),
        (lambda o: o["joint_action"].update(vector=np.zeros(16)), "must have 14 values, found 16"),
        (lambda o: o["observation"]["head_camera"].update(rgb=np.zeros((4, 4, 3))), "must be uint8"),
    ):
        observation = FakeTaskEnv().get_obs()
        change(observation)
        with pytest.raises(error, match=message):
            policy.eval(FakeTaskEnv(), model, observation)
    with pytest.raises(error, match=r"answered: prompt must be a text of 1 to"):
        policy.eval(FakeTaskEnv(instruction=""), model, None)
    token = "a secret of many letters"
    (tmp_path / "token").write_text(f"{token}\n")
    with background(server(small_policy(deploy=DEPLOY), token=token)) as (host, port):
        with pytest.raises(error, match="refused the connection: 401"):
            policy.get_model(arguments(folder, f"{host}:{port}"))
        policy.get_model(arguments(folder, f"{host}:{port}", token_file=str(tmp_path / "token")))


def test_xpolicylabs_server_gets_the_same_actions(policy, folder, served, tmp_path: Path):
    found = yaml.safe_load((folder / "deploy.yml").read_text())
    assert found["policy_name"] == NAME and found["action_type"] == "joint"
    record = tmp_path / "record.jsonl"
    quick = {"server": served[1], "reconnect_seconds": 0, "host": "0.0.0.0", "port": 19000, "record": str(record)}
    model = importlib.import_module(f"{NAME}.model").Model({**found, **quick})
    env, classic = FakeTaskEnv(step_lim=58), FakeTaskEnv(step_lim=58)
    asked = len(served[0].seen)
    assert not xpolicylab_episode(model, env)
    assert len(served[0].seen) - asked == 3
    assert (served[0].seen[-1].cameras["left_camera"] == np.asarray(COLOURS["left_camera"], np.uint8)).all()
    classic_episode(policy, policy.get_model(arguments(folder, served[1])), classic)
    assert np.stack(env.actions) == pytest.approx(np.stack(classic.actions), abs=1e-6)
    assert xpolicylab_episode(model, FakeTaskEnv(succeed_at=30), seed=100001)
    about, *episodes = map(json.loads, record.read_text().splitlines())
    assert about["evaluation"]["execute"] == 24 and about["evaluation"]["server"]["variant"] == "fastwam"
    assert [(e["seed"], e["success"], e["chunks"]) for e in episodes] == [(100000, False, 3), (100001, True, 2)]
    with pytest.raises(policy.deploy_policy.RoboTwinPolicyError, match="before update_obs"):
        model.reset()
        model.get_action()
    with pytest.raises(policy.deploy_policy.RoboTwinPolicyError, match="action_type must be joint, found 'ee'"):
        importlib.import_module(f"{NAME}.model").Model({**found, **quick, "action_type": "ee"})
    for changes in ({"instruction": ""}, {"instruction": None, "instructions": ("", " ", "lift it")}):
        model.update_obs({**xpolicylab_observation(env.get_obs(), "lift the block"), **changes})
        model.get_action()
    assert [seen.instruction for seen in served[0].seen[-2:]] == ["lift the block", "lift it"]
    for changes in ({"instructions": []}, {"instructions": None}, {"instructions": "\n"}):
        model.update_obs({**xpolicylab_observation(env.get_obs(), ""), **changes})
        with pytest.raises(policy.deploy_policy.RoboTwinPolicyError, match="`instruction` is empty and `instructions`"):
            model.get_action()


def test_the_record_names_every_episodes_instruction_and_end(policy, folder, served, tmp_path: Path):
    record = tmp_path / "record.jsonl"
    model = policy.get_model(arguments(folder, served[1], record=str(record)))
    classic_episode(policy, model, FakeTaskEnv(succeed_at=30))
    classic_episode(policy, model, FakeTaskEnv(step_lim=20, instruction="stack"))
    policy.reset_model(model)
    about, *episodes = map(json.loads, record.read_text().splitlines())
    assert about["evaluation"]["seed"] == 0 and about["evaluation"]["instruction_type"] == "unseen"
    assert episodes == [
        {"instruction": "lift the block", "chunks": 2, "actions": 30, "success": True},
        {"instruction": "stack", "chunks": 1, "actions": 20, "success": False},
    ]


def test_in_process_it_acts_as_over_the_wire(policy, folder, run, monkeypatch):
    load = Policy.load

    def with_encoders(path: Any, **options: Any) -> Policy:
        return load(path, PictureVae(), text=FakeText(), **options)

    monkeypatch.setattr(Policy, "load", with_encoders)
    model = policy.get_model(arguments(folder, "nowhere:1", run=str(run), device="cpu"))
    env, other = FakeTaskEnv(step_lim=30), FakeTaskEnv(step_lim=30)
    classic_episode(policy, model, env)
    with background(PolicyServer(with_encoders(run, device="cpu"), port=0)) as (host, port):
        classic_episode(policy, policy.get_model(arguments(folder, f"{host}:{port}")), other)
    assert np.stack(env.actions) == pytest.approx(np.stack(other.actions), abs=1e-6)


def test_the_file_needs_python_3_10_and_three_packages_only(folder: Path):
    standard = {"atexit", "contextlib", "json", "logging", "threading", "time", "collections", "concurrent"}
    standard |= {"dataclasses", "functools", "pathlib", "typing"}
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add("here" if node.level else (node.module or "").split(".")[0])
        lazily = {"fwtrain"} if path.name == "deploy_policy.py" else set()  # inside the function for `run`
        assert found <= standard | {"__future__", "here", "numpy", "msgpack", "websockets"} | lazily, path


def test_runs_of_other_robots_and_names_python_cannot_import_are_refused(run, tmp_path: Path, monkeypatch, capsys):
    with pytest.raises(UsageError, match=r"'my-policy' as a Python package: choose a name"):
        export_robotwin(run, tmp_path / "my-policy")
    train(side_by_side(FakeStore()), recipe("optim.steps=1"), tmp_path / "other")
    with pytest.raises(UsageError, match=r"has cameras \['image', 'wrist_image'\], RoboTwin gives"):
        export_robotwin(tmp_path / "other", tmp_path / "policy")
    assert not (tmp_path / "policy").exists()
    out = tmp_path / "policy"
    monkeypatch.setattr(sys, "argv", ["fwtrain", "export", "robotwin-policy", str(run), str(out), "--json"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    data = json.loads(capsys.readouterr().out)
    assert (end.value.code or 0) == 0 and data["format"] == "robotwin-policy" and "fwtrain serve" in data["notes"][0]
    assert {path.name for path in out.iterdir()} == {
        *("__init__.py", "deploy_policy.py", "deploy_policy.yml", "model.py", "deploy.yml", "fwtrain_export.json")
    }
